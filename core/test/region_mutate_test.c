/* A region is input: bytes of it are changed, and readers and writers go on. None of them may
   crash, hang, or write outside of the stripe it works in; a damaged stripe is emptied, and usable
   again.
   usage: region_mutate_test [ROUNDS [FIRST]]     each round follows from its number alone */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "near/near_own.h"
#include "test/test.h"

enum {
    BYTES = 160 * 1024,
    STRIPES = 2,
    KEYS = 400,
    OWNERS = 4,
    GROUPS = 3,
    HANDLES = 16,
    STEPS = 80,
    LONGEST = 12000,
    PATIENCE_S = 60, /* for one round: a damaged mutex is waited for, a second each time */
    SECOND = 1000000
};

/* What the process that runs the rounds tells. */
struct board {
    _Atomic uint64_t round, emptied, refused, lost;
};

struct bed {
    struct rc_near *near;
    struct rc_near_owner *owners[OWNERS];
    uint8_t groups[GROUPS];
    rc_near_handle handles[HANDLES];
    char *pristine; /* the region's bytes before a round */
    uint64_t seed;
    bool stays_in_one; /* only the first stripe is changed and worked in */
};

static struct board *board;
static _Atomic int64_t now_us = 1000 * (int64_t)SECOND;
static char value_bytes[LONGEST];

static struct rc_stripe *stripe_of(struct bed *bed, const char *key, size_t len)
{
    return rc_near_stripe(bed->near, rc_near_hash(bed->near, key, len));
}

/* A key of any length; where the round stays in one stripe, one of the first. */
static size_t pick_key(struct bed *bed, char key[RC_NEAR_MAX_KEY + 1])
{
    for (;;) {
        uint32_t id = test_below(&bed->seed, KEYS);
        size_t len = (size_t)snprintf(key, 64, "key:%u", id);
        if (id % 16 == 0) {
            memset(key + len, 'k', 500);
            len += 500;
        }
        if (!bed->stays_in_one || stripe_of(bed, key, len) == &bed->near->region.stripes[0])
            return len;
    }
}

static struct rc_near_owner *pick_owner(struct bed *bed)
{
    return bed->owners[test_below(&bed->seed, OWNERS)];
}

/* ---- what readers and writers do ------------------------------------------------------------- */

static bool fill(struct bed *bed)
{
    char key[RC_NEAR_MAX_KEY + 1];
    struct rc_near_entry entry = {.key = key, .value = value_bytes};
    entry.key_len = pick_key(bed, key);
    entry.value_len = test_below(&bed->seed, test_below(&bed->seed, 8) == 0 ? LONGEST : 300);
    entry.kind = test_below(&bed->seed, 4) == 0 ? RC_KIND_PLAIN : RC_KIND_VALUE;
    entry.group = bed->groups[test_below(&bed->seed, GROUPS)];
    entry.deadline_us = now_us + 1 + test_below(&bed->seed, 4 * SECOND);
    entry.hash = rc_near_hash(bed->near, key, entry.key_len);
    memcpy(entry.version, &entry.hash, sizeof(entry.version));
    return rc_near_fill(bed->near, pick_owner(bed), &entry,
                        rc_near_write_version(bed->near, entry.hash));
}

static void look(struct bed *bed)
{
    char key[RC_NEAR_MAX_KEY + 1];
    size_t len = pick_key(bed, key), room = test_below(&bed->seed, 400);
    char *buffer = malloc(room + 1); /* of its own size: a byte too many is seen */
    rc_near_value value = {.buffer = buffer, .capacity = room};
    int outcome = rc_near_lookup(bed->near, NULL, 0, key, len, SECOND, &value);
    if (outcome == RC_NEAR_GROW) {
        CHECK(value.len <= BYTES);
        buffer = realloc(buffer, value.len + 1);
        value.buffer = buffer;
        value.capacity = value.len;
        outcome = rc_near_lookup(bed->near, NULL, 0, key, len, SECOND, &value);
    }
    if (outcome == RC_NEAR_HIT) {
        uint8_t sum = 0;
        for (size_t i = 0; i < value.len; i++)
            sum ^= (uint8_t)buffer[i];
        bed->handles[sum % HANDLES] = value.handle;
    }
    free(buffer);
}

static void drop(struct bed *bed)
{
    char key[RC_NEAR_MAX_KEY + 1];
    size_t len = pick_key(bed, key);
    rc_near_drop(bed->near, key, len,
                 test_below(&bed->seed, 2) == 0 ? RC_NEAR_PUSH : RC_NEAR_WRITE);
}

