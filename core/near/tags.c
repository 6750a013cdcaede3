#include "near/tags.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "near/memo.h"

enum {
    WAY = 1024,      /* places: a thousand tags seldom drive each other out */
    PLACE_NAME = 47, /* longer names have no place: they are looked up each time */
    HEAD = 4,        /* of a block: size, parts, tags */
    PART_TIMES = 1,
    TIMES = 12,
    STALE_AT = 8, /* stale_ms, of a block with times */
    TAG_HEAD = RC_TAG_GENERATIONS + 1
};

/* Two cache lines: what the handle was filled for stands behind it. */
struct place {
    alignas(RC_MEMO_LINE) rc_near_handle handle;
    char tag[TAG_HEAD + PLACE_NAME]; /* as a block would have it now */
};

struct rc_near_tags {
    struct rc_memo memo;
    struct place first[WAY], second[WAY];
    struct rc_near *near;
    struct rc_buf prefix;
    void *memory; /* what this is in */
};

/* One of a block, in place. */
struct tag {
    const char *generations;
    const char *name;
    size_t name_len;
};

static inline size_t size_of(const char *block)
{
    return (size_t)(uint8_t)block[0] | (size_t)(uint8_t)block[1] << 8;
}

struct rc_near_tags *rc_near_tags_new(struct rc_near *near, const char *prefix, size_t prefix_len)
{
    /* Zeroed: no handle is one yet. So large that it takes room as it is used. */
    char *memory = calloc(1, sizeof(struct rc_near_tags) + RC_MEMO_LINE);
    if (memory == NULL)
        return NULL;
    struct rc_near_tags *tags = (void *)(memory + RC_MEMO_LINE - (uintptr_t)memory % RC_MEMO_LINE);
    tags->memory = memory;
    tags->near = near;
    rc_memo_init(&tags->memo, near);
    rc_buf_init(&tags->prefix);
    if (rc_buf_append(&tags->prefix, prefix, prefix_len) != 0) {
        free(tags->memory);
        return NULL;
    }
    return tags;
}

void rc_near_tags_free(struct rc_near_tags *tags)
{
    rc_buf_deinit(&tags->prefix);
    free(tags->memory);
}

/* By other bytes of the hard generation in either way. */
static inline struct place *first_place(struct rc_near_tags *tags, const char *generations)
{
    uint32_t at = (uint32_t)(uint8_t)generations[0] | (uint32_t)(uint8_t)generations[1] << 8;
    return &tags->first[at % WAY];
}

static inline struct place *second_place(struct rc_near_tags *tags, const char *generations)
{
    uint32_t at = (uint32_t)(uint8_t)generations[2] | (uint32_t)(uint8_t)generations[3] << 8;
    return &tags->second[at % WAY];
}

/* Where a tag goes that is looked up: what stood there goes to its other place. */
static struct place *take_place(struct rc_near_tags *tags, const char *generations)
{
    struct place *place = first_place(tags, generations);
    if (memcmp(place->tag, generations, RC_TAG_GENERATION) == 0)
        return place;
    struct place *second = second_place(tags, generations);
    if (memcmp(second->tag, generations, RC_TAG_GENERATION) == 0)
        return second;
    if (place->handle.changes != NULL)
        *second_place(tags, place->tag) = *place;
    return place;
}

static inline int compare(const char *stored, const char *found)
{
    if (memcmp(stored, found, RC_TAG_GENERATION) != 0)
        return RC_TAGS_VOID;
    bool is_same =
        memcmp(stored + RC_TAG_GENERATION, found + RC_TAG_GENERATION, RC_TAG_GENERATION) == 0;
    return is_same ? RC_TAGS_VALID : RC_TAGS_SOFT;
}

static __attribute__((noinline)) int look_up(struct rc_near_tags *tags, const struct tag *tag,
                                             int64_t now_us, int64_t max_stale_us)
{
    char found[RC_TAG_GENERATIONS];
    rc_near_value value = {.buffer = found, .capacity = sizeof found};
    /* Something else under a tag's name is for those to judge who read it from Redis. */
    if (rc_near_lookup_at(tags->near, rc_buf_head(&tags->prefix), rc_buf_len(&tags->prefix),
                          tag->name, tag->name_len, now_us, max_stale_us, &value) != RC_NEAR_HIT ||
        value.kind != RC_KIND_VALUE || value.codec != RC_CODEC_RAW || value.entry_flags != 0 ||
        value.len != sizeof found)
        return RC_TAGS_UNKNOWN;
    int verdict = compare(tag->generations, found);
    if (verdict != RC_TAGS_VOID && tag->name_len <= PLACE_NAME) {
        struct place *place = take_place(tags, found);
        place->handle = value.handle;
        memcpy(place->tag, tag->generations, TAG_HEAD + tag->name_len);
        memcpy(place->tag, found, sizeof found);
    }
    return verdict;
}

