#include "engine/topology.h"

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address, struct rc_near *near,
                     const struct rc_node_news *news)
{
    rc_list_init(&topology->all);
    int error = rc_node_init(&topology->node, context, address, near, news);
    if (error != 0)
        return error;
    for (uint32_t role = 0; role < RC_LINK_ROLES; role++) {
        struct rc_link *link = rc_node_link(&topology->node, (enum rc_link_role)role);
        link->number = role;
        rc_list_append(&topology->all, &link->place);
    }
    return 0;
}

void rc_topology_deinit(struct rc_topology *topology)
{
    rc_node_deinit(&topology->node);
}

struct rc_link *rc_topology_numbered(const struct rc_topology *topology, uint32_t number)
{
    RC_TOPOLOGY_EACH(link, topology) {
        if (link->number == number)
            return link;
    }
    return NULL;
}

/* ---- routing --------------------------------------------------------------------------------- */

static struct rc_link *route(struct rc_topology *topology, struct rc_req *req, int32_t slot)
{
    req->slot = slot;
    return rc_node_carrier(rc_topology_node(topology, slot), req);
}

void rc_topology_send(struct rc_topology *topology, struct rc_req *req, int32_t slot,
                      int64_t deadline_us)
{
    rc_link_send(route(topology, req, slot), req, deadline_us);
}

void rc_topology_send_after(struct rc_topology *topology, struct rc_req *req, int32_t slot,
                            struct rc_req *earlier)
{
    rc_link_send_after(route(topology, req, slot), req, earlier);
}

const struct rc_link *rc_topology_command_link(const struct rc_topology *topology, int32_t slot)
{
    (void)slot;
    return rc_node_command_link(&topology->node);
}

int rc_topology_is_barred(struct rc_topology *topology, int32_t slot, const char **cause)
{
    const struct rc_link *link = rc_node_command_link(rc_topology_node(topology, slot));
    *cause = link->cause;
    if (!rc_link_is_barred(link))
        return 0;
    return link->refused ? RC_ERR_REDIS : RC_ERR_UNAVAILABLE;
}

bool rc_topology_is_tracked(struct rc_topology *topology, int32_t slot)
{
    return rc_node_tracked_link(rc_topology_node(topology, slot))->tracking;
}

const char *rc_topology_why_deaf(struct rc_topology *topology, int32_t slot)
{
    const struct rc_link *link = rc_node_tracked_link(rc_topology_node(topology, slot));
    return rc_link_is_ready(link) ? NULL : link->cause;
}
