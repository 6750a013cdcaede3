#include "base/slot.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

static uint16_t slot_of(const char *key)
{
    return rc_slot(key, strlen(key));
}

static void gives_the_slots_redis_gives(void)
{
    CHECK(rc_crc16("123456789", 9) == 0x31c3);
    CHECK(slot_of("foo") == 12182);
    CHECK(slot_of("bar") == 5061);
    CHECK(slot_of("") == 0);
    CHECK(rc_slot(NULL, 0) == 0);
}

/* As it is defined: bit by bit. */
static uint16_t remainder_of(const char *bytes, size_t len)
{
    unsigned crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned)(unsigned char)bytes[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc << 1 ^ ((crc & 0x8000) != 0 ? 0x1021 : 0)) & 0xffff;
    }
    return (uint16_t)crc;
}

static void hashes_any_bytes_of_any_length(void)
{
    char bytes[64];
    uint64_t random = 1;
    for (int round = 0; round < 4000; round++) {
        size_t len = (size_t)round % sizeof bytes;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)test_below(&random, 256);
        CHECK(rc_crc16(bytes, len) == remainder_of(bytes, len));
    }
}

static void hashes_only_the_first_tag(void)
{
    CHECK(slot_of("{user1000}.following") == slot_of("user1000"));
    CHECK(slot_of("foo{bar}{zap}") == slot_of("bar"));
    CHECK(slot_of("foo{{bar}}zap") == slot_of("{bar"));
}

