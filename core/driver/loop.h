/*
 * loop - the way back to a caller that has other things to do than to wait: what is done.
 *
 * What:    a list that seats with a name are put into when they are done, and what wakes the caller
 *          then: nothing, a descriptor, or a connection that the caller made to us.
 * Threads: rc_loop_finish: the engine's owner. The rest: the loop's own.
 * Memory:  the caller's; deinit only when none of its seats is under way any more.
 * Errors:  RC_ERR_*.
 * Not:     turns nothing by itself: the caller does, when it was woken.
 */
#ifndef RC_LOOP_H
#define RC_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "driver/seat.h"

struct rc_loop {
    /* Fixed after init. */
    struct rc_client *client;

    /* The loop's thread. */
    struct rc_seat *first; /* done, in order, by next_done; not told yet */
    struct rc_seat *last;
    int listener; /* until the caller has connected; -1 */
    char path[96];
    unsigned generation; /* the fork generation that has made them */
    int64_t swept_us;
    unsigned seats;    /* that have a name in it */
    bool has_offered;  /* what its engine keeps near */
    bool is_leaving;   /* freed with the last of them */
    bool has_event;    /* fd is an eventfd of ours, not a socket that the caller reads */
    bool caller_turns; /* the caller has waited here: its own turns move the bytes */

    /* Any thread. */
    _Atomic(struct rc_seat *) done; /* newest first */
    _Atomic int fd;                 /* what wakes the caller, -1: nothing */
    _Atomic bool is_signalled;      /* and has not turned since */
    struct rc_seat seat;            /* done as soon as something is in `done` */
};

int rc_loop_init(struct rc_loop *loop, struct rc_client *client);
void rc_loop_deinit(struct rc_loop *loop);

void rc_loop_report(struct rc_seat *seat); /* of a seat that has a loop */
/* Of many, by `active` of their ops: a loop hears of those that follow each other at once. */
void rc_loop_report_all(struct rc_list *finished);

/* The seat is done: tells its loop, if it has one. Its thread may free it then. */
static inline void rc_loop_finish(struct rc_seat *seat)
{
    if (seat->loop == NULL)
        rc_seat_finish(seat);
    else
        rc_loop_report(seat);
}

/* The oldest that is done, or NULL. */
struct rc_seat *rc_loop_take(struct rc_loop *loop);
/* The seat goes away, or is used again: it is not told any more. */
void rc_loop_forget(struct rc_loop *loop, struct rc_seat *seat);
bool rc_loop_has_done(const struct rc_loop *loop);

/* Makes what wakes the caller: an eventfd, or an address to connect to. */
int rc_loop_open_fd(struct rc_loop *loop);
int rc_loop_open_socket(struct rc_loop *loop);
int rc_loop_accept_socket(struct rc_loop *loop);
/* The caller is awake, and looks at what is done after this. */
void rc_loop_hush(struct rc_loop *loop);

#endif
