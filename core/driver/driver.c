#include "driver/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "driver/fork.h"
#include "driver/random.h"
#include "driver/reactor.h"
#include "driver/socket.h"

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

void rc_driver_leave(struct rc_driver *driver, bool is_reactor)
{
    bool earlier = rc_engine_deadline(&driver->engine) < atomic_load(&driver->reactor_alarm_us);
    bool can_turn = rc_driver_can_turn(driver);
    atomic_store(&driver->owner, RC_OWNER_NONE);
    bool inline_next = can_turn && !atomic_load(&driver->crowded) &&
                       atomic_load(&driver->waiting) > 0 && !atomic_load(&driver->reactor_wants) &&
                       wake_next_waiter(driver);
    /* Somebody may have submitted, and seen that the engine has an owner, just before. */
    bool left_over = !inline_next && atomic_load(&driver->submitted) != NULL;
    bool for_reactor = earlier || atomic_load(&driver->reactor_wants) ||
                       atomic_load(&driver->reactor_dormant) || atomic_load(&driver->crowded);
    if (left_over || (for_reactor && !is_reactor))
        rc_reactor_wake(driver->reactor);
}

void rc_driver_kick(struct rc_driver *driver)
{
    int owner = atomic_load(&driver->owner);
    if (owner == RC_OWNER_SLEEPING) {
        rc_driver_wake_sleeper(driver);
    } else if (owner == RC_OWNER_NONE && !atomic_load(&driver->ended)) {
        rc_reactor_wake(driver->reactor);
    } else if (owner == RC_OWNER_NONE && rc_driver_try_own(driver)) { /* there is nobody else */
        rc_driver_turn(driver, 0);
        rc_driver_leave(driver, false);
    }
    /* Else it is turning, and looks at the queue before it leaves. */
}

/* ---- one pass -------------------------------------------------------------------------------- */

void rc_driver_submit(struct rc_driver *driver, struct rc_seat *seat)
{
    seat->driver = driver;
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
            rc_seat_finish(seat);
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
        rc_seat_finish(RC_CONTAINER(op, struct rc_seat, op));
        any = true;
    }
    return any;
}

static void lose(struct rc_driver *driver, int which, const char *cause)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    rc_link_lost(link, cause);
    link->wants_close = true; /* only the reactor closes: it may be polling the descriptor */
}

static void lose_errno(struct rc_driver *driver, int which, long error)
{
    char text[128];
    lose(driver, which, rc_socket_error(error, text, sizeof text));
}

static bool is_open(const struct rc_driver *driver, int which)
{
    return driver->fds[which] >= 0 && !driver->engine.topology.links[which].wants_close;
}

/* Encrypts what the link has to say, as far as there is room. */
static void encrypt_output(struct rc_driver *driver, int which)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    long n = 1;
    while (n > 0 && rc_buf_len(&link->output) > 0) {
        n = rc_tls_write(driver->tls[which], rc_buf_head(&link->output), rc_buf_len(&link->output));
        if (n > 0)
            rc_link_sent(link, (size_t)n);
    }
    if (n < 0)
        lose(driver, which, rc_tls_error(driver->tls[which]));
}

static void send_output(struct rc_driver *driver, int which)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    struct rc_tls *tls = driver->tls[which];
    struct rc_buf *output = tls != NULL ? rc_tls_output(tls) : &link->output;
    driver->unwritten[which] = false;
    while (is_open(driver, which)) {
        if (tls != NULL)
            encrypt_output(driver, which);
        if (!is_open(driver, which) || rc_buf_len(output) == 0)
            return;
        long n = rc_socket_send(driver->fds[which], rc_buf_head(output), rc_buf_len(output));
        if (n < 0)
            lose_errno(driver, which, n);
        else if (n == 0)
            driver->unwritten[which] = true;
        else if (tls != NULL)
            rc_buf_consume(output, (size_t)n);
        else
            rc_link_sent(link, (size_t)n);
        if (n <= 0)
            return;
    }
}

