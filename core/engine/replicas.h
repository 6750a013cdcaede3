/*
 * replicas - reads that a replica may answer: which replicas there are, and which one is asked.
 *
 * What:    keeps a list of replicas per node, as others tell it, and a link of role R to each that
 *          reads are meant for, opened with the first of them. Of those that can be asked one that
 *          hears its master comes first, then one of the user's zone, then they take turns. While
 *          there are reads each is asked every second whether it still hears its master, and
 *          others are asked which replicas there are.
 * Threads: the engine's owner.
 * Memory:  owns the replicas and their links.
 * Errors:  RC_ERR_NOMEM from init. A replica for which there is no memory is not asked.
 * Not:     sends no reads, and asks no master: call does. Knows nothing of clusters and sentinels.
 */
#ifndef RC_REPLICAS_H
#define RC_REPLICAS_H

#include "engine/context.h"
#include "engine/topology.h"

struct rc_replicas {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    /* Who the replicas are is not known yet, or was told a second ago: rc_replicas_begin is wanted.
       is_wrong: what was told is not so any more. May be said from inside of a call. */
    void (*on_old)(void *owner, bool is_wrong);
    void *owner;

    /* Engine only. */
    struct rc_list known;   /* replicas, by `every` */
    struct rc_list ended;   /* to be removed by the timer: here it could be from inside a `done` */
    struct rc_list leaving; /* removed; the driver still closes their links */
    uint32_t round;         /* of telling */
    int64_t told_us;        /* when the last round ended; 0: never */
    bool is_used;           /* a replica was wanted since the timer has last fired */
    uint64_t turns;
    struct rc_timer look;
    struct rc_timer sweep;
};

int rc_replicas_init(struct rc_replicas *replicas, struct rc_context *context,
                     struct rc_topology *topology, void (*on_old)(void *owner, bool is_wrong),
                     void *owner);
void rc_replicas_deinit(struct rc_replicas *replicas); /* after the links' shutdown */
/* No replica is asked any longer. */
void rc_replicas_shutdown(struct rc_replicas *replicas);

/* Tells all replicas there are, again: begin, each of them, end. Those that are not
   told go. */
void rc_replicas_begin(struct rc_replicas *replicas);
void rc_replicas_tell(struct rc_replicas *replicas, struct rc_server_node *master, const char *host,
                      uint16_t port);
void rc_replicas_end(struct rc_replicas *replicas);
/* There is another master: none is known until its replicas are told. */
void rc_replicas_forget(struct rc_replicas *replicas);

/* A link to a replica of the slot's node. NULL: the master has to answer. */
struct rc_link *rc_replicas_choose(struct rc_replicas *replicas, int32_t slot);
/* Until when a replica may answer what has to be answered by then. */
int64_t rc_replicas_until_us(const struct rc_replicas *replicas, int64_t deadline_us);
/* What such a link has answered. False: it is not to be taken, the master has to be asked. */
bool rc_replicas_hear(struct rc_replicas *replicas, const struct rc_req *req, int status,
                      const struct rc_reply *reply);

void rc_replicas_get_health(const struct rc_replicas *replicas, rc_health *health);

#endif
