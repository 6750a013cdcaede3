#include "near/index.h"

#include <string.h>

#include "test/test.h"

enum { BUCKETS = 1000 };

static struct rc_index_bucket buckets[BUCKETS];

/* SplitMix64: the same numbers each time. */
static uint64_t hash_of(uint64_t number)
{
    uint64_t word = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

static void tells_the_places_of_a_tag(void)
{
    struct rc_index_bucket bucket;
    memset(&bucket, 0, sizeof bucket);
    bucket.version = 0x07070707; /* is no tag */
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        bucket.tags[slot] = (uint8_t)(100 + slot);
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        CHECK(rc_index_first(rc_index_matches(&bucket, (uint8_t)(100 + slot))) == slot);
    CHECK(rc_index_matches(&bucket, 7) == 0);
    bucket.tags[0] = bucket.tags[5] = bucket.tags[11] = 0xff;
    CHECK((rc_index_matches(&bucket, 0xff) & 0x821) == 0x821);
    CHECK((rc_index_matches(&bucket, 0xff) >> RC_INDEX_SLOTS) == 0);
}

/* As full as the index of a full region: nearly every entry has a place, and most have it where a
   reader looks first. */
static void puts_most_into_their_first_bucket(void)
{
    uint32_t entries = BUCKETS * RC_INDEX_SLOTS * 3 / 4, first = 0, without = 0;
    memset(buckets, 0, sizeof buckets);
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t hash = hash_of(i);
        struct rc_index_spot room = rc_index_find_room(buckets, BUCKETS, hash);
        if (room.bucket == NULL) {
            without++;
            continue;
        }
        first += room.bucket == rc_index_bucket(buckets, BUCKETS, hash, 0);
        rc_index_put(room, rc_index_tag(hash), i + 1, 0);
        struct rc_index_spot found = rc_index_find_ref(buckets, BUCKETS, hash, i + 1);
        CHECK(found.bucket == room.bucket && found.slot == room.slot);
    }
    CHECK(first >= entries / 4 * 3);
    CHECK(without <= entries / 100);
}

int main(void)
{
    TEST(tells_the_places_of_a_tag);
    TEST(puts_most_into_their_first_bucket);
    return test_result();
}
