#include "driver/turn.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "driver/loop.h"

enum { LISTEN_EVERY_US = 300, PARK_US = 100 * 1000 };

/* ---- ownership ------------------------------------------------------------------------------- */

bool rc_driver_try_own(struct rc_driver *driver)
{
    int nobody = RC_OWNER_NONE;
    /* Acquire pairs with the release in rc_driver_leave: the engine's state comes along.
       Sequentially consistent because leave and submit look at each other's flags (owner,
       submitted). */
    return atomic_compare_exchange_strong(&driver->owner, &nobody, RC_OWNER_TURNING);
}

void rc_driver_wake_sleeper(struct rc_driver *driver)
{
    uint64_t one = 1;
    ssize_t written = write(driver->wake_fd[1], &one, sizeof one);
    (void)written; /* full means that a wake-up is already on its way */
}

static bool wake_next_waiter(struct rc_driver *driver)
{
    struct rc_seat *seat = NULL;
    bool parked = false;
    pthread_mutex_lock(&driver->waiters_mutex);
    if (!rc_list_is_empty(&driver->waiters)) {
        seat = RC_CONTAINER(driver->waiters.next, struct rc_seat, waiter);
        parked = rc_seat_give_turn(seat); /* it cannot go away while it is in the list */
    }
    pthread_mutex_unlock(&driver->waiters_mutex);
    if (parked)
        rc_seat_wake(seat);
    return seat != NULL;
}

bool rc_driver_has_unread(const struct rc_driver *driver)
{
    if (!driver->wire->is_instant)
        return false;
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (rc_link_expects_input(link))
            return true;
    }
    return false;
}

static void wake_runner(struct rc_driver *driver)
{
    if (driver->runner->wake != NULL) /* a host's turn sees to what it cannot be told */
        driver->runner->wake(driver);
}

void rc_driver_leave(struct rc_driver *driver, bool is_reactor)
{
    bool earlier = rc_engine_deadline(&driver->engine) < atomic_load(&driver->reactor_alarm_us);
    bool can_turn = rc_driver_can_turn(driver);
    bool has_unread = rc_driver_has_unread(driver);
    atomic_store(&driver->owner, RC_OWNER_NONE);
    bool inline_next = can_turn && !driver->wire->is_instant && !atomic_load(&driver->crowded) &&
                       atomic_load(&driver->waiting) > 0 && !atomic_load(&driver->reactor_wants) &&
                       wake_next_waiter(driver);
    /* Somebody may have submitted or told, and seen that the engine has an owner, just before. */
    bool left_over = !inline_next && (has_unread || atomic_load(&driver->submitted) != NULL ||
                                      atomic_load(&driver->has_news));
    bool for_reactor = earlier || atomic_load(&driver->reactor_wants) ||
                       atomic_load(&driver->reactor_dormant) || atomic_load(&driver->crowded);
    if (left_over || (for_reactor && !is_reactor))
        wake_runner(driver);
}

void rc_driver_kick(struct rc_driver *driver)
{
    int owner = atomic_load(&driver->owner);
    if (owner == RC_OWNER_SLEEPING) {
        rc_driver_wake_sleeper(driver);
    } else if (owner == RC_OWNER_NONE && driver->runner->wake != NULL &&
               !atomic_load(&driver->ended)) {
        wake_runner(driver);
    } else if (owner == RC_OWNER_NONE && rc_driver_try_own(driver)) { /* there is nobody else */
        rc_driver_turn(driver, false);
        rc_driver_leave(driver, false);
    }
    /* Else it is turning, and looks at the queue before it leaves. */
}

void rc_driver_tell(struct rc_driver *driver)
{
    /* Pairs with the exchange in listen: what the wire holds was put there before. Sequentially
       consistent because we then look at `owner`, while the thread that leaves writes `owner`, then
       looks here. */
    if (atomic_exchange(&driver->has_news, true))
        return; /* the one that was told first has not looked yet */
    if (atomic_load(&driver->owner) == RC_OWNER_NONE)
        wake_runner(driver);
}

void rc_driver_serve(struct rc_driver *driver, int turns)
{
    if (atomic_load(&driver->submitted) == NULL)
        return;
    if (turns == 0 || atomic_load(&driver->crowded) || !rc_driver_try_own(driver)) {
        rc_driver_kick(driver);
        return;
    }
    rc_driver_count_inline_turn(driver);
    while (turns-- > 0 && rc_driver_turn(driver, false)) {
    }
    if (rc_driver_needs_reactor(driver))
        atomic_store(&driver->reactor_wants, true);
    rc_driver_leave(driver, false);
}

static void note_wake(struct rc_driver *driver, bool in_time)
{
    if (!in_time) /* relaxed: a counter */
        atomic_fetch_add_explicit(&driver->late_wakes, 1, memory_order_relaxed);
}

void rc_driver_park(struct rc_driver *driver, struct rc_seat *seat)
{
    note_wake(driver, rc_seat_park(seat, PARK_US));
}

