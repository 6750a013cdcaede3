/*
 * wire - connections between links and stores: bytes arrive late and in pieces, in order, or not at
 * all.
 *
 * What:    a wire has two pipes. Each end may close, be cut off or be swallowed (half-open: nobody
 *          is told). Commands that are on their way when the client gives a connection up still
 *          arrive: then the old and the new connection of a client are both alive at the server.
 * Threads: the run's.
 * Memory:  a wire frees itself when both ends are gone.
 * Errors:  without memory the program ends (sim_must).
 * Not:     bytes are never lost from the middle, doubled or changed: TCP does not do that.
 */
#ifndef RC_SIM_WIRE_H
#define RC_SIM_WIRE_H

#include "driver/sim/world.h"

enum sim_cut {
    SIM_CUT_RESET, /* both ends are told, what is on its way is lost */
    SIM_CUT_CLOSE, /* the server closes: what it has said arrives first */
    SIM_CUT_LATE,  /* the client is told; what it has said is done all the same, some time later */
    SIM_CUT_HALF   /* nothing arrives any more, in one direction or both, and nobody is told */
};

/* Does what the link wants, and takes its output. */
void sim_wire_open_or_close(struct sim_client *client, struct rc_link *link);

/* A connection of this client is half-open, or was then: it does not know before it uses it. */
bool sim_wire_hides_loss(const struct sim_client *client, int64_t since_us);

/* Nothing arrives any more, and nobody is told. */
void sim_wire_swallow(struct sim_pipe *pipe);
void sim_wire_cut(struct sim_wire *wire, enum sim_cut cut);
/* The process is dead: its sockets are closed by its kernel, or its machine is gone, too. */
void sim_wire_orphan(struct sim_wire *wire, bool tells);
/* Output of the store, a push for instance, sets out. */
void sim_wire_collect(struct sim_node *node);
/* The store goes away, and all its connections. */
void sim_wire_lose_node(struct sim_node *node);
void sim_wire_free_all(struct sim_world *world);

#endif
