/*
 * slot - Redis Cluster's hash slots, and helper keys that share a slot with their main key.
 *
 * What:    CRC16 of a key's hash tag; names for second keys (refresh lease, fence, release mark) in
 *          the same slot.
 * Threads: pure.
 * Memory:  appends to the given buf.
 * Errors:  RC_ERR_NOMEM from rc_slot_helper_key.
 * Not:     no map of slots to servers.
 * Source:  Redis Cluster specification, "Hash tags".
 */
#ifndef RC_SLOT_H
#define RC_SLOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { RC_SLOT_COUNT = 16384 };

uint16_t rc_crc16(const char *bytes, size_t len);
uint16_t rc_slot(const char *key, size_t len);
/* Appends to `out` a key that is different for every (key, suffix) and lies in the slot of `key`.
   The suffix holds none of "!~^": the last of these bytes in a helper key says where it begins. */
int rc_slot_helper_key(struct rc_buf *out, const char *key, size_t len, const char *suffix);

#endif
