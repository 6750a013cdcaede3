/*
 * ifeq - scripts that compare one key and then write it, done by one command where the server can
 * compare by itself.
 *
 * What:    publish, heartbeat and release of a lease that stands in one key: SET with IFEQ (Valkey
 *          8.1, Redis 8.4), DELIFEQ (Valkey 9.0), DELEX with IFEQ (Redis 8.4). Redis does such a
 *          command in a fraction of the script's time. HELLO says whether the server should know
 *          it, and the first one on each connection proves that: no other goes out before it is
 *          answered, an error ends it for this connection, and the script is sent instead. So it is
 *          wherever the script has more to say than the command: what stands there instead.
 * Threads: the link's owner.
 * Memory:  a plain struct, of the link.
 * Errors:  RC_ERR_NOMEM.
 * Not:     what compares more than one key, or writes another: those stay scripts.
 */
#ifndef RC_IFEQ_H
#define RC_IFEQ_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "engine/resp.h"
#include "engine/server.h"

enum rc_ifeq_kind { RC_IFEQ_SET, RC_IFEQ_DELETE, RC_IFEQ_KINDS };

enum rc_ifeq_state {
    RC_IFEQ_OFF,     /* the server cannot, or has refused */
    RC_IFEQ_UNTRIED, /* it should be able to */
    RC_IFEQ_TRIED,   /* the first one is under way */
    RC_IFEQ_PROVEN
};

struct rc_ifeq {
    enum rc_ifeq_state states[RC_IFEQ_KINDS];
    bool is_delex; /* the server's word for DELIFEQ */
};

/* A connection was made to that server. Where the last one broke with a try under way, the server,
   or what stands in front of it, may have closed it for that: this one does without. */
void rc_ifeq_greet(struct rc_ifeq *ifeq, const struct rc_server *server);

/* Writes the EVALSHA request `bytes` as a command. *is_written false: it goes as it is. */
int rc_ifeq_write(struct rc_ifeq *ifeq, struct rc_buf *out, int script, const char *bytes,
                  size_t len, bool *is_written);

/* The answer to such a command. True: it says as much as the script's would, and has the same form
   now; or it is an error of the server's state. False: the script has to be asked. */
bool rc_ifeq_read(struct rc_ifeq *ifeq, int script, rc_node *answer);

#endif
