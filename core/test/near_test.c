#include "near/near.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "near/avoid.h"
#include "test/test.h"

enum { SECOND = 1000000, BUFFER = 70000 };

struct bed {
    struct rc_near *near;
    struct rc_near_owner *owner;
    rc_near_value value;
    rc_near_stats stats;
    char buffer[BUFFER];
};

static bool open_bed(struct bed *bed, size_t bytes, uint32_t stripes)
{
    struct rc_near_options options = {.bytes = bytes, .stripes = stripes};
    const char *why = "";
    memset(bed, 0, sizeof(*bed));
    if (!CHECK(rc_near_open(&bed->near, &options, &why) == 0))
        return false;
    bed->owner = rc_near_add_owner(bed->near, NULL);
    bed->value.buffer = bed->buffer;
    bed->value.capacity = sizeof(bed->buffer);
    rc_near_set_asof(bed->owner, rc_near_now_us());
    return CHECK(bed->owner != NULL);
}

static void close_bed(struct bed *bed)
{
    rc_near_remove_owner(bed->near, bed->owner);
    rc_near_close(bed->near);
}

static struct rc_near_entry entry_of(const struct bed *bed, const char *key, const char *value)
{
    return (struct rc_near_entry){.hash = rc_near_hash(bed->near, key, strlen(key)),
                                  .key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = strlen(value),
                                  .kind = RC_KIND_VALUE,
                                  .codec = 3,
                                  .entry_flags = 5,
                                  .version = {1, 2, 3, 4, 5, 6, 7, 8},
                                  .deadline_us = INT64_MAX};
}

static bool fill_entry(struct bed *bed, const struct rc_near_entry *entry)
{
    return rc_near_fill(bed->near, bed->owner, entry,
                        rc_near_write_version(bed->near, entry->hash));
}

static bool fill(struct bed *bed, const char *key, const char *value)
{
    struct rc_near_entry entry = entry_of(bed, key, value);
    return fill_entry(bed, &entry);
}

static bool fill_until(struct bed *bed, const char *key, int64_t deadline_us)
{
    struct rc_near_entry entry = entry_of(bed, key, "value");
    entry.deadline_us = deadline_us;
    return fill_entry(bed, &entry);
}

static void fill_many(struct bed *bed, int from, int count, uint8_t group)
{
    char key[32], value[101];
    memset(value, 'x', 100);
    value[100] = '\0';
    for (int i = from; i < from + count; i++) {
        snprintf(key, sizeof(key), "other:%d", i);
        struct rc_near_entry entry = entry_of(bed, key, value);
        entry.group = group;
        CHECK(fill_entry(bed, &entry));
    }
    rc_near_set_asof(bed->owner, rc_near_now_us()); /* it may have taken longer than the horizon */
}

static int look(struct bed *bed, const char *key)
{
    return rc_near_lookup(bed->near, NULL, 0, key, strlen(key), SECOND, &bed->value);
}

static bool has(struct bed *bed, const char *key, const char *value)
{
    return look(bed, key) == RC_NEAR_HIT && bed->value.len == strlen(value) &&
           memcmp(bed->value.data, value, bed->value.len) == 0;
}

static void drop(struct bed *bed, const char *key, enum rc_near_cause cause)
{
    rc_near_drop(bed->near, key, strlen(key), cause);
}

static const rc_near_stats *stats_of(struct bed *bed)
{
    rc_near_read_stats(bed->near, &bed->stats);
    return &bed->stats;
}

static void wait_until(int64_t time_us)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (rc_near_now_us() < time_us)
        nanosleep(&pause, NULL);
}

/* ---- entries --------------------------------------------------------------------------------- */

static void finds_what_was_filled_until_it_is_dropped(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(look(&bed, "key") == RC_NEAR_MISS);
    CHECK(fill(&bed, "key", "value") && has(&bed, "key", "value"));
    CHECK(bed.value.kind == RC_KIND_VALUE && bed.value.codec == 3 && bed.value.entry_flags == 5);
    CHECK(memcmp(&bed.value.handle.version, "\1\2\3\4", 4) == 0);
    CHECK(stats_of(&bed)->entries == 1 && bed.stats.fills == 1 && bed.stats.bytes >= 44);
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(look(&bed, "key") == RC_NEAR_MISS);
    CHECK(fill(&bed, "key", "value"));
    drop(&bed, "other", RC_NEAR_PUSH);
    CHECK(has(&bed, "key", "value"));
    drop(&bed, "key", RC_NEAR_WRITE);
    CHECK(look(&bed, "key") == RC_NEAR_MISS);
    CHECK(stats_of(&bed)->entries == 0 && bed.stats.bytes == 0);
    CHECK(bed.stats.invalidations == 1 && bed.stats.writes == 1);
    close_bed(&bed);
}

