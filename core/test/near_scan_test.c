#include "near/near.h"

#include <stdlib.h>
#include <string.h>

#include "test/test.h"

enum { SECOND = 1000000 };

struct bed {
    struct rc_near *near;
    struct rc_near_owner *owner;
    rc_near_stats stats;
    struct rc_buf keys;
};

static bool open_bed(struct bed *bed, size_t bytes)
{
    struct rc_near_options options = {.bytes = bytes, .stripes = 1};
    const char *why = "";
    memset(bed, 0, sizeof(*bed));
    rc_buf_init(&bed->keys);
    if (!CHECK(rc_near_open(&bed->near, &options, &why) == 0))
        return false;
    bed->owner = rc_near_add_owner(bed->near, NULL);
    rc_near_set_asof(bed->owner, rc_near_now_us());
    return CHECK(bed->owner != NULL);
}

static void close_bed(struct bed *bed)
{
    rc_buf_deinit(&bed->keys);
    rc_near_remove_owner(bed->near, bed->owner);
    rc_near_close(bed->near);
}

static const char version[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct rc_near_entry entry_of(const struct bed *bed, const char *key)
{
    static const char value[100] = "value";
    struct rc_near_entry entry = {.hash = rc_near_hash(bed->near, key, strlen(key)),
                                  .key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = sizeof(value),
                                  .kind = RC_KIND_VALUE,
                                  .deadline_us = INT64_MAX};
    memcpy(entry.version, version, sizeof(version));
    return entry;
}

static bool fill_entry(struct bed *bed, const struct rc_near_entry *entry)
{
    return rc_near_fill(bed->near, bed->owner, entry,
                        rc_near_write_version(bed->near, entry->hash));
}

static int look(struct bed *bed, const char *key)
{
    char buffer[200];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    return rc_near_lookup(bed->near, NULL, 0, key, strlen(key), SECOND, &value);
}

static void fill_keys(struct bed *bed, const char *prefix, int count, uint8_t group)
{
    char key[40];
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%s%d", prefix, i);
        struct rc_near_entry entry = entry_of(bed, key);
        entry.group = group;
        CHECK(fill_entry(bed, &entry));
    }
}

static int count_keys(struct bed *bed, const char *prefix, int count)
{
    char key[40];
    int found = 0;
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%s%d", prefix, i);
        found += look(bed, key) != RC_NEAR_MISS;
    }
    return found;
}

static const rc_near_stats *stats_of(struct bed *bed)
{
    rc_near_read_stats(bed->near, &bed->stats);
    return &bed->stats;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void finds_a_group_by_its_prefix(void)
{
    struct bed bed;
    char prefix[100];
    memset(prefix, 'x', sizeof(prefix));
    if (!open_bed(&bed, 1 << 20))
        return;
    CHECK(rc_near_group(bed.near, "none:", 5, 0, 0) == 0);
    uint8_t first = rc_near_group(bed.near, "a:", 2, 1000, 0);
    CHECK(first != 0 && rc_near_group(bed.near, "a:", 2, 0, 2000) == first);
    CHECK(rc_near_group(bed.near, "b:", 2, 1000, 0) != first);
    uint8_t longer = rc_near_group(bed.near, prefix, 99, 1000, 0);
    CHECK(rc_near_group(bed.near, prefix, 100, 1000, 0) != longer);
    CHECK(rc_near_group(bed.near, prefix, 99, 1000, 0) == longer);
    for (int i = 0; i < 100; i++)
        rc_near_group(bed.near, (const char *)&i, sizeof(i), 1, 1);
    CHECK(rc_near_group(bed.near, "full:", 5, 1, 1) == 0);
    CHECK(rc_near_group(bed.near, "a:", 2, 0, 2000) == first);
    close_bed(&bed);
}

static void holds_a_group_to_its_most_bytes(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20))
        return;
    uint8_t group = rc_near_group(bed.near, "a:", 2, 0, 100000);
    fill_keys(&bed, "b:", 1000, 0);
    fill_keys(&bed, "a:", 5000, group);
    CHECK(count_keys(&bed, "b:", 1000) == 1000);
    CHECK(stats_of(&bed)->entries > 1500 && bed.stats.bytes <= 1000 * 144 + 100000);
    char large[60000] = "";
    struct rc_near_entry entry = entry_of(&bed, "a:large");
    entry.group = group;
    entry.value = large;
    entry.value_len = sizeof(large);
    CHECK(fill_entry(&bed, &entry) && look(&bed, "a:large") == RC_NEAR_GROW);
    CHECK(stats_of(&bed)->bytes <= 1000 * 144 + 100000);
    CHECK(rc_near_group(bed.near, "a:", 2, 0, 50000) == group); /* a bound may move */
    CHECK(!fill_entry(&bed, &entry));
    fill_keys(&bed, "a:", 10, group);
    CHECK(stats_of(&bed)->bytes <= 1000 * 144 + 50000);
    close_bed(&bed);
}

