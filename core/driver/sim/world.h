/*
 * world - a simulated run: engines, servers and the network between them, under one clock and one
 * seed.
 *
 * What:    the real engine and the real embedded store; only bytes, time and chance are made here.
 *          Events lie in one heap by their time; between two of them nothing happens, so the same
 *          seed gives the same run. oracle.h says after each event what must hold. There is one
 *          server with its replica, or a cluster of some: then each key and each lock lies in a
 *          range of slots of its own, a place, and places go from server to server.
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
#include "driver/sim/breakers.h"
#include "driver/sim/dice.h"
#include "driver/sim/ledger.h"
#include "driver/sim/oracle.h"
#include "driver/sim/tags.h"
#include "engine/engine.h"
#include "near/near.h"
#include "store/request.h"
#include "store/store.h"

enum {
    SIM_MACHINES = 2,
    SIM_CLIENTS = SIM_ORACLE_CLIENTS, /* two of them on the first machine, with one near cache */
    SIM_KEY_CALLERS = 9,              /* three per client, */
    SIM_BATCH_CALLERS = 12,           /* one that counts and sends batches, */
    SIM_CALLERS = 15,                 /* and one whose entries have tags */
    SIM_SHARDS = 4,                   /* masters of a cluster, at most */
    SIM_NODES = 2 * SIM_SHARDS,       /* each with a replica, which stands beside it */
    SIM_PLACES = SIM_KEYS + SIM_LOCKS /* the keys', then the locks' */
};

struct sim_world;
struct sim_caller;

enum { SIM_NOBODY = -1 };

/* Who owns a place: the number of a node, or SIM_NOBODY; since that epoch of the cluster. */
struct sim_belief {
    int owner;
    int64_t epoch;
};

/* What a node will believe of a place when it hears of it. */
struct sim_rumour {
    struct rc_timer timer;
    struct sim_node *node;
    struct sim_belief news;
};

/* A Redis server: a master, or the replica that may be promoted. */
struct sim_node {
    struct sim_world *world;
    int number;
    int shard;     /* which is its master's and its replica's */
    char name[16]; /* for traces, behind a blank; "" where there is but one master */
    struct rc_store *store;
    struct rc_store_conn *stranger; /* the foreign writer's connection; NULL: a replica's */
    struct rc_list wires;           /* with a connection to it, by `at_node` */
    struct rc_list changes;         /* on their way to the other one */
    struct rc_timer replicate;      /* the first of them arrives */
    struct rc_timer sweep;          /* its own search for what has expired */
    int64_t stopped_until_us;       /* accepts connections, reads nothing */
    bool refuses;                   /* is not there */
    bool is_silent;                 /* a packet to it is lost without a word */
    int64_t slow_until_us;          /* its answers take slow_us longer */
    int64_t slow_us;
    int64_t busy_until_us; /* it says so, and does nothing else */

    /* In a cluster. */
    struct sim_belief beliefs[SIM_PLACES];
    struct sim_rumour rumours[SIM_PLACES];
    struct rc_timer trims[SIM_PLACES]; /* when it deletes the keys of a place that has left */
    int64_t epoch;                     /* of the cluster, as far as it knows */
    bool is_cut_off;                   /* by the other nodes, not by the clients */
    bool is_down;                      /* it says so: it sees no majority */
    struct rc_timer down;
    struct rc_timer heal;
};

/* A master that is about to be replaced by its replica. */
struct sim_shard {
    struct sim_node *master;
    struct rc_timer promotion;
};

