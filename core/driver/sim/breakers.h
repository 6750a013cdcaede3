/*
 * breakers - what a client's circuit breaker must do, G13.
 *
 * What:    looks at the breaker of each client after every event: while it is open no read of a
 *          caller is sent to the server; probes are at most `probes` within `wait`; where nothing
 *          has gone wrong for a while it is closed. It does not open while the server is well,
 *          though its own process stands still, and does not close by fewer probes than it should.
 *          No call that comes meanwhile waits.
 * Threads: the run's.
 * Memory:  of fixed size, in the world.
 * Errors:  sim_violation.
 * Not:     clusters: there are as many breakers as nodes, and requests go from one to the other.
 *          Does not judge how soon it opens: breaker_test.c does.
 */
#ifndef RC_SIM_BREAKERS_H
#define RC_SIM_BREAKERS_H

#include <stdint.h>

struct sim_world;

enum { SIM_BREAKER_PROBES = 3, SIM_BREAKER_WAIT_MS = 40 };

struct sim_breaker {
    uint32_t birth;                        /* of the client that it is about */
    int64_t opened_us;                     /* 0: it is closed */
    uint64_t opened_at_probe;              /* so many had been sent then, */
    const void *master;                    /* and it stood for that one */
    uint64_t probes;                       /* so far */
    int64_t probed_us[SIM_BREAKER_PROBES]; /* the last, in turns */
};

/* After every event. */
void sim_breakers_look(struct sim_world *world);

#endif
