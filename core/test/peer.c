#include "test/peer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/lease_request.h"
#include "engine/command.h"

enum { ROUNDS_MAX = 20000, ARGS_MAX = 64 };

struct arg {
    const char *bytes;
    size_t len;
};

static void must(int error)
{
    if (error != 0)
        abort();
}

/* ---- answers --------------------------------------------------------------------------------- */

static void add(struct rc_buf *out, const char *text)
{
    must(rc_buf_append(out, text, strlen(text)));
}

static void add_number(struct rc_buf *out, char type, int64_t number)
{
    char line[32];
    snprintf(line, sizeof line, "%c%lld\r\n", type, (long long)number);
    add(out, line);
}

static void add_bulk(struct rc_buf *out, const char *bytes, size_t len)
{
    add_number(out, '$', (int64_t)len);
    must(rc_buf_append(out, bytes, len));
    add(out, "\r\n");
}

static void add_value(struct rc_buf *out, const struct peer_key *key)
{
    if (key == NULL)
        add(out, "_\r\n");
    else
        add_bulk(out, rc_buf_head(&key->value), rc_buf_len(&key->value));
}

/* ---- keys ------------------------------------------------------------------------------------ */

static struct arg text(const char *bytes)
{
    return (struct arg){bytes, strlen(bytes)};
}

static bool same(const struct rc_buf *buf, struct arg arg)
{
    return rc_buf_is(buf, arg.bytes, arg.len);
}

static struct peer_key *slot_of(struct peer_server *server, struct arg name)
{
    for (int i = 0; i < server->key_count; i++) {
        if (same(&server->keys[i].name, name))
            return &server->keys[i];
    }
    if (server->key_count == PEER_KEYS)
        abort();
    struct peer_key *key = &server->keys[server->key_count++];
    must(rc_buf_append(&key->name, name.bytes, name.len));
    return key;
}

/* The key has changed: who tracks it hears of it, once. */
static void touch(struct peer_server *server, struct peer_conn *writer, struct peer_key *key)
{
    for (int i = 0; i < PEER_CONNS; i++) {
        struct peer_conn *conn = &server->conns[i];
        if ((key->trackers & 1u << i) == 0)
            continue;
        struct rc_buf *out = conn == writer ? &conn->later : &conn->output;
        add(out, ">2\r\n$10\r\ninvalidate\r\n*1\r\n");
        add_bulk(out, rc_buf_head(&key->name), rc_buf_len(&key->name));
    }
    key->trackers = 0;
}

static struct peer_key *look(struct peer_server *server, struct arg name)
{
    struct peer_key *key = slot_of(server, name);
    if (key->exists && key->expires_us != 0 && key->expires_us <= server->now_us) {
        key->exists = false;
        touch(server, NULL, key);
    }
    return key;
}

/* As GET: NULL when absent; tracked from now on. */
static struct peer_key *get(struct peer_server *server, struct peer_conn *conn, struct arg name)
{
    struct peer_key *key = look(server, name);
    if (conn != NULL && conn->tracks)
        key->trackers |= 1u << (conn - server->conns);
    return key->exists ? key : NULL;
}

static void set(struct peer_server *server, struct peer_conn *conn, struct arg name,
                struct arg value, int64_t ttl_ms)
{
    struct peer_key *key = look(server, name);
    rc_buf_clear(&key->value);
    must(rc_buf_append(&key->value, value.bytes, value.len));
    key->exists = true;
    key->expires_us = ttl_ms < 0 ? 0 : server->now_us + ttl_ms * 1000;
    touch(server, conn, key);
}

static int unlink_key(struct peer_server *server, struct peer_conn *conn, struct arg name)
{
    struct peer_key *key = look(server, name);
    if (!key->exists)
        return 0;
    key->exists = false;
    touch(server, conn, key);
    return 1;
}

static void expire(struct peer_server *server, struct peer_conn *conn, struct peer_key *key,
                   int64_t ttl_ms)
{
    key->expires_us = server->now_us + ttl_ms * 1000;
    touch(server, conn, key);
}

static int64_t pttl(struct peer_server *server, struct arg name)
{
    const struct peer_key *key = look(server, name);
    if (!key->exists)
        return -2;
    return key->expires_us == 0 ? -1 : (key->expires_us - server->now_us) / 1000;
}

static int64_t number(struct arg arg)
{
    char line[32] = "";
    memcpy(line, arg.bytes, arg.len < sizeof line ? arg.len : sizeof line - 1);
    return strtoll(line, NULL, 10);
}

/* ---- entries --------------------------------------------------------------------------------- */

static int kind_of(const struct peer_key *key)
{
    return rc_entry_form(rc_buf_head(&key->value), rc_buf_len(&key->value));
}

static struct arg nonce_of(const struct peer_key *key)
{
    return (struct arg){rc_buf_head(&key->value) + 8, RC_NONCE_SIZE};
}

static bool equal(struct arg a, struct arg b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
}

/* ---- scripts: each does what its namesake in engine/script.c says ---------------------------- */

