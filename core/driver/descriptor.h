/*
 * descriptor - finds the descriptor of a connection that somebody else has made.
 *
 * What:    its maker turns SO_KEEPALIVE of it on and off, and this looks, after each, which sockets
 *          of the process have followed so far. Nothing else would tell: nginx does not give Lua
 *          the descriptors of its cosockets.
 * Threads: one, for one search. That another socket follows each step by chance, its own thread
 *          would have to turn the same option at the same moments.
 * Memory:  the caller's.
 * Errors:  none; what is not found is not known.
 * Not:     looks no further than RC_DESCRIPTORS_MAX: one behind that is not found.
 */
#ifndef RC_DESCRIPTOR_H
#define RC_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

/* A look takes a system call for each, 0.3 ms in all, once for each connection that is made. */
enum { RC_DESCRIPTORS_MAX = 4096 };

struct rc_descriptor_search {
    uint64_t left[RC_DESCRIPTORS_MAX / 64]; /* a bit for each that has followed so far */
};

/* Any stream socket may be it, whose SO_KEEPALIVE is off. */
void rc_descriptor_begin(struct rc_descriptor_search *search);
/* Its SO_KEEPALIVE is now `is_on`: the others are not it. */
void rc_descriptor_follow(struct rc_descriptor_search *search, bool is_on);
/* The one that is left; -1: none, or several. */
int rc_descriptor_found(const struct rc_descriptor_search *search);

#endif