static void takes_any_bytes_for_a_key(void)
{
    struct bed bed;
    char longest[RC_NEAR_MAX_KEY + 1];
    const struct {
        const char *bytes;
        size_t len;
    } keys[] = {{"", 0},     {"\0", 1},       {"\0\0", 2},    {"\0\0\0\0", 4},
                {"a\0b", 3}, {"\xff\xfe", 2}, {longest, 1024}};
    enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
    memset(longest, 0, sizeof(longest));
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    for (size_t i = 0; i < KEYS; i++) {
        struct rc_near_entry entry = entry_of(&bed, "", "");
        entry.key = keys[i].bytes;
        entry.key_len = keys[i].len;
        entry.hash = rc_near_hash(bed.near, keys[i].bytes, keys[i].len);
        entry.value = (const char *)&i;
        entry.value_len = sizeof(i);
        CHECK(fill_entry(&bed, &entry));
    }
    for (size_t i = 0; i < KEYS; i++) {
        CHECK(rc_near_lookup(bed.near, NULL, 0, keys[i].bytes, keys[i].len, SECOND, &bed.value) ==
              RC_NEAR_HIT);
        CHECK(bed.value.len == sizeof(i) && memcmp(bed.value.data, &i, sizeof(i)) == 0);
    }
    struct rc_near_entry entry = entry_of(&bed, "", "");
    entry.key = longest;
    entry.key_len = sizeof(longest);
    CHECK(!fill_entry(&bed, &entry) && stats_of(&bed)->refusals == 1);
    CHECK(rc_near_lookup(bed.near, "a", 1, longest, 1024, SECOND, &bed.value) == RC_NEAR_MISS);
    close_bed(&bed);
}

static void sees_one_key_however_it_is_cut(void)
{
    static const char key[] = "a:b:with a rest of more than sixteen bytes";
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, key, "value"));
    for (size_t cut = 0; cut < sizeof(key); cut++)
        CHECK(rc_near_lookup(bed.near, key, cut, key + cut, sizeof(key) - 1 - cut, SECOND,
                             &bed.value) == RC_NEAR_HIT);
    close_bed(&bed);
}

/* Of a prefix that is made ready once, the longest key first: nothing of it stays for the next. */
static void finds_all_keys_of_a_prefix(void)
{
    static const char text[] = "a prefix of some words:and a key of so many, and of more";
    struct rc_near_prefix prefix;
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    for (size_t len = 1; len < sizeof(text); len++) {
        struct rc_near_entry entry = entry_of(&bed, text, text);
        entry.key_len = entry.value_len = len;
        entry.hash = rc_near_hash(bed.near, text, len);
        CHECK(fill_entry(&bed, &entry));
    }
    for (size_t cut = 0; cut < sizeof(text) - 1; cut++) {
        rc_near_prefix_init(&prefix, text, cut);
        for (size_t len = sizeof(text) - 1; len > 0 && len >= cut; len--)
            CHECK(rc_near_get(bed.near, &prefix, text + cut, len - cut, SECOND, &bed.value) ==
                      RC_NEAR_HIT &&
                  bed.value.len == len);
        CHECK(rc_near_get(bed.near, &prefix, text, RC_NEAR_MAX_KEY - cut + 1, SECOND, &bed.value) ==
              RC_NEAR_MISS);
    }
    close_bed(&bed);
}

static void gives_back_values_of_every_length(void)
{
    struct bed bed;
    char key[40], value[400];
    if (!open_bed(&bed, 8 << 20, 0))
        return;
    for (int len = 0; len < 399; len++) {
        snprintf(key, sizeof(key), "%0*d", 3 + len % 30, len);
        for (int i = 0; i < len; i++)
            value[i] = (char)(1 + (i * 7 + len) % 250);
        value[len] = '\0';
        CHECK(fill(&bed, key, value));
        memset(bed.buffer, 0, 400);
        bed.value.capacity = (size_t)len; /* no byte more may be written */
        CHECK(has(&bed, key, value) && bed.buffer[len] == 0);
        if (len > 0) {
            bed.value.capacity = (size_t)len - 1;
            CHECK(look(&bed, key) == RC_NEAR_GROW && bed.value.len == (size_t)len);
        }
    }
    close_bed(&bed);
}

