/*
 * client - a process with one engine: turned when something has happened to it, and at its engine's
 * deadlines.
 *
 * What:    like a driver, it tells the engine the time, moves what the links want moved, and hands
 *          finished ops to their callers. It can be paused (SIGSTOP) and killed (kill -9): then its
 *          leases, locks and its owner's slot in the near cache stay as they were.
 * Threads: the run's.
 * Memory:  clients are the world's; a client owns its engine.
 * Errors:  an engine that turns in a circle is a violation.
 * Not:     knows no time but the world's, and no thread.
 */
#ifndef RC_SIM_CLIENT_H
#define RC_SIM_CLIENT_H

#include "driver/sim/world.h"

void sim_clients_init(struct sim_world *world);
void sim_clients_deinit(struct sim_world *world);
void sim_client_turn(struct sim_client *client);
void sim_client_pause(struct sim_client *client, int64_t for_us);
void sim_client_kill(struct sim_client *client); /* somebody else is started in its place later */

#endif
