/*
 * inline - a blocking caller turns the loop itself: no switch to another thread for a lone caller.
 *
 * The caller spins a moment on the socket (yielding the processor each time) because an answer from
 * the same machine comes within some 20 us, while falling asleep and being woken costs 30 to 40 us
 * more. Spinning has a price for others, so at most one caller per processor but one does it, and
 * only while it pays.
 */
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "driver/loop.h"
#include "driver/reactor.h"
#include "driver/turn.h"
#include "driver/wire_socket.h"

enum {
    SPIN_US =
        120, /* longer than a round trip on one machine, shorter than a scheduler's time slice */
    CREDITS_MAX = 64,
    CREDITS_FOR_MISS = 4, /* a spin that did not pay costs as much as four that did */
    PROBE_EVERY = 64,     /* without credit one wait in so many tries again */
    LOOKS_PER_TIME = 4    /* looks at the socket for each look at the clock, which costs as much */
};

static _Atomic int spinners; /* in this process */
static _Atomic unsigned spin_probes;

static bool start_spin(struct rc_driver *driver)
{
    if (!driver->may_spin)
        return false;
    if (atomic_load_explicit(&driver->spin_credits, memory_order_relaxed) <= 0 &&
        atomic_fetch_add_explicit(&spin_probes, 1, memory_order_relaxed) % PROBE_EVERY != 0)
        return false;
    if (atomic_fetch_add_explicit(&spinners, 1, memory_order_relaxed) < driver->cpu_count - 1)
        return true;
    atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
    return false;
}

static void end_spin(struct rc_driver *driver, bool paid)
{
    int credits = atomic_load_explicit(&driver->spin_credits, memory_order_relaxed);
    credits += paid ? 1 : -CREDITS_FOR_MISS;
    if (credits > CREDITS_MAX)
        credits = CREDITS_MAX;
    if (credits < 0)
        credits = 0;
    /* Relaxed, and a lost update is harmless: it is a rule of thumb. */
    atomic_store_explicit(&driver->spin_credits, credits, memory_order_relaxed);
    atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
}

static bool answer_is_due(const struct rc_driver *driver)
{
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (rc_link_is_ready(link) && rc_link_expects_input(link))
            return true;
    }
    return false;
}

/* The wake fd and every connected socket. Returns how many. */
static nfds_t choose_polled(struct rc_driver *driver)
{
    struct pollfd *polled = driver->polled;
    *polled++ = (struct pollfd){.fd = driver->wake_fd[0], .events = POLLIN};
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        const struct rc_socket_line *at = rc_socket_line_of(link->line);
        short events = (short)(POLLIN | (at->line.has_unsent ? POLLOUT : 0));
        if (at->fd >= 0)
            *polled++ = (struct pollfd){.fd = at->fd, .events = events};
    }
    return (nfds_t)(polled - driver->polled);
}

/* The sockets are the same as in choose_polled: the owner has slept in between. */
static void take_polled(struct rc_driver *driver)
{
    const struct pollfd *polled = driver->polled;
    if (polled++->revents != 0) {
        uint64_t number;
        ssize_t n = read(driver->wake_fd[0], &number, sizeof number);
        (void)n;
    }
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (rc_socket_line_of(link->line)->fd >= 0)
            link->line->is_readable = polled++->revents != 0;
    }
}

/* Sleeps as the owner until a socket or another thread wants something, or a timer is due. */
static void sleep_as_owner(struct rc_driver *driver)
{
    nfds_t count = choose_polled(driver);
    int64_t left_us = rc_engine_deadline(&driver->engine) - rc_clock_us();
    int timeout_ms = left_us > 1000000 ? 1000 : left_us < 0 ? 0 : (int)((left_us + 999) / 1000);
    /* The other half of the pair is in rc_driver_submit and kick: they submit, then look at
       `owner`. */
    atomic_store(&driver->owner, RC_OWNER_SLEEPING);
    if (atomic_load(&driver->submitted) == NULL && !atomic_load(&driver->reactor_wants))
        (void)poll(driver->polled, count, timeout_ms);
    else
        (void)poll(driver->polled, count, 0);
    atomic_store(&driver->owner, RC_OWNER_TURNING);
    take_polled(driver);
}

/* Somebody else is to be let in, or has work for the owner. */
static bool is_asked(struct rc_driver *driver)
{
    return atomic_load(&driver->reactor_wants) || atomic_load(&driver->crowded);
}

/* There is something to do but to look. Relaxed: what comes a moment later is found by the next
   look. */
static bool is_needed(struct rc_driver *driver)
{
    return is_asked(driver) ||
           atomic_load_explicit(&driver->submitted, memory_order_relaxed) != NULL;
}

/* Looks for an answer until something has come, or is to be done, or the time is over. */
static void spin(struct rc_driver *driver, int64_t until_us)
{
    bool paid = false, goes_on = true;
    for (int looks = 1; goes_on; looks++) {
        paid = rc_driver_hear(driver) || is_needed(driver);
        goes_on = !paid && (looks % LOOKS_PER_TIME != 0 || rc_clock_us() < until_us);
        if (goes_on) /* last: on a busy machine others may have the processor for a while then */
            sched_yield();
    }
    end_spin(driver, paid);
}

