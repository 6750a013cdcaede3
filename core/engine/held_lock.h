/*
 * held_lock - a lock while it is ours: renewal, trust, and how its loss is noticed.
 *
 * What:    renews each ttl/3, trusts the lock until a local deadline before its key can end, and
 *          looks at the key whenever Redis says that it changed.
 * Threads: the engine's owner.
 * Memory:  all state is in the rc_lock.
 * Errors:  a lost lock is a state, RC_LOCK_LOST.
 * Not:     does not ask for a lock that is not held: lock.h does.
 */
#ifndef RC_HELD_LOCK_H
#define RC_HELD_LOCK_H

#include "engine/lock.h"

void rc_held_lock_prepare(struct rc_lock *lock, struct rc_locks *locks); /* once per handle */
/* The lock was granted under `token` for asked_ttl_ms, by a request sent at sent_us; it becomes the
   hold that `op` wants. */
void rc_held_lock_start(struct rc_lock *lock, const struct rc_op *op, const char *token,
                        int32_t asked_ttl_ms, int64_t sent_us);
void rc_held_lock_end(struct rc_lock *lock,
                      int state); /* RC_LOCK_FREE or RC_LOCK_LOST; no-op if free */
/* Looks whether the key still holds our token, which also makes the server track it again. */
void rc_held_lock_verify(struct rc_lock *lock);
/* The same where the key's slot is another node's by now: the one before may not know that. */
void rc_held_lock_follow(struct rc_lock *lock);
/* A push (NULL: all may have changed) that stands between the two answers to such a look is told to
   nobody by a watch: the thread that looks then looks once more. */
void rc_held_lock_push(const struct rc_link *link, const char *key, size_t len);

#endif
