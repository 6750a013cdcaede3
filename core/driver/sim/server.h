/*
 * server - the Redis servers of a run: a master, a replica behind it, and what can happen to them.
 *
 * What:    the master's changes reach the replica a while later, in their order. A failover loses
 *          those that are still on their way, as asynchronous replication does.
 * Threads: the run's.
 * Memory:  owns the stores, and the changes that are on their way.
 * Errors:  without memory the program ends (sim_must).
 * Not:     no split brain: the old master is gone before the replica is promoted.
 */
#ifndef RC_SIM_SERVER_H
#define RC_SIM_SERVER_H

#include "driver/sim/world.h"

void sim_servers_init(struct sim_world *world);
void sim_servers_deinit(struct sim_world *world);

/* As a client nobody knows: a command in RESP, answered at once. */
__attribute__((format(printf, 2, 3))) void sim_server_command(struct sim_world *world,
                                                              const char *format, ...);
/* SET, with a time to live in ms; 0: none. */
void sim_server_set(struct sim_world *world, int key, const char *value, size_t len,
                    int64_t ttl_ms);
void sim_server_stop(struct sim_node *node, int64_t for_us);
/* The master dies, loudly or silently; a while later the replica takes its place. */
void sim_server_fail_over(struct sim_world *world);

#endif
