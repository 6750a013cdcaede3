/*
 * lend - connections that are lent to one caller each, for what cannot share one.
 *
 * What:    links of role X (link.h), opened when a caller asks for one and none is idle, at most
 *          options.max_lent of them; beyond that callers wait for one that comes back. What is
 *          given back clean is reset (rc_link_clean) and may be lent again. What may still hold an
 *          answer or a state of its caller is closed: a command on it has timed out or was
 *          cancelled, or the connection broke. Idle ones are closed after a while. Messages that
 *          come over one wait in its handle until they are asked for.
 * Threads: the engine's owner.
 * Memory:  owns the links; a handle (struct rc_lent) is its caller's, who gives back before it
 *          goes.
 * Errors:  through the ops: those of rc_link_send; RC_ERR_OVERLOAD where all are lent and the time
 *          is over; RC_ERR_LOST, and why, where the handle's connection is gone; RC_ERR_ARGUMENT
 *          where it has none, or has one and asks for another.
 * Not:     does not judge commands (sharing.h), and subscribes to nothing by itself.
 */
#ifndef RC_LEND_H
#define RC_LEND_H

#include "engine/context.h"
#include "engine/topology.h"

struct rc_spare;

/* What a caller has in hand. Zeros: nothing was lent. */
struct rc_lent {
    /* Fixed after init. Its maker's: the op's commands are about to be submitted. 0, or an error
       that keeps them from that. */
    int (*on_submit)(struct rc_lent *lent, struct rc_op *op);

    /* Engine only. */
    struct rc_spare *spare;   /* the connection; NULL: none */
    char cause[RC_TEXT_SIZE]; /* why it is gone; "" it is not, or was given back */
    struct rc_op *listener;   /* waits for a message; NULL: nobody */
    struct rc_reply inbox;    /* messages that nobody has asked for yet, not resolved */
    uint64_t missed;          /* those that found no room behind them */
};

/* Its messages; it has no connection. It may be used again. */
void rc_lent_deinit(struct rc_lent *lent);

struct rc_lends {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;

    /* Engine only. */
    struct rc_list idle;    /* connections that nobody has, the last one that came back first */
    struct rc_list busy;    /* lent, or asked for */
    struct rc_list ended;   /* to be removed by the timer: here it could be from inside a `done` */
    struct rc_list leaving; /* removed; the driver still closes them */
    uint32_t count;         /* in all four */
    uint32_t lent;          /* in callers' hands */
    struct rc_list waiting; /* ops by `member` */
    struct rc_timer timer;
};

int rc_lends_init(struct rc_lends *lends, struct rc_context *context, struct rc_topology *topology);
void rc_lends_deinit(struct rc_lends *lends); /* after the links' shutdown */

/* RC_OP_BORROW: the op's handle gets a connection to the node of the op's key. */
void rc_lends_borrow(struct rc_lends *lends, struct rc_op *op);
/* RC_OP_LENT: the op's commands go over the handle's connection. */
void rc_lends_send(struct rc_lends *lends, struct rc_op *op);
/* RC_OP_LISTEN: ends with all messages that have come over the handle's connection, or with the
   next one. What the connection has brought before it broke is told first. */
void rc_lends_listen(struct rc_lends *lends, struct rc_op *op);
/* Any of these goes away before its time. */
void rc_lends_leave(struct rc_lends *lends, struct rc_op *op);
/* The caller gives back what it has, if it has anything; no op of the handle is running. */
void rc_lends_return(struct rc_lends *lends, struct rc_lent *lent);

/* The node's server does not answer: what waits for it on lent connections is over. */
void rc_lends_on_silence(struct rc_lends *lends, struct rc_server_node *node);
/* It is at another address now: what leads to the old one is over; who still waits for a
   connection gets one to the new. */
void rc_lends_on_move(struct rc_lends *lends, struct rc_server_node *node);
/* All connections are closed, lent or not. No op is running. */
void rc_lends_shutdown(struct rc_lends *lends);

#endif
