/*
 * roster - the nodes of one cluster that the url lists.
 *
 * What:    at which of them the client begins, and whom it asks once all nodes that it knows are
 *          lost. Until one has answered, the url's node (number 0) moves from address to address,
 *          in an order of chance. A round passes at once over those that refuse; in the first one
 *          those that are silent share the time to connect, but for 250 ms each. The links' pauses
 *          stand between rounds. From the first answer on node 0 stays where it is, and the
 *          addresses are nodes among others (rc_topology_find).
 * Threads: the engine's owner.
 * Memory:  owns its copy of the list; where the url names one server, it owns nothing.
 * Errors:  RC_ERR_NOMEM from init. Why no node answers: as the cause of node 0's links.
 * Not:     does not judge servers: a link refuses what is no node of a cluster (link.c). Does not
 *          ask for the map: cluster does.
 */
#ifndef RC_ROSTER_H
#define RC_ROSTER_H

#include "engine/context.h"
#include "engine/topology.h"

struct rc_roster {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_address *list; /* as the url has it; NULL: it names one server */

    /* Engine only. */
    uint8_t order[RC_LISTED];
    uint32_t at;     /* in `order`: the one that is next */
    uint32_t missed; /* addresses since the last round began */
    bool is_moving;
};

int rc_roster_init(struct rc_roster *roster, struct rc_context *context,
                   struct rc_topology *topology);
void rc_roster_deinit(struct rc_roster *roster);

/* No node has answered yet, and this link of node 0 was not made: node 0 goes to the next address.
   Not from inside a `done`. */
void rc_roster_on_missed(struct rc_roster *roster, struct rc_link *link);
/* One has answered: this one's links have all the time that others have. */
void rc_roster_on_ready(struct rc_roster *roster);
/* The node of the next listed address, one that does not wait for another try before one that does.
   NULL: nothing is listed, or there is no memory. As rc_topology_find. */
struct rc_server_node *rc_roster_next(struct rc_roster *roster);

#endif
