/*
 * oracle - what is true in a run, and what must therefore hold.
 *
 * What:    sees every change of the master when it happens, knows who made which value and since
 *          and until when it stood there. Judges what callers are told, what the near caches hold,
 *          how leases and locks change hands.
 *
 *              G1  a value is whole, of that key, made by somebody; never a placeholder
 *              G2  a near read was current within maxStale; a copy was current at its horizon
 *              G3  nothing is stored by a load whose lease was void; nothing is taken away by a
 *                  delete that was done before it was written; nothing is written twice
 *              G4  what this machine has written is seen by all who ask behind its acknowledgement
 *              G5  one loader per lease; a running load keeps it; a dead one is replaced
 *              G6  every call ends by its deadline
 *              G7  without a fault no call fails
 *              G8  a client of a cluster asks for its map twice a second at most, takes none that
 *                  is older than its own or a minority's, and is sent elsewhere a few times where
 *                  nothing moves
 *              G9  a lock knows that it is lost before another can own it
 *
 *          What counters and batches are told is judged by ledger.h: G10, G11; entries with
 *          tags by tags.h: G12.
 * Threads: the run's.
 * Memory:  owns the list of values; the rest is of fixed size, in the world.
 * Errors:  sim_violation.
 * Not:     excuses are few and stand where they are made: a failover may lose writes, a step of the
 *          servers' clock may end leases and locks early. While two nodes of a cluster own one
 *          place, what one of them takes and tells is not true.
 */
#ifndef RC_SIM_ORACLE_H
#define RC_SIM_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/entry.h"
#include "engine/lock.h"
#include "store/store.h"

enum { SIM_KEYS = 4, SIM_LOCKS = 2, SIM_VALUE_ROOM = 512, SIM_ORACLE_CLIENTS = 3 };

struct sim_world;
struct sim_node;

/* A value somebody made, by its number. */
struct sim_value {
    int key;
    bool is_loaded;  /* under a lease */
    bool is_refresh; /* in the place of the version `seen` alone */
    char token[RC_NONCE_SIZE];
    char seen[RC_NONCE_SIZE];
    char nonce[RC_NONCE_SIZE]; /* as it is stored; zeroes: plain */
    int64_t since_us;          /* first in the master; INT64_MAX: never */
    int64_t until_us;          /* INT64_MAX: it stands there */
    int64_t dies_us;           /* its time to live is over then; INT64_MAX: it has none */
    int64_t dated_us;          /* when that was said */
};

/* What the master holds in one key. */
struct sim_truth {
    uint8_t kind;
    size_t id;                 /* of the value, where it is one */
    char token[RC_TOKEN_SIZE]; /* of the lease or lock */
    size_t token_len;
    int64_t changed_us; /* to another value, lease or nothing */
    int64_t emptied_us; /* when it last became no value; a lock: before its time was over */
    int64_t filled_us;  /* when it last became one */
    char emptied_token[RC_TOKEN_SIZE]; /* a lock's, at that time */
    int64_t shortened_us;              /* when somebody last cut its time to live */
    int64_t dies_us;                   /* INT64_MAX: never */
};

/* The newest delete of a key that was acknowledged. */
struct sim_delete {
    int client;
    unsigned birth;
    int64_t began_us;
    int64_t acked_us;
    bool is_known; /* its client knows which version it was about */
    char version[RC_NONCE_SIZE];
};

/* What a client has asked to be deleted in one key. */
struct sim_deletes {
    unsigned running;
    int64_t began_us; /* the newest of them */
    int64_t ended_us; /* the last that ended, however it did */
};

struct sim_oracle {
    struct sim_truth keys[SIM_KEYS];
    struct sim_truth locks[SIM_LOCKS];
    int64_t floors[2][SIM_KEYS]; /* per machine: own writes took effect then */
    struct sim_delete deletes[SIM_KEYS];
    struct sim_deletes asked[SIM_ORACLE_CLIENTS][SIM_KEYS]; /* by the client's number */
    int64_t fences[SIM_LOCKS];                              /* the highest, */
    int64_t granted_us[SIM_LOCKS];                          /* and when its holder had it */
    struct rc_buf values; /* of struct sim_value; number 0 is none */
    unsigned violations;
};

void sim_oracle_init(struct sim_world *world);
void sim_oracle_deinit(struct sim_world *world);

/* A key of this node has changed. What it does not hold is not true. */
void sim_oracle_change(struct sim_world *world, const struct sim_node *node,
                       const struct rc_store_change *change);
/* The places of these bits have other holders, and what those have is true from now on: writes may
   have been lost. */
void sim_oracle_lose(struct sim_world *world, unsigned places);

/* A new value, which belongs into that key. Its text is written to `text`, returns its length. */
size_t sim_oracle_make(struct sim_world *world, int key, size_t *id, char text[SIM_VALUE_ROOM]);
struct sim_value *sim_oracle_value(struct sim_world *world, size_t id);

/* What a caller was told must have been so at or after since_us, and behind floor_us. */
struct sim_claim {
    int key;
    int64_t since_us;
    int64_t floor_us;
    const char *how;
    bool is_near; /* nobody was asked */
};
void sim_oracle_saw(struct sim_world *world, const struct sim_claim *claim, const char *text,
                    size_t len);
void sim_oracle_saw_nothing(struct sim_world *world, const struct sim_claim *claim);
/* It was this key's, at whatever time. */
size_t sim_oracle_read(struct sim_world *world, const struct sim_claim *claim, const char *text,
                       size_t len);

/* It has stood in a master at some time. */
void sim_oracle_once(struct sim_world *world, const struct sim_claim *claim, const char *text,
                     size_t len);

/* A write of this machine was acknowledged. */
void sim_oracle_stored(struct sim_world *world, int machine, int key, size_t id, int64_t began_us);
void sim_oracle_deleted(struct sim_world *world, int client, int key, int64_t began_us);
/* A delete of this client begins, or ends, whether it was acknowledged or not. */
void sim_oracle_begin_delete(struct sim_world *world, int client, int key);
void sim_oracle_end_delete(struct sim_world *world, int client, int key);
/* A lease was given out under that token. */
void sim_oracle_leased(struct sim_world *world, int key, const char token[RC_NONCE_SIZE]);
void sim_oracle_granted(struct sim_world *world, int lock, int64_t fence, int64_t asked_us);

/* After every event: the near caches. */
void sim_oracle_look(struct sim_world *world);
/* Now and then: what was undone must be done again. */
void sim_oracle_audit(struct sim_world *world);

#endif