struct call {
    struct peer_server *server;
    struct peer_conn *conn;
    struct arg *keys;
    int key_count;
    struct arg *argv; /* ARGV[1] is argv[1] */
    int argument_count;
};

static void codes(struct call *call, int64_t code)
{
    add(&call->conn->output, "*1\r\n");
    add_number(&call->conn->output, ':', code);
}

static void code_and_left(struct call *call, int64_t code, int64_t left)
{
    add(&call->conn->output, "*2\r\n");
    add_number(&call->conn->output, ':', code);
    add_number(&call->conn->output, ':', left);
}

static struct peer_key *get_key(struct call *call, int i)
{
    return get(call->server, call->conn, call->keys[i]);
}

static void set_key(struct call *call, int i, struct arg value, int64_t ttl_ms)
{
    set(call->server, call->conn, call->keys[i], value, ttl_ms);
}

static void say_busy(struct call *call, int i, const struct peer_key *key)
{
    struct rc_buf *out = &call->conn->output;
    add(out, "*3\r\n:0\r\n");
    add_number(out, ':', pttl(call->server, call->keys[i]));
    add_bulk(out, nonce_of(key).bytes, RC_NONCE_SIZE);
}

static void say_value(struct call *call, const struct peer_key *key)
{
    struct rc_buf *out = &call->conn->output;
    add(out, "*3\r\n:2\r\n");
    add_value(out, key);
    add_number(out, ':', pttl(call->server, call->keys[0]));
}

/* For a value without a header the script takes its SHA-1; any fixed text does for us. */
static struct arg identity(const struct peer_key *v, struct arg lease)
{
    static const char plain[] = "0000000000000000000000000000000000000000";
    if (v == NULL)
        return (struct arg){NULL, 0};
    if (same(&v->value, lease))
        return lease;
    return kind_of(v) > 0 ? nonce_of(v) : (struct arg){plain, 40};
}

static void acquire(struct call *call)
{
    struct peer_key *v = look(call->server, call->keys[0]);
    int64_t ttl_ms = number(call->argv[2]);
    if (v->exists && call->argument_count > 3 && equal(identity(v, call->argv[1]), call->argv[4])) {
        set_key(call, 0, call->argv[1], ttl_ms);
        codes(call, 1);
        return;
    }
    if (v->exists && kind_of(v) == RC_KIND_ERROR) {
        if (equal(nonce_of(v), call->argv[3]) || (uint8_t)rc_buf_head(&v->value)[4] >= 128) {
            add(&call->conn->output, "*2\r\n:3\r\n");
            add_value(&call->conn->output, v);
            return;
        }
    } else if (v->exists && !same(&v->value, call->argv[1])) {
        (void)get_key(call, 0);
        if (kind_of(v) == RC_KIND_LEASE && pttl(call->server, call->keys[0]) >= 0)
            say_busy(call, 0, v);
        else
            say_value(call, v);
        return;
    } else if (v->exists) {
        codes(call, 1);
        return;
    }
    set_key(call, 0, call->argv[1], ttl_ms);
    codes(call, 1);
}

static void newer_value(struct call *call, const struct peer_key *v)
{
    int kind = v != NULL ? kind_of(v) : 0;
    if (v == NULL || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE)
        codes(call, 0);
    else
        say_value(call, v);
}

static void publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    if (v != NULL && same(&v->value, call->argv[1])) {
        set_key(call, 0, call->argv[2], number(call->argv[3]));
        codes(call, 1);
    } else if (v != NULL && same(&v->value, call->argv[2])) {
        codes(call, 1);
    } else {
        newer_value(call, v);
    }
}

static void release_or_beat(struct call *call, bool beat)
{
    int count = 0;
    for (int i = 0; i < call->key_count; i++) {
        struct peer_key *v = get_key(call, i);
        if (v == NULL || !same(&v->value, call->argv[1]))
            continue;
        if (beat)
            expire(call->server, call->conn, v, number(call->argv[2]));
        else
            unlink_key(call->server, call->conn, call->keys[i]);
        count++;
    }
    add_number(&call->conn->output, ':', count);
}

static void refresh(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool seen =
        v != NULL && rc_buf_len(&v->value) >= RC_ENTRY_SIZE && equal(nonce_of(v), call->argv[1]);
    struct peer_key *helper = look(call->server, call->keys[1]);
    if (v != NULL && same(&v->value, call->argv[2])) {
        code_and_left(call, 1, -1);
        return;
    }
    if (!seen || (helper->exists && !same(&helper->value, call->argv[2]))) {
        codes(call, 0);
        return;
    }
    if (!helper->exists)
        set_key(call, 1, call->argv[2], number(call->argv[3]));
    int64_t left = pttl(call->server, call->keys[0]);
    if (left >= 0 && left <= number(call->argv[4])) {
        set_key(call, 0, call->argv[2], number(call->argv[3]));
        left = -1;
    }
    code_and_left(call, 1, left);
}

