#include "driver/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "driver/fork.h"
#include "driver/loop.h"
#include "driver/random.h"
#include "driver/reactor.h"

enum { LISTEN_EVERY_US = 300 };

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
        parked = rc_seat_give_turn(seat); /* it can not go away while it is in the list */
    }
    pthread_mutex_unlock(&driver->waiters_mutex);
    if (parked)
        rc_seat_wake(seat);
    return seat != NULL;
}

static bool expects_input(const struct rc_link *link)
{
    return !rc_list_is_empty(&link->in_flight) || link->state == RC_LINK_HANDSHAKE;
}

bool rc_driver_has_unread(const struct rc_driver *driver)
{
    bool any = false;
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++)
        any |= expects_input(&driver->engine.topology.links[i]);
    return any && driver->wire->is_instant;
}

static void wake_reactor(struct rc_driver *driver)
{
    if (driver->reactor != NULL) /* a host's turn sees to what it can not be told */
        rc_reactor_wake(driver->reactor);
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
                                      atomic_load(&driver->told));
    bool for_reactor = earlier || atomic_load(&driver->reactor_wants) ||
                       atomic_load(&driver->reactor_dormant) || atomic_load(&driver->crowded);
    if (left_over || (for_reactor && !is_reactor))
        wake_reactor(driver);
}

void rc_driver_kick(struct rc_driver *driver)
{
    int owner = atomic_load(&driver->owner);
    if (owner == RC_OWNER_SLEEPING) {
        rc_driver_wake_sleeper(driver);
    } else if (owner == RC_OWNER_NONE && driver->reactor != NULL && !atomic_load(&driver->ended)) {
        wake_reactor(driver);
    } else if (owner == RC_OWNER_NONE && rc_driver_try_own(driver)) { /* there is nobody else */
        rc_driver_turn(driver, 0);
        rc_driver_leave(driver, false);
    }
    /* Else it is turning, and looks at the queue before it leaves. */
}

void rc_driver_tell(struct rc_driver *driver)
{
    /* Pairs with the exchange in listen: what the wire holds was put there before. Sequentially
       consistent because we then look at `owner`, while whoever leaves writes `owner`, then looks
       here. */
    if (atomic_exchange(&driver->told, true))
        return; /* whoever was told first has not looked yet */
    if (atomic_load(&driver->owner) == RC_OWNER_NONE)
        wake_reactor(driver);
}

/* ---- one pass -------------------------------------------------------------------------------- */

void rc_driver_submit(struct rc_driver *driver, struct rc_seat *seat)
{
    seat->driver = driver;
    if (seat->untold) /* its caller has not waited to be told, and it can stand in the list but once */
        rc_loop_forget(seat->loop, seat);
    /* Relaxed: the exchange orders it. */
    atomic_store_explicit(&seat->state, 0, memory_order_relaxed);
    seat->earlier = atomic_load_explicit(&driver->submitted, memory_order_relaxed);
    /* Release pairs with the exchange in take_submitted: the op comes along. Sequentially
       consistent because the submitter then looks at `owner`, while whoever leaves or falls asleep
       writes `owner`, then looks here. */
    while (!atomic_compare_exchange_weak(&driver->submitted, &seat->earlier, seat)) {
    }
}

/* All that was submitted, oldest first, each with the next one in `earlier`. */
static struct rc_seat *take_submitted(struct rc_driver *driver)
{
    struct rc_seat *newest = NULL, *oldest = NULL;
    /* Relaxed: what comes a moment later is found by the next pass. */
    if (atomic_load_explicit(&driver->submitted, memory_order_relaxed) != NULL)
        newest = atomic_exchange(&driver->submitted, NULL);
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
    for (; seat != NULL; seat = next) {
        next = seat->earlier; /* the seat may be gone once it is finished */
        if (seat->call != NULL) {
            seat->call(&driver->engine, seat->argument);
            rc_loop_finish(seat);
        } else {
            rc_engine_submit(&driver->engine, &seat->op);
        }
    }
}

static bool finish_ops(struct rc_driver *driver)
{
    struct rc_op *op;
    bool any = false;
    while ((op = rc_engine_take_finished(&driver->engine)) != NULL) {
        rc_loop_finish(RC_CONTAINER(op, struct rc_seat, op));
        any = true;
    }
    return any;
}

bool rc_driver_can_turn(const struct rc_driver *driver)
{
    if (driver->wire->tend != NULL)
        return true;
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        const struct rc_link *link = &driver->engine.topology.links[i];
        if (link->state == RC_LINK_OPENING || link->wants_close)
            return false;
    }
    return true;
}

/* The links to read from, though no answer is due on them. */
static unsigned listen(struct rc_driver *driver)
{
    int64_t now_us = driver->engine.context.now_us;
    /* Relaxed: what comes a moment later is found by the next pass. */
    if (atomic_load_explicit(&driver->told, memory_order_relaxed) &&
        atomic_exchange(&driver->told, false))
        return ~0u;
    /* A stream of requests on one link must not make us deaf for the pushes on the other. */
    return !driver->wire->is_instant && now_us - driver->listened_us >= LISTEN_EVERY_US ? ~0u : 0;
}

static void send_all(struct rc_driver *driver)
{
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        if (driver->wire->tend != NULL)
            driver->wire->tend(driver, i);
        driver->wire->send(driver, i);
    }
}

