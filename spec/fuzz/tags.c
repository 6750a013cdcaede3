/* Any bytes as the block of an entry's tags. What is told of them is what a plain reading says, the
   first time as well as by what the table has kept of it. */
#include "near/tags.h"

#include <string.h>

#include "near/mix.h"

#include "fuzz.h"

enum { SECOND = 1000000, HEAD = 4, TIMES = 12, TAG_HEAD = RC_TAG_GENERATIONS + 1 };

static _Atomic int64_t now_us = 1000 * (int64_t)SECOND;
static struct rc_near *near;

/* Tags that are near: their names, and generations that begin and go on with the same byte. */
static const struct {
    const char *name;
    char generation;
} KNOWN[] = {{"", 'g'}, {"a", 'h'}, {"user:7", 'g'}};

static void open_region(void)
{
    const struct rc_mix_seed seed = {{1, 2, 3, 4}};
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES, .seed = &seed, .clock = &now_us};
    char key[16] = "t:", generations[RC_TAG_GENERATIONS];
    const char *why;
    FUZZ_CHECK(rc_near_open(&near, &options, &why) == 0);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, now_us);
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(*KNOWN); i++) {
        struct rc_near_entry entry = {.key = key,
                                      .value = generations,
                                      .value_len = sizeof(generations),
                                      .kind = RC_KIND_VALUE,
                                      .codec = RC_CODEC_RAW,
                                      .deadline_us = INT64_MAX};
        strcpy(key + 2, KNOWN[i].name);
        entry.key_len = strlen(key);
        entry.hash = rc_near_hash(near, key, entry.key_len);
        memset(generations, KNOWN[i].generation, sizeof(generations));
        FUZZ_CHECK(rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash)));
    }
}

static int verdict_of(const char *generations, const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(*KNOWN); i++) {
        char stands[RC_TAG_GENERATION];
        if (len != strlen(KNOWN[i].name) || memcmp(name, KNOWN[i].name, len) != 0)
            continue;
        memset(stands, KNOWN[i].generation, sizeof(stands));
        if (memcmp(generations, stands, sizeof(stands)) != 0)
            return RC_TAGS_VOID;
        return memcmp(generations + sizeof(stands), stands, sizeof(stands)) == 0 ? RC_TAGS_VALID
                                                                                 : RC_TAGS_SOFT;
    }
    return RC_TAGS_UNKNOWN;
}

static int expect(const char *block, size_t len)
{
    size_t size, at;
    int gravest = RC_TAGS_VALID;
    if (len < HEAD)
        return RC_TAGS_DAMAGED;
    size = (size_t)(uint8_t)block[0] + 256 * (size_t)(uint8_t)block[1];
    at = HEAD + (block[2] == 1 ? TIMES : 0);
    if (size > len || (block[2] != 0 && block[2] != 1) || (uint8_t)block[3] > RC_TAGS_MAX)
        return RC_TAGS_DAMAGED;
    for (int i = 0; i < block[3]; i++) {
        size_t name_at = at + TAG_HEAD, name_len;
        if (name_at > size)
            return RC_TAGS_DAMAGED;
        name_len = (uint8_t)block[name_at - 1];
        if (name_at + name_len > size)
            return RC_TAGS_DAMAGED;
        int one = verdict_of(block + at, block + name_at, name_len);
        gravest = one > gravest ? one : gravest;
        at = name_at + name_len;
    }
    return at == size ? gravest : RC_TAGS_DAMAGED;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    const char *block = (const char *)bytes;
    if (near == NULL)
        open_region();
    struct rc_near_tags *tags = rc_near_tags_new(near, "t:", 2);
    FUZZ_CHECK(tags != NULL);
    int expected = expect(block, len);
    for (int i = 0; i < 2; i++)
        FUZZ_CHECK(rc_near_tags_check(tags, block, len, SECOND) == expected);
    if (expected != RC_TAGS_DAMAGED && block[3] != 0)
        FUZZ_CHECK(rc_near_tags_check(tags, block, len, 0) == RC_TAGS_UNKNOWN);
    rc_near_tags_free(tags);
    return 0;
}
