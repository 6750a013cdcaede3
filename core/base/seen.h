/*
 * seen - a set of byte strings that were met, in few bytes each.
 *
 * What:    keeps a keyed hash of 64 bits of each string. Two strings are taken for one by chance of
 *          one in 2^64 for each pair: of a million strings, once in 40 million sets.
 * Threads: one owner.
 * Memory:  8 bytes a string and the room to find it: 24 bytes at most, while it grows, too. Owns
 *          its tables; keeps no string.
 * Errors:  RC_ERR_NOMEM, and then the set is as it was.
 * Not:     nothing is ever taken out.
 */
#ifndef RC_SEEN_H
#define RC_SEEN_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

/* Each grows by itself, so that little is there twice meanwhile. */
enum { RC_SEEN_PARTS = 256 };

struct rc_seen_part {
    uint64_t *hashes; /* a power of two; 0: free. NULL while empty */
    uint32_t room;
    uint32_t count;
};

struct rc_seen {
    struct rc_seed seed;
    struct rc_seen_part parts[RC_SEEN_PARTS];
};

void rc_seen_init(struct rc_seen *seen, const struct rc_seed *seed);
void rc_seen_deinit(struct rc_seen *seen);
/* 1: it is new, and kept from now on. 0: it was met before. */
int rc_seen_meet(struct rc_seen *seen, const char *bytes, size_t len);
/* Bytes of all tables. */
size_t rc_seen_room(const struct rc_seen *seen);

#endif
