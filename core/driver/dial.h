/*
 * dial - a line's connection over a socket: made address after address, then watched, then closed.
 *
 * What:    does for a link what it wants, open or close, and says over libuv when the socket has
 *          something. Its owner is the reactor.
 * Threads: the reactor's own; rc_dial_open_or_close and rc_dial_shut as the engine's owner, too.
 * Memory:  the reactor's, and used for one line after the other. It owns the descriptor.
 * Errors:  told to the link by rc_link_lost.
 * Not:     moves no bytes: that is the wire's.
 */
#ifndef RC_DIAL_H
#define RC_DIAL_H

#include <stdbool.h>
#include <uv.h>

#include "driver/wire_socket.h"

struct rc_dial {
    /* Fixed after init. */
    uv_loop_t *loop;
    struct rc_dial *other; /* the next of the reactor's */
    void *owner;
    void (*on_ready)(struct rc_dial *dial);  /* something came, or the connect has ended */
    void (*on_closed)(struct rc_dial *dial); /* the link may want to be opened again */

    struct rc_socket_line *line; /* NULL: of none any more */
    uv_poll_t poll;
    struct rc_lookup *lookup;   /* under way, NULL: none */
    struct addrinfo *addresses; /* of the lookup, NULL for unix sockets */
    struct addrinfo *next;
    int fd;        /* connecting or connected, -1 */
    bool has_poll; /* the poll handle is open */
    bool connecting;
    bool answered;   /* the connect has ended, well or badly */
    int poll_events; /* what it polls for now */
};

/* `loop` need not be initialised yet. The rest of the dial is zeros, but the callbacks. */
void rc_dial_init(struct rc_dial *dial, uv_loop_t *loop);
/* For another line. False: it has one, or is not done with the last one's descriptor. */
bool rc_dial_take_line(struct rc_dial *dial, struct rc_socket_line *line);
/* Closes it and leaves the line, which may go. */
void rc_dial_leave_line(struct rc_dial *dial);

/* Does for the link what it wants, and goes on with a connection under way. */
void rc_dial_open_or_close(struct rc_dial *dial);
/* There is something that only rc_dial_open_or_close can do. */
bool rc_dial_has_work(const struct rc_dial *dial);
/* Watches for these events, or for none (0). Returns whether that is a change. */
bool rc_dial_watch(struct rc_dial *dial, int events);
/* Closes, or gives up connecting. The descriptor goes once libuv has let go of it. */
void rc_dial_shut(struct rc_dial *dial);

#endif
