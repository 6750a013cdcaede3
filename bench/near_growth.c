/*
 * near_growth - what a near hit costs from 1,000 to 10,000,000 keys, beside a plain C table.
 *
 * usage: build/near_growth [--keys N,N,...] [--rounds N] [--reads N] [--side near|table] [--json]
 *   entries of 16 bytes of key and 100 of value, for each of these counts of keys (1,000 to
 *   10,000,000: that takes 3.3 GB); rounds (9) of so many reads (1,000,000) of random keys, the
 *   sides in turn; one side alone: for counting its instructions; as JSON on standard output:
 *   build/bench/near_growth.json is where script/bench charts looks for it
 *
 * The table does what a reader cannot do without: it has the same two buckets of twelve places for
 * a key, each with a byte of its hash, equally full, and entries of as many bytes; it compares the
 * key and copies the value. It has no versions, no clock, no owners and no second process, and its
 * memory has pages of the same size. Only the reads are timed, not how keys are made. Each entry
 * was read three times before: the near cache counts so many reads of each, by an instruction that
 * waits for memory.
 *
 * Told for each count: ns of a hit of either side (median, least and most of the rounds), and the
 * ratio of the two in each round (median). Exit status 1: some median is above the bar.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/mman.h>

#include "near/near_own.h"

enum { KEY_BYTES = 16, PREFIX_BYTES = 4, VALUE_BYTES = 100, STALE_US = 2147483647 };
enum { BATCH = 256, MAX_ROUNDS = 99, MAX_COUNTS = 16 };
enum { HEAD_BYTES = 8 };

static const double RATIO_BAR = 1.5;

static _Noreturn void fail(const char *what, const char *detail)
{
    fprintf(stderr, "near_growth: %s: %s\n", what, detail);
    exit(2);
}

/* SplitMix64. */
static uint64_t mix(uint64_t word)
{
    word += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

static void make_key(uint64_t number, char key[KEY_BYTES])
{
    uint64_t words[2] = {mix(number), mix(~number)};
    memcpy(key, words, KEY_BYTES);
    memcpy(key, "app:", PREFIX_BYTES);
}

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* ---- the plain table ------------------------------------------------------------------------- */

/* `refs` are numbers of entries, from 1 on. */
struct table {
    struct rc_mix_seed seed;
    struct rc_index_bucket *buckets;
    uint32_t bucket_count;
    char *entries; /* each: two lengths, key, value */
    size_t entry_bytes;
    size_t mapped[2];
};

/* Shared, as the near cache is: the kernel maps both by pages of one size. */
static void *map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (at == MAP_FAILED)
        fail("could not open a table", "there is no memory");
    return at;
}

static void table_open(struct table *table, uint64_t count, size_t entry_bytes,
                       uint32_t bucket_count)
{
    *table = (struct table){.seed = {{mix(1), mix(2), mix(3), mix(4)}}};
    table->bucket_count = bucket_count;
    table->entry_bytes = entry_bytes;
    table->mapped[0] = (size_t)bucket_count * sizeof(struct rc_index_bucket);
    table->mapped[1] = (size_t)count * entry_bytes;
    table->buckets = map(table->mapped[0]);
    table->entries = map(table->mapped[1]);
}

static void table_close(struct table *table)
{
    munmap(table->buckets, table->mapped[0]);
    munmap(table->entries, table->mapped[1]);
}

static struct rc_index_bucket *table_bucket(const struct table *table, uint64_t hash, int choice)
{
    return rc_index_bucket(table->buckets, table->bucket_count, hash, choice);
}

static void table_put(struct table *table, uint32_t number, const char *key, const char *value)
{
    uint64_t hash = rc_mix(&table->seed, key, KEY_BYTES);
    struct rc_index_spot room = rc_index_find_room(table->buckets, table->bucket_count, hash);
    uint32_t lengths[2] = {KEY_BYTES, VALUE_BYTES};
    char *entry = table->entries + number * table->entry_bytes;
    if (room.bucket == NULL)
        return; /* as seldom as the near cache evicts for want of a place */
    rc_index_put(room, rc_index_tag(hash), number + 1, 0);
    memcpy(entry, lengths, HEAD_BYTES);
    memcpy(entry + HEAD_BYTES, key, KEY_BYTES);
    memcpy(entry + HEAD_BYTES + KEY_BYTES, value, VALUE_BYTES);
}

