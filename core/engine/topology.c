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

static struct rc_link *route(struct rc_topology *topology, struct rc_req *req,
                             enum rc_link_role role, int32_t slot)
{
    req->role = (uint8_t)role;
    req->slot = slot;
    return rc_node_link(rc_topology_node(topology, slot), role);
}

void rc_topology_send(struct rc_topology *topology, struct rc_req *req, enum rc_link_role role,
                      int32_t slot, int64_t deadline_us)
{
    rc_link_send(route(topology, req, role, slot), req, deadline_us);
}

void rc_topology_send_after(struct rc_topology *topology, struct rc_req *req,
                            enum rc_link_role role, int32_t slot, struct rc_req *earlier)
{
    rc_link_send_after(route(topology, req, role, slot), req, earlier);
}

const struct rc_link *rc_topology_command_link(const struct rc_topology *topology, int32_t slot)
{
    (void)slot;
    return rc_node_command_link(&topology->node);
}

int rc_topology_is_barred(struct rc_topology *topology, int32_t slot, const char **cause)
{
    const struct rc_link *w = rc_node_link(rc_topology_node(topology, slot), RC_LINK_W);
    *cause = w->cause;
    if (!rc_link_is_barred(w))
        return 0;
    return w->refused ? RC_ERR_REDIS : RC_ERR_UNAVAILABLE;
}

bool rc_topology_is_tracked(struct rc_topology *topology, int32_t slot)
{
    return rc_node_link(rc_topology_node(topology, slot), RC_LINK_T)->tracking;
}

const char *rc_topology_why_deaf(struct rc_topology *topology, int32_t slot)
{
    const struct rc_link *t = rc_node_link(rc_topology_node(topology, slot), RC_LINK_T);
    return rc_link_is_ready(t) ? NULL : t->cause;
}