static void refresh_fail(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    int count = 0;
    if (helper != NULL && same(&helper->value, call->argv[1])) {
        expire(call->server, call->conn, helper, number(call->argv[4]));
        count++;
    }
    if (v != NULL && same(&v->value, call->argv[1])) {
        set_key(call, 0, call->argv[2], number(call->argv[3]));
        count++;
    }
    add_number(&call->conn->output, ':', count);
}

static void cover(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    bool renews = equal(call->argv[5], text("1"));
    bool has_helper = helper != NULL && same(&helper->value, call->argv[1]);
    bool has_key = v != NULL && same(&v->value, call->argv[1]);
    int64_t ttl_ms = renews ? number(call->argv[2]) : 0, left = -1;
    if (has_helper && renews)
        expire(call->server, call->conn, helper, ttl_ms);
    else if (has_helper)
        ttl_ms = pttl(call->server, call->keys[1]);
    if (has_key && renews)
        expire(call->server, call->conn, v, ttl_ms);
    if (!has_key && has_helper) {
        left = pttl(call->server, call->keys[0]);
        if (left >= 0 && left <= number(call->argv[4])) {
            if (equal(identity(v, call->argv[1]), call->argv[3]))
                set_key(call, 0, call->argv[1], ttl_ms);
            left = -1;
        }
    }
    code_and_left(call, has_helper + has_key, left);
}

static void refresh_publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    if (helper != NULL && same(&helper->value, call->argv[2]))
        unlink_key(call->server, call->conn, call->keys[1]);
    bool covered = v != NULL && same(&v->value, call->argv[2]);
    if (covered || (v != NULL && kind_of(v) != 0 && equal(nonce_of(v), call->argv[1]))) {
        set_key(call, 0, call->argv[3], number(call->argv[4]));
        codes(call, 1);
    } else if (v != NULL && same(&v->value, call->argv[3])) {
        codes(call, 1);
    } else {
        newer_value(call, v);
    }
}

static void put(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *w = get_key(call, 1);
    struct arg lease = call->argv[1];
    int64_t ttl_ms = number(call->argv[2]);
    if (w != NULL && !same(&w->value, lease)) {
        say_busy(call, 1, w);
        return;
    }
    int kind = v != NULL ? kind_of(v) : 0;
    if (kind == RC_KIND_LEASE && !same(&v->value, lease) &&
        pttl(call->server, call->keys[0]) >= 0) {
        say_busy(call, 0, v);
        return;
    }
    set_key(call, 1, lease, ttl_ms);
    int64_t left = pttl(call->server, call->keys[0]);
    bool ends = left >= 0 && left <= number(call->argv[3]);
    if (v == NULL || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE || ends) {
        set_key(call, 0, lease, ttl_ms);
        v = look(call->server, call->keys[0]);
        left = -1;
    }
    struct arg id = identity(v, lease);
    add(&call->conn->output, "*3\r\n:1\r\n");
    add_bulk(&call->conn->output, id.bytes, id.len);
    add_number(&call->conn->output, ':', left);
}

static void put_publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *w = get_key(call, 1);
    bool mine = w != NULL && same(&w->value, call->argv[1]);
    if (mine)
        unlink_key(call->server, call->conn, call->keys[1]);
    if (v != NULL && same(&v->value, call->argv[2])) {
        codes(call, 1);
    } else if (!mine || v == NULL ||
               (!same(&v->value, call->argv[1]) &&
                !equal(identity(v, call->argv[1]), call->argv[4]))) {
        codes(call, 0);
    } else {
        set_key(call, 0, call->argv[2], number(call->argv[3]));
        codes(call, 1);
    }
}

static void unlink_version(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool is_seen = v != NULL && kind_of(v) != 0 && equal(nonce_of(v), call->argv[1]);
    if (is_seen)
        unlink_key(call->server, call->conn, call->keys[0]);
    add_number(&call->conn->output, ':', is_seen ? 1 : v != NULL ? -1 : 0);
}

static void lock(struct call *call)
{
    char line[32];
    struct peer_key *old = look(call->server, call->keys[0]);
    bool force = equal(call->argv[3], text("1"));
    if (!force && old->exists && !same(&old->value, call->argv[1])) {
        (void)get_key(call, 2);
        codes(call, 0);
        return;
    }
    set_key(call, 0, call->argv[1], number(call->argv[2]));
    const struct peer_key *fence = get_key(call, 1);
    int64_t next =
        1 + (fence != NULL
                 ? number((struct arg){rc_buf_head(&fence->value), rc_buf_len(&fence->value)})
                 : 0);
    if (next < call->server->now_us)
        next = call->server->now_us;
    snprintf(line, sizeof line, "%lld", (long long)next);
    set_key(call, 1, text(line), number(call->argv[4]));
    (void)get_key(call, 0);
    add(&call->conn->output, "*2\r\n:1\r\n");
    add_number(&call->conn->output, ':', next);
}

static void lock_renew(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool ours = v != NULL && same(&v->value, call->argv[1]);
    if (ours) {
        expire(call->server, call->conn, v, number(call->argv[2]));
        (void)get_key(call, 0);
    }
    add_number(&call->conn->output, ':', ours);
}

