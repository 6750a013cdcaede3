/*
 * topology - which server an operation goes to.
 *
 * What:    owns the nodes, and alone knows which of them a key belongs to: what a cluster's slot
 *          map, a redirection or a replica will change is changed here. The node of the url has all
 *          slots until others are added, and assigned some.
 * Threads: the engine's owner.
 * Memory:  owns the nodes, and with them all links.
 * Errors:  RC_ERR_NOMEM from init and add; of what is sent: those of rc_link_send, to each
 *          request's `done`.
 * Not:     makes no requests of its own: a node and its parts see to their own links.
 */
#ifndef RC_TOPOLOGY_H
#define RC_TOPOLOGY_H

#include "base/mutant.h"
#include "base/slot.h"
#include "engine/link.h"
#include "engine/node.h"

/* Who moves the links' bytes: the driver. */
struct rc_carrier {
    void *owner;
    /* There is another link. RC_ERR_NOMEM: it cannot be used. */
    int (*add)(void *owner, struct rc_link *link);
};

struct rc_topology {
    struct rc_server_node node;     /* the server of the url: number 0 */
    struct rc_server_node **others; /* numbers 1, 2, ... */
    uint16_t other_count;
    uint16_t *owners;     /* by slot: the number of its node; NULL: there is but one */
    uint32_t changes;     /* of owners so far */
    bool is_mapped;       /* a map was read; until then the url's node stands for all */
    struct rc_near *near; /* nodes that have slots keep copies there; NULL: none does */
    bool is_warm;         /* and connect for it before anything is asked for */
    /* Where there are several nodes. */
    bool has_moved;
    struct rc_slot_set moved;  /* got another node since ownership has last dropped their copies */
    struct rc_slot_set unsure; /* no copies are kept of these: who owns them is not agreed */
    struct rc_list all; /* links by `place`, in the order of their numbers: RC_TOPOLOGY_EACH */
    uint32_t numbers;   /* given so far: a number is never given twice */
    uint32_t leaving;   /* links of `all` that only the driver still has to do with */
    struct rc_carrier carrier; /* add NULL: none, somebody moves the bytes by hand */
};

/* near NULL: without near copies. `news` is copied. */
int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address, struct rc_near *near,
                     const struct rc_node_news *news);
void rc_topology_deinit(struct rc_topology *topology);

/* Another server, without slots: its number. Negative: RC_ERR_NOMEM. */
int rc_topology_add_node(struct rc_topology *topology, const struct rc_address *address);
/* Of one cluster, at one time: its specification names 1,000. */
enum { RC_NODES_MAX = 1024 };
/* There may be several nodes: slots are told apart from now on. RC_ERR_NOMEM: they are not. */
int rc_topology_expect_many(struct rc_topology *topology);
/* The server at that address, which is added where it is new: its number. Negative: an error. One
   without slots that nobody talks to gives its place to the next new one: the number is good until
   it has slots or is talked to, or the next call. */
int rc_topology_find(struct rc_topology *topology, const char *host, uint16_t port);
/* The slots from the first to the last are that node's. Behind an add. */
void rc_topology_assign(struct rc_topology *topology, uint16_t first, uint16_t last, int number);
/* Those without slots that cannot be reached are tried again only when somebody asks for them. */
void rc_topology_rest_unused(struct rc_topology *topology);

/* For every node there is, in the order of their numbers. */
#define RC_TOPOLOGY_NODES(each, topology)                                                          \
    for (struct rc_server_node *each = &(topology)->node; each != NULL;                            \
         each = rc_topology_next(topology, each))

static inline struct rc_server_node *rc_topology_next(const struct rc_topology *topology,
                                                      const struct rc_server_node *node)
{
    return node->number < topology->other_count ? topology->others[node->number] : NULL;
}

/* For every link there is, in the order of their numbers; none may be released in the body, others
   may come. Only the engine cares which of them has which role. */
#define RC_TOPOLOGY_EACH(link, topology)                                                           \
    for (struct rc_link *link = rc_topology_after(topology, &(topology)->all); link != NULL;       \
         link = rc_topology_after(topology, &link->place))

