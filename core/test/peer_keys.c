#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/peer_own.h"

/* ---- answers --------------------------------------------------------------------------------- */

void peer_add(struct rc_buf *out, const char *text)
{
    peer_must(rc_buf_append(out, text, strlen(text)));
}

void peer_add_number(struct rc_buf *out, char type, int64_t number)
{
    char line[32];
    snprintf(line, sizeof line, "%c%lld\r\n", type, (long long)number);
    peer_add(out, line);
}

void peer_add_bulk(struct rc_buf *out, const char *bytes, size_t len)
{
    peer_add_number(out, '$', (int64_t)len);
    peer_must(rc_buf_append(out, bytes, len));
    peer_add(out, "\r\n");
}

void peer_add_value(struct rc_buf *out, const struct peer_key *key)
{
    if (key == NULL)
        peer_add(out, "_\r\n");
    else
        peer_add_bulk(out, rc_buf_head(&key->value), rc_buf_len(&key->value));
}

/* ---- keys ------------------------------------------------------------------------------------ */

struct peer_arg peer_text(const char *bytes)
{
    return (struct peer_arg){bytes, strlen(bytes)};
}

bool peer_same(const struct rc_buf *buf, struct peer_arg arg)
{
    return rc_buf_is(buf, arg.bytes, arg.len);
}

static struct peer_key *slot_of(struct peer_server *server, struct peer_arg name)
{
    for (int i = 0; i < server->key_count; i++) {
        if (peer_same(&server->keys[i].name, name))
            return &server->keys[i];
    }
    if (server->key_count == PEER_KEYS)
        abort();
    struct peer_key *key = &server->keys[server->key_count++];
    peer_must(rc_buf_append(&key->name, name.bytes, name.len));
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
        peer_add(out, ">2\r\n$10\r\ninvalidate\r\n*1\r\n");
        peer_add_bulk(out, rc_buf_head(&key->name), rc_buf_len(&key->name));
    }
    key->trackers = 0;
}

struct peer_key *peer_look(struct peer_server *server, struct peer_arg name)
{
    struct peer_key *key = slot_of(server, name);
    if (key->exists && key->expires_us != 0 && key->expires_us <= server->now_us) {
        key->exists = false;
        touch(server, NULL, key);
    }
    return key;
}

/* As GET: NULL when absent; tracked from now on. */
struct peer_key *peer_key_get(struct peer_server *server, struct peer_conn *conn,
                              struct peer_arg name)
{
    struct peer_key *key = peer_look(server, name);
    if (conn != NULL && conn->tracks)
        key->trackers |= 1u << (conn - server->conns);
    return key->exists ? key : NULL;
}

void peer_key_set(struct peer_server *server, struct peer_conn *conn, struct peer_arg name,
                  struct peer_arg value, int64_t ttl_ms)
{
    struct peer_key *key = peer_look(server, name);
    rc_buf_clear(&key->value);
    peer_must(rc_buf_append(&key->value, value.bytes, value.len));
    key->exists = true;
    key->expires_us = ttl_ms < 0 ? 0 : server->now_us + ttl_ms * 1000;
    touch(server, conn, key);
}

int peer_key_unlink(struct peer_server *server, struct peer_conn *conn, struct peer_arg name)
{
    struct peer_key *key = peer_look(server, name);
    if (!key->exists)
        return 0;
    key->exists = false;
    touch(server, conn, key);
    return 1;
}

void peer_key_expire(struct peer_server *server, struct peer_conn *conn, struct peer_key *key,
                     int64_t ttl_ms)
{
    key->expires_us = server->now_us + ttl_ms * 1000;
    touch(server, conn, key);
}

int64_t peer_key_pttl(struct peer_server *server, struct peer_arg name)
{
    const struct peer_key *key = peer_look(server, name);
    if (!key->exists)
        return -2;
    return key->expires_us == 0 ? -1 : (key->expires_us - server->now_us) / 1000;
}

int64_t peer_number(struct peer_arg arg)
{
    char line[32] = "";
    memcpy(line, arg.bytes, arg.len < sizeof line ? arg.len : sizeof line - 1);
    return strtoll(line, NULL, 10);
}

/* ---- entries --------------------------------------------------------------------------------- */

int peer_key_kind(const struct peer_key *key)
{
    return rc_entry_form(rc_buf_head(&key->value), rc_buf_len(&key->value));
}

struct peer_arg peer_key_nonce(const struct peer_key *key)
{
    return (struct peer_arg){rc_buf_head(&key->value) + 8, RC_NONCE_SIZE};
}

bool peer_equal(struct peer_arg a, struct peer_arg b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
}

bool peer_is(struct peer_arg arg, const char *name)
{
    return peer_equal(arg, peer_text(name));
}

/* ---- a foreign client ------------------------------------------------------------------------ */

void peer_put(struct peer_server *server, const char *key, const char *bytes, size_t len,
              int64_t ttl_ms)
{
    peer_key_set(server, NULL, peer_text(key), (struct peer_arg){bytes, len}, ttl_ms);
}

void peer_pexpire(struct peer_server *server, const char *key, int64_t ttl_ms)
{
    struct peer_key *found = peer_find(server, key);
    if (found != NULL)
        peer_key_expire(server, NULL, found, ttl_ms);
}

void peer_unlink(struct peer_server *server, const char *key)
{
    peer_key_unlink(server, NULL, peer_text(key));
}

struct peer_key *peer_find(struct peer_server *server, const char *key)
{
    struct peer_key *found = peer_look(server, peer_text(key));
    return found->exists ? found : NULL;
}

int64_t peer_pttl(struct peer_server *server, const char *key)
{
    return peer_key_pttl(server, peer_text(key));
}

bool peer_has_lease(struct peer_server *server, const char *key)
{
    const struct peer_key *found = peer_find(server, key);
    return found != NULL && peer_key_kind(found) == RC_KIND_LEASE;
}
