/*
 * track - who wants to hear that a key changed.
 *
 * What:    watches by key; an invalidation push fires those of its keys, a flush or a broken T link
 *          fires all. A watch fires once: the server forgets a key when it has told us, too.
 * Threads: the engine's owner.
 * Memory:  watches live inside their owners; the watched key's bytes must stay where they are while
 *          it is set.
 * Errors:  RC_ERR_NOMEM from rc_track_watch: then the owner's timer alone will wake it.
 * Not:     does not ask Redis to track anything: the connection T does, by CLIENT TRACKING.
 */
#ifndef RC_TRACK_H
#define RC_TRACK_H

#include <stdbool.h>

#include "base/hash.h"
#include "engine/resp.h"

struct rc_watch {
    struct rc_table_node node;
    bool is_set;
    void (*fire)(struct rc_watch *watch); /* the watch is no longer set then */
};

struct rc_track {
    struct rc_table watches;
    bool is_firing_all;
};

void rc_track_init(struct rc_track *track, const struct rc_seed *seed);
void rc_track_deinit(struct rc_track *track);
int rc_track_watch(struct rc_track *track, struct rc_watch *watch, const char *key, size_t len);
void rc_track_unwatch(struct rc_track *track, struct rc_watch *watch);
/* Reads a push: `tell` hears of every key that has changed, or once of NULL when all may have; then
   the watches fire. */
void rc_track_push(struct rc_track *track, const struct rc_reply *push,
                   void (*tell)(void *owner, const char *key, size_t len), void *owner);
void rc_track_fire_all(struct rc_track *track);

#endif
