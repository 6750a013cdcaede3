#include "engine/topology.h"

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address)
{
    int error = rc_link_init(&topology->links[RC_LINK_W], context, address, RC_LINK_W);
    if (error != 0)
        return error;
    error = rc_link_init(&topology->links[RC_LINK_T], context, address, RC_LINK_T);
    if (error != 0)
        rc_link_deinit(&topology->links[RC_LINK_W]);
    return error;
}

void rc_topology_deinit(struct rc_topology *topology)
{
    rc_link_deinit(&topology->links[RC_LINK_T]);
    rc_link_deinit(&topology->links[RC_LINK_W]);
}

struct rc_link *rc_topology_link(struct rc_topology *topology, enum rc_link_role role,
                                 const char *key, size_t key_len)
{
    (void)key;
    (void)key_len;
    return &topology->links[role];
}
