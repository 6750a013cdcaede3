/*
 * line - the connection of one link, as its driver has it.
 *
 * What:    what a driver knows of it whatever the wire; a wire puts its own part behind that: a
 *          socket (wire_socket.h), an end of a store (wire_memory.c), nothing where a host has it.
 *          It hangs on its link: who walks the links has the lines.
 * Threads: the engine's owner.
 * Memory:  one per link: made when the link comes, freed when it has gone.
 * Errors:  none.
 * Not:     does not say whether there is a connection: that is the wire's part.
 */
#ifndef RC_LINE_H
#define RC_LINE_H

#include <stdbool.h>

struct rc_driver;
struct rc_link;

struct rc_line {
    /* Fixed after start. */
    struct rc_driver *driver;
    struct rc_link *link;

    /* Owner only. */
    bool is_readable; /* the next pass reads from it even if no answer is due */
    bool is_due;      /* an answer was due when this pass began */
    bool has_unsent;  /* the wire held something back: the next pass sends, output or not */
};

#endif