static inline uint64_t word_at(const char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* memcmp of two that are TAG_HEAD bytes or more, without a call: mostly three words each, of which
   the last may overlap. */
static inline bool is_same_tag(const char *a, const char *b, size_t len)
{
    uint64_t difference = (word_at(a) ^ word_at(b)) | (word_at(a + 8) ^ word_at(b + 8));
    for (size_t at = 16; at + 8 < len; at += 8)
        difference |= word_at(a + at) ^ word_at(b + at);
    return (difference | (word_at(a + len - 8) ^ word_at(b + len - 8))) == 0;
}

/* One comparison says that it is this tag, and that it has not changed since; and the handle that
   nothing else is known by now. Which of its two places it may be in is told by the hard
   generation. */
static inline int check(struct rc_near_tags *tags, const struct tag *tag, int64_t now_us,
                        int64_t max_stale_us, struct rc_memo_line *line)
{
    struct place *place = first_place(tags, tag->generations);
    if (word_at(place->tag) != word_at(tag->generations))
        place = second_place(tags, tag->generations);
    if (tag->name_len <= PLACE_NAME &&
        is_same_tag(place->tag, tag->generations, TAG_HEAD + tag->name_len) &&
        (RC_MUTANT(TAGS_AT_FILL) ||
         rc_near_check(tags->near, &place->handle, now_us, max_stale_us))) {
        if (line != NULL)
            rc_memo_add(line, tags->near, &place->handle);
        return RC_TAGS_VALID;
    }
    return look_up(tags, tag, now_us, max_stale_us);
}

/* The verdicts are numbered so that the gravest is the largest. A void tag decides, so that nothing
   is asked about those behind it; but the rest of the block must be whole all the same, so that the
   verdict does not depend on how a tag stands at the moment. `line` (NULL: none is wanted) takes
   the tags that were found valid in the table. */
static inline int check_all(struct rc_near_tags *tags, const char *block, size_t len,
                            int64_t now_us, int64_t max_stale_us, struct rc_memo_line *line)
{
    if (len < HEAD)
        return RC_TAGS_DAMAGED;
    size_t size = size_of(block);
    uint8_t parts = (uint8_t)block[2], count = (uint8_t)block[3];
    size_t at = HEAD + (parts == PART_TIMES ? TIMES : 0);
    if (size > len || at > size || parts > PART_TIMES || count > RC_TAGS_MAX)
        return RC_TAGS_DAMAGED;
    int verdict = RC_TAGS_VALID;
    for (; count > 0; count--) {
        if (size - at < TAG_HEAD)
            return RC_TAGS_DAMAGED;
        struct tag tag = {.generations = block + at,
                          .name = block + at + TAG_HEAD,
                          .name_len = (uint8_t)block[at + RC_TAG_GENERATIONS]};
        at += TAG_HEAD;
        if (size - at < tag.name_len)
            return RC_TAGS_DAMAGED;
        at += tag.name_len;
        int one = verdict == RC_TAGS_VOID ? verdict : check(tags, &tag, now_us, max_stale_us, line);
        if (one > verdict)
            verdict = one;
    }
    return at == size ? verdict : RC_TAGS_DAMAGED;
}

int rc_near_tags_check(struct rc_near_tags *tags, const char *block, size_t len,
                       int64_t max_stale_us)
{
    /* The clock is read first: what is found behind it was so then, or is newer (near.c). */
    return check_all(tags, block, len, rc_near_reader_us(tags->near), max_stale_us, NULL);
}

static inline uint32_t stale_ms_of(const char *block)
{
    uint32_t ms = 0;
    for (int i = 0; i < 4; i++)
        ms |= (uint32_t)(uint8_t)block[STALE_AT + i] << 8 * i;
    return ms;
}

static inline bool is_over(const rc_near_handle *entry, uint32_t stale_ms, int64_t now_us)
{
    return entry->is_capped == 0 && entry->deadline_us - now_us <= (int64_t)stale_ms * 1000;
}

/* Where no line of the memo answers: reads the block, and writes a line for the next time. */
static __attribute__((noinline)) size_t read_block(struct rc_near_tags *tags,
                                                   const rc_near_handle *entry, const char *block,
                                                   size_t len, int64_t now_us, int64_t max_stale_us)
{
    if (len < HEAD + TIMES || block[2] != PART_TIMES)
        return 0;
    size_t size = size_of(block);
    uint32_t stale_ms = stale_ms_of(block);
    if (is_over(entry, stale_ms, now_us))
        return 0;
    if (block[3] == 0)
        return size == HEAD + TIMES ? size : 0;
    struct rc_memo_line line = rc_memo_begin(entry, (uint16_t)size, stale_ms);
    if (tags == NULL || check_all(tags, block, len, now_us, max_stale_us, &line) != RC_TAGS_VALID)
        return 0;
    if (line.count == (uint8_t)block[3])
        rc_memo_note(&tags->memo, &line);
    return size;
}

static inline size_t sound(struct rc_near_tags *tags, const rc_near_handle *entry,
                           const char *block, size_t len, int64_t now_us, int64_t max_stale_us)
{
    const struct rc_memo_line *line = NULL;
    if (tags != NULL)
        line = rc_memo_find(&tags->memo, entry, now_us, max_stale_us);
    if (line == NULL || line->size > len)
        return read_block(tags, entry, block, len, now_us, max_stale_us);
    return is_over(entry, line->stale_ms, now_us) ? 0 : line->size;
}

size_t rc_near_tags_sound(struct rc_near_tags *tags, const rc_near_handle *entry, const char *block,
                          size_t len, int64_t now_us, int64_t max_stale_us)
{
    return sound(tags, entry, block, len, now_us, max_stale_us);
}

int rc_near_tags_check_handle(struct rc_near *near, struct rc_near_tags *tags,
                              rc_near_handle *handle, int64_t max_stale_us)
{
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    if (!rc_near_check(near, handle, now_us, max_stale_us))
        return RC_VIEW_GONE;
    return sound(tags, handle, handle->block, SIZE_MAX, now_us, max_stale_us) != 0 ? RC_VIEW_SOUND
                                                                                   : RC_VIEW_TOLD;
}
