/* Each does what its namesake in engine/script.c says. */
#include <assert.h>
#include <stdio.h>

#include "test/peer_own.h"

struct call {
    struct peer_server *server;
    struct peer_conn *conn;
    struct peer_arg *keys;
    int key_count;
    struct peer_arg *argv; /* ARGV[1] is argv[1] */
    int argument_count;
};

static void codes(struct call *call, int64_t code)
{
    peer_add(&call->conn->output, "*1\r\n");
    peer_add_number(&call->conn->output, ':', code);
}

static void code_and_left(struct call *call, int64_t code, int64_t left)
{
    peer_add(&call->conn->output, "*2\r\n");
    peer_add_number(&call->conn->output, ':', code);
    peer_add_number(&call->conn->output, ':', left);
}

static struct peer_key *get_key(struct call *call, int i)
{
    return peer_key_get(call->server, call->conn, call->keys[i]);
}

static void set_key(struct call *call, int i, struct peer_arg value, int64_t ttl_ms)
{
    peer_key_set(call->server, call->conn, call->keys[i], value, ttl_ms);
}

static void say_busy(struct call *call, int i, const struct peer_key *key)
{
    struct rc_buf *out = &call->conn->output;
    peer_add(out, "*3\r\n:0\r\n");
    peer_add_number(out, ':', peer_key_pttl(call->server, call->keys[i]));
    peer_add_bulk(out, peer_key_nonce(key).bytes, RC_NONCE_SIZE);
}

static void say_value(struct call *call, const struct peer_key *key)
{
    struct rc_buf *out = &call->conn->output;
    peer_add(out, "*3\r\n:2\r\n");
    peer_add_value(out, key);
    peer_add_number(out, ':', peer_key_pttl(call->server, call->keys[0]));
}

/* For a value without a header the script takes its SHA-1; any fixed text does for us. */
static struct peer_arg identity(const struct peer_key *v, struct peer_arg lease)
{
    static const char plain[] = "0000000000000000000000000000000000000000";
    if (v == NULL)
        return (struct peer_arg){NULL, 0};
    if (peer_same(&v->value, lease))
        return lease;
    return peer_key_kind(v) > 0 ? peer_key_nonce(v) : (struct peer_arg){plain, 40};
}

static void acquire(struct call *call)
{
    struct peer_key *v = peer_look(call->server, call->keys[0]);
    int64_t ttl_ms = peer_number(call->argv[2]);
    if (v->exists && call->argument_count > 3 &&
        peer_equal(identity(v, call->argv[1]), call->argv[4])) {
        set_key(call, 0, call->argv[1], ttl_ms);
        codes(call, 1);
        return;
    }
    if (v->exists && peer_key_kind(v) == RC_KIND_ERROR) {
        if (peer_equal(peer_key_nonce(v), call->argv[3]) ||
            (uint8_t)rc_buf_head(&v->value)[4] >= 128) {
            peer_add(&call->conn->output, "*2\r\n:3\r\n");
            peer_add_value(&call->conn->output, v);
            return;
        }
    } else if (v->exists && !peer_same(&v->value, call->argv[1])) {
        (void)get_key(call, 0);
        if (peer_key_kind(v) == RC_KIND_LEASE && peer_key_pttl(call->server, call->keys[0]) >= 0)
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
    int kind = v != NULL ? peer_key_kind(v) : 0;
    if (v == NULL || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE)
        codes(call, 0);
    else
        say_value(call, v);
}

static void publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    if (v != NULL && peer_same(&v->value, call->argv[1])) {
        set_key(call, 0, call->argv[2], peer_number(call->argv[3]));
        codes(call, 1);
    } else if (v != NULL && peer_same(&v->value, call->argv[2])) {
        codes(call, 1);
    } else {
        newer_value(call, v);
    }
}

static void publish_many(struct call *call)
{
    char done[32];
    for (int i = 0; i < call->key_count; i++) {
        struct peer_key *v = get_key(call, i);
        const struct peer_arg *argv = &call->argv[3 * i];
        done[i] = v != NULL && peer_same(&v->value, argv[1]) ? '1' : '0';
        if (done[i] == '1')
            set_key(call, i, argv[2], peer_number(argv[3]));
    }
    peer_add_bulk(&call->conn->output, done, (size_t)call->key_count);
}

