#include "engine/command.h"

#include <inttypes.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

static bool holds(const struct rc_buf *buf, const char *expected, size_t len)
{
    return rc_buf_len(buf) == len && memcmp(rc_buf_head(buf), expected, len) == 0;
}

static void writes_a_command(void)
{
    struct rc_buf out;
    static const char expected[] = "*4\r\n$3\r\nSET\r\n$3\r\nk\0y\r\n$0\r\n\r\n$2\r\n-7\r\n";
    rc_buf_init(&out);
    CHECK(rc_command_head(&out, 4) == 0);
    CHECK(rc_command_text(&out, "SET") == 0);
    CHECK(rc_command_bytes(&out, "k\0y", 3) == 0);
    CHECK(rc_command_bytes(&out, NULL, 0) == 0);
    CHECK(rc_command_int(&out, -7) == 0);
    CHECK(holds(&out, expected, sizeof(expected) - 1));
    rc_buf_deinit(&out);
}

static void writes_a_read_with_and_without_the_ttl(void)
{
    struct rc_buf out;
    static const char expected[] = "*2\r\n$3\r\nGET\r\n$3\r\nk\0y\r\n"
                                   "*2\r\n$3\r\nGET\r\n$12\r\ntwelve bytes\r\n"
                                   "*2\r\n$4\r\nPTTL\r\n$12\r\ntwelve bytes\r\n"
                                   "*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
    rc_buf_init(&out);
    CHECK(rc_command_read(&out, "k\0y", 3, false) == 0);
    CHECK(rc_command_read(&out, "twelve bytes", 12, true) == 0);
    CHECK(rc_command_read(&out, NULL, 0, false) == 0);
    CHECK(holds(&out, expected, sizeof(expected) - 1));
    CHECK(rc_command_read(&out, "", SIZE_MAX - 8, true) == RC_ERR_NOMEM);
    CHECK(holds(&out, expected, sizeof(expected) - 1));
    rc_buf_deinit(&out);
}

static void joins_two_halves_to_one_argument(void)
{
    struct rc_buf out;
    rc_buf_init(&out);
    CHECK(rc_command_pair(&out, "head", 4, "payload", 7) == 0);
    CHECK(rc_command_pair(&out, NULL, 0, "p", 1) == 0);
    CHECK(rc_command_pair(&out, "h", 1, NULL, 0) == 0);
    CHECK(rc_command_pair(&out, NULL, 0, NULL, 0) == 0);
    CHECK(holds(&out, "$11\r\nheadpayload\r\n$1\r\np\r\n$1\r\nh\r\n$0\r\n\r\n", 38));
    rc_buf_deinit(&out);
}

static void check_int(struct rc_buf *out, int64_t number)
{
    char digits[32], expected[64];
    int len = snprintf(digits, sizeof(digits), "%" PRId64, number);
    len = snprintf(expected, sizeof(expected), "$%d\r\n%s\r\n", len, digits);
    rc_buf_clear(out);
    CHECK(rc_command_int(out, number) == 0);
    CHECK(holds(out, expected, (size_t)len));
}

static void writes_every_length_of_integer(void)
{
    struct rc_buf out;
    rc_buf_init(&out);
    check_int(&out, 0);
    check_int(&out, INT64_MAX);
    check_int(&out, INT64_MIN);
    for (int64_t power = 1; power <= INT64_MAX / 10; power *= 10) {
        for (int64_t near = -1; near <= 1; near++) {
            check_int(&out, power + near);
            check_int(&out, -power + near);
        }
    }
    rc_buf_deinit(&out);
}

static void writes_every_length_of_head_and_bulk(void)
{
    static char bytes[100001];
    static char expected[sizeof(bytes) + 64];
    static const size_t lens[] = {1, 9, 10, 11, 99, 100, 999, 1000, 9999, 10000, 100000};
    struct rc_buf out;
    rc_buf_init(&out);
    memset(bytes, 'x', sizeof(bytes));
    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        int head = snprintf(expected, sizeof(expected), "*%zu\r\n$%zu\r\n", lens[i], lens[i]);
        memcpy(expected + head, bytes, lens[i]);
        memcpy(expected + head + lens[i], "\r\n", 2);
        rc_buf_clear(&out);
        CHECK(rc_command_head(&out, (uint32_t)lens[i]) == 0);
        CHECK(rc_command_bytes(&out, bytes, lens[i]) == 0);
        CHECK(holds(&out, expected, (size_t)head + lens[i] + 2));
    }
    rc_buf_clear(&out);
    CHECK(rc_command_head(&out, UINT32_MAX) == 0);
    CHECK(holds(&out, "*4294967295\r\n", 13));
    rc_buf_deinit(&out);
}

