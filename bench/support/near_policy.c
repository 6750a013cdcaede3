#include "support/near_policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "near/near.h"
#include "support/trace.h"

enum {
    VALUE_BYTES = 100, /* where the smallest region does not ask for more */
    MAX_VALUE_BYTES = 8192,
    PAGE = 4096,
    STALE_US = 1000000000 /* what is coherent at the start stays so */
};

struct near_state {
    struct rc_near *near;
    struct rc_near_owner *owner;
    const uint64_t *key_ids;
    char *value;
    size_t value_len;
    char *buffer; /* as long as a value */
};

static struct near_state *open_near(size_t bytes, size_t value_len)
{
    struct near_state *state = bench_alloc(1, sizeof(*state));
    struct rc_near_options options = {.bytes = bytes, .stripes = 1};
    const char *why = "";
    if (rc_near_open(&state->near, &options, &why) != 0)
        bench_fail("could not open a near cache", why);
    state->owner = rc_near_add_owner(state->near, NULL);
    if (state->owner == NULL)
        bench_fail("could not open a near cache", "no owner");
    rc_near_set_asof(state->owner, rc_near_now_us());
    state->value = bench_alloc(1, value_len);
    state->value_len = value_len;
    state->buffer = bench_alloc(1, value_len);
    return state;
}

static void near_free(void *opaque)
{
    struct near_state *state = opaque;
    rc_near_remove_owner(state->near, state->owner);
    rc_near_close(state->near);
    free(state->value);
    free(state->buffer);
    free(state);
}

static bool fill(struct near_state *state, uint64_t id)
{
    const char *key = (const char *)&id;
    uint64_t hash = rc_near_hash(state->near, key, sizeof(id));
    struct rc_near_entry entry = {
        .hash = hash,
        .key = key,
        .key_len = sizeof(id),
        .value = state->value,
        .value_len = state->value_len,
        .kind = RC_KIND_VALUE,
        .deadline_us = INT64_MAX,
    };
    return rc_near_fill(state->near, state->owner, &entry,
                        rc_near_write_version(state->near, hash));
}

static bool near_read(void *opaque, uint32_t key, uint32_t at)
{
    struct near_state *state = opaque;
    uint64_t id = state->key_ids[key];
    rc_near_value value = {.buffer = state->buffer, .capacity = state->value_len};
    (void)at;
    int found = rc_near_lookup(state->near, "", 0, (const char *)&id, sizeof(id), STALE_US, &value);
    if (found == RC_NEAR_HIT)
        return true;
    if (found != RC_NEAR_MISS)
        bench_fail("a near cache of the bench", "neither a hit nor a miss");
    fill(state, id);
    return false;
}

static void near_drop(void *opaque, uint32_t key)
{
    struct near_state *state = opaque;
    uint64_t id = state->key_ids[key];
    rc_near_drop(state->near, (const char *)&id, sizeof(id), RC_NEAR_PUSH);
}

void policy_init_near(struct policy *policy, const struct near_size *size, const uint64_t *key_ids,
                      bool ghosts_on_drop)
{
    struct near_state *state = open_near(size->bytes, size->value_len);
    rc_near_set_ghosts(state->near, ghosts_on_drop);
    state->key_ids = key_ids;
    *policy = (struct policy){near_read, near_drop, near_free, state};
}

static uint64_t count_entries(struct rc_near *near)
{
    rc_near_stats stats;
    rc_near_read_stats(near, &stats);
    return stats.entries;
}

/* Fills different keys until no entry is left for it. */
static uint32_t measure(size_t bytes, size_t value_len, uint32_t step)
{
    struct near_state *state = open_near(bytes, value_len);
    uint64_t id = 0, entries = 0, before;
    do {
        before = entries;
        for (uint32_t i = 0; i < 4 * step; i++)
            fill(state, id++);
        entries = count_entries(state->near);
    } while (entries > before);
    near_free(state);
    return (uint32_t)entries;
}

struct near_size near_size_for(uint32_t wanted)
{
    size_t low = RC_NEAR_MIN_BYTES, high = RC_NEAR_MIN_BYTES + (size_t)wanted * 1024;
    struct near_size best = {low, VALUE_BYTES, measure(low, VALUE_BYTES, wanted)};
    bool by_value = best.capacity > wanted; /* no region is small enough: then by larger values */
    size_t unit = by_value ? 1 : PAGE;
    if (by_value) {
        low = VALUE_BYTES;
        high = MAX_VALUE_BYTES;
    }
    while (high - low > unit) {
        size_t middle = low + (high - low) / 2 / unit * unit;
        struct near_size size = {middle, VALUE_BYTES, 0};
        if (by_value)
            size = (struct near_size){RC_NEAR_MIN_BYTES, middle, 0};
        size.capacity = measure(size.bytes, size.value_len, wanted);
        if (labs((long)size.capacity - (long)wanted) < labs((long)best.capacity - (long)wanted))
            best = size;
        if ((size.capacity > wanted) == by_value)
            low = middle;
        else
            high = middle;
    }
    return best;
}
