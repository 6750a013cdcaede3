/*
 * wire_socket - a line over a socket, plain or with TLS.
 *
 * What:    what the reactor opens and closes, and the engine's owner sends and reads over.
 * Threads: the engine's owner.
 * Memory:  socket and encryption are the reactor's to make and to end.
 * Errors:  told to the link by rc_link_lost.
 * Not:     does not connect: that is the reactor's.
 */
#ifndef RC_WIRE_SOCKET_H
#define RC_WIRE_SOCKET_H

#include "driver/line.h"
#include "driver/tls.h"

struct rc_dial;

struct rc_socket_line {
    struct rc_line line; /* first: rc_line * is the address of it */

    /* Owner only. */
    int fd;               /* connected, -1: none */
    struct rc_tls *tls;   /* NULL: plain */
    struct rc_dial *dial; /* the reactor's; NULL: it was never to be opened */
};

static inline struct rc_socket_line *rc_socket_line_of(struct rc_line *line)
{
    return (struct rc_socket_line *)(void *)line;
}

#endif
