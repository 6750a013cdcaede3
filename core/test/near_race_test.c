/* Reads that overlap writes: values tell of themselves which write they are from, whole. */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "near/index.h"
#include "near/near.h"
#include "near/near_own.h"
#include "test/test.h"

enum {
    WRITERS = 2,
    READERS = 2,
    KEYS = 320, /* in few buckets, and twice the bytes there is room for */
    STEPS = 40000,
    STEPS_MAX = 200 * STEPS,
    LONGEST = 3000,
    MAX_STALE_US = 2000 * 1000000 /* on a busy machine it takes minutes until enough was seen */
};

struct bed {
    struct rc_near *near;
    struct rc_near_owner *owner;
    _Atomic uint32_t dropped[KEYS]; /* the newest write that was dropped, and the drop was over */
    atomic_int writers;             /* still at it */
    atomic_uint hits, overlaps, valids, moves, torn, late;
};

struct task {
    struct bed *bed;
    int number;
};

static size_t key_of(int id, char key[16])
{
    return (size_t)snprintf(key, 16, "key:%d", id);
}

/* Key and write again and again, cheap to check; the length follows from them. */
static size_t write_value(char *value, uint32_t id, uint32_t write)
{
    uint64_t seed = (uint64_t)id << 32 | write, word = seed;
    size_t len = 8 + test_below(&seed, write % 8 == 0 ? LONGEST - 8 : 200);
    for (size_t at = 0; at < len; at += 8)
        memcpy(value + at, &word, len - at < 8 ? len - at : 8);
    return len;
}

static bool is_whole(const char *value, size_t len, uint32_t id, uint32_t *write)
{
    uint64_t word, seed;
    if (len < 8)
        return false;
    memcpy(&word, value, 8);
    *write = (uint32_t)word;
    seed = word;
    if (word >> 32 != id || len != 8 + test_below(&seed, *write % 8 == 0 ? LONGEST - 8 : 200))
        return false;
    for (size_t at = 8; at < len; at += 8)
        if (memcmp(value + at, &word, len - at < 8 ? len - at : 8) != 0)
            return false;
    return true;
}

/* Readers have met writers often enough to speak of. On a busy machine that takes longer. */
static bool has_seen_enough(struct bed *bed)
{
    return atomic_load(&bed->hits) > 1000 && atomic_load(&bed->valids) > 1000 &&
           atomic_load(&bed->overlaps) + atomic_load(&bed->moves) > 100;
}

/* A writer has its own keys, so that it knows what is the newest. */
static void *write_keys(void *argument)
{
    const struct task *task = argument;
    struct bed *bed = task->bed;
    uint64_t seed = (uint64_t)task->number + 1;
    uint32_t writes[KEYS] = {0};
    char key[16], value[LONGEST];
    for (int step = 0; step < STEPS || (step < STEPS_MAX && !has_seen_enough(bed)); step++) {
        int id = (int)test_below(&seed, KEYS / WRITERS) * WRITERS + task->number;
        struct rc_near_entry entry = {.key = key,
                                      .key_len = key_of(id, key),
                                      .value = value,
                                      .kind = RC_KIND_PLAIN,
                                      .deadline_us = INT64_MAX};
        entry.hash = rc_near_hash(bed->near, key, entry.key_len);
        if (test_below(&seed, 4) == 0) {
            rc_near_drop(bed->near, key, entry.key_len, step % 2 ? RC_NEAR_WRITE : RC_NEAR_PUSH);
            /* Release: with the acquire in read_key. */
            atomic_store_explicit(&bed->dropped[id], writes[id], memory_order_release);
        } else {
            entry.value_len = write_value(value, (uint32_t)id, ++writes[id]);
            rc_near_fill(bed->near, bed->owner, &entry,
                         rc_near_write_version(bed->near, entry.hash));
        }
        /* Threads that share one processor meet only where they give way: few steps at a time, so
           that a reader who comes back finds a change, and its own value still there. */
        if (step > STEPS && step % 4 == 0)
            sched_yield();
    }
    atomic_fetch_sub(&bed->writers, 1);
    return NULL;
}

static uint32_t dropped(struct bed *bed, int id)
{
    return atomic_load_explicit(&bed->dropped[id], memory_order_acquire);
}

