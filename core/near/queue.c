#include "near/queue.h"

/* Readers load word by word what lies next to the links, and see the links then, too: they are
   stored atomically. */
static void set_newer(char *arena, uint32_t ref, uint32_t newer)
{
    rc_word_store32(&rc_block_at(arena, ref)->newer, newer);
}

static void set_older(char *arena, uint32_t ref, uint32_t older)
{
    rc_word_store32(&rc_block_at(arena, ref)->older, older);
}

static bool is_ref(uint32_t ref, uint32_t units)
{
    return ref - 1 < units && units - (ref - 1) >= (RC_BLOCK_HEAD + 7) / 8;
}

bool rc_queue_is_linked(const struct rc_queue_pair *pair, char *arena, uint32_t ref, uint32_t units)
{
    const struct rc_block *block = rc_block_at(arena, ref);
    if (block->queue > RC_QUEUE_MAIN)
        return false;
    const struct rc_queue *from = &pair->queues[block->queue];
    uint32_t newer = block->newer, older = block->older;
    if (newer == 0 ? from->newest != ref
                   : !is_ref(newer, units) || rc_block_at(arena, newer)->older != ref)
        return false;
    return older == 0 ? from->oldest == ref
                      : is_ref(older, units) && rc_block_at(arena, older)->newer == ref;
}

bool rc_queue_is_open(const struct rc_queue_pair *pair, char *arena, int queue, uint32_t units)
{
    const struct rc_queue *into = &pair->queues[queue];
    if (into->newest == 0)
        return into->oldest == 0;
    return is_ref(into->newest, units) && rc_block_at(arena, into->newest)->newer == 0;
}

void rc_queue_push(struct rc_queue_pair *pair, char *arena, uint32_t ref, int queue)
{
    struct rc_queue *into = &pair->queues[queue];
    rc_word_store8(&rc_block_at(arena, ref)->queue, (uint8_t)queue);
    set_newer(arena, ref, 0);
    set_older(arena, ref, into->newest);
    if (into->newest != 0)
        set_newer(arena, into->newest, ref);
    else
        into->oldest = ref;
    into->newest = ref;
    into->bytes += (uint32_t)rc_arena_bytes(rc_block_at(arena, ref)->word);
}

void rc_queue_remove(struct rc_queue_pair *pair, char *arena, uint32_t ref)
{
    const struct rc_block *block = rc_block_at(arena, ref);
    struct rc_queue *from = &pair->queues[block->queue];
    uint32_t newer = block->newer, older = block->older;
    if (newer != 0)
        set_older(arena, newer, older);
    else
        from->newest = older;
    if (older != 0)
        set_newer(arena, older, newer);
    else
        from->oldest = newer;
    from->bytes -= (uint32_t)rc_arena_bytes(block->word);
}

/* A tenth for the small queue: the paper's figure. */
uint32_t rc_queue_next(const struct rc_queue_pair *pair)
{
    const struct rc_queue *small = &pair->queues[RC_QUEUE_SMALL];
    const struct rc_queue *main = &pair->queues[RC_QUEUE_MAIN];
    bool is_small = main->oldest == 0 || (uint64_t)small->bytes * 9 > main->bytes;
    return is_small && small->oldest != 0 ? small->oldest : main->oldest;
}

enum rc_queue_verdict rc_queue_judge(int queue, uint32_t frequency)
{
    if (queue == RC_QUEUE_SMALL)
        return frequency >= RC_QUEUE_PROMOTION ? RC_QUEUE_PROMOTE : RC_QUEUE_EVICT_REMEMBERED;
    return frequency > 0 ? RC_QUEUE_REPRIEVE : RC_QUEUE_EVICT;
}
