#include "near/tags.h"

#include <stdlib.h>
#include <string.h>

#include <sys/wait.h>
#include <unistd.h>

#include "test/test.h"

enum { SECOND = 1000000, ROOM = 8192 };
#define PREFIX "app//tag:"

static _Atomic int64_t now_us;

struct bed {
    struct rc_near *near;
    struct rc_near_owner *owner;
    struct rc_near_tags *tags;
    int64_t life_us; /* of what is kept; 0: for ever */
    char block[ROOM];
    size_t len;
};

static void open_bed_of(struct bed *bed, uint32_t stripes)
{
    struct rc_near_options options = {.bytes = 1 << 20, .stripes = stripes, .clock = &now_us};
    const char *why;
    now_us = 1000 * (int64_t)SECOND;
    memset(bed, 0, sizeof *bed);
    if (!CHECK(rc_near_open(&bed->near, &options, &why) == 0))
        exit(1);
    bed->owner = rc_near_add_owner(bed->near, NULL);
    bed->tags = rc_near_tags_new(bed->near, PREFIX, strlen(PREFIX));
    if (!CHECK(bed->owner != NULL && bed->tags != NULL))
        exit(1);
    rc_near_set_asof(bed->owner, now_us);
}

static void open_bed(struct bed *bed)
{
    open_bed_of(bed, 1);
}

static void close_bed(struct bed *bed)
{
    rc_near_tags_free(bed->tags);
    rc_near_remove_owner(bed->near, bed->owner);
    rc_near_close(bed->near);
}

/* Generations as text, "hard" or "hard/soft". */
static void write_generations(char out[RC_TAG_GENERATIONS], const char *text)
{
    const char *slash = strchr(text, '/');
    size_t hard_len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    memset(out, 0, RC_TAG_GENERATIONS);
    memcpy(out, text, hard_len);
    if (slash != NULL)
        memcpy(out + RC_TAG_GENERATION, slash + 1, strlen(slash + 1));
}

/* What Redis has under the tag's key, kept near as a read would do it. */
static void keep_as(struct bed *bed, const char *name, const char *value, size_t len, uint8_t kind,
                    uint8_t codec, uint8_t flags)
{
    static char version;
    char key[300];
    int key_len = snprintf(key, sizeof key, PREFIX "%s", name);
    struct rc_near_entry entry = {.key = key,
                                  .key_len = (size_t)key_len,
                                  .value = value,
                                  .value_len = len,
                                  .kind = kind,
                                  .codec = codec,
                                  .entry_flags = flags,
                                  .version = {++version},
                                  .deadline_us =
                                      bed->life_us == 0 ? INT64_MAX : now_us + bed->life_us};
    entry.hash = rc_near_hash(bed->near, key, entry.key_len);
    CHECK(
        rc_near_fill(bed->near, bed->owner, &entry, rc_near_write_version(bed->near, entry.hash)));
}

static void keep(struct bed *bed, const char *name, const char *text)
{
    char generations[RC_TAG_GENERATIONS];
    write_generations(generations, text);
    keep_as(bed, name, generations, sizeof generations, RC_KIND_VALUE, RC_CODEC_RAW, 0);
}

static void drop(struct bed *bed, const char *name)
{
    char key[300];
    int len = snprintf(key, sizeof key, PREFIX "%s", name);
    rc_near_drop(bed->near, key, (size_t)len, RC_NEAR_PUSH);
}

static void put_size(struct bed *bed)
{
    bed->block[0] = (char)(bed->len & 0xFF);
    bed->block[1] = (char)(bed->len >> 8);
}

static void begin(struct bed *bed, uint8_t parts)
{
    memset(bed->block, 0, 16);
    bed->block[2] = (char)parts;
    bed->len = parts == 1 ? 16 : 4;
    put_size(bed);
}

static void add(struct bed *bed, const char *name, const char *text)
{
    size_t len = strlen(name);
    write_generations(bed->block + bed->len, text);
    bed->block[bed->len + RC_TAG_GENERATIONS] = (char)len;
    memcpy(bed->block + bed->len + RC_TAG_GENERATIONS + 1, name, len);
    bed->len += RC_TAG_GENERATIONS + 1 + len;
    bed->block[3]++;
    put_size(bed);
}

static void one(struct bed *bed, const char *name, const char *text)
{
    begin(bed, 0);
    add(bed, name, text);
}

