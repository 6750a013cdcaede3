#include "codec/msgpack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/test.h"

#define ROOM 512

static rc_token tokens[ROOM];

/* Scans a copy of exactly that length, so that the address sanitizer sees any byte read behind it.
   */
static int32_t scan_into(const void *bytes, size_t len, rc_token *into, int32_t capacity)
{
    char *copy = malloc(len);
    if (len > 0)
        memcpy(copy, bytes, len);
    int32_t count = rc_msgpack_scan(copy, len, into, capacity);
    free(copy);
    return count;
}

static int32_t scan(const void *bytes, size_t len)
{
    return scan_into(bytes, len, tokens, ROOM);
}

#define SCAN(literal) scan(literal, sizeof(literal) - 1)
#define IS_NUMBER(literal, value)                                                                  \
    (SCAN(literal) == 1 && tokens[0].type == RC_TOKEN_NUMBER && tokens[0].number == (value))

static void reads_nil_and_booleans(void)
{
    CHECK(SCAN("\xc0") == 1 && tokens[0].type == RC_TOKEN_NIL);
    CHECK(SCAN("\xc2") == 1 && tokens[0].type == RC_TOKEN_FALSE);
    CHECK(SCAN("\xc3") == 1 && tokens[0].type == RC_TOKEN_TRUE);
}

static void reads_integers_of_every_width(void)
{
    CHECK(IS_NUMBER("\x00", 0));
    CHECK(IS_NUMBER("\x7f", 127));
    CHECK(IS_NUMBER("\xe0", -32));
    CHECK(IS_NUMBER("\xff", -1));
    CHECK(IS_NUMBER("\xcc\xff", 255));
    CHECK(IS_NUMBER("\xcd\x01\x02", 258));
    CHECK(IS_NUMBER("\xce\xff\xff\xff\xff", 4294967295.0));
    CHECK(IS_NUMBER("\xcf\0\0\0\x01\0\0\0\0", 4294967296.0));
    CHECK(IS_NUMBER("\xd0\x80", -128));
    CHECK(IS_NUMBER("\xd0\x7f", 127));
    CHECK(IS_NUMBER("\xd1\x80\x00", -32768));
    CHECK(IS_NUMBER("\xd2\x80\0\0\0", -2147483648.0));
    CHECK(IS_NUMBER("\xd3\xff\xff\xff\xff\xff\xff\xff\xfe", -2));
}

static void keeps_integers_exact_beyond_doubles(void)
{
    CHECK(IS_NUMBER("\xcf\0\x20\0\0\0\0\0\0", 9007199254740992.0));
    CHECK(SCAN("\xcf\0\x20\0\0\0\0\0\x01") == 1 && tokens[0].type == RC_TOKEN_UINT64);
    CHECK(tokens[0].uint64 == UINT64_C(9007199254740993));
    CHECK(IS_NUMBER("\xd3\xff\xe0\0\0\0\0\0\0", -9007199254740992.0));
    CHECK(SCAN("\xd3\xff\xdf\xff\xff\xff\xff\xff\xff") == 1 && tokens[0].type == RC_TOKEN_INT64);
    CHECK(tokens[0].int64 == INT64_C(-9007199254740993));
    CHECK(SCAN("\xd3\x80\0\0\0\0\0\0\0") == 1 && tokens[0].int64 == INT64_MIN);
    CHECK(SCAN("\xcf\xff\xff\xff\xff\xff\xff\xff\xff") == 1 && tokens[0].uint64 == UINT64_MAX);
}

static void reads_our_extensions_and_refuses_others(void)
{
    CHECK(SCAN("\xd7i\xff\xff\xff\xff\xff\xff\xff\xff") == 1 && tokens[0].type == RC_TOKEN_INT64);
    CHECK(tokens[0].int64 == -1);
    CHECK(SCAN("\xd7u\0\0\0\0\0\0\0\x05") == 1 && tokens[0].type == RC_TOKEN_UINT64);
    CHECK(tokens[0].uint64 == 5);
    CHECK(SCAN("\xd7x\0\0\0\0\0\0\0\x05") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xd7u\0\0\0\0\0\0\0") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xd4i\0") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xd5i\0\0") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xd6\xff\0\0\0\0") == RC_ERR_PROTOCOL); /* a timestamp */
    CHECK(SCAN("\xd8i0123456789abcdef") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xc7\x01i\0") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xc8\0\x01i\0") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xc9\0\0\0\x01i\0") == RC_ERR_PROTOCOL);
}

