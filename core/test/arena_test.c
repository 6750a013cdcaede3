#include "near/arena.h"

#include <stdlib.h>
#include <string.h>

#include "test/test.h"

enum { BYTES = 64 * 1024, MAX_BLOCKS = 4096 };

struct model {
    struct rc_arena arena;
    char *base;
    uint32_t refs[MAX_BLOCKS];
    size_t lens[MAX_BLOCKS];
    size_t count;
};

static void open_model(struct model *model)
{
    memset(model, 0, sizeof(*model));
    model->base = aligned_alloc(64, BYTES);
    memset(model->base, 0, BYTES);
    rc_arena_init(&model->arena, BYTES);
}

static uint32_t word_of(struct model *model, uint32_t ref)
{
    return rc_word_load32(rc_arena_at(model->base, ref));
}

/* The user's bytes behind the block's word tell which block they belong to. */
static void mark(struct model *model, size_t i)
{
    memset(rc_arena_at(model->base, model->refs[i]) + 4, (int)(model->refs[i] % 251),
           model->lens[i] - 4);
}

static bool is_marked(struct model *model, size_t i)
{
    const char *bytes = rc_arena_at(model->base, model->refs[i]);
    for (size_t at = 4; at < model->lens[i]; at++)
        if ((unsigned char)bytes[at] != model->refs[i] % 251)
            return false;
    return rc_arena_len(word_of(model, model->refs[i])) == model->lens[i];
}

static bool take(struct model *model, size_t len)
{
    uint32_t ref = model->count < MAX_BLOCKS ? rc_arena_alloc(&model->arena, model->base, len) : 0;
    if (ref == 0)
        return false;
    model->refs[model->count] = ref;
    model->lens[model->count] = len;
    mark(model, model->count++);
    return true;
}

static uint32_t give(struct model *model, size_t i)
{
    uint32_t hole = rc_arena_free(&model->arena, model->base, model->refs[i]);
    model->refs[i] = model->refs[--model->count];
    model->lens[i] = model->lens[model->count];
    return hole;
}

static bool is_empty(const struct model *model)
{
    return model->arena.top == 0 && model->arena.levels == 0;
}

/* Goes through all blocks, from one to the next: sizes, flags and neighbours must fit. */
static bool is_whole(struct model *model)
{
    bool was_used = true;
    size_t used = 0;
    uint32_t unit = 0;
    while (unit < model->arena.top) {
        uint32_t word = word_of(model, unit + 1), units = word & RC_ARENA_UNITS;
        bool is_used = (word & RC_ARENA_USED) != 0;
        if (units == 0 || ((word & RC_ARENA_PREV_USED) != 0) != was_used || (!is_used && !was_used))
            return false;
        used += is_used;
        was_used = is_used;
        unit += units;
    }
    return unit == model->arena.top && was_used && used == model->count;
}

static void keeps_blocks_apart_through_random_use(void)
{
    struct model model;
    uint64_t seed = 1;
    open_model(&model);
    for (int i = 0; i < 200000; i++) {
        size_t limit = i % 1000 == 0 ? 8000 : 300;
        if (test_below(&seed, 100) < 55 || model.count == 0) {
            if (!take(&model, 5 + test_below(&seed, (uint32_t)limit)))
                for (int n = 0; n < 8 && model.count > 0; n++)
                    give(&model, test_below(&seed, (uint32_t)model.count));
        } else {
            size_t victim = test_below(&seed, (uint32_t)model.count);
            if (!CHECK(is_marked(&model, victim)))
                break;
            give(&model, victim);
        }
        if (i % 500 == 0 && !CHECK(is_whole(&model)))
            break;
    }
    for (size_t i = 0; i < model.count; i++)
        CHECK(is_marked(&model, i));
    while (model.count > 0)
        give(&model, test_below(&seed, (uint32_t)model.count));
    CHECK(is_empty(&model));
    free(model.base);
}

static void is_one_block_again_after_it_was_full(void)
{
    struct model model;
    open_model(&model);
    for (int round = 0; round < 3; round++) {
        while (take(&model, 152))
            continue;
        CHECK(model.count == BYTES / 152);
        CHECK(is_whole(&model));
        /* Every second one first: no two neighbours are free until the others follow. */
        for (size_t i = model.count; i-- > 0;)
            if (i % 2 == 0)
                give(&model, i);
        CHECK(is_whole(&model));
        while (model.count > 0)
            give(&model, 0);
        CHECK(is_empty(&model));
        CHECK(take(&model, BYTES) && !take(&model, 5));
        give(&model, 0);
    }
    free(model.base);
}

static void joins_a_block_with_both_neighbours(void)
{
    struct model model;
    open_model(&model);
    for (int i = 0; i < 5; i++)
        take(&model, 104);
    uint32_t first = model.refs[1], middle = model.refs[2];
    rc_arena_free(&model.arena, model.base, first);
    rc_arena_free(&model.arena, model.base, model.refs[3]);
    CHECK(rc_arena_free(&model.arena, model.base, middle) == first);
    CHECK((word_of(&model, first) & RC_ARENA_UNITS) == 3 * 104 / 8);
    /* And hands it out as one. */
    CHECK(rc_arena_alloc(&model.arena, model.base, 3 * 104) == first);
    free(model.base);
}

static void gives_a_rest_too_small_for_a_block_as_padding(void)
{
    struct model model;
    open_model(&model);
    for (int i = 0; i < 3; i++)
        take(&model, 104);
    uint32_t ref = model.refs[1];
    rc_arena_free(&model.arena, model.base, ref);
    CHECK(rc_arena_alloc(&model.arena, model.base, 91) == ref);
    CHECK(rc_arena_bytes(word_of(&model, ref)) == 104);
    CHECK(rc_arena_len(word_of(&model, ref)) == 91);
    rc_arena_free(&model.arena, model.base, ref);
    CHECK(rc_arena_alloc(&model.arena, model.base, 88) == ref);
    CHECK(rc_arena_bytes(word_of(&model, ref)) == 88); /* 16 do for a block */
    free(model.base);
}

static void takes_what_was_used_before_what_was_not(void)
{
    struct model model;
    open_model(&model);
    for (int i = 0; i < 20; i++)
        take(&model, 200);
    uint32_t top = model.arena.top;
    for (size_t i = 0; i < 10; i++) {
        uint32_t ref = model.refs[i];
        rc_arena_free(&model.arena, model.base, ref);
        CHECK(rc_arena_alloc(&model.arena, model.base, 120) == ref);
        CHECK(rc_arena_alloc(&model.arena, model.base, 80) == ref + 120 / 8);
        CHECK(model.arena.top == top);
    }
    free(model.base);
}

int main(void)
{
    TEST(keeps_blocks_apart_through_random_use);
    TEST(is_one_block_again_after_it_was_full);
    TEST(joins_a_block_with_both_neighbours);
    TEST(gives_a_rest_too_small_for_a_block_as_padding);
    TEST(takes_what_was_used_before_what_was_not);
    return test_result();
}
