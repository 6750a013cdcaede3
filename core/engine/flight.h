/*
 * flight - the in-process half of a load: who leads, who waits, who gets what.
 *
 * What:    the object that lease.c drives through the protocol, and the ways to hand its result to
 *          its ops.
 * Threads: the engine's owner.
 * Memory:  a flight owns its key, helper key and served value; ops belong to their callers.
 * Errors:  RC_ERR_NOMEM.
 * Not:     sends nothing.
 */
#ifndef RC_FLIGHT_H
#define RC_FLIGHT_H

#include <stdbool.h>

#include "engine/lease.h"

enum rc_flight_state {
    RC_FLIGHT_IDLE,
    RC_FLIGHT_ACQUIRING,
    RC_FLIGHT_WAITING,
    RC_FLIGHT_LOADING,
    RC_FLIGHT_PUBLISHING,
    RC_FLIGHT_SERVED
};

struct rc_flight {
    struct rc_table_node node; /* in leases->flights */
    struct rc_leases *leases;
    enum rc_purpose purpose;
    struct rc_buf key;
    struct rc_buf helper; /* refresh, put: second key in the same slot */
    enum rc_flight_state state;
    struct rc_list waiting; /* ops, oldest first */
    struct rc_op *leader;
    struct rc_req *req; /* the one request under way */
    struct rc_req *heartbeat;
    uint64_t served_until; /* ops that joined up to here are served by the answer to `req` */
    struct rc_timer timer; /* WAITING: look again; LOADING: heartbeat; SERVED: end */
    struct rc_watch watch; /* WAITING: on the key */
    struct rc_watch helper_watch;
    rc_load_options options; /* of the op that acquires */
    int64_t load_until_us;   /* no heartbeats after this */
    int64_t answered_us;     /* when Redis last said how the key is */
    int64_t heartbeat_us;    /* LOADING: the next heartbeat */
    int64_t cover_us;        /* LOADING, refresh and put: the old value's end is near; 0: never */
    uint32_t polls;          /* without tracking: looks so far */
    uint32_t lost;           /* requests in a row whose connection broke */
    bool asked;              /* at least one round was made */
    bool degraded;
    bool has_waited;
    char token[RC_NONCE_SIZE];
    char waited_token[RC_NONCE_SIZE]; /* of the lease the ops wait for */
    struct rc_buf served;
    size_t served_cost; /* its part of leases->served_bytes */
    int64_t served_until_us;
};

struct rc_flight *rc_flight_find(struct rc_leases *leases, const struct rc_op *op);
struct rc_flight *rc_flight_new(struct rc_leases *leases, const struct rc_op *op);
/* What was loaded without Redis is void: its time is over, or Redis grants leases again. */
void rc_flight_forget_served(struct rc_flight *flight);
/* Frees it if nothing is left to do in it. */
void rc_flight_free_if_idle(struct rc_flight *flight);
void rc_flight_free(struct rc_flight *flight);

void rc_flight_join(struct rc_flight *flight, struct rc_op *op);
struct rc_op *rc_flight_first(const struct rc_flight *flight); /* oldest waiting op, or NULL */

/* Hands an entry to every op that joined up to `served_until`. bytes NULL: flags, outcome. */
void rc_flight_give(struct rc_flight *flight, uint64_t served_until, const char *bytes, size_t len,
                    int64_t ttl_ms, uint32_t flags);
/* The same with what was found in the key; who cannot read that very entry (RC_REPLACE) stays. */
void rc_flight_give_found(struct rc_flight *flight, uint64_t served_until, const char *bytes,
                          size_t len, int64_t ttl_ms, uint32_t flags);
void rc_flight_give_failure(struct rc_flight *flight, uint64_t served_until, const char *text,
                            size_t len);
/* Another load is under way, by the lease of that token (NULL: nobody knows): finishes those who do
   not wait for it (RC_NO_WAIT). */
void rc_flight_tell_busy(struct rc_flight *flight, const char *token);
/* Makes the oldest waiting op the leader and finishes it with RC_LOAD. */
void rc_flight_promote(struct rc_flight *flight);
/* Finishes a single op with an entry that was found. */
void rc_flight_hit(struct rc_context *context, struct rc_op *op, const char *bytes, size_t len,
                   int64_t ttl_ms, uint32_t flags);

#endif
