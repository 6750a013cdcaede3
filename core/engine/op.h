/*
 * op - one operation of a caller and its completion.
 *
 * What:    what the caller asked, the state the engine keeps while it runs, and the result.
 * Threads: the caller's while idle or finished, the engine's in between; the driver hands it over
 *          both ways.
 * Memory:  key, request and answer are owned by the op and keep their room for the next use, unless
 *          the caller shrinks the op in between.
 * Errors:  a finished op tells its error in result.status.
 * Not:     does not know who waits for it; the driver wraps ops in its own seats.
 */
#ifndef RC_OP_H
#define RC_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/heap.h"
#include "base/list.h"
#include "engine/entry.h"
#include "engine/resp.h"
#include "engine/sharing.h"
#include "redcache.h"

struct rc_req;
struct rc_fetch;
struct rc_flight;
struct rc_gather;
struct rc_op;

enum rc_op_kind {
    RC_OP_COMMAND, /* any commands */
    RC_OP_BORROW,  /* a connection of one's own */
    RC_OP_LENT,    /* any commands, over that */
    RC_OP_LISTEN,  /* the messages that have come over it */
    RC_OP_GET,     /* GET, with PTTL if asked */
    RC_OP_SET,
    RC_OP_DELETE,
    RC_OP_LOAD,
    RC_OP_PUBLISH,
    RC_OP_FAIL,
    RC_OP_RELEASE,
    RC_OP_BARRIER, /* PING on the tracked connection */
    RC_OP_LOCK_ACQUIRE,
    RC_OP_LOCK_RELEASE,
    RC_OP_LOCK_EXTEND,
    RC_OP_PAUSE, /* nothing, for ttl_ms */
    RC_OP_KINDS
};

enum { RC_OP_BY_KEY = -1 };

/* Why a key is loaded: flights of different purposes do not meet. */
enum rc_purpose { RC_FLIGHT_LOAD, RC_FLIGHT_PUT, RC_FLIGHT_REFRESH };

/* Takes what was read for an op: a status other than 0 with a text (or NULL), or the answers to GET
   and PTTL, which may be swapped away. Finishes the op or sends it on. */
struct rc_receiver {
    void (*take)(struct rc_receiver *receiver, struct rc_op *op, int status, struct rc_reply *reply,
                 const char *text);
};

/* Each line of memory that a read touches costs. So what it needs stands together, once at the
   beginning and once at the end of an op, where what wraps the op goes on. */

/* What the caller asks. Caller only, before it submits; the engine reads it. */
struct rc_ask {
    enum rc_op_kind kind;
    uint32_t flags; /* RC_WANT_TTL, RC_RETRY, ... */
    int32_t timeout_ms;
    uint32_t expect; /* answers to come: commands in `request`; a read: 2 with the TTL */
    int32_t at_slot; /* all goes to that slot's master; RC_OP_BY_KEY: each to its key's */
    int16_t script;  /* one that `request` begins, the last; -1: none */
    bool near;       /* a read whose answer is kept in the near cache */
    bool is_plain;   /* a set or publish of a value without a header, so without a version */
    uint64_t tag;
    struct rc_lent *lent; /* what a lent connection is for; NULL: it is for none */
    struct rc_buf key;
    struct rc_buf request; /* encoded commands; a read needs none, its key says it all */
    struct rc_buf written; /* keys they write: a uint32_t with its length before each */

    uint8_t near_group;
    bool near_avoids;      /* keys that change too often are read without being kept */
    int64_t near_ttl_us;   /* kept no longer than that */
    size_t entry_from_end; /* end of a load: where in `request` the stored string lies */
    size_t entry_len;
    int64_t ttl_ms;
    rc_load_options load;
    enum rc_purpose purpose; /* of a load, and of what ends it; the engine makes it a refresh */
    rc_lock_options lock_options;
    struct rc_lock *lock;
    struct rc_sharing sharing; /* what the commands in `request` need */
};

/* How the engine runs it. Engine only while it runs, with the exception of the first group. */
struct rc_run {
    /* From RC_LOAD to the end of the load the caller reads them, to encode its request. A set and
       a refresh: the caller writes nonce and seen before it submits. */
    char token[RC_NONCE_SIZE]; /* of our lease */
    char nonce[RC_NONCE_SIZE]; /* version the loaded value will have */
    char seen[40];             /* refresh, put: identity of the value that stood there */
    uint8_t seen_len;
    /* RC_BUSY: the lease of the load that the next one in this slot may hear of. The caller says
       at each start whether it is that one. */
    bool has_waited;
    char waited_token[RC_NONCE_SIZE];

    struct rc_flight *flight;
    uint64_t joined;              /* place in the flight's order of arrivals */
    struct rc_receiver *receiver; /* of what is fetched */

    struct rc_list active; /* engine's list of running ops, later of finished ones */
    struct rc_list member; /* flight's or lock line's waiting ops, or the leading ones */
    struct rc_timer deadline;
    int64_t answer_by_us; /* load, lock with a timeout of its own: so long Redis may be silent; 0 */
    int64_t wait_until_us;    /* then: the end of the call, behind answer_by_us; 0 */
    int64_t call_until_us;    /* a call: the deadline of all its requests */
    struct rc_req *req;       /* request under way for this op alone */
    struct rc_gather *gather; /* requests under way for it in parts */
    struct rc_fetch *fetch;   /* read under way, shared with others; by `member` */
    uint64_t tag;             /* as it was when submitted; stays while it leads */
    uint16_t slot;      /* of ask.key, plus 1; 0: nobody has asked yet. rc_topology_slot_of's */
    bool bypassed_near; /* its answer comes past the near cache, which may hold an older one */
    bool from_replica;  /* its answer is a replica's */
    bool is_running;
    bool leads;
    bool without_redis; /* takes part without Redis */
};

struct rc_op {
    rc_result result;      /* first: rc_op_result() is the op's own address */
    struct rc_reply reply; /* engine writes, caller reads once finished; result.data lies in it */
    struct rc_ask ask;
    struct rc_run run;
};

int rc_op_init(struct rc_op *op);
void rc_op_deinit(struct rc_op *op);
/* Readies the result for a new operation. */
void rc_op_reset(struct rc_op *op, enum rc_op_kind kind);
/* Tells the result how large the op's buffers have become. */
void rc_op_measure(struct rc_op *op);
/* Frees the buffers with more room than that. The op is idle; its result and key are void. */
void rc_op_shrink(struct rc_op *op, size_t keep_bytes);
/* Copies a text or value into the op's own arena and points the result at it. */
void rc_op_keep(struct rc_op *op, const char *bytes, size_t len);
/* Keeps `bytes` as an entry (NULL: none) and reads its header and ttl_ms into the result. */
void rc_op_keep_entry(struct rc_op *op, const char *bytes, size_t len, int64_t ttl_ms);

#endif
