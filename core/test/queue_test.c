#include "near/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "near/evict.h"
#include "near/ghost.h"
#include "near/stripe.h"
#include "test/test.h"

/* ---- the lists ------------------------------------------------------------------------------- */

enum { ARENA = 16 * 1024, LEN = 104 };

struct bed {
    struct rc_arena arena;
    char *base;
    struct rc_queue_pair pair;
};

static void open_bed(struct bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    bed->base = aligned_alloc(64, ARENA);
    memset(bed->base, 0, ARENA);
    rc_arena_init(&bed->arena, ARENA);
}

static uint32_t push(struct bed *bed, int queue)
{
    uint32_t ref = rc_arena_alloc(&bed->arena, bed->base, LEN);
    rc_queue_push(&bed->pair, bed->base, ref, queue);
    return ref;
}

static void gives_the_oldest_first_and_from_the_middle_too(void)
{
    struct bed bed;
    uint32_t refs[4];
    open_bed(&bed);
    for (int i = 0; i < 4; i++)
        refs[i] = push(&bed, RC_QUEUE_SMALL);
    CHECK(rc_queue_bytes(&bed.pair) == 4 * LEN);
    CHECK(rc_queue_next(&bed.pair) == refs[0]);
    rc_queue_remove(&bed.pair, bed.base, refs[1]);
    rc_queue_remove(&bed.pair, bed.base, refs[0]);
    CHECK(rc_queue_next(&bed.pair) == refs[2]);
    rc_queue_remove(&bed.pair, bed.base, refs[3]);
    CHECK(rc_queue_next(&bed.pair) == refs[2]);
    rc_queue_remove(&bed.pair, bed.base, refs[2]);
    CHECK(rc_queue_next(&bed.pair) == 0 && rc_queue_bytes(&bed.pair) == 0);
    free(bed.base);
}

static void asks_the_small_queue_while_it_has_more_than_a_tenth(void)
{
    struct bed bed;
    uint32_t small = 0, main = 0;
    open_bed(&bed);
    for (int i = 0; i < 19; i++) {
        uint32_t ref = push(&bed, RC_QUEUE_MAIN);
        main = main != 0 ? main : ref;
    }
    CHECK(rc_queue_next(&bed.pair) == main);
    small = push(&bed, RC_QUEUE_SMALL);
    CHECK(rc_queue_next(&bed.pair) == main); /* one of twenty */
    push(&bed, RC_QUEUE_SMALL);
    push(&bed, RC_QUEUE_SMALL);
    CHECK(rc_queue_next(&bed.pair) == small); /* three of twenty-two */
    free(bed.base);
}

static void promotes_what_was_read_twice_and_spares_what_is_read_in_main(void)
{
    CHECK(rc_queue_judge(RC_QUEUE_SMALL, 0) == RC_QUEUE_EVICT_REMEMBERED);
    CHECK(rc_queue_judge(RC_QUEUE_SMALL, 1) == RC_QUEUE_EVICT_REMEMBERED);
    CHECK(rc_queue_judge(RC_QUEUE_SMALL, 2) == RC_QUEUE_PROMOTE);
    CHECK(rc_queue_judge(RC_QUEUE_MAIN, 1) == RC_QUEUE_REPRIEVE);
    CHECK(rc_queue_judge(RC_QUEUE_MAIN, 0) == RC_QUEUE_EVICT);
}

/* ---- the ghost queue ------------------------------------------------------------------------- */

static void remembers_a_key_once(void)
{
    /* Static: the stack that the address sanitizer fakes is not aligned to lines. */
    static struct rc_ghost_line lines[4];
    memset(lines, 0, sizeof(lines));
    rc_ghost_add(lines, 4, UINT64_C(0x123456789abcdef0));
    CHECK(!rc_ghost_take(lines, 4, UINT64_C(0x123456789abcdef1)));
    CHECK(rc_ghost_take(lines, 4, UINT64_C(0x123456789abcdef0)));
    CHECK(!rc_ghost_take(lines, 4, UINT64_C(0x123456789abcdef0)));
    rc_ghost_add(lines, 4, UINT64_C(0x1234567800000000)); /* its print is 0: none would be */
    CHECK(rc_ghost_take(lines, 4, UINT64_C(0x1234567800000000)));
}

static void forgets_the_oldest_key_of_a_line_first(void)
{
    static struct rc_ghost_line line;
    memset(&line, 0, sizeof(line));
    for (uint64_t i = 1; i <= RC_GHOST_PRINTS + 2; i++)
        rc_ghost_add(&line, 1, i);
    CHECK(!rc_ghost_take(&line, 1, 1) && !rc_ghost_take(&line, 1, 2));
    for (uint64_t i = 3; i <= RC_GHOST_PRINTS + 2; i++)
        CHECK(rc_ghost_take(&line, 1, i));
}

/* ---- a stripe -------------------------------------------------------------------------------- */

