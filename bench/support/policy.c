#include "support/policy.h"

#include <stdlib.h>

#include "support/trace.h"

void policy_free(struct policy *policy)
{
    policy->free(policy->state);
}

/* ---- queues: each key is in one of a few, or in none ----------------------------------------- */

enum { NOWHERE, SMALL, MAIN, GHOST, QUEUES };
enum { MAX_FREQUENCY = 3, MOVE_ON = 2 };

struct node {
    uint32_t next; /* younger */
    uint32_t prev; /* older */
    uint8_t queue;
    uint8_t frequency;
};

struct queues {
    struct node *nodes; /* of the keys; behind them a sentinel for each queue */
    uint32_t key_count;
    uint32_t capacity;
    uint32_t counts[QUEUES];
    bool ghosts_on_drop;
};

static void put(struct queues *queues, uint32_t key, uint8_t queue)
{
    struct node *nodes = queues->nodes;
    uint32_t end = queues->key_count + queue;
    nodes[key].queue = queue;
    nodes[key].next = end;
    nodes[key].prev = nodes[end].prev;
    nodes[nodes[end].prev].next = key;
    nodes[end].prev = key;
    queues->counts[queue]++;
}

static void take(struct queues *queues, uint32_t key)
{
    struct node *node = &queues->nodes[key];
    queues->nodes[node->prev].next = node->next;
    queues->nodes[node->next].prev = node->prev;
    queues->counts[node->queue]--;
    node->queue = NOWHERE;
}

static uint32_t take_oldest(struct queues *queues, uint8_t queue)
{
    uint32_t key = queues->nodes[queues->key_count + queue].next;
    take(queues, key);
    return key;
}

static struct queues *new_queues(uint32_t key_count, uint32_t capacity)
{
    struct queues *queues = bench_alloc(1, sizeof(*queues));
    queues->nodes = bench_alloc((size_t)key_count + QUEUES, sizeof(struct node));
    queues->key_count = key_count;
    queues->capacity = capacity;
    for (uint32_t end = key_count; end < key_count + QUEUES; end++)
        queues->nodes[end].next = queues->nodes[end].prev = end;
    return queues;
}

static void free_queues(void *state)
{
    free(((struct queues *)state)->nodes);
    free(state);
}

/* ---- LRU: one queue -------------------------------------------------------------------------- */

static bool lru_read(void *state, uint32_t key, uint32_t at)
{
    struct queues *queues = state;
    bool is_hit = queues->nodes[key].queue != NOWHERE;
    (void)at;
    if (is_hit)
        take(queues, key);
    else if (queues->counts[MAIN] >= queues->capacity)
        take_oldest(queues, MAIN);
    put(queues, key, MAIN);
    return is_hit;
}

static void lru_drop(void *state, uint32_t key)
{
    struct queues *queues = state;
    if (queues->nodes[key].queue != NOWHERE)
        take(queues, key);
}

void policy_init_lru(struct policy *policy, uint32_t key_count, uint32_t capacity)
{
    *policy = (struct policy){lru_read, lru_drop, free_queues, new_queues(key_count, capacity)};
}

/* ---- S3-FIFO --------------------------------------------------------------------------------- */

static uint32_t main_capacity(const struct queues *queues)
{
    return queues->capacity - queues->capacity / 10;
}

static void put_ghost(struct queues *queues, uint32_t key)
{
    if (queues->counts[GHOST] >= main_capacity(queues))
        take_oldest(queues, GHOST);
    put(queues, key, GHOST);
}

static void evict_main(struct queues *queues)
{
    for (;;) {
        uint32_t key = take_oldest(queues, MAIN);
        if (queues->nodes[key].frequency == 0)
            return;
        queues->nodes[key].frequency--;
        put(queues, key, MAIN);
    }
}

/* May move everything on and evict nothing. */
static void evict_small(struct queues *queues)
{
    while (queues->counts[SMALL] > 0) {
        uint32_t key = take_oldest(queues, SMALL);
        if (queues->nodes[key].frequency < MOVE_ON) {
            put_ghost(queues, key);
            return;
        }
        queues->nodes[key].frequency = 0;
        put(queues, key, MAIN);
    }
}

