#include "near/stripe.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

/* ---- mutex ----------------------------------------------------------------------------------- */

int rc_stripe_init_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0)
        return RC_ERR_NOMEM;
    int error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0)
        error = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return error == 0 ? 0 : RC_ERR_NOMEM;
}

/* libc goes by what the mutex itself says of its kind, and asserts what follows from it: a damaged
   one must not get there. */
#if defined(__GLIBC__)
static int kind_of(const pthread_mutex_t *mutex)
{
    return mutex->__data.__kind;
}
#else
static int kind_of(const pthread_mutex_t *mutex)
{
    (void)mutex;
    return 0;
}
#endif

static int mutex_kind(void)
{
    pthread_mutex_t mutex;
    memset(&mutex, 0, sizeof(mutex));
    if (rc_stripe_init_mutex(&mutex) != 0)
        return -1;
    int kind = kind_of(&mutex);
    pthread_mutex_destroy(&mutex);
    return kind;
}

/* ---- shape ----------------------------------------------------------------------------------- */

enum { LINE = 64 };

static size_t align(size_t bytes)
{
    return (bytes + LINE - 1) & ~(size_t)(LINE - 1);
}

/* 5 % for the index: a place per 107 bytes, so that with entries of a common size (16 bytes of key,
   100 of value: 152 in all) it is three quarters full, and hardly ever evicts for want of a place.
   1.2 % for the ghost queue: about as many prints as there are entries of a common size. */
bool rc_stripe_plan(struct rc_stripe_shape *shape, size_t bytes)
{
    size_t head = align(sizeof(struct rc_stripe_head));
    bytes &= ~(size_t)(LINE - 1);
    if (bytes < head + 16384 || bytes > RC_ARENA_MAX_BYTES)
        return false;
    size_t left = bytes - head;
    shape->bytes = bytes;
    shape->mutex_kind = mutex_kind();
    shape->bucket_count = (uint32_t)(left / 20 / sizeof(struct rc_index_bucket));
    shape->ghost_count = (uint32_t)(left / 83 / sizeof(struct rc_ghost_line));
    shape->max_entries = (uint32_t)((uint64_t)shape->bucket_count * RC_INDEX_SLOTS * 95 / 100);
    shape->buckets_at = head;
    shape->ghosts_at = head + shape->bucket_count * sizeof(struct rc_index_bucket);
    shape->arena_at = shape->ghosts_at + shape->ghost_count * sizeof(struct rc_ghost_line);
    shape->arena_bytes = bytes - shape->arena_at;
    return true;
}

void rc_stripe_view(struct rc_stripe *stripe, const struct rc_stripe_shape *shape,
                    const struct rc_stripe_bounds *bounds, char *at)
{
    stripe->head = (struct rc_stripe_head *)(void *)at;
    stripe->buckets = (struct rc_index_bucket *)(void *)(at + shape->buckets_at);
    stripe->ghosts = (struct rc_ghost_line *)(void *)(at + shape->ghosts_at);
    stripe->arena = at + shape->arena_at;
    stripe->arena_bytes = shape->arena_bytes;
    stripe->bucket_count = shape->bucket_count;
    stripe->shape = shape;
    stripe->bounds = bounds;
    atomic_init(&stripe->is_lost, false);
}

/* ---- mutex and repair ------------------------------------------------------------------------ */

/* Nobody waits in the mutex itself: a waiter that is killed just when it is woken takes the wake-up
   of the next one with it if somebody else got the mutex meanwhile. That one then sleeps until the
   mutex is fought for again (seen once with Linux 6.18, glibc 2.36: nine minutes, nobody had it).
   Who has the mutex has it for a microsecond, unless it lost its processor, was stopped, or the
   word is damaged and nobody has it: so the wait has an end. */
int rc_stripe_take_mutex(pthread_mutex_t *mutex, int kind, int64_t patience_us)
{
    enum { SPINS = 100, YIELDS = 120, MAX_PAUSE_NS = 1000000 };
    struct timespec pause = {.tv_nsec = 20000};
    int64_t until_us = 0;
    if (kind_of(mutex) != kind)
        return EINVAL;
    for (int tries = 0;; tries++) {
        int error = pthread_mutex_trylock(mutex);
        if (error != EBUSY)
            return error;
        if (tries < SPINS)
            continue;
        if (tries < YIELDS) {
            sched_yield();
        } else {
            int64_t now_us = rc_clock_us();
            until_us = until_us != 0 ? until_us : now_us + patience_us;
            if (now_us >= until_us)
                return EBUSY;
            nanosleep(&pause, NULL);
            pause.tv_nsec = pause.tv_nsec < MAX_PAUSE_NS / 2 ? pause.tv_nsec * 2 : MAX_PAUSE_NS;
        }
    }
}

