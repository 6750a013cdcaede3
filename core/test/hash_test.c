#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

/* The reference vectors: key 00 01 .. 0f, message 00 01 .. of as many bytes as the index. */
static const uint64_t vectors[64] = {
    UINT64_C(0x726fdb47dd0e0e31), UINT64_C(0x74f839c593dc67fd), UINT64_C(0x0d6c8009d9a94f5a),
    UINT64_C(0x85676696d7fb7e2d), UINT64_C(0xcf2794e0277187b7), UINT64_C(0x18765564cd99a68d),
    UINT64_C(0xcbc9466e58fee3ce), UINT64_C(0xab0200f58b01d137), UINT64_C(0x93f5f5799a932462),
    UINT64_C(0x9e0082df0ba9e4b0), UINT64_C(0x7a5dbbc594ddb9f3), UINT64_C(0xf4b32f46226bada7),
    UINT64_C(0x751e8fbc860ee5fb), UINT64_C(0x14ea5627c0843d90), UINT64_C(0xf723ca908e7af2ee),
    UINT64_C(0xa129ca6149be45e5), UINT64_C(0x3f2acc7f57c29bdb), UINT64_C(0x699ae9f52cbe4794),
    UINT64_C(0x4bc1b3f0968dd39c), UINT64_C(0xbb6dc91da77961bd), UINT64_C(0xbed65cf21aa2ee98),
    UINT64_C(0xd0f2cbb02e3b67c7), UINT64_C(0x93536795e3a33e88), UINT64_C(0xa80c038ccd5ccec8),
    UINT64_C(0xb8ad50c6f649af94), UINT64_C(0xbce192de8a85b8ea), UINT64_C(0x17d835b85bbb15f3),
    UINT64_C(0x2f2e6163076bcfad), UINT64_C(0xde4daaaca71dc9a5), UINT64_C(0xa6a2506687956571),
    UINT64_C(0xad87a3535c49ef28), UINT64_C(0x32d892fad841c342), UINT64_C(0x7127512f72f27cce),
    UINT64_C(0xa7f32346f95978e3), UINT64_C(0x12e0b01abb051238), UINT64_C(0x15e034d40fa197ae),
    UINT64_C(0x314dffbe0815a3b4), UINT64_C(0x027990f029623981), UINT64_C(0xcadcd4e59ef40c4d),
    UINT64_C(0x9abfd8766a33735c), UINT64_C(0x0e3ea96b5304a7d0), UINT64_C(0xad0c42d6fc585992),
    UINT64_C(0x187306c89bc215a9), UINT64_C(0xd4a60abcf3792b95), UINT64_C(0xf935451de4f21df2),
    UINT64_C(0xa9538f0419755787), UINT64_C(0xdb9acddff56ca510), UINT64_C(0xd06c98cd5c0975eb),
    UINT64_C(0xe612a3cb9ecba951), UINT64_C(0xc766e62cfcadaf96), UINT64_C(0xee64435a9752fe72),
    UINT64_C(0xa192d576b245165a), UINT64_C(0x0a8787bf8ecb74b2), UINT64_C(0x81b3e73d20b49b6f),
    UINT64_C(0x7fa8220ba3b2ecea), UINT64_C(0x245731c13ca42499), UINT64_C(0xb78dbfaf3a8d83bd),
    UINT64_C(0xea1ad565322a1a0b), UINT64_C(0x60e61c23a3795013), UINT64_C(0x6606d7e446282b93),
    UINT64_C(0x6ca4ecb15c5f91e1), UINT64_C(0x9f626da15c9625f3), UINT64_C(0xe51b38608ef25f57),
    UINT64_C(0x958a324ceb064572),
};