static void hashes_the_whole_key_where_the_tag_is_empty_or_open(void)
{
    const char *keys[] = {"foo{}{bar}", "{", "}", "}{", "a{b", "a}b", "{}"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        CHECK(slot_of(keys[i]) == rc_crc16(keys[i], strlen(keys[i])) % RC_SLOT_COUNT);
}

static bool helper_is(const char *key, const char *suffix, const char *expected)
{
    struct rc_buf out;
    rc_buf_init(&out);
    bool same = rc_slot_helper_key(&out, key, strlen(key), suffix) == 0 &&
                rc_buf_len(&out) == strlen(expected) &&
                memcmp(rc_buf_head(&out), expected, rc_buf_len(&out)) == 0;
    rc_buf_deinit(&out);
    return same;
}

static void writes_readable_helper_keys(void)
{
    CHECK(helper_is("user:7", ":fence", "{user:7}~:fence"));
    CHECK(helper_is("{user}:7", ":fence", "{user}{user}:7!:fence"));
    CHECK(helper_is("a{b", "", "{a{b}~"));
}

static void appends_helper_keys_behind_what_is_there(void)
{
    struct rc_buf out;
    rc_buf_init(&out);
    CHECK(rc_buf_append(&out, "x", 1) == 0);
    CHECK(rc_slot_helper_key(&out, "k", 1, ":f") == 0);
    CHECK(rc_buf_len(&out) == 7 && memcmp(rc_buf_head(&out), "x{k}~:f", 7) == 0);
    rc_buf_deinit(&out);
}

static void puts_helpers_of_binary_keys_into_their_slot(void)
{
    static const char alphabet[] = "{{{}}}ab0!~^\0\xff";
    struct rc_buf out;
    uint64_t random = 4;
    rc_buf_init(&out);
    for (int round = 0; round < 20000; round++) {
        char key[12];
        size_t len = test_below(&random, sizeof(key) + 1);
        for (size_t i = 0; i < len; i++)
            key[i] = alphabet[test_below(&random, sizeof(alphabet) - 1)];
        rc_buf_clear(&out);
        CHECK(rc_slot_helper_key(&out, key, len, round % 2 ? ":lease" : "}{x}") == 0);
        CHECK(rc_slot(rc_buf_head(&out), rc_buf_len(&out)) == rc_slot(key, len));
    }
    rc_buf_deinit(&out);
}

static void finds_a_number_for_every_slot(void)
{
    struct rc_buf out;
    uint8_t seen[RC_SLOT_COUNT] = {0};
    uint32_t slots = 0;
    rc_buf_init(&out);
    for (uint32_t i = 0; slots < 2000; i++) {
        char key[16];
        int len = snprintf(key, sizeof(key), "}%u", i);
        uint16_t slot = rc_slot(key, (size_t)len);
        if (seen[slot]++)
            continue;
        slots++;
        rc_buf_clear(&out);
        CHECK(rc_slot_helper_key(&out, key, (size_t)len, "") == 0);
        CHECK(rc_slot(rc_buf_head(&out), rc_buf_len(&out)) == slot);
    }
    rc_buf_deinit(&out);
}

struct helper {
    char bytes[40];
    size_t len;
};

static int compare_helpers(const void *a, const void *b)
{
    const struct helper *one = a, *other = b;
    if (one->len != other->len)
        return one->len < other->len ? -1 : 1;
    return memcmp(one->bytes, other->bytes, one->len);
}

/* All keys of up to 4 bytes out of what helper keys are made of. */
static size_t make_keys(struct helper *keys)
{
    static const char alphabet[] = "{}!~^0";
    size_t count = 0, begin = 0;
    keys[count++].len = 0;
    for (int len = 1; len <= 4; len++) {
        size_t end = count;
        for (size_t i = begin; i < end; i++) {
            for (size_t c = 0; c < sizeof(alphabet) - 1; c++) {
                keys[count] = keys[i];
                keys[count].bytes[keys[count].len++] = alphabet[c];
                count++;
            }
        }
        begin = end;
    }
    return count;
}

static void never_gives_two_pairs_the_same_helper(void)
{
    enum { KEYS = 1 + 6 + 36 + 216 + 1296, ROUNDS = 2 };
    static const char *suffixes[] = {"", "0", "{", "}", "{0}", "0}"};
    static struct helper keys[KEYS * (ROUNDS + 1)], helpers[KEYS * ROUNDS * 6];
    struct rc_buf out;
    size_t count = 0, key_count = make_keys(keys);
    CHECK(key_count == KEYS);
    rc_buf_init(&out);
    for (size_t i = 0; i < KEYS * ROUNDS; i++) {
        for (size_t s = 0; s < 6; s++) {
            struct helper *helper = &helpers[count++];
            rc_buf_clear(&out);
            if (!CHECK(rc_slot_helper_key(&out, keys[i].bytes, keys[i].len, suffixes[s]) == 0))
                exit(1);
            helper->len = rc_buf_len(&out);
            memcpy(helper->bytes, rc_buf_head(&out), helper->len);
            /* The second round's keys are helpers of the first's, but for those it had. */
            if (i < KEYS && s == 0) {
                keys[key_count] = *helper;
                key_count += helper->len > 4;
            }
        }
        if (i + 1 == key_count)
            break;
    }
    qsort(helpers, count, sizeof(*helpers), compare_helpers);
    size_t equal = 0;
    for (size_t i = 1; i < count; i++)
        equal += compare_helpers(&helpers[i - 1], &helpers[i]) == 0;
    CHECK(equal == 0);
    rc_buf_deinit(&out);
}

/* "{n}^" of the empty key and "{n}~" of the key n. */
static void keeps_the_empty_key_apart_from_its_number(void)
{
    struct rc_buf empty, number;
    rc_buf_init(&empty);
    rc_buf_init(&number);
    CHECK(rc_slot_helper_key(&empty, NULL, 0, "") == 0 &&
          rc_slot_helper_key(&number, rc_buf_head(&empty) + 1, rc_buf_len(&empty) - 3, "") == 0 &&
          rc_buf_len(&empty) == rc_buf_len(&number) &&
          memcmp(rc_buf_head(&empty), rc_buf_head(&number), rc_buf_len(&empty)) != 0);
    rc_buf_deinit(&empty);
    rc_buf_deinit(&number);
}

int main(void)
{
    TEST(gives_the_slots_redis_gives);
    TEST(hashes_any_bytes_of_any_length);
    TEST(hashes_only_the_first_tag);
    TEST(hashes_the_whole_key_where_the_tag_is_empty_or_open);
    TEST(writes_readable_helper_keys);
    TEST(appends_helper_keys_behind_what_is_there);
    TEST(puts_helpers_of_binary_keys_into_their_slot);
    TEST(finds_a_number_for_every_slot);
    TEST(never_gives_two_pairs_the_same_helper);
    TEST(keeps_the_empty_key_apart_from_its_number);
    return test_result();
}
