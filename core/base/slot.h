/*
 * slot - Redis Cluster's hash slots, and helper keys that share a slot with their main key.
 *
 * What:    CRC16 of a key's hash tag; names for second keys (refresh lease, fence, release mark) in
 *          the same slot; sets of slots.
 * Threads: pure.
 * Memory:  appends to the given buf.
 * Errors:  RC_ERR_NOMEM from rc_slot_helper_key.
 * Not:     no map of slots to servers.
 * Source:  Redis Cluster specification, "Hash tags".
 */
#ifndef RC_SLOT_H
#define RC_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { RC_SLOT_COUNT = 16384 };

/* Some of the slots. */
struct rc_slot_set {
    uint64_t bits[RC_SLOT_COUNT / 64];
};

static inline void rc_slot_set_add(struct rc_slot_set *set, uint32_t slot)
{
    set->bits[slot / 64] |= UINT64_C(1) << slot % 64;
}

static inline void rc_slot_set_remove(struct rc_slot_set *set, uint32_t slot)
{
    set->bits[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

static inline bool rc_slot_set_has(const struct rc_slot_set *set, uint32_t slot)
{
    return (set->bits[slot / 64] >> slot % 64 & 1) != 0;
}

/* Adds those of another; whether that one has any. */
static inline bool rc_slot_set_join(struct rc_slot_set *set, const struct rc_slot_set *other)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < RC_SLOT_COUNT / 64; i++) {
        set->bits[i] |= other->bits[i];
        any |= other->bits[i];
    }
    return any != 0;
}

static inline bool rc_slot_set_is_empty(const struct rc_slot_set *set)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < RC_SLOT_COUNT / 64; i++)
        any |= set->bits[i];
    return any == 0;
}

uint16_t rc_crc16(const char *bytes, size_t len);
uint16_t rc_slot(const char *key, size_t len);
/* Appends to `out` a key that is different for every (key, suffix) and lies in the slot of `key`.
   The suffix holds none of "!~^": the last of these bytes in a helper key says where it begins. */
int rc_slot_helper_key(struct rc_buf *out, const char *key, size_t len, const char *suffix);

#endif
