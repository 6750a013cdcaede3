#include "near/mix.h"

#include <stdlib.h>

#include "near/word.h"
#include "test/test.h"

static const struct rc_mix_seed SEED = {{1, 2, 3, 4}};

/* Of exactly that size, so that a sanitizer sees a byte more that is read. */
static char *new_text(size_t len, unsigned *turn)
{
    char *text = malloc(len + (len == 0));
    for (size_t i = 0; i < len; i++)
        text[i] = (char)((*turn = *turn * 1103515245 + 12345) >> 16);
    return text;
}

static int is_joined(const char *first, size_t first_len, const char *second, size_t second_len)
{
    char joined[96], to[128];
    size_t len = first_len + second_len;
    memset(to, 0x55, sizeof to);
    if (first_len > 0)
        memcpy(joined, first, first_len);
    if (second_len > 0)
        memcpy(joined + first_len, second, second_len);
    size_t part_len = first_len & 7, whole = first_len - part_len;
    rc_mix_copy(to, first, whole);
    rc_mix_join(to + whole, rc_mix_part(first, first_len), part_len, second, second_len);
    for (size_t i = len; i < ((len + 8) & ~(size_t)7); i++)
        if (to[i] != 0)
            return 0;
    return memcmp(to, joined, len) == 0 && to[len + 24] == 0x55 &&
           rc_mix_joined(&SEED, to, len) == rc_mix(&SEED, joined, len);
}

static void joins_texts_of_any_length(void)
{
    unsigned turn = 1;
    for (size_t first_len = 0; first_len < 42; first_len++)
        for (size_t second_len = 0; second_len < 42; second_len++) {
            char *first = new_text(first_len, &turn), *second = new_text(second_len, &turn);
            CHECK(is_joined(first_len > 0 ? first : NULL, first_len, second_len > 0 ? second : NULL,
                            second_len));
            free(first);
            free(second);
        }
}

static void reads_as_much_as_it_is_told(void)
{
    enum { MOST = 300 };
    _Alignas(8) char shared[MOST + 16];
    char to[MOST + 2];
    unsigned turn = 2;
    char *text = new_text(sizeof shared, &turn);
    memcpy(shared, text, sizeof shared);
    free(text);
    for (size_t at = 0; at < 8; at += 4)
        for (size_t len = 0; len <= MOST; len++) {
            memset(to, 0x55, sizeof to);
            rc_word_read(to + 1, shared + at, len);
            CHECK(memcmp(to + 1, shared + at, len) == 0);
            CHECK(to[0] == 0x55 && to[len + 1] == 0x55);
        }
}

static void tells_equal_words_from_others(void)
{
    enum { MOST = 64 };
    _Alignas(8) char shared[MOST + 8];
    unsigned turn = 3;
    char *text = new_text(sizeof shared, &turn);
    memcpy(shared, text, sizeof shared);
    free(text);
    for (size_t at = 0; at < 8; at += 4)
        for (size_t len = 0; len <= MOST; len += 4) {
            char *with = malloc(len + (len == 0));
            memcpy(with, shared + at, len);
            CHECK(rc_word_equals(shared + at, with, len));
            for (size_t i = 0; i < len; i++) {
                with[i] ^= 1;
                CHECK(!rc_word_equals(shared + at, with, len));
                with[i] ^= 1;
            }
            free(with);
        }
}

int main(void)
{
    TEST(joins_texts_of_any_length);
    TEST(reads_as_much_as_it_is_told);
    TEST(tells_equal_words_from_others);
    return test_result();
}