static void lock_release(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool ours = v != NULL && same(&v->value, call->argv[1]);
    if (ours) {
        unlink_key(call->server, call->conn, call->keys[0]);
        set_key(call, 1, call->argv[1], 1000);
    }
    add_number(&call->conn->output, ':', ours);
}

static void run_script(struct call *call, enum rc_script script)
{
    call->server->scripts[script]++;
    switch (script) {
    case RC_SCRIPT_ACQUIRE: acquire(call); break;
    case RC_SCRIPT_PUBLISH: publish(call); break;
    case RC_SCRIPT_RELEASE: release_or_beat(call, false); break;
    case RC_SCRIPT_HEARTBEAT: release_or_beat(call, true); break;
    case RC_SCRIPT_REFRESH: refresh(call); break;
    case RC_SCRIPT_REFRESH_PUBLISH: refresh_publish(call); break;
    case RC_SCRIPT_PUT: put(call); break;
    case RC_SCRIPT_PUT_PUBLISH: put_publish(call); break;
    case RC_SCRIPT_PUT_RESTORE: break; /* no test hides the old value: the specs do */
    case RC_SCRIPT_UNLINK_VERSION: unlink_version(call); break;
    case RC_SCRIPT_COVER: cover(call); break;
    case RC_SCRIPT_REFRESH_FAIL: refresh_fail(call); break;
    case RC_SCRIPT_LOCK: lock(call); break;
    case RC_SCRIPT_LOCK_RENEW: lock_renew(call); break;
    case RC_SCRIPT_LOCK_RELEASE: lock_release(call); break;
    case RC_SCRIPT_COUNT: break;
    }
}

/* ---- commands -------------------------------------------------------------------------------- */

static bool is(struct arg arg, const char *name)
{
    return equal(arg, text(name));
}

static void do_script(struct peer_server *server, struct peer_conn *conn, struct arg *args,
                      int count)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        bool by_sha = is(args[0], "EVALSHA") && is(args[1], rc_script_sha(i)) && server->known[i];
        bool by_source = is(args[0], "EVAL") && is(args[1], rc_script_source(i));
        if (!by_sha && !by_source)
            continue;
        int keys = (int)number(args[2]);
        assert(3 + keys <= count);
        struct call call = {server, conn, args + 3, keys, args + 3 + keys - 1, count - 3 - keys};
        server->known[i] = true;
        run_script(&call, (enum rc_script)i);
        return;
    }
    add(&conn->output, is(args[0], "EVAL") ? "-ERR Error compiling script\r\n"
                                           : "-NOSCRIPT No matching script. Use EVAL.\r\n");
}

/* SET key value [NX GET] [PX ms] */
static void do_set(struct peer_server *server, struct peer_conn *conn, struct arg *args, int count)
{
    bool nx = false;
    int64_t ttl_ms = -1;
    for (int i = 3; i < count; i++) {
        nx |= is(args[i], "NX");
        if (is(args[i], "PX"))
            ttl_ms = number(args[++i]);
    }
    const struct peer_key *old = look(server, args[1]);
    server->sets++;
    if (nx)
        add_value(&conn->output, old->exists ? old : NULL);
    else
        add(&conn->output, "+OK\r\n");
    if (!nx || !old->exists)
        set(server, conn, args[1], args[2], ttl_ms);
}

static void say_hello(struct peer_server *server, struct rc_buf *out)
{
    add(out,
        "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$4\r\nrole\r\n");
    add(out, server->is_replica ? "$7\r\nreplica\r\n" : "$6\r\nmaster\r\n");
}

static void say_info(struct peer_server *server, const struct peer_conn *conn, bool is_whole)
{
    char info[512] = "";
    int len = 0;
    if (is_whole)
        len = snprintf(info, sizeof info, "# Server\r\nrun_id:%040x\r\n", conn->run);
    len += snprintf(info + len, sizeof info - (size_t)len,
                    "# Replication\r\nrole:%s\r\nmaster_replid:%040x\r\nmaster_replid2:%040x\r\n",
                    server->is_replica ? "slave" : "master", server->history, server->earlier);
    add_bulk(&server->conns[conn - server->conns].output, info, (size_t)len);
}

static const char WRONG[] = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/* A user and a password. */
static bool lets_in(struct peer_server *server, const struct arg *args)
{
    snprintf(server->user, sizeof server->user, "%.*s", (int)args[0].len, args[0].bytes);
    return server->login == NULL || is(args[1], server->login);
}

