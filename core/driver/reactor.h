/*
 * reactor - the thread that turns the loop when no blocking caller does, on libuv.
 *
 * What:    what the runners inline, instant and poll have in common. It opens connections (DNS
 *          included), and keeps renewals, heartbeats and pushes going while Lua is busy. It is in
 *          one of three modes:
 *              ARMED    polls the sockets: nobody turned the loop inline lately
 *              TICKING  looks every 2 ms whether blocking callers still turn it, and turns it where
 *                       they do not
 *              DORMANT  a blocking caller sleeps as the owner and sees everything; it tells when
 *                       it leaves
 *          With RC_DRIVER_POLL there is no thread: the host's loop watches rc_reactor_fd and
 *          dispatches, and it stays in ARMED.
 * Threads: all functions from any thread; everything else happens on the reactor's own, with all
 *          signals blocked. With a host: the host's thread.
 * Memory:  the driver's: start makes it, free frees it.
 * Errors:  RC_ERR_NOMEM when the thread cannot be made, RC_ERR_DESCRIPTORS.
 * Not:     how a caller waits: that is inline.c's, instant.c's and poll.c's.
 */
#ifndef RC_REACTOR_H
#define RC_REACTOR_H

#include "driver/turn.h"

/* They stand in the runners' tables: see runner.h. */
int rc_reactor_start(struct rc_driver *driver);        /* a thread */
int rc_reactor_start_hosted(struct rc_driver *driver); /* no thread: the host dispatches */
void rc_reactor_wake(struct rc_driver *driver);
void rc_reactor_stop(struct rc_driver *driver); /* joins; closes the sockets */
void rc_reactor_free(struct rc_driver *driver); /* after stop; waking it was harmless until then */
/* In a child of fork(): closes its copies of the sockets, which would keep the parent's connections
   open when the parent ends them, and of what the loop stands on, or each generation would have
   more descriptors than the one before. What a host watches (rc_reactor_fd) stays. Nothing else of
   the reactor is ever used there. */
void rc_reactor_orphan(struct rc_driver *driver);

/* With a host. Readable while there is something to dispatch, a timer that is due included. */
int rc_reactor_fd(struct rc_driver *driver);
/* Does all that can be done without waiting. */
void rc_reactor_dispatch(struct rc_driver *driver);

#endif
