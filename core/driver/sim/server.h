/*
 * server - the Redis servers of a run: a master, a replica behind it, and what can happen to them.
 *
 * What:    each master's changes reach its replica a while later, in their order. A failover loses
 *          those that are still on their way, as asynchronous replication does.
 * Threads: the run's.
 * Memory:  owns the stores, and the changes that are on their way.
 * Errors:  without memory the program ends (sim_must).
 * Not:     knows of no cluster: which master has what, and how that changes, is reshard.h. Without
 *          one no split brain: the old master is gone before the replica is promoted.
 */
#ifndef RC_SIM_SERVER_H
#define RC_SIM_SERVER_H

#include "driver/sim/world.h"

enum { SIM_PROMOTION_MAX_US = 300000 }; /* from a master's death to its replica's promotion */

void sim_servers_init(struct sim_world *world);
void sim_servers_deinit(struct sim_world *world);

/* As a client nobody knows: a command in RESP, answered at once. */
__attribute__((format(printf, 2, 3))) void sim_server_command(struct sim_node *node,
                                                              const char *format, ...);
/* SET, with a time to live in ms; 0: none. */
void sim_server_set(struct sim_node *node, const char *name, const char *value, size_t len,
                    int64_t ttl_ms);
void sim_server_stop(struct sim_node *node, int64_t for_us);
/* The master of the shard dies, loudly or silently; a while later the replica takes its place. */
void sim_server_fail_over(struct sim_shard *shard);

/* The parts of that, for those who do it otherwise. */
void sim_server_die(struct sim_node *node, bool is_silent);
/* Writes that are on their way to its replica are done there, or lost. */
void sim_server_catch_up(struct sim_node *node);
void sim_server_lose_changes(struct sim_node *node);
/* The replica is a master from now on. */
void sim_server_promote(struct sim_node *node);
/* It comes back empty, as a replica, and gets everything. */
void sim_server_restart(struct sim_node *node);
/* The same, but it was never away: who tracks its keys is told that all are gone. */
void sim_server_follow(struct sim_node *node);
/* The same, and it has everything already: nobody is told anything. */
void sim_server_retire(struct sim_node *node);

#endif
