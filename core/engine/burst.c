#include "engine/burst.h"

#include <assert.h>
#include <string.h>

#include "engine/op.h"

enum { PROBES = 4 }; /* where all of them are taken a read goes by itself */

/* Not keyed: who makes keys collide has their reads sent one by one, and nothing else. */
static uint32_t hash_of(const char *key, size_t len)
{
    uint64_t hash = len, word = 0;
    for (size_t at = 0; at + sizeof word <= len; at += sizeof word) {
        memcpy(&word, key + at, sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    word = 0;
    if (len >= sizeof word) /* the last word may overlap the one before */
        memcpy(&word, key + len - sizeof word, sizeof word);
    else if (len > 0)
        memcpy(&word, key, len);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 32);
}

/* The place with that hash, or the first free one; NULL: there is neither. */
static struct rc_burst_place *place_of(struct rc_burst *burst, uint32_t hash)
{
    for (uint32_t i = 0; i < PROBES; i++) {
        struct rc_burst_place *place = &burst->places[(hash + i) % RC_BURST_PLACES];
        if (place->part != burst->part || place->hash == hash)
            return place;
    }
    return NULL;
}

void rc_burst_part(struct rc_burst *burst)
{
    if (++burst->part != 0)
        return;
    memset(burst->places, 0, sizeof burst->places); /* those of 2^32 parts ago */
    burst->part = 1;
}

void rc_burst_open(struct rc_burst *burst)
{
    if (burst->rest > 0) {
        burst->rest--;
        return;
    }
    burst->is_open = true;
    rc_burst_part(burst);
}

void rc_burst_close(struct rc_burst *burst)
{
    burst->is_open = false;
    if (burst->asked < RC_BURST_JUDGED)
        return;
    if (burst->equal < burst->asked / RC_BURST_WORTH)
        burst->rest = RC_BURST_REST;
    burst->asked = burst->equal = 0;
}

void rc_burst_write(struct rc_burst *burst, const char *key, size_t len)
{
    uint32_t hash = hash_of(key, len);
    struct rc_burst_place *place = place_of(burst, hash);
    if (place != NULL && place->part == burst->part)
        place->op = NULL;
}

/* What a replica may answer, what must be fresh and what is kept near have ways of their own. */
static bool may_share(const struct rc_op *op)
{
    return op->ask.flags == 0 && !op->ask.near;
}

static bool asks_the_same(const struct rc_op *a, const struct rc_op *b)
{
    return a->ask.expect == b->ask.expect && a->ask.timeout_ms == b->ask.timeout_ms &&
           rc_buf_is(&a->ask.key, rc_buf_head(&b->ask.key), rc_buf_len(&b->ask.key));
}

struct rc_op *rc_burst_find(struct rc_burst *burst, struct rc_op *op)
{
    assert(burst->is_open && op->ask.kind == RC_OP_GET);
    if (!may_share(op))
        return NULL;
    burst->asked++;
    uint32_t hash = hash_of(rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key));
    struct rc_burst_place *place = place_of(burst, hash);
    if (place == NULL)
        return NULL;
    if (place->part == burst->part && place->op != NULL) {
        if (!asks_the_same(place->op, op))
            return NULL;
        burst->equal++;
        return place->op;
    }
    *place = (struct rc_burst_place){.part = burst->part, .hash = hash, .op = op};
    return NULL;
}
