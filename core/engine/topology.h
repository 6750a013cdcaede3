/*
 * topology - which link an operation uses.
 *
 * What:    today one node with two links. A cluster will have many nodes and a slot map behind the
 *          same question.
 * Threads: the engine's owner.
 */
#ifndef RC_TOPOLOGY_H
#define RC_TOPOLOGY_H

#include "engine/link.h"

enum { RC_TOPOLOGY_LINKS = 2 };

struct rc_topology {
    struct rc_link links[RC_TOPOLOGY_LINKS]; /* index: enum rc_link_role */
};

int rc_topology_init(struct rc_topology *topology, struct rc_context *context,
                     const struct rc_address *address);
void rc_topology_deinit(struct rc_topology *topology);

/* The link of `role` to the node that owns `key`. */
struct rc_link *rc_topology_link(struct rc_topology *topology, enum rc_link_role role,
                                 const char *key, size_t key_len);

#endif