/* The link behind that place in `all`. NULL: it was the last. */
static inline struct rc_link *rc_topology_after(const struct rc_topology *topology,
                                                const struct rc_list *place)
{
    return place->next != &topology->all ? RC_CONTAINER(place->next, struct rc_link, place) : NULL;
}

/* Tells it of the links there are, and of each that comes. RC_ERR_NOMEM: of some it could not take
   care; they are as they were. */
int rc_topology_set_carrier(struct rc_topology *topology, const struct rc_carrier *carrier);
/* Takes in a link that is the caller's, and numbers it. */
int rc_topology_add(struct rc_topology *topology, struct rc_link *link);
/* Nobody uses the link any more: fails its requests and has it closed. It is still the caller's
   memory, and may go when on_gone says so. Not from inside a `done`. */
void rc_topology_remove(struct rc_topology *topology, struct rc_link *link);
/* The driver's: the link, which is leaving, is closed, and the driver does not know it any more. */
void rc_topology_release(struct rc_topology *topology, struct rc_link *link);

/* The link of that number, for a host that knows its connections by number. NULL: there is none. */
struct rc_link *rc_topology_numbered(const struct rc_topology *topology, uint32_t number);

/* ---- routing: a slot says which node --------------------------------------------------------- */

enum { RC_SLOT_ANY = -1 }; /* any node will do */

/* By slot: the number of its node, for a call whose keys may be of several. NULL: there is but one
   node. */
static inline const uint16_t *rc_topology_owners(const struct rc_topology *topology)
{
    return topology->owners;
}

/* Of a key. One node has every slot: as long as there is no other nobody hashes the key. */
static inline int32_t rc_topology_slot(const struct rc_topology *topology, const char *key,
                                       size_t len)
{
    return topology->owners == NULL ? RC_SLOT_ANY : rc_slot(key, len);
}

/* Of an op's own key: hashed once, however often it is asked for while the op runs. */
static inline int32_t rc_topology_slot_of(const struct rc_topology *topology, struct rc_op *op)
{
    if (topology->owners == NULL)
        return RC_SLOT_ANY;
    if (op->run.slot == 0)
        op->run.slot = (uint16_t)(rc_slot(rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key)) + 1);
    return op->run.slot - 1;
}

/* Where there are several nodes: of a slot, of a key. */
struct rc_server_node *rc_topology_find_node(struct rc_topology *topology, int32_t slot);
struct rc_server_node *rc_topology_find_owner(struct rc_topology *topology, const char *key,
                                              size_t len);

static inline struct rc_server_node *rc_topology_node(struct rc_topology *topology, int32_t slot)
{
    return topology->owners == NULL ? &topology->node : rc_topology_find_node(topology, slot);
}

/* Of a key. */
static inline struct rc_server_node *rc_topology_node_of(struct rc_topology *topology,
                                                         const char *key, size_t len)
{
    return topology->owners == NULL ? &topology->node : rc_topology_find_owner(topology, key, len);
}

/* Where a request that waits has to go. One without a slot was made when there was but one node: if
   that has no slots any more, any other tells where to. */
struct rc_server_node *rc_topology_home(struct rc_topology *topology, const struct rc_req *req);

/* The number of a slot's node; of any slot: of the first. */
static inline uint16_t rc_topology_owner(const struct rc_topology *topology, int32_t slot)
{
    return topology->owners == NULL || slot < 0 ? 0 : topology->owners[slot];
}

/* Whether what the cluster's node says of a key of that slot may be kept near: nobody doubts that
   it is the slot's owner. */
bool rc_topology_may_keep(const struct rc_topology *topology, const struct rc_server_node *node,
                          int32_t slot);

/* Near copies are read in this process: their nodes connect, before anything is asked for. */
void rc_topology_warm(struct rc_topology *topology);

/* The node of that number. */
static inline struct rc_server_node *rc_topology_at(struct rc_topology *topology, uint16_t number)
{
    return number == 0 ? &topology->node : topology->others[number - 1];
}

