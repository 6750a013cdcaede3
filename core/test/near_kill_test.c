/* Writers of one region are killed at any moment; readers go on and never see half a value.
   usage: near_kill_test [KILLS] */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "near/near.h"
#include "near/region.h"
#include "near/near_own.h"
#include "test/test.h"

enum {
    WRITERS = 4,
    READERS = 2,
    STRIPES = 4,
    KEYS = 3000, /* more than there is room for */
    LONGEST = 2000,
    MAX_STALE_US = 10 * 1000000
};

/* Shared by all processes. */
struct board {
    _Atomic uint64_t hits, stale, torn, reads, fills;
    atomic_int is_over;
};

static struct rc_near *near;
static struct board *board;

static size_t key_of(uint32_t id, char key[16])
{
    return (size_t)snprintf(key, 16, "key:%u", id);
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

static bool is_whole(const char *value, size_t len, uint32_t id)
{
    uint64_t word, seed;
    uint32_t write;
    if (len < 8)
        return false;
    memcpy(&word, value, 8);
    write = (uint32_t)word;
    seed = word;
    if (word >> 32 != id || len != 8 + test_below(&seed, write % 8 == 0 ? LONGEST - 8 : 200))
        return false;
    for (size_t at = 8; at < len; at += 8)
        if (memcmp(value + at, &word, len - at < 8 ? len - at : 8) != 0)
            return false;
    return true;
}

static bool fill(struct rc_near_owner *owner, uint32_t id, uint32_t write)
{
    char key[16], value[LONGEST];
    struct rc_near_entry entry = {.key = key,
                                  .key_len = key_of(id, key),
                                  .value = value,
                                  .value_len = write_value(value, id, write),
                                  .kind = RC_KIND_PLAIN,
                                  .deadline_us = INT64_MAX};
    entry.hash = rc_near_hash(near, key, entry.key_len);
    return rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash));
}

static void run_writer(uint64_t seed)
{
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    while (owner != NULL && !atomic_load(&board->is_over)) {
        char key[16];
        uint32_t id = test_below(&seed, KEYS);
        rc_near_set_asof(owner, rc_near_now_us());
        if (test_below(&seed, 5) == 0)
            rc_near_drop(near, key, key_of(id, key), id % 2 ? RC_NEAR_WRITE : RC_NEAR_PUSH);
        else if (fill(owner, id, (uint32_t)test_random(&seed)))
            atomic_fetch_add(&board->fills, 1);
    }
}

static void run_reader(uint64_t seed)
{
    char key[16], buffer[LONGEST];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    while (!atomic_load(&board->is_over)) {
        uint32_t id = test_below(&seed, KEYS);
        int outcome = rc_near_lookup(near, NULL, 0, key, key_of(id, key), MAX_STALE_US, &value);
        atomic_fetch_add(&board->reads, 1);
        if (outcome != RC_NEAR_HIT && outcome != RC_NEAR_STALE)
            continue;
        atomic_fetch_add(outcome == RC_NEAR_HIT ? &board->hits : &board->stale, 1);
        if (!is_whole(value.data, value.len, id))
            atomic_fetch_add(&board->torn, 1);
        (void)rc_near_is_valid(near, &value.handle, MAX_STALE_US);
    }
}

static pid_t start(void (*run)(uint64_t seed), uint64_t seed)
{
    pid_t child = fork();
    if (child == 0) {
        run(seed);
        _exit(0);
    }
    return child;
}

/* Each stripe takes entries and gives them back. */
static bool is_usable(void)
{
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    uint32_t stripes = 0;
    char key[16], buffer[LONGEST];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    if (owner == NULL)
        return false;
    rc_near_set_asof(owner, rc_near_now_us());
    for (uint32_t id = 0; id < 200; id++) {
        size_t len = key_of(id, key);
        stripes |=
            1u << (rc_near_stripe(near, rc_near_hash(near, key, len)) - near->region.stripes);
        if (!fill(owner, id, id) ||
            rc_near_lookup(near, NULL, 0, key, len, MAX_STALE_US, &value) != RC_NEAR_HIT ||
            !is_whole(value.data, value.len, id))
            return false;
    }
    rc_near_remove_owner(near, owner);
    return stripes == (1u << STRIPES) - 1;
}

static int kills = 100;

static void survives_writers_that_are_killed_at_any_moment(void)
{
    struct rc_near_options options = {.bytes = 1 << 20, .stripes = STRIPES};
    const char *why;
    pid_t writers[WRITERS], readers[READERS];
    uint64_t seed = 1, at_half = 0;
    rc_near_stats stats;
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(board != MAP_FAILED && rc_near_open(&near, &options, &why) == 0))
        return;
    for (int i = 0; i < WRITERS; i++)
        writers[i] = start(run_writer, test_random(&seed));
    for (int i = 0; i < READERS; i++)
        readers[i] = start(run_reader, test_random(&seed));
    for (int i = 0; i < kills; i++) {
        const struct timespec pause = {.tv_nsec = (long)test_below(&seed, 6000000)};
        int victim = (int)test_below(&seed, WRITERS);
        nanosleep(&pause, NULL); /* any moment will do */
        CHECK(kill(writers[victim], SIGKILL) == 0 && waitpid(writers[victim], NULL, 0) > 0);
        writers[victim] = start(run_writer, test_random(&seed));
        if (i == kills / 2)
            at_half = atomic_load(&board->hits);
    }
    atomic_store(&board->is_over, 1);
    for (int i = 0; i < WRITERS; i++)
        CHECK(waitpid(writers[i], NULL, 0) > 0);
    for (int i = 0; i < READERS; i++)
        CHECK(waitpid(readers[i], NULL, 0) > 0);
    rc_near_read_stats(near, &stats);
    printf("     %d kills, %llu repairs, %llu fills, %llu hits and %llu stale ones checked: %llu "
           "torn\n",
           kills, (unsigned long long)stats.repairs, (unsigned long long)atomic_load(&board->fills),
           (unsigned long long)atomic_load(&board->hits),
           (unsigned long long)atomic_load(&board->stale),
           (unsigned long long)atomic_load(&board->torn));
    CHECK(atomic_load(&board->torn) == 0);
    CHECK(atomic_load(&board->hits) > at_half + 100); /* it went on to the end */
    CHECK(kills < 100 || stats.repairs > 0);          /* some died in the middle */
    CHECK(is_usable());
    rc_near_close(near);
    munmap(board, sizeof(*board));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        kills = atoi(argv[1]);
    TEST(survives_writers_that_are_killed_at_any_moment);
    return test_result();
}
