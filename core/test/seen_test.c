#include "base/seen.h"

#include <stdlib.h>
#include <string.h>

#include "test/test.h"

static const struct rc_seed SEED = {{1, 2}};

static int meet_number(struct rc_seen *seen, uint32_t number)
{
    return rc_seen_meet(seen, (const char *)&number, sizeof number);
}

static void knows_what_it_has_met(void)
{
    struct rc_seen seen;
    rc_seen_init(&seen, &SEED);
    CHECK(rc_seen_room(&seen) == 0);
    CHECK(rc_seen_meet(&seen, "a", 1) == 1);
    CHECK(rc_seen_meet(&seen, "a", 1) == 0);
    CHECK(rc_seen_meet(&seen, "a\0", 2) == 1);
    CHECK(rc_seen_meet(&seen, NULL, 0) == 1);
    CHECK(rc_seen_meet(&seen, "", 0) == 0);
    CHECK(rc_seen_meet(&seen, "a", 1) == 0);
    rc_seen_deinit(&seen);
}

static void knows_a_million_at_24_bytes_each(void)
{
    enum { STRINGS = 1000000 };
    struct rc_seen seen;
    uint32_t wrong = 0;
    size_t worst = 0;
    rc_seen_init(&seen, &SEED);
    for (uint32_t i = 0; i < STRINGS; i++) {
        wrong += meet_number(&seen, i) != 1;
        size_t room = rc_seen_room(&seen);
        if (i % 1024 == 0 && i >= 8 * 1024 && room / i > worst)
            worst = room / i;
    }
    for (uint32_t i = 0; i < STRINGS; i++)
        wrong += meet_number(&seen, i) != 0;
    CHECK(wrong == 0);
    CHECK(worst <= 24);
    rc_seen_deinit(&seen);
}

static void is_as_it_was_without_memory(void)
{
    struct rc_seen seen;
    uint32_t met = 0;
    rc_seen_init(&seen, &SEED);
    for (uint32_t i = 0; i < 5000; i++) {
        int is_new = meet_number(&seen, i);
        while (is_new < 0) /* one allocation may be refused (script/alloc-fail) */
            is_new = meet_number(&seen, i);
        met += (uint32_t)is_new;
    }
    for (uint32_t i = 0; i < 5000; i++)
        CHECK(meet_number(&seen, i) == 0);
    CHECK(met == 5000);
    rc_seen_deinit(&seen);
}

int main(void)
{
    TEST(knows_what_it_has_met);
    TEST_SLOW(knows_a_million_at_24_bytes_each);
    TEST(is_as_it_was_without_memory);
    return test_result();
}