/* In one step, or in three, among which writers have their turn. */
static int look(struct bed *bed, int id, bool is_sought, rc_near_value *value)
{
    char key[16];
    size_t len = key_of(id, key);
    if (!is_sought)
        return rc_near_lookup(bed->near, key, 4, key + 4, len - 4, MAX_STALE_US, value);
    struct rc_near_seek seek;
    int64_t now_us = rc_near_reader_us(bed->near);
    struct rc_near_prefix prefix;
    rc_near_prefix_init(&prefix, key, 4);
    rc_near_seek(bed->near, &prefix, key + 4, len - 4, &seek);
    rc_near_seek_block(&seek);
    if (id % 16 == 0)
        sched_yield();
    return rc_near_lookup_sought(bed->near, &seek, now_us, MAX_STALE_US, value);
}

static void read_key(struct bed *bed, int id, bool is_sought, rc_near_value *value)
{
    uint32_t write = 0, before = dropped(bed, id);
    if (look(bed, id, is_sought, value) != RC_NEAR_HIT)
        return;
    atomic_fetch_add(&bed->hits, 1);
    const struct rc_index_bucket *bucket = value->handle.bucket;
    uint32_t version = value->handle.bucket_version;
    if (rc_index_read(bucket) != version)
        atomic_fetch_add(&bed->overlaps, 1);
    if (!is_whole(value->data, value->len, (uint32_t)id, &write))
        atomic_fetch_add(&bed->torn, 1);
    else if (write <= before)
        atomic_fetch_add(&bed->late, 1);
    for (int i = 0; i < 8; i++) {
        /* Between copy and check, where threads share a processor: see write_keys. */
        if (i == 4 && id % 16 == 0)
            sched_yield();
        before = dropped(bed, id);
        if (!rc_near_is_valid(bed->near, &value->handle, MAX_STALE_US))
            break;
        atomic_fetch_add(&bed->valids, 1);
        if (value->handle.bucket_version != version)
            atomic_fetch_add(&bed->moves, 1);
        version = value->handle.bucket_version;
        if (write <= before)
            atomic_fetch_add(&bed->late, 1);
    }
}

static void *read_keys(void *argument)
{
    const struct task *task = argument;
    uint64_t seed = (uint64_t)task->number + 100;
    char buffer[LONGEST];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    while (atomic_load(&task->bed->writers) > 0)
        read_key(task->bed, (int)test_below(&seed, KEYS), test_below(&seed, 2) == 0, &value);
    return NULL;
}

static void never_tears_or_mixes_up_values_that_change_while_they_are_read(void)
{
    static struct bed bed;
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES, .stripes = 1};
    struct task tasks[WRITERS + READERS];
    pthread_t threads[WRITERS + READERS];
    const char *why;
    rc_near_stats stats;
    if (!CHECK(rc_near_open(&bed.near, &options, &why) == 0))
        return;
    bed.owner = rc_near_add_owner(bed.near, NULL);
    rc_near_set_asof(bed.owner, rc_near_now_us());
    atomic_store(&bed.writers, WRITERS);
    for (int i = 0; i < WRITERS + READERS; i++) {
        tasks[i] = (struct task){&bed, i < WRITERS ? i : i - WRITERS};
        CHECK(pthread_create(&threads[i], NULL, i < WRITERS ? write_keys : read_keys, &tasks[i]) ==
              0);
    }
    for (int i = 0; i < WRITERS + READERS; i++)
        pthread_join(threads[i], NULL);
    rc_near_read_stats(bed.near, &stats);
    printf("     %u hits, %u of them with a change at once, %u valid handles, %u of them over a "
           "change, %llu evictions: %u torn, %u late\n",
           atomic_load(&bed.hits), atomic_load(&bed.overlaps), atomic_load(&bed.valids),
           atomic_load(&bed.moves), (unsigned long long)stats.evictions, atomic_load(&bed.torn),
           atomic_load(&bed.late));
    CHECK(atomic_load(&bed.torn) == 0);
    CHECK(atomic_load(&bed.late) == 0);
    CHECK(stats.evictions > 100);
    CHECK(has_seen_enough(&bed));
    rc_near_close(bed.near);
}

/* ---- drops that meet a fill ------------------------------------------------------------------ */

enum { DROPS = 20000, LOOKS = 1000, ENOUGH = 20 };

struct duel {
    struct rc_near *near;
    struct rc_near_owner *owner;
    _Atomic uint32_t round;
    atomic_int is_over;
    atomic_uint fills;
};

/* Fills the number of a round that began no earlier than its count of writes was read. */
static void *fill_rounds(void *argument)
{
    struct duel *duel = argument;
    while (!atomic_load(&duel->is_over)) {
        uint32_t round;
        struct rc_near_entry entry = {.key = "key",
                                      .key_len = 3,
                                      .value = (const char *)&round,
                                      .value_len = sizeof(round),
                                      .kind = RC_KIND_PLAIN,
                                      .deadline_us = INT64_MAX};
        entry.hash = rc_near_hash(duel->near, "key", 3);
        uint32_t writes = rc_near_write_version(duel->near, entry.hash);
        round = atomic_load(&duel->round);
        if (rc_near_fill(duel->near, duel->owner, &entry, writes) &&
            atomic_fetch_add(&duel->fills, 1) % 100 == 99)
            sched_yield(); /* as its reader does */
    }
    return NULL;
}