static void replaces_what_stood_there(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, "key", "first") && fill(&bed, "key", "a second one that is longer"));
    CHECK(has(&bed, "key", "a second one that is longer"));
    CHECK(fill(&bed, "key", "") && has(&bed, "key", ""));
    CHECK(stats_of(&bed)->entries == 1);
    close_bed(&bed);
}

static void refuses_what_would_take_more_than_an_eighth_of_a_stripe(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 4))
        return;
    static char large[64 * 1024];
    memset(large, 'x', sizeof(large) - 1);
    CHECK(fill(&bed, "other", "value"));
    CHECK(!fill(&bed, "key", large) && look(&bed, "key") == RC_NEAR_MISS);
    CHECK(stats_of(&bed)->refusals == 1 && has(&bed, "other", "value"));
    large[20000] = '\0';
    CHECK(fill(&bed, "key", large) && has(&bed, "key", large));
    close_bed(&bed);
}

static void stays_within_its_bytes_and_finds_what_is_used(void)
{
    struct bed bed;
    char key[32];
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, "hot", "value"));
    for (int i = 0; i < 300; i++) {
        fill_many(&bed, i * 100, 100, 0);
        CHECK(has(&bed, "hot", "value"));
    }
    CHECK(stats_of(&bed)->evictions > 20000);
    CHECK(bed.stats.bytes <= bed.stats.capacity && bed.stats.capacity < 1 << 20);
    CHECK(bed.stats.bytes > bed.stats.capacity * 9 / 10);
    uint64_t found = 0;
    for (int i = 0; i < 30000; i++) {
        snprintf(key, sizeof(key), "other:%d", i);
        found += look(&bed, key) == RC_NEAR_HIT;
    }
    CHECK(found == bed.stats.entries - 1);
    close_bed(&bed);
}

static void takes_a_key_it_dropped_for_a_wanted_one(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, "key", "value"));
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(fill(&bed, "key", "value") && stats_of(&bed)->ghosts == 1);
    fill_many(&bed, 0, 10000, 0);
    CHECK(has(&bed, "key", "value")); /* never read, but in the main queue */
    rc_near_set_ghosts(bed.near, false);
    CHECK(fill(&bed, "new", "value"));
    drop(&bed, "new", RC_NEAR_PUSH);
    uint64_t ghosts = stats_of(&bed)->ghosts;
    CHECK(fill(&bed, "new", "value") && stats_of(&bed)->ghosts == ghosts);
    close_bed(&bed);
}

/* ---- time ------------------------------------------------------------------------------------ */

static int64_t exact_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec / 1000;
}

/* A machine that is short of processors may be late with a tick. */
static void tells_a_time_that_is_not_too_early(void)
{
    int early = 0, samples = 0;
    for (int64_t end_us = exact_now_us() + 200000; exact_now_us() < end_us; samples++) {
        int64_t now_us = exact_now_us();
        early += rc_near_now_us() < now_us;
    }
    CHECK(samples > 100 && early < samples / 10);
}

static void serves_nothing_past_its_deadline(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(!fill_until(&bed, "past", rc_near_now_us() - 4001));
    CHECK(look(&bed, "past") == RC_NEAR_MISS);
    int64_t deadline_us = rc_near_now_us() + 500000;
    CHECK(fill_until(&bed, "key", deadline_us) && fill_until(&bed, "late", INT64_MAX - 1));
    CHECK(look(&bed, "key") == RC_NEAR_HIT && bed.value.handle.deadline_us <= deadline_us);
    rc_near_handle handle = bed.value.handle;
    CHECK(rc_near_is_valid(bed.near, &handle, SECOND));
    wait_until(deadline_us);
    CHECK(look(&bed, "key") == RC_NEAR_MISS && !rc_near_is_valid(bed.near, &handle, SECOND));
    CHECK(has(&bed, "late", "value"));
    CHECK(stats_of(&bed)->entries == 2);
    close_bed(&bed);
}

