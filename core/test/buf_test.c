#include "base/buf.h"

#include <string.h>

#include "redcache.h"
#include "test/test.h"

static void is_empty_without_memory_after_init(void)
{
    struct rc_buf buf;
    rc_buf_init(&buf);
    CHECK(rc_buf_len(&buf) == 0);
    CHECK(rc_buf_head(&buf) == NULL);
    CHECK(rc_buf_append(&buf, NULL, 0) == 0);
    CHECK(buf.room == 0);
    rc_buf_consume(&buf, 0);
    rc_buf_trim(&buf, 0);
    rc_buf_deinit(&buf);
}

static void gives_back_what_was_appended_in_order(void)
{
    struct rc_buf buf;
    uint64_t random = 1;
    unsigned char next_in = 0, next_out = 0;
    bool in_order = true;
    rc_buf_init(&buf);
    for (int round = 0; round < 20000; round++) {
        char bytes[700];
        size_t len = test_below(&random, sizeof(bytes));
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)next_in++;
        CHECK(rc_buf_append(&buf, bytes, len) == 0);
        size_t taken = test_below(&random, (uint32_t)rc_buf_len(&buf) + 1);
        for (size_t i = 0; i < taken; i++)
            in_order = in_order && (unsigned char)rc_buf_head(&buf)[i] == next_out++;
        rc_buf_consume(&buf, taken);
    }
    CHECK(in_order);
    CHECK((unsigned char)(next_in - next_out) == (unsigned char)rc_buf_len(&buf));
    rc_buf_deinit(&buf);
}

static void reuses_the_consumed_room(void)
{
    struct rc_buf buf;
    char bytes[100] = {0};
    rc_buf_init(&buf);
    for (int i = 0; i < 1000; i++) {
        CHECK(rc_buf_append(&buf, bytes, sizeof(bytes)) == 0);
        if (i > 0)
            rc_buf_consume(&buf, sizeof(bytes));
    }
    CHECK(buf.room <= 512);
    rc_buf_deinit(&buf);
}

static void refuses_an_impossible_size_and_stays_as_it_was(void)
{
    struct rc_buf buf;
    rc_buf_init(&buf);
    CHECK(rc_buf_append(&buf, "abc", 3) == 0);
    CHECK(rc_buf_reserve(&buf, SIZE_MAX) == RC_ERR_NOMEM);
    CHECK(rc_buf_reserve(&buf, SIZE_MAX - 3) == RC_ERR_NOMEM);
    CHECK(rc_buf_len(&buf) == 3 && memcmp(rc_buf_head(&buf), "abc", 3) == 0);
    rc_buf_deinit(&buf);
}

static void trims_only_large_room_and_only_when_empty(void)
{
    struct rc_buf buf;
    rc_buf_init(&buf);
    CHECK(rc_buf_reserve(&buf, 5000) == 0);
    CHECK(rc_buf_append(&buf, "x", 1) == 0);
    rc_buf_trim(&buf, 1000);
    CHECK(buf.room >= 5000);
    rc_buf_clear(&buf);
    rc_buf_trim(&buf, 100000);
    CHECK(buf.room >= 5000);
    rc_buf_trim(&buf, 1000);
    CHECK(buf.room == 0 && buf.bytes == NULL);
    rc_buf_deinit(&buf);
}

static void swaps_contents(void)
{
    struct rc_buf a, b;
    rc_buf_init(&a);
    rc_buf_init(&b);
    CHECK(rc_buf_append(&a, "ab", 2) == 0);
    rc_buf_swap(&a, &b);
    CHECK(rc_buf_len(&a) == 0);
    CHECK(rc_buf_len(&b) == 2 && memcmp(rc_buf_head(&b), "ab", 2) == 0);
    rc_buf_deinit(&a);
    rc_buf_deinit(&b);
}

int main(void)
{
    TEST(is_empty_without_memory_after_init);
    TEST(gives_back_what_was_appended_in_order);
    TEST(reuses_the_consumed_room);
    TEST(refuses_an_impossible_size_and_stays_as_it_was);
    TEST(trims_only_large_room_and_only_when_empty);
    TEST(swaps_contents);
    return test_result();
}
