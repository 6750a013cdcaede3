/*
 * scout - finds out which replicas a master has, where no cluster tells.
 *
 * What:    asks a sentinel that names our master (SENTINEL REPLICAS: those that it does not take to
 *          be down), or the master itself (ROLE: those that are connected to it, at the addresses
 *          that it sees).
 * Threads: the engine's owner.
 * Memory:  owns nothing but the question under way.
 * Errors:  none: where nobody tells, no replica is known, and health's `off` says why.
 * Not:     does not know when to ask: replicas say so.
 */
#ifndef RC_SCOUT_H
#define RC_SCOUT_H

#include "engine/context.h"
#include "engine/replicas.h"
#include "engine/sentinel.h"
#include "engine/topology.h"

struct rc_scout {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_replicas *replicas;
    struct rc_sentinel *sentinel;

    /* Engine only. */
    struct rc_req *req;         /* the question under way, or NULL */
    char refusal[RC_TEXT_SIZE]; /* why the last one was not answered; "": it was */
};

void rc_scout_init(struct rc_scout *scout, struct rc_context *context, struct rc_topology *topology,
                   struct rc_replicas *replicas, struct rc_sentinel *sentinel);
/* Asks, if there is somebody to ask now. */
void rc_scout_ask(struct rc_scout *scout);
void rc_scout_get_health(const struct rc_scout *scout, rc_health *health);

#endif