static bool s3fifo_read(void *state, uint32_t key, uint32_t at)
{
    struct queues *queues = state;
    struct node *node = &queues->nodes[key];
    (void)at;
    if (node->queue == SMALL || node->queue == MAIN) {
        if (node->frequency < MAX_FREQUENCY)
            node->frequency++;
        return true;
    }
    bool was_ghost = node->queue == GHOST;
    if (was_ghost)
        take(queues, key);
    while (queues->counts[SMALL] + queues->counts[MAIN] >= queues->capacity) {
        if (queues->counts[MAIN] > main_capacity(queues) || queues->counts[SMALL] == 0)
            evict_main(queues);
        else
            evict_small(queues);
    }
    node->frequency = 0;
    put(queues, key, was_ghost ? MAIN : SMALL);
    return false;
}

static void s3fifo_drop(void *state, uint32_t key)
{
    struct queues *queues = state;
    uint8_t queue = queues->nodes[key].queue;
    if (queue != SMALL && queue != MAIN)
        return;
    take(queues, key);
    if (queues->ghosts_on_drop)
        put_ghost(queues, key);
}

void policy_init_s3fifo(struct policy *policy, uint32_t key_count, uint32_t capacity,
                        bool ghosts_on_drop)
{
    struct queues *queues = new_queues(key_count, capacity);
    queues->ghosts_on_drop = ghosts_on_drop;
    *policy = (struct policy){s3fifo_read, s3fifo_drop, free_queues, queues};
}

/* ---- the optimum: a heap of what is there, latest next use on top ---------------------------- */

struct optimum {
    const uint32_t *next_use; /* the trace's */
    uint32_t capacity;
    uint32_t count;
    uint32_t *heap;  /* keys */
    uint32_t *place; /* by key: 1 + its index in the heap, 0: not there */
    uint32_t *when;  /* by key: its next use */
};

static void set_place(struct optimum *optimum, uint32_t index, uint32_t key)
{
    optimum->heap[index] = key;
    optimum->place[key] = index + 1;
}

static void move_up(struct optimum *optimum, uint32_t index)
{
    uint32_t key = optimum->heap[index];
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (optimum->when[optimum->heap[parent]] >= optimum->when[key])
            break;
        set_place(optimum, index, optimum->heap[parent]);
        index = parent;
    }
    set_place(optimum, index, key);
}

static void move_down(struct optimum *optimum, uint32_t index)
{
    uint32_t key = optimum->heap[index];
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= optimum->count)
            break;
        if (child + 1 < optimum->count &&
            optimum->when[optimum->heap[child + 1]] > optimum->when[optimum->heap[child]])
            child++;
        if (optimum->when[optimum->heap[child]] <= optimum->when[key])
            break;
        set_place(optimum, index, optimum->heap[child]);
        index = child;
    }
    set_place(optimum, index, key);
}

static void optimum_drop(void *state, uint32_t key)
{
    struct optimum *optimum = state;
    if (optimum->place[key] == 0)
        return;
    uint32_t index = optimum->place[key] - 1;
    uint32_t last = optimum->heap[--optimum->count];
    optimum->place[key] = 0;
    if (last == key)
        return;
    set_place(optimum, index, last);
    move_up(optimum, index);
    move_down(optimum, optimum->place[last] - 1);
}

static bool optimum_read(void *state, uint32_t key, uint32_t at)
{
    struct optimum *optimum = state;
    bool is_hit = optimum->place[key] != 0;
    optimum->when[key] = optimum->next_use[at];
    if (!is_hit)
        set_place(optimum, optimum->count++, key);
    move_up(optimum, optimum->place[key] - 1); /* a next use only ever moves on */
    if (optimum->count > optimum->capacity)
        optimum_drop(optimum, optimum->heap[0]);
    return is_hit;
}

static void optimum_free(void *state)
{
    struct optimum *optimum = state;
    free(optimum->heap);
    free(optimum->place);
    free(optimum->when);
    free(optimum);
}

void policy_init_optimum(struct policy *policy, uint32_t key_count, uint32_t capacity,
                         const uint32_t *next_use)
{
    struct optimum *optimum = bench_alloc(1, sizeof(*optimum));
    optimum->next_use = next_use;
    optimum->capacity = capacity;
    optimum->heap = bench_alloc((size_t)capacity + 1, sizeof(uint32_t));
    optimum->place = bench_alloc(key_count, sizeof(uint32_t));
    optimum->when = bench_alloc(key_count, sizeof(uint32_t));
    *policy = (struct policy){optimum_read, optimum_drop, optimum_free, optimum};
}
