/*
 * handshake - what a new connection, or one that is to be as new, is asked before it is used.
 *
 * What:    the steps of each role and their order, what each asks, and what its answer means: who
 *          the server is, what it can do, whether it lets us in. What is learned goes into the
 *          link: identity, server, tracking, is_read_only, turned_away; `cause` says why not.
 * Threads: the engine's owner.
 * Memory:  writes into the link's output.
 * Errors:  RC_ERR_NOMEM; what a server says is an enum rc_greeting.
 * Not:     takes no link down and none up, and ends no request: link does.
 */
#ifndef RC_HANDSHAKE_H
#define RC_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/link.h"
#include "engine/login.h"

/* What an answer means for the connection. From RC_GREETING_FAILED on: it is of no use, and
   link->cause says why. */
enum rc_greeting {
    RC_GREETING_GOES_ON,
    RC_GREETING_DONE, /* it was the last answer, and the link may be used */
    RC_GREETING_FAILED,
    RC_GREETING_TURNED_AWAY,  /* the server has no room for us now */
    RC_GREETING_REFUSED,      /* it does not let us in: the next connection would not help */
    RC_GREETING_LOGIN_REFUSED /* it would, with newer credentials, which are asked for */
};

/* Begins: writes all the steps. */
int rc_handshake_write(struct rc_link *link);
enum rc_greeting rc_handshake_read(struct rc_link *link, const struct rc_reply *reply);

/* AUTH, user and password: a command, or a part of HELLO. */
int rc_handshake_write_auth(const struct rc_link *link, struct rc_buf *out);
/* Whether the server would take a write, as its role and its answer to PING tell. */
void rc_handshake_judge_writes(struct rc_link *link, const rc_node *ping);

/* "W", "T", "X", "S" or "R". */
const char *rc_handshake_role_name(enum rc_link_role role);

/* It says who the client is; sentinels have users of their own, which never change. */
static inline bool rc_handshake_has_login(const struct rc_link *link)
{
    return link->role != RC_LINK_S;
}

/* The credentials for it. 0: the address says who we are. */
static inline uint64_t rc_handshake_login(const struct rc_link *link)
{
    return rc_handshake_has_login(link) ? link->context->login->version : 0;
}

#endif