int rc_stripe_init(struct rc_stripe *stripe)
{
    rc_arena_init(&stripe->head->arena, stripe->shape->arena_bytes);
    return rc_stripe_init_mutex(&stripe->head->mutex);
}

static void set_counter(struct rc_stripe *stripe, enum rc_stripe_counter counter, uint64_t value)
{
    atomic_store_explicit(&stripe->head->counters[counter], value, memory_order_relaxed);
}

static uint64_t counter_of(const struct rc_stripe *stripe, enum rc_stripe_counter counter)
{
    return atomic_load_explicit(&stripe->head->counters[counter], memory_order_relaxed);
}

void rc_stripe_count(struct rc_stripe *stripe, enum rc_stripe_counter counter)
{
    /* Refusals are counted without the mutex, too. */
    atomic_fetch_add_explicit(&stripe->head->counters[counter], 1, memory_order_relaxed);
}

/* Somebody died in the middle of a change: nothing tells what is whole, so nothing is kept. A
   repair that is cut short itself is begun again by the next one, as `writing` is still set. */
static void repair(struct rc_stripe *stripe, enum rc_stripe_counter cause)
{
    for (uint32_t i = 0; i < stripe->shape->bucket_count; i++)
        rc_index_reset(&stripe->buckets[i]);
    rc_arena_init(&stripe->head->arena, stripe->shape->arena_bytes);
    memset(stripe->head->queues, 0, sizeof(stripe->head->queues));
    memset(stripe->ghosts, 0, stripe->shape->ghost_count * sizeof(*stripe->ghosts));
    set_counter(stripe, RC_STRIPE_ENTRIES, 0);
    set_counter(stripe, RC_STRIPE_BYTES, 0);
    rc_stripe_count(stripe, cause);
}

/* Nothing of the arena's head is checked later. */
static bool is_arena_sound(const struct rc_stripe *stripe)
{
    const struct rc_arena *arena = &stripe->head->arena;
    return arena->end == stripe->shape->arena_bytes / 8 && arena->top <= arena->end;
}

void rc_stripe_damage(struct rc_stripe *stripe)
{
    atomic_store_explicit(&stripe->head->writing, RC_STRIPE_DAMAGE, memory_order_relaxed);
}

bool rc_stripe_is_damaged(const struct rc_stripe *stripe)
{
    return atomic_load_explicit(&stripe->head->writing, memory_order_relaxed) == RC_STRIPE_DAMAGE;
}

void rc_stripe_abandon(struct rc_stripe *stripe)
{
    for (uint32_t i = 0; i < stripe->shape->bucket_count; i++)
        rc_index_reset(&stripe->buckets[i]);
    rc_stripe_count(stripe, RC_STRIPE_DAMAGED);
}

bool rc_stripe_lock(struct rc_stripe *stripe)
{
    struct rc_stripe_head *head = stripe->head;
    /* Relaxed: advice. */
    bool is_lost = atomic_load_explicit(&stripe->is_lost, memory_order_relaxed);
    int error = rc_stripe_take_mutex(&head->mutex, stripe->shape->mutex_kind,
                                     is_lost ? 0 : RC_STRIPE_PATIENCE_US);
    bool is_taken = error == 0 || error == EOWNERDEAD;
    if (is_taken == is_lost)
        atomic_store_explicit(&stripe->is_lost, !is_taken, memory_order_relaxed);
    if (!is_taken)
        return false;
    if (error == EOWNERDEAD && pthread_mutex_consistent(&head->mutex) != 0) {
        pthread_mutex_unlock(&head->mutex);
        return false;
    }
    /* Under the mutex: a relaxed load sees what the last holder wrote, dead or not. */
    bool is_broken = atomic_load_explicit(&head->writing, memory_order_relaxed) != 0;
    uint32_t changes = atomic_load_explicit(&head->changes, memory_order_relaxed);
    atomic_store_explicit(&head->writing, RC_STRIPE_WRITING, memory_order_relaxed);
    atomic_store_explicit(&head->changes, (changes + 1) | 1, memory_order_relaxed);
    /* Total: either rc_stripe_is_changing sees `writing`, or what the caller loads from here on
       sees what the other side stored before it asked. Release, as a part of it: what is written
       from here on is seen only together with the bucket versions moved by earlier holders, whose
       blocks it may reuse. */
    rc_word_fence_total();
    if (is_broken)
        repair(stripe, RC_STRIPE_REPAIRS);
    else if (!is_arena_sound(stripe))
        repair(stripe, RC_STRIPE_DAMAGED);
    return true;
}