static const char *table_find(const struct table *table, const char *key, size_t key_len)
{
    uint64_t hash = rc_mix(&table->seed, key, key_len);
    for (int choice = 0; choice < 2; choice++) {
        const struct rc_index_bucket *bucket = table_bucket(table, hash, choice);
        uint32_t matches = rc_index_matches(bucket, rc_index_tag(hash));
        for (; matches != 0; matches &= matches - 1) {
            uint32_t ref = rc_index_ref(bucket, rc_index_first(matches)), len;
            if (ref == 0)
                continue;
            const char *entry = table->entries + (size_t)(ref - 1) * table->entry_bytes;
            memcpy(&len, entry, sizeof len);
            if (len == key_len && memcmp(entry + HEAD_BYTES, key, key_len) == 0)
                return entry;
        }
    }
    return NULL;
}

/* Lengths are read, as the near cache has to: they are not known when this is compiled. */
static __attribute__((noinline)) size_t table_get(const struct table *table, const char *key,
                                                  size_t key_len, char *buffer, size_t capacity)
{
    const char *entry = table_find(table, key, key_len);
    if (entry == NULL)
        return 0;
    uint32_t len;
    memcpy(&len, entry + 4, sizeof len);
    if (len > capacity)
        return 0;
    memcpy(buffer, entry + HEAD_BYTES + key_len, len);
    return len;
}

/* ---- both sides ------------------------------------------------------------------------------ */

enum side { SIDE_NEAR, SIDE_TABLE, SIDES };
static const char *const SIDE_NAMES[SIDES] = {"near", "table"};

struct subject {
    uint64_t count;
    uint64_t turn; /* of random numbers */
    uint64_t misses[SIDES];
    size_t prefix_len; /* bytes of a key that are its namespace's: given apart, as a view does */
    struct rc_near *near;
    struct rc_near_owner *owner;
    struct table table;
};

static void fill(struct subject *subject, const char *key, const char *value)
{
    struct rc_near_entry entry = {
        .hash = rc_near_hash(subject->near, key, KEY_BYTES),
        .key = key,
        .key_len = KEY_BYTES,
        .value = value,
        .value_len = VALUE_BYTES,
        .kind = RC_KIND_VALUE,
        .deadline_us = INT64_MAX,
    };
    uint32_t writes = rc_near_write_version(subject->near, entry.hash);
    if (!rc_near_fill(subject->near, subject->owner, &entry, writes))
        fail("could not fill the near cache", "an entry was refused");
}

static void open_near(struct subject *subject)
{
    /* A little more than needed: hardly anything is evicted. */
    struct rc_near_options options = {.bytes = (size_t)subject->count * 168 + (160 << 10)};
    const char *why = "";
    if (rc_near_open(&subject->near, &options, &why) != 0)
        fail("could not open a near cache", why);
    subject->owner = rc_near_add_owner(subject->near, &why);
    if (subject->owner == NULL)
        fail("could not open a near cache", why);
}

static void open_subject(struct subject *subject, uint64_t count, bool has_table)
{
    char key[KEY_BYTES], value[VALUE_BYTES];
    rc_near_stats stats;
    *subject = (struct subject){.count = count, .prefix_len = PREFIX_BYTES};
    open_near(subject);
    for (uint64_t i = 0; i < count; i++) {
        make_key(i, key);
        memset(value, (int)mix(i), sizeof value);
        fill(subject, key, value);
    }
    rc_near_read_stats(subject->near, &stats);
    if (stats.entries < count - count / 100)
        fail("the near cache", "it has not kept all");
    if (!has_table)
        return;
    const struct rc_region *region = &subject->near->region;
    table_open(&subject->table, count, (size_t)(stats.bytes / stats.entries),
               region->shape.bucket_count * region->stripe_count);
    for (uint64_t i = 0; i < count; i++) {
        make_key(i, key);
        memset(value, (int)mix(i), sizeof value);
        table_put(&subject->table, (uint32_t)i, key, value);
    }
}

