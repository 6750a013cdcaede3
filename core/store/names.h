/*
 * names - a few names that a session keeps: channels, patterns, watched keys.
 *
 * What:    a list, in the order they came, each name once for each mark.
 * Threads: the store's.
 * Memory:  copies the names.
 * Errors:  RC_ERR_NOMEM, and then nothing was changed.
 * Not:     no index: it is gone through.
 */
#ifndef RC_NAMES_H
#define RC_NAMES_H

#include <stdbool.h>

#include "base/buf.h"
#include "store/text.h"

struct rc_names {
    struct rc_buf bytes; /* of each its mark, its length and itself */
    uint32_t count;
};

void rc_names_init(struct rc_names *names);
void rc_names_deinit(struct rc_names *names);
void rc_names_clear(struct rc_names *names);
/* Does nothing where it is there already. `mark`: the caller's, as a database. */
int rc_names_add(struct rc_names *names, uint32_t mark, struct rc_text name);
bool rc_names_remove(struct rc_names *names, uint32_t mark, struct rc_text name);
bool rc_names_has(const struct rc_names *names, uint32_t mark, struct rc_text name);
/* The name at `at`, which begins with 0 and is moved behind it. False: that was the last one. */
bool rc_names_next(const struct rc_names *names, size_t *at, uint32_t *mark, struct rc_text *name);

#endif
