/*
 * driver - an engine that runs: starts it, hands it work, closes and frees it.
 *
 * What:    chooses the runner and the wire for an address and options, and puts them together
 *          with an engine. turn.h has the driver itself: what its owners do.
 * Threads: start, close, free: one, the client sees to it. wait and call: any.
 * Memory:  made by the client; lives until it is freed, after its reactor thread was joined.
 * Errors:  RC_ERR_NOMEM, RC_ERR_DESCRIPTORS from start.
 * Not:     how a caller waits and what works in the background: that is the runner's.
 */
#ifndef RC_DRIVER_H
#define RC_DRIVER_H

#include "driver/turn.h"

/* What a driver works with; all of it is the client's and outlives the driver, but the memory only
   rc_driver_close. */
struct rc_driver_means {
    struct rc_near *near;               /* NULL: none */
    struct rc_tls_context *tls_context; /* for rediss:// addresses, else NULL */
    struct rc_memory *memory;           /* for memory:// addresses, else NULL */
};

int rc_driver_start(struct rc_driver **driver, const rc_options *options,
                    const struct rc_address *address, const struct rc_driver_means *means);
/* Gives leases and locks back, for up to timeout_ms, then fails what is left, joins the reactor. */
void rc_driver_close(struct rc_driver *driver, int32_t timeout_ms);
void rc_driver_free(struct rc_driver *driver); /* after close, when no seat is in it any more */
/* In a child of fork(): closes its copies of the parent's descriptors. It is never used again. */
void rc_driver_orphan(struct rc_driver *driver);

/* Waits for a seat that was submitted; or returns early, where rc_driver_asks. */
static inline void rc_driver_wait(struct rc_driver *driver, struct rc_seat *seat)
{
    if (!rc_seat_is_done(seat))
        driver->runner->wait(driver, seat);
}

/* Runs `call` as the engine's owner, and waits for that. */
void rc_driver_call(struct rc_driver *driver, void (*call)(struct rc_engine *, void *),
                    void *argument);

#endif