static void close_subject(struct subject *subject)
{
    if (subject->table.buckets != NULL)
        table_close(&subject->table);
    rc_near_remove_owner(subject->near, subject->owner);
    rc_near_close(subject->near);
}

static void read_near(struct subject *subject, char (*keys)[KEY_BYTES])
{
    char buffer[256];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    struct rc_near_prefix prefix;
    rc_near_prefix_init(&prefix, keys[0], subject->prefix_len);
    for (int i = 0; i < BATCH; i++)
        subject->misses[SIDE_NEAR] +=
            rc_near_get(subject->near, &prefix, keys[i] + subject->prefix_len,
                        KEY_BYTES - subject->prefix_len, STALE_US, &value) != RC_NEAR_HIT;
}

static void read_table(struct subject *subject, char (*keys)[KEY_BYTES])
{
    char buffer[256];
    for (int i = 0; i < BATCH; i++)
        subject->misses[SIDE_TABLE] +=
            table_get(&subject->table, keys[i], KEY_BYTES, buffer, sizeof buffer) != VALUE_BYTES;
}

/* Reads what was filled, in the order of filling. */
static void read_all(struct subject *subject)
{
    char keys[BATCH][KEY_BYTES];
    rc_near_set_asof(subject->owner, rc_near_now_us());
    for (uint64_t i = 0; i < subject->count; i += BATCH) {
        for (int j = 0; j < BATCH; j++)
            make_key((i + (uint64_t)j) % subject->count, keys[j]);
        read_near(subject, keys);
    }
}

/* Nanoseconds of one read. */
static double measure(struct subject *subject, enum side side, uint64_t reads)
{
    char keys[BATCH][KEY_BYTES];
    double spent = 0;
    uint64_t done = 0;
    rc_near_set_asof(subject->owner, rc_near_now_us());
    for (; done < reads; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            make_key(mix(++subject->turn) % subject->count, keys[i]);
        double began = nanoseconds();
        if (side == SIDE_NEAR)
            read_near(subject, keys);
        else
            read_table(subject, keys);
        spent += nanoseconds() - began;
    }
    return spent / (double)done;
}

/* ---- figures --------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

struct figure {
    double median, least, most;
};

static struct figure figure_of(double *numbers, int count)
{
    qsort(numbers, (size_t)count, sizeof *numbers, compare);
    return (struct figure){numbers[count / 2], numbers[0], numbers[count - 1]};
}

struct options {
    uint64_t counts[MAX_COUNTS];
    int count_count;
    uint64_t rounds, reads;
    int only; /* of enum side; SIDES: both */
    bool is_json;
};

static void tell_figure(const char *name, struct figure figure)
{
    printf("\"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", name, figure.median,
           figure.least, figure.most);
}

/* A side as the other benches tell theirs. */
static void tell_json(const struct options *options, uint64_t count, const struct figure *figures)
{
    static const char *between = "\n";
    for (int side = 0; side < SIDES; side++) {
        if (options->only != SIDES && options->only != side)
            continue;
        printf("%s{\"name\": \"%s, %" PRIu64 "\", \"figures\": {", between, SIDE_NAMES[side],
               count);
        between = ",\n";
        tell_figure("ns", figures[side]);
        if (options->only == SIDES && side == SIDE_NEAR) {
            printf(", ");
            tell_figure("ratio", figures[SIDES]);
        }
        printf("}}");
    }
}

static void tell(const struct options *options, uint64_t count, const struct figure *figures)
{
    printf("%9" PRIu64 " keys:", count);
    for (int side = 0; side < SIDES; side++)
        if (options->only == SIDES || options->only == side)
            printf("  %s %6.1f ns (%.1f to %.1f)", SIDE_NAMES[side], figures[side].median,
                   figures[side].least, figures[side].most);
    if (options->only == SIDES)
        printf("  near / table: bar: <= %.2f, got %.2f: %s", RATIO_BAR, figures[SIDES].median,
               figures[SIDES].median <= RATIO_BAR ? "ok" : "missed");
    printf("\n");
}

