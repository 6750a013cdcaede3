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

/* What a block claims to be, checked before use: below `top`, large enough for links. */
static bool is_possible(const struct rc_arena *arena, uint32_t unit, uint32_t units)
{
    return unit < arena->top && units <= arena->top - unit && units >= RC_ARENA_SMALLEST / 8;
}

/* Where a block may begin: its links can be read and written. */
static inline bool is_ref(const struct rc_arena *arena, uint32_t ref)
{
    return ref - 1 < arena->top && arena->top - (ref - 1) >= RC_ARENA_SMALLEST / 8;
}

/* Both ends of it say so. */
static bool is_free(const struct rc_arena *arena, char *base, uint32_t ref)
{
    uint32_t unit = ref - 1;
    if (unit >= arena->top) /* 0, too */
        return false;
    uint32_t word = load(base, unit, 0), units = word & RC_ARENA_UNITS;
    return (word & RC_ARENA_USED) == 0 && is_possible(arena, unit, units) &&
           load(base, unit + units, -FOOT) == units;
}

/* False: damaged. */
static bool link_free(struct rc_arena *arena, char *base, uint32_t unit, uint32_t units)
{
    uint32_t level, step;
    find_class(units, &level, &step);
    uint32_t first = arena->free[level][step];
    if (!is_possible(arena, unit, units) || (first != 0 && !is_ref(arena, first)))
        return false;
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
    return true;
}

/* Both neighbours in its list know it. */
static bool is_linked(const struct rc_arena *arena, char *base, uint32_t ref, uint32_t first)
{
    uint32_t next = load(base, ref - 1, NEXT), prev = load(base, ref - 1, PREV);
    if (next != 0 && (!is_ref(arena, next) || load(base, next - 1, PREV) != ref))
        return false;
    return prev == 0 ? first == ref : is_ref(arena, prev) && load(base, prev - 1, NEXT) == ref;
}

/* Of a block that is free. False: damaged. */
static bool unlink_free(struct rc_arena *arena, char *base, uint32_t unit)
{
    uint32_t next = load(base, unit, NEXT), prev = load(base, unit, PREV), level, step;
    find_class(size_of(base, unit), &level, &step);
    if (!is_linked(arena, base, unit + 1, arena->free[level][step]))
        return false;
    if (next != 0)
        store(base, next - 1, PREV, prev);
    if (prev != 0) {
        store(base, prev - 1, NEXT, next);
        return true;
    }
    arena->free[level][step] = next;
    if (next == 0) {
        arena->steps[level] &= (uint8_t) ~(1u << step);
        if (arena->steps[level] == 0)
            arena->levels &= ~(1u << level);
    }
    return true;
}

/* Any block of a larger class; 0: none. */
static uint32_t find_larger(const struct rc_arena *arena, uint32_t level, uint32_t step)
{
    uint32_t steps = arena->steps[level] & (UINT32_C(0xfe) << step);
    if (steps == 0) {
        uint32_t levels = arena->levels & (UINT32_MAX << level << 1);
        if (levels == 0)
            return 0;
        level = (uint32_t)__builtin_ctz(levels);
        steps = level < RC_ARENA_LEVELS ? arena->steps[level] : 0;
    }
    return steps != 0 ? arena->free[level][__builtin_ctz(steps)] : RC_ARENA_DAMAGED;
}

/* The ref of a free block of that size or more: some looks into its own class, where not every
   block is large enough, then any block of a larger class. */
static uint32_t find_free(const struct rc_arena *arena, char *base, uint32_t units)
{
    uint32_t level, step;
    find_class(units, &level, &step);
    uint32_t ref = arena->free[level][step];
    for (int looks = 0; ref != 0 && looks < LOOKS; looks++) {
        if (!is_ref(arena, ref))
            return RC_ARENA_DAMAGED;
        if (size_of(base, ref - 1) >= units)
            return is_free(arena, base, ref) ? ref : RC_ARENA_DAMAGED;
        ref = load(base, ref - 1, NEXT);
    }
    ref = find_larger(arena, level, step);
    if (ref != 0 && (!is_free(arena, base, ref) || size_of(base, ref - 1) < units))
        return RC_ARENA_DAMAGED;
    return ref;
}

/* Takes `units` of a free block, or all of it where the rest is too small for a block: it is
   padding. Returns how many; 0: damaged. */
static uint32_t take(struct rc_arena *arena, char *base, uint32_t unit, uint32_t units)
{
    uint32_t whole = size_of(base, unit), behind = unit + whole;
    if (!unlink_free(arena, base, unit))
        return 0;
    if (whole - units >= RC_ARENA_SMALLEST / 8)
        return link_free(arena, base, unit + units, whole - units) ? units : 0;
    if (behind >= arena->top)
        return 0;
    store(base, behind, 0, load(base, behind, 0) | RC_ARENA_PREV_USED);
    return whole;
}

uint32_t rc_arena_alloc(struct rc_arena *arena, char *base, size_t len)
{
    if (len > (size_t)arena->end * 8)
        return 0;
    uint32_t units = (uint32_t)((len + 7) / 8);
    if (units < RC_ARENA_SMALLEST / 8)
        units = RC_ARENA_SMALLEST / 8;
    uint32_t ref = find_free(arena, base, units);
    if (ref == RC_ARENA_DAMAGED)
        return RC_ARENA_DAMAGED;
    if (ref != 0) {
        units = take(arena, base, ref - 1, units);
        if (units == 0)
            return RC_ARENA_DAMAGED;
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

/* The free block that ends where `unit` begins: its units; 0: damaged. */
static uint32_t free_before(const struct rc_arena *arena, char *base, uint32_t unit)
{
    uint32_t before = unit > 0 ? load(base, unit, -FOOT) : 0;
    if (before == 0 || before > unit || !is_free(arena, base, unit - before + 1) ||
        size_of(base, unit - before) != before)
        return 0;
    return before;
}

uint32_t rc_arena_free(struct rc_arena *arena, char *base, uint32_t ref)
{
    uint32_t unit = ref - 1;
    if (unit >= arena->top)
        return RC_ARENA_DAMAGED;
    uint32_t word = load(base, unit, 0), units = word & RC_ARENA_UNITS, behind = unit + units;
    if ((word & RC_ARENA_USED) == 0 || !is_possible(arena, unit, units))
        return RC_ARENA_DAMAGED;
    if ((word & RC_ARENA_PREV_USED) == 0) {
        uint32_t before = free_before(arena, base, unit);
        unit -= before;
        units += before;
        if (before == 0 || !unlink_free(arena, base, unit))
            return RC_ARENA_DAMAGED;
    }
    if (behind < arena->top && (load(base, behind, 0) & RC_ARENA_USED) == 0) {
        if (!is_free(arena, base, behind + 1))
            return RC_ARENA_DAMAGED;
        units += size_of(base, behind);
        if (!unlink_free(arena, base, behind))
            return RC_ARENA_DAMAGED;
        behind = unit + units;
    }
    if (behind >= arena->top) {
        arena->top = unit;
    } else {
        if (!link_free(arena, base, unit, units))
            return RC_ARENA_DAMAGED;
        store(base, behind, 0, load(base, behind, 0) & ~RC_ARENA_PREV_USED);
    }
    return unit + 1;
}
