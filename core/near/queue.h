/*
 * queue - the two queues of S3-FIFO: whom to ask first when room is needed.
 *
 * What:    a small queue for what is new and a main queue for what was read at least twice there.
 *          Doubly linked through the blocks, newest first.
 * Threads: under the mutex of the stripe.
 * Memory:  links are refs (arena.h) in the blocks.
 * Errors:  false, or a ref of 0: the links contradict each other, the stripe is damaged.
 * Not:     does not know frequencies: they lie in the index, where readers may raise them.
 * Source:  Yang et al., SOSP 2023.
 */
#ifndef RC_QUEUE_H
#define RC_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "near/block.h"

enum {
    RC_QUEUE_SMALL = 0,
    RC_QUEUE_MAIN = 1,
    RC_QUEUE_PROMOTION = 2, /* read as often in the small queue: it moves to the main one */
    RC_QUEUE_HOTTEST = 3    /* further reads are not counted */
};

struct rc_queue {
    uint32_t newest;
    uint32_t oldest;
    uint32_t bytes;
};

/* What a group of keys has in one stripe. */
struct rc_queue_pair {
    struct rc_queue queues[2]; /* RC_QUEUE_SMALL, RC_QUEUE_MAIN */
};

enum rc_queue_verdict {
    RC_QUEUE_EVICT,
    RC_QUEUE_EVICT_REMEMBERED, /* and the ghost queue remembers it */
    RC_QUEUE_PROMOTE,          /* to the main queue, frequency 0 */
    RC_QUEUE_REPRIEVE          /* back to the front of the main queue, frequency one less */
};

/* The queues are input, like all of a region. Asked before the two below, with what the arena has
   handed out: whether the block stands where its neighbours say, and whether the newest one is
   one. */
bool rc_queue_is_linked(const struct rc_queue_pair *pair, char *arena, uint32_t ref,
                        uint32_t units);
bool rc_queue_is_open(const struct rc_queue_pair *pair, char *arena, int queue, uint32_t units);
void rc_queue_push(struct rc_queue_pair *pair, char *arena, uint32_t ref, int queue);
void rc_queue_remove(struct rc_queue_pair *pair, char *arena, uint32_t ref);
/* The next one to be judged; 0: both queues are empty. */
uint32_t rc_queue_next(const struct rc_queue_pair *pair);
enum rc_queue_verdict rc_queue_judge(int queue, uint32_t frequency);

static inline uint32_t rc_queue_bytes(const struct rc_queue_pair *pair)
{
    return pair->queues[0].bytes + pair->queues[1].bytes;
}

#endif
