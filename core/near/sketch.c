#include "near/sketch.h"

enum { SECOND_US = 1000000 };

/* 0.4 % of the bytes of the region, until there are enough. */
static uint32_t line_count(size_t region_bytes)
{
    uint32_t count = RC_SKETCH_MIN_LINES;
    while (count < RC_SKETCH_MAX_LINES && (size_t)count * 2 <= region_bytes / 16384)
        count *= 2;
    return count;
}

static uint32_t set_count(size_t region_bytes)
{
    uint32_t count = line_count(region_bytes);
    return count < RC_SKETCH_MAX_SETS ? count : RC_SKETCH_MAX_SETS;
}

size_t rc_sketch_bytes(size_t region_bytes)
{
    return sizeof(struct rc_sketch_head) + set_count(region_bytes) * sizeof(struct rc_sketch_set) +
           line_count(region_bytes) * sizeof(struct rc_sketch_line);
}

void rc_sketch_view(struct rc_sketch *sketch, size_t region_bytes, char *at)
{
    uint32_t sets = set_count(region_bytes);
    sketch->head = (struct rc_sketch_head *)(void *)at;
    sketch->sets = (struct rc_sketch_set *)(void *)(at + sizeof(struct rc_sketch_head));
    sketch->lines = (struct rc_sketch_line *)(void *)(sketch->sets + sets);
    sketch->set_mask = sets - 1;
    sketch->line_mask = line_count(region_bytes) - 1;
}

/* ---- words: relaxed, each stands for itself -------------------------------------------------- */

static uint32_t load(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Of each half of the hash's lower 32 bits, ten are a line and two times three its cells; the set
   takes others. */
static _Atomic uint32_t *cell_of(const struct rc_sketch *sketch, uint64_t hash, int row)
{
    uint32_t half = (uint32_t)(hash >> (row < RC_SKETCH_ROWS / 2 ? 0 : 16)) & 0xffff;
    int part = row % (RC_SKETCH_ROWS / 2);
    return &sketch->lines[half & sketch->line_mask]
                .cells[part][half >> (10 + 3 * part) & (RC_SKETCH_CELLS - 1)];
}

static struct rc_sketch_set *set_of(const struct rc_sketch *sketch, uint64_t hash)
{
    return &sketch->sets[(uint32_t)(hash >> 32) & sketch->set_mask];
}

/* ---- time ------------------------------------------------------------------------------------ */

static void halve(_Atomic uint32_t *word, uint32_t times)
{
    store(word, load(word) >> times);
}

/* Who finds that minutes have passed, and is the first, halves all there is: some 10 us, once in a
   minute. */
static void age(struct rc_sketch *sketch, int64_t age_us)
{
    uint32_t now = (uint32_t)((uint64_t)age_us / RC_SKETCH_HALF_US);
    uint32_t then = load(&sketch->head->halvings);
    if (now == then ||
        !atomic_compare_exchange_strong_explicit(&sketch->head->halvings, &then, now,
                                                 memory_order_relaxed, memory_order_relaxed))
        return;
    uint32_t times = now - then < 31 ? now - then : 31;
    for (uint32_t i = 0; i <= sketch->line_mask; i++)
        for (int cell = 0; cell < RC_SKETCH_ROWS / 2 * RC_SKETCH_CELLS; cell++)
            halve(&sketch->lines[i].cells[cell / RC_SKETCH_CELLS][cell % RC_SKETCH_CELLS], times);
    for (uint32_t i = 0; i <= sketch->set_mask; i++)
        for (int way = 0; way < RC_SKETCH_WAYS; way++)
            halve(&sketch->sets[i].counts[way], times);
}

/* ---- counting -------------------------------------------------------------------------------- */

/* Raises the lowest of its counters, and others as far as that: they hold other keys' hits, too
   (Estan and Varghese's conservative update). Returns what they say now. */
static uint32_t count_in_cells(struct rc_sketch *sketch, uint64_t hash, uint32_t times)
{
    uint32_t lowest = rc_sketch_estimate(sketch, hash);
    uint32_t count = lowest < UINT32_MAX - times ? lowest + times : UINT32_MAX;
    for (int row = 0; row < RC_SKETCH_ROWS; row++) {
        _Atomic uint32_t *cell = cell_of(sketch, hash, row);
        if (load(cell) < count)
            store(cell, count);
    }
    return count;
}

void rc_sketch_count(struct rc_sketch *sketch, uint64_t hash, uint32_t times, int64_t age_us)
{
    age(sketch, age_us);
    uint32_t count = count_in_cells(sketch, hash, times);
    struct rc_sketch_set *set = set_of(sketch, hash);
    int coldest = 0;
    for (int way = 0; way < RC_SKETCH_WAYS; way++) {
        if (atomic_load_explicit(&set->hashes[way], memory_order_relaxed) == hash) {
            store(&set->counts[way], count);
            return;
        }
        if (load(&set->counts[way]) < load(&set->counts[coldest]))
            coldest = way;
    }
    if (count <= load(&set->counts[coldest]))
        return;
    atomic_store_explicit(&set->hashes[coldest], hash, memory_order_relaxed);
    store(&set->counts[coldest], count);
}

/* ---- asking ---------------------------------------------------------------------------------- */

void rc_sketch_ask(struct rc_sketch *sketch, int64_t age_us)
{
    store(&sketch->head->asked, (uint32_t)((uint64_t)age_us / SECOND_US) + 1);
}

bool rc_sketch_is_asked(const struct rc_sketch *sketch, int64_t age_us)
{
    uint32_t asked = load(&sketch->head->asked);
    uint32_t now = (uint32_t)((uint64_t)age_us / SECOND_US) + 1;
    return asked != 0 && now - asked <= RC_SKETCH_ASKED_S;
}

uint32_t rc_sketch_estimate(const struct rc_sketch *sketch, uint64_t hash)
{
    uint32_t lowest = UINT32_MAX;
    for (int row = 0; row < RC_SKETCH_ROWS; row++) {
        uint32_t count = load(cell_of(sketch, hash, row));
        lowest = count < lowest ? count : lowest;
    }
    return lowest;
}

/* Two who count at once may put one key into two places. */
static bool has(const struct rc_sketch_hot *hottest, uint32_t count, uint64_t hash)
{
    for (uint32_t i = 0; i < count; i++)
        if (hottest[i].hash == hash)
            return true;
    return false;
}

uint32_t rc_sketch_hottest(struct rc_sketch *sketch, int64_t age_us,
                           struct rc_sketch_hot hottest[RC_SKETCH_PLACES])
{
    uint32_t count = 0;
    age(sketch, age_us);
    for (uint32_t i = 0; i < (sketch->set_mask + 1) * RC_SKETCH_WAYS; i++) {
        struct rc_sketch_set *set = &sketch->sets[i / RC_SKETCH_WAYS];
        uint64_t hash =
            atomic_load_explicit(&set->hashes[i % RC_SKETCH_WAYS], memory_order_relaxed);
        struct rc_sketch_hot found = {.hash = hash, .count = rc_sketch_estimate(sketch, hash)};
        if (hash == 0 || found.count == 0 || has(hottest, count, hash))
            continue;
        uint32_t at = count++;
        for (; at > 0 && hottest[at - 1].count < found.count; at--)
            hottest[at] = hottest[at - 1];
        hottest[at] = found;
    }
    return count;
}
