/*
 * context - what all parts of one engine share.
 *
 * What:    the time of this turn, timers, random names, the pool of requests, the ops that are
 *          finished, counters.
 * Threads: the engine's owner; rc_context_nonce from any thread (atomic counter).
 * Memory:  owns the request pool and everything in it.
 * Errors:  RC_ERR_NOMEM.
 * Not:     reads no clock: `now_us` is what the driver said when it entered the engine.
 */
#ifndef RC_CONTEXT_H
#define RC_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "engine/op.h"
#include "redcache.h"

struct rc_context;
struct rc_link;
struct rc_login;

enum { RC_HOPS_MAX = 16 }; /* then the servers do not agree: the caller hears the last word */

/* One write with `expect` answers. */
struct rc_req {
    struct rc_list place;  /* in its link's queue or in-flight list, or in the pool */
    struct rc_timer timer; /* its deadline */
    struct rc_context *context;
    struct rc_link *link;
    struct rc_buf bytes; /* kept until answered: it may have to be sent again */
    /* A read has no bytes but the key of its owner, which lives until `done`: what reads it is
       written when it is sent. NULL: it is no read. */
    const struct rc_buf *read_key;
    size_t held_bytes; /* its part of the link's */
    uint32_t expect;   /* answers to come */
    int32_t slot;      /* where it belongs; topology sets it. -1: where it was sent */
    uint8_t hops;      /* how often a server has sent it elsewhere */
    bool is_held;      /* it waits until the server can do it: `link->cause` says why */
    bool needs_word;   /* it is sent only while others say that this is the right server */
    bool is_asking;    /* each of its commands goes behind ASKING: the slot is on its way there */
    bool stays;        /* it concerns its link's server: a redirection is an answer like others */
    bool is_tracked;   /* Redis shall tell us when what it reads changes */
    int16_t script;    /* its number, of a request that is one; or -1 */
    bool may_retry;    /* harmless to send twice */
    bool sent;         /* its bytes are in the link's output */
    bool asks;         /* PING and rc_identity_ask: its second answer tells which server it is */
    bool is_eval;      /* already sent as EVAL */
    bool is_ifeq;      /* sent as a command that does what its script would (ifeq.h) */
    bool wants_script; /* such a command, or a bundle, could not tell all: its script is asked */
    uint8_t bundled;   /* so many requests, it and those behind it, have one answer (bundle.h) */
    bool is_upkeep;    /* renews what a caller has: an open breaker lets it through */
    bool is_refused;   /* an open breaker did not */
    uint64_t output_start; /* where in the link's output stream it begins */
    int64_t sent_us;       /* the last time; 0: never, so Redis cannot have done it */
    int error;             /* what the timer reports; 0: the deadline passed */
    /* Called once, with status 0 and the answer, or an RC_ERR_*, text and NULL. `owner` may be
       cleared before. */
    void (*done)(struct rc_req *req, int status, struct rc_reply *reply, const char *text);
    void *owner;
    void *detail;        /* for the owner's use */
    int64_t patience_ms; /* how long it is worth sending for its effect alone, when its owner has
                            gone or was told that it takes too long; 0: it is not */
    struct rc_req *undo; /* rc_link_send_after: goes out when this one's answer has come */
};

struct rc_context {
    /* Fixed after init. */
    rc_options options; /* defaults filled in; of its strings `zone` alone is used: the client's */
    struct rc_seed seed;
    struct rc_login *login; /* the engine's */

    /* Engine only. */
    int64_t now_us;
    struct rc_heap timers;
    size_t timer_owners;     /* objects that have a timer: the heap has room for all of them */
    size_t running_ops;      /* and for theirs */
    struct rc_list pool;     /* requests not in use */
    struct rc_list finished; /* ops (by their `active` link) the driver has to hand back */
    rc_stats stats;
    bool closing;       /* nothing new is started */
    char refusal[128];  /* why Redis refused the last lease that was asked for; "" it did not */
    int64_t refused_us; /* when */
    int breaker_hold;   /* enum rc_breaker_hold: of the nodes that come */

    /* Any thread. */
    _Atomic uint64_t nonces;
};

int rc_context_init(struct rc_context *context, const rc_options *options,
                    const struct rc_seed *seed);
void rc_context_deinit(struct rc_context *context);

/* A fresh 64-bit name nobody can guess: SipHash of a counter under a secret key. */
void rc_context_nonce(struct rc_context *context, char nonce[RC_NONCE_SIZE]);
uint64_t rc_context_random(struct rc_context *context);

/* An object with a timer announces it, so that setting a timer cannot fail later. */
int rc_context_add_timer(struct rc_context *context);
void rc_context_remove_timer(struct rc_context *context);
void rc_context_set_timer(struct rc_context *context, struct rc_timer *timer, int64_t at_us);
void rc_context_clear_timer(struct rc_context *context, struct rc_timer *timer);
void rc_context_fire_timers(struct rc_context *context); /* those that are due */

struct rc_req *rc_req_take(struct rc_context *context); /* from the pool, empty; NULL: no memory */
void rc_req_give(struct rc_req *req);                   /* back to the pool */
/* One that reads the op's key, which it borrows: GET, and PTTL where it expects two answers. NULL:
   no memory. */
struct rc_req *rc_req_take_read(struct rc_context *context, const struct rc_op *op);

/* The op runs from now on; its deadline can be set. */
int rc_context_start(struct rc_context *context, struct rc_op *op);
/* The op's result is complete: hands it to the driver. */
void rc_context_finish(struct rc_context *context, struct rc_op *op);
/* The same with an error; `text` (NULL: none) is copied. */
void rc_context_fail(struct rc_context *context, struct rc_op *op, int status, const char *text);

enum { RC_TEXT_SIZE = 256 };
/* Copies an error answer's text, shortened, NUL-ended; returns `text`. */
const char *rc_node_text(const rc_node *node, char text[RC_TEXT_SIZE]);

static inline int64_t rc_context_after_ms(const struct rc_context *context, int64_t ms)
{
    return context->now_us + ms * 1000;
}

#endif
