/*
 * runner - who works for a driver: what a caller does that waits, and what runs in the background.
 *
 * What:    the table of what differs between the ways to turn an engine:
 *              inline   blocking callers turn it, a reactor thread where none does; sockets
 *              instant  the same on a store in memory, where the answer comes with the sending
 *              clock    the caller that moves a clock by hand
 *              poll     a host whose own loop watches the reactor's descriptor
 *              host     a host that owns the connections: its calls are all that happens
 *          Everything else in the driver is the same for all of them.
 * Threads: start, stop, free, orphan: the thread that starts, closes, frees or inherits the driver.
 *          wake: any. wait, turn, tell, fd, pause: a caller's.
 * Memory:  tables are constant; what they work on lies in the driver.
 * Errors:  RC_ERR_*.
 * Not:     what the bytes travel over: that is the wire's.
 */
#ifndef RC_RUNNER_H
#define RC_RUNNER_H

#include <stdbool.h>
#include <stddef.h>

#include "redcache.h"

struct rc_driver;
struct rc_loop;
struct rc_seat;

struct rc_runner {
    /* Nothing happens but in the host's calls: its loop has no descriptor, none waits for it. */
    bool is_host;
    /* There will be so many lines from now on: RC_ERR_NOMEM, or 0. NULL: that is of no concern. */
    int (*make_room)(struct rc_driver *driver, size_t lines);
    /* Starts what works in the background. NULL: nothing does. */
    int (*start)(struct rc_driver *driver);
    /* Ends it; what wakes it does no harm until `free`. NULL: it goes on until then. */
    void (*stop)(struct rc_driver *driver);
    void (*free)(struct rc_driver *driver); /* NULL: nothing to free */
    /* In a child of fork(): closes copies of the parent's descriptors. NULL: there are none. */
    void (*orphan)(struct rc_driver *driver);
    /* Makes it turn the engine soon. NULL: nobody is there to be woken, callers turn it. */
    void (*wake)(struct rc_driver *driver);

    /* Blocks until the seat is done, which it is not yet. Where a host owns the connections it
       returns earlier: only calls are done then. */
    void (*wait)(struct rc_driver *driver, struct rc_seat *seat);
    /* What a caller with a loop does in its turn, before it asks what is done. Does not block. */
    void (*turn)(struct rc_driver *driver, struct rc_loop *loop);
    /* Tells a host what its connections want, and when the next turn is due. NULL: nothing. */
    void (*tell)(struct rc_driver *driver, rc_turn *turn);
    /* The descriptor that tells a caller with a loop when its turn has come. NULL: one that the
       loop makes, which tells when something is done. */
    int (*fd)(struct rc_driver *driver);
    /* Lets a millisecond pass. NULL: by sleeping. */
    void (*pause)(struct rc_driver *driver);
};

extern const struct rc_runner rc_runner_inline;
extern const struct rc_runner rc_runner_instant;
extern const struct rc_runner rc_runner_clock;
extern const struct rc_runner rc_runner_poll;
extern const struct rc_runner rc_runner_host;

#endif
