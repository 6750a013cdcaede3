/* A key that was promised is told until it is paid for, once, in order; a full backlog says so. */
#include "near/backlog.h"

#include <stdio.h>
#include <string.h>

#include "test/test.h"

enum { SMALL = 64 * 1024, ROOM = 8192 };

static _Alignas(64) char memory[ROOM];
static struct rc_backlog backlog;
static char keys[4096];
static uint64_t at;

static void begin(void)
{
    memset(memory, 0, sizeof memory);
    CHECK(rc_backlog_bytes(SMALL) <= sizeof memory);
    rc_backlog_view(&backlog, SMALL, memory);
    at = UINT64_MAX;
}

static bool add(const char *key)
{
    uint64_t hash = 0;
    for (const char *byte = key; *byte != '\0'; byte++)
        hash = hash * 31 + (unsigned char)*byte;
    return rc_backlog_add(&backlog, hash, key, strlen(key));
}

/* What is told from `at` on, joined by commas. */
static bool tells(const char *text)
{
    char joined[4096] = "";
    size_t len = rc_backlog_read(&backlog, &at, keys, sizeof keys), used = 0;
    for (size_t i = 0; i < len;) {
        uint32_t key_len;
        memcpy(&key_len, keys + i, sizeof key_len);
        i += sizeof key_len;
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%.*s", used > 0 ? "," : "",
                                 (int)key_len, keys + i);
        i += key_len;
    }
    return strcmp(joined, text) == 0;
}

static void tells_each_connection_all_that_is_not_paid_for(void)
{
    begin();
    CHECK(!rc_backlog_is_owed(&backlog) && tells(""));
    CHECK(add("one") && add("two") && rc_backlog_is_owed(&backlog));
    CHECK(tells("one,two") && tells(""));
    uint64_t first = at;
    CHECK(add("three") && tells("three"));
    at = UINT64_MAX; /* another connection */
    CHECK(tells("one,two,three"));
    uint32_t returns = atomic_load(&backlog.head->returns);
    rc_backlog_pay(&backlog, first);
    CHECK(atomic_load(&backlog.head->returns) == returns + 1);
    at = UINT64_MAX;
    CHECK(tells("three") && rc_backlog_is_owed(&backlog));
    rc_backlog_pay(&backlog, at);
    CHECK(!rc_backlog_is_owed(&backlog));
    rc_backlog_pay(&backlog, first); /* an answer of another connection: long paid for */
    CHECK(!rc_backlog_is_owed(&backlog));
}

static void adds_a_key_twice_only_where_it_was_sent_in_between(void)
{
    begin();
    CHECK(add("k") && add("other") && add("k"));
    CHECK(tells("k,other"));
    CHECK(add("k") && add("k") && tells("k"));
}

static void refuses_what_has_no_room_and_loses_nothing(void)
{
    char name[32];
    int count = 0;
    begin();
    for (; count < 1000; count++) {
        snprintf(name, sizeof name, "key-%06d-of-24-bytes....", count);
        if (!add(name))
            break;
    }
    CHECK(count > 10 && count < 100);
    CHECK(add("key-000000-of-24-bytes....")); /* it is there */
    CHECK(!add("one more, of some bytes...."));
    CHECK(rc_backlog_read(&backlog, &at, keys, sizeof keys) == (size_t)count * (4 + strlen(name)));
    rc_backlog_pay(&backlog, at);
    CHECK(add("one more, of some bytes....") && tells("one more, of some bytes...."));
}

static void goes_round_for_ever(void)
{
    begin();
    for (int i = 0; i < 2000; i++) {
        char name[64];
        snprintf(name, sizeof name, "%d%.*s", i, i % 40,
                 "........................................");
        CHECK(add(name) && tells(name));
        rc_backlog_pay(&backlog, at);
    }
}

static void takes_a_long_key_and_none(void)
{
    char key[1024];
    begin();
    memset(key, 'k', sizeof key);
    CHECK(add("") && tells(""));
    CHECK(rc_backlog_is_owed(&backlog));
    CHECK(!rc_backlog_add(&backlog, 1, key, sizeof key)); /* no room in so small a one */
    CHECK(!rc_backlog_add(&backlog, 1, key, sizeof key + 1));
}

static void gives_up_damaged_bytes(void)
{
    begin();
    CHECK(add("one") && add("two"));
    memset(backlog.bytes, 0xff, 8);
    CHECK(!add("three"));
    CHECK(tells("") && !rc_backlog_is_owed(&backlog));
    CHECK(add("three") && tells("three"));
    atomic_store(&backlog.head->begin, UINT64_MAX);
    CHECK(!add("four") && rc_backlog_is_owed(&backlog));
    CHECK(tells("") && !rc_backlog_is_owed(&backlog));
    CHECK(add("four") && tells("four"));
    backlog.head->sent = 1 << 20;
    CHECK(!add("five"));
    at = UINT64_MAX;
    CHECK(tells("four") && add("five"));
}

int main(void)
{
    TEST(tells_each_connection_all_that_is_not_paid_for);
    TEST(adds_a_key_twice_only_where_it_was_sent_in_between);
    TEST(refuses_what_has_no_room_and_loses_nothing);
    TEST(goes_round_for_ever);
    TEST(takes_a_long_key_and_none);
    TEST(gives_up_damaged_bytes);
    return test_result();
}