/* And what is asked again and again: who are you? */
static bool do_handshake(struct peer_server *server, struct peer_conn *conn, struct arg *args,
                         int count)
{
    if (is(args[0], "AUTH")) {
        server->auths++;
        add(&conn->output, lets_in(server, args + 1) ? "+OK\r\n" : WRONG);
    } else if (is(args[0], "HELLO") && count > 4 && !lets_in(server, args + 3)) {
        server->hellos++;
        add(&conn->output, WRONG);
    } else if (is(args[0], "HELLO")) {
        server->hellos += count > 1;
        server->questions += count == 1;
        if (server->refusal != NULL)
            add(&conn->output, server->refusal);
        else
            say_hello(server, &conn->output);
    } else if (is(args[0], "INFO")) {
        server->questions++;
        if (server->no_info)
            add(&conn->output, "-NOPERM no permissions to run it\r\n");
        else
            say_info(server, conn, count > 2);
    } else if (is(args[0], "RESET")) {
        server->resets++;
        conn->tracks = false;
        add(&conn->output,
            server->no_reset ? "-NOPERM no permissions to run it\r\n" : "+RESET\r\n");
    } else if (is(args[0], "SELECT")) {
        add(&conn->output, "+OK\r\n");
    } else if (is(args[0], "CLIENT")) {
        conn->tracks = !server->no_tracking;
        add(&conn->output, conn->tracks ? "+OK\r\n" : "-NOPERM no permissions to run it\r\n");
    } else {
        return false;
    }
    return true;
}

static void execute(struct peer_server *server, struct peer_conn *conn, struct arg *args, int count)
{
    struct rc_buf *out = &conn->output;
    if (do_handshake(server, conn, args, count))
        return;
    server->commands += !is(args[0], "PING");
    if (server->loading) {
        add(out, "-LOADING Redis is loading the dataset in memory\r\n");
    } else if (server->errors > 0) {
        server->errors--;
        add(out, server->error);
        add(out, "\r\n");
    } else if (is(args[0], "PING")) {
        add(out, server->ping != NULL ? server->ping : "+PONG\r\n");
    } else if (is(args[0], "GET")) {
        server->gets++;
        add_value(out, get(server, conn, args[1]));
    } else if (is(args[0], "GETRANGE")) { /* from 0 */
        const struct peer_key *key = get(server, conn, args[1]);
        size_t len = key != NULL ? rc_buf_len(&key->value) : 0;
        size_t limit = (size_t)number(args[3]) + 1;
        server->ranges++;
        add_bulk(out, len > 0 ? rc_buf_head(&key->value) : "", len < limit ? len : limit);
    } else if (is(args[0], "PTTL")) {
        (void)get(server, conn, args[1]); /* makes the server track it, as GET does */
        add_number(out, ':', pttl(server, args[1]));
    } else if (is(args[0], "SET")) {
        do_set(server, conn, args, count);
    } else if (is(args[0], "UNLINK")) {
        int deleted = 0;
        for (int i = 1; i < count; i++)
            deleted += unlink_key(server, conn, args[i]);
        server->unlinks++;
        add_number(out, ':', deleted);
    } else if (is(args[0], "BLPOP")) {
        return; /* it waits */
    } else if (is(args[0], "EVALSHA") || is(args[0], "EVAL")) {
        do_script(server, conn, args, count);
    } else {
        add(out, "-ERR unknown command\r\n");
    }
}

/* A line's number behind its type byte; moves `at` behind the line. False: it has not all come. */
static bool read_line(const char **at, const char *end, char type, size_t *value)
{
    const char *line = *at;
    const char *newline = line < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
    if (newline == NULL)
        return false;
    if (*line != type)
        abort(); /* the engine has written something that is no request */
    *value = strtoul(line + 1, NULL, 10);
    *at = newline + 1;
    return true;
}

static bool execute_next(struct peer_server *server, struct peer_conn *conn)
{
    struct arg args[ARGS_MAX];
    const char *start = rc_buf_head(&conn->input), *at = start;
    const char *end = start + rc_buf_len(&conn->input);
    size_t count;
    if (rc_buf_len(&conn->input) == 0 || !read_line(&at, end, '*', &count))
        return false;
    if (count == 0 || count > ARGS_MAX)
        abort();
    for (size_t i = 0; i < count; i++) {
        if (!read_line(&at, end, '$', &args[i].len) || (size_t)(end - at) < args[i].len + 2)
            return false;
        args[i].bytes = at;
        at += args[i].len + 2;
    }
    execute(server, conn, args, (int)count);
    rc_buf_consume(&conn->input, (size_t)(at - start));
    must(rc_buf_append(&conn->output, rc_buf_head(&conn->later), rc_buf_len(&conn->later)));
    rc_buf_clear(&conn->later);
    return true;
}

/* ---- connections ----------------------------------------------------------------------------- */

static void shut(struct peer_server *server, struct peer_conn *conn, bool executes)
{
    if (executes && !conn->mute) {
        while (execute_next(server, conn)) {
        }
    }
    conn->is_open = conn->tracks = false;
    rc_buf_clear(&conn->input);
    rc_buf_clear(&conn->output);
    rc_buf_clear(&conn->later);
    for (int i = 0; i < server->key_count; i++)
        server->keys[i].trackers &= ~(1u << (conn - server->conns));
}

static struct peer_server *server_of(struct peer_conn *conn)
{
    struct rc_engine *engine = conn->link->node->news.owner;
    return RC_CONTAINER(engine, struct peer_client, engine)->server;
}

