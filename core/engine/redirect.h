/*
 * redirect - what a node of a cluster answers instead of an answer.
 *
 * What:    reads "MOVED 3999 host:port", ASK, TRYAGAIN, CLUSTERDOWN, MASTERDOWN and LOADING. Writes
 *          what goes where ASK says, and reads the answers to that.
 * Threads: pure.
 * Memory:  a plain struct; appends to the given buf.
 * Errors:  what is no redirection is RC_REDIRECT_NONE. RC_ERR_NOMEM, and nothing was appended.
 * Not:     follows nothing: the topology does.
 * Source:  "Redirection and resharding" in the Redis Cluster specification. The host may be missing
 *          (":6379" where cluster-preferred-endpoint-type is unknown-endpoint) or unknown
 *          ("?:6379"): both mean the host that was asked.
 */
#ifndef RC_REDIRECT_H
#define RC_REDIRECT_H

#include "base/buf.h"
#include "engine/resp.h"

enum rc_redirect_kind {
    RC_REDIRECT_NONE,
    RC_REDIRECT_MOVED, /* another node owns the slot, from now on */
    RC_REDIRECT_ASK,   /* this one request, behind ASKING; the slot's owner stays */
    RC_REDIRECT_WAIT   /* the same node in a moment: the slot or the server is not ready */
};

struct rc_redirect {
    enum rc_redirect_kind kind;
    int32_t slot; /* MOVED, ASK */
    uint16_t port;
    char host[256]; /* "": the host that was asked */
};

/* Of an answer's first element. */
void rc_redirect_read(struct rc_redirect *redirect, const rc_node *node);
/* Whether the answer is one, without reading where to. */
bool rc_redirect_is(const rc_node *node);

/* Appends encoded commands with ASKING before each, for it holds for one only. */
int rc_redirect_ask(struct rc_buf *out, const char *bytes, size_t len);
/* The answers to those, without the ones to ASKING: where one of these is an error, and so the
   command was refused, too, that error says why. */
void rc_redirect_drop_asking(struct rc_reply *reply);

#endif