static void keeps_a_groups_least_bytes_while_others_press(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20))
        return;
    uint8_t group = rc_near_group(bed.near, "a:", 2, 150000, 0);
    fill_keys(&bed, "a:", 1000, group);
    fill_keys(&bed, "b:", 30000, 0);
    CHECK(count_keys(&bed, "a:", 1000) == 1000);
    /* Of what is above that, the group with the most loses first: until both have the same. */
    fill_keys(&bed, "a:", 5000, group);
    fill_keys(&bed, "b:", 30000, 0);
    int left = count_keys(&bed, "a:", 5000);
    CHECK(left >= 1000 && left < 4500);
    close_bed(&bed);
}

/* ---- revalidation ---------------------------------------------------------------------------- */

struct claims {
    struct rc_near_claim items[RC_NEAR_CLAIMS];
    const struct rc_near_owner *source;
    int found[4]; /* by heat */
    int wrong;
};

/* As the engine does it: hottest first, some buckets at a time. */
static void collect_of(struct bed *bed, const struct rc_near_owner *source, struct claims *claims)
{
    memset(claims, 0, sizeof(*claims));
    claims->source = source;
    for (int heat = 3; heat >= 0; heat--) {
        uint32_t cursor = 0;
        do {
            rc_buf_clear(&bed->keys);
            size_t count = rc_near_claims(bed->near, bed->owner, claims->source, heat, &cursor, 50,
                                          claims->items, &bed->keys);
            for (size_t i = 0; i < count; i++) {
                const char *key = rc_buf_head(&bed->keys) + claims->items[i].key_at;
                claims->wrong += memcmp(claims->items[i].version, version, 8) != 0 ||
                                 memcmp(key, "key:", 4) != 0 || claims->items[i].key_len < 5;
            }
            claims->found[heat] += (int)count;
        } while (cursor != 0);
    }
}

static void collect(struct bed *bed, struct claims *claims)
{
    collect_of(bed, NULL, claims);
}

static void claims_what_an_earlier_epoch_filled_by_heat(void)
{
    struct bed bed;
    struct claims claims;
    char key[40];
    if (!open_bed(&bed, 1 << 20))
        return;
    fill_keys(&bed, "key:", 500, 0);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "key:%d", i);
        for (int reads = 0; reads < (i < 30 ? 5 : 2); reads++)
            CHECK(look(&bed, key) == RC_NEAR_HIT);
    }
    collect(&bed, &claims);
    CHECK(claims.found[0] + claims.found[1] + claims.found[2] + claims.found[3] == 0);
    rc_near_renew_owner(bed.owner);
    struct rc_near_owner *other = rc_near_add_owner(bed.near, NULL);
    struct rc_near_entry entry = entry_of(&bed, "other");
    CHECK(rc_near_fill(bed.near, other, &entry, rc_near_write_version(bed.near, entry.hash)));
    rc_near_renew_owner(other);
    collect(&bed, &claims);
    CHECK(claims.found[3] == 30 && claims.found[2] == 70 && claims.found[0] == 400);
    CHECK(claims.wrong == 0);
    close_bed(&bed);
}

static int32_t cause_of(struct bed *bed, const char *key)
{
    rc_near_report report;
    rc_near_explain(bed->near, key, strlen(key), &report);
    return report.cause;
}

static void drops_what_cannot_be_revalidated(void)
{
    struct bed bed;
    struct claims claims;
    if (!open_bed(&bed, 1 << 20))
        return;
    struct rc_near_entry entry = entry_of(&bed, "key:plain");
    entry.kind = RC_KIND_PLAIN;
    CHECK(fill_entry(&bed, &entry));
    fill_keys(&bed, "key:", 10, 0);
    rc_near_renew_owner(bed.owner);
    collect(&bed, &claims);
    CHECK(claims.found[0] == 10 && look(&bed, "key:plain") == RC_NEAR_MISS);
    CHECK(cause_of(&bed, "key:plain") == RC_GONE_DOUBTFUL);
    CHECK(stats_of(&bed)->entries == 10);
    close_bed(&bed);
}

