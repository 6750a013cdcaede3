#include "engine/topology.h"

enum { TRIES = 4 }; /* with one link, before it is the other's turn */

static const char TWO_SERVERS[] =
    "reads and commands reach two different servers behind this address; connecting again";

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address)
{
    topology->suspect = NULL;
    topology->tries = 0;
    rc_list_init(&topology->all);
    int error = rc_link_init(&topology->links[RC_LINK_W], context, address, RC_LINK_W);
    if (error != 0)
        return error;
    error = rc_link_init(&topology->links[RC_LINK_T], context, address, RC_LINK_T);
    if (error != 0) {
        rc_link_deinit(&topology->links[RC_LINK_W]);
        return error;
    }
    for (uint32_t i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        topology->links[i].number = i;
        rc_list_append(&topology->all, &topology->links[i].place);
    }
    return 0;
}

struct rc_link *rc_topology_numbered(const struct rc_topology *topology, uint32_t number)
{
    RC_TOPOLOGY_EACH(link, topology) {
        if (link->number == number)
            return link;
    }
    return NULL;
}

void rc_topology_deinit(struct rc_topology *topology)
{
    rc_link_deinit(&topology->links[RC_LINK_T]);
    rc_link_deinit(&topology->links[RC_LINK_W]);
}

/* Of two links to two servers, the one to be made again. One and the same for some tries, or a
   balancer that takes its servers in turns would never give both the same. */
static struct rc_link *wrong_of(struct rc_topology *topology, struct rc_link *younger,
                                struct rc_link *older)
{
    if (younger->identity.role != older->identity.role) {
        if (younger->identity.role == RC_SERVER_REPLICA)
            return younger;
        if (older->identity.role == RC_SERVER_REPLICA)
            return older;
    }
    if (topology->suspect == NULL) {
        topology->suspect = older;
        topology->tries = 0;
    } else if (++topology->tries >= TRIES) {
        topology->suspect = topology->suspect == older ? younger : older;
        topology->tries = 0;
    }
    return topology->suspect;
}

const char *rc_topology_compare(struct rc_topology *topology, struct rc_link *link)
{
    struct rc_link *other = &topology->links[link->role == RC_LINK_W ? RC_LINK_T : RC_LINK_W];
    if (!rc_link_is_ready(other))
        return NULL;
    if (!rc_identity_differs(&link->identity, &other->identity)) {
        const char *change = rc_identity_change(&other->identity, &link->identity);
        topology->suspect = NULL;
        if (change != NULL) /* it would find out with its next heartbeat */
            rc_link_give_up(other, change);
        return NULL;
    }
    if (wrong_of(topology, link, other) == link)
        return TWO_SERVERS;
    rc_link_give_up(other, TWO_SERVERS);
    return NULL;
}

struct rc_link *rc_topology_link(struct rc_topology *topology, enum rc_link_role role,
                                 const char *key, size_t key_len)
{
    (void)key;
    (void)key_len;
    return &topology->links[role];
}
