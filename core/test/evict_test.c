#include "near/evict.h"

#include <stdlib.h>
#include <string.h>

#include "near/near_own.h"
#include "test/test.h"

enum { SECOND = 1000000 };

static _Atomic int64_t now_us;
static struct rc_near *near;
static struct rc_near_owner *owner;
static rc_near_stats stats;

static void set_up(size_t bytes)
{
    /* The hash multiplies by it: small numbers would not spread the keys. */
    static const struct rc_mix_seed seed = {
        {0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0x2545f4914f6cdd1d}};
    struct rc_near_options options = {
        .bytes = bytes, .stripes = 1, .seed = &seed, .clock = &now_us};
    const char *why;
    atomic_store(&now_us, 1000 * INT64_C(1000000));
    if (!CHECK(rc_near_open(&near, &options, &why) == 0))
        exit(1);
    owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, atomic_load(&now_us));
}

static void take_down(void)
{
    rc_near_remove_owner(near, owner);
    rc_near_close(near);
}

static const rc_near_stats *read_stats(void)
{
    rc_near_read_stats(near, &stats);
    return &stats;
}

static struct rc_near_entry entry_of(const char *key, size_t value_len)
{
    static const char value[2000];
    return (struct rc_near_entry){.hash = rc_near_hash(near, key, strlen(key)),
                                  .key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = value_len,
                                  .kind = RC_KIND_VALUE,
                                  .deadline_us = INT64_MAX};
}

static bool fill_entry(const struct rc_near_entry *entry)
{
    return rc_near_fill(near, owner, entry, rc_near_write_version(near, entry->hash));
}

static bool is_there(const char *key)
{
    char buffer[2000];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    return rc_near_lookup(near, NULL, 0, key, strlen(key), SECOND, &value) == RC_NEAR_HIT;
}

/* Other keys, until something has to leave. */
static void press(uint64_t evictions)
{
    char key[32];
    for (int i = 0; i < 100000 && read_stats()->evictions < evictions; i++) {
        snprintf(key, sizeof key, "other:%d", i);
        struct rc_near_entry entry = entry_of(key, 1000);
        CHECK(fill_entry(&entry));
    }
}

static void what_is_over_leaves_without_counting_as_evicted(void)
{
    set_up(256 * 1024);
    struct rc_near_entry entry = entry_of("short", 1000);
    entry.deadline_us = atomic_load(&now_us) + SECOND / 2;
    CHECK(fill_entry(&entry) && is_there("short"));
    atomic_fetch_add(&now_us, SECOND);
    press(1);
    CHECK(read_stats()->expirations == 1 && stats.evictions == 1);
    take_down();
}

/* Whether both places of the one entry are places of the other. */
static bool shares_buckets(const struct rc_near_entry *one, const struct rc_near_entry *other)
{
    const struct rc_stripe *stripe = &near->region.stripes[0];
    uint32_t count = stripe->shape->bucket_count;
    const struct rc_index_bucket *first = rc_index_bucket(stripe->buckets, count, other->hash, 0);
    const struct rc_index_bucket *second = rc_index_bucket(stripe->buckets, count, other->hash, 1);
    for (int choice = 0; choice < 2; choice++) {
        const struct rc_index_bucket *bucket =
            rc_index_bucket(stripe->buckets, count, one->hash, choice);
        if (bucket != first && bucket != second)
            return false;
    }
    return true;
}

/* Two buckets have 24 places: who is read stays, whatever else belongs in them. */
static void a_key_that_is_read_keeps_its_place_in_a_full_bucket(void)
{
    char key[32];
    uint64_t fills = 1;
    set_up(64 * 1024);
    struct rc_near_entry wanted = entry_of("wanted", 10);
    CHECK(fill_entry(&wanted) && is_there("wanted"));
    for (int i = 0; fills < 100; i++) {
        snprintf(key, sizeof key, "other:%d", i);
        struct rc_near_entry entry = entry_of(key, 10);
        if (!shares_buckets(&entry, &wanted))
            continue;
        CHECK(fill_entry(&entry) && is_there(key) && is_there("wanted"));
        fills++;
    }
    CHECK(read_stats()->entries <= 24 && stats.entries + stats.evictions == fills);
    take_down();
}

/* The index is made for entries of a common size: there can be more tiny ones than it
   has places. */
static void tiny_entries_leave_for_want_of_a_place(void)
{
    char key[32];
    set_up(256 * 1024);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "%d", i);
        struct rc_near_entry entry = entry_of(key, 0);
        CHECK(fill_entry(&entry));
    }
    uint64_t most = near->region.stripes[0].shape->max_entries;
    CHECK(read_stats()->entries <= most && stats.entries > most - most / 20);
    CHECK(stats.bytes < stats.capacity / 2 && stats.entries + stats.evictions == 5000);
    CHECK(is_there("4999"));
    take_down();
}

/* It has most of the room, and so would be the first to give some of it up. */
static void what_is_kept_for_a_group_stays_while_others_press(void)
{
    enum { KEPT = 150 };
    char key[32];
    int kept = 0;
    set_up(256 * 1024);
    uint8_t group = rc_near_group(near, "group", 5, 180 * 1024, 0);
    for (int i = 0; i < KEPT; i++) {
        snprintf(key, sizeof key, "kept:%d", i);
        struct rc_near_entry entry = entry_of(key, 1000);
        entry.group = group;
        CHECK(fill_entry(&entry));
    }
    press(1000);
    for (int i = 0; i < KEPT; i++) {
        snprintf(key, sizeof key, "kept:%d", i);
        kept += is_there(key);
    }
    CHECK(kept == KEPT);
    take_down();
}

static void a_group_never_has_more_than_its_most(void)
{
    char key[32];
    set_up(256 * 1024);
    uint8_t group = rc_near_group(near, "group", 5, 0, 8 * 1024);
    struct rc_near_entry large = entry_of("large", 1500);
    large.group = rc_near_group(near, "small", 5, 0, 1000);
    CHECK(!fill_entry(&large) && read_stats()->refusals == 1);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key:%d", i);
        struct rc_near_entry entry = entry_of(key, 1000);
        entry.group = group;
        CHECK(fill_entry(&entry) && read_stats()->bytes <= 8 * 1024);
    }
    CHECK(is_there("key:99") && !is_there("key:0") && stats.entries >= 7);
    take_down();
}

int main(void)
{
    TEST(what_is_over_leaves_without_counting_as_evicted);
    TEST(a_key_that_is_read_keeps_its_place_in_a_full_bucket);
    TEST(tiny_entries_leave_for_want_of_a_place);
    TEST(what_is_kept_for_a_group_stays_while_others_press);
    TEST(a_group_never_has_more_than_its_most);
    return test_result();
}