static void turn_until_done(struct rc_driver *driver, struct rc_seat *seat)
{
    int64_t spin_until_us = 0;
    bool told_reactor = false;
    rc_driver_count_inline_turn(driver);
    for (;;) {
        bool any = rc_driver_turn(driver, false);
        if (rc_driver_needs_reactor(driver) && !told_reactor) {
            atomic_store(&driver->reactor_wants, true);
            told_reactor = true;
        }
        if (rc_seat_is_done(seat) || is_asked(driver) || !rc_driver_can_turn(driver) ||
            rc_driver_asks(driver, seat))
            return;
        if (any)
            continue;
        int64_t now_us = driver->engine.context.now_us;
        bool is_due = answer_is_due(driver);
        if (is_due && spin_until_us == 0)
            spin_until_us = now_us + SPIN_US;
        if (!is_due || now_us >= spin_until_us || !start_spin(driver)) {
            sleep_as_owner(driver);
            continue;
        }
        spin(driver, spin_until_us);
        if (rc_seat_is_done(seat))
            return;
    }
}

static void count_waiter(struct rc_driver *driver)
{
    int waiting = atomic_fetch_add(&driver->waiting, 1) + 1;
    if (waiting > 2 * driver->cpu_count && !atomic_load(&driver->crowded))
        atomic_store(&driver->crowded, true);
    else if (waiting == 1 && atomic_load(&driver->crowded))
        atomic_store(&driver->crowded, false);
}

static void enter_waiters(struct rc_driver *driver, struct rc_seat *seat)
{
    pthread_mutex_lock(&driver->waiters_mutex);
    rc_list_append(&driver->waiters, &seat->waiter);
    pthread_mutex_unlock(&driver->waiters_mutex);
}

/* Returns whether somebody has passed the turn to us just now, which we will not take. */
static bool leave_waiters(struct rc_driver *driver, struct rc_seat *seat)
{
    pthread_mutex_lock(&driver->waiters_mutex);
    rc_list_remove(&seat->waiter);
    pthread_mutex_unlock(&driver->waiters_mutex);
    return rc_seat_take_turn(seat);
}

static bool may_turn(struct rc_driver *driver)
{
    return (!atomic_load(&driver->crowded) && !atomic_load(&driver->reactor_wants)) ||
           atomic_load(&driver->ended);
}

/* Turns the loop unless somebody else does. Returns whether the wait is over: the seat is done, or
   its caller is asked who we are; then it is out of the list and not counted any more, before the
   next owner is looked for. */
static bool try_to_turn(struct rc_driver *driver, struct rc_seat *seat, bool listed)
{
    bool passed = false;
    bool owns = !rc_seat_is_done(seat) && may_turn(driver) && rc_driver_try_own(driver);
    if (owns)
        turn_until_done(driver, seat);
    bool done = rc_seat_is_done(seat) || rc_driver_asks(driver, seat);
    if (done) {
        atomic_fetch_sub(&driver->waiting, 1);
        passed = listed && leave_waiters(driver, seat);
    }
    if (owns || (passed && rc_driver_try_own(driver)))
        rc_driver_leave(driver, false);
    return done;
}

/* In a crowd the reactor turns, and nobody is given the turn: a caller needs no list for that. It
   is one of those who wait, so the crowd does not end before it is done. */
static bool wait_in_crowd(struct rc_driver *driver, struct rc_seat *seat)
{
    if (!atomic_load(&driver->crowded))
        return false;
    rc_driver_kick(driver);
    if (!rc_seat_is_done(seat))
        rc_driver_park_in_crowd(driver, seat);
    return try_to_turn(driver, seat, false);
}

static void wait(struct rc_driver *driver, struct rc_seat *seat)
{
    if (rc_driver_asks(driver, seat)) /* nothing may work before that is answered */
        return;
    count_waiter(driver);
    /* A lone caller needs no list and no mutex. */
    if (try_to_turn(driver, seat, false) || wait_in_crowd(driver, seat))
        return;
    enter_waiters(driver, seat);
    /* An owner that left before we were in the list did not see us: so try before we park. */
    while (!try_to_turn(driver, seat, true)) {
        rc_driver_kick(driver);
        rc_driver_park(driver, seat);
        if (!rc_seat_is_done(seat))
            rc_seat_take_turn(seat); /* of one that is done it is passed on */
    }
}

static void turn(struct rc_driver *driver, struct rc_loop *loop)
{
    rc_driver_serve(driver, loop->caller_turns ? 1 : 0);
}

static int make_room(struct rc_driver *driver, size_t lines)
{
    struct pollfd *polled = realloc(driver->polled, (1 + lines) * sizeof *polled);
    if (polled == NULL)
        return RC_ERR_NOMEM;
    driver->polled = polled;
    return 0;
}

const struct rc_runner rc_runner_inline = {
    .make_room = make_room,
    .start = rc_reactor_start,
    .stop = rc_reactor_stop,
    .free = rc_reactor_free,
    .orphan = rc_reactor_orphan,
    .wake = rc_reactor_wake,
    .wait = wait,
    .turn = turn,
};
