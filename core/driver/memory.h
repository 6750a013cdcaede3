/*
 * memory - a store in this process that any number of drivers share: what memory:// names.
 *
 * What:    the store, the mutex under which one driver at a time speaks to it, and its clock: the
 *          drivers' time, plus an offset that is fixed when it is made.
 * Threads: any; an end is one driver's. References are counted under the client registry's mutex.
 * Memory:  bounded by max_bytes. An end owns the answers that were taken out of the store. A child
 *          of fork() never touches its parent's store, whose mutex may be locked for ever.
 * Errors:  RC_ERR_NOMEM.
 * Not:     no thread of its own. The store allocates under the mutex: that is what it is for.
 */
#ifndef RC_MEMORY_H
#define RC_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct rc_memory;
struct rc_store_conn;

/* A link's end of a store. */
struct rc_memory_end {
    /* Fixed after init. */
    void *owner;
    /* There is something to hear for somebody who said nothing. Called under the store's mutex,
       so that nobody is told who has left: it must not block, and calls nothing of this file. */
    void (*tell)(void *owner);

    /* Owner only. */
    struct rc_store_conn *conn; /* NULL: not connected */
    struct rc_buf answers;      /* taken out of the store; the owner consumes them */
    bool wants_close;           /* behind its answers */
};

enum { RC_MEMORY_DEFAULT_BYTES = 64 * 1024 * 1024 };

/* `unix_us`: the wall clock when the drivers' time is `now_us`. */
int rc_memory_new(struct rc_memory **memory, size_t max_bytes, int64_t now_us, int64_t unix_us);
void rc_memory_ref(struct rc_memory *memory);
/* Whether that was the last one: then it is to be freed, when no end is connected any more. */
bool rc_memory_unref(struct rc_memory *memory);
void rc_memory_free(struct rc_memory *memory); /* NULL: nothing */
size_t rc_memory_max_bytes(const struct rc_memory *memory);
/* It was made by this process, not by a parent. */
bool rc_memory_is_ours(const struct rc_memory *memory);

int rc_memory_connect(struct rc_memory *memory, struct rc_memory_end *end);
void rc_memory_disconnect(struct rc_memory *memory, struct rc_memory_end *end);
/* Says something, and takes out what there is to hear. */
int rc_memory_say(struct rc_memory *memory, struct rc_memory_end *end, const char *bytes,
                  size_t len, int64_t now_us);
/* Takes out what there is to hear. end->answers is empty. */
void rc_memory_hear(struct rc_memory *memory, struct rc_memory_end *end);
/* Expires some of what nobody reads any more, unless that was done a moment ago. */
void rc_memory_sweep(struct rc_memory *memory, int64_t now_us);

#endif
