/*
 * bus - which node of a cluster owns which place, and when the others hear of it.
 *
 * What:    a claim raises the cluster's epoch and reaches each other node a while later; a node
 *          that is stopped, dead or cut off hears of it after that. The newer epoch wins. A node
 *          that hears of a place it has lost deletes its keys, with pushes or without; one that
 *          hears that its replica is the master becomes a replica of that.
 * Threads: the run's.
 * Memory:  none: beliefs and rumours are the nodes'.
 * Errors:  without memory the program ends (sim_must).
 * Not:     decides nothing: reshard.h does. Judges nothing.
 */
#ifndef RC_SIM_BUS_H
#define RC_SIM_BUS_H

#include "driver/sim/world.h"

/* Everybody believes that the places lie where they do. */
void sim_bus_init(struct sim_world *world);
/* The node owns the place from a new epoch on, in truth. */
void sim_bus_claim(struct sim_node *node, int place);
/* It hears at once whose the place is. */
void sim_bus_tell(struct sim_node *node, int place);
/* The same of everything: it has just been started. */
void sim_bus_tell_all(struct sim_node *node);
/* It owns the place no longer, and nobody else does. */
void sim_bus_give_up(struct sim_node *node, int place);
/* The node hears nothing from others from now on, or again. */
void sim_bus_cut_off(struct sim_node *node, int64_t for_us);

/* All keys of the place are deleted there; unless it is silent, who tracks them is told. */
void sim_bus_trim(struct sim_node *node, int place, bool is_silent);

#endif
