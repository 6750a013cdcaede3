/*
 * turn - one pass of an engine over its wires, and the right to make it.
 *
 * What:    struct rc_driver: the engine with its wire, the queue of submitted seats, and ownership.
 *          Ops are put into the queue by any thread; the owner takes them out, moves
 *          bytes and finishes ops. Which threads become owners, and how the others wait, is the
 *          runner's: of it this file knows only the table. Nobody ever waits under a mutex.
 * Threads: marked at each field.
 * Memory:  the driver is made and freed by driver.c.
 * Errors:  none: what fails is told to the link.
 * Not:     no system call but those that wake a thread.
 */
#ifndef RC_TURN_H
#define RC_TURN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "driver/runner.h"
#include "driver/seat.h"
#include "driver/wire.h"

/* So many turns after its own a crowd is used again. Few are in flight at a time. */
enum { RC_CROWDS = 8 };

/* So many passes an owner makes in a row, for others, too, before it looks around. */
enum { RC_TURNS_MAX = 64 };

enum rc_owner {
    RC_OWNER_NONE,
    RC_OWNER_TURNING, /* a thread moves bytes, and looks at the queue before it leaves */
    RC_OWNER_SLEEPING /* a blocking caller sleeps in poll() as the owner: wake it */
};

struct pollfd;
struct rc_clock;
struct rc_memory;
struct rc_reactor;
struct rc_tls_context;

struct rc_driver {
    /* Fixed after start. */
    int cpu_count;
    bool may_spin;
    int wake_fd[2]; /* a pipe's ends (the same eventfd on Linux): wakes the owner that sleeps */
    const _Atomic int64_t *time_us; /* of a clock that is moved by hand; NULL: the machine's */
    unsigned fork_generation;
    const struct rc_runner *runner;
    const struct rc_wire *wire;
    struct rc_tls_context *tls_context; /* NULL: no TLS */
    struct rc_memory *memory;           /* wire_memory.c's */
    /* The runner's. */
    struct rc_reactor *reactor; /* NULL: none */
    struct rc_clock *clock;     /* NULL: none */

    /* The owner's. */
    struct rc_engine engine;
    int64_t listened_us; /* when all links were last read */
    size_t line_count;
    struct pollfd *polled;          /* inline.c's: room for the wake fd and every line */
    uint32_t last_told;             /* host.c's */
    char receive_buffer[64 * 1024]; /* wire_socket.c's */

    /* The thread's that moves the clock. */
    struct rc_list clock_place; /* in the clock's list */

    /* Any thread. */
    _Atomic(struct rc_seat *) submitted; /* newest first; the owner takes them all */
    _Atomic uint32_t taken;              /* how often the owner took some */
    _Atomic int owner;
    _Atomic bool has_news;            /* there is news in the wire that no descriptor announces */
    _Atomic int waiting;              /* threads in rc_driver_wait */
    _Atomic bool crowded;             /* so many wait that the reactor shall do it all */
    _Atomic bool reactor_wants;       /* the reactor has work only it can do */
    _Atomic int64_t reactor_alarm_us; /* when it will look at the engine by itself */
    _Atomic bool reactor_dormant;     /* ... or not at all until it is told */
    _Atomic bool ended;               /* the reactor is gone: callers help themselves */
    _Atomic uint64_t inline_turns;
    _Atomic uint64_t reactor_turns;
    _Atomic uint64_t late_wakes;
    _Atomic int spin_credits;

    struct rc_crowd crowds[RC_CROWDS];

    pthread_mutex_t waiters_mutex;
    /* Guarded by waiters_mutex. */
    struct rc_list waiters; /* seats that park, by `waiter`, oldest first */
};

/* Credentials are wanted of the caller that waits for this seat, and of nobody else. */
static inline bool rc_driver_asks(struct rc_driver *driver, struct rc_seat *seat)
{
    if (seat->may_answer && !seat->has_claim)
        seat->has_claim = rc_login_claim(&driver->engine.login);
    return seat->has_claim;
}

/* Caller: hands a seat over. */
void rc_driver_submit(struct rc_driver *driver, struct rc_seat *seat);
/* Makes a seat ready, but hands it over only with the others: rc_driver_submit_all of its driver. A
   seat that is freed before needs nothing. */
void rc_driver_hold(struct rc_driver *driver, struct rc_seat *seat);
/* Hands over in one step those of these seats that are ready for this driver, in their order. */
void rc_driver_submit_all(struct rc_driver *driver, struct rc_seat *const *seats, size_t count);
/* Sleeps until done or given the turn, or for a tenth of a second: another thread works for the
   caller, who looks after that long all the same. */
void rc_driver_park(struct rc_driver *driver, struct rc_seat *seat);
/* The same among those who were submitted with it; for who is not given the turn. */
void rc_driver_park_in_crowd(struct rc_driver *driver, struct rc_seat *seat);
/* For what was submitted: up to so many passes of the caller's own, where that is cheaper than to
   wake another thread for it; else makes sure that an owner looks soon. */
void rc_driver_serve(struct rc_driver *driver, int turns);

/* Owners. */
bool rc_driver_try_own(struct rc_driver *driver);
/* Leaves, and finds the next owner if there is anything left to do. */
void rc_driver_leave(struct rc_driver *driver, bool is_reactor);
/* One pass: takes the queue, moves bytes that can be moved at once, fires timers, finishes ops.
   Returns whether anything happened. `reads_all`: every link is read from, even if no answer is
   due; else only those where one is, and where the line is readable. */
bool rc_driver_turn(struct rc_driver *driver, bool reads_all);
/* The half of a pass that reads where an answer is due, for an owner who waits for one and looks
   again and again: it takes no queue and fires no timer, and reads the clock where something has
   come. Returns whether anything happened. */
bool rc_driver_hear(struct rc_driver *driver);
/* False while a connection is being made: then only the reactor can go on, and needs the engine for
   it. */
bool rc_driver_can_turn(const struct rc_driver *driver);
bool rc_driver_needs_reactor(
    const struct rc_driver *driver); /* a link waits to be opened or closed */
/* Makes the link's line; rc_carrier.add of the topology. */
int rc_driver_add_line(void *driver, struct rc_link *link);
void rc_driver_free_line(struct rc_link *link);
/* Lets go of the links that are leaving and closed. */
void rc_driver_release_links(struct rc_driver *driver);
/* Answers are waiting in an instant wire. */
bool rc_driver_has_unread(const struct rc_driver *driver);
/* Makes sure that an owner looks at the queue soon: turns the engine itself where nobody else
   would. */
void rc_driver_kick(struct rc_driver *driver);
void rc_driver_wake_sleeper(struct rc_driver *driver);
/* There is news in the instant wire: makes sure that an owner looks soon. Never turns the engine
   itself. */
void rc_driver_tell(struct rc_driver *driver);

static inline void rc_driver_count_inline_turn(struct rc_driver *driver)
{
    /* Relaxed, and no read-modify-write: only the owner writes it. */
    uint64_t turns = atomic_load_explicit(&driver->inline_turns, memory_order_relaxed);
    atomic_store_explicit(&driver->inline_turns, turns + 1, memory_order_relaxed);
}

static inline int64_t rc_driver_now_us(const struct rc_driver *driver)
{
    /* Acquire pairs with the mover of the clock. */
    return driver->time_us != NULL ? atomic_load_explicit(driver->time_us, memory_order_acquire)
                                   : rc_clock_us();
}

#endif
