/*
 * lifeline - which owner slots of a named region belong to processes that live.
 *
 * What:    the byte of the region's file with a slot's number is write-locked while the slot has an
 *          owner. The kernel takes the lock back when the process dies, however it dies, and tells
 *          processes of every pid namespace the same. A process number would mean another process,
 *          or none, in another container.
 *          The locks are those of open file descriptions (F_OFD_SETLK), and each process has a
 *          description of its own:
 *          - kill -9, exec (close on exec) and exit close it; a thread that ends does not; a
 *            process that stands still keeps it.
 *          - fork() lets the child share the parent's description, and the locks would live as long
 *            as the child. So the client's fork handlers open a description for the child before
 *            each fork, while the parent may open the file still (a worker of nginx runs as another
 *            user), and the child closes the parent's at once. Where nobody called them the number
 *            of the process has changed, and the child opens its own before it takes a slot.
 *          - a mapping keeps its description open, and a child inherits mappings: this one is never
 *            mapped.
 *          Not taken: locks of a process (F_SETLK) vanish as soon as anything in the process closes
 *          any other descriptor of the file, a second cache of that name for example. A robust
 *          mutex dies with the thread that holds it, and its holder is a number of some pid
 *          namespace.
 * Threads: open, close and the fork handlers by one thread at a time; the rest under the region's
 *          mutex.
 * Memory:  one descriptor; two while a fork is under way.
 * Errors:  where it cannot be told whether a slot is held, it is held; where a process cannot have
 *          a description of its own, it gets no slot.
 * Not:     a program that closes descriptors it does not know (closefrom) closes this one, too, and
 *          with it all connections: it has to open its caches afterwards.
 */
#ifndef RC_LIFELINE_H
#define RC_LIFELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "near/near.h"

enum { RC_LIFELINE_PATH = 256 };

struct rc_lifeline {
    int fd;                             /* -1: none */
    int spare;                          /* the child's, while a fork is under way; -1: none */
    int32_t pid;                        /* of the process that has fd for itself */
    uint64_t mine[RC_NEAR_OWNERS / 64]; /* slots of this process: own locks are never in the way */
    char path[RC_LIFELINE_PATH];        /* of the file, for shm_open */
};

void rc_lifeline_init(struct rc_lifeline *line); /* has no file, and holds nothing */
/* Of the file that is open as `file`. False: it cannot be opened again, or locks do not work
   there. */
bool rc_lifeline_open(struct rc_lifeline *line, int file, const char *path);
void rc_lifeline_close(struct rc_lifeline *line);

/* In a child of fork(): lets go of what is the parent's. False: no slot can be taken. */
bool rc_lifeline_renew(struct rc_lifeline *line);
bool rc_lifeline_take(struct rc_lifeline *line, uint32_t slot); /* false: somebody has it */
void rc_lifeline_give(struct rc_lifeline *line, uint32_t slot);
bool rc_lifeline_is_held(const struct rc_lifeline *line, uint32_t slot); /* by anybody alive */

void rc_lifeline_before_fork(struct rc_lifeline *line);
void rc_lifeline_after_fork(struct rc_lifeline *line);
void rc_lifeline_after_fork_in_child(struct rc_lifeline *line);

#endif