void rc_driver_park_in_crowd(struct rc_driver *driver, struct rc_seat *seat)
{
    note_wake(driver, rc_seat_park_in_crowd(seat, PARK_US));
}

/* ---- lines ----------------------------------------------------------------------------------- */

int rc_driver_add_line(void *owner, struct rc_link *link)
{
    struct rc_driver *driver = owner;
    const struct rc_wire *wire = driver->wire;
    const struct rc_runner *runner = driver->runner;
    if (runner->make_room != NULL && runner->make_room(driver, driver->line_count + 1) != 0)
        return RC_ERR_NOMEM;
    struct rc_line *line = calloc(1, wire->line_size);
    if (line == NULL)
        return RC_ERR_NOMEM;
    line->driver = driver;
    line->link = link;
    link->line = line;
    if (wire->init != NULL)
        wire->init(line);
    driver->line_count++;
    return 0;
}

void rc_driver_free_line(struct rc_link *link)
{
    struct rc_line *line = link->line;
    if (line == NULL)
        return;
    if (line->driver->wire->deinit != NULL)
        line->driver->wire->deinit(line);
    line->driver->line_count--;
    link->line = NULL;
    free(line);
}

void rc_driver_release_links(struct rc_driver *driver)
{
    struct rc_topology *topology = &driver->engine.topology;
    RC_LIST_EACH(place, following, &topology->all) {
        struct rc_link *link = RC_CONTAINER(place, struct rc_link, place);
        if (!link->is_leaving || link->wants_close)
            continue;
        rc_driver_free_line(link);
        rc_topology_release(topology, link);
    }
}

/* ---- one pass -------------------------------------------------------------------------------- */

static void ready(struct rc_driver *driver, struct rc_seat *seat)
{
    /* Relaxed: a seat may be in the crowd of any turn; that of its own costs least. */
    uint32_t taken = atomic_load_explicit(&driver->taken, memory_order_relaxed);
    seat->driver = driver;
    seat->crowd = &driver->crowds[taken % RC_CROWDS];
    if (seat->is_unreported) /* its caller did not wait for the report; it is listed once */
        rc_loop_forget(seat->loop, seat);
    /* Relaxed: the exchange orders it. */
    atomic_store_explicit(&seat->state, 0, memory_order_relaxed);
}

/* A chain of seats by `earlier`. */
static void push(struct rc_driver *driver, struct rc_seat *newest, struct rc_seat *oldest)
{
    oldest->earlier = atomic_load_explicit(&driver->submitted, memory_order_relaxed);
    /* Release pairs with the exchange in take_submitted: the op comes along. Sequentially
       consistent because the submitter then looks at `owner`, while a thread that leaves or falls
       asleep writes `owner`, then looks here. */
    while (!atomic_compare_exchange_weak(&driver->submitted, &oldest->earlier, newest)) {
    }
}

void rc_driver_submit(struct rc_driver *driver, struct rc_seat *seat)
{
    ready(driver, seat);
    push(driver, seat, seat);
}

void rc_driver_hold(struct rc_driver *driver, struct rc_seat *seat)
{
    ready(driver, seat);
    seat->is_ready = true;
}

void rc_driver_submit_all(struct rc_driver *driver, struct rc_seat *const *seats, size_t count)
{
    struct rc_seat *newest = NULL, *oldest = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!seats[i]->is_ready || seats[i]->driver != driver)
            continue;
        seats[i]->is_ready = false;
        seats[i]->earlier = newest;
        newest = seats[i];
        if (oldest == NULL)
            oldest = newest;
    }
    if (newest != NULL)
        push(driver, newest, oldest);
}

/* All that was submitted, oldest first, each with the next one in `earlier`. */
static struct rc_seat *take_submitted(struct rc_driver *driver)
{
    struct rc_seat *newest = NULL, *oldest = NULL;
    /* Relaxed: what comes a moment later is found by the next pass. */
    if (atomic_load_explicit(&driver->submitted, memory_order_relaxed) != NULL)
        newest = atomic_exchange(&driver->submitted, NULL);
    if (newest != NULL) { /* relaxed, and no read-modify-write: only the owner writes it */
        uint32_t taken = atomic_load_explicit(&driver->taken, memory_order_relaxed);
        atomic_store_explicit(&driver->taken, taken + 1, memory_order_relaxed);
    }
    while (newest != NULL) {
        struct rc_seat *earlier = newest->earlier;
        newest->earlier = oldest;
        oldest = newest;
        newest = earlier;
    }
    return oldest;
}

static void start_submitted(struct rc_driver *driver)
{
    struct rc_seat *seat = take_submitted(driver), *next;
    bool is_burst = seat != NULL && seat->earlier != NULL;
    if (is_burst)
        rc_engine_open_burst(&driver->engine);
    for (; seat != NULL; seat = next) {
        next = seat->earlier; /* the seat may be gone once it is finished */
        if (seat->call != NULL) {
            seat->call(&driver->engine, seat->argument);
            rc_loop_finish(seat);
        } else {
            rc_engine_submit(&driver->engine, &seat->op);
        }
    }
    if (is_burst)
        rc_engine_close_burst(&driver->engine);
}