static bool measure_count(const struct options *options, uint64_t count)
{
    static double times[SIDES + 1][MAX_ROUNDS]; /* and ratios */
    struct figure figures[SIDES + 1];
    struct subject subject;
    int rounds = (int)options->rounds;
    open_subject(&subject, count, options->only != SIDE_NEAR);
    for (int i = 0; i < RC_INDEX_MAX_HEAT; i++)
        read_all(&subject);
    memset(subject.misses, 0, sizeof subject.misses);
    for (int round = -1; round < rounds; round++) { /* the first one warms up */
        int at = round < 0 ? 0 : round;
        for (int turn = 0; turn < SIDES; turn++) {
            int side = (turn + at) % SIDES;
            if (options->only == SIDES || options->only == side)
                times[side][at] = measure(&subject, side, options->reads);
        }
        times[SIDES][at] = times[SIDE_NEAR][at] / times[SIDE_TABLE][at];
    }
    close_subject(&subject);
    for (int side = 0; side < SIDES; side++)
        if (subject.misses[side] > options->reads * (options->rounds + 1) / 100)
            fail(SIDE_NAMES[side], "more than one read of a hundred was no hit");
    for (int i = 0; i <= SIDES; i++)
        figures[i] = figure_of(times[i], rounds);
    if (options->is_json)
        tell_json(options, count, figures);
    else
        tell(options, count, figures);
    fflush(stdout);
    return options->only != SIDES || figures[SIDES].median <= RATIO_BAR;
}

static _Noreturn void explain(void)
{
    fail("usage",
         "near_growth [--keys N,N,...] [--rounds N] [--reads N] [--side near|table] [--json]");
}

static uint64_t number_of(const char *text, char **end, uint64_t most)
{
    uint64_t number = strtoull(text, end, 10);
    if (*end == text || number == 0 || number > most)
        explain();
    return number;
}

static void take_counts(struct options *options, const char *text)
{
    char *end;
    for (options->count_count = 0;; text = end + 1) {
        if (options->count_count == MAX_COUNTS)
            explain();
        options->counts[options->count_count++] = number_of(text, &end, 20000000);
        if (*end == '\0')
            return;
        if (*end != ',')
            explain();
    }
}

static void take_options(struct options *options, int argc, char **argv)
{
    char *end = "";
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *text = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--json") == 0) {
            options->is_json = true;
            continue;
        }
        if (text == NULL)
            explain();
        if (strcmp(name, "--keys") == 0)
            take_counts(options, text);
        else if (strcmp(name, "--rounds") == 0)
            options->rounds = number_of(text, &end, MAX_ROUNDS);
        else if (strcmp(name, "--reads") == 0)
            options->reads = number_of(text, &end, UINT64_C(1) << 40);
        else if (strcmp(name, "--side") == 0 && strcmp(text, SIDE_NAMES[SIDE_NEAR]) == 0)
            options->only = SIDE_NEAR;
        else if (strcmp(name, "--side") == 0 && strcmp(text, SIDE_NAMES[SIDE_TABLE]) == 0)
            options->only = SIDE_TABLE;
        else
            explain();
        if (*end != '\0')
            explain();
        i++;
    }
}

int main(int argc, char **argv)
{
    struct options options = {.counts = {1000, 10000, 100000, 1000000, 10000000},
                              .count_count = 5,
                              .rounds = 9,
                              .reads = 1000000,
                              .only = SIDES};
    bool is_good = true;
    take_options(&options, argc, argv);
    if (options.is_json)
        printf("{\"name\": \"near_growth\", \"idle\": {\"sides\": [");
    for (int i = 0; i < options.count_count; i++)
        is_good &= measure_count(&options, options.counts[i]);
    if (options.is_json)
        printf("\n]}}\n");
    return is_good ? 0 : 1;
}