static void reads_floats(void)
{
    CHECK(IS_NUMBER("\xca\x3f\xc0\0\0", 1.5));
    CHECK(IS_NUMBER("\xcb\x3f\xf8\0\0\0\0\0\0", 1.5));
    CHECK(SCAN("\xcb\x80\0\0\0\0\0\0\0") == 1 && signbit(tokens[0].number) != 0);
    CHECK(IS_NUMBER("\xcb\x7f\xf0\0\0\0\0\0\0", (double)INFINITY));
    CHECK(IS_NUMBER("\xca\xff\x80\0\0", (double)-INFINITY));
}

static void gives_one_nan_for_all_of_them(void)
{
    static const char *const nans[] = {"\xcb\xff\xff\xff\xff\xff\xff\xff\xff",
                                       "\xcb\x7f\xf8\0\0\0\0\0\x01", "\xcb\xff\xfb\0\0\0\0\0\x01",
                                       "\xca\xff\xff\xff\xff", "\xca\x7f\x80\0\x01"};
    double one = NAN;
    for (size_t i = 0; i < sizeof(nans) / sizeof(nans[0]); i++) {
        CHECK(scan(nans[i], nans[i][0] == '\xcb' ? 9 : 5) == 1);
        CHECK(memcmp(&tokens[0].number, &one, sizeof(one)) == 0);
    }
}

static void reads_strings_and_binaries_of_every_width(void)
{
    static const struct {
        const char *head;
        size_t head_len, len;
    } forms[] = {{"\xa0", 1, 0},
                 {"\xbf", 1, 31},
                 {"\xd9\x05", 2, 5},
                 {"\xda\x01\x00", 3, 256},
                 {"\xdb\0\0\x01\0", 5, 256},
                 {"\xc4\xff", 2, 255},
                 {"\xc5\x00\x01", 3, 1},
                 {"\xc6\0\0\0\0", 5, 0}};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        char bytes[300] = {0};
        memcpy(bytes, forms[i].head, forms[i].head_len);
        size_t whole = forms[i].head_len + forms[i].len;
        CHECK(scan(bytes, whole) == 1 && tokens[0].type == RC_TOKEN_STRING);
        CHECK((size_t)tokens[0].count == forms[i].len);
        CHECK((size_t)tokens[0].offset == forms[i].head_len);
        CHECK(scan(bytes, whole - 1) == RC_ERR_PROTOCOL);
        CHECK(scan(bytes, whole + 1) == RC_ERR_PROTOCOL);
    }
}

static void lists_nested_elements_depth_first(void)
{
    CHECK(SCAN("\x82\xa1k\x92\x01\x80\x02\xdc\0\x01\xc0") == 8);
    static const int32_t types[] = {RC_TOKEN_MAP, RC_TOKEN_STRING, RC_TOKEN_ARRAY, RC_TOKEN_NUMBER,
                                    RC_TOKEN_MAP, RC_TOKEN_NUMBER, RC_TOKEN_ARRAY, RC_TOKEN_NIL};
    static const int32_t counts[] = {2, 1, 2, 0, 0, 0, 1, 0};
    for (int i = 0; i < 8; i++)
        CHECK(tokens[i].type == types[i] && tokens[i].count == counts[i]);
    CHECK(tokens[1].offset == 2);
    CHECK(SCAN("\xdd\0\0\0\x01\xdf\0\0\0\x01\xc3\xde\0\x00") == 4);
}

