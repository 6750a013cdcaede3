/*
 * caller - one thread of a user's program: one call after the other.
 *
 * What:    does what lua/redcache does on a read (L0, near cache, engine) and on a load, with
 *          loaders that take their time, and hands everything it is told to the oracle. Some only
 *          count and send batches: what those are told goes to the ledger. Some have entries with
 *          tags: what those are served is judged by tags.h.
 * Threads: the run's.
 * Memory:  callers are the world's; a caller owns its op and its lock.
 * Errors:  what fails without a reason is a violation.
 * Not:     keeps no truth: what should have been so is in oracle.h.
 */
#ifndef RC_SIM_CALLER_H
#define RC_SIM_CALLER_H

#include "driver/sim/world.h"
#include "near/l0.h"
#include "near/tags.h"

enum sim_caller_state {
    SIM_IDLE,    /* thinks */
    SIM_CALLING, /* has an op under way */
    SIM_LOADING, /* runs its loader */
    SIM_HOLDING  /* has a lock */
};

/* What it does: each client has callers of every kind. */
enum sim_caller_kind { SIM_OF_KEYS, SIM_OF_BATCHES, SIM_OF_TAGS };

/* One command of a batch. */
enum sim_step_kind { SIM_STEP_COUNT, SIM_STEP_WRITE, SIM_STEP_READ };
struct sim_step {
    enum sim_step_kind kind;
    int key;
    unsigned keys; /* of a read: their bits, `key`'s among them */
    size_t deed;   /* of a count or write, in the ledger */
    struct sim_addition addition;
};

enum { SIM_STEPS_MAX = 6 };

/* A call on an entry with tags. */
enum { SIM_TAGS_ROOM = 172 }; /* of its payload: a block of all tags, and a text */
struct sim_tagged {
    struct rc_near_tags *checker; /* its process's */
    int entry;
    int64_t began_us;

    /* A read. */
    bool is_near;   /* else it asks for everything */
    bool has_entry; /* and asks for its tags */
    bool is_stale;
    int asked; /* how many of its tags */
    char payload[SIM_TAGS_ROOM];
    size_t payload_len;

    /* A load. */
    unsigned tags; /* bits */
    char generations[SIM_KEYS][RC_TAG_GENERATIONS];
    int64_t versions[SIM_KEYS]; /* of the data that it has read */

    /* An invalidation. */
    int tag;
    int64_t version; /* of the data behind it */
};

struct sim_caller {
    struct sim_client *client;
    int number;
    enum sim_caller_kind kind;
    enum sim_caller_state state;
    struct rc_timer timer;
    struct rc_op op;
    int key;
    int64_t began_us;
    int64_t must_end_us; /* of the call under way */
    struct sim_claim claim;

    /* A load. */
    int64_t load_until_us; /* heartbeats go on until then; 0: there are none */
    int64_t version;       /* when the loader has read the data; 0: it will */
    size_t id;             /* of the value being written */

    /* A lock. */
    int lock_number;
    struct rc_lock lock;
    int64_t granted_us; /* not before then */
    int64_t forced_us;

    /* A batch. */
    bool is_for_replicas; /* it only reads */
    int step_count;
    struct sim_step steps[SIM_STEPS_MAX];

    struct sim_tagged tagged;

    /* L0: the value it was last given by the near cache, and its handle. */
    int kept_key; /* -1: none */
    rc_near_handle kept;
    struct rc_l0_place kept_place;
    char kept_text[SIM_VALUE_ROOM];
    size_t kept_len;
};

void sim_callers_init(struct sim_world *world);
void sim_callers_deinit(struct sim_world *world);
void sim_callers_start(struct sim_client *client);
/* The client is dead, and its engine about to be freed. */
void sim_callers_drop(struct sim_client *client);
void sim_caller_finished(struct sim_world *world, struct rc_op *op);

/* The lock is somebody's with that token from now on. */
void sim_callers_check_lock(struct sim_world *world, int lock, const char *token);
/* Now and then: who waits must get on. */
void sim_callers_audit(struct sim_world *world);
/* Whether somebody runs the key's loader under that token. */
bool sim_callers_load(const struct sim_world *world, int key, const char token[RC_NONCE_SIZE]);
bool sim_callers_are_idle(const struct sim_world *world);

#endif
