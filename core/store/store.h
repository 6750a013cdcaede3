/*
 * store - the part of Redis that redcache uses, in memory: keys, and connections that speak RESP.
 *
 * What:    bytes of commands in, bytes of answers and pushes out, as Redis 7.0 gives them, and, for
 *          those who ask for it, two commands of newer servers: strings
 *          with expiry, some scripts by their SHA (done natively, no Lua runs here),
 *          client tracking in default mode. What it does not know it says it does not know.
 * Threads: one at a time; the caller sees to it, and to the time.
 * Memory:  owns keys and connections. Bounded by max_bytes: what was used longest ago is evicted,
 *          but not leases and locks; a command that finds no room all the same is answered OOM.
 * Errors:  RC_ERR_NOMEM from what makes something; a command that finds no memory is answered OOM.
 * Not:     no clock, no sockets, no persistence. Keys expire when somebody looks at them, or by
 *          rc_store_sweep.
 */
#ifndef RC_STORE_H
#define RC_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"

enum { RC_STORE_DATABASES = 16 };
#define RC_STORE_NEVER INT64_MAX

struct rc_store;

enum rc_store_role {
    RC_STORE_MASTER,
    RC_STORE_REPLICA, /* writes are refused; nothing expires but by rc_store_apply */
    RC_STORE_LOADING  /* everything but handshakes is refused */
};

/* One peer of a link. */
struct rc_store_conn {
    struct rc_buf output; /* answers and pushes; the caller consumes them */
    bool wants_close;     /* behind its output: QUIT, bytes that are no RESP, or killed */
    void *user;           /* the caller's */
};

/* What a write has made of a key. */
struct rc_store_change {
    uint32_t database; /* RC_STORE_DATABASES: all, with key NULL */
    const char *key;   /* NULL: every key is gone */
    size_t key_len;
    const char *value; /* NULL: the key is gone */
    size_t value_len;
    int64_t expires_ms; /* since 1970; RC_STORE_NEVER */
};

struct rc_store_options {
    size_t max_bytes; /* of keys, values and what goes with them; 0: no bound. Room is made for the
                         most a command can need before it is done. */
    bool compares;    /* it does SET with IFEQ and DELIFEQ, and says that it is valkey 9.1 */
    struct rc_seed seed;
    void *owner;
    /* A connection has output though it was fed nothing: a push. NULL: nobody wants to know. Called
       within a feed, a sweep or an apply: takes note, and calls nothing of the store. */
    void (*on_push)(void *owner, struct rc_store_conn *conn);
    /* A key has changed, expired and evicted ones included; in the order of the changes. The same
       holds for it. */
    void (*on_change)(void *owner, const struct rc_store_change *change);
};

struct rc_store_stats {
    size_t keys;
    size_t bytes; /* what max_bytes bounds */
    size_t connections;
    uint64_t commands;
    uint64_t evictions;
    uint64_t expirations;
};

/* rc_scripts_init has run. */
int rc_store_new(struct rc_store **store, const struct rc_store_options *options);
void rc_store_free(struct rc_store *store); /* its connections, too */

/* The wall clock, in microseconds since 1970; expiry and TIME go by it. It may be set back. */
void rc_store_set_time(struct rc_store *store, int64_t unix_us);
/* What was a replica and is a master begins a history of its own, as INFO tells (master_replid). */
void rc_store_set_role(struct rc_store *store, enum rc_store_role role);

int rc_store_connect(struct rc_store *store, struct rc_store_conn **conn);
void rc_store_disconnect(struct rc_store_conn *conn); /* frees it */
/* Does every command that is complete, keeps the rest for later. Nothing once it wants_close. */
int rc_store_feed(struct rc_store_conn *conn, const char *bytes, size_t len);

/* Expires keys whose time is over, among `count` looked at from where the last call ended. Returns
   how many. */
size_t rc_store_sweep(struct rc_store *store, size_t count);
/* As a replica: makes the change its master made. Connections that track the key are told. Nothing
   is evicted for it, and a lock that came this way may be evicted later. */
int rc_store_apply(struct rc_store *store, const struct rc_store_change *change);
/* Tells every key of `from` as a change: what a replica begins with. */
void rc_store_each(const struct rc_store *from,
                   void (*tell)(void *owner, const struct rc_store_change *change), void *owner);

void rc_store_read_stats(const struct rc_store *store, struct rc_store_stats *stats);

#endif
