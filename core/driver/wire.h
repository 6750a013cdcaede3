/*
 * wire - what the bytes of a driver's links travel over: a socket, or a store in this process.
 *
 * What:    the table of what a driver can do with a line. Everything else in the driver is the same
 *          for all of them.
 * Threads: the engine's owner; sweep: any.
 * Memory:  tables are constant; what they work on lies in the line and the driver.
 * Errors:  told to the link by rc_link_lost.
 * Not:     does not know the bytes, nor who moves them, and when: that is the runner's.
 */
#ifndef RC_WIRE_H
#define RC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver/line.h"

struct rc_wire {
    /* Answers are there when `send` returns, and news comes by rc_driver_tell: it is of no use to
       watch for them. */
    bool is_instant;
    /* Of a line with the wire's own part, which begins as zeros. */
    size_t line_size;
    /* ... and then as this says. NULL: zeros are right. */
    void (*init)(struct rc_line *line);
    void (*deinit)(struct rc_line *line); /* of one that is closed. NULL: there is nothing to do */
    /* Opens or closes what the link wants opened or closed. NULL: that takes time, and is up to the
       reactor. */
    void (*open_or_close)(struct rc_line *line);
    /* Moves what the link has to say, as far as it goes now; says in the line whether it is all. */
    void (*send)(struct rc_line *line);
    /* Feeds the link with what has come. Returns whether there was anything. */
    bool (*receive)(struct rc_line *line);
    /* To be called some ten times a second. NULL: nothing to do. */
    void (*sweep)(struct rc_driver *driver, int64_t now_us);
};

extern const struct rc_wire rc_wire_socket; /* plain or TLS */
extern const struct rc_wire rc_wire_memory;
extern const struct rc_wire rc_wire_host; /* the host moves them: see host.c */

#endif