static const struct rc_seed reference_seed = {
    {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};

static void gives_the_reference_vectors(void)
{
    unsigned char message[64];
    for (size_t len = 0; len < 64; len++) {
        message[len] = (unsigned char)len;
        CHECK(rc_siphash(&reference_seed, message, len) == vectors[len]);
    }
    CHECK(rc_siphash(&reference_seed, NULL, 0) == vectors[0]);
}

struct item {
    struct rc_table_node node; /* first: a node's address is its item's */
    char key[16];
};

static struct item *new_items(size_t count)
{
    struct item *items = calloc(count, sizeof(*items));
    for (size_t i = 0; items != NULL && i < count; i++) {
        items[i].node.key = items[i].key;
        items[i].node.key_len = (size_t)snprintf(items[i].key, sizeof(items[i].key), "key:%zu", i);
    }
    return items;
}

static struct rc_table_node *find(const struct rc_table *table, const struct item *item)
{
    return rc_table_find(table, item->key, item->node.key_len);
}

static void finds_nothing_while_empty(void)
{
    struct rc_table table;
    rc_table_init(&table, &reference_seed);
    CHECK(rc_table_find(&table, "a", 1) == NULL);
    CHECK(rc_table_find(&table, NULL, 0) == NULL);
    CHECK(rc_table_any(&table) == NULL);
    rc_table_deinit(&table);
}

static void finds_what_was_inserted_until_it_is_removed(void)
{
    enum { COUNT = 10000 };
    struct rc_table table;
    struct item *items = new_items(COUNT);
    rc_table_init(&table, &reference_seed);
    int inserted = 0;
    while (inserted < COUNT && rc_table_insert(&table, &items[inserted].node) == 0)
        inserted++;
    CHECK(inserted == COUNT && table.count == COUNT);
    CHECK(table.bucket_count >= COUNT && table.bucket_count < 4 * COUNT);
    for (int i = 0; i < inserted; i += 2)
        rc_table_remove(&table, &items[i].node);
    for (int i = 0; i < COUNT; i++)
        CHECK(find(&table, &items[i]) == (i % 2 == 0 ? NULL : &items[i].node));
    CHECK(rc_table_find(&table, "key:", 4) == NULL);
    CHECK(table.count == COUNT / 2);
    rc_table_deinit(&table);
    free(items);
}

static void takes_binary_and_empty_keys(void)
{
    struct rc_table table;
    struct rc_table_node empty = {0}, zero = {.key = "\0", .key_len = 1};
    rc_table_init(&table, &reference_seed);
    CHECK(rc_table_insert(&table, &empty) == 0);
    CHECK(rc_table_insert(&table, &zero) == 0);
    CHECK(rc_table_find(&table, NULL, 0) == &empty);
    CHECK(rc_table_find(&table, "\0", 1) == &zero);
    CHECK(rc_table_find(&table, "\0\0", 2) == NULL);
    rc_table_deinit(&table);
}

static void gives_equal_keys_newest_first_after_growing_too(void)
{
    enum { COUNT = 1000 };
    struct rc_table table;
    struct item *items = new_items(COUNT);
    struct rc_table_node same[3] = {0};
    rc_table_init(&table, &reference_seed);
    for (int i = 0; i < 3; i++) {
        same[i].key = "same";
        same[i].key_len = 4;
        CHECK(rc_table_insert(&table, &same[i]) == 0);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(rc_table_insert(&table, &items[i].node) == 0);
    CHECK(rc_table_find(&table, "same", 4) == &same[2]);
    CHECK(rc_table_find_next(&same[2]) == &same[1]);
    CHECK(rc_table_find_next(&same[1]) == &same[0]);
    CHECK(rc_table_find_next(&same[0]) == NULL);
    rc_table_remove(&table, &same[1]);
    CHECK(rc_table_find_next(&same[2]) == &same[0]);
    rc_table_deinit(&table);
    free(items);
}

/* 100000 nodes: going through the empty buckets from the first one each time would take minutes. */
static void comes_apart_by_any_and_remove(void)
{
    enum { COUNT = 100000 };
    struct rc_table table;
    struct item *items = new_items(COUNT);
    size_t taken = 0;
    rc_table_init(&table, &reference_seed);
    for (int i = 0; i < COUNT; i++)
        CHECK(rc_table_insert(&table, &items[i].node) == 0);
    for (struct rc_table_node *node; (node = rc_table_any(&table)) != NULL; taken++)
        rc_table_remove(&table, node);
    CHECK(taken == COUNT && table.count == 0);
    CHECK(rc_table_insert(&table, &items[7].node) == 0);
    CHECK(rc_table_any(&table) == &items[7].node);
    rc_table_deinit(&table);
    free(items);
}

int main(void)
{
    TEST(gives_the_reference_vectors);
    TEST(finds_nothing_while_empty);
    TEST(finds_what_was_inserted_until_it_is_removed);
    TEST(takes_binary_and_empty_keys);
    TEST(gives_equal_keys_newest_first_after_growing_too);
    TEST(comes_apart_by_any_and_remove);
    return test_result();
}
