#include "near/arena.h"

/* A free block: word, next, prev (refs) and, as its last four bytes, its size once more, so that
   the block behind it finds its beginning. */
enum { NEXT = 4, PREV = 8, FOOT = 4, LOOKS = 8 };

static uint32_t load(char *base, uint32_t unit, int at)
{
    return rc_word_load32(base + (ptrdiff_t)unit * 8 + at);
}

static void store(char *base, uint32_t unit, int at, uint32_t value)
{
    rc_word_store32(base + (ptrdiff_t)unit * 8 + at, value);
}

static uint32_t size_of(char *base, uint32_t unit)
{
    return load(base, unit, 0) & RC_ARENA_UNITS;
}

static void find_class(uint32_t units, uint32_t *level, uint32_t *step)
{
    if (units < RC_ARENA_STEPS) {
        *level = 0;
        *step = units;
    } else {
        uint32_t log = 31 - (uint32_t)__builtin_clz(units);
        *level = log - 2;
        *step = units >> (log - 3) & (RC_ARENA_STEPS - 1);
    }
}

void rc_arena_init(struct rc_arena *arena, size_t bytes)
{
    *arena = (struct rc_arena){.end = (uint32_t)(bytes / 8)};
}

static void link_free(struct rc_arena *arena, char *base, uint32_t unit, uint32_t units)
{
    uint32_t level, step;
    find_class(units, &level, &step);
    uint32_t first = arena->free[level][step];
    /* Neighbours that are free would have become one with it. */
    store(base, unit, 0, units | RC_ARENA_PREV_USED);
    store(base, unit, NEXT, first);
    store(base, unit, PREV, 0);
    store(base, unit + units, -FOOT, units);
    if (first != 0)
        store(base, first - 1, PREV, unit + 1);
    arena->free[level][step] = unit + 1;
    arena->steps[level] |= (uint8_t)(1u << step);
    arena->levels |= 1u << level;
}

static void unlink_free(struct rc_arena *arena, char *base, uint32_t unit)
{
    uint32_t next = load(base, unit, NEXT), prev = load(base, unit, PREV);
    if (next != 0)
        store(base, next - 1, PREV, prev);
    if (prev != 0) {
        store(base, prev - 1, NEXT, next);
        return;
    }
    uint32_t level, step;
    find_class(size_of(base, unit), &level, &step);
    arena->free[level][step] = next;
    if (next == 0) {
        arena->steps[level] &= (uint8_t) ~(1u << step);
        if (arena->steps[level] == 0)
            arena->levels &= ~(1u << level);
    }
}

/* The ref of a free block of that size or more: some looks into its own class, where not every
   block is large enough, then any block of a larger class. */
static uint32_t find_free(const struct rc_arena *arena, char *base, uint32_t units)
{
    uint32_t level, step;
    find_class(units, &level, &step);
    uint32_t ref = arena->free[level][step];
    for (int looks = 0; ref != 0 && looks < LOOKS; looks++) {
        if (size_of(base, ref - 1) >= units)
            return ref;
        ref = load(base, ref - 1, NEXT);
    }
    uint32_t steps = arena->steps[level] & (UINT32_C(0xfe) << step);
    if (steps == 0) {
        uint32_t levels = arena->levels & (UINT32_MAX << level << 1);
        if (levels == 0)
            return 0;
        level = (uint32_t)__builtin_ctz(levels);
        steps = arena->steps[level];
    }
    return arena->free[level][__builtin_ctz(steps)];
}

uint32_t rc_arena_alloc(struct rc_arena *arena, char *base, size_t len)
{
    if (len > (size_t)arena->end * 8)
        return 0;
    uint32_t units = (uint32_t)((len + 7) / 8);
    if (units < RC_ARENA_SMALLEST / 8)
        units = RC_ARENA_SMALLEST / 8;
    uint32_t ref = find_free(arena, base, units);
    if (ref != 0) {
        uint32_t whole = size_of(base, ref - 1);
        unlink_free(arena, base, ref - 1);
        if (whole - units >= RC_ARENA_SMALLEST / 8) {
            link_free(arena, base, ref - 1 + units, whole - units);
        } else {
            units = whole; /* the rest is too small for a block: it is padding */
            uint32_t behind = ref - 1 + units;
            store(base, behind, 0, load(base, behind, 0) | RC_ARENA_PREV_USED);
        }
    } else if (arena->end - arena->top >= units) {
        ref = arena->top + 1;
        arena->top += units;
    } else {
        return 0;
    }
    uint32_t pad = (uint32_t)((size_t)units * 8 - len);
    store(base, ref - 1, 0, units | pad << RC_ARENA_PAD_SHIFT | RC_ARENA_USED | RC_ARENA_PREV_USED);
    return ref;
}

uint32_t rc_arena_free(struct rc_arena *arena, char *base, uint32_t ref)
{
    uint32_t unit = ref - 1, word = load(base, unit, 0), units = word & RC_ARENA_UNITS;
    uint32_t behind = unit + units;
    if ((word & RC_ARENA_PREV_USED) == 0) {
        uint32_t before = load(base, unit, -FOOT);
        unit -= before;
        units += before;
        unlink_free(arena, base, unit);
    }
    if (behind < arena->top && (load(base, behind, 0) & RC_ARENA_USED) == 0) {
        units += size_of(base, behind);
        unlink_free(arena, base, behind);
        behind = unit + units;
    }
    if (behind == arena->top) {
        arena->top = unit;
    } else {
        link_free(arena, base, unit, units);
        store(base, behind, 0, load(base, behind, 0) & ~RC_ARENA_PREV_USED);
    }
    return unit + 1;
}
