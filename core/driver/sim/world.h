/*
 * world - a simulated run: engines, servers and the network between them, under one clock and one
 * seed.
 *
 * What:    the real engine and the real embedded store; only bytes, time and chance are made here.
 *          Events lie in one heap by their time; between two of them nothing happens, so the same
 *          seed gives the same run. oracle.h says after each event what must hold.
 *
 *              caller -> client (engine) -> wire -> server (store) -> replica
 *                             machine (near cache)
 *
 * Threads: one.
 * Memory:  a world owns all of it.
 * Errors:  the simulator is a program: without memory it is at its end (sim_must).
 * Not:     builds and runs nothing: history.h does.
 */
#ifndef RC_SIM_WORLD_H
#define RC_SIM_WORLD_H

#include <stdatomic.h>

#include "base/heap.h"
#include "driver/sim/dice.h"
#include "driver/sim/oracle.h"
#include "engine/engine.h"
#include "near/near.h"
#include "store/store.h"

enum {
    SIM_MACHINES = 2,
    SIM_CLIENTS = SIM_ORACLE_CLIENTS, /* two of them on the first machine, with one near cache */
    SIM_CALLERS = 9,                  /* three per client */
    SIM_NODES = 2
};

struct sim_world;
struct sim_caller;

/* A Redis server: the master, or the replica that may be promoted. */
struct sim_node {
    struct sim_world *world;
    struct rc_store *store;
    struct rc_list wires;      /* with a connection to it, by `at_node` */
    struct rc_list changes;    /* on their way to the other one */
    struct rc_timer replicate; /* the first of them arrives */
    struct rc_timer sweep;     /* its own search for what has expired */
    int64_t stopped_until_us;  /* accepts connections, reads nothing */
    bool refuses;              /* is not there */
    bool is_silent;            /* a packet to it is lost without a word */
};

/* One direction of a connection. */
struct sim_pipe {
    struct sim_wire *wire;
    struct rc_timer timer; /* the first chunk arrives */
    struct rc_buf bytes;
    struct rc_buf chunks; /* of struct sim_chunk */
    int64_t last_us;      /* bytes never overtake others */
    bool swallows;        /* half-open: nothing arrives any more, and nobody is told */
    bool ends;            /* the other end is closed: so will be this one, behind the last chunk */
};

/* A connection between a link and a store. Each end may be gone while the other does not know. */
struct sim_wire {
    struct sim_world *world;
    struct rc_list place; /* in the world's */
    struct rc_list at_node;
    struct sim_client *client; /* NULL: has closed it */
    int number;                /* of the client that opened it */
    struct rc_link *link;
    struct sim_node *node;
    struct rc_store_conn *peer; /* NULL: not yet, or gone */
    struct rc_timer opening;
    struct sim_pipe to_server;
    struct sim_pipe to_client;
    bool is_open; /* the client thinks so */
    int64_t opened_us;
};

struct sim_machine {
    struct rc_near *near;
};

/* A process with one engine. */
struct sim_client {
    struct sim_world *world;
    int number;
    struct sim_machine *machine;
    struct rc_engine engine;
    struct rc_timer turn;   /* the engine's deadline, or the end of a pause */
    struct rc_timer reaper; /* dead: when somebody takes its place, and its owner slot */
    int64_t paused_until_us;
    bool is_alive;
    bool wants_turn; /* by sim_world_wake */
    unsigned births;
};

/* What this link's bytes travel over now. NULL: nothing. */
static inline struct sim_wire *sim_wire_of(const struct rc_link *link)
{
    return (struct sim_wire *)(void *)link->line;
}

/* How this run is: nice or rough. */
struct sim_weather {
    int64_t delay_min_us, delay_max_us; /* one way */
    int split_permille;
    bool is_nice; /* clients are killed, and nothing else goes wrong */
    int64_t fault_every_us;
    int64_t calm_from_us; /* no faults from then on */
    int64_t think_max_us;
    int64_t lag_max_us;     /* of the replica */
    int64_t sweep_every_us; /* how soon the server finds what has expired */
    int64_t lease_ttl_ms, max_stale_ms, lock_ttl_ms, command_timeout_ms;
};

struct sim_world {
    uint64_t seed;
    struct sim_dice dice;
    struct rc_heap agenda;
    int64_t now_us;        /* monotonic, the same on every machine */
    _Atomic int64_t clock; /* the same, for the near caches */
    int64_t unix_us;       /* wall time - monotonic time, of the servers */
    int64_t end_us;        /* callers begin nothing new */
    uint64_t events;
    struct sim_weather weather;
    struct sim_node nodes[SIM_NODES];
    struct sim_node *master;
    struct rc_list wires;
    const struct sim_wire *speaking; /* whose bytes a server is reading */
    struct sim_machine machines[SIM_MACHINES];
    struct sim_client clients[SIM_CLIENTS];
    struct sim_caller *callers; /* SIM_CALLERS */
    struct rc_timer foreign;    /* somebody else writes */
    struct rc_timer fault;
    struct rc_timer promotion;
    struct rc_timer audit;
    struct rc_store_conn *stranger; /* the foreign writer's connection */
    int64_t healthy_since_us;       /* INT64_MAX: not now */
    int64_t failed_over_us;
    int64_t stepped_us; /* the servers' clock was set */
    uint64_t version;   /* of the data behind the cache: grows with every write */
    struct sim_oracle oracle;
    bool is_traced;
};

void sim_world_at(struct sim_world *world, struct rc_timer *timer, int64_t at_us);
static inline void sim_world_in(struct sim_world *world, struct rc_timer *timer, int64_t after_us)
{
    sim_world_at(world, timer, world->now_us + after_us);
}
void sim_world_forget(struct sim_world *world, struct rc_timer *timer);
int64_t sim_world_unix_us(const struct sim_world *world);

/* Something has happened to the client: it is turned when the event is over. */
static inline void sim_world_wake(struct sim_client *client)
{
    client->wants_turn = true;
}
/* Alive, and not paused. */
bool sim_world_runs(const struct sim_client *client);

/* Nothing has been wrong for so long that all must be well. */
bool sim_world_is_healthy(const struct sim_world *world, int64_t for_us);
/* Something goes wrong from now on for that long. */
void sim_world_hurt(struct sim_world *world, int64_t for_us);

void sim_must(int error);
/* A promise is broken, which ends the run. The first one is printed. */
__attribute__((format(printf, 2, 3))) void sim_violation(struct sim_world *world,
                                                         const char *format, ...);
/* A line of the history, if somebody reads it. */
__attribute__((format(printf, 2, 3))) void sim_trace(const struct sim_world *world,
                                                     const char *format, ...);

#endif
