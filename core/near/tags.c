#include "near/tags.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"

enum {
    SETS = 512,      /* of two places: a thousand tags seldom drive each other out */
    PLACE_NAME = 47, /* longer names have no place: they are looked up each time */
    HEAD = 4,        /* of a block: size, parts, tags */
    PART_TIMES = 1,
    TIMES = 12,
    TAG_HEAD = RC_TAG_GENERATIONS + 1
};

/* Two cache lines: what the handle was filled for stands behind it. What was found last stands in
   the first of its set. */
struct place {
    rc_near_handle handle;
    char tag[TAG_HEAD + PLACE_NAME]; /* as a block would have it now */
};

struct rc_near_tags {
    struct rc_near *near;
    struct rc_buf prefix;
    struct place places[SETS][2];
};

/* One of a block, in place. */
struct tag {
    const char *generations;
    const char *name;
    size_t name_len;
};

struct rc_near_tags *rc_near_tags_new(struct rc_near *near, const char *prefix, size_t prefix_len)
{
    struct rc_near_tags *tags = calloc(1, sizeof *tags); /* no handle is one yet */
    if (tags == NULL)
        return NULL;
    tags->near = near;
    rc_buf_init(&tags->prefix);
    if (rc_buf_append(&tags->prefix, prefix, prefix_len) != 0) {
        free(tags);
        return NULL;
    }
    return tags;
}

void rc_near_tags_free(struct rc_near_tags *tags)
{
    rc_buf_deinit(&tags->prefix);
    free(tags);
}

static inline struct place *set_of(struct rc_near_tags *tags, const char *generations)
{
    uint32_t at = (uint32_t)(uint8_t)generations[0] | (uint32_t)(uint8_t)generations[1] << 8;
    return tags->places[at % SETS];
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
        struct place *place = set_of(tags, found);
        place[1] = place[0];
        place->handle = value.handle;
        memcpy(place->tag, tag->generations, TAG_HEAD + tag->name_len);
        memcpy(place->tag, found, sizeof found);
    }
    return verdict;
}

/* One comparison says that it is this tag, and that it has not changed since; and the handle that
   nothing else is known by now. */
static inline bool is_valid_there(struct rc_near_tags *tags, struct place *place,
                                  const struct tag *tag, int64_t now_us, int64_t max_stale_us)
{
    return memcmp(place->tag, tag->generations, TAG_HEAD + tag->name_len) == 0 &&
           (RC_MUTANT(TAGS_AT_FILL) ||
            rc_near_is_valid_at(tags->near, &place->handle, now_us, max_stale_us));
}

static inline int check(struct rc_near_tags *tags, const struct tag *tag, int64_t now_us,
                        int64_t max_stale_us)
{
    struct place *set = set_of(tags, tag->generations);
    if (tag->name_len <= PLACE_NAME && (is_valid_there(tags, &set[0], tag, now_us, max_stale_us) ||
                                        is_valid_there(tags, &set[1], tag, now_us, max_stale_us)))
        return RC_TAGS_VALID;
    return look_up(tags, tag, now_us, max_stale_us);
}

/* The verdicts are numbered so that the gravest is the largest. A void tag decides, so that nothing
   is asked about those behind it; but the rest of the block must be whole all the same, so that the
   verdict does not depend on how a tag stands at the moment. */
int rc_near_tags_check(struct rc_near_tags *tags, const char *block, size_t len,
                       int64_t max_stale_us)
{
    /* The clock is read first: what is found behind it was so then, or is newer (near.c). */
    int64_t now_us = rc_near_reader_us(tags->near);
    if (len < HEAD)
        return RC_TAGS_DAMAGED;
    size_t size = (size_t)(uint8_t)block[0] | (size_t)(uint8_t)block[1] << 8;
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
        int one = verdict == RC_TAGS_VOID ? verdict : check(tags, &tag, now_us, max_stale_us);
        if (one > verdict)
            verdict = one;
    }
    return at == size ? verdict : RC_TAGS_DAMAGED;
}