/* All that is done is told first, then the crowds are woken that somebody sleeps in. */
static bool finish_ops(struct rc_driver *driver)
{
    struct rc_op *op;
    struct rc_list for_loops;
    uint32_t awaited = 0; /* a bit for each crowd */
    bool any = false;
    rc_list_init(&for_loops);
    while ((op = rc_engine_take_finished(&driver->engine)) != NULL) {
        struct rc_seat *seat = RC_CONTAINER(op, struct rc_seat, op);
        struct rc_crowd *crowd = NULL;
        if (seat->loop != NULL)
            rc_list_append(&for_loops, &op->run.active);
        else
            crowd = rc_seat_finish_in_crowd(seat);
        if (crowd != NULL)
            awaited |= 1u << (crowd - driver->crowds);
        any = true;
    }
    rc_loop_report_all(&for_loops);
    for (int i = 0; awaited >> i != 0; i++) {
        if (awaited >> i & 1)
            rc_crowd_wake(&driver->crowds[i]);
    }
    return any;
}

bool rc_driver_can_turn(const struct rc_driver *driver)
{
    if (driver->wire->open_or_close != NULL)
        return true;
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (link->state == RC_LINK_OPENING || link->wants_close)
            return false;
    }
    return true;
}

/* Whether to read from all links, though no answer is due on them. */
static bool listen(struct rc_driver *driver)
{
    int64_t now_us = driver->engine.context.now_us;
    /* Relaxed: what comes a moment later is found by the next pass. */
    if (atomic_load_explicit(&driver->has_news, memory_order_relaxed) &&
        atomic_exchange(&driver->has_news, false))
        return true;
    /* A stream of requests on one link must not make us deaf for the pushes on the others. */
    return !driver->wire->is_instant && now_us - driver->listened_us >= LISTEN_EVERY_US;
}

static void send_all(struct rc_driver *driver)
{
    const struct rc_wire *wire = driver->wire;
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if ((link->wants_open || link->wants_close || link->ended) && wire->open_or_close != NULL)
            wire->open_or_close(link->line);
        if (rc_buf_len(&link->output) > 0 || link->line->has_unsent)
            wire->send(link->line);
    }
}

/* Before the pass sends anything: what it sends itself is not answered within it, unless the wire
   is instant. */
static void note_due(struct rc_driver *driver)
{
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        link->line->is_due = rc_link_expects_input(link);
    }
}

/* Which links are read from, besides those that are readable. */
enum reads {
    READS_OLD, /* where an answer was due when the pass began */
    READS_DUE, /* where one is due */
    READS_ALL
};

/* Returns whether there was anything to read. */
static bool receive_all(struct rc_driver *driver, enum reads reads)
{
    const struct rc_wire *wire = driver->wire;
    bool any = false;
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        struct rc_line *line = link->line;
        bool is_due = reads == READS_OLD ? line->is_due : rc_link_expects_input(link);
        if (!is_due && !line->is_readable && reads != READS_ALL)
            continue;
        line->is_readable = false;
        any |= wire->receive(line);
    }
    return any;
}

/* The second half of a pass. Returns whether anything has come, or is done. */
static bool hear(struct rc_driver *driver, enum reads reads)
{
    bool any = receive_all(driver, reads);
    if (any) {
        rc_engine_run(&driver->engine); /* what the input has started or failed */
        send_all(driver);
    }
    if (driver->engine.topology.leaving > 0 && driver->wire->open_or_close != NULL)
        rc_driver_release_links(driver);
    return finish_ops(driver) || any;
}

bool rc_driver_turn(struct rc_driver *driver, bool reads_all)
{
    struct rc_engine *engine = &driver->engine;
    /* Relaxed: this thread has stored it. */
    assert(atomic_load_explicit(&driver->owner, memory_order_relaxed) != RC_OWNER_NONE);
    rc_engine_set_time(engine, rc_driver_now_us(driver));
    note_due(driver);
    rc_engine_run(engine); /* a lock whose time is over is lost for the release that comes now */
    /* That something was submitted is no reason for another pass: the answer takes a while. */
    start_submitted(driver);
    rc_engine_run(engine);
    send_all(driver);
    reads_all |= listen(driver);
    if (reads_all)
        driver->listened_us = engine->context.now_us;
    bool is_instant = driver->wire->is_instant;
    return hear(driver, reads_all ? READS_ALL : is_instant ? READS_DUE : READS_OLD);
}

bool rc_driver_hear(struct rc_driver *driver)
{
    return hear(driver, READS_DUE);
}

bool rc_driver_needs_reactor(const struct rc_driver *driver)
{
    if (driver->wire->open_or_close != NULL)
        return false;
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (link->wants_open || link->wants_close)
            return true;
    }
    return false;
}
