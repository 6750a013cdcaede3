/*
 * ghost - keys that were here until lately: 16 bits of each.
 *
 * What:    a set-associative FIFO of fingerprints. A fill that finds its key here goes to the main
 *          queue at once: it was evicted, or dropped because it changed, and is wanted again.
 * Threads: under the mutex of the stripe.
 * Memory:  lines of one cache line each, given by the caller.
 * Errors:  none: a damaged line forgets or confuses keys.
 * Not:     no proof: one key in some thousand is taken for another one, and gets a better place.
 */
#ifndef RC_GHOST_H
#define RC_GHOST_H

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

enum { RC_GHOST_PRINTS = 31 };

struct rc_ghost_line {
    alignas(64) uint16_t fingerprints[RC_GHOST_PRINTS]; /* 0: none */
    uint16_t next;                                      /* the place of the next one */
};

void rc_ghost_add(struct rc_ghost_line *lines, uint32_t count, uint64_t hash);
bool rc_ghost_take(struct rc_ghost_line *lines, uint32_t count, uint64_t hash);

#endif
