/*
 * gate - what a node of a cluster answers before its store does.
 *
 * What:    looks at each command's keys: what the node does not own, as far as it knows, is sent
 *          elsewhere (MOVED, ASK) or put off (TRYAGAIN, CLUSTERDOWN); CLUSTER SLOTS and CLUSTER
 *          INFO tell what it believes; HELLO says that it is one of a cluster. Everything else
 *          goes on to the store.
 * Threads: the run's.
 * Memory:  what a connection has begun to say is its wire's.
 * Errors:  without memory the program ends (sim_must).
 * Not:     changes no belief: bus.h does. Without a cluster it only says that a server is busy.
 * Source:  getNodeByQuery in Redis' cluster.c as its specification describes it, "ASK redirection"
 *          and "Multi-key operations"; 7.0.15 was asked where that is silent.
 */
#ifndef RC_SIM_GATE_H
#define RC_SIM_GATE_H

#include "base/address.h"
#include "driver/sim/world.h"

/* Gives each place its range of slots. */
void sim_gate_init(struct sim_world *world);
/* The node at an address: the master, where there is no cluster. */
struct sim_node *sim_gate_find(struct sim_world *world, const struct rc_address *address);
/* Writes the url of a node, NUL-ended. */
void sim_gate_url(const struct sim_node *node, char url[32]);
/* What a client has said. */
void sim_gate_feed(struct sim_wire *wire, const char *bytes, size_t len);

/* Which place a slot belongs to. */
int sim_gate_place(const struct sim_world *world, uint16_t slot);
/* The name of the place's key, or lock. */
void sim_gate_name(int place, char name[8]);
bool sim_gate_has_key(const struct sim_node *node, const char *name, size_t len);
/* The node that takes a command about the place's own key now. NULL: none does. */
struct sim_node *sim_gate_owner(const struct sim_world *world, int place);
/* A place is on its way from it, or to it. */
bool sim_gate_is_moving(const struct sim_node *node);

#endif