/* From bytes that end with the block: what reads behind it is seen by the address sanitizer. */
static int check_len(struct bed *bed, size_t len, int64_t max_stale_us)
{
    char *exact = malloc(len + 1);
    if (!CHECK(exact != NULL))
        exit(1);
    memcpy(exact + 1, bed->block, len);
    int verdict = rc_near_tags_check(bed->tags, exact + 1, len, max_stale_us);
    free(exact);
    return verdict;
}

static int check(struct bed *bed)
{
    return check_len(bed, bed->len, SECOND);
}

static void tells_how_a_tag_stands(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    one(&bed, "users", "g1/s1");
    for (int i = 0; i < 3; i++) /* looked up, then by its handle */
        CHECK(check(&bed) == RC_TAGS_VALID);
    one(&bed, "users", "g1/s0");
    CHECK(check(&bed) == RC_TAGS_SOFT && check(&bed) == RC_TAGS_SOFT);
    one(&bed, "users", "g0/s1");
    CHECK(check(&bed) == RC_TAGS_VOID && check(&bed) == RC_TAGS_VOID);
    one(&bed, "user", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    one(&bed, "users:7", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    one(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    close_bed(&bed);
}

static void sees_a_generation_that_changes(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    one(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    drop(&bed, "users"); /* invalidated, and nobody has read it since */
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep(&bed, "users", "g1/s2"); /* softly */
    CHECK(check(&bed) == RC_TAGS_SOFT && check(&bed) == RC_TAGS_SOFT);
    keep(&bed, "users", "g2/s1");
    CHECK(check(&bed) == RC_TAGS_VOID && check(&bed) == RC_TAGS_VOID);
    keep(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    close_bed(&bed);
}

static void the_gravest_verdict_counts(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "a", "a1/s1");
    keep(&bed, "b", "b1/s2");
    keep(&bed, "c", "c2/s1");
    begin(&bed, 1);
    CHECK(check(&bed) == RC_TAGS_VALID);
    add(&bed, "a", "a1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    add(&bed, "b", "b1/s1");
    CHECK(check(&bed) == RC_TAGS_SOFT);
    add(&bed, "none", "n1/s1");
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    add(&bed, "c", "c1/s1");
    CHECK(check(&bed) == RC_TAGS_VOID);
    add(&bed, "none", "n1/s1");
    add(&bed, "a", "a1/s1");
    CHECK(check(&bed) == RC_TAGS_VOID);
    close_bed(&bed);
}

static void takes_any_name(void)
{
    struct bed bed;
    char names[4][201];
    static const size_t lens[] = {0, 47, 48, 200};
    open_bed(&bed);
    begin(&bed, 0);
    for (int i = 0; i < 4; i++) {
        memset(names[i], 'a' + i, lens[i]);
        names[i][lens[i]] = '\0';
        keep(&bed, names[i], "gen/s");
        add(&bed, names[i], "gen/s");
    }
    CHECK(check(&bed) == RC_TAGS_VALID && check(&bed) == RC_TAGS_VALID);
    drop(&bed, names[3]);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep(&bed, names[3], "gen/t");
    CHECK(check(&bed) == RC_TAGS_SOFT);
    close_bed(&bed);
}

/* More tags than there are places, and several that contend for one. */
static void tells_tags_of_one_place_apart(void)
{
    enum { TAGS = 600 };
    struct bed bed;
    char name[16], hard[16];
    open_bed(&bed);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < TAGS; i++) {
            snprintf(name, sizeof name, "tag%d", i);
            snprintf(hard, sizeof hard, "%c%d/s", 'a' + i % 7, i);
            if (round == 0)
                keep(&bed, name, hard);
            one(&bed, name, hard);
            CHECK(check(&bed) == RC_TAGS_VALID);
            snprintf(hard, sizeof hard, "%c%d/s", 'a' + i % 7, i + 1);
            one(&bed, name, hard);
            CHECK(check(&bed) == RC_TAGS_VOID);
        }
    keep(&bed, "x", "same/s"); /* the same generation of another name proves nothing */
    one(&bed, "x", "same/s");
    CHECK(check(&bed) == RC_TAGS_VALID);
    one(&bed, "y", "same/s");
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    close_bed(&bed);
}

static void what_was_evicted_is_unknown(void)
{
    struct bed bed;
    char name[32];
    open_bed(&bed);
    keep(&bed, "cold", "g1/s1");
    one(&bed, "cold", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    for (int i = 0; i < 40000; i++) {
        snprintf(name, sizeof name, "other%d", i);
        keep(&bed, name, "g2/s2");
    }
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep(&bed, "cold", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    close_bed(&bed);
}

static void goes_by_the_horizon(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    one(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    now_us += SECOND;
    CHECK(check(&bed) == RC_TAGS_VALID);
    now_us += 1;
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    CHECK(check_len(&bed, bed.len, 2 * SECOND) == RC_TAGS_VALID);
    CHECK(check_len(&bed, bed.len, 0) == RC_TAGS_UNKNOWN);
    rc_near_set_asof(bed.owner, now_us);
    CHECK(check(&bed) == RC_TAGS_VALID);
    rc_near_renew_owner(bed.owner); /* its connection was lost */
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    close_bed(&bed);
}

static void what_is_no_generation_is_unknown(void)
{
    struct bed bed;
    static const char bytes[RC_TAG_GENERATIONS + 1] = "g1";
    open_bed(&bed);
    one(&bed, "users", "g1");
    keep_as(&bed, "users", bytes, 16, RC_KIND_VALUE, RC_CODEC_RAW, 0);
    CHECK(check(&bed) == RC_TAGS_VALID);
    keep_as(&bed, "users", bytes, 15, RC_KIND_VALUE, RC_CODEC_RAW, 0);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep_as(&bed, "users", bytes, 17, RC_KIND_VALUE, RC_CODEC_RAW, 0);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep_as(&bed, "users", bytes, 16, RC_KIND_PLAIN, 0, 0);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep_as(&bed, "users", bytes, 16, RC_KIND_NEGATIVE, RC_CODEC_RAW, 0);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep_as(&bed, "users", bytes, 16, RC_KIND_VALUE, RC_CODEC_MSGPACK, 0);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    keep_as(&bed, "users", bytes, 16, RC_KIND_VALUE, RC_CODEC_RAW, 1);
    CHECK(check(&bed) == RC_TAGS_UNKNOWN);
    close_bed(&bed);
}

static void refuses_damaged_blocks(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    for (uint8_t parts = 0; parts < 2; parts++) {
        begin(&bed, parts);
        add(&bed, "users", "g0/s1"); /* void, but that is not to be read from half a block */
        add(&bed, "users", "g1/s1");
        size_t whole = bed.len;
        CHECK(check(&bed) == RC_TAGS_VOID);
        CHECK(check_len(&bed, whole + 100, SECOND) == RC_TAGS_VOID); /* a value behind it */
        for (size_t len = 0; len < whole; len++)
            CHECK(check_len(&bed, len, SECOND) == RC_TAGS_DAMAGED);
        for (bed.len = 0; bed.len < whole + 40; bed.len++) { /* says another size */
            put_size(&bed);
            int verdict = check_len(&bed, whole + 20, SECOND);
            CHECK(verdict == (bed.len == whole ? RC_TAGS_VOID : RC_TAGS_DAMAGED));
        }
        bed.len = whole;
        put_size(&bed);
        for (int count = 0; count < 256; count++) {
            bed.block[3] = (char)count;
            CHECK(check(&bed) == (count == 2 ? RC_TAGS_VOID : RC_TAGS_DAMAGED));
        }
        bed.block[3] = 2;
        for (int other = 2; other < 256; other++) {
            bed.block[2] = (char)other;
            CHECK(check(&bed) == RC_TAGS_DAMAGED);
        }
    }
    begin(&bed, 0);
    for (int i = 0; i < RC_TAGS_MAX; i++)
        add(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    add(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_DAMAGED);
    close_bed(&bed);
}

static void any_bytes_are_harmless(void)
{
    struct bed bed;
    uint64_t seed = 1;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    for (int round = 0; round < 20000; round++) {
        begin(&bed, (uint8_t)test_below(&seed, 2));
        for (uint32_t i = test_below(&seed, 4); i > 0; i--)
            add(&bed, "users", "g1/s1");
        size_t len = bed.len;
        for (uint32_t i = test_below(&seed, 3); i > 0; i--)
            bed.block[test_below(&seed, (uint32_t)len)] = (char)test_random(&seed);
        int verdict = check_len(&bed, test_below(&seed, (uint32_t)len + 1), SECOND);
        CHECK(verdict >= RC_TAGS_VALID && verdict <= RC_TAGS_DAMAGED);
    }
    close_bed(&bed);
}

/* ---- sound entries --------------------------------------------------------------------------- */

enum { ENTRIES = 12, NAMES = 6, STALE_MS = 3000 };

/* Entries with tags, some of whose copies were read over another connection, and two readers: one
   remembers what it has found, the other one never does. */
struct herd {
    struct bed bed;
    struct rc_near_owner *owners[2];
    struct rc_near_tags *plain;
    rc_near_handle handles[ENTRIES];
    char blocks[ENTRIES][512];
    bool is_kept[ENTRIES];
    uint64_t seed;
    uint32_t versions;
    int sound, unsound;
};

static void open_herd(struct herd *herd, uint64_t seed)
{
    struct bed *bed = &herd->bed;
    memset(herd, 0, sizeof *herd);
    open_bed_of(bed, 1u << seed % 3);
    herd->seed = seed;
    herd->owners[0] = bed->owner;
    herd->owners[1] = rc_near_add_owner(bed->near, NULL);
    herd->plain = rc_near_tags_new(bed->near, PREFIX, strlen(PREFIX));
    if (!CHECK(herd->owners[1] != NULL && herd->plain != NULL))
        exit(1);
    rc_near_set_asof(herd->owners[1], now_us);
}

static void close_herd(struct herd *herd)
{
    rc_near_tags_free(herd->plain);
    rc_near_remove_owner(herd->bed.near, herd->owners[1]);
    close_bed(&herd->bed);
}

static void use_any_owner(struct herd *herd)
{
    herd->bed.owner = herd->owners[test_below(&herd->seed, 4) == 0];
}

static void keep_any_tag(struct herd *herd)
{
    char name[8], text[16];
    use_any_owner(herd);
    herd->bed.life_us = test_below(&herd->seed, 4) == 0 ? SECOND / 2 : 0;
    snprintf(name, sizeof name, "tag%u", test_below(&herd->seed, NAMES));
    snprintf(text, sizeof text, "%u/%u", test_below(&herd->seed, 2), test_below(&herd->seed, 2));
    keep(&herd->bed, name, text);
}

/* With one to five tags; the memo holds four. */
static void fill_any_entry(struct herd *herd)
{
    struct bed *bed = &herd->bed;
    char name[8], text[16];
    uint32_t which = test_below(&herd->seed, ENTRIES);
    struct rc_near_entry entry = {.key = name,
                                  .kind = RC_KIND_VALUE,
                                  .entry_flags = RC_ENTRY_EXTRA,
                                  .deadline_us = now_us + 20 * (int64_t)SECOND};
    use_any_owner(herd);
    begin(bed, 1);
    bed->block[8] = (char)(STALE_MS & 0xFF);
    bed->block[9] = (char)(STALE_MS >> 8);
    for (uint32_t i = 0; i <= which % 5; i++) {
        snprintf(name, sizeof name, "tag%u", (which + i) % NAMES);
        snprintf(text, sizeof text, "%u/%u", test_below(&herd->seed, 2),
                 test_below(&herd->seed, 2));
        add(bed, name, text);
    }
    entry.key_len = (size_t)snprintf(name, sizeof name, "e%u", which);
    entry.value = bed->block;
    entry.value_len = bed->len;
    entry.hash = rc_near_hash(bed->near, name, entry.key_len);
    herd->versions++;
    memcpy(entry.version, &herd->versions, sizeof herd->versions);
    CHECK(
        rc_near_fill(bed->near, bed->owner, &entry, rc_near_write_version(bed->near, entry.hash)));
}

static void disturb(struct herd *herd)
{
    char name[8];
    struct rc_near_owner *owner = herd->owners[test_below(&herd->seed, 2)];
    switch (test_below(&herd->seed, 12)) {
    case 0:
    case 1: keep_any_tag(herd); break;
    case 2:
    case 3: fill_any_entry(herd); break;
    case 4:
        snprintf(name, sizeof name, "tag%u", test_below(&herd->seed, NAMES));
        drop(&herd->bed, name);
        break;
    case 5: now_us += test_below(&herd->seed, SECOND); break;
    case 6:
        if (test_below(&herd->seed, 8) == 0)
            rc_near_renew_owner(owner);
        break;
    default: rc_near_set_asof(owner, now_us); break;
    }
}

static void compare_readers(struct herd *herd, const rc_near_handle *handle, const char *block,
                            size_t len)
{
    bool is_young = handle->deadline_us - now_us > (int64_t)STALE_MS * 1000;
    bool is_sound =
        is_young && rc_near_tags_check(herd->plain, block, len, SECOND) == RC_TAGS_VALID;
    size_t size = rc_near_tags_sound(herd->bed.tags, handle, block, len, now_us, SECOND);
    CHECK(size == (is_sound ? len : 0));
    herd->sound += is_sound;
    herd->unsound += !is_sound;
}

static void read_any_entry(struct herd *herd)
{
    struct rc_near *near = herd->bed.near;
    uint32_t which = test_below(&herd->seed, ENTRIES);
    char name[8], payload[512];
    rc_near_value value = {.buffer = payload, .capacity = sizeof payload};
    rc_near_handle *handle = &herd->handles[which];
    size_t name_len = (size_t)snprintf(name, sizeof name, "e%u", which);
    if (herd->is_kept[which] && rc_near_is_valid_at(near, handle, now_us, SECOND)) {
        const char *block = herd->blocks[which];
        compare_readers(herd, handle, block,
                        (size_t)(uint8_t)block[0] | (size_t)(uint8_t)block[1] << 8);
    }
    if (rc_near_lookup(near, NULL, 0, name, name_len, SECOND, &value) != RC_NEAR_HIT)
        return;
    CHECK(value.left_us == value.handle.deadline_us - now_us);
    compare_readers(herd, &value.handle, value.data, value.len);
    if (test_below(&herd->seed, 4) == 0) {
        *handle = value.handle;
        memcpy(herd->blocks[which], payload, value.len);
        herd->is_kept[which] = true;
    }
}

static void what_is_remembered_is_what_a_check_says(void)
{
    static struct herd herd;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        open_herd(&herd, seed);
        for (int i = 0; i < 40; i++)
            keep_any_tag(&herd), fill_any_entry(&herd);
        for (int step = 0; step < 4000; step++) {
            if (test_below(&herd.seed, 3) == 0)
                disturb(&herd);
            read_any_entry(&herd), read_any_entry(&herd);
        }
        CHECK(herd.sound > 100 && herd.unsound > 100);
        close_herd(&herd);
    }
}

/* Also: nothing is told of a block that is cut off, or of a later version. */
static void a_capped_entry_has_no_end(void)
{
    struct bed bed;
    rc_near_handle entry = {.hash = 1, .deadline_us = 0};
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    begin(&bed, 1);
    bed.block[8] = 100; /* ms of grace */
    entry.deadline_us = now_us + 100000;
    CHECK(rc_near_tags_sound(NULL, &entry, bed.block, bed.len, now_us, SECOND) == 0);
    CHECK(rc_near_tags_sound(NULL, &entry, bed.block, bed.len, now_us - 1, SECOND) == bed.len);
    entry.is_capped = 1;
    CHECK(rc_near_tags_sound(NULL, &entry, bed.block, bed.len, now_us, SECOND) == bed.len);
    add(&bed, "users", "g1/s1");
    CHECK(rc_near_tags_sound(NULL, &entry, bed.block, bed.len, now_us, SECOND) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(rc_near_tags_sound(bed.tags, &entry, bed.block, bed.len, now_us, SECOND) == bed.len);
        CHECK(rc_near_tags_sound(bed.tags, &entry, bed.block, bed.len - 1, now_us, SECOND) == 0);
    }
    bed.block[2] = 2; /* of a later version */
    entry.version = 2;
    CHECK(rc_near_tags_sound(bed.tags, &entry, bed.block, bed.len, now_us, SECOND) == 0);
    close_bed(&bed);
}

static bool ends_well(pid_t child)
{
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void a_child_process_sees_the_same_region(void)
{
    struct bed bed;
    open_bed(&bed);
    keep(&bed, "users", "g1/s1");
    one(&bed, "users", "g1/s1");
    CHECK(check(&bed) == RC_TAGS_VALID);
    pid_t child = fork();
    if (child == 0) {
        bool good = check(&bed) == RC_TAGS_VALID;
        keep(&bed, "users", "g1/s2");
        good = good && check(&bed) == RC_TAGS_SOFT;
        _exit(good ? 0 : 1);
    }
    CHECK(ends_well(child));
    CHECK(check(&bed) == RC_TAGS_SOFT);
    close_bed(&bed);
}

/* ---- the public calls ------------------------------------------------------------------------ */

static rc_client *open_client(int32_t near)
{
    rc_options options = {.url = "memory://", .url_len = 9, .near = near};
    rc_client *client = NULL;
    if (!CHECK(rc_open(&options, &client, NULL) == 0))
        exit(1);
    return client;
}

static void needs_a_near_cache(void)
{
    rc_client *client = open_client(0);
    CHECK(rc_tags_new(client, PREFIX, strlen(PREFIX)) == NULL);
    CHECK(rc_tags_new(NULL, PREFIX, strlen(PREFIX)) == NULL);
    rc_tags_free(NULL);
    rc_unref(client, 1000);
}

#ifndef __SANITIZE_THREAD__
static void end(rc_op *op, int submitted, int outcome)
{
    CHECK(submitted == 0 && rc_wait(op) == 0 && rc_op_result(op)->outcome == outcome);
}

/* Also: outlives the client's last reference; and a child of fork() has another store. */
static void goes_by_what_the_client_has_read(void)
{
    struct bed bed;
    const char *name = PREFIX "users";
    char generations[RC_TAG_GENERATIONS];
    rc_entry entry = {.kind = RC_KIND_VALUE, .codec = RC_CODEC_RAW};
    rc_client *client = open_client(1);
    rc_view *view = rc_view_new(client, PREFIX, strlen(PREFIX), NULL, 0, 0, 0, 0);
    rc_tags *tags = rc_tags_new(client, PREFIX, strlen(PREFIX));
    rc_op *op = rc_op_new(client);
    if (!CHECK(view != NULL && tags != NULL && op != NULL))
        exit(1);
    one(&bed, "users", "g1/s1");
    write_generations(generations, "g1/s1");
    CHECK(rc_tags_check(tags, bed.block, bed.len, SECOND) == RC_TAGS_UNKNOWN);
    CHECK(rc_set(op, name, strlen(name), &entry, generations, sizeof generations, -1, 0) == 0);
    CHECK(rc_wait(op) == 0);
    end(op, rc_view_read(view, op, "users", 5, 0), RC_HIT);
    CHECK(rc_tags_check(tags, bed.block, bed.len, 60 * SECOND) == RC_TAGS_VALID);
    CHECK(rc_tags_check(tags, bed.block, bed.len, 0) == RC_TAGS_UNKNOWN);
    pid_t child = fork();
    if (child == 0)
        _exit(rc_tags_check(tags, bed.block, bed.len, 60 * SECOND) == RC_TAGS_UNKNOWN ? 0 : 1);
    CHECK(ends_well(child));
    CHECK(rc_delete(op, name, strlen(name)) == 0 && rc_wait(op) == 0);
    CHECK(rc_tags_check(tags, bed.block, bed.len, 60 * SECOND) == RC_TAGS_UNKNOWN);
    rc_op_free(op);
    rc_view_free(view);
    rc_unref(client, 1000);
    CHECK(rc_tags_check(tags, bed.block, bed.len, 60 * SECOND) == RC_TAGS_UNKNOWN);
    rc_tags_free(tags);
}
#endif

int main(void)
{
    TEST(tells_how_a_tag_stands);
    TEST(sees_a_generation_that_changes);
    TEST(the_gravest_verdict_counts);
    TEST(takes_any_name);
    TEST(tells_tags_of_one_place_apart);
    TEST(what_was_evicted_is_unknown);
    TEST(goes_by_the_horizon);
    TEST(what_is_no_generation_is_unknown);
    TEST(refuses_damaged_blocks);
    TEST(any_bytes_are_harmless);
    TEST_SLOW(what_is_remembered_is_what_a_check_says);
    TEST(a_capped_entry_has_no_end);
    TEST(a_child_process_sees_the_same_region);
    TEST(needs_a_near_cache);
#ifndef __SANITIZE_THREAD__ /* it stands no threads behind a fork */
    TEST(goes_by_what_the_client_has_read);
#endif
    return test_result();
}