static void sweeps_away_what_is_over(void)
{
    struct bed bed;
    char key[32];
    if (!open_bed(&bed, 8 << 20, 2))
        return;
    int64_t deadline_us = rc_near_now_us() + 50000;
    uint64_t timed = 0; /* a slow machine comes too late with some */
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "key:%d", i);
        timed += fill_until(&bed, key, i % 2 == 0 ? deadline_us : INT64_MAX) && i % 2 == 0;
    }
    wait_until(deadline_us);
    uint32_t cursor = 0, calls = 0;
    do {
        cursor = rc_near_sweep(bed.near, cursor, 100);
        calls++;
    } while (cursor != 0);
    CHECK(calls > 40);
    CHECK(stats_of(&bed)->entries == 500 && bed.stats.expirations == timed && timed > 0);
    CHECK(has(&bed, "key:1", "value"));
    close_bed(&bed);
}

/* ---- coherence ------------------------------------------------------------------------------- */

static void is_stale_beyond_the_horizon(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, "key", "value"));
    struct rc_near_owner *old = rc_near_add_owner(bed.near, NULL);
    rc_near_set_asof(old, rc_near_now_us() - 500000);
    struct rc_near_entry entry = entry_of(&bed, "old", "value");
    CHECK(rc_near_fill(bed.near, old, &entry, rc_near_write_version(bed.near, entry.hash)));
    CHECK(look(&bed, "old") == RC_NEAR_HIT);
    rc_near_handle handle = bed.value.handle;
    CHECK(rc_near_lookup(bed.near, "o", 1, "ld", 2, 400000, &bed.value) == RC_NEAR_STALE);
    CHECK(bed.value.len == 5 && memcmp(bed.value.data, "value", 5) == 0);
    CHECK(rc_near_is_valid(bed.near, &handle, SECOND) &&
          !rc_near_is_valid(bed.near, &handle, 400000));
    CHECK(rc_near_lookup(bed.near, "", 0, "key", 3, 0, &bed.value) == RC_NEAR_STALE);
    CHECK(!rc_near_is_valid(bed.near, &handle, 0) && !rc_near_is_valid(bed.near, &handle, -1));
    rc_near_set_asof(old, rc_near_asof(old) - 1000000); /* never back */
    CHECK(rc_near_is_valid(bed.near, &handle, SECOND));
    rc_near_set_asof(old, rc_near_now_us());
    CHECK(rc_near_is_valid(bed.near, &handle, 400000) && look(&bed, "old") == RC_NEAR_HIT);
    rc_near_remove_owner(bed.near, old);
    CHECK(!rc_near_is_valid(bed.near, &handle, SECOND) && look(&bed, "old") == RC_NEAR_STALE);
    CHECK(has(&bed, "key", "value"));
    close_bed(&bed);
}

static void is_stale_once_the_owner_has_a_new_epoch(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(fill(&bed, "key", "value") && has(&bed, "key", "value"));
    rc_near_handle handle = bed.value.handle;
    rc_near_renew_owner(bed.owner);
    CHECK(look(&bed, "key") == RC_NEAR_STALE && !rc_near_is_valid(bed.near, &handle, SECOND));
    CHECK(fill(&bed, "key", "value") && has(&bed, "key", "value"));
    CHECK(!rc_near_is_valid(bed.near, &handle, SECOND));
    /* The slot's next owner does not vouch for what the last one filled. */
    rc_near_remove_owner(bed.near, bed.owner);
    bed.owner = rc_near_add_owner(bed.near, NULL);
    rc_near_set_asof(bed.owner, rc_near_now_us());
    CHECK(look(&bed, "key") == RC_NEAR_STALE);
    close_bed(&bed);
}

static void tells_the_owner_that_somebody_reads(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(rc_near_read_us(bed.owner) == 0 && rc_near_need_us(bed.owner) == INT64_MAX);
    CHECK(fill(&bed, "key", "value"));
    CHECK(rc_near_read_us(bed.owner) == 0);
    CHECK(has(&bed, "key", "value"));
    CHECK(rc_near_now_us() - rc_near_read_us(bed.owner) < SECOND / 8);
    CHECK(rc_near_need_us(bed.owner) == SECOND);
    CHECK(rc_near_is_valid(bed.near, &bed.value.handle, 300000) &&
          rc_near_need_us(bed.owner) == 300000);
    CHECK(has(&bed, "key", "value") && rc_near_need_us(bed.owner) == 300000);
    rc_near_forget_need(bed.owner);
    CHECK(rc_near_need_us(bed.owner) == INT64_MAX);
    rc_near_renew_owner(bed.owner);
    CHECK(look(&bed, "key") == RC_NEAR_STALE && rc_near_need_us(bed.owner) == SECOND);
    close_bed(&bed);
}