void rc_stripe_unlock(struct rc_stripe *stripe)
{
    struct rc_stripe_head *head = stripe->head;
    if (rc_stripe_is_damaged(stripe))
        repair(stripe, RC_STRIPE_DAMAGED);
    uint32_t changes = atomic_load_explicit(&head->changes, memory_order_relaxed);
    /* Release: who sees the even number, or 0, sees all that was changed before. */
    atomic_store_explicit(&head->changes, changes + 1, memory_order_release);
    atomic_store_explicit(&head->writing, 0, memory_order_release);
    pthread_mutex_unlock(&stripe->head->mutex);
}

bool rc_stripe_is_changing(const struct rc_stripe *stripe)
{
    rc_word_fence_total();
    return atomic_load_explicit(&stripe->head->writing, memory_order_acquire) != 0;
}

/* ---- entries --------------------------------------------------------------------------------- */

bool rc_stripe_has(struct rc_stripe *stripe, uint32_t ref)
{
    uint32_t unit = ref - 1, top = stripe->head->arena.top;
    if (unit < top && top - unit >= (RC_BLOCK_HEAD + 7) / 8) {
        const struct rc_block *block = rc_block_at(stripe->arena, ref);
        uint32_t word = block->word, units = word & RC_ARENA_UNITS;
        size_t room = rc_block_key_room(block->key_len);
        if ((word & RC_ARENA_USED) != 0 && units <= top - unit && units * 8 >= RC_BLOCK_HEAD &&
            rc_arena_len(word) >= RC_BLOCK_HEAD + room && block->key_len <= RC_NEAR_MAX_KEY &&
            block->group < RC_NEAR_GROUPS && block->queue <= RC_QUEUE_MAIN)
            return true;
    }
    rc_stripe_damage(stripe);
    return false;
}

uint64_t rc_stripe_hash(const struct rc_stripe *stripe, uint32_t ref)
{
    struct rc_block *block = rc_block_at(stripe->arena, ref);
    return rc_mix(&stripe->shape->seed, rc_block_key(block), block->key_len);
}

bool rc_stripe_is_over(const struct rc_stripe *stripe, uint32_t ref, int64_t now_us)
{
    uint64_t ticks = rc_block_deadline(rc_block_at(stripe->arena, ref));
    return now_us >= rc_block_time(ticks, stripe->shape->birth_us);
}

size_t rc_stripe_max_len(const struct rc_stripe *stripe, uint8_t group)
{
    uint64_t max = atomic_load_explicit(&stripe->bounds->max[group], memory_order_relaxed);
    uint64_t share = max >> stripe->shape->shift;
    size_t len = stripe->shape->arena_bytes / 8;
    if (max == 0 || share >= len + RC_ARENA_SMALLEST)
        return len;
    return share > RC_ARENA_SMALLEST ? (size_t)share - RC_ARENA_SMALLEST : 0; /* with padding */
}

struct rc_index_spot rc_stripe_find(struct rc_stripe *stripe, uint64_t hash, const char *key,
                                    size_t key_len)
{
    for (int choice = 0; choice < 2; choice++) {
        struct rc_index_bucket *bucket =
            rc_index_bucket(stripe->buckets, stripe->shape->bucket_count, hash, choice);
        uint32_t matches = rc_index_matches(bucket, rc_index_tag(hash));
        for (; matches != 0; matches &= matches - 1) {
            struct rc_index_spot spot = {bucket, rc_index_first(matches)};
            uint32_t ref = rc_index_ref(bucket, spot.slot);
            if (ref == 0)
                continue;
            if (!rc_stripe_has(stripe, ref))
                return (struct rc_index_spot){NULL, 0};
            struct rc_block *block = rc_block_at(stripe->arena, ref);
            if (block->key_len == key_len &&
                (key_len == 0 || memcmp(rc_block_key(block), key, key_len) == 0))
                return spot;
        }
    }
    return (struct rc_index_spot){NULL, 0};
}

static void count_entry(struct rc_stripe *stripe, uint32_t word, bool is_new)
{
    uint64_t entries = counter_of(stripe, RC_STRIPE_ENTRIES);
    uint64_t bytes = counter_of(stripe, RC_STRIPE_BYTES);
    uint64_t more = rc_arena_bytes(word);
    set_counter(stripe, RC_STRIPE_ENTRIES, is_new ? entries + 1 : entries - 1);
    set_counter(stripe, RC_STRIPE_BYTES, is_new ? bytes + more : bytes - more);
}