struct stage {
    struct rc_stripe_shape shape;
    struct rc_stripe_bounds bounds;
    struct rc_stripe stripe;
    char *memory;
};

static void open_stage(struct stage *stage)
{
    memset(stage, 0, sizeof(*stage));
    stage->memory = aligned_alloc(64, 128 * 1024);
    memset(stage->memory, 0, 128 * 1024);
    CHECK(rc_stripe_plan(&stage->shape, 128 * 1024));
    for (int i = 0; i < 4; i++)
        stage->shape.seed.words[i] = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(i + 1);
    stage->bounds.count = 1;
    rc_stripe_view(&stage->stripe, &stage->shape, &stage->bounds, stage->memory);
    CHECK(rc_stripe_init(&stage->stripe) == 0);
}

static struct rc_near_entry entry_of(const struct stage *stage, const char *key)
{
    static const char value[200] = "";
    return (struct rc_near_entry){.hash = rc_mix(&stage->shape.seed, key, strlen(key)),
                                  .key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = sizeof(value),
                                  .kind = RC_KIND_VALUE,
                                  .deadline_us = INT64_MAX};
}

static void insert(struct stage *stage, const char *key, uint32_t heat)
{
    struct rc_near_entry entry = entry_of(stage, key);
    if (rc_stripe_lock(&stage->stripe)) {
        CHECK(rc_evict_insert(&stage->stripe, &entry, 1 << 10, RC_BLOCK_NO_DEADLINE, RC_QUEUE_SMALL,
                              heat, rc_clock_us()) != 0);
        rc_stripe_unlock(&stage->stripe);
    }
}

static int queue_of(struct stage *stage, const char *key)
{
    struct rc_near_entry entry = entry_of(stage, key);
    struct rc_index_spot spot =
        rc_stripe_find(&stage->stripe, entry.hash, entry.key, entry.key_len);
    return spot.bucket != NULL ? rc_stripe_block(&stage->stripe, spot)->queue : -1;
}

static void insert_many(struct stage *stage, int from, int count)
{
    char key[32];
    for (int i = from; i < from + count; i++) {
        snprintf(key, sizeof(key), "other:%d", i);
        insert(stage, key, 0);
    }
}

static void keeps_what_was_read_twice_and_evicts_what_was_not(void)
{
    struct stage stage;
    open_stage(&stage);
    insert(&stage, "cold", 0);
    insert(&stage, "once", 1);
    insert(&stage, "twice", 2);
    insert_many(&stage, 0, 1000);
    CHECK(queue_of(&stage, "cold") == -1);
    CHECK(queue_of(&stage, "once") == -1);
    CHECK(queue_of(&stage, "twice") == RC_QUEUE_MAIN);
    CHECK(queue_of(&stage, "other:999") == RC_QUEUE_SMALL);
    free(stage.memory);
}

static void remembers_what_the_small_queue_loses(void)
{
    struct stage stage;
    open_stage(&stage);
    insert_many(&stage, 0, 1000);
    int remembered = 0, gone = 0;
    char key[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "other:%d", i);
        if (queue_of(&stage, key) != -1)
            continue;
        gone++;
        remembered +=
            rc_ghost_take(stage.stripe.ghosts, stage.shape.ghost_count, entry_of(&stage, key).hash);
    }
    CHECK(gone > 400 && remembered > gone / 2);
    free(stage.memory);
}

static void evicts_neighbours_where_no_hole_is_large_enough(void)
{
    static const char large[16384];
    struct stage stage;
    open_stage(&stage);
    insert_many(&stage, 0, 1000);
    for (int i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof(key), "large:%d", i);
        struct rc_near_entry entry = entry_of(&stage, key);
        entry.value = large;
        entry.value_len = rc_stripe_max_len(&stage.stripe, 0) - RC_BLOCK_HEAD - 12;
        CHECK(entry.value_len < sizeof(large) && rc_stripe_lock(&stage.stripe));
        CHECK(rc_evict_insert(&stage.stripe, &entry, 1 << 10, RC_BLOCK_NO_DEADLINE, RC_QUEUE_SMALL,
                              0, rc_clock_us()) != 0);
        rc_stripe_unlock(&stage.stripe);
        CHECK(queue_of(&stage, key) == RC_QUEUE_SMALL);
        insert_many(&stage, 1000 + i * 50, 50);
    }
    free(stage.memory);
}

int main(void)
{
    TEST(gives_the_oldest_first_and_from_the_middle_too);
    TEST(asks_the_small_queue_while_it_has_more_than_a_tenth);
    TEST(promotes_what_was_read_twice_and_spares_what_is_read_in_main);
    TEST(remembers_a_key_once);
    TEST(forgets_the_oldest_key_of_a_line_first);
    TEST(keeps_what_was_read_twice_and_evicts_what_was_not);
    TEST(remembers_what_the_small_queue_loses);
    TEST(evicts_neighbours_where_no_hole_is_large_enough);
    return test_result();
}