static void refuses_keys_a_table_can_not_hold(void)
{
    CHECK(SCAN("\x81\xc3\x01") == 3);
    CHECK(SCAN("\x81\xcb\x3f\xf8\0\0\0\0\0\0\x01") == 3);
    CHECK(SCAN("\x81\xc0\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x81\x90\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x81\x80\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x81\xca\x7f\xc0\0\0\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x81\xcf\x80\0\0\0\0\0\0\0\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x82\x01\x90\xc0\x01") == RC_ERR_PROTOCOL); /* the second key, after a container */
}

static void refuses_what_is_not_one_whole_value(void)
{
    CHECK(rc_msgpack_scan(NULL, 0, tokens, ROOM) == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xc1") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x01\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x90\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x92\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\x81\x01") == RC_ERR_PROTOCOL);
}

static void refuses_every_truncation(void)
{
    static const char whole[] =
        "\x86\xa1k\x92\x01\x80\xcc\x80\xdc\0\x01\xc0\xca\0\0\0\0\xd9\x02zz\xcd"
        "\x01\x02\xce\x01\x02\x03\x04\xd0\x80\xcf\xff\0\0\0\0\0\0\0\xc2\xd7i12"
        "345678";
    CHECK(SCAN(whole) == 16);
    for (size_t len = 0; len < sizeof(whole) - 1; len++)
        CHECK(scan(whole, len) == RC_ERR_PROTOCOL);
}

static void refuses_counts_over_the_bytes_that_are_left(void)
{
    CHECK(SCAN("\xdd\xff\xff\xff\xff\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xdf\xff\xff\xff\xff\x01\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xdf\x80\0\0\x01\x01\x01") == RC_ERR_PROTOCOL); /* 2 * count wraps in 32 bits */
    CHECK(SCAN("\xdb\xff\xff\xff\xff\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xc6\x80\0\0\0\x01") == RC_ERR_PROTOCOL);
    CHECK(SCAN("\xde\0\x02\x01\x01\x01") == RC_ERR_PROTOCOL);
}

static void allows_32_levels_and_no_more(void)
{
    char bytes[40];
    memset(bytes, 0x91, sizeof(bytes));
    bytes[31] = (char)0x90;
    CHECK(scan(bytes, 32) == 32);
    bytes[31] = (char)0x91;
    bytes[32] = (char)0x90;
    CHECK(scan(bytes, 33) == RC_ERR_PROTOCOL);
    bytes[32] = (char)0x01;
    CHECK(scan(bytes, 33) == 33);
    size_t len = 1000000;
    char *many = malloc(len);
    memset(many, 0x91, len);
    CHECK(rc_msgpack_scan(many, len, tokens, ROOM) == RC_ERR_PROTOCOL);
    free(many);
}

static void tells_the_room_it_needs(void)
{
    static const char bytes[] = "\x95\x01\x02\x03\x04\x05";
    rc_token few[3];
    few[2].type = 99;
    CHECK(scan_into(bytes, 6, few, 2) == 6);
    CHECK(few[1].number == 1 && few[2].type == 99);
    CHECK(scan_into(bytes, 6, NULL, 0) == 6);
    rc_token enough[6];
    CHECK(scan_into(bytes, 6, enough, 6) == 6 && enough[5].number == 5);
}

static void refuses_more_than_2_gib(void)
{
    CHECK(rc_msgpack_scan("", (size_t)INT32_MAX + 1, tokens, ROOM) == RC_ERR_TOOLARGE);
}

/* Whether the first `count` tokens are one value whose strings lie inside `len` bytes. */
static bool is_sound(int32_t count, size_t len)
{
    int64_t left = 1;
    for (int32_t i = 0; i < count; i++) {
        const rc_token *token = &tokens[i];
        if (left == 0 || token->count < 0 || token->type < RC_TOKEN_NIL)
            return false;
        left--;
        if (token->type == RC_TOKEN_ARRAY)
            left += token->count;
        else if (token->type == RC_TOKEN_MAP)
            left += 2 * (int64_t)token->count;
        else if (token->type == RC_TOKEN_STRING &&
                 (token->offset < 1 || (size_t)token->offset + (size_t)token->count > len))
            return false;
    }
    return left == 0;
}

