/*
 * lease - remember()'s protocol: who may load a key, who waits, what becomes of the value.
 *
 * What:    a flight is all that this process does about one key: its lease, the op that leads (runs
 *          the loader) and the ops that wait. One flight per key, shared by all threads and Lua
 *          states of the client.
 *
 *          Every answer serves only the ops that had joined when its request was sent: a later one
 *          may already know of a newer value. The others start the next round.
 *
 *              ACQUIRING -acquired-> LOADING -rc_publish-> PUBLISHING -stored-> all who had
 *                  | busy               | lost, leader gone:   | lost:          joined have it
 *                  v                    v the next op leads    v next round
 *              WAITING -push, lease's end, broken T link-> ACQUIRING
 *
 *          Who asks for many keys waits for nobody (RC_NO_WAIT): such an op takes a free lease or
 *          ends with RC_BUSY, and its next load carries the token of the lease that it found along,
 *          so that it hears how that very load has failed.
 *
 *          A refresh and a put hold their lease in a helper key beside the value that they replace.
 *          Before the value's own end the lease takes its place (RC_SCRIPT_COVER), where the value
 *          is still the one they saw; from then on it is a lease as any other.
 *
 *          Redis away: the flight is degraded. There is no lease; the value is shared in this
 *          process only, and for degraded_ttl with those who come later (SERVED).
 * Threads: the engine's owner.
 * Memory:  owns its flights; a leading op holds token and nonce itself and survives its flight.
 * Errors:  told through the op: RC_ERR_TIMEOUT, RC_ERR_CANCELLED, with RC_STRICT what went wrong
 *          with Redis.
 * Not:     runs no loader, and decodes nothing.
 * Source:  DESIGN of leases: Nishtala et al., Scaling Memcache at Facebook, NSDI 2013, with a
 *          random token per load.
 */
#ifndef RC_LEASE_H
#define RC_LEASE_H

#include "base/hash.h"
#include "base/slot.h"
#include "engine/context.h"
#include "engine/topology.h"
#include "engine/track.h"

struct rc_leases {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_track *track;
    struct rc_receiver fetched; /* takes the first read of a load, where a fetch has made it */
    struct rc_receiver
        from_replica; /* or a replica was asked: its hit is an answer, nothing else */

    /* Engine only. */
    struct rc_table flights; /* by key; a key may have one of each purpose */
    struct rc_list leading;  /* ops that run their loader, by `member` */
    uint64_t joined;         /* arrivals, to tell who had joined when a request was sent */
    size_t served_bytes;     /* held by SERVED flights, all included; bounded */
};

void rc_leases_init(struct rc_leases *leases, struct rc_context *context,
                    struct rc_topology *topology, struct rc_track *track);
void rc_leases_deinit(
    struct rc_leases *leases); /* after rc_leases_shutdown and the links' shutdown */

/* RC_OP_LOAD whose first read of the key was made elsewhere: a status other than 0 with a text (or
   NULL), or the answers to GET and PTTL, which may be swapped away. */
void rc_leases_first_answer(struct rc_leases *leases, struct rc_op *op, int status,
                            struct rc_reply *reply, const char *text);
/* RC_OP_LOAD. */
void rc_leases_load(struct rc_leases *leases, struct rc_op *op);
/* RC_OP_PUBLISH, RC_OP_FAIL, RC_OP_RELEASE of an op that leads. */
void rc_leases_end(struct rc_leases *leases, struct rc_op *op);
/* A waiting op is taken out (it is finished by the caller of this). */
void rc_leases_leave(struct rc_leases *leases, struct rc_op *op);
/* The timeout of a waiting op is over: where Redis has told nothing since it came, what is under
   way for it has failed. */
void rc_leases_hurry(struct rc_op *op);
/* Whether a waiting op waits for a load, and not for Redis. */
bool rc_leases_is_loaded_elsewhere(const struct rc_op *op);
/* A leading op will not come back: the next one leads, or the lease is given back. */
void rc_leases_abandon(struct rc_leases *leases, struct rc_op *op);
/* Gives every lease back and fails every waiting op with RC_ERR_CLOSED. */
void rc_leases_shutdown(struct rc_leases *leases);

#endif
