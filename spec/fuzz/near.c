/* A region whose bytes are changed while readers and writers use it. Whatever they find there,
   nothing is read or written outside of it, everything ends, and an entry has a size that entries
   have. */
#include "near/near_own.h"

#include <string.h>

#include "fuzz.h"

enum { BYTES = 96 * 1024, STRIPES = 2, KEYS = 64, LONGEST = 5000, SECOND = 1000000 };

static _Atomic int64_t now_us;
static struct rc_near *near;
static struct rc_near_owner *owner;
static char *pristine;
static const char value_bytes[LONGEST];

static size_t write_key(char key[16], uint8_t id)
{
    return (size_t)snprintf(key, 16, "key:%u", id % KEYS);
}

static void fill(uint8_t id, size_t len)
{
    char key[16];
    struct rc_near_entry entry = {.key = key, .value = value_bytes, .value_len = len % LONGEST};
    entry.key_len = write_key(key, id);
    entry.kind = id % 3 == 0 ? RC_KIND_PLAIN : RC_KIND_VALUE;
    entry.deadline_us = now_us + (1 + id % 4) * SECOND;
    entry.hash = rc_near_hash(near, key, entry.key_len);
    rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash));
}

/* Half full, once; each input begins with these bytes. */
static void open_region(void)
{
    const struct rc_mix_seed seed = {{1, 2, 3, 4}};
    struct rc_near_options options = {
        .bytes = BYTES, .stripes = STRIPES, .seed = &seed, .clock = &now_us};
    const char *why;
    now_us = 1000 * (int64_t)SECOND;
    FUZZ_CHECK(rc_near_open(&near, &options, &why) == 0);
    owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, now_us);
    for (uint32_t i = 0; i < 200; i++)
        fill((uint8_t)(i * 7), i * 37 % 900);
    pristine = malloc(BYTES);
    memcpy(pristine, near->region.base, BYTES);
}

static void look(uint8_t id, size_t room, rc_near_handle *handle)
{
    char key[16], buffer[300];
    rc_near_value value = {.buffer = buffer, .capacity = room % sizeof(buffer)};
    int outcome = rc_near_lookup(near, NULL, 0, key, write_key(key, id), SECOND, &value);
    if (outcome == RC_NEAR_HIT)
        *handle = value.handle;
    FUZZ_CHECK(outcome == RC_NEAR_MISS || value.len <= BYTES / 8);
    FUZZ_CHECK(outcome != RC_NEAR_HIT || value.len <= value.capacity);
}

static void drop(uint8_t id)
{
    char key[16];
    size_t len = write_key(key, id);
    rc_near_drop(near, key, len, id % 2 == 0 ? RC_NEAR_PUSH : RC_NEAR_WRITE);
    rc_near_value value = {.buffer = key};
    FUZZ_CHECK(rc_near_lookup(near, NULL, 0, key, len, SECOND, &value) == RC_NEAR_MISS);
}

static void claim(void)
{
    struct rc_near_claim claims[RC_NEAR_CLAIMS];
    struct rc_buf keys;
    uint32_t cursor = 0;
    rc_buf_init(&keys);
    rc_near_renew_owner(owner);
    size_t count =
        rc_near_claims(near, owner, NULL, RC_NEAR_ANY_HEAT, &cursor, 1000, claims, &keys);
    for (size_t i = 0; i < count; i++)
        rc_near_confirm(near, owner, NULL, rc_buf_head(&keys) + claims[i].key_at, claims[i].key_len,
                        claims[i].version, now_us + SECOND);
    rc_buf_deinit(&keys);
}

static bool is_mutex(size_t at, const pthread_mutex_t *mutex)
{
    size_t begins = (size_t)((const char *)mutex - near->region.base);
    return at + 4 > begins && at < begins + sizeof(*mutex);
}

/* Anywhere but in mutexes: a damaged one is waited for. */
static void damage(struct fuzz_input *input)
{
    size_t at = (size_t)fuzz_number(input, 3) % (BYTES - 4);
    uint32_t word = (uint32_t)fuzz_number(input, 4);
    if (is_mutex(at, &near->region.head->mutex))
        return;
    for (int i = 0; i < STRIPES; i++)
        if (is_mutex(at, &near->region.stripes[i].head->mutex))
            return;
    memcpy(near->region.base + at, &word, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input input = {bytes, bytes + len};
    rc_near_handle handle;
    memset(&handle, 0, sizeof(handle));
    if (near == NULL)
        open_region();
    now_us = 1000 * (int64_t)SECOND;
    memcpy(near->region.base, pristine, BYTES);
    while (fuzz_left(&input) > 0) {
        uint8_t step = fuzz_byte(&input), id = fuzz_byte(&input);
        if (step < 96)
            damage(&input);
        else if (step < 160)
            fill(id, (size_t)fuzz_number(&input, 2));
        else if (step < 200)
            look(id, step, &handle);
        else if (step < 230)
            drop(id);
        else if (step < 240)
            (void)rc_near_is_valid(near, &handle, SECOND);
        else if (step < 246)
            rc_near_sweep(near, 0, 1000);
        else if (step < 250)
            claim();
        else
            now_us += id * (SECOND / 64);
    }
    return 0;
}