static void survives_a_million_mutations(void)
{
    static const char seed[] =
        "\x88\xa1k\x92\x01\x80\xcc\x80\xdc\0\x01\xc0\xca\0\0\0\0\xd9\x02zz\xcd"
        "\x01\x02\xde\0\x01\xa3xyz\xdd\0\0\0\x02\xd0\x80\xcf\xff\0\0\0\0\0\0\0"
        "\xc2\xd7i12345678\x05\xc4\x03tag\x06\x94\xc0\xc2\xc3\xe1\x07\xdb\0\0\0"
        "\x01x";
    size_t size = sizeof(seed) - 1;
    uint64_t state = 2024;
    int32_t accepted = 0, refused = 0;
    CHECK(scan(seed, size) > 0);
    for (int round = 0; round < 1000000; round++) {
        unsigned char bytes[sizeof(seed)];
        memcpy(bytes, seed, size);
        for (uint32_t edits = 1 + test_below(&state, 3); edits > 0; edits--)
            bytes[test_below(&state, (uint32_t)size)] = (unsigned char)test_random(&state);
        size_t len = test_below(&state, 8) == 0 ? test_below(&state, (uint32_t)size) : size;
        int32_t count = scan(bytes, len);
        if (count < 0 ? count != RC_ERR_PROTOCOL : !is_sound(count, len)) {
            CHECK(!"a mutated value gives a sound answer");
            break;
        }
        count < 0 ? refused++ : accepted++;
    }
    CHECK(accepted > 10000 && refused > 10000); /* else the seed tests nothing */
}

/* Window by window, whatever their size, come the tokens of the whole. */
static void tells_the_same_in_parts(void)
{
    static const char VALUE[] = "\x83\xa1"
                                "a\x93\x01\xa3"
                                "bcd\xc0\xa1"
                                "b\x80\xa1"
                                "c\x81\x01\x92\x90\x90";
    int32_t whole = SCAN(VALUE);
    CHECK(whole == 14);
    for (int32_t capacity = 1; capacity <= 20; capacity++) {
        rc_scan state = {.at = 0};
        rc_token part[20];
        int32_t told = 0, count;
        do {
            count = rc_msgpack_next(&state, VALUE, sizeof VALUE - 1, part, capacity);
            CHECK(count > 0 && told + count <= whole);
            for (int32_t i = 0; i < count; i++)
                CHECK(part[i].type == tokens[told + i].type &&
                      part[i].count == tokens[told + i].count);
            told += count;
        } while (state.depth > 0);
        CHECK(told == whole);
    }
}

static void refuses_more_tables_than_its_bytes_pay_for(void)
{
    enum { LEN = 400000, FREE = 65536 + LEN / 4 };
    static unsigned char bytes[LEN];
    for (int extra = 0; extra < 2; extra++) {
        memset(bytes, 0xc0, sizeof bytes);
        memcpy(bytes, "\xdd\x00\x06\x1a\x7b", 5); /* 399,995 elements */
        memset(bytes + 5, extra ? 0x80 : 0x90, FREE - 1 + extra);
        CHECK(scan(bytes, sizeof bytes) == (extra ? RC_ERR_TOOLARGE : LEN - 4));
    }
}

int main(void)
{
    TEST(reads_nil_and_booleans);
    TEST(reads_integers_of_every_width);
    TEST(keeps_integers_exact_beyond_doubles);
    TEST(reads_our_extensions_and_refuses_others);
    TEST(reads_floats);
    TEST(gives_one_nan_for_all_of_them);
    TEST(reads_strings_and_binaries_of_every_width);
    TEST(lists_nested_elements_depth_first);
    TEST(refuses_keys_a_table_can_not_hold);
    TEST(refuses_what_is_not_one_whole_value);
    TEST(refuses_every_truncation);
    TEST(refuses_counts_over_the_bytes_that_are_left);
    TEST(allows_32_levels_and_no_more);
    TEST(tells_the_room_it_needs);
    TEST(refuses_more_than_2_gib);
    TEST(tells_the_same_in_parts);
    TEST(refuses_more_tables_than_its_bytes_pay_for);
    TEST(survives_a_million_mutations);
    return test_result();
}
