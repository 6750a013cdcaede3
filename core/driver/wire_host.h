/*
 * wire_host - a connection that is the host's: it moves the bytes, and where it shares the
 * connection, turns send by themselves.
 *
 * What:    a host like nginx lends its connections to no one: what is to be sent has to wait until
 *          a light thread of its own has its turn. Through a duplicate of the descriptor a turn
 *          sends at once, as much as goes; what does not go, and whatever else befalls the
 *          connection, is the host's.
 * Threads: the host's.
 * Memory:  its lookup's, and a descriptor; the connection is the host's.
 * Errors:  told to the link by rc_link_lost. What befalls a shared connection the host hears, too,
 *          and tells.
 * Not:     opens and closes nothing: the host does.
 */
#ifndef RC_WIRE_HOST_H
#define RC_WIRE_HOST_H

#include <stddef.h>

#include "driver/descriptor.h"
#include "driver/line.h"

struct rc_lookup;

struct rc_host_line {
    struct rc_line line;      /* first: rc_line * is the address of it */
    struct rc_lookup *lookup; /* of its server's name, under way; NULL: none */
    int fd;                   /* our duplicate of a connection that the host shares; -1: none */
    bool is_given; /* the host has output of it in its hands: nothing may overtake that */
    struct rc_descriptor_search search;
};

static inline struct rc_host_line *rc_host_line_of(struct rc_line *line)
{
    return (struct rc_host_line *)(void *)line;
}

/* The host has shown which connection it is, see rc_descriptor_follow. RC_ERR_UNAVAILABLE: it was
   not found; RC_ERR_DESCRIPTORS. */
int rc_host_line_share(struct rc_host_line *at);
void rc_host_line_unshare(struct rc_host_line *at);
/* Feeds the link with what else has come over a shared connection. */
void rc_host_line_pull(struct rc_host_line *at);

#endif