void peer_cut(struct peer_conn *conn, bool executes)
{
    if (!conn->is_open)
        return;
    shut(server_of(conn), conn, executes);
    rc_link_lost(conn->link, "the server closed the connection");
}

void peer_say(struct peer_conn *conn, const char *bytes, size_t len)
{
    must(rc_buf_append(&conn->output, bytes, len));
}

static void deliver(struct peer_server *server, struct peer_conn *conn)
{
    struct rc_buf taken;
    rc_buf_init(&taken);
    rc_buf_swap(&taken, &conn->output);
    while (rc_buf_len(&taken) > 0 && conn->is_open && !conn->link->wants_close) {
        size_t len = rc_buf_len(&taken);
        if (server->chunk > 0 && len > server->chunk)
            len = server->chunk;
        rc_link_feed(conn->link, rc_buf_head(&taken), len);
        rc_buf_consume(&taken, len);
    }
    rc_buf_deinit(&taken);
}

static bool move(struct peer_server *server, struct peer_conn *conn)
{
    struct rc_link *link = conn->link;
    bool moved = link->wants_close || (link->wants_open && !server->silent);
    if (link->wants_close) {
        link->wants_close = false;
        shut(server, conn, true);
    }
    if (link->wants_open && !server->silent) {
        link->wants_open = false;
        conn->is_open = !server->refuses;
        conn->run = server->run;
        if (conn->is_open)
            rc_link_opened(link);
        else
            rc_link_lost(link, "Connection refused");
    }
    if (!conn->is_open)
        return moved;
    size_t len = rc_buf_len(&link->output);
    if (len > 0 && !conn->clogged) {
        must(rc_buf_append(&conn->input, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    while (!conn->mute && execute_next(server, conn))
        moved = true;
    if (!conn->deaf && rc_buf_len(&conn->output) > 0) {
        deliver(server, conn);
        moved = true;
    }
    return moved;
}

/* Those that have come since the last time. */
static void hang_on_links(struct peer_client *client)
{
    RC_TOPOLOGY_EACH(link, &client->engine.topology) {
        int i = 0;
        while (i < PEER_LINKS && client->conns[i]->link != link)
            i++;
        if (i < PEER_LINKS)
            continue;
        for (i = RC_NODE_LINKS; client->conns[i]->link != NULL; i++)
            assert(i + 1 < PEER_LINKS);
        client->conns[i]->link = link;
    }
}

static bool run_client(struct peer_client *client)
{
    struct rc_engine *engine = &client->engine;
    int64_t now_us = client->server->now_us;
    rc_engine_set_time(engine, now_us);
    bool moved = rc_engine_deadline(engine) <= now_us;
    struct rc_op *op;
    rc_engine_run(engine);
    while ((op = rc_engine_take_finished(engine)) != NULL) {
        RC_CONTAINER(op, struct peer_op, op)->finished++;
        moved = true;
    }
    hang_on_links(client);
    for (int i = 0; i < PEER_LINKS; i++) {
        struct peer_conn *conn = client->conns[i];
        if (conn->link == NULL)
            continue;
        moved |= move(client->server, conn);
        if (conn->link->is_leaving && !conn->link->wants_close) {
            struct rc_link *link = conn->link;
            conn->link = NULL;
            rc_topology_release(&engine->topology, link);
            moved = true;
        }
    }
    return moved;
}

void peer_run(struct peer_server *server)
{
    bool moved = true;
    for (int i = 0; moved; i++) {
        if (i == ROUNDS_MAX) {
            server->went_round = true;
            return;
        }
        moved = false;
        for (int c = 0; c < server->client_count; c++)
            moved |= run_client(server->clients[c]);
    }
}

void peer_sleep(struct peer_server *server, int64_t ms)
{
    int64_t until_us = server->now_us + ms * 1000;
    peer_run(server);
    for (;;) {
        int64_t next_us = until_us;
        for (int c = 0; c < server->client_count; c++) {
            int64_t deadline_us = rc_engine_deadline(&server->clients[c]->engine);
            next_us = deadline_us < next_us ? deadline_us : next_us;
        }
        if (next_us > server->now_us)
            server->now_us = next_us;
        else if (next_us < until_us) /* a timer that is due and was not run */
            server->went_round = true;
        peer_run(server);
        if (server->now_us >= until_us || server->went_round)
            break;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void peer_init(struct peer_server *server)
{
    memset(server, 0, sizeof *server);
    rc_scripts_init();
    server->now_us = INT64_C(1000) * 1000 * 1000;
    server->run = server->history = 1;
}

void peer_deinit(struct peer_server *server)
{
    for (int i = 0; i < server->key_count; i++) {
        rc_buf_deinit(&server->keys[i].name);
        rc_buf_deinit(&server->keys[i].value);
    }
    for (int i = 0; i < PEER_CONNS; i++) {
        rc_buf_deinit(&server->conns[i].input);
        rc_buf_deinit(&server->conns[i].output);
        rc_buf_deinit(&server->conns[i].later);
    }
}

rc_options peer_options(void)
{
    return (rc_options){.connect_timeout_ms = 1000,
                        .command_timeout_ms = 500,
                        .max_value_bytes = 1 << 20,
                        .max_key_bytes = 65536,
                        .max_queue = 1000,
                        .max_lent = 3,
                        .degraded_ttl_ms = 1000};
}

static void link_up(struct peer_client *client)
{
    struct peer_server *server = client->server;
    int place = 0;
    while (server->clients[place] != client)
        place++;
    for (int i = 0; i < PEER_LINKS; i++) {
        client->conns[i] = &server->conns[place * PEER_LINKS + i];
        client->conns[i]->link = NULL;
    }
    for (int i = 0; i < RC_NODE_LINKS; i++)
        client->conns[i]->link = &client->engine.topology.node.links[i];
}

void peer_open(struct peer_client *client, struct peer_server *server, const rc_options *options)
{
    peer_open_near(client, server, options, NULL);
}

void peer_open_near(struct peer_client *client, struct peer_server *server,
                    const rc_options *options, struct rc_near *near)
{
    rc_options defaults = peer_options();
    struct rc_address address;
    struct rc_seed seed = {{0x1234567, 0x89abcdef ^ (uint64_t)server->client_count}};
    const char *why, url[] = "redis://127.0.0.1:6379";
    must(rc_address_parse(&address, url, strlen(url), &why));
    assert(server->client_count < PEER_CLIENTS);
    client->server = server;
    must(rc_engine_init(&client->engine, options != NULL ? options : &defaults, &address, near,
                        &seed, server->now_us));
    server->clients[server->client_count++] = client;
    link_up(client);
}

void peer_use(struct peer_client *client, const char *url)
{
    const char *why;
    must(rc_address_parse(&client->engine.topology.node.address, url, strlen(url), &why));
}

void peer_close(struct peer_client *client)
{
    struct peer_server *server = client->server;
    rc_engine_set_time(&client->engine, server->now_us);
    rc_engine_close(&client->engine);
    peer_run(server);
    rc_engine_end(&client->engine);
    peer_run(server);
    rc_engine_deinit(&client->engine);
    /* Only the last place may get free: the last opened is closed first. */
    assert(server->clients[server->client_count - 1] == client);
    server->client_count--;
    for (int i = 0; i < PEER_LINKS; i++) {
        shut(server, client->conns[i], false);
        client->conns[i]->mute = client->conns[i]->deaf = client->conns[i]->clogged = false;
        client->conns[i]->link = NULL;
    }
}

/* ---- a foreign client ------------------------------------------------------------------------ */

void peer_put(struct peer_server *server, const char *key, const char *bytes, size_t len,
              int64_t ttl_ms)
{
    set(server, NULL, text(key), (struct arg){bytes, len}, ttl_ms);
}

void peer_pexpire(struct peer_server *server, const char *key, int64_t ttl_ms)
{
    struct peer_key *found = peer_find(server, key);
    if (found != NULL)
        expire(server, NULL, found, ttl_ms);
}

void peer_unlink(struct peer_server *server, const char *key)
{
    unlink_key(server, NULL, text(key));
}

struct peer_key *peer_find(struct peer_server *server, const char *key)
{
    struct peer_key *found = look(server, text(key));
    return found->exists ? found : NULL;
}

int64_t peer_pttl(struct peer_server *server, const char *key)
{
    return pttl(server, text(key));
}

bool peer_has_lease(struct peer_server *server, const char *key)
{
    const struct peer_key *found = peer_find(server, key);
    return found != NULL && kind_of(found) == RC_KIND_LEASE;
}

/* ---- ops ------------------------------------------------------------------------------------- */

void peer_op_init(struct peer_op *op)
{
    must(rc_op_init(&op->op));
    op->finished = 0;
}

void peer_op_deinit(struct peer_op *op)
{
    rc_op_deinit(&op->op);
}

static struct rc_op *begin(struct peer_op *op, enum rc_op_kind kind)
{
    if (op->op.run.is_running) /* no memory: it waits for another connection */
        exit(1);
    rc_op_reset(&op->op, kind);
    op->finished = 0;
    return &op->op;
}

static void submit(struct peer_client *client, struct peer_op *op)
{
    rc_engine_set_time(&client->engine, client->server->now_us);
    rc_engine_submit(&client->engine, &op->op);
}

static void keep_key(struct rc_op *op, const char *key)
{
    rc_buf_clear(&op->ask.key);
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
}

void peer_get(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags)
{
    struct rc_op *op = begin(peer_op, RC_OP_GET);
    keep_key(op, key);
    op->ask.expect = flags & RC_WANT_TTL ? 2 : 1;
    submit(client, peer_op);
}

void peer_read(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags)
{
    struct rc_op *op = begin(peer_op, RC_OP_GET);
    keep_key(op, key);
    op->ask.expect = 2;
    op->ask.near = true;
    op->ask.near_group = 0;
    op->ask.near_ttl_us = 0;
    op->ask.flags = flags;
    submit(client, peer_op);
}

void peer_barrier(struct peer_client *client, struct peer_op *peer_op)
{
    begin(peer_op, RC_OP_BARRIER);
    submit(client, peer_op);
}

void peer_set(struct peer_client *client, struct peer_op *peer_op, const char *key,
              const char *value, int64_t ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_SET);
    op->ask.is_plain = true;
    keep_key(op, key);
    must(rc_command_head(&op->ask.request, ttl_ms < 0 ? 3 : 5));
    must(rc_command_text(&op->ask.request, "SET"));
    must(rc_command_text(&op->ask.request, key));
    must(rc_command_text(&op->ask.request, value));
    if (ttl_ms >= 0) {
        must(rc_command_text(&op->ask.request, "PX"));
        must(rc_command_int(&op->ask.request, ttl_ms));
    }
    op->ask.expect = 1;
    submit(client, peer_op);
}

void peer_delete(struct peer_client *client, struct peer_op *peer_op, const char *key)
{
    struct rc_op *op = begin(peer_op, RC_OP_DELETE);
    keep_key(op, key);
    must(rc_command_head(&op->ask.request, 2));
    must(rc_command_text(&op->ask.request, "UNLINK"));
    must(rc_command_text(&op->ask.request, key));
    op->ask.expect = 1;
    submit(client, peer_op);
}

void peer_load(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags,
               int32_t lease_ttl_ms, int32_t max_load_ms, int32_t wait_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOAD);
    op->ask.load = (rc_load_options){flags, lease_ttl_ms, max_load_ms, wait_ms};
    op->ask.purpose = flags & RC_PUT ? RC_FLIGHT_PUT : RC_FLIGHT_LOAD;
    rc_buf_clear(&op->ask.key);
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
    op->ask.expect = flags & RC_WANT_TTL ? 2 : 1;
    submit(client, peer_op);
}

void peer_publish(struct peer_client *client, struct peer_op *peer_op, const char *value,
                  int64_t ttl_ms, uint32_t stale_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_PUBLISH);
    char header[RC_ENTRY_SIZE];
    rc_entry entry = {.kind = RC_KIND_VALUE, .stale_ms = stale_ms};
    rc_entry_write(header, &entry, op->run.nonce);
    must(rc_lease_encode_end(op, header, sizeof header, value, strlen(value), ttl_ms));
    submit(client, peer_op);
}

void peer_fail(struct peer_client *client, struct peer_op *peer_op, const char *why,
               int32_t error_ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_FAIL);
    char header[RC_ENTRY_SIZE];
    rc_entry_write_kind(header, RC_KIND_ERROR, error_ttl_ms > 0 ? RC_ENTRY_STICKY : 0,
                        op->run.token);
    must(rc_lease_encode_end(op, header, sizeof header, why, strlen(why),
                             error_ttl_ms > 0 ? error_ttl_ms : 1000));
    submit(client, peer_op);
}

void peer_release(struct peer_client *client, struct peer_op *peer_op)
{
    struct rc_op *op = begin(peer_op, RC_OP_RELEASE);
    must(rc_lease_encode_end(op, NULL, 0, NULL, 0, 0));
    submit(client, peer_op);
}

void peer_acquire(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle,
                  uint32_t flags, int32_t ttl_ms, int32_t wait_ms, int32_t max_hold_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_ACQUIRE);
    op->ask.lock = handle;
    op->ask.lock_options = (rc_lock_options){flags, ttl_ms, wait_ms, max_hold_ms};
    submit(client, peer_op);
}

