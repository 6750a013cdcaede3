/*
 * near_memory - what an entry of the near cache takes, and whether memory stays flat under work.
 *
 * usage: build/near_memory [--entries N] [--operations N]
 *   entries (1,000,000) of 16 bytes of key and 100 of value, in a region of 165 bytes for each;
 *   then operations (100,000,000) on twice as many keys: 8 of 10 look up and fill what is missing,
 *   1 fills, 1 drops; values are 1 to 199 bytes long by then, so that memory could fray
 *
 * Resident memory is the whole process's, less what it had before the region was opened.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <unistd.h>

#include "near/near.h"

enum { KEY_BYTES = 16, VALUE_BYTES = 100, MAX_VALUE_BYTES = 199, STALE_US = 1000000000 };

static const double BYTES_BAR = 165; /* an entry, everything included */
static const double GROWTH_BAR =
    1.0; /* percent, from the tenth to the last part of the operations */

struct subject {
    struct rc_near *near;
    struct rc_near_owner *owner;
    char value[MAX_VALUE_BYTES];
    uint64_t refused;
};

static _Noreturn void fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
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
}

static double resident_bytes(void)
{
    unsigned long size, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &size, &resident) != 2)
        fail("could not read", "/proc/self/statm");
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void open_subject(struct subject *subject, size_t bytes)
{
    struct rc_near_options options = {.bytes = bytes};
    const char *why = "";
    if (rc_near_open(&subject->near, &options, &why) != 0)
        fail("could not open a near cache", why);
    subject->owner = rc_near_add_owner(subject->near, NULL);
    if (subject->owner == NULL)
        fail("could not open a near cache", "no owner");
    rc_near_set_asof(subject->owner, rc_near_now_us());
    for (int i = 0; i < MAX_VALUE_BYTES; i++)
        subject->value[i] = (char)mix((uint64_t)i);
    subject->refused = 0;
}

static void fill(struct subject *subject, const char *key, size_t value_len)
{
    uint64_t hash = rc_near_hash(subject->near, key, KEY_BYTES);
    struct rc_near_entry entry = {
        .hash = hash,
        .key = key,
        .key_len = KEY_BYTES,
        .value = subject->value,
        .value_len = value_len,
        .kind = RC_KIND_VALUE,
        .deadline_us = INT64_MAX,
    };
    uint32_t writes = rc_near_write_version(subject->near, hash);
    if (!rc_near_fill(subject->near, subject->owner, &entry, writes))
        subject->refused++;
}

static void operate(struct subject *subject, uint64_t number, uint64_t key_count)
{
    char key[KEY_BYTES], buffer[MAX_VALUE_BYTES];
    uint64_t random = mix(number);
    make_key((random >> 8) % key_count, key);
    uint32_t kind = (uint32_t)(random & 0xff) % 10;
    size_t value_len = 1 + (size_t)(mix(random) % MAX_VALUE_BYTES);
    if (kind == 0) {
        rc_near_drop(subject->near, key, KEY_BYTES,
                     (random & 0x10) != 0 ? RC_NEAR_PUSH : RC_NEAR_WRITE);
    } else if (kind == 1) {
        fill(subject, key, value_len);
    } else {
        rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
        int found = rc_near_lookup(subject->near, "", 0, key, KEY_BYTES, STALE_US, &value);
        if (found == RC_NEAR_MISS)
            fill(subject, key, value_len);
        else if (found != RC_NEAR_HIT)
            fail("a lookup", "neither a hit nor a miss");
    }
}

static bool measure_size(struct subject *subject, uint64_t entries, size_t bytes, double before)
{
    char key[KEY_BYTES];
    rc_near_stats stats;
    double start = seconds();
    for (uint64_t i = 0; i < 2 * entries; i++) {
        make_key(i, key);
        fill(subject, key, VALUE_BYTES);
    }
    double elapsed = seconds() - start;
    rc_near_read_stats(subject->near, &stats);
    double resident = resident_bytes() - before;
    double each = resident / (double)stats.entries;
    bool ok = each <= BYTES_BAR;
    printf("region of %zu bytes, %" PRIu64 " fills of different keys, %.0f ns each: %" PRIu64
           " entries, %" PRIu64 " evictions, %" PRIu64 " refused\n",
           bytes, 2 * entries, elapsed / (2.0 * (double)entries) * 1e9, stats.entries,
           stats.evictions, subject->refused);
    printf("resident bytes of an entry: bar: <= %.0f, got %.1f: %s\n", BYTES_BAR, each,
           ok ? "PASS" : "FAIL");
    return ok;
}

static bool measure_growth(struct subject *subject, uint64_t operations, uint64_t key_count,
                           double before)
{
    double tenth = 0, resident = 0, start = seconds();
    for (uint64_t i = 1; i <= operations; i++) {
        operate(subject, i, key_count);
        if (i == operations / 10 || i == operations / 2 || i == operations) {
            rc_near_stats stats;
            rc_near_read_stats(subject->near, &stats);
            resident = resident_bytes() - before;
            if (i == operations / 10)
                tenth = resident;
            printf("after %3.0f %% of the operations: %.1f MiB resident, %" PRIu64
                   " entries, %.0f ns each\n",
                   100.0 * (double)i / (double)operations, resident / 1048576, stats.entries,
                   (seconds() - start) / (double)i * 1e9);
            fflush(stdout);
        }
    }
    double growth = 100 * (resident / tenth - 1);
    bool ok = growth <= GROWTH_BAR;
    printf("growth from 10 %% to 100 %%: bar: <= %.1f %%, got %.2f %%: %s\n", GROWTH_BAR, growth,
           ok ? "PASS" : "FAIL");
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t entries = 1000000, operations = 100000000;
    for (int i = 1; i < argc; i += 2) {
        uint64_t *number = strcmp(argv[i], "--entries") == 0      ? &entries
                           : strcmp(argv[i], "--operations") == 0 ? &operations
                                                                  : NULL;
        if (number == NULL || i + 1 == argc || (*number = strtoull(argv[i + 1], NULL, 10)) < 10)
            fail("usage", "near_memory [--entries N] [--operations N]");
    }
    struct subject subject;
    double before = resident_bytes();
    size_t bytes = (size_t)((double)entries * BYTES_BAR);
    open_subject(&subject, bytes);
    bool ok = measure_size(&subject, entries, bytes, before);
    ok = measure_growth(&subject, operations, 2 * entries, before) && ok;
    rc_near_remove_owner(subject.near, subject.owner);
    rc_near_close(subject.near);
    return ok ? 0 : 1;
}