static bool confirm(struct bed *bed, const char *key, const char *nonce, int64_t deadline_us)
{
    return rc_near_confirm(bed->near, bed->owner, NULL, key, strlen(key), nonce, deadline_us);
}

static void serves_again_what_is_confirmed(void)
{
    struct bed bed;
    char buffer[200];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    if (!open_bed(&bed, 1 << 20))
        return;
    fill_keys(&bed, "key:", 3, 0);
    CHECK(rc_near_lookup(bed.near, "key:", 4, "0", 1, SECOND, &value) == RC_NEAR_HIT);
    CHECK(!confirm(&bed, "key:0", version, INT64_MAX)); /* of this very epoch */
    rc_near_renew_owner(bed.owner);
    CHECK(!rc_near_is_valid(bed.near, &value.handle, SECOND));
    CHECK(!confirm(&bed, "key:1", "\1\2\3\4\5\6\7\7", INT64_MAX));
    CHECK(!confirm(&bed, "key:9", version, INT64_MAX));
    CHECK(!confirm(&bed, "key:0", version, rc_near_now_us() - SECOND));
    CHECK(look(&bed, "key:0") == RC_NEAR_STALE);
    int64_t deadline_us = rc_near_now_us() + 100 * (int64_t)SECOND;
    CHECK(confirm(&bed, "key:0", version, deadline_us));
    CHECK(look(&bed, "key:0") == RC_NEAR_HIT && look(&bed, "key:1") == RC_NEAR_STALE);
    CHECK(rc_near_is_valid(bed.near, &value.handle, SECOND)); /* it is the same entry still */
    CHECK(value.handle.deadline_us <= deadline_us &&
          value.handle.deadline_us > deadline_us - SECOND);
    CHECK(stats_of(&bed)->revalidations == 1);
    /* Another owner's entries are not this one's to confirm. */
    struct rc_near_owner *other = rc_near_add_owner(bed.near, NULL);
    CHECK(!rc_near_confirm(bed.near, other, NULL, "key:1", 5, version, INT64_MAX));
    close_bed(&bed);
}

static void drops_a_claim_but_nothing_newer(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20))
        return;
    fill_keys(&bed, "key:", 2, 0);
    rc_near_drop_claim(bed.near, bed.owner, NULL, "key:0", 5);
    CHECK(look(&bed, "key:0") == RC_NEAR_HIT);
    rc_near_renew_owner(bed.owner);
    fill_keys(&bed, "key:", 1, 0);
    rc_near_drop_claim(bed.near, bed.owner, NULL, "key:0", 5);
    rc_near_drop_claim(bed.near, bed.owner, NULL, "key:1", 5);
    CHECK(look(&bed, "key:0") == RC_NEAR_HIT && look(&bed, "key:1") == RC_NEAR_MISS);
    CHECK(cause_of(&bed, "key:1") == RC_GONE_DOUBTFUL);
    CHECK(cause_of(&bed, "key:0") == RC_GONE_UNKNOWN);
    close_bed(&bed);
}

/* Two workers of one machine: `leaving` has filled, and bed.owner stays. */
static void takes_over_what_another_owner_offers(void)
{
    struct bed bed;
    struct claims claims;
    if (!open_bed(&bed, 1 << 20))
        return;
    struct rc_near_owner *leaving = bed.owner, *stays = rc_near_add_owner(bed.near, NULL);
    rc_near_set_asof(stays, rc_near_now_us());
    fill_keys(&bed, "key:", 20, 0);
    bed.owner = stays;
    uint32_t offers = rc_near_offers(bed.near);
    CHECK(rc_near_take_offer(bed.near, stays) == NULL);
    rc_near_offer(bed.near, leaving);
    CHECK(rc_near_offers(bed.near) == offers + 1 && !rc_near_is_offer_ended(leaving));
    CHECK(rc_near_take_offer(bed.near, leaving) == NULL); /* one's own is none */
    CHECK(rc_near_take_offer(bed.near, stays) == leaving);
    CHECK(rc_near_take_offer(bed.near, stays) == NULL); /* it is taken */
    collect_of(&bed, leaving, &claims);
    CHECK(claims.found[0] == 20 && claims.wrong == 0);
    CHECK(rc_near_confirm(bed.near, stays, leaving, "key:0", 5, version, INT64_MAX));
    CHECK(!rc_near_confirm(bed.near, stays, leaving, "key:0", 5, version, INT64_MAX)); /* is ours */
    CHECK(!rc_near_confirm(bed.near, stays, leaving, "key:1", 5, "\1\2\3\4\5\6\7\7", INT64_MAX));
    rc_near_drop_claim(bed.near, stays, leaving, "key:2", 5);
    CHECK(look(&bed, "key:1") == RC_NEAR_HIT && look(&bed, "key:2") == RC_NEAR_MISS);
    rc_near_end_offer(leaving);
    CHECK(rc_near_is_offer_ended(leaving));
    rc_near_remove_owner(bed.near, leaving);
    CHECK(look(&bed, "key:0") == RC_NEAR_HIT && look(&bed, "key:1") == RC_NEAR_STALE);
    CHECK(
        !rc_near_confirm(bed.near, stays, leaving, "key:1", 5, version, INT64_MAX)); /* too late */
    close_bed(&bed);
}

