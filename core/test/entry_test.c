#include "engine/entry.h"

#include <string.h>

#include "test/test.h"

static void reads_what_it_wrote(void)
{
    char bytes[RC_ENTRY_SIZE + 3];
    rc_entry entry = {.kind = RC_KIND_VALUE,
                      .codec = 7,
                      .entry_flags = 0x41,
                      .schema = 0xFEDC,
                      .stale_ms = 0xFFFFFFFF,
                      .load_ms = 0x80000001};
    rc_result result = {.status = -5};
    rc_entry_write(bytes, &entry, "\x01\x02\0\xFF\x05\x06\x07\x08");
    memcpy(bytes + RC_ENTRY_SIZE, "a\0b", 3);
    rc_entry_read(&result, bytes, sizeof bytes);
    CHECK(result.kind == RC_KIND_VALUE && result.codec == 7 && result.entry_flags == 0x41);
    CHECK(result.schema == 0xFEDC && result.stale_ms == 0xFFFFFFFF && result.load_ms == 0x80000001);
    CHECK(memcmp(result.version, "\x01\x02\0\xFF\x05\x06\x07\x08", RC_NONCE_SIZE) == 0);
    CHECK(result.len == 3 && memcmp(result.data, "a\0b", 3) == 0);
    CHECK(result.status == -5); /* not its business */
}

static void takes_what_has_no_header_for_a_plain_value(void)
{
    const char *plain[] = {"", "a", "some text that is longer than a header", "\xfa\x01\x01"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        rc_result result = {.codec = 9, .stale_ms = 5};
        rc_entry_read(&result, plain[i], strlen(plain[i]));
        CHECK(result.kind == RC_KIND_PLAIN && result.codec == 0 && result.stale_ms == 0);
        CHECK(result.data == plain[i] && result.len == strlen(plain[i]));
    }
    char bytes[RC_ENTRY_SIZE];
    rc_result result = {0};
    rc_entry_write_kind(bytes, RC_KIND_VALUE, 0, "12345678");
    rc_entry_read(&result, bytes, RC_ENTRY_SIZE - 1);
    CHECK(result.kind == RC_KIND_PLAIN && result.len == RC_ENTRY_SIZE - 1);
}

static void knows_that_it_does_not_know(void)
{
    char bytes[RC_ENTRY_SIZE + 1] = "";
    rc_result result = {0};
    rc_entry_write_kind(bytes, RC_KIND_VALUE, 0, "12345678");
    bytes[1] = RC_ENTRY_VERSION + 1;
    rc_entry_read(&result, bytes, RC_ENTRY_SIZE);
    CHECK(result.kind == RC_KIND_UNKNOWN && result.len == RC_ENTRY_SIZE);
    for (int kind = 0; kind < 256; kind++) {
        rc_entry_write_kind(bytes, (uint8_t)kind, 0, "12345678");
        rc_entry_read(&result, bytes, RC_ENTRY_SIZE);
        bool known = kind >= RC_KIND_VALUE && kind <= RC_KIND_LEASE;
        CHECK(result.kind == (known ? kind : RC_KIND_UNKNOWN));
    }
    rc_entry_write_kind(bytes, RC_KIND_LEASE, 0, "12345678");
    rc_entry_read(&result, bytes, sizeof bytes); /* a lease is a header alone */
    CHECK(result.kind == RC_KIND_UNKNOWN);
}

static void an_absent_entry_leaves_nothing_of_the_last_one(void)
{
    char bytes[RC_ENTRY_SIZE];
    rc_result result = {0};
    rc_entry_write_kind(bytes, RC_KIND_ERROR, RC_ENTRY_STICKY, "12345678");
    rc_entry_read(&result, bytes, sizeof bytes);
    CHECK(result.kind == RC_KIND_ERROR && result.entry_flags == RC_ENTRY_STICKY);
    rc_entry_read(&result, NULL, 0);
    CHECK(result.kind == RC_KIND_NONE && result.entry_flags == 0);
    CHECK(result.data == NULL && result.len == 0);
    CHECK(memcmp(result.version, "\0\0\0\0\0\0\0\0", RC_NONCE_SIZE) == 0);
}

static void is_never_text(void)
{
    char bytes[RC_ENTRY_SIZE];
    rc_entry_write_kind(bytes, RC_KIND_VALUE, 0, "12345678");
    CHECK((uint8_t)bytes[0] >= 0xF8); /* UTF-8 has no such byte */
}

static void a_copy_ends_before_its_entry_and_at_its_soft_expiry(void)
{
    rc_result entry = {.ttl_ms = 5000};
    CHECK(rc_entry_deadline(&entry, 1000000) <= 6000000);
    CHECK(rc_entry_deadline(&entry, 1000000) >= 5990000);
    entry.stale_ms = 4000;
    CHECK(rc_entry_deadline(&entry, 1000000) <= 2000000);
    entry.stale_ms = 5000;
    CHECK(rc_entry_deadline(&entry, 1000000) == 0);
    entry.ttl_ms = -2; /* gone between the two answers */
    CHECK(rc_entry_deadline(&entry, 1000000) == 0);
    entry.ttl_ms = -1;
    CHECK(rc_entry_deadline(&entry, 1000000) == INT64_MAX);
    entry = (rc_result){.ttl_ms = INT64_MAX};
    CHECK(rc_entry_deadline(&entry, 1000000) == INT64_MAX);
}

static void a_copy_that_its_readers_judge_ends_with_its_entry(void)
{
    rc_result entry = {.ttl_ms = 5000, .stale_ms = 4000, .entry_flags = RC_ENTRY_EXTRA};
    CHECK(rc_entry_deadline(&entry, 1000000) <= 6000000);
    CHECK(rc_entry_deadline(&entry, 1000000) >= 5990000);
    entry.ttl_ms = 1; /* as long as the answer may have been under way */
    CHECK(rc_entry_deadline(&entry, 1000000) <= 1000000);
    entry.ttl_ms = 0;
    CHECK(rc_entry_deadline(&entry, 1000000) == 0);
}

static void a_pttl_that_redis_never_says_ends_the_copy(void)
{
    rc_result entry = {.ttl_ms = INT64_MIN, .stale_ms = UINT32_MAX};
    CHECK(rc_entry_deadline(&entry, 1000000) == 0);
}

int main(void)
{
    TEST(a_copy_ends_before_its_entry_and_at_its_soft_expiry);
    TEST(a_copy_that_its_readers_judge_ends_with_its_entry);
    TEST(a_pttl_that_redis_never_says_ends_the_copy);
    TEST(reads_what_it_wrote);
    TEST(takes_what_has_no_header_for_a_plain_value);
    TEST(knows_that_it_does_not_know);
    TEST(an_absent_entry_leaves_nothing_of_the_last_one);
    TEST(is_never_text);
    return test_result();
}
