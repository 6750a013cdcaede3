#include "engine/topology.h"

#include <assert.h>

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address, struct rc_near *near,
                     const struct rc_node_news *news)
{
    rc_list_init(&topology->all);
    topology->numbers = topology->leaving = 0;
    topology->carrier = (struct rc_carrier){NULL, NULL};
    int error = rc_node_init(&topology->node, context, address, near, news);
    if (error != 0)
        return error;
    for (int role = 0; role < RC_LINK_ROLES; role++)
        (void)rc_topology_add(topology, rc_node_link(&topology->node, (enum rc_link_role)role));
    return 0;
}

void rc_topology_deinit(struct rc_topology *topology)
{
    rc_node_deinit(&topology->node);
}

/* ---- links that come and go ------------------------------------------------------------------ */

int rc_topology_set_carrier(struct rc_topology *topology, const struct rc_carrier *carrier)
{
    topology->carrier = *carrier;
    RC_TOPOLOGY_EACH(link, topology) {
        int error = carrier->add(carrier->owner, link);
        if (error != 0)
            return error;
    }
    return 0;
}

int rc_topology_add(struct rc_topology *topology, struct rc_link *link)
{
    const struct rc_carrier *carrier = &topology->carrier;
    link->number = topology->numbers;
    int error = carrier->add != NULL ? carrier->add(carrier->owner, link) : 0;
    if (error != 0)
        return error;
    topology->numbers++;
    rc_list_append(&topology->all, &link->place);
    return 0;
}

void rc_topology_remove(struct rc_topology *topology, struct rc_link *link)
{
    assert(!link->is_leaving);
    rc_link_shutdown(link);
    link->is_leaving = link->wants_close = true;
    topology->leaving++;
}

void rc_topology_release(struct rc_topology *topology, struct rc_link *link)
{
    assert(link->is_leaving && !link->wants_close);
    rc_list_remove(&link->place);
    topology->leaving--;
    if (link->on_gone != NULL)
        link->on_gone(link);
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
