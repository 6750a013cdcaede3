/*
 * present - whether a value stands under a key, for the twins of scripts that ask first.
 *
 * What:    what lua/redcache/present.lua says, in the same order. A running load, its end and a
 *          remembered "no such thing" count as nothing.
 * Threads: the store's.
 * Memory:  a head is a copy: the texts of a script move while it runs.
 * Errors:  those of the commands, which end the script.
 * Not:     does not read payloads.
 */
#ifndef RC_PRESENT_H
#define RC_PRESENT_H

#include "engine/entry.h"
#include "store/run.h"

enum { RC_PRESENT_HEAD = RC_ENTRY_SIZE + 1 }; /* a lease is a header, and not a byte more */

/* The first bytes of what stands under KEYS[key], if it is a key. */
struct rc_text rc_present_bytes(struct rc_run *run, uint32_t key, char bytes[RC_PRESENT_HEAD]);
/* The same; no bytes (NULL): there is no key. */
struct rc_text rc_present_head(struct rc_run *run, uint32_t key, char bytes[RC_PRESENT_HEAD]);
/* Whether `value`, what stands there or its head, is no value. */
bool rc_present_is_nothing(struct rc_run *run, uint32_t key, struct rc_text value);
/* What the header of a value tells of its grace window; 0: it has none. */
int64_t rc_present_grace_ms(struct rc_text head);

#endif
