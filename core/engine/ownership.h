/*
 * ownership - up to when the masters of a cluster agree about who owns which slot.
 *
 * What:    a node that answers is no proof that a slot is still its own: after a slot has left, the
 *          old owner's pushes for its keys come seconds late, or never, and a master that was
 *          stopped, or cut off, does not know that it was replaced. So while near copies are read
 *          the engine asks each master for the map, in rounds, one per quarter of maxStale. It
 *          vouches for a node (rc_node_vouch) up to when the older of these two was sent: the last
 *          question that the node itself has answered, and the last that a majority of the masters
 *          has answered. Behind the majority's answers the node is asked for its epoch once more: a
 *          slot that left before it answered first, and has come back before the others did, has
 *          brought it a new one. Slots that any answer gives to another node than we do are in
 *          doubt: the engine drops their copies, and keeps none until a whole round has not doubted
 *          them. It also drops the copies of a slot that it gives to another node itself, as a
 *          MOVED or a map says. It vouches for nobody while copies are still to be dropped, nor
 *          before the first map: until then the node of the url has all slots, and would be a
 *          majority by itself.
 *          The processes that share a near cache share the answers, too: an answer that agrees with
 *          the whole map, in a round that nobody has doubted, is noted in the region, and a process
 *          that has the same map takes a note that is young enough for an answer to itself.
 * Threads: the engine's owner.
 * Memory:  owns a map, from the first round on.
 * Errors:  none: where nobody can be asked copies grow stale, and reads go to Redis.
 * Not:     does not choose where commands go: cluster does, and may follow one node's word, for a
 *          wrong way costs a redirection.
 * Source:  the Redis Cluster specification, "Configuration epoch": of two nodes that claim a slot
 *          the greater epoch wins, and a node that takes slots over gets a new one. That a PONG
 *          proves nothing, and how late the pushes are, was measured on Redis 7.0 to 8.6 and
 *          Valkey 9.1.
 */
#ifndef RC_OWNERSHIP_H
#define RC_OWNERSHIP_H

#include "engine/context.h"
#include "engine/slot_map.h"
#include "engine/topology.h"

struct rc_ownership {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    void (*on_doubt)(void *owner); /* a slot's owner is not agreed: the map should be asked for */
    void *owner;

    /* Engine only. */
    struct rc_slot_map *map;      /* the answer that is being read; NULL: there was none yet */
    uint32_t round;               /* the newest */
    uint32_t missing;             /* answers of it still to come */
    int64_t round_us;             /* when it began */
    bool is_enough;               /* who could be asked; else the next one may begin at once */
    bool is_partial;              /* a master was left out that may answer yet: nothing in doubt is
                                     settled by it */
    bool is_due;                  /* it begins in a moment, */
    struct rc_timer due;          /* then */
    int64_t period_us;            /* between two of them */
    uint64_t map_number;          /* stands for the map that the topology follows, */
    uint32_t map_changes;         /* after so many changes of it */
    struct rc_slot_set contested; /* in this round */
    bool has_doubted;             /* slots whose copies are to be dropped, */
    struct rc_slot_set doubted;   /* these */
    struct rc_slot_set leaving;   /* those being dropped */
    uint32_t cursor;              /* where the drop goes on; 0: none is under way */
    struct rc_timer drop;
};

int rc_ownership_init(struct rc_ownership *ownership, struct rc_context *context,
                      struct rc_topology *topology, void (*on_doubt)(void *owner), void *owner);
void rc_ownership_deinit(struct rc_ownership *ownership); /* after the links' shutdown */

/* Near copies of the node are being read: begins a round, if it is time. */
void rc_ownership_watch(struct rc_ownership *ownership, const struct rc_server_node *node);

#endif