static void dooms_a_fill_whose_key_was_written_meanwhile(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    struct rc_near_entry entry = entry_of(&bed, "key", "value");
    uint32_t writes = rc_near_write_version(bed.near, entry.hash);
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(rc_near_write_version(bed.near, entry.hash) == writes);
    drop(&bed, "key", RC_NEAR_WRITE); /* there is nothing, but there will be */
    CHECK(!rc_near_fill(bed.near, bed.owner, &entry, writes));
    CHECK(look(&bed, "key") == RC_NEAR_MISS && stats_of(&bed)->dooms == 1);
    CHECK(fill_entry(&bed, &entry) && has(&bed, "key", "value"));
    entry.value = "older";
    CHECK(!rc_near_fill(bed.near, bed.owner, &entry, writes) && has(&bed, "key", "value"));
    close_bed(&bed);
}

/* Two connections asked before and behind a write; nobody knows whose answer is newer. Neither is
   kept: the first was handed out. */
static void keeps_no_answer_behind_one_that_was_doomed(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    struct rc_near_entry newer = entry_of(&bed, "key", "newer"),
                         older = entry_of(&bed, "key", "older");
    older.version[0] = 'o';
    uint32_t before = rc_near_write_version(bed.near, newer.hash);
    drop(&bed, "key", RC_NEAR_WRITE);
    uint32_t behind = rc_near_write_version(bed.near, newer.hash);
    CHECK(!rc_near_fill(bed.near, bed.owner, &newer, before));
    CHECK(!rc_near_fill(bed.near, bed.owner, &older, behind));
    CHECK(look(&bed, "key") == RC_NEAR_MISS);
    close_bed(&bed);
}

/* ---- handles --------------------------------------------------------------------------------- */

static void holds_a_handle_valid_while_only_its_neighbours_change(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    CHECK(fill(&bed, "key", "value") && has(&bed, "key", "value"));
    rc_near_handle handle = bed.value.handle;
    CHECK(!handle.used && rc_near_is_valid(bed.near, &handle, SECOND) && handle.used);
    uint32_t version = handle.bucket_version, moves = 0;
    for (int i = 0; i < 100; i++) {
        fill_many(&bed, i * 100, 100, 0);
        CHECK(rc_near_is_valid(bed.near, &handle, SECOND));
        moves += handle.bucket_version != version;
        version = handle.bucket_version;
    }
    CHECK(moves > 2);
    close_bed(&bed);
}

static void ends_a_handle_with_its_entry(void)
{
    struct bed bed;
    rc_near_handle handle, none = {0};
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    CHECK(!rc_near_is_valid(bed.near, &none, SECOND));
    CHECK(fill(&bed, "key", "value") && has(&bed, "key", "value"));
    handle = bed.value.handle;
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(!rc_near_is_valid(bed.near, &handle, SECOND));
    CHECK(fill(&bed, "key", "value")); /* the same bytes in the same place, but read again */
    CHECK(!rc_near_is_valid(bed.near, &handle, SECOND));
    CHECK(has(&bed, "key", "value"));
    handle = bed.value.handle;
    CHECK(fill(&bed, "key", "other") && !rc_near_is_valid(bed.near, &handle, SECOND));
    CHECK(fill(&bed, "cold", "value") && has(&bed, "cold", "value"));
    handle = bed.value.handle;
    fill_many(&bed, 0, 40000, 0);
    CHECK(look(&bed, "cold") == RC_NEAR_MISS && !rc_near_is_valid(bed.near, &handle, SECOND));
    close_bed(&bed);
}

static void gives_each_plain_value_a_version(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    struct rc_near_entry entry = entry_of(&bed, "key", "value");
    entry.kind = RC_KIND_PLAIN;
    CHECK(fill_entry(&bed, &entry) && has(&bed, "key", "value"));
    CHECK(bed.value.kind == RC_KIND_PLAIN);
    uint32_t version = bed.value.handle.version;
    rc_near_handle first = bed.value.handle;
    for (int i = 0; i < 300; i++) {
        rc_near_handle handle = bed.value.handle;
        CHECK(fill_entry(&bed, &entry) && !rc_near_is_valid(bed.near, &handle, SECOND));
        CHECK(!rc_near_is_valid(bed.near, &first,
                                SECOND)); /* nor 256 fills later, in the same place */
        CHECK(has(&bed, "key", "value"));
        CHECK(bed.value.handle.version != version);
    }
    close_bed(&bed);
}

