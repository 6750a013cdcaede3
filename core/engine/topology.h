/*
 * topology - which link an operation uses, and whether the links belong together.
 *
 * What:    today one node with two links. A cluster will have many nodes and a slot map behind the
 *          same question. Two connections through one address may lead to two servers; then one of
 *          them is closed and made again, with backoff, until both lead to one.
 * Threads: the engine's owner.
 * Memory:  owns the links.
 * Errors:  RC_ERR_NOMEM from init.
 * Not:     does not know which server is the right one. A replica is not; else the older connection
 *          is taken for the wrong one, for an address leads to where it was opened last.
 */
#ifndef RC_TOPOLOGY_H
#define RC_TOPOLOGY_H

#include "engine/link.h"

enum { RC_TOPOLOGY_LINKS = 2 };

struct rc_topology {
    struct rc_link links[RC_TOPOLOGY_LINKS]; /* index: enum rc_link_role */
    struct rc_list all; /* links by `place`, in the order of their numbers: RC_TOPOLOGY_EACH */

    /* Engine only: while the links lead to two servers. */
    struct rc_link *suspect; /* the one that is made again; NULL: they agree, or one is closed */
    uint32_t tries;          /* how often, since it is the suspect */
};

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address);
void rc_topology_deinit(struct rc_topology *topology);

/* This link has shaken hands: compares its server with the other link's. NULL: they are one, as far
   as is known, or the other link was the wrong one and is down now; else why this one must go. */
const char *rc_topology_compare(struct rc_topology *topology, struct rc_link *link);

/* For every link there is, in the order of their numbers; none may be removed in the body. Only the
   engine cares which of them has which role. */
#define RC_TOPOLOGY_EACH(link, topology)                                                           \
    for (struct rc_link *link = rc_topology_after(topology, &(topology)->all); link != NULL;       \
         link = rc_topology_after(topology, &link->place))

/* The link behind that place in `all`. NULL: it was the last. */
static inline struct rc_link *rc_topology_after(const struct rc_topology *topology,
                                                const struct rc_list *place)
{
    return place->next != &topology->all ? RC_CONTAINER(place->next, struct rc_link, place) : NULL;
}

/* The link of that number, for a host that knows its connections by number. NULL: there is none. */
struct rc_link *rc_topology_numbered(const struct rc_topology *topology, uint32_t number);

/* The link of `role` to the node that owns `key`. */
struct rc_link *rc_topology_link(struct rc_topology *topology, enum rc_link_role role,
                                 const char *key, size_t key_len);

#endif