static void release_or_beat(struct call *call, bool beat)
{
    int count = 0;
    for (int i = 0; i < call->key_count; i++) {
        struct peer_key *v = get_key(call, i);
        if (v == NULL || !peer_same(&v->value, call->argv[1]))
            continue;
        if (beat)
            peer_key_expire(call->server, call->conn, v, peer_number(call->argv[2]));
        else
            peer_key_unlink(call->server, call->conn, call->keys[i]);
        count++;
    }
    peer_add_number(&call->conn->output, ':', count);
}

static void refresh(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool seen = v != NULL && rc_buf_len(&v->value) >= RC_ENTRY_SIZE &&
                peer_equal(peer_key_nonce(v), call->argv[1]);
    struct peer_key *helper = peer_look(call->server, call->keys[1]);
    if (v != NULL && peer_same(&v->value, call->argv[2])) {
        code_and_left(call, 1, -1);
        return;
    }
    if (!seen) {
        codes(call, 0);
        return;
    }
    if (helper->exists && !peer_same(&helper->value, call->argv[2])) {
        code_and_left(call, 0, peer_key_pttl(call->server, call->keys[1]));
        return;
    }
    if (!helper->exists)
        set_key(call, 1, call->argv[2], peer_number(call->argv[3]));
    int64_t left = peer_key_pttl(call->server, call->keys[0]);
    if (left >= 0 && left <= peer_number(call->argv[4])) {
        set_key(call, 0, call->argv[2], peer_number(call->argv[3]));
        left = -1;
    }
    code_and_left(call, 1, left);
}

static void refresh_fail(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    int count = 0;
    if (helper != NULL && peer_same(&helper->value, call->argv[1])) {
        peer_key_expire(call->server, call->conn, helper, peer_number(call->argv[4]));
        count++;
    }
    if (v != NULL && peer_same(&v->value, call->argv[1])) {
        set_key(call, 0, call->argv[2], peer_number(call->argv[3]));
        count++;
    }
    peer_add_number(&call->conn->output, ':', count);
}

static void cover(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    bool renews = peer_equal(call->argv[5], peer_text("1"));
    bool has_helper = helper != NULL && peer_same(&helper->value, call->argv[1]);
    bool has_key = v != NULL && peer_same(&v->value, call->argv[1]);
    int64_t ttl_ms = renews ? peer_number(call->argv[2]) : 0, left = -1;
    if (has_helper && renews)
        peer_key_expire(call->server, call->conn, helper, ttl_ms);
    else if (has_helper)
        ttl_ms = peer_key_pttl(call->server, call->keys[1]);
    if (has_key && renews)
        peer_key_expire(call->server, call->conn, v, ttl_ms);
    if (!has_key && has_helper) {
        left = peer_key_pttl(call->server, call->keys[0]);
        if (left >= 0 && left <= peer_number(call->argv[4])) {
            if (peer_equal(identity(v, call->argv[1]), call->argv[3]))
                set_key(call, 0, call->argv[1], ttl_ms);
            left = -1;
        }
    }
    code_and_left(call, has_helper + has_key, left);
}

static void refresh_publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *helper = get_key(call, 1);
    if (helper != NULL && peer_same(&helper->value, call->argv[2]))
        peer_key_unlink(call->server, call->conn, call->keys[1]);
    bool covered = v != NULL && peer_same(&v->value, call->argv[2]);
    if (covered ||
        (v != NULL && peer_key_kind(v) != 0 && peer_equal(peer_key_nonce(v), call->argv[1]))) {
        set_key(call, 0, call->argv[3], peer_number(call->argv[4]));
        codes(call, 1);
    } else if (v != NULL && peer_same(&v->value, call->argv[3])) {
        codes(call, 1);
    } else {
        newer_value(call, v);
    }
}

static void put(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *w = get_key(call, 1);
    struct peer_arg lease = call->argv[1];
    int64_t ttl_ms = peer_number(call->argv[2]);
    if (w != NULL && !peer_same(&w->value, lease)) {
        say_busy(call, 1, w);
        return;
    }
    int kind = v != NULL ? peer_key_kind(v) : 0;
    if (kind == RC_KIND_LEASE && !peer_same(&v->value, lease) &&
        peer_key_pttl(call->server, call->keys[0]) >= 0) {
        say_busy(call, 0, v);
        return;
    }
    set_key(call, 1, lease, ttl_ms);
    int64_t left = peer_key_pttl(call->server, call->keys[0]);
    bool ends = left >= 0 && left <= peer_number(call->argv[3]);
    if (v == NULL || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE || ends) {
        set_key(call, 0, lease, ttl_ms);
        v = peer_look(call->server, call->keys[0]);
        left = -1;
    }
    struct peer_arg id = identity(v, lease);
    peer_add(&call->conn->output, "*3\r\n:1\r\n");
    peer_add_bulk(&call->conn->output, id.bytes, id.len);
    peer_add_number(&call->conn->output, ':', left);
}

