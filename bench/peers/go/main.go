// peers answers the questions of redcache's benches for clients written in Go, so that a bench may
// ask them and ours in turns. Each line of standard input is a question, each line of standard
// output its answer, both JSON: see bench/support/peer.lua.
// usage: peers PORT    of Redis on 127.0.0.1; ends with its input
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
)

// Question names what is asked and what of; what a question does not use is left at 0.
type Question struct {
	Ask        string // "rival.question"
	Calls      int    // one after the other
	Goroutines int    // callers at once, each of which makes Calls calls
	Keys       int    // how many different ones
	List       int    // keys of one call for many
	Bytes      int    // of a value
	Seconds    float64
}

// Figures is an answer: numbers by name, of the same names and units as those of the Lua side.
type Figures map[string]float64

// An ask answers one question. It opens its client at the first one and keeps it.
type ask func(address string, q Question) (Figures, error)

// What can be asked: "rival.question". The files of the rivals fill it.
var asks = map[string]ask{}

// The modules that are measured, and their versions.
var modules = map[string]string{
	"rueidis":    "github.com/redis/rueidis",
	"goredis":    "github.com/redis/go-redis/v9",
	"goredcache": "github.com/dcbickfo/redcache",
}

func versions() map[string]string {
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, module := range info.Deps {
		for rival, path := range modules {
			if module.Path == path {
				found[rival] = module.Version
			}
		}
	}
	return found
}

func serve(address string) error {
	out := json.NewEncoder(os.Stdout)
	known := map[string]bool{}
	for name := range asks {
		known[name] = true
	}
	if err := out.Encode(map[string]any{"asks": known, "versions": versions()}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var q Question
		err := json.Unmarshal(in.Bytes(), &q)
		var figures Figures
		if err == nil {
			if answer, ok := asks[q.Ask]; ok {
				figures, err = answer(address, q)
			} else {
				err = fmt.Errorf("nobody here answers %q", q.Ask)
			}
		}
		reply := map[string]any{"figures": figures}
		if err != nil {
			reply = map[string]any{"error": err.Error()}
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
	return in.Err()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: peers PORT")
		os.Exit(2)
	}
	if err := serve("127.0.0.1:" + os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
