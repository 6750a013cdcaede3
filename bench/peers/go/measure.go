package main

import (
	"math/rand/v2"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"time"
)

// text is a random printable string.
func text(length int) string {
	bytes := make([]byte, length)
	for i := range bytes {
		bytes[i] = byte(33 + rand.IntN(94))
	}
	return string(bytes)
}

// texts are that many random strings of 16 bytes: keys nobody has asked for before.
func texts(count int) []string {
	list := make([]string, count)
	for i := range list {
		list[i] = text(16)
	}
	return list
}

// lists are lists of `length` different keys in random order, 64 of them.
func lists(keys []string, length int) [][]string {
	all := make([][]string, 64)
	for i := range all {
		for _, at := range rand.Perm(len(keys))[:length] {
			all[i] = append(all[i], keys[at])
		}
	}
	return all
}

// shuffled holds each key `times` times.
func shuffled(keys []string, times int) []string {
	order := make([]string, 0, len(keys)*times)
	for range times {
		order = append(order, keys...)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// latency calls fn one key after the other: median and 99th percentile of a call, in microseconds.
func latency(keys []string, fn func(key string) error) (Figures, error) {
	times := make([]float64, len(keys))
	runtime.GC()
	before := time.Now()
	for i, key := range keys {
		if err := fn(key); err != nil {
			return nil, err
		}
		after := time.Now()
		times[i] = float64(after.Sub(before)) / 1e3
		before = after
	}
	sort.Float64s(times)
	return Figures{"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}, nil
}

func quantile(sorted []float64, share float64) float64 {
	at := int(float64(len(sorted))*share+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// loop runs `pass`, which makes `turns` turns, until `seconds` are over: nanoseconds of a turn.
func loop(seconds float64, turns int, pass func() error) (Figures, error) {
	runtime.GC()
	start := time.Now()
	for passes := 1; ; passes++ {
		if err := pass(); err != nil {
			return nil, err
		}
		if elapsed := time.Since(start); elapsed.Seconds() >= seconds {
			return Figures{"ns": float64(elapsed) / float64(passes*turns)}, nil
		}
	}
}

// processor is what all threads of this process have had of a processor, in microseconds.
func processor() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e3
}

// callers runs fn in that many goroutines, each `calls` times: thousands of calls per second, and
// microseconds of a processor that one took.
func callers(count, calls int, fn func(caller, call int) error) (Figures, error) {
	var all sync.WaitGroup
	failed := make(chan error, count)
	runtime.GC()
	cpu, start := processor(), time.Now()
	for caller := range count {
		all.Add(1)
		go func() {
			defer all.Done()
			for call := range calls {
				if err := fn(caller, call); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	all.Wait()
	made := float64(count * calls)
	elapsed := time.Since(start).Seconds()
	select {
	case err := <-failed:
		return nil, err
	default:
		return Figures{"rate": made / elapsed / 1e3, "cpu": (processor() - cpu) / made}, nil
	}
}
