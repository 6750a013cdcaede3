/*
 * sketch - which keys of a near cache are hit most: a count-min sketch, and a list of the hottest.
 *
 * What:    readers tell of one of 128 hits (client/view.c), or of fewer while nobody asks, each of
 *          which counts for more; by the key's hash alone. The four counters of a key lie in two
 *          cache lines, two in each, and the places of the list where it may stand in a third. What
 *          was counted is halved every minute, so that what is told is of the last minutes.
 * Threads: any of any process. Nothing waits: every word is loaded and stored for itself. Two who
 *          count at once may count one hit for two, or put one key into a place of the other, which
 *          then has the other's count until it is hit again.
 * Memory:  lines of the region; a struct rc_sketch is a process's view of them.
 * Errors:  none: damaged words tell nonsense of hashes.
 * Not:     no keys, which near_hot finds by their hashes; no decision: it is for people who ask.
 * Source:  Cormode, Muthukrishnan: The count-min sketch, J. Algorithms 2005; the counters in few
 *          lines as in Putze et al.: Cache-, hash- and space-efficient Bloom filters, 2007. With
 *          all four in one line, of 200 keys of that line one was counted together with the
 *          hottest.
 */
#ifndef RC_SKETCH_H
#define RC_SKETCH_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RC_SKETCH_ROWS = 4,  /* two in either line of a key */
    RC_SKETCH_CELLS = 8, /* of a row in a line */
    RC_SKETCH_MIN_LINES = 4,
    RC_SKETCH_MAX_LINES = 1024, /* 16384 counters */
    RC_SKETCH_WAYS = 5,
    RC_SKETCH_MAX_SETS = 32,
    RC_SKETCH_PLACES = RC_SKETCH_WAYS * RC_SKETCH_MAX_SETS,
    RC_SKETCH_HALF_US = 60000000,
    RC_SKETCH_ASKED_S = 60 /* so long behind a question it is worth while to count much */
};

struct rc_sketch_line {
    alignas(64) _Atomic uint32_t cells[RC_SKETCH_ROWS / 2][RC_SKETCH_CELLS];
};

/* Places of the list. A hash of 0 stands for none: one key of 2^64 is never told. */
struct rc_sketch_set {
    alignas(64) _Atomic uint64_t hashes[RC_SKETCH_WAYS];
    _Atomic uint32_t counts[RC_SKETCH_WAYS]; /* what the sketch said when it was hit last */
};
_Static_assert(sizeof(struct rc_sketch_line) == 64 && sizeof(struct rc_sketch_set) == 64,
               "a key has one line of either");

/* In the region; zeroes to begin with. */
struct rc_sketch_head {
    alignas(64) _Atomic uint32_t halvings; /* since the region's birth */
    _Atomic uint32_t asked;                /* the second of the last question, from 1; 0: never */
};

struct rc_sketch {
    /* Fixed after init. */
    struct rc_sketch_head *head;
    struct rc_sketch_set *sets;
    struct rc_sketch_line *lines;
    uint32_t set_mask;
    uint32_t line_mask;
};

struct rc_sketch_hot {
    uint64_t hash;
    uint32_t count;
};

/* Of a region of that size; a multiple of 64. */
size_t rc_sketch_bytes(size_t region_bytes);
void rc_sketch_view(struct rc_sketch *sketch, size_t region_bytes, char *at);

/* So many more hits of the key of that hash. age_us: since the region's birth. */
void rc_sketch_count(struct rc_sketch *sketch, uint64_t hash, uint32_t times, int64_t age_us);
/* Somebody wants to know; and whether anybody has wanted to in the last minute. */
void rc_sketch_ask(struct rc_sketch *sketch, int64_t age_us);
bool rc_sketch_is_asked(const struct rc_sketch *sketch, int64_t age_us);
/* How often the key was counted, halved every minute: not less than that, unless counts were lost,
   and seldom more. */
uint32_t rc_sketch_estimate(const struct rc_sketch *sketch, uint64_t hash);
/* The hottest, each once, the most often counted first; how many. */
uint32_t rc_sketch_hottest(struct rc_sketch *sketch, int64_t age_us,
                           struct rc_sketch_hot hottest[RC_SKETCH_PLACES]);

#endif
