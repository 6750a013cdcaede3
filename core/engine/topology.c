#include "engine/topology.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"

static int add_links(struct rc_topology *topology, struct rc_server_node *node)
{
    int error = 0;
    for (uint32_t i = 0; i < RC_NODE_LINKS && error == 0; i++)
        error = rc_topology_add(topology, rc_node_link(node, i));
    return error;
}

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address, struct rc_near *near,
                     const struct rc_node_news *news)
{
    rc_list_init(&topology->all);
    topology->numbers = topology->leaving = 0;
    topology->carrier = (struct rc_carrier){NULL, NULL};
    topology->others = NULL;
    topology->other_count = 0;
    topology->owners = NULL;
    topology->near = near;
    topology->is_mapped = topology->is_warm = topology->has_moved = false;
    memset(&topology->moved, 0, sizeof topology->moved);
    memset(&topology->unsure, 0xff, sizeof topology->unsure);
    topology->node.number = 0;
    int error = rc_node_init(&topology->node, context, address, near, news);
    return error == 0 ? add_links(topology, &topology->node) : error;
}

void rc_topology_deinit(struct rc_topology *topology)
{
    for (uint16_t i = 0; i < topology->other_count; i++) {
        rc_node_deinit(topology->others[i]);
        free(topology->others[i]);
    }
    free(topology->others);
    free(topology->owners);
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

/* ---- nodes that come ------------------------------------------------------------------------- */

/* The owner of all is the first so far. */
int rc_topology_expect_many(struct rc_topology *topology)
{
    if (topology->owners != NULL)
        return 0;
    topology->owners = calloc(RC_SLOT_COUNT, sizeof *topology->owners);
    if (topology->owners == NULL)
        return RC_ERR_NOMEM;
    topology->node.slots = RC_SLOT_COUNT;
    return 0;
}

/* Room for one more node. */
static int make_room(struct rc_topology *topology)
{
    size_t count = topology->other_count + (size_t)1;
    if (count >= RC_NODES_MAX)
        return RC_ERR_NOMEM;
    struct rc_server_node **others = realloc(topology->others, count * sizeof *others);
    if (others == NULL)
        return RC_ERR_NOMEM;
    topology->others = others;
    return rc_topology_expect_many(topology);
}

int rc_topology_add_node(struct rc_topology *topology, const struct rc_address *address)
{
    const struct rc_server_node *first = &topology->node;
    if (make_room(topology) != 0)
        return RC_ERR_NOMEM;
    struct rc_server_node *node = calloc(1, sizeof *node); /* it must not move */
    if (node == NULL)
        return RC_ERR_NOMEM;
    int error = rc_node_init(node, first->context, address, NULL, &first->news);
    if (error != 0) {
        free(node);
        return error;
    }
    topology->others[topology->other_count++] = node;
    node->number = topology->other_count;
    /* Where the driver has no memory for its links the node stays, without slots. */
    return add_links(topology, node) == 0 ? topology->other_count : RC_ERR_NOMEM;
}

void rc_topology_assign(struct rc_topology *topology, uint16_t first, uint16_t last, int number)
{
    assert(last < RC_SLOT_COUNT && number >= 0 && number <= topology->other_count);
    if (topology->owners == NULL) /* there is but one node */
        return;
    struct rc_server_node *node = rc_topology_at(topology, (uint16_t)number);
    for (uint32_t slot = first; slot <= last; slot++) {
        if (topology->owners[slot] == number)
            continue;
        struct rc_server_node *before = rc_topology_at(topology, topology->owners[slot]);
        before->slots--;
        before->has_lost_slots = true;
        topology->owners[slot] = (uint16_t)number;
        topology->changes++;
        node->slots++;
        /* Of one that was in doubt there are no copies. */
        if (!rc_slot_set_has(&topology->unsure, slot)) {
            rc_slot_set_add(&topology->moved, slot);
            topology->has_moved = true;
        }
    }
    if (node->slots == 0)
        return;
    rc_node_keep(node, topology->near);
    if (topology->is_warm)
        rc_node_warm(node);
}

bool rc_topology_may_keep(const struct rc_topology *topology, const struct rc_server_node *node,
                          int32_t slot)
{
    return topology->owners != NULL && slot >= 0 && topology->owners[slot] == node->number &&
           !rc_slot_set_has(&topology->unsure, (uint16_t)slot);
}

void rc_topology_warm(struct rc_topology *topology)
{
    topology->is_warm = true;
    RC_TOPOLOGY_NODES(node, topology) {
        if (node->slots > 0 || topology->owners == NULL)
            rc_node_warm(node);
    }
}

static bool is_at_rest(const struct rc_topology *topology, const struct rc_server_node *node)
{
    RC_TOPOLOGY_EACH(link, topology) {
        bool rests = link->state == RC_LINK_IDLE && link->request_count == 0 && !link->wants_close;
        if (link->node == node && (!rests || !rc_node_is_own(node, link)))
            return false;
    }
    return true;
}

/* The number of one that has no slots and that nobody talks to; negative: there is none. */
static int find_unused(struct rc_topology *topology)
{
    for (uint16_t i = 1; i <= topology->other_count; i++) { /* the url's keeps its address */
        const struct rc_server_node *node = rc_topology_at(topology, i);
        if (node->slots == 0 && is_at_rest(topology, node))
            return i;
    }
    return -1;
}

static int look_up(struct rc_topology *topology, const char *host, uint16_t port)
{
    for (uint32_t i = 0; i <= topology->other_count; i++) {
        const struct rc_address *each = &rc_topology_at(topology, (uint16_t)i)->address;
        if (each->port == port && !each->is_unix && strcmp(each->host, host) == 0)
            return (int)i;
    }
    return RC_ERR_ARGUMENT;
}

int rc_topology_find(struct rc_topology *topology, const char *host, uint16_t port)
{
    struct rc_address address;
    int known = look_up(topology, host, port);
    if (known >= 0)
        return known;
    if (!rc_address_elsewhere(&address, &topology->node.address, host, port))
        return RC_ERR_ARGUMENT;
    int unused = find_unused(topology);
    if (unused < 0)
        return rc_topology_add_node(topology, &address);
    struct rc_server_node *node = rc_topology_at(topology, (uint16_t)unused);
    rc_node_reuse(node, &address);
    return unused;
}

void rc_topology_rest_unused(struct rc_topology *topology)
{
    for (uint16_t i = 0; topology->owners != NULL && i <= topology->other_count; i++) {
        struct rc_server_node *node = rc_topology_at(topology, i);
        for (uint32_t j = 0; node->slots == 0 && j < RC_NODE_LINKS; j++) {
            struct rc_link *link = rc_node_link(node, j);
            if (link->attempts > 0 && link->request_count == 0 && !link->ended)
                rc_link_rest(link);
        }
    }
}

struct rc_server_node *rc_topology_any(struct rc_topology *topology, uint64_t chance)
{
    uint32_t count = topology->other_count + 1U;
    struct rc_server_node *best = NULL;
    int best_rank = -1;
    for (uint32_t i = 0; i < count; i++) {
        struct rc_server_node *node = rc_topology_at(topology, (uint16_t)((chance + i) % count));
        const struct rc_link *link = rc_node_command_link(node);
        bool may_answer = link->state != RC_LINK_BACKOFF;
        int rank = rc_link_is_ready(link) + may_answer + (may_answer && !node->is_lonely) * 2;
        if (rank > best_rank) {
            best = node;
            best_rank = rank;
        }
    }
    return best;
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

struct rc_server_node *rc_topology_find_node(struct rc_topology *topology, int32_t slot)
{
    return rc_topology_at(topology, rc_topology_owner(topology, slot));
}

struct rc_server_node *rc_topology_find_owner(struct rc_topology *topology, const char *key,
                                              size_t len)
{
    return rc_topology_find_node(topology, rc_slot(key, len));
}

struct rc_server_node *rc_topology_home(struct rc_topology *topology, const struct rc_req *req)
{
    struct rc_server_node *node = req->link->node;
    bool has_left = topology->owners != NULL && node->slots == 0 && !req->asks && !req->stays &&
                    rc_node_is_own(node, req->link);
    return req->slot >= 0 || has_left ? rc_topology_node(topology, req->slot >= 0 ? req->slot : 0)
                                      : node;
}

void rc_topology_send_to(struct rc_topology *topology, struct rc_req *req,
                         struct rc_server_node *node, int32_t slot, int64_t deadline_us)
{
    (void)topology;
    req->slot = slot;
    rc_link_send(rc_node_link_for(node, req), req, deadline_us);
}

void rc_topology_move(struct rc_topology *topology, struct rc_req *req, struct rc_server_node *node)
{
    (void)topology;
    rc_link_move(req, rc_node_link_for(node, req));
}

static void reroute_queue(struct rc_topology *topology, struct rc_link *link)
{
    RC_LIST_EACH(place, following, &link->queue) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        struct rc_server_node *node = rc_topology_home(topology, req);
        if (node != link->node && req->error == 0 && !req->is_asking)
            rc_topology_move(topology, req, node);
    }
}

void rc_topology_reroute(struct rc_topology *topology)
{
    RC_TOPOLOGY_EACH(link, topology) {
        reroute_queue(topology, link);
    }
}

static struct rc_replay *find_replay(void *owner, uint16_t slot)
{
    return &rc_topology_find_node(owner, slot)->replay;
}

void rc_topology_hand_over(struct rc_topology *topology)
{
    const struct rc_replay_homes homes = {topology, find_replay};
    if (RC_MUTANT(REPLAY_ELSEWHERE))
        return;
    RC_TOPOLOGY_NODES(node, topology) {
        if (node->has_lost_slots)
            rc_replay_carry(&node->replay, &homes);
        node->has_lost_slots = false;
    }
    RC_TOPOLOGY_NODES(node, topology) {
        if (node->replay.has_come)
            rc_node_replay(node);
        node->replay.has_come = false;
    }
}

void rc_topology_send_after(struct rc_topology *topology, struct rc_req *req, int32_t slot,
                            struct rc_req *earlier)
{
    rc_link_send_after(rc_topology_route(topology, req, slot), req, earlier);
}

const struct rc_link *rc_topology_command_link(const struct rc_topology *topology, int32_t slot)
{
    uint16_t number = rc_topology_owner(topology, slot);
    return rc_node_command_link(number == 0 ? &topology->node : topology->others[number - 1]);
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

void rc_topology_tell_breakers(struct rc_topology *topology, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    RC_TOPOLOGY_NODES(node, topology) {
        const struct rc_breaker *breaker = &node->fuse.breaker;
        if (!node->fuse.is_on || (topology->owners != NULL && node->slots == 0))
            continue;
        int len =
            snprintf(text + at, size - at, "%s\t%s\t%s\n", node->address.label,
                     rc_breaker_state_name(breaker), breaker->cause != NULL ? breaker->cause : "");
        if (len < 0 || (size_t)len >= size - at) {
            text[at] = '\0';
            return;
        }
        at += (size_t)len;
    }
}

bool rc_topology_tell_open(struct rc_topology *topology, char *text, size_t size)
{
    RC_TOPOLOGY_NODES(node, topology) {
        if (!node->fuse.is_on || !rc_breaker_is_shut(&node->fuse.breaker) ||
            (topology->owners != NULL && node->slots == 0))
            continue;
        rc_breaker_tell(&node->fuse.breaker, node->address.label, node->context->now_us, text,
                        size);
        return true;
    }
    return false;
}

int rc_topology_hold_breakers(struct rc_topology *topology, enum rc_breaker_hold hold,
                              const char *address)
{
    int count = 0;
    if (address == NULL)
        topology->node.context->breaker_hold = (int)hold;
    RC_TOPOLOGY_NODES(node, topology) {
        bool is_meant = address == NULL || strcmp(node->address.label, address) == 0;
        if (is_meant && rc_fuse_set_hold(&node->fuse, hold))
            count++;
    }
    return count;
}
