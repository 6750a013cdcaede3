/*
 * lock_queue - what a handle of a lock with a queue knows besides its key: fair locks, and the two
 * sides of a read-write lock.
 *
 * What:    the queue is one string in Redis: a record for each who waits or reads, in the order of
 *          coming. Who waits says every so often that it still does, and is no longer in the way
 *          when its record has ended. The scripts say who is next (script.c).
 * Threads: none of its own; fixed after init.
 * Memory:  owns its keys.
 * Errors:  RC_ERR_NOMEM.
 * Not:     who holds the lock alone stands in the lock's own key, as of a lock without a queue: the
 *          two keep each other out.
 */
#ifndef RC_LOCK_QUEUE_H
#define RC_LOCK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* As the scripts are told. */
enum { RC_QUEUE_NONE = 0, RC_QUEUE_ALONE = 'w', RC_QUEUE_SHARED = 'r' };

struct rc_lock_queue {
    char kind;         /* RC_QUEUE_* */
    struct rc_buf key; /* the string */
    struct rc_buf
        alone; /* the key of who holds it alone: of a shared hold another one than its own */
    struct rc_buf
        line; /* what this handle waits under in this process: each in a line of its own */
};

void rc_lock_queue_init(struct rc_lock_queue *queue); /* there is none */
/* `key`: of the lock; `own`: of the hold; `handle` tells handles apart. */
int rc_lock_queue_join(struct rc_lock_queue *queue, char kind, const struct rc_buf *key,
                       const struct rc_buf *own, const void *handle);
void rc_lock_queue_deinit(struct rc_lock_queue *queue);

#endif
