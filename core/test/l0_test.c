#include "near/l0.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

enum { KEYS = 1000, NAME = 16, MAX_STALE_US = 60000000 };

struct l0_bed {
    rc_client *client;
    rc_op *op;
    rc_view *view;
    rc_near_handle *handles;
    rc_l0 l0;
    void *memory;
    char names[KEYS + 1][NAME];
};

static void *room_of(uint32_t room)
{
    void *memory = calloc(1, rc_l0_bytes(room));
    if (!CHECK(memory != NULL))
        exit(1);
    return memory;
}

static bool open_l0(struct l0_bed *bed, uint32_t room)
{
    static const char url[] = "memory://l0-test";
    rc_options options = {.url = url, .url_len = strlen(url), .near = 1};
    memset(bed, 0, sizeof *bed);
    if (!CHECK(rc_open(&options, &bed->client, NULL) == 0))
        return false;
    bed->op = rc_op_new(bed->client);
    bed->view = rc_view_new(bed->client, "", 0, "", 0, 0, 0, 0);
    bed->handles = calloc(KEYS + 1, sizeof *bed->handles);
    if (!CHECK(bed->op != NULL && bed->view != NULL && bed->handles != NULL))
        exit(1);
    bed->memory = room_of(room);
    rc_l0_init(&bed->l0, bed->view, &bed->handles, bed->memory, room);
    for (int i = 1; i <= KEYS; i++)
        snprintf(bed->names[i], NAME, "key %d", i);
    return true;
}

static void close_l0(struct l0_bed *bed)
{
    free(bed->memory);
    free(bed->handles);
    rc_view_free(bed->view);
    rc_op_free(bed->op);
    rc_unref(bed->client, 1000);
}

/* Writes the key, reads it near, and fills its handle. */
static void keep(struct l0_bed *bed, int i)
{
    char bytes[8];
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_near_value value = {.buffer = bytes, .capacity = sizeof bytes};
    const char *name = bed->names[i];
    size_t len = strlen(name);
    if (!CHECK(rc_set(bed->op, name, len, &entry, "v", 1, -1, 0) == 0 && rc_wait(bed->op) == 0) ||
        !CHECK(rc_view_read(bed->view, bed->op, name, len, 0) == 0 && rc_wait(bed->op) == 0) ||
        !CHECK(rc_view_get(bed->view, name, len, MAX_STALE_US, &value) == RC_NEAR_HIT))
        exit(1);
    bed->handles[i] = value.handle;
}

static void drop_near(struct l0_bed *bed, int i)
{
    const char *name = bed->names[i];
    CHECK(rc_delete(bed->op, name, strlen(name)) == 0 && rc_wait(bed->op) == 0);
}

static void grow(struct l0_bed *bed)
{
    void *memory = room_of(bed->l0.room * 2);
    rc_l0_move(&bed->l0, memory, bed->l0.room * 2);
    free(bed->memory);
    bed->memory = memory;
}

static int32_t find(struct l0_bed *bed, int i)
{
    return rc_l0_find(&bed->l0, bed->names[i], MAX_STALE_US);
}

static void put(struct l0_bed *bed, int i)
{
    keep(bed, i);
    int outcome;
    while ((outcome = rc_l0_put(&bed->l0, bed->names[i], (uint32_t)i)) == RC_L0_FULL)
        grow(bed);
    CHECK(outcome == RC_L0_PUT || outcome == RC_L0_NONE);
    CHECK(find(bed, i) == (outcome == RC_L0_PUT ? i : 0));
}

static void finds_each_key_by_the_address_of_its_string(void)
{
    struct l0_bed bed;
    char again[NAME];
    if (!open_l0(&bed, 4))
        return;
    CHECK(find(&bed, 1) == 0);
    for (int i = 1; i <= KEYS; i++)
        put(&bed, i);
    int found = 0;
    for (int i = 1; i <= KEYS; i++) {
        int32_t index = find(&bed, i);
        CHECK(index == i || index == 0); /* it found no place */
        found += index == i;
    }
    CHECK(found == (int)bed.l0.count && found > KEYS * 9 / 10);
    memcpy(again, bed.names[1], NAME); /* equal, and another string */
    CHECK(rc_l0_find(&bed.l0, again, MAX_STALE_US) == 0);
    for (int i = 1; i <= KEYS; i += 2) {
        rc_l0_drop(&bed.l0, bed.names[i]);
        rc_l0_drop(&bed.l0, bed.names[i]);
    }
    for (int i = 1; i <= KEYS; i++)
        CHECK(i % 2 == 1 ? find(&bed, i) == 0 : find(&bed, i) == i || find(&bed, i) == 0);
    CHECK(bed.l0.count <= KEYS / 2);
    close_l0(&bed);
}

/* Keys beside it change all the time, so that its handle is asked and its place sees that. */
static void ends_with_the_entry_alone(void)
{
    struct l0_bed bed;
    if (!open_l0(&bed, 4096))
        return;
    put(&bed, 1);
    for (int i = 2; i <= KEYS; i++) {
        keep(&bed, i);
        CHECK(find(&bed, 1) == 1 && find(&bed, 1) == 1);
    }
    drop_near(&bed, 1);
    CHECK(find(&bed, 1) == 0 && find(&bed, 1) == 0);
    keep(&bed, 1); /* read again: the handle is another one's now */
    CHECK(rc_l0_put(&bed.l0, bed.names[1], 1) == RC_L0_PUT && find(&bed, 1) == 1);
    CHECK(bed.l0.count == 1);
    close_l0(&bed);
}

