/*
 * host - a line whose connection a host owns.
 *
 * What:    what host.c, which turns the engine in the host's calls, keeps of it.
 * Threads: the host's.
 * Memory:  its lookup's; the connection is the host's.
 * Errors:  told to the link by rc_link_lost.
 * Not:     moves no bytes: the host does.
 */
#ifndef RC_HOST_H
#define RC_HOST_H

#include "driver/line.h"

struct rc_lookup;

struct rc_host_line {
    struct rc_line line;      /* first: rc_line * is the address of it */
    struct rc_lookup *lookup; /* of its server's name, under way; NULL: none */
};

static inline struct rc_host_line *rc_host_line_of(struct rc_line *line)
{
    return (struct rc_host_line *)(void *)line;
}

#endif
