#include "base/sha1.h"

#include <string.h>

#include "test/test.h"

static bool is_hash(const char *text, size_t len, const char *expected)
{
    char hex[41];
    rc_sha1_hex(text, len, hex);
    return strcmp(hex, expected) == 0;
}

static void gives_the_standard_vectors(void)
{
    CHECK(is_hash("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d"));
    CHECK(is_hash(NULL, 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709"));
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    CHECK(is_hash(two_blocks, 56, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"));
}

static void gives_the_vector_of_a_million_bytes(void)
{
    static char bytes[1000000];
    memset(bytes, 'a', sizeof(bytes));
    CHECK(is_hash(bytes, sizeof(bytes), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"));
}

/* Lengths at which the padding takes another shape; values of sha1sum. */
static void pads_at_the_edges_of_a_block(void)
{
    char bytes[128];
    memset(bytes, 'a', sizeof(bytes));
    CHECK(is_hash(bytes, 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"));
    CHECK(is_hash(bytes, 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"));
    CHECK(is_hash(bytes, 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"));
    CHECK(is_hash(bytes, 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"));
    CHECK(is_hash(bytes, 65, "11655326c708d70319be2610e8a57d9a5b959d3b"));
    CHECK(is_hash(bytes, 119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56"));
    CHECK(is_hash(bytes, 120, "f34c1488385346a55709ba056ddd08280dd4c6d6"));
}

int main(void)
{
    TEST(gives_the_standard_vectors);
    TEST(gives_the_vector_of_a_million_bytes);
    TEST(pads_at_the_edges_of_a_block);
    return test_result();
}
