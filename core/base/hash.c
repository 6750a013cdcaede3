#include "base/hash.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "redcache.h"

enum { FIRST_BUCKETS = 16 };

static inline uint64_t rotate(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

/* Little-endian whatever the machine; compilers make one load of it where they can. */
static inline uint64_t load_word(const unsigned char *bytes)
{
    return (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16 |
           (uint64_t)bytes[3] << 24 | (uint64_t)bytes[4] << 32 | (uint64_t)bytes[5] << 40 |
           (uint64_t)bytes[6] << 48 | (uint64_t)bytes[7] << 56;
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static inline void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

uint64_t rc_siphash(const struct rc_seed *seed, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    uint64_t k0 = seed->words[0], k1 = seed->words[1];
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    size_t rest = len % 8;
    for (size_t words = len / 8; words > 0; words--, at += 8)
        absorb(v, load_word(at));
    uint64_t last = (uint64_t)len << 56;
    for (size_t i = 0; i < rest; i++)
        last |= (uint64_t)at[i] << (8 * i);
    absorb(v, last);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void rc_table_init(struct rc_table *table, const struct rc_seed *seed)
{
    *table = (struct rc_table){.seed = *seed};
}

void rc_table_deinit(struct rc_table *table)
{
    free(table->buckets);
    table->buckets = NULL;
    table->bucket_count = table->count = table->first_used = 0;
}

static bool is_key(const struct rc_table_node *node, uint64_t hash, const char *key, size_t len)
{
    return node->hash == hash && node->key_len == len &&
           (len == 0 || memcmp(node->key, key, len) == 0);
}

/* The first node of this key at or behind `node` in its chain. */
static struct rc_table_node *find_in_chain(struct rc_table_node *node, uint64_t hash,
                                           const char *key, size_t len)
{
    while (node != NULL && !is_key(node, hash, key, len))
        node = node->next;
    return node;
}

struct rc_table_node *rc_table_find(const struct rc_table *table, const char *key, size_t len)
{
    if (table->count == 0)
        return NULL;
    uint64_t hash = rc_siphash(&table->seed, key, len);
    return find_in_chain(table->buckets[hash & (table->bucket_count - 1)], hash, key, len);
}

struct rc_table_node *rc_table_find_next(const struct rc_table_node *node)
{
    return find_in_chain(node->next, node->hash, node->key, node->key_len);
}

/* Splits each chain in two and keeps the order in it: the newest of equal keys stays first. */
static int grow(struct rc_table *table)
{
    size_t old_count = table->bucket_count;
    if (old_count > SIZE_MAX / 4 / sizeof(*table->buckets))
        return RC_ERR_NOMEM;
    size_t new_count = old_count == 0 ? FIRST_BUCKETS : old_count * 2;
    struct rc_table_node **buckets = realloc(table->buckets, new_count * sizeof(*buckets));
    if (buckets == NULL)
        return RC_ERR_NOMEM;
    table->buckets = buckets;
    table->bucket_count = new_count;
    for (size_t i = old_count; i < new_count; i++)
        buckets[i] = NULL;
    for (size_t i = 0; i < old_count; i++) {
        struct rc_table_node **low = &buckets[i], **high = &buckets[i + old_count];
        for (struct rc_table_node *node = *low; node != NULL; node = node->next) {
            struct rc_table_node ***tail = node->hash & old_count ? &high : &low;
            **tail = node;
            *tail = &node->next;
        }
        *low = *high = NULL;
    }
    return 0;
}

int rc_table_insert(struct rc_table *table, struct rc_table_node *node)
{
    /* A table that cannot grow works on with longer chains. */
    if (table->count >= table->bucket_count && grow(table) != 0 && table->bucket_count == 0)
        return RC_ERR_NOMEM;
    node->hash = rc_siphash(&table->seed, node->key, node->key_len);
    size_t bucket = (size_t)node->hash & (table->bucket_count - 1);
    node->next = table->buckets[bucket];
    table->buckets[bucket] = node;
    table->count++;
    if (bucket < table->first_used)
        table->first_used = bucket;
    return 0;
}

void rc_table_remove(struct rc_table *table, struct rc_table_node *node)
{
    struct rc_table_node **link = &table->buckets[node->hash & (table->bucket_count - 1)];
    while (*link != node) {
        assert(*link != NULL);
        link = &(*link)->next;
    }
    *link = node->next;
    node->next = NULL;
    table->count--;
}

struct rc_table_node *rc_table_any(struct rc_table *table)
{
    if (table->count == 0)
        return NULL;
    while (table->buckets[table->first_used] == NULL)
        table->first_used++;
    return table->buckets[table->first_used];
}
