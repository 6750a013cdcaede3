#include "engine/track.h"

#include <assert.h>
#include <string.h>

void rc_track_init(struct rc_track *track, const struct rc_seed *seed)
{
    track->is_firing_all = false;
    rc_table_init(&track->watches, seed);
}

void rc_track_deinit(struct rc_track *track)
{
    rc_table_deinit(&track->watches);
}

int rc_track_watch(struct rc_track *track, struct rc_watch *watch, const char *key, size_t len)
{
    assert(!track->is_firing_all);
    rc_track_unwatch(track, watch);
    watch->node.key = key;
    watch->node.key_len = len;
    int error = rc_table_insert(&track->watches, &watch->node);
    watch->is_set = error == 0;
    return error;
}

void rc_track_unwatch(struct rc_track *track, struct rc_watch *watch)
{
    if (watch->is_set)
        rc_table_remove(&track->watches, &watch->node);
    watch->is_set = false;
}

static void fire(struct rc_track *track, struct rc_table_node *node)
{
    struct rc_watch *watch = (struct rc_watch *)(void *)node;
    rc_track_unwatch(track, watch);
    watch->fire(watch);
}

void rc_track_fire_all(struct rc_track *track)
{
    struct rc_table_node *node;
    /* Ends: watches are set again only by later answers, never from `fire`. */
    track->is_firing_all = true;
    while ((node = rc_table_any(&track->watches)) != NULL)
        fire(track, node);
    track->is_firing_all = false;
}

void rc_track_push(struct rc_track *track, const struct rc_reply *push,
                   void (*tell)(void *owner, const char *key, size_t len), void *owner)
{
    const rc_node *nodes = push->nodes;
    if (push->count < 3 || nodes[1].len != 10 || nodes[1].str == NULL ||
        memcmp(nodes[1].str, "invalidate", 10) != 0)
        return;
    if (nodes[2].type == '_') { /* FLUSHALL or FLUSHDB of any database */
        tell(owner, NULL, 0);
        rc_track_fire_all(track);
        return;
    }
    for (uint32_t i = 3; i < push->count; i++) {
        struct rc_table_node *node;
        if (nodes[i].type != '$')
            continue;
        tell(owner, nodes[i].str, nodes[i].len);
        while ((node = rc_table_find(&track->watches, nodes[i].str, nodes[i].len)) != NULL)
            fire(track, node);
    }
}
