/*
 * history - one simulated run, from its seed to rest.
 *
 * What:    builds servers, clients and callers in a world, lets one event after the other happen,
 *          and asks the oracle after each.
 * Threads: one.
 * Memory:  the caller's world; what is built in it is freed by sim_history_deinit.
 * Errors:  a violation ends the run: world->oracle.violations.
 * Not:     decides nothing: dice and weather of the world do.
 */
#ifndef RC_SIM_HISTORY_H
#define RC_SIM_HISTORY_H

#include "driver/sim/world.h"

struct sim_history_options {
    uint64_t seed;
    bool is_cluster;
    bool is_traced;
    bool asks_replicas; /* some reads are for replicas */
    bool has_tags;      /* some entries have tags */
    bool has_breakers;  /* clients have a circuit breaker; not in a cluster */
    bool has_ifeq;      /* servers compare by themselves; every other one of a cluster does */
};

void sim_history_init(struct sim_world *world, const struct sim_history_options *options);
void sim_history_deinit(struct sim_world *world);
void sim_history_run(struct sim_world *world); /* to rest, or to the first violation */

#endif
