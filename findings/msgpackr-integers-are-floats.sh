#!/usr/bin/env bash
# msgpackr (npm) packs whole numbers beyond 32 bits as floats: other languages get no integers.
#
# Versions:  msgpackr (npm) 1.11.5, @msgpack/msgpack (npm) 3.1.2, msgpack (PyPI) 1.1.2.
# Guess:     a whole number that JavaScript knows exactly (up to 2^53) is packed as an integer of 64
#            bits, as the other MessagePack library of npm does.
# Behaviour: from 2^32 up, and from -2^31 - 1 down, it is packed as float64. Milliseconds since 1970
#            and ids of 40 bits come back as floats in Python, and a reader with types (Go, Java,
#            Rust) refuses them for an integer field. The type changes with the value: a counter is
#            an integer until it passes 4,294,967,295. Two writers that share a cache do not agree
#            on the bytes, so a comparison of packed values (SET with IFEQ, a digest) fails.
# Output:    4294967295    msgpackr ceffffffff         int    the other ceffffffff
#            4294967296    msgpackr cb41f0000000000000 float  the other cf0000000100000000
#            1796070000000 msgpackr cb427a22e1d4580000 float  the other cf000001a22e1d4580
#
# Installs into a temporary folder, and exits non-zero if the behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init -y >/dev/null
npm install --silent --no-fund --no-audit msgpackr@1.11.5 @msgpack/msgpack@3.1.2
python3 -m venv venv
venv/bin/pip -q install msgpack==1.1.2
cat >pack.js <<'END'
const { pack } = require("msgpackr");
const { encode } = require("@msgpack/msgpack");
const hex = (bytes) => Buffer.from(bytes).toString("hex");
for (const number of [4294967295, 4294967296, 1796070000000])
  console.log(number, hex(pack(number)), hex(encode(number)));
END
cat >read.py <<'END'
import sys

import msgpack

found = []
for line in sys.stdin:
    number, ours, other = line.split()
    kind = type(msgpack.unpackb(bytes.fromhex(ours))).__name__
    found.append((number, ours, kind, other))
    print("%-13s msgpackr %-18s %-6s the other %s" % (number, ours, kind, other))
sys.exit(found != [
    ("4294967295", "ceffffffff", "int", "ceffffffff"),
    ("4294967296", "cb41f0000000000000", "float", "cf0000000100000000"),
    ("1796070000000", "cb427a22e1d4580000", "float", "cf000001a22e1d4580"),
])
END
node pack.js | timeout 60 venv/bin/python read.py