static void serves_nothing_that_is_not_known_coherent(void)
{
    struct l0_bed bed;
    if (!open_l0(&bed, 4))
        return;
    put(&bed, 1);
    CHECK(rc_l0_find(&bed.l0, bed.names[1], 0) == 0 && find(&bed, 1) == 1);
    CHECK(rc_l0_find(&bed.l0, bed.names[1], -1) == 0 && find(&bed, 1) == 1);
    memset(&bed.handles[1], 0, sizeof bed.handles[1]); /* half of a handle */
    CHECK(rc_l0_put(&bed.l0, bed.names[1], 1) == RC_L0_PUT && find(&bed, 1) == 0);
    close_l0(&bed);
}

static void tells_what_was_used_since_it_was_asked(void)
{
    struct l0_bed bed;
    if (!open_l0(&bed, 4))
        return;
    keep(&bed, 1);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 0);
    CHECK(rc_l0_put(&bed.l0, bed.names[1], 1) == RC_L0_PUT);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 0 && find(&bed, 1) == 1);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 1);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 0);
    CHECK(rc_l0_find(&bed.l0, bed.names[1], 0) == 0);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 0);
    close_l0(&bed);
}

/* Of an entry with a block its handle is asked each time. */
static void leaves_a_block_to_its_reader(void)
{
    static const char block[16] = {16, 0, 1, 0};
    struct l0_bed bed;
    if (!open_l0(&bed, 4))
        return;
    keep(&bed, 1);
    bed.handles[1].block = block;
    CHECK(rc_l0_put(&bed.l0, bed.names[1], 1) == RC_L0_PUT);
    CHECK(find(&bed, 1) == -1);
    rc_view_judge(bed.view, NULL);
    CHECK(find(&bed, 1) == 1);
    drop_near(&bed, 1);
    CHECK(find(&bed, 1) == 0);
    bed.handles[1].block = NULL;
    close_l0(&bed);
}

/* What rc_l0_find says of each, in any order, and of what is no key. */
static void answers_many_keys_as_it_answers_each(void)
{
    static const char block[16] = {16, 0, 1, 0};
    static const char other[] = "other";
    struct l0_bed bed;
    const char *keys[7];
    int32_t found[7] = {0};
    if (!open_l0(&bed, 64))
        return;
    for (int i = 1; i <= 4; i++)
        put(&bed, i);
    bed.handles[2].block = block;
    CHECK(rc_l0_put(&bed.l0, bed.names[2], 2) == RC_L0_PUT);
    drop_near(&bed, 3);
    for (int i = 0; i < 4; i++)
        keys[i] = bed.names[4 - i];
    keys[4] = NULL;
    keys[5] = other;
    keys[6] = bed.names[4];
    CHECK(rc_l0_find_many(&bed.l0, keys, found, 7, MAX_STALE_US) == 3);
    CHECK(found[0] == 4 && found[1] == 0 && found[2] == -2 && found[3] == 1);
    CHECK(found[4] == 0 && found[5] == 0 && found[6] == 4);
    CHECK(rc_l0_was_used(&bed.l0, bed.names[1]) == 1 && rc_l0_was_used(&bed.l0, bed.names[4]) == 1);
    rc_view_judge(bed.view, NULL);
    CHECK(rc_l0_find_many(&bed.l0, keys, found, 7, MAX_STALE_US) == 4 && found[2] == 2);
    CHECK(rc_l0_find_many(&bed.l0, keys, found, 0, MAX_STALE_US) == 0);
    CHECK(rc_l0_find_many(&bed.l0, keys, found, 7, 0) == 0);
    for (int i = 0; i < 7; i++)
        CHECK(found[i] == 0);
    for (int i = 0; i < 10000; i++) /* more than one of them is told to the sketch */
        CHECK(rc_l0_find_many(&bed.l0, keys, found, 7, MAX_STALE_US) == 4);
    bed.handles[2].block = NULL;
    close_l0(&bed);
}

static void counts_what_it_finds_sound(void)
{
    struct l0_bed bed;
    if (!open_l0(&bed, 4))
        return;
    put(&bed, 1);
    bed.l0.hits = 0;
    for (int i = 0; i < 10000; i++) /* by whichever way: one of them is a sample */
        CHECK(find(&bed, 1) == 1);
    CHECK(bed.l0.hits == 10000);
    CHECK(rc_l0_find(&bed.l0, bed.names[1], 0) == 0 && find(&bed, 2) == 0 && bed.l0.hits == 10000);
    close_l0(&bed);
}

int main(void)
{
    TEST(finds_each_key_by_the_address_of_its_string);
    TEST(ends_with_the_entry_alone);
    TEST(serves_nothing_that_is_not_known_coherent);
    TEST(tells_what_was_used_since_it_was_asked);
    TEST(leaves_a_block_to_its_reader);
    TEST(answers_many_keys_as_it_answers_each);
    TEST(counts_what_it_finds_sound);
    return test_result();
}