static void claim(struct bed *bed)
{
    struct rc_near_owner *owner = pick_owner(bed), *source = pick_owner(bed);
    struct rc_near_claim claims[RC_NEAR_CLAIMS];
    struct rc_buf keys;
    uint32_t cursor = 0;
    rc_buf_init(&keys);
    source = source == owner ? NULL : source;
    if (source == NULL)
        rc_near_renew_owner(owner);
    size_t count =
        rc_near_claims(bed->near, owner, source, RC_NEAR_ANY_HEAT, &cursor, 1000, claims, &keys);
    for (size_t i = 0; i < count; i++) {
        const char *key = rc_buf_head(&keys) + claims[i].key_at;
        if (i % 2 == 0)
            rc_near_confirm(bed->near, owner, source, key, claims[i].key_len, claims[i].version,
                            now_us + SECOND);
        else
            rc_near_drop_claim(bed->near, owner, source, key, claims[i].key_len);
    }
    rc_buf_deinit(&keys);
}

/* What looks at the whole region. */
static void look_around(struct bed *bed)
{
    rc_near_stats stats;
    struct rc_near_owner *owner = NULL;
    switch (test_below(&bed->seed, 4)) {
    case 0: rc_near_sweep(bed->near, 0, 1000); break;
    case 1: claim(bed); break;
    case 2:
        rc_near_read_stats(bed->near, &stats);
        rc_near_group(bed->near, "a:", 2, 1000, test_below(&bed->seed, BYTES));
        if ((owner = rc_near_add_owner(bed->near, NULL)) != NULL)
            rc_near_remove_owner(bed->near, owner);
        break;
    default:
        rc_near_offer(bed->near, pick_owner(bed));
        if ((owner = rc_near_take_offer(bed->near, bed->owners[0])) != NULL)
            rc_near_end_offer(owner);
    }
}