bool rc_driver_turn(struct rc_driver *driver, unsigned readable)
{
    struct rc_engine *engine = &driver->engine;
    rc_engine_set_time(engine, rc_driver_now_us(driver));
    rc_engine_run(engine); /* a lock whose time is over is lost for the release that comes now */
    /* That something was submitted is no reason for another pass: the answer takes a while. */
    start_submitted(driver);
    bool any = false;
    rc_engine_run(engine);
    send_all(driver);
    readable |= listen(driver);
    if (readable == ~0u)
        driver->listened_us = engine->context.now_us;
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        if ((readable & 1u << i) != 0 || expects_input(&engine->topology.links[i]))
            any |= driver->wire->receive(driver, i);
    }
    if (any) {
        rc_engine_run(engine); /* what the input has started or failed */
        send_all(driver);
    }
    return finish_ops(driver) || any;
}

bool rc_driver_needs_reactor(const struct rc_driver *driver)
{
    if (driver->wire->tend != NULL)
        return false;
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        const struct rc_link *link = &driver->engine.topology.links[i];
        if (link->wants_open || link->wants_close)
            return true;
    }
    return false;
}

void rc_driver_call(struct rc_driver *driver, void (*call)(struct rc_engine *, void *),
                    void *argument)
{
    struct rc_seat seat;
    if (rc_seat_init(&seat, NULL) != 0)
        return;
    seat.call = call;
    seat.argument = argument;
    rc_driver_submit(driver, &seat);
    rc_driver_wait(driver, &seat);
    rc_seat_deinit(&seat);
}

/* ---- life ------------------------------------------------------------------------------------ */

int rc_driver_start(struct rc_driver **result, const rc_options *options,
                    const struct rc_address *address, const struct rc_driver_means *means)
{
    struct rc_seed seed;
    struct rc_driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        return RC_ERR_NOMEM;
    int error = rc_random_bytes(&seed, sizeof seed);
    driver->clock = options->clock;
    driver->kind = options->driver;
    if (error == 0)
        error = rc_engine_init(&driver->engine, options, address, means->near, &seed,
                               rc_driver_now_us(driver));
    if (error != 0)
        goto fail;
    driver->wire = means->memory != NULL               ? &rc_wire_memory
                   : options->driver == RC_DRIVER_HOST ? &rc_wire_host
                                                       : &rc_wire_socket;
    driver->memory = means->memory;
    driver->tls_context = means->tls_context;
    driver->fds[0] = driver->fds[1] = -1;
    driver->fork_generation = rc_fork_generation();
    driver->cpu_count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    driver->may_spin = options->spin > 0 && driver->cpu_count > 1;
    atomic_store(&driver->reactor_alarm_us, INT64_MAX);
    atomic_store(&driver->spin_credits, 16);
    rc_list_init(&driver->waiters);
    pthread_mutex_init(&driver->waiters_mutex, NULL);
    driver->wake_fd[0] = driver->wake_fd[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (driver->wake_fd[0] < 0) {
        error = errno == EMFILE || errno == ENFILE ? RC_ERR_DESCRIPTORS : RC_ERR_NOMEM;
        goto fail_engine;
    }
    if (driver->clock != NULL)
        rc_clock_add(driver->clock, driver);
    else if (driver->kind != RC_DRIVER_HOST)
        error = rc_reactor_start(driver);
    if (error != 0)
        goto fail_fd;
    *result = driver;
    return 0;

fail_fd:
    close(driver->wake_fd[0]);
fail_engine:
    pthread_mutex_destroy(&driver->waiters_mutex);
    rc_engine_deinit(&driver->engine);
fail:
    free(driver);
    return error;
}

static void close_engine(struct rc_engine *engine, void *argument)
{
    (void)argument;
    rc_engine_close(engine);
}

static void ask_drained(struct rc_engine *engine, void *drained)
{
    *(bool *)drained = rc_engine_is_drained(engine);
}

static void end_engine(struct rc_engine *engine, void *argument)
{
    (void)argument;
    rc_engine_end(engine);
}

static void pause_1_ms(struct rc_driver *driver)
{
    if (driver->clock != NULL)
        rc_clock_advance(driver->clock, 1000);
    else
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void rc_driver_close(struct rc_driver *driver, int32_t timeout_ms)
{
    int64_t until_us = rc_driver_now_us(driver) + (int64_t)timeout_ms * 1000;
    bool drained = false;
    rc_driver_call(driver, close_engine, NULL);
    while (!drained && rc_driver_now_us(driver) < until_us) {
        rc_driver_call(driver, ask_drained, &drained);
        if (!drained)
            pause_1_ms(driver);
    }
    rc_driver_call(driver, end_engine, NULL);
    if (driver->reactor != NULL)
        rc_reactor_stop(driver->reactor);
    /* Whoever was about to submit or free something finishes it alone from now on. */
    atomic_store(&driver->ended, true);
}

void rc_driver_orphan(struct rc_driver *driver)
{
    if (driver->reactor != NULL)
        rc_reactor_orphan(driver->reactor);
    if (driver->wake_fd[0] >= 0)
        close(driver->wake_fd[0]);
    driver->wake_fd[0] = driver->wake_fd[1] = -1;
}

void rc_driver_free(struct rc_driver *driver)
{
    if (driver->reactor != NULL)
        rc_reactor_free(driver->reactor);
    if (driver->clock != NULL)
        rc_clock_remove(driver);
    close(driver->wake_fd[0]);
    pthread_mutex_destroy(&driver->waiters_mutex);
    rc_engine_deinit(&driver->engine);
    free(driver);
}