static void leaves_nothing_that_was_asked_for_before_a_write(void)
{
    static struct duel duel;
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES, .stripes = 1};
    pthread_t filler;
    const char *why;
    char buffer[16];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    int hits = 0, older = 0;
    if (!CHECK(rc_near_open(&duel.near, &options, &why) == 0))
        return;
    duel.owner = rc_near_add_owner(duel.near, NULL);
    rc_near_set_asof(duel.owner, rc_near_now_us());
    CHECK(pthread_create(&filler, NULL, fill_rounds, &duel) == 0);
    /* Short of processors, not all rounds are done; but for twenty seconds enough of them. */
    int64_t start_us = rc_near_now_us();
    for (uint32_t round = 1; round <= DROPS; round++) {
        uint32_t found = round;
        if (rc_near_now_us() - start_us > (hits > ENOUGH ? 2000000 : 20000000))
            break;
        atomic_store(&duel.round, round);
        rc_near_drop(duel.near, "key", 3, RC_NEAR_WRITE);
        int outcome = RC_NEAR_MISS;
        for (int i = 0; i < LOOKS && outcome != RC_NEAR_HIT; i++) {
            if (i % 100 == 99)
                sched_yield(); /* there may be one processor for both */
            outcome = rc_near_lookup(duel.near, "key", 3, NULL, 0, MAX_STALE_US, &value);
        }
        if (outcome == RC_NEAR_HIT) {
            memcpy(&found, value.data, sizeof(found));
            hits++;
            older += found < round;
        }
    }
    atomic_store(&duel.is_over, 1);
    pthread_join(filler, NULL);
    printf("     %u fills, %d hits: %d from before the write\n", atomic_load(&duel.fills), hits,
           older);
    CHECK(older == 0);
    CHECK(hits > ENOUGH && atomic_load(&duel.fills) > ENOUGH);
    rc_near_close(duel.near);
}

/* ---- memory that is anything ----------------------------------------------------------------- */

/* A reader may find any bytes where it looks: what is there may be recycled at that moment. Sizes
   and places beyond the mapping would end this test. */
static void reads_nothing_outside_whatever_it_finds(void)
{
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES, .stripes = 1};
    struct rc_near *near;
    uint64_t seed = 1;
    const char *why;
    char buffer[256], key[16];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    int found = 0;
    if (!CHECK(rc_near_open(&near, &options, &why) == 0))
        return;
    const struct rc_stripe *stripe = &near->region.stripes[0];
    for (int i = 0; i < 300000; i++) {
        size_t len = key_of((int)test_below(&seed, KEYS), key);
        uint64_t hash = rc_near_hash(near, key, len);
        struct rc_index_bucket *bucket =
            rc_index_bucket(stripe->buckets, stripe->shape->bucket_count, hash, i & 1);
        uint32_t units = (uint32_t)(stripe->shape->arena_bytes / 8);
        uint32_t ref = i % 3 == 0 ? (uint32_t)test_random(&seed) >> test_below(&seed, 32)
                                  : units - test_below(&seed, 12); /* the arena's very end */
        ref &= RC_INDEX_REF;
        rc_index_put((struct rc_index_spot){bucket, test_below(&seed, RC_INDEX_SLOTS)},
                     rc_index_tag(hash), ref, 0);
        if (ref > 0 && ref + 11 <= units) {
            struct rc_block *block = rc_block_at(stripe->arena, ref);
            block->word = (uint32_t)test_random(&seed) >> test_below(&seed, 32);
            block->key_len = (uint16_t)(i % 5 == 0 ? test_random(&seed) : len);
            rc_word_write(rc_block_key(block), key, len);
        }
        found += rc_near_lookup(near, key, len, NULL, 0, MAX_STALE_US, &value) != RC_NEAR_MISS;
        (void)rc_near_is_valid(near, &value.handle, MAX_STALE_US);
    }
    CHECK(found > 1000);
    rc_near_close(near);
}

int main(void)
{
    TEST(never_tears_or_mixes_up_values_that_change_while_they_are_read);
    TEST(leaves_nothing_that_was_asked_for_before_a_write);
    TEST(reads_nothing_outside_whatever_it_finds);
    return test_result();
}
