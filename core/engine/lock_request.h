/*
 * lock_request - what the lock protocol writes, and how it is sent.
 *
 * What:    requests that one answer ends and that may be repeated.
 * Threads: the engine's owner.
 * Memory:  requests come from the context's pool; NULL: no memory.
 * Errors:  NULL, or through the op.
 * Not:     decides nothing: lock.h and hold.h do.
 */
#ifndef RC_LOCK_REQUEST_H
#define RC_LOCK_REQUEST_H

#include "engine/lock.h"
#include "engine/script.h"

/* When a request must be answered; op NULL: by the client's default. */
int64_t rc_lock_deadline(const struct rc_locks *locks, const struct rc_op *op);
int32_t rc_lock_slot(const struct rc_locks *locks, const struct rc_buf *key);
void rc_lock_send(struct rc_locks *locks, struct rc_req *req, const struct rc_buf *key,
                  int64_t deadline_us);
/* Sends it as op's own; req NULL: op fails. */
void rc_lock_send_for(struct rc_locks *locks, struct rc_op *op, struct rc_req *req,
                      void (*done)(struct rc_req *, int, struct rc_reply *, const char *));
int rc_lock_put_key(struct rc_buf *out, const struct rc_buf *key);

struct rc_req *rc_lock_take_ask(struct rc_locks *locks, const struct rc_op *op, const char *token);
struct rc_req *rc_lock_take_renew(struct rc_locks *locks, struct rc_lock *lock, int32_t ttl_ms);
/* `queue_key`: of a lock with a queue; it takes the ticket of one that waits back as well. */
struct rc_req *rc_lock_take_release(struct rc_locks *locks, const struct rc_buf *key,
                                    const struct rc_buf *mark_key, const struct rc_buf *queue_key,
                                    const char *token);
bool rc_lock_is_renewal(const struct rc_req *req);

#endif
