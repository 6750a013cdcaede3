#!/usr/bin/env bash
# msgpackr (npm) packs undefined as an extension of its own: other readers get an object for it.
#
# Versions:  msgpackr (npm) 1.11.5, @msgpack/msgpack (npm) 3.1.2, msgpack (PyPI) 1.1.2.
# Guess:     a field that is undefined is left out, as JSON does, or is nil, as in the other
#            MessagePack library of npm. MessagePack has nothing else for it.
# Behaviour: it is fixext 1 with type 0 (d4 00 00), a type that applications use for their own.
#            Python reads an ExtType there, which is true in a condition; a reader that has a type 0
#            of its own takes it for that; others refuse the whole value. An Error has such a field,
#            too.
# Output:    msgpackr:   {'name': 'Ada', 'mail': ExtType(code=0, data=b'\x00')}
#            the other:  {'name': 'Ada', 'mail': None}
#            an Error:   ['Error', 'no route', ExtType(code=0, data=b'\x00')]
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
const user = { name: "Ada", mail: undefined };
for (const bytes of [pack(user), encode(user), pack(new Error("no route"))])
  console.log(hex(bytes));
END
cat >read.py <<'END'
import sys

import msgpack

found = [msgpack.unpackb(bytes.fromhex(line)) for line in sys.stdin]
print("msgpackr:   %s\nthe other:  %s\nan Error:   %s" % tuple(found))
nothing = msgpack.ExtType(0, b"\0")
sys.exit(found != [
    {"name": "Ada", "mail": nothing},
    {"name": "Ada", "mail": None},
    ["Error", "no route", nothing],
])
END
node pack.js | timeout 60 venv/bin/python read.py