static void leaves_plain_values_to_the_owner_that_offers(void)
{
    struct bed bed;
    struct claims claims;
    if (!open_bed(&bed, 1 << 20))
        return;
    struct rc_near_owner *leaving = bed.owner, *stays = rc_near_add_owner(bed.near, NULL);
    struct rc_near_entry entry = entry_of(&bed, "key:plain");
    entry.kind = RC_KIND_PLAIN;
    CHECK(fill_entry(&bed, &entry));
    bed.owner = stays;
    collect_of(&bed, leaving, &claims);
    CHECK(claims.found[0] == 0 && look(&bed, "key:plain") == RC_NEAR_HIT);
    rc_near_remove_owner(bed.near, leaving);
    close_bed(&bed);
}

static void takes_over_what_is_offered_of_the_same_server_alone(void)
{
    struct bed bed;
    if (!open_bed(&bed, 1 << 20))
        return;
    struct rc_near_owner *leaving = bed.owner, *stays = rc_near_add_owner(bed.near, NULL);
    rc_near_name_owner(leaving, 7001);
    rc_near_name_owner(stays, 7002);
    rc_near_offer(bed.near, leaving);
    CHECK(rc_near_take_offer(bed.near, stays) == NULL);
    rc_near_name_owner(stays, 7001);
    CHECK(rc_near_take_offer(bed.near, stays) == leaving);
    rc_near_remove_owner(bed.near, stays);
    close_bed(&bed);
}

static void drops_the_entries_of_slots(void)
{
    enum { KEYS = 500 };
    static struct rc_slot_set slots;
    struct bed bed;
    char key[40];
    int wrong = 0, gone = 0, told = 0;
    if (!open_bed(&bed, 1 << 20))
        return;
    fill_keys(&bed, "key:", KEYS, 0);
    memset(&slots, 0, sizeof slots);
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT; slot += 3)
        rc_slot_set_add(&slots, slot);
    uint32_t cursor = 0, turns = 0;
    do
        cursor = rc_near_drop_slots(bed.near, &slots, cursor, 16);
    while (cursor != 0 && ++turns < 10000);
    CHECK(cursor == 0 && turns > 1);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "key:%d", i);
        bool is_gone = look(&bed, key) == RC_NEAR_MISS;
        wrong += is_gone != (rc_slot(key, strlen(key)) % 3 == 0);
        told += is_gone && cause_of(&bed, key) == RC_GONE_MOVED;
        gone += is_gone;
    }
    CHECK(wrong == 0 && gone > KEYS / 6 && gone < KEYS / 2);
    CHECK(told > gone / 2); /* of the others later keys have taken the places */
    close_bed(&bed);
}

int main(void)
{
    TEST(takes_over_what_is_offered_of_the_same_server_alone);
    TEST(drops_the_entries_of_slots);
    TEST(finds_a_group_by_its_prefix);
    TEST(holds_a_group_to_its_most_bytes);
    TEST(keeps_a_groups_least_bytes_while_others_press);
    TEST(claims_what_an_earlier_epoch_filled_by_heat);
    TEST(drops_what_cannot_be_revalidated);
    TEST(serves_again_what_is_confirmed);
    TEST(drops_a_claim_but_nothing_newer);
    TEST(takes_over_what_another_owner_offers);
    TEST(leaves_plain_values_to_the_owner_that_offers);
    return test_result();
}