static void step(struct bed *bed)
{
    uint32_t dice = test_below(&bed->seed, 100);
    rc_near_handle *handle = &bed->handles[test_below(&bed->seed, HANDLES)];
    if (dice < 40) {
        look(bed);
    } else if (dice < 75) {
        (void)fill(bed);
    } else if (dice < 90) {
        drop(bed);
    } else if (dice < 95 || bed->stays_in_one) {
        rc_near_set_asof(pick_owner(bed), now_us);
        (void)rc_near_is_valid(bed->near, handle, SECOND);
        now_us += test_below(&bed->seed, SECOND / 4);
    } else {
        look_around(bed);
    }
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* A part of the region: where it begins, and how long it is. */
struct part {
    size_t at, len;
};

static struct part part_of(const struct bed *bed, const void *at, size_t len)
{
    return (struct part){(size_t)((const char *)at - bed->near->region.base), len};
}

static struct part pick_part(struct bed *bed)
{
    struct rc_region *region = &bed->near->region;
    struct rc_stripe *stripe =
        &region->stripes[bed->stays_in_one ? 0 : test_below(&bed->seed, STRIPES)];
    const struct rc_stripe_shape *shape = &region->shape;
    uint32_t dice = test_below(&bed->seed, 300);
    if (test_below(&bed->seed, 1000) == 0) /* rare: each is waited for */
        return part_of(bed, &stripe->head->mutex, sizeof(stripe->head->mutex));
    if (dice < 60 && !bed->stays_in_one)
        return dice < 30
                   ? part_of(bed, region->head->groups,
                             sizeof(region->head->groups) + sizeof(region->head->bounds))
                   : part_of(bed, region->owners, region->owner_count * sizeof(*region->owners));
    if (dice < 120)
        return part_of(bed, &stripe->head->writing,
                       sizeof(*stripe->head) - offsetof(struct rc_stripe_head, writing));
    if (dice < 180)
        return part_of(bed, stripe->buckets, shape->bucket_count * sizeof(*stripe->buckets));
    if (dice < 190)
        return part_of(bed, stripe->ghosts, shape->ghost_count * sizeof(*stripe->ghosts));
    if (dice < 200)
        return part_of(bed, &stripe->head->writing,
                       shape->bytes - offsetof(struct rc_stripe_head, writing));
    return part_of(bed, stripe->arena,
                   stripe->head->arena.top < shape->arena_bytes / 8
                       ? stripe->head->arena.top * (size_t)8 + 8
                       : shape->arena_bytes);
}

/* A word that a check may have forgotten. */
static uint32_t pick_word(struct bed *bed)
{
    static const uint32_t words[] = {0, 1, 2, UINT32_MAX, INT32_MAX, UINT32_C(1) << 31, 1 << 30};
    uint32_t dice = test_below(&bed->seed, 10);
    return dice < 7 ? words[dice] : test_below(&bed->seed, dice == 7 ? BYTES / 8 : UINT32_MAX);
}

static void damage(struct bed *bed)
{
    uint32_t count = 1 + test_below(&bed->seed, test_below(&bed->seed, 4) == 0 ? 40 : 4);
    for (uint32_t i = 0; i < count; i++) {
        struct part part = pick_part(bed);
        char *base = bed->near->region.base + part.at;
        size_t at = test_below(&bed->seed, (uint32_t)part.len);
        uint32_t word = pick_word(bed), dice = test_below(&bed->seed, 10);
        if (dice < 6) {
            base[at] = (char)(base[at] ^ (1 << test_below(&bed->seed, 8)));
        } else if (dice < 9 && part.len >= 8) {
            at = (at & ~(size_t)3) + 4 <= part.len ? at & ~(size_t)3 : 0;
            memcpy(base + at, &word, 4);
        } else {
            size_t len = test_below(&bed->seed, 200);
            memset(base + at, (int)word, len < part.len - at ? len : part.len - at);
        }
    }
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void open_bed(struct bed *bed, uint64_t seed)
{
    struct rc_mix_seed mix = {{seed, 2, 3, 4}};
    struct rc_near_options options = {
        .bytes = BYTES, .stripes = STRIPES, .seed = &mix, .clock = &now_us};
    const char *why;
    memset(bed, 0, sizeof(*bed));
    bed->seed = seed;
    if (rc_near_open(&bed->near, &options, &why) != 0)
        exit(1);
    bed->groups[1] = rc_near_group(bed->near, "a:", 2, 1000, 30000);
    bed->groups[2] = rc_near_group(bed->near, "b:", 2, 0, 60000);
    for (int i = 0; i < OWNERS; i++) {
        bed->owners[i] = rc_near_add_owner(bed->near, NULL);
        rc_near_set_asof(bed->owners[i], now_us);
    }
    bed->pristine = malloc(BYTES);
}

static void save(struct bed *bed, int steps)
{
    bed->stays_in_one = false;
    for (int i = 0; i < steps; i++)
        step(bed);
    memcpy(bed->pristine, bed->near->region.base, BYTES);
}

static void close_bed(struct bed *bed)
{
    rc_near_close(bed->near);
    free(bed->pristine);
}

/* What the process knows by itself, back to what it was. */
static void restore(struct bed *bed)
{
    memcpy(bed->near->region.base, bed->pristine, BYTES);
    memset(bed->handles, 0, sizeof(bed->handles));
    for (uint32_t i = 0; i < STRIPES; i++)
        atomic_store(&bed->near->region.stripes[i].is_lost, false);
}

/* Emptied, a stripe works as if it were new. */
static void check_stripe(struct bed *bed, struct rc_stripe *stripe)
{
    char key[RC_NEAR_MAX_KEY + 1], buffer[8];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    struct rc_near_entry entry = {
        .key = key, .value = "value", .value_len = 5, .deadline_us = INT64_MAX};
    entry.kind = RC_KIND_VALUE;
    if (!rc_stripe_lock(stripe)) {
        atomic_fetch_add(&board->lost, 1); /* its mutex */
        return;
    }
    rc_stripe_damage(stripe);
    rc_stripe_unlock(stripe);
    CHECK(atomic_load(&stripe->head->counters[RC_STRIPE_ENTRIES]) == 0);
    memset(bed->near->region.owners, 0, sizeof(struct rc_near_owner));
    rc_near_renew_owner(bed->owners[0]);
    rc_near_set_asof(bed->owners[0], now_us);
    for (uint32_t i = 0; i < RC_NEAR_GROUPS; i++)
        atomic_store(&bed->near->region.head->bounds.max[i], 0);
    do
        entry.key_len = pick_key(bed, key);
    while (stripe_of(bed, key, entry.key_len) != stripe);
    entry.hash = rc_near_hash(bed->near, key, entry.key_len);
    CHECK(rc_near_fill(bed->near, bed->owners[0], &entry,
                       rc_near_write_version(bed->near, entry.hash)));
    CHECK(rc_near_lookup(bed->near, NULL, 0, key, entry.key_len, SECOND, &value) == RC_NEAR_HIT &&
          value.len == 5);
}

static void check_end(struct bed *bed)
{
    rc_near_stats after;
    struct rc_region *region = &bed->near->region;
    const struct rc_stripe *other = &region->stripes[1];
    struct part part = part_of(bed, other->head, region->shape.bytes);
    if (bed->stays_in_one)
        CHECK(memcmp(region->base + part.at, bed->pristine + part.at, part.len) == 0 &&
              memcmp(region->base, bed->pristine, offsetof(struct rc_region_head, mutex)) == 0);
    rc_near_read_stats(bed->near, &after);
    if (after.damaged < 1000)
        atomic_fetch_add(&board->emptied, after.damaged);
    for (uint32_t i = 0; i < (bed->stays_in_one ? 1u : STRIPES); i++)
        check_stripe(bed, &region->stripes[i]);
}

/* The file of a named region, changed anywhere: it is refused, or it works. */
static void open_damaged(struct bed *bed)
{
    char name[40], path[60];
    snprintf(name, sizeof(name), "mutate.%d", (int)getpid());
    snprintf(path, sizeof(path), "/redcache-%s", name);
    struct rc_near_options options = {
        .bytes = BYTES, .name = name, .name_len = strlen(name), .stripes = STRIPES};
    options.clock = &now_us;
    struct rc_near *near = NULL, *made = NULL;
    const char *why;
    if (!CHECK(rc_near_open(&made, &options, &why) == 0))
        return;
    size_t len = test_below(&bed->seed, 2) == 0 ? offsetof(struct rc_region_head, mutex) : BYTES;
    for (uint32_t i = 1 + test_below(&bed->seed, 8); i > 0; i--)
        made->region.base[test_below(&bed->seed, (uint32_t)len)] ^=
            (char)(1 << test_below(&bed->seed, 8));
    if (rc_near_open(&near, &options, &why) == 0) {
        struct bed other = {.near = near, .seed = bed->seed, .pristine = malloc(BYTES)};
        for (int i = 0; i < OWNERS; i++)
            if ((other.owners[i] = rc_near_add_owner(near, NULL)) == NULL)
                other.owners[i] = &near->region.owners[i]; /* the head's mutex is damaged */
        for (int i = 0; i < STEPS; i++)
            step(&other);
        close_bed(&other);
    } else {
        atomic_fetch_add(&board->refused, 1);
    }
    rc_near_close(made);
    rc_near_unlink(name, strlen(name));
}

enum { BEDS = 3 };

static void run_round(struct bed beds[BEDS], uint64_t round)
{
    struct bed *bed = &beds[round % BEDS];
    bed->seed = round * UINT64_C(0x9e3779b97f4a7c15) + 1;
    if (test_below(&bed->seed, 50) == 0) {
        open_damaged(bed);
        return;
    }
    restore(bed);
    bed->stays_in_one = test_below(&bed->seed, 3) == 0;
    for (int i = 0; i < 6; i++)
        look(bed); /* handles to be asked for later */
    damage(bed);
    for (int i = 0; i < STEPS; i++) {
        if (test_below(&bed->seed, 40) == 0)
            damage(bed);
        step(bed);
    }
    check_end(bed);
}

static void run_rounds(uint64_t first, uint64_t count)
{
    struct bed beds[BEDS];
    const int steps[BEDS] = {60, 1500, 6000};
    for (size_t i = 0; i < sizeof(value_bytes); i++)
        value_bytes[i] = (char)(i * 31);
    for (int i = 0; i < BEDS; i++) {
        open_bed(&beds[i], (uint64_t)i + 1);
        save(&beds[i], steps[i]);
    }
    for (uint64_t round = first; round < first + count; round++) {
        int failures = test_failures;
        atomic_store(&board->round, round);
        run_round(beds, round);
        if (test_failures != failures)
            fprintf(stderr, "round %llu\n", (unsigned long long)round);
    }
    for (int i = 0; i < BEDS; i++)
        close_bed(&beds[i]);
}

/* ---- who watches ----------------------------------------------------------------------------- */

static uint64_t rounds = 2000, first_round;

/* Whether the child ended well; it is killed where a round does not end. */
static bool watch(pid_t child)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    uint64_t seen = UINT64_MAX, since = 0;
    int status;
    for (uint64_t ticks = 0; waitpid(child, &status, WNOHANG) == 0; ticks++) {
        uint64_t round = atomic_load(&board->round);
        since = round != seen ? ticks : since;
        seen = round;
        if (ticks - since > PATIENCE_S * 50) {
            fprintf(stderr, "it hangs\n");
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void goes_on_in_a_damaged_region(void)
{
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(board != MAP_FAILED))
        return;
    pid_t child = fork();
    if (child == 0) {
        run_rounds(first_round, rounds);
        exit(test_result());
    }
    if (!CHECK(watch(child)))
        fprintf(stderr, "in round %llu\n", (unsigned long long)atomic_load(&board->round));
    printf("     %llu rounds, %llu stripes emptied, %llu mutexes lost, %llu files refused\n",
           (unsigned long long)rounds, (unsigned long long)atomic_load(&board->emptied),
           (unsigned long long)atomic_load(&board->lost),
           (unsigned long long)atomic_load(&board->refused));
    CHECK(rounds < 1000 || atomic_load(&board->emptied) > rounds / 10);
    munmap(board, sizeof(*board));
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : rounds;
    first_round = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    TEST(goes_on_in_a_damaged_region);
    return test_result();
}
