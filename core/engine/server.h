/*
 * server - what the server at the other end of a connection is, and what it can do there.
 *
 * What:    one table says since which version a server can do what the engine decides by; HELLO
 *          says which version it is, and what it refuses on the way in is off, too. All of it is
 *          found by asking, and health tells it.
 * Threads: pure.
 * Memory:  a plain struct, of the link; it holds what the last connection has shown.
 * Errors:  none: what a server does not tell is not known, and what is not known is not off.
 * Not:     which server of several it is, and its role: identity. What a command needs that nothing
 *          here decides by: the server's own error says that.
 */
#ifndef RC_SERVER_H
#define RC_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/resp.h"

enum rc_server_ability {
    RC_SERVER_SERVES,     /* RESP3 and all else that a connection begins with */
    RC_SERVER_TRACKS,     /* it tells what has changed */
    RC_SERVER_IDENTIFIES, /* it tells which server it is, and whether it has lost data */
    RC_SERVER_SELECTS,    /* it lets us choose a database; a cluster has but the first one */
    RC_SERVER_ABILITIES
};

enum {
    RC_SERVER_NAME = 32,
    RC_SERVER_LABEL = 2 * RC_SERVER_NAME, /* "redis 7.0.15" */
    RC_SERVER_WHY = 128
};

struct rc_server {
    bool is_known;             /* HELLO was answered */
    char name[RC_SERVER_NAME]; /* "redis", "valkey"; "": not told */
    char version[RC_SERVER_NAME];
    char refusals[RC_SERVER_ABILITIES][RC_SERVER_WHY]; /* in its own words; "": none */
};

/* Forgets what was, and takes what HELLO's map says. */
void rc_server_read_hello(struct rc_server *server, const struct rc_reply *reply);
/* It was asked for that and has answered this; an error is kept. */
void rc_server_read_answer(struct rc_server *server, enum rc_server_ability ability,
                           const rc_node *answer);
/* Why it cannot do that. NULL: it can, or nobody knows. */
const char *rc_server_lacks(const struct rc_server *server, enum rc_server_ability ability);

/* It says itself that it is that one, of that release or a newer one. */
bool rc_server_is(const struct rc_server *server, const char *name, unsigned major, unsigned minor);

/* "redis 7.0.15"; "": not known. */
void rc_server_label(const struct rc_server *server, char *text, size_t size);
/* What is off, a line "tracking: why" each, as the one or the other of two connections to a server
   has shown it; "": nothing is. A server that does not serve is not spoken of: nothing works. */
void rc_server_tell_off(const struct rc_server *one, const struct rc_server *other, char *text,
                        size_t size);

#endif
