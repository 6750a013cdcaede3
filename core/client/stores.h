/*
 * stores - which store in memory a client of a memory:// address works on.
 *
 * What:    clients with one name and one clock share a store; it goes with the last of them. In a
 *          child of fork() they begin with an empty one: the parent's is never touched there.
 * Threads: any, with the registry's mutex.
 * Memory:  a client holds one reference (rc_client.memory) from join to leave.
 * Errors:  as texts.
 * Not:     what a store does: that is driver/memory.h's.
 */
#ifndef RC_STORES_H
#define RC_STORES_H

#include <stdint.h>

#include "redcache.h"

struct rc_client;
struct rc_memory;

/* The store of that name and clock that somebody has open, or NULL. */
struct rc_memory *rc_stores_find(const struct rc_client *wanted);
/* Finds it or makes it. `now_us`: the time the client goes by. Returns why not, or NULL. */
const char *rc_stores_join(struct rc_client *client, int64_t now_us);
/* Returns what is to be freed without the mutex, or NULL. */
struct rc_memory *rc_stores_leave(struct rc_client *client);

#endif
