/*
 * burst - what is submitted at once: equal reads of it are one request.
 *
 * What:    finds, of the reads submitted since the burst began, the one that asks the same, so that
 *          a later one shares its request. Nothing of a burst has been sent before it ends, so the
 *          one answer is as new as each of them may expect. What was submitted behind a write of
 *          their key, or behind commands that may write any key, shares nothing with what stood
 *          before it. Where hardly any reads are equal, looking for them costs each a tenth of its
 *          time: most bursts are left closed then.
 * Threads: the engine's owner.
 * Memory:  a table of fixed size. Keys and ops are their callers'; no op leaves its engine within a
 *          part of a burst.
 * Errors:  none. A read that finds no place is sent by itself.
 * Not:     sends nothing; what those that share a request are told is call.c's.
 */
#ifndef RC_BURST_H
#define RC_BURST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rc_op;

enum {
    RC_BURST_PLACES = 1024, /* a power of two */
    RC_BURST_JUDGED = 512,  /* so many reads at least tell whether to look is worth it */
    RC_BURST_WORTH = 32,    /* it is where one of so many was equal to another */
    RC_BURST_REST = 15      /* so many bursts stay closed where it is not */
};

/* Of one key, or of none. */
struct rc_burst_place {
    uint32_t part; /* the one it was taken in; another than now: it is free */
    uint32_t hash;
    struct rc_op *op; /* the first to ask; NULL: the key was written since */
};

struct rc_burst {
    bool is_open;
    uint32_t rest;  /* bursts that stay closed */
    uint32_t asked; /* reads since it was judged last */
    uint32_t equal; /* of them */
    uint32_t part;  /* of all bursts; the next one knows no place of this one */
    struct rc_burst_place places[RC_BURST_PLACES];
};

/* Unless it rests. */
void rc_burst_open(struct rc_burst *burst);
void rc_burst_close(struct rc_burst *burst);
/* Of an open one: what comes now shares nothing with what was there before. */
void rc_burst_part(struct rc_burst *burst);
/* Of an open one: the same for reads of this key alone. */
void rc_burst_write(struct rc_burst *burst, const char *key, size_t len);
/* Of an open one: the earlier read that asks what `op`, a read, asks. NULL: there is none; `op` is
   the first then, if it may share what it asks. */
struct rc_op *rc_burst_find(struct rc_burst *burst, struct rc_op *op);

#endif
