/*
 * near_tags - what the tags of an entry cost a reader of the near cache.
 *
 * usage: build/near_tags [READS]
 *   READS (20,000,000) of 64 keys, which have three tags each of the same 16, in rounds of a tenth:
 *   a near hit (looked up), and an L0 hit (its handle is checked); each without tags, and with
 *
 * Told: the median of the rounds, in ns for one read, and with tags : without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "near/tags.h"

enum { KEYS = 64, TAGS = 16, PER_KEY = 3, ROUNDS = 10, STALE_US = 1000000000, PAYLOAD = 200 };

static struct rc_near *near;
static struct rc_near_owner *owner;
static struct rc_near_tags *tags;
static rc_near_handle handles[KEYS];
static char blocks[KEYS][PAYLOAD];

static void must(int holds)
{
    if (!holds) {
        fprintf(stderr, "near_tags: could not set up\n");
        exit(2);
    }
}

static void fill(const char *key, const char *value, size_t len)
{
    struct rc_near_entry entry = {.key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = len,
                                  .kind = RC_KIND_VALUE,
                                  .codec = RC_CODEC_RAW,
                                  .version = "version",
                                  .deadline_us = INT64_MAX};
    entry.hash = rc_near_hash(near, key, entry.key_len);
    must(rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash)));
}

/* Names of some 12 bytes, and generations as random as real ones. */
static size_t name_tag(int tag, char name[32], char generations[RC_TAG_GENERATIONS])
{
    for (int i = 0; i < RC_TAG_GENERATIONS; i++)
        generations[i] = (char)((tag + 1) * 167 + i * 59);
    return (size_t)snprintf(name, 32, "category:%d", 100 + tag);
}

static void set_up(void)
{
    struct rc_near_options options = {.bytes = 1 << 20};
    const char *why;
    char name[32], generations[RC_TAG_GENERATIONS], key[48];
    must(rc_near_open(&near, &options, &why) == 0);
    must((owner = rc_near_add_owner(near, NULL)) != NULL);
    must((tags = rc_near_tags_new(near, "app//tag:", 9)) != NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    for (int tag = 0; tag < TAGS; tag++) {
        name_tag(tag, name, generations);
        snprintf(key, sizeof key, "app//tag:%s", name);
        fill(key, generations, sizeof generations);
    }
    for (int i = 0; i < KEYS; i++) {
        char *at = blocks[i] + 4;
        for (int j = 0; j < PER_KEY; j++) {
            size_t len = name_tag((i + 5 * j) % TAGS, name, at);
            at[RC_TAG_GENERATIONS] = (char)len;
            memcpy(at + RC_TAG_GENERATIONS + 1, name, len);
            at += RC_TAG_GENERATIONS + 1 + len;
        }
        blocks[i][0] = (char)(at - blocks[i]);
        blocks[i][3] = PER_KEY;
        snprintf(key, sizeof key, "app:user:%d", 1000 + i);
        fill(key, blocks[i], PAYLOAD);
    }
}

static int is_near, has_tags;

static void read_one(int i)
{
    char buffer[PAYLOAD], key[16];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    const char *block = blocks[i];
    if (is_near) {
        memcpy(key, "user:10", 7);
        key[7] = (char)('0' + i / 10);
        key[8] = (char)('0' + i % 10);
        must(rc_near_lookup(near, "app:", 4, key, 9, STALE_US, &value) == RC_NEAR_HIT);
        handles[i] = value.handle;
        block = value.data;
    } else {
        must(rc_near_is_valid(near, &handles[i], STALE_US));
    }
    if (has_tags)
        must(rc_near_tags_check(tags, block, PAYLOAD, STALE_US) == RC_TAGS_VALID);
}

static int compare(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

int main(int argc, char **argv)
{
    long reads = argc > 1 ? strtol(argv[1], NULL, 10) : 20000000;
    double times[4][ROUNDS];
    set_up();
    must(reads >= 1000);
    for (int round = 0; round < ROUNDS; round++)
        for (int which = 0; which < 4; which++) {
            is_near = which < 2;
            has_tags = which % 2;
            int64_t began_us = rc_near_now_us();
            for (long i = 0; i < reads / ROUNDS; i++)
                read_one((int)(i % KEYS));
            times[which][round] =
                (double)(rc_near_now_us() - began_us) * 1000 * ROUNDS / (double)reads;
        }
    for (int which = 0; which < 4; which++)
        qsort(times[which], ROUNDS, sizeof(double), compare);
    for (int which = 0; which < 4; which += 2) {
        double without = times[which][ROUNDS / 2], with = times[which + 1][ROUNDS / 2];
        printf("%s hit  %6.1f ns, with %d tags %6.1f ns: %.2f\n", which == 0 ? "near" : "L0  ",
               without, PER_KEY, with, with / without);
    }
    rc_near_tags_free(tags);
    rc_near_remove_owner(near, owner);
    rc_near_close(near);
    return 0;
}