/* A node that can be asked what all know, chosen by chance: one that is connected, else one that
   may be, else one of both kinds that sees no majority, else any. */
struct rc_server_node *rc_topology_any(struct rc_topology *topology, uint64_t chance);

/* The link of the slot's node that has what the request needs. */
static inline struct rc_link *rc_topology_route(struct rc_topology *topology, struct rc_req *req,
                                                int32_t slot)
{
    req->slot = slot;
    return rc_node_link_for(rc_topology_node(topology, slot), req);
}

/* The breaker of the link's node is open, and somebody would wait. */
static inline bool rc_topology_refuses(const struct rc_link *link, const struct rc_req *req)
{
    return link->breaker != NULL && rc_breaker_is_shut(link->breaker) && req->done != NULL &&
           !req->is_upkeep && !RC_MUTANT(BREAKER_LEAKS) &&
           !(RC_MUTANT(BREAKER_BY_CALLERS) && link->breaker->next_us <= link->context->now_us);
}

/* Sends a request to the node of its slot, over the link that has what the request needs. Takes
   it; `done` is called later, never from inside this call. */
static inline void rc_topology_send(struct rc_topology *topology, struct rc_req *req, int32_t slot,
                                    int64_t deadline_us)
{
    struct rc_link *link = rc_topology_route(topology, req, slot);
    if (rc_topology_refuses(link, req))
        rc_link_refuse(link, req, deadline_us);
    else
        rc_link_send(link, req, deadline_us);
}

/* The same for leases and locks: rc_link_send_vouched. */
static inline void rc_topology_send_vouched(struct rc_topology *topology, struct rc_req *req,
                                            int32_t slot, int64_t deadline_us)
{
    struct rc_link *link = rc_topology_route(topology, req, slot);
    if (rc_topology_refuses(link, req))
        rc_link_refuse(link, req, deadline_us);
    else
        rc_link_send_vouched(link, req, deadline_us);
}

/* The same to a node that is not the slot's, or not yet. */
void rc_topology_send_to(struct rc_topology *topology, struct rc_req *req,
                         struct rc_server_node *node, int32_t slot, int64_t deadline_us);
/* Sends what a server has not done to another one, or again: rc_link_move. */
void rc_topology_move(struct rc_topology *topology, struct rc_req *req,
                      struct rc_server_node *node);
/* Slots have other owners: what still waits to be sent goes there. */
void rc_topology_reroute(struct rc_topology *topology);
/* Slots have been assigned: deletes that were noted of their keys go along, and those that the new
   owner may not have are done again. Before anybody looks a key's node up. */
void rc_topology_hand_over(struct rc_topology *topology);
/* The same, behind what `earlier` may still do: rc_link_send_after. */
void rc_topology_send_after(struct rc_topology *topology, struct rc_req *req, int32_t slot,
                            struct rc_req *earlier);

/* The link that commands on that slot go over, for those who look at it from outside. */
const struct rc_link *rc_topology_command_link(const struct rc_topology *topology, int32_t slot);

/* Whether a command on that slot has no chance, for its server does not let us in: the error, and
   why. 0: it has. */
int rc_topology_is_barred(struct rc_topology *topology, int32_t slot, const char **cause);
/* Redis tells us now when a key of that slot changes, if we have read it over T. */
bool rc_topology_is_tracked(struct rc_topology *topology, int32_t slot);
/* The breaker of each node, a line each: "address\tstate\tcause\n"; as many as have room. */
void rc_topology_tell_breakers(struct rc_topology *topology, char *text, size_t size);
/* Why callers are refused by the first node whose breaker is open: whether there is one. */
bool rc_topology_tell_open(struct rc_topology *topology, char *text, size_t size);
/* Holds the breaker of the node with that address, or lets it go; NULL: of all nodes, and of those
   that come. How many there were. */
int rc_topology_hold_breakers(struct rc_topology *topology, enum rc_breaker_hold hold,
                              const char *address);
/* Why Redis could tell us nothing of a slot; NULL: it could. */
const char *rc_topology_why_deaf(struct rc_topology *topology, int32_t slot);

#endif