static void looks_up_as_of_a_moment(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    int64_t now_us = rc_near_reader_us(bed.near);
    CHECK(fill_until(&bed, "key", now_us + 60 * SECOND));
    CHECK(rc_near_lookup_at(bed.near, "k", 1, "ey", 2, now_us, SECOND, &bed.value) == RC_NEAR_HIT);
    CHECK(rc_near_lookup_at(bed.near, "k", 1, "ey", 2, now_us + 2 * SECOND, SECOND, &bed.value) ==
          RC_NEAR_STALE);
    CHECK(rc_near_lookup_at(bed.near, "k", 1, "ey", 2, now_us + 61 * SECOND, SECOND, &bed.value) ==
          RC_NEAR_MISS);
    close_bed(&bed);
}

static int look_sought(struct bed *bed, struct rc_near_seek *seek)
{
    return rc_near_lookup_sought(bed->near, seek, rc_near_reader_us(bed->near), SECOND,
                                 &bed->value);
}

static void seek(struct bed *bed, const char *prefix, size_t prefix_len, const char *key,
                 size_t key_len, struct rc_near_seek *found)
{
    struct rc_near_prefix begin;
    rc_near_prefix_init(&begin, prefix, prefix_len);
    rc_near_seek(bed->near, &begin, key, key_len, found);
}

/* What changes between the steps of a lookup is seen by the last one. */
static void looks_up_in_steps(void)
{
    struct bed bed;
    struct rc_near_seek seeks[4];
    static const char *const keys[4] = {"stays", "goes", "changes", "comes"};
    char longest[RC_NEAR_MAX_KEY];
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    for (int i = 0; i < 3; i++)
        CHECK(fill(&bed, keys[i], "old"));
    for (int i = 0; i < 4; i++)
        seek(&bed, keys[i], 1, keys[i] + 1, strlen(keys[i]) - 1, &seeks[i]);
    for (int i = 0; i < 4; i++)
        rc_near_seek_block(&seeks[i]);
    drop(&bed, "goes", RC_NEAR_PUSH);
    drop(&bed, "changes", RC_NEAR_PUSH);
    CHECK(fill(&bed, "changes", "new") && fill(&bed, "comes", "new"));
    CHECK(look_sought(&bed, &seeks[0]) == RC_NEAR_HIT && memcmp(bed.value.data, "old", 3) == 0);
    CHECK(rc_near_is_valid(bed.near, &bed.value.handle, SECOND));
    CHECK(look_sought(&bed, &seeks[1]) == RC_NEAR_MISS);
    CHECK(look_sought(&bed, &seeks[2]) == RC_NEAR_HIT && memcmp(bed.value.data, "new", 3) == 0);
    CHECK(look_sought(&bed, &seeks[3]) == RC_NEAR_HIT && memcmp(bed.value.data, "new", 3) == 0);
    CHECK(rc_near_is_valid(bed.near, &bed.value.handle, SECOND));
    rc_near_renew_owner(bed.owner);
    CHECK(look_sought(&bed, &seeks[0]) == RC_NEAR_STALE);
    memset(longest, 'k', sizeof longest);
    seek(&bed, "a", 1, longest, sizeof longest, &seeks[0]);
    rc_near_seek_block(&seeks[0]);
    CHECK(look_sought(&bed, &seeks[0]) == RC_NEAR_MISS && bed.value.handle.changes == NULL);
    close_bed(&bed);
}

/* ---- why a key is gone ----------------------------------------------------------------------- */

static rc_near_report explain(struct bed *bed, const char *key)
{
    rc_near_report report;
    rc_near_explain(bed->near, key, strlen(key), &report);
    return report;
}

static bool went_by(struct bed *bed, const char *key, int32_t cause)
{
    rc_near_report report = explain(bed, key);
    return !report.is_there && report.cause == cause &&
           (cause == RC_GONE_UNKNOWN ? report.gone_us == -1
                                     : report.gone_us >= 0 && report.gone_us < 100 * SECOND);
}

