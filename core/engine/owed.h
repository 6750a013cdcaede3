/*
 * owed - deletes that were promised while the server was away, sent before anything else.
 *
 * What:    each connection, W and T, of each process sends the keys of the near cache's backlog
 *          (near/backlog.h) before the next request that goes over it: an answer that comes over
 *          it is that of a server that has done them. What one connection has been answered for
 *          no other one sends. What the server refuses for now is sent again, a moment later.
 *          A user who may not delete owes nothing: what was promised for that user is counted as
 *          `deletes_lost`.
 * Threads: the engine's owner.
 * Memory:  none of its own; requests are the context's.
 * Errors:  none: without memory, or a connection that breaks, the next one sends them.
 * Not:     not on lent connections, nor to replicas. A failover that loses such a delete is not
 *          noticed (replay.h knows versions that were seen; of these keys there are none).
 */
#ifndef RC_OWED_H
#define RC_OWED_H

#include "engine/link.h"
#include "near/near.h"

/* The link is one that sends what that near cache's processes owe; for good. NULL: none does. */
void rc_owed_init(struct rc_link *link, struct rc_near *near);
/* It can be used: sends what is owed now. */
void rc_owed_send(struct rc_link *link);

#endif