static void decrypt_input(struct rc_driver *driver, int which, size_t len)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    struct rc_tls *tls = driver->tls[which];
    long n = rc_tls_feed(tls, driver->receive_buffer, len);
    while (n == 0 || is_open(driver, which)) {
        n = rc_tls_read(tls, driver->receive_buffer, sizeof driver->receive_buffer);
        if (n <= 0)
            break;
        rc_link_feed(link, driver->receive_buffer, (size_t)n);
    }
    if (n < 0)
        lose(driver, which, rc_tls_error(tls));
}

static bool receive_input(struct rc_driver *driver, int which)
{
    bool any = false;
    /* Bounded: a flood on one link must not starve the other and the timers. */
    for (int i = 0; i < 16 && is_open(driver, which); i++) {
        long n = rc_socket_receive(driver->fds[which], driver->receive_buffer,
                                   sizeof driver->receive_buffer);
        if (n == 0)
            break;
        any = true;
        if (n < 0)
            lose_errno(driver, which, n);
        else if (driver->tls[which] != NULL)
            decrypt_input(driver, which, (size_t)n);
        else
            rc_link_feed(&driver->engine.topology.links[which], driver->receive_buffer, (size_t)n);
        if (n < (long)sizeof driver->receive_buffer)
            break;
    }
    return any;
}

bool rc_driver_can_turn(const struct rc_driver *driver)
{
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        const struct rc_link *link = &driver->engine.topology.links[i];
        if (link->state == RC_LINK_OPENING || link->wants_close)
            return false;
    }
    return true;
}

static bool expects_input(const struct rc_link *link)
{
    return !rc_list_is_empty(&link->in_flight) || link->state == RC_LINK_HANDSHAKE;
}

bool rc_driver_turn(struct rc_driver *driver, unsigned readable)
{
    struct rc_engine *engine = &driver->engine;
    rc_engine_set_time(engine, rc_clock_us());
    rc_engine_run(engine); /* a lock whose time is over is lost for the release that comes now */
    /* That something was submitted is no reason for another pass: the answer takes a while. */
    start_submitted(driver);
    bool any = false;
    /* A stream of requests on one link must not make us deaf for the pushes on the other. */
    if (engine->context.now_us - driver->listened_us >= LISTEN_EVERY_US)
        readable = ~0u;
    if (readable == ~0u)
        driver->listened_us = engine->context.now_us;
    rc_engine_run(engine);
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++)
        send_output(driver, i);
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        if ((readable & 1u << i) != 0 || expects_input(&engine->topology.links[i]))
            any |= receive_input(driver, i);
    }
    if (any) {
        rc_engine_run(engine); /* what the input has started or failed */
        for (int i = 0; i < RC_TOPOLOGY_LINKS; i++)
            send_output(driver, i);
    }
    return finish_ops(driver) || any;
}

bool rc_driver_needs_reactor(const struct rc_driver *driver)
{
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
                    const struct rc_address *address, struct rc_tls_context *tls_context,
                    struct rc_near *near)
{
    struct rc_seed seed;
    struct rc_driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        return RC_ERR_NOMEM;
    int error = rc_random_bytes(&seed, sizeof seed);
    if (error == 0)
        error = rc_engine_init(&driver->engine, options, address, near, &seed, rc_clock_us());
    if (error != 0)
        goto fail;
    driver->tls_context = tls_context;
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
        error = RC_ERR_NOMEM;
        goto fail_engine;
    }
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

void rc_driver_close(struct rc_driver *driver, int32_t timeout_ms)
{
    int64_t until_us = rc_clock_us() + (int64_t)timeout_ms * 1000;
    bool drained = false;
    rc_driver_call(driver, close_engine, NULL);
    while (!drained && rc_clock_us() < until_us) {
        rc_driver_call(driver, ask_drained, &drained);
        if (!drained)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    rc_driver_call(driver, end_engine, NULL);
    rc_reactor_stop(driver->reactor);
    /* Whoever was about to submit or free something finishes it alone from now on. */
    atomic_store(&driver->ended, true);
}

void rc_driver_free(struct rc_driver *driver)
{
    rc_reactor_free(driver->reactor);
    close(driver->wake_fd[0]);
    pthread_mutex_destroy(&driver->waiters_mutex);
    rc_engine_deinit(&driver->engine);
    free(driver);
}