static void refuses_lengths_that_overflow(void)
{
    struct rc_buf out;
    rc_buf_init(&out);
    CHECK(rc_command_bytes(&out, "x", SIZE_MAX) == RC_ERR_NOMEM);
    CHECK(rc_command_bytes(&out, "x", SIZE_MAX - 8) == RC_ERR_NOMEM);
    CHECK(rc_command_pair(&out, "x", SIZE_MAX / 2, "y", SIZE_MAX / 2) == RC_ERR_NOMEM);
    CHECK(rc_command_pair(&out, "x", 1, "y", SIZE_MAX) == RC_ERR_NOMEM);
    CHECK(rc_command_pair(&out, "x", SIZE_MAX, "y", 1) == RC_ERR_NOMEM);
    CHECK(rc_buf_len(&out) == 0);
    rc_buf_deinit(&out);
}

/* Says what stands in encoded commands: "name word word; name word". */
static const char *told(const char *bytes, size_t len)
{
    static char text[256];
    size_t at = 0;
    struct rc_command_reader reader = {bytes, bytes + len};
    struct rc_command command;
    struct rc_command_word word;
    text[0] = '\0';
    while (reader.at < reader.end && rc_command_next(&reader, &command)) {
        const char *expected = at == 0 ? "" : "; ";
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u %.*s", expected, command.count,
                               (int)command.name.len, command.name.bytes);
        CHECK(command.start + command.len == reader.at && command.rest.end == reader.at);
        while (rc_command_next_word(&command.rest, &word))
            at +=
                (size_t)snprintf(text + at, sizeof(text) - at, " %.*s", (int)word.len, word.bytes);
    }
    return text;
}

static void reads_what_it_wrote(void)
{
    struct rc_buf out;
    rc_buf_init(&out);
    CHECK(rc_command_head(&out, 3) == 0 && rc_command_text(&out, "SET") == 0 &&
          rc_command_text(&out, "key") == 0 && rc_command_int(&out, 12) == 0);
    CHECK(rc_command_read(&out, "k", 1, true) == 0);
    CHECK(rc_command_head(&out, 1) == 0 && rc_command_text(&out, "PING") == 0);
    CHECK(strcmp(told(rc_buf_head(&out), rc_buf_len(&out)),
                 "3 SET key 12; 2 GET k; 2 PTTL k; 1 PING") == 0);
    rc_buf_deinit(&out);
}

static void reads_no_command_that_is_not_whole(void)
{
    static const char BYTES[] = "*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n";
    static const char *const OTHERS[] = {
        "",
        "*0\r\n",
        "$3\r\nGET\r\n",
        "*\r\nGET",
        "*1\r\n:3",
        "*99999999999\r\n$1",
        "*1\r\n$-1\r\n",
        "*1\r\n$18446744073709551615\r\nGET\r\n",
    };
    for (size_t len = 0; len < sizeof(BYTES) - 1; len++)
        CHECK(told(BYTES, len)[0] == '\0');
    CHECK(strcmp(told(BYTES, sizeof(BYTES) - 1), "2 GET kk") == 0);
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(*OTHERS); i++)
        CHECK(told(OTHERS[i], strlen(OTHERS[i]))[0] == '\0');
}

static void compares_words_in_either_case(void)
{
    struct rc_command_word word = {"mULti", 5};
    CHECK(rc_command_is_word(word, "MULTI") && rc_command_is_word(word, "multi"));
    CHECK(!rc_command_is_word(word, "MULT") && !rc_command_is_word(word, "MULTIS"));
}

int main(void)
{
    TEST(writes_a_command);
    TEST(writes_a_read_with_and_without_the_ttl);
    TEST(joins_two_halves_to_one_argument);
    TEST(writes_every_length_of_integer);
    TEST(writes_every_length_of_head_and_bulk);
    TEST(refuses_lengths_that_overflow);
    TEST(reads_what_it_wrote);
    TEST(reads_no_command_that_is_not_whole);
    TEST(compares_words_in_either_case);
    return test_result();
}