/* Of a block that is an entry. */
static bool unqueue(struct rc_stripe *stripe, uint32_t ref)
{
    struct rc_stripe_head *head = stripe->head;
    struct rc_queue_pair *queues = &head->queues[rc_block_at(stripe->arena, ref)->group];
    if (!rc_queue_is_linked(queues, stripe->arena, ref, head->arena.top)) {
        rc_stripe_damage(stripe);
        return false;
    }
    rc_queue_remove(queues, stripe->arena, ref);
    return true;
}

static bool enqueue(struct rc_stripe *stripe, uint32_t group, uint32_t ref, int queue)
{
    struct rc_stripe_head *head = stripe->head;
    struct rc_queue_pair *queues = &head->queues[group];
    if (!rc_queue_is_open(queues, stripe->arena, queue, head->arena.top)) {
        rc_stripe_damage(stripe);
        return false;
    }
    rc_queue_push(queues, stripe->arena, ref, queue);
    return true;
}

bool rc_stripe_move_to_main(struct rc_stripe *stripe, uint32_t ref)
{
    uint32_t group = rc_block_at(stripe->arena, ref)->group;
    return unqueue(stripe, ref) && enqueue(stripe, group, ref, RC_QUEUE_MAIN);
}

uint32_t rc_stripe_remove(struct rc_stripe *stripe, struct rc_index_spot spot)
{
    uint32_t ref = rc_index_ref(spot.bucket, spot.slot);
    struct rc_block *block = rc_block_at(stripe->arena, ref);
    /* The version moves before the memory is used for anything else. */
    rc_index_begin(spot.bucket);
    rc_index_clear(spot);
    rc_index_end(spot.bucket);
    if (!unqueue(stripe, ref))
        return 0;
    count_entry(stripe, block->word, false);
    uint32_t hole = rc_arena_free(&stripe->head->arena, stripe->arena, ref);
    if (hole != RC_ARENA_DAMAGED)
        return hole;
    rc_stripe_damage(stripe);
    return 0;
}

void rc_stripe_haunt(struct rc_stripe *stripe, uint64_t hash)
{
    rc_ghost_add(stripe->ghosts, stripe->shape->ghost_count, hash);
}

static void write_block(struct rc_stripe *stripe, uint32_t ref, const struct rc_near_entry *entry,
                        uint32_t stamp, uint64_t ticks)
{
    struct rc_block *block = rc_block_at(stripe->arena, ref);
    uint64_t serial = ++stripe->head->serial;
    uint32_t version[2];
    memcpy(version, entry->version, sizeof(version));
    if (entry->kind == RC_KIND_PLAIN &&
        stamp != RC_NEAR_LOCAL_STAMP) { /* nothing else tells two plain values apart */
        version[0] = (uint32_t)serial;
        version[1] = (uint32_t)(serial >> 32) << 6 | rc_index_stripe(entry->hash);
    }
    rc_word_store32(&block->stamp, stamp);
    rc_word_store32(&block->deadline, (uint32_t)ticks);
    rc_word_store8(&block->codec, entry->codec);
    rc_word_store8(&block->entry_flags, entry->entry_flags);
    rc_word_store8(&block->group, entry->group);
    rc_word_store8(&block->generation, (uint8_t)serial);
    rc_word_store8(&block->kind, (uint8_t)(entry->kind | (ticks >> 32) << 3));
    rc_word_store16(&block->key_len, (uint16_t)entry->key_len);
    rc_word_store32(&block->version[0], version[0]);
    rc_word_store32(&block->version[1], version[1]);
    /* The key first: filling its last word up may reach into the value. */
    char *key = rc_block_key(block);
    rc_word_write(key, entry->key, entry->key_len);
    rc_word_write(key + rc_block_key_room(entry->key_len), entry->value, entry->value_len);
}

void rc_stripe_put(struct rc_stripe *stripe, uint32_t ref, struct rc_index_spot spot,
                   const struct rc_near_entry *entry, uint32_t stamp, uint64_t ticks, int queue,
                   uint32_t heat)
{
    write_block(stripe, ref, entry, stamp, ticks);
    rc_index_begin(spot.bucket);
    rc_index_put(spot, rc_index_tag(entry->hash), ref, heat);
    rc_index_end(spot.bucket);
    if (!enqueue(stripe, entry->group, ref, queue))
        return;
    count_entry(stripe, rc_block_at(stripe->arena, ref)->word, true);
}