static void explains_a_copy_as_it_stands(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 0))
        return;
    CHECK(went_by(&bed, "key", RC_GONE_UNKNOWN));
    CHECK(fill(&bed, "key", "value"));
    rc_near_report report = explain(&bed, "key");
    CHECK(report.is_there && report.len == 5 && report.kind == RC_KIND_VALUE && report.codec == 3);
    CHECK(report.left_us == INT64_MAX && report.age_us >= 0 && report.age_us < 100 * SECOND);
    CHECK(fill_until(&bed, "key", rc_near_now_us() + 500 * INT64_C(1000000)));
    report = explain(&bed, "key");
    CHECK(report.left_us > 300 * INT64_C(1000000) && report.left_us <= 500 * INT64_C(1000000));
    rc_near_renew_owner(bed.owner);
    report = explain(&bed, "key");
    CHECK(report.is_there && report.age_us == -1);
    close_bed(&bed);
}

static void explains_why_a_key_went(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    CHECK(fill(&bed, "key", "value"));
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(went_by(&bed, "key", RC_GONE_CHANGED));
    drop(&bed, "key", RC_NEAR_WRITE);
    CHECK(went_by(&bed, "key", RC_GONE_WRITTEN));
    drop(&bed, "key", RC_NEAR_PUSH); /* nothing stands there: no news */
    drop(&bed, "key", RC_NEAR_UNKEPT);
    CHECK(went_by(&bed, "key", RC_GONE_WRITTEN));
    CHECK(fill(&bed, "key", "value"));
    drop(&bed, "key", RC_NEAR_UNKEPT);
    CHECK(went_by(&bed, "key", RC_GONE_RACED));
    struct rc_near_entry entry = entry_of(&bed, "raced", "value");
    uint32_t version = rc_near_write_version(bed.near, entry.hash);
    drop(&bed, "raced", RC_NEAR_WRITE);
    CHECK(!rc_near_fill(bed.near, bed.owner, &entry, version));
    CHECK(went_by(&bed, "raced", RC_GONE_RACED));
    /* Redis tells of what expires, too; by then it is over here. */
    CHECK(fill_until(&bed, "key", rc_near_now_us() + 200000));
    CHECK(fill_until(&bed, "swept", rc_near_now_us() + 200000));
    wait_until(rc_near_now_us() + 220000);
    CHECK(explain(&bed, "key").is_there && explain(&bed, "key").left_us <= 0);
    drop(&bed, "key", RC_NEAR_PUSH);
    CHECK(went_by(&bed, "key", RC_GONE_EXPIRED));
    for (uint32_t cursor = 1;
         (cursor = rc_near_sweep(bed.near, cursor == 1 ? 0 : cursor, 64)) != 0;)
        continue;
    CHECK(went_by(&bed, "swept", RC_GONE_EXPIRED));
    close_bed(&bed);
}

static void explains_what_had_no_room(void)
{
    struct bed bed;
    static char large[200000], long_key[RC_NEAR_MAX_KEY + 2];
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    memset(large, 'x', sizeof(large) - 1);
    memset(long_key, 'k', sizeof(long_key) - 1);
    CHECK(!fill(&bed, "large", large));
    CHECK(went_by(&bed, "large", RC_GONE_REFUSED));
    CHECK(explain(&bed, long_key).cause == RC_GONE_REFUSED);
    fill_many(&bed, 0, 20000, 0);
    int told = 0, there = 0;
    for (int i = 0; i < 20000; i++) {
        char key[32];
        snprintf(key, sizeof(key), "other:%d", i);
        rc_near_report report = explain(&bed, key);
        there += report.is_there;
        told += report.cause == RC_GONE_EVICTED;
        CHECK(report.cause == RC_GONE_EVICTED || report.cause == RC_GONE_UNKNOWN);
    }
    /* 512 places, which later keys take from earlier ones. */
    CHECK(there > 3000 && told > 300 && told <= 512);
    close_bed(&bed);
}

/* ---- keys that change more often than they are read ------------------------------------------ */

static bool is_avoided(struct bed *bed, const char *key)
{
    return rc_near_avoids(bed->near, rc_near_hash(bed->near, key, strlen(key)));
}