static void put_publish(struct call *call)
{
    struct peer_key *v = get_key(call, 0), *w = get_key(call, 1);
    bool mine = w != NULL && peer_same(&w->value, call->argv[1]);
    if (mine)
        peer_key_unlink(call->server, call->conn, call->keys[1]);
    if (v != NULL && peer_same(&v->value, call->argv[2])) {
        codes(call, 1);
    } else if (!mine || v == NULL ||
               (!peer_same(&v->value, call->argv[1]) &&
                !peer_equal(identity(v, call->argv[1]), call->argv[4]))) {
        codes(call, 0);
    } else {
        set_key(call, 0, call->argv[2], peer_number(call->argv[3]));
        codes(call, 1);
    }
}

static void unlink_version(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool is_seen =
        v != NULL && peer_key_kind(v) != 0 && peer_equal(peer_key_nonce(v), call->argv[1]);
    if (is_seen)
        peer_key_unlink(call->server, call->conn, call->keys[0]);
    peer_add_number(&call->conn->output, ':', is_seen ? 1 : v != NULL ? -1 : 0);
}

static void lock(struct call *call)
{
    char line[32];
    struct peer_key *old = peer_look(call->server, call->keys[0]);
    bool force = peer_equal(call->argv[3], peer_text("1"));
    if (!force && old->exists && !peer_same(&old->value, call->argv[1])) {
        (void)get_key(call, 2);
        codes(call, 0);
        return;
    }
    set_key(call, 0, call->argv[1], peer_number(call->argv[2]));
    const struct peer_key *fence = get_key(call, 1);
    int64_t next = 1 + (fence != NULL ? peer_number((struct peer_arg){rc_buf_head(&fence->value),
                                                                      rc_buf_len(&fence->value)})
                                      : 0);
    if (next < call->server->now_us)
        next = call->server->now_us;
    snprintf(line, sizeof line, "%lld", (long long)next);
    set_key(call, 1, peer_text(line), peer_number(call->argv[4]));
    (void)get_key(call, 0);
    peer_add(&call->conn->output, "*2\r\n:1\r\n");
    peer_add_number(&call->conn->output, ':', next);
}

static void lock_renew(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool ours = v != NULL && peer_same(&v->value, call->argv[1]);
    if (ours) {
        peer_key_expire(call->server, call->conn, v, peer_number(call->argv[2]));
        (void)get_key(call, 0);
    }
    peer_add_number(&call->conn->output, ':', ours);
}

static void lock_release(struct call *call)
{
    struct peer_key *v = get_key(call, 0);
    bool ours = v != NULL && peer_same(&v->value, call->argv[1]);
    if (ours) {
        peer_key_unlink(call->server, call->conn, call->keys[0]);
        set_key(call, 1, call->argv[1], 1000);
    }
    peer_add_number(&call->conn->output, ':', ours);
}

static void run_script(struct call *call, enum rc_script script)
{
    call->server->scripts[script]++;
    switch (script) {
    case RC_SCRIPT_ACQUIRE: acquire(call); break;
    case RC_SCRIPT_PUBLISH: publish(call); break;
    case RC_SCRIPT_PUBLISH_MANY: publish_many(call); break;
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
    case RC_SCRIPT_QUEUE_LOCK: /* queue_lock_test works on the store */
    case RC_SCRIPT_QUEUE_RENEW:
    case RC_SCRIPT_QUEUE_RELEASE:
    case RC_SCRIPT_COUNT: break;
    }
}

void peer_do_script(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                    int count)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        bool by_sha =
            peer_is(args[0], "EVALSHA") && peer_is(args[1], rc_script_sha(i)) && server->known[i];
        bool by_source = peer_is(args[0], "EVAL") && peer_is(args[1], rc_script_source(i));
        if (!by_sha && !by_source)
            continue;
        int keys = (int)peer_number(args[2]);
        assert(3 + keys <= count);
        struct call call = {server, conn, args + 3, keys, args + 3 + keys - 1, count - 3 - keys};
        server->known[i] = true;
        run_script(&call, (enum rc_script)i);
        return;
    }
    peer_add(&conn->output, peer_is(args[0], "EVAL")
                                ? "-ERR Error compiling script\r\n"
                                : "-NOSCRIPT No matching script. Use EVAL.\r\n");
}
