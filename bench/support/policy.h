/*
 * policy - what ours is compared with: LRU, S3-FIFO as published, and the optimum.
 *
 * What:    caches of key numbers without values; every entry has the size 1.
 * Memory:  a policy owns its state until policy_free.
 * Not:     no measuring, and nothing of redcache.
 * Source:  Yang et al.: FIFO queues are all you need for cache eviction, SOSP 2023, and what
 *          libCacheSim's S3FIFO.c does where the paper leaves it open; Belady: A study of
 *          replacement algorithms for a virtual-storage computer, 1966.
 */
#ifndef RC_BENCH_POLICY_H
#define RC_BENCH_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct policy {
    /* Request number `at` reads the key. Returns whether it was there; if not it is put there. */
    bool (*read)(void *state, uint32_t key, uint32_t at);
    void (*drop)(void *state, uint32_t key);
    void (*free)(void *state);
    void *state;
};

void policy_init_lru(struct policy *policy, uint32_t key_count, uint32_t capacity);
/* Ten percent small queue, moved on at frequency 2, as many ghosts as entries of the main queue.
   With `ghosts_on_drop` a dropped key becomes a ghost, else it is just forgotten. */
void policy_init_s3fifo(struct policy *policy, uint32_t key_count, uint32_t capacity,
                        bool ghosts_on_drop);
/* Evicts what is read last or never again, the newcomer included. next_use: of every request, as of
   trace.h. */
void policy_init_optimum(struct policy *policy, uint32_t key_count, uint32_t capacity,
                         const uint32_t *next_use);
void policy_free(struct policy *policy);

#endif
