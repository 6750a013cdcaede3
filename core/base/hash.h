/*
 * hash - keyed hashing, and a table from byte strings to objects.
 *
 * What:    SipHash-2-4 (hash of untrusted keys; source of nonces) and a chained table of intrusive
 *          nodes.
 * Threads: rc_siphash anywhere; a table by its owner.
 * Memory:  a table owns its buckets; nodes and their key bytes belong to the objects they sit in.
 * Errors:  RC_ERR_NOMEM from insert, and then the node is not in the table.
 * Not:     a table never shrinks.
 * Source:  Aumasson, Bernstein: SipHash: a fast short-input PRF, 2012.
 */
#ifndef RC_HASH_H
#define RC_HASH_H

#include <stddef.h>
#include <stdint.h>

struct rc_seed {
    uint64_t words[2];
};

uint64_t rc_siphash(const struct rc_seed *seed, const void *bytes, size_t len);

struct rc_table_node {
    struct rc_table_node *next;
    uint64_t hash;
    const char *key; /* owned by the object around the node, constant while in the table */
    size_t key_len;
};

struct rc_table {
    struct rc_seed seed;
    struct rc_table_node **buckets; /* a power of two; NULL while empty */
    size_t bucket_count;
    size_t count;
    size_t first_used; /* no bucket before it holds a node */
};

void rc_table_init(struct rc_table *table, const struct rc_seed *seed);
void rc_table_deinit(struct rc_table *table); /* the nodes are not touched */
struct rc_table_node *rc_table_find(const struct rc_table *table, const char *key, size_t len);
/* node->key and key_len are set by the caller; equal keys may be in the table several times, newest
   found first. */
int rc_table_insert(struct rc_table *table, struct rc_table_node *node);
void rc_table_remove(struct rc_table *table, struct rc_table_node *node); /* must be in the table */
/* The next node with the same key as `node`, NULL at the end. */
struct rc_table_node *rc_table_find_next(const struct rc_table_node *node);
/* Any node of the table, NULL when empty: for taking a table apart. */
struct rc_table_node *rc_table_any(struct rc_table *table);

#endif