void peer_unlock(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_RELEASE);
    op->ask.lock = handle;
    submit(client, peer_op);
}

void peer_extend(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle,
                 int32_t ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_EXTEND);
    op->ask.lock = handle;
    op->ask.ttl_ms = ttl_ms;
    submit(client, peer_op);
}

bool peer_ended(const struct peer_op *op, int status, int outcome)
{
    return op->finished == 1 && op->op.result.status == status && op->op.result.outcome == outcome;
}

bool peer_says(const struct peer_op *op, const char *data)
{
    const rc_result *result = &op->op.result;
    return result->len == strlen(data) &&
           (result->len == 0 || memcmp(result->data, data, result->len) == 0);
}

bool peer_holds(const struct peer_server *server, struct rc_lock *handle)
{
    return atomic_load(&handle->state) == RC_LOCK_HELD &&
           atomic_load(&handle->trusted_until_us) > server->now_us;
}

void peer_borrow(struct peer_client *client, struct peer_op *peer_op, struct rc_lent *lent)
{
    struct rc_op *op = begin(peer_op, RC_OP_BORROW);
    rc_buf_clear(&op->ask.key);
    op->ask.lent = lent;
    submit(client, peer_op);
}

void peer_call(struct peer_client *client, struct peer_op *peer_op, struct rc_lent *lent,
               const char *name)
{
    struct rc_op *op = begin(peer_op, RC_OP_LENT);
    op->ask.lent = lent;
    op->ask.expect = 1;
    must(rc_command_head(&op->ask.request, 2));
    must(rc_command_text(&op->ask.request, name));
    must(rc_command_text(&op->ask.request, "key"));
    submit(client, peer_op);
}