static void avoids_what_changes_more_often_than_it_is_read(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20, 1))
        return;
    for (int i = 0; i < RC_AVOID_LIMIT; i++) {
        CHECK(!is_avoided(&bed, "key"));
        CHECK(fill(&bed, "key", "value"));
        drop(&bed, "key", i % 2 == 0 ? RC_NEAR_PUSH : RC_NEAR_WRITE);
        drop(&bed, "key", RC_NEAR_PUSH); /* nothing stands there: no change of a copy */
        CHECK(fill(&bed, "read", "value") && has(&bed, "read", "value"));
        drop(&bed, "read", RC_NEAR_PUSH);
        CHECK(fill(&bed, "other", "value"));
        drop(&bed, "other", RC_NEAR_UNKEPT); /* it has not changed */
    }
    CHECK(stats_of(&bed)->avoided == 0);
    CHECK(is_avoided(&bed, "key") && !is_avoided(&bed, "read") && !is_avoided(&bed, "other"));
    CHECK(stats_of(&bed)->avoided == 1 && went_by(&bed, "key", RC_GONE_AVOIDED));
    close_bed(&bed);
}

static void tries_again_what_was_avoided(void)
{
    _Atomic uint64_t places[64] = {0};
    struct rc_avoid avoid = {.places = places, .mask = 63, .birth_us = 5};
    uint64_t key = UINT64_C(0x123456789abcdef0), other = key ^ UINT64_C(1) << 60;
    for (int i = 0; i < RC_AVOID_LIMIT; i++)
        rc_avoid_note(&avoid, key, 0, SECOND);
    rc_avoid_note(&avoid, other, 0, SECOND); /* of the same place, which is taken meanwhile */
    CHECK(rc_avoid_is_on(&avoid, key, SECOND) && rc_avoid_is_on(&avoid, key, 10 * SECOND));
    CHECK(!rc_avoid_is_on(&avoid, other, SECOND) && !rc_avoid_is_on(&avoid, key, 12 * SECOND));
    for (int i = 0; i < RC_AVOID_LIMIT / 2; i++) {
        CHECK(!rc_avoid_is_on(&avoid, key, 12 * SECOND));
        rc_avoid_note(&avoid, key, 0, 12 * SECOND);
    }
    CHECK(rc_avoid_is_on(&avoid, key, 12 * SECOND));
    for (int i = 0; i < 100; i++) /* as many are read as are not */
        rc_avoid_note(&avoid, key, (uint32_t)i & 1, 30 * SECOND);
    CHECK(!rc_avoid_is_on(&avoid, key, 30 * SECOND));
    rc_avoid_note(&avoid, other, 0, 30 * SECOND);        /* a key that is not left out gives way */
    atomic_store(&places[(key >> 12) & 63], UINT64_MAX); /* damaged: not for longer than ever */
    CHECK(!rc_avoid_is_on(&avoid, UINT64_MAX, 30 * SECOND));
}

int main(void)
{
    TEST(finds_what_was_filled_until_it_is_dropped);
    TEST(takes_any_bytes_for_a_key);
    TEST(sees_one_key_however_it_is_cut);
    TEST(finds_all_keys_of_a_prefix);
    TEST(gives_back_values_of_every_length);
    TEST(replaces_what_stood_there);
    TEST(refuses_what_would_take_more_than_an_eighth_of_a_stripe);
    TEST(stays_within_its_bytes_and_finds_what_is_used);
    TEST(takes_a_key_it_dropped_for_a_wanted_one);
    TEST(tells_a_time_that_is_not_too_early);
    TEST(serves_nothing_past_its_deadline);
    TEST(sweeps_away_what_is_over);
    TEST(is_stale_beyond_the_horizon);
    TEST(is_stale_once_the_owner_has_a_new_epoch);
    TEST(tells_the_owner_that_somebody_reads);
    TEST(dooms_a_fill_whose_key_was_written_meanwhile);
    TEST(keeps_no_answer_behind_one_that_was_doomed);
    TEST(holds_a_handle_valid_while_only_its_neighbours_change);
    TEST(ends_a_handle_with_its_entry);
    TEST(gives_each_plain_value_a_version);
    TEST(looks_up_as_of_a_moment);
    TEST(looks_up_in_steps);
    TEST(explains_a_copy_as_it_stands);
    TEST(explains_why_a_key_went);
    TEST(explains_what_had_no_room);
    TEST(avoids_what_changes_more_often_than_it_is_read);
    TEST(tries_again_what_was_avoided);
    return test_result();
}