/* A place that goes from one master to another. */
struct sim_move {
    struct sim_node *target; /* NULL: it does not */
    struct sim_node *heir;   /* the same, while keys go there one by one; else NULL */
    struct rc_timer timer;   /* the next key, or the end */
    int64_t step_us;
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
    /* In a cluster: what its node has read. */
    struct rc_request request;
    struct rc_buf input;
    bool asks;        /* ASKING, for the next command */
    bool is_readonly; /* READONLY: a replica answers reads */
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
    bool wants_turn;      /* by sim_world_wake */
    int64_t half_open_us; /* when it last found out that a connection was */
    unsigned births;
    int64_t born_us;
    /* In a cluster: the newest epoch whose map it has taken; and when the nodes had come to agree,
       how often it had been sent elsewhere. */
    int64_t epoch;
    int64_t settled_us;
    uint64_t redirections;
    const struct sim_node
        *routes[SIM_KEYS];       /* where its commands went when it was last looked at */
    int64_t routed_us[SIM_KEYS]; /* since when */
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
    bool is_nice;     /* clients are killed, and nothing else goes wrong */
    bool only_pauses; /* clients stand still, and nothing else goes wrong */
    int64_t fault_every_us;
    int64_t calm_from_us; /* no faults from then on */
    int64_t think_max_us;
    int64_t foreign_every_us; /* on average */
    int64_t lag_min_us;       /* of the replica; */
    int64_t lag_max_us;       /* and so much more, at most */
    int64_t sweep_every_us;   /* how soon the server finds what has expired */
    int64_t lease_ttl_ms, max_stale_ms, lock_ttl_ms, command_timeout_ms;
    bool has_batches;         /* and counters; not where deletes are lost, which is seldom */
    int64_t count_ttl_ms;     /* of a counter that begins */
    int64_t bus_delay_max_us; /* from node to node of a cluster */
    int64_t node_timeout_us;  /* then a node that hears of no majority says so */
    int64_t move_max_us;      /* how long a place is between two masters */
    bool trims_silently;      /* nobody is told of keys that leave with their slots, as by 7.0 */
    bool loses_deletes;       /* masters are replaced right behind a delete */
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
    bool is_cluster;
    bool asks_replicas; /* some reads are for replicas */
    bool has_tags;      /* some entries have tags */
    bool has_breakers;  /* clients have a circuit breaker */
    bool has_ifeq;      /* servers compare by themselves, in a cluster those of every other shard */
    struct sim_breaker breakers[SIM_CLIENTS];
    int shard_count; /* without a cluster: one */
    struct sim_shard shards[SIM_SHARDS];
    struct sim_node nodes[SIM_NODES];     /* a shard's are neighbours */
    struct sim_node *holders[SIM_PLACES]; /* who has each place in truth */
    struct sim_move moves[SIM_PLACES];
    uint16_t last_slots[SIM_PLACES]; /* of the places in the order of `sorted` */
    int sorted[SIM_PLACES];
    bool is_moving;     /* keys go from store to store: nothing changes in truth */
    int64_t epoch;      /* the highest that the cluster has had */
    int64_t settled_us; /* since when all nodes believe the same; INT64_MAX: they do not */
    struct rc_list wires;
    const struct sim_wire *speaking; /* whose bytes a server is reading */
    struct sim_machine machines[SIM_MACHINES];
    struct sim_client clients[SIM_CLIENTS];
    struct sim_caller *callers; /* SIM_CALLERS */
    struct rc_timer foreign;    /* somebody else writes */
    struct rc_timer fault;
    struct rc_timer audit;
    int64_t healthy_since_us;     /* INT64_MAX: not now */
    int64_t sick_until_us;        /* servers, or the ways to them, were not well before */
    int64_t lost_us[SIM_PLACES];  /* when acknowledged writes were last lost */
    int64_t split_us[SIM_PLACES]; /* when two nodes last took commands for it, as its owners */
    int64_t
        unknown_us[SIM_PLACES]; /* when a majority of masters last did not know its holder yet */
    int64_t stepped_us;         /* the servers' clock was set */
    uint64_t version;           /* of the data behind the cache: grows with every write */
    struct sim_oracle oracle;
    struct sim_ledger ledger;
    struct sim_tags tags;
    bool is_traced;
};

void sim_world_at(struct sim_world *world, struct rc_timer *timer, int64_t at_us);
static inline void sim_world_in(struct sim_world *world, struct rc_timer *timer, int64_t after_us)
{
    sim_world_at(world, timer, world->now_us + after_us);
}
void sim_world_forget(struct sim_world *world, struct rc_timer *timer);
int64_t sim_world_unix_us(const struct sim_world *world);

/* The other one of its shard. */
static inline struct sim_node *sim_world_pair(struct sim_node *node)
{
    return &node->world->nodes[node->number ^ 1];
}
static inline bool sim_world_is_master(const struct sim_node *node)
{
    return node == node->world->shards[node->shard].master;
}
/* It has the place, or takes it over. */
static inline bool sim_world_has(const struct sim_node *node, int place)
{
    return node->world->holders[place] == node || node->world->moves[place].heir == node;
}
/* When acknowledged writes of a place were last lost, or may have been. */
static inline int64_t sim_world_lost_us(const struct sim_world *world, int place)
{
    int64_t lost_us = world->lost_us[place], split_us = world->split_us[place];
    return lost_us > split_us ? lost_us : split_us;
}

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
