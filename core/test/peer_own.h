/*
 * peer_own - what the files of the peer share: peer.c (clients), peer_server.c (its commands),
 * peer_scripts.c (scripts) and peer_keys.c (keys, and how answers are written).
 *
 * What:    see peer.h.
 * Threads: one.
 * Memory:  an argument points into what a connection has sent.
 * Errors:  none: without memory a test program is at its end.
 * Not:     for tests.
 */
#ifndef RC_PEER_OWN_H
#define RC_PEER_OWN_H

#include <stdlib.h>

#include "test/peer.h"

struct peer_arg {
    const char *bytes;
    size_t len;
};

static inline void peer_must(int error)
{
    if (error != 0)
        abort();
}

/* Arguments. */
struct peer_arg peer_text(const char *bytes);
int64_t peer_number(struct peer_arg arg);
bool peer_equal(struct peer_arg a, struct peer_arg b);
bool peer_same(const struct rc_buf *buf, struct peer_arg arg);
bool peer_is(struct peer_arg arg, const char *name);

/* Answers. */
void peer_add(struct rc_buf *out, const char *text);
void peer_add_number(struct rc_buf *out, char type, int64_t number);
void peer_add_bulk(struct rc_buf *out, const char *bytes, size_t len);
void peer_add_value(struct rc_buf *out, const struct peer_key *key);

/* Keys. The one of that name, which is made where there is none. */
struct peer_key *peer_look(struct peer_server *server, struct peer_arg name);
/* As GET: NULL when absent; tracked from now on. */
struct peer_key *peer_key_get(struct peer_server *server, struct peer_conn *conn,
                              struct peer_arg name);
void peer_key_set(struct peer_server *server, struct peer_conn *conn, struct peer_arg name,
                  struct peer_arg value, int64_t ttl_ms);
int peer_key_unlink(struct peer_server *server, struct peer_conn *conn, struct peer_arg name);
void peer_key_expire(struct peer_server *server, struct peer_conn *conn, struct peer_key *key,
                     int64_t ttl_ms);
int64_t peer_key_pttl(struct peer_server *server, struct peer_arg name);
int peer_key_kind(const struct peer_key *key);
struct peer_arg peer_key_nonce(const struct peer_key *key);

/* EVALSHA and EVAL. */
void peer_do_script(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                    int count);
/* The next command that a connection has sent. False: it has not all come. */
bool peer_execute_next(struct peer_server *server, struct peer_conn *conn);

#endif
