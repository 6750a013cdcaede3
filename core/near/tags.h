/*
 * tags - whether the tags of an entry still have the generations that it was stored with.
 *
 * What:    an entry with tags begins with a block (numbers are little-endian):
 *
 *              u16 size of the block | u8 parts | u8 how many tags
 *              parts & 1: u32 life_ms | u32 stale_ms | u32 load_ms
 *              per tag: 8 bytes hard generation | 8 bytes soft one | u8 length of its name | name
 *
 *          A tag's generations stand in Redis under a prefix and its name: 16 bytes, as the payload
 *          of an entry (RC_KIND_VALUE, RC_CODEC_RAW, no flags) and not as a plain string. That
 *          gives them a version, by which a copy is confirmed after a reconnect, and an UNLINK is
 *          repeated that a failover has lost. A script that changes the soft half in place writes a
 *          new version, too. A hard generation is random, so one that is lost never comes back.
 *
 *          A check goes by the near copies of the generations, and by nothing else. Most tags are
 *          found in a table of handles; its places are chosen by the hard generation, whose bytes
 *          are random already: no name is hashed. rc_near_tags_sound remembers what it found valid
 *          (memo.h).
 * Threads: one at a time.
 * Memory:  512 KiB each, of which pages are taken as they are used; the near cache outlives them.
 *          Blocks are read in place.
 * Errors:  none: a block may hold any bytes.
 * Not:     asks Redis nothing: a tag that is not near is RC_TAGS_UNKNOWN.
 */
#ifndef RC_TAGS_H
#define RC_TAGS_H

#include <stddef.h>
#include <stdint.h>

#include "near/near.h"

enum {
    RC_TAG_GENERATION = 8,                     /* bytes of either half */
    RC_TAG_GENERATIONS = 2 * RC_TAG_GENERATION /* what is stored: hard, then soft */
};

struct rc_near_tags;

/* NULL without memory. */
struct rc_near_tags *rc_near_tags_new(struct rc_near *near, const char *prefix, size_t prefix_len);
void rc_near_tags_free(struct rc_near_tags *tags);
/* RC_TAGS_*. `len` may be more than the block has: an entry's whole payload. */
int rc_near_tags_check(struct rc_near_tags *tags, const char *block, size_t len,
                       int64_t max_stale_us);
/* The size of the block at the front of those len bytes, if the entry of that handle is sound by
   it: its tags are RC_TAGS_VALID, and until its deadline is more than its grace window (is_capped
   of the handle: its deadline says nothing). 0: it is not, or this cannot tell. The entry was just
   found as of now_us, which rc_near_reader_us has told before that, and coherent within
   max_stale_us. tags may be NULL: then no entry with tags is sound. */
size_t rc_near_tags_sound(struct rc_near_tags *tags, const rc_near_handle *entry, const char *block,
                          size_t len, int64_t now_us, int64_t max_stale_us);
/* RC_VIEW_*: rc_near_is_valid of a handle with a block, and rc_near_tags_sound of that block, which
   was whole when the handle was filled. */
int rc_near_tags_check_handle(struct rc_near *near, struct rc_near_tags *tags,
                              rc_near_handle *handle, int64_t max_stale_us);

#endif
