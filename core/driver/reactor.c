#include "driver/reactor.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "driver/dial.h"

enum {
    TICK_US = 3000,       /* how soon after the last inline turn the reactor takes over */
    TICK_NEAR_US = 400,   /* the same with a near cache: news must not wait for a millisecond */
    TICKS_TO_ARM = 8,     /* without an inline turn: poll the sockets again */
    TICKS_TO_DORMANT = 4, /* the engine was never free: its owner sleeps and sees everything */
    PASSES_MAX = 16,      /* per wake-up, before libuv gets its turn again */
    SWEEP_MS = 100
};

enum mode { MODE_ARMED, MODE_TICKING, MODE_DORMANT };

struct rc_reactor {
    struct rc_driver *driver;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t async;
    uv_timer_t timer; /* whole milliseconds */
    uv_timer_t sweep;
    int tick_fd; /* ticks are finer than that */
    uv_poll_t tick;
    /* One per line that was ever to be opened at the same time. The reactor adds to them, at their
       front; none goes before the reactor: a child of fork() may walk them at any moment. */
    _Atomic(struct rc_dial *) dials;
    enum mode mode;
    bool is_hosted; /* no thread: fixed after start */
    bool has_tick;  /* the tick is set */
    bool unwatched; /* libuv has not told the kernel yet what to watch: it does when it waits */
    uint64_t seen_inline_turns;
    int quiet_ticks;
    int busy_ticks;
    bool ending;
    _Atomic bool loop_ends; /* the loop's descriptors are on their way out */
    _Atomic bool stop;
    _Atomic int wakers; /* threads inside rc_reactor_wake */
};

/* What a pass reads from, though no answer is due. */
struct reading {
    bool all;
    struct rc_socket_line *line; /* NULL: none alone */
};

static const struct reading READ_DUE = {0}, READ_ALL = {.all = true};

static void pass(struct rc_reactor *reactor, struct reading reading);

static struct rc_dial *first_dial(const struct rc_reactor *reactor)
{
    /* Acquire pairs with make_dial. */
    return atomic_load_explicit(&reactor->dials, memory_order_acquire);
}

#define EACH_DIAL(dial, reactor)                                                                   \
    for (struct rc_dial *dial = first_dial(reactor); dial != NULL; dial = dial->other)

/* ---- polling --------------------------------------------------------------------------------- */

static void update_polls(struct rc_reactor *reactor)
{
    EACH_DIAL(dial, reactor)
    {
        int events = 0;
        if (dial->connecting)
            events = dial->answered ? 0 : UV_WRITABLE;
        else if (reactor->mode == MODE_ARMED && dial->line != NULL)
            events = UV_READABLE | (dial->line->line.has_unsent ? UV_WRITABLE : 0);
        reactor->unwatched |= rc_dial_watch(dial, events);
    }
}

static void on_timer(uv_timer_t *timer);
static void on_dial_ready(struct rc_dial *dial);
static void on_dial_closed(struct rc_dial *dial);

static void set_tick(struct rc_reactor *reactor, int64_t after_us) /* 0: none */
{
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(after_us / 1000000),
                                           .tv_nsec = (long)(after_us % 1000000) * 1000}};
    if (after_us == 0 && !reactor->has_tick)
        return;
    reactor->has_tick = after_us != 0;
    timerfd_settime(reactor->tick_fd, 0, &spec, NULL);
}

static void set_alarm(struct rc_reactor *reactor)
{
    struct rc_driver *driver = reactor->driver;
    int64_t now_us = rc_clock_us();
    int64_t at_us = INT64_MAX;
    bool is_watched = driver->engine.near != NULL && !driver->wire->is_instant;
    int64_t tick_us = is_watched ? TICK_NEAR_US : TICK_US;
    if (reactor->mode == MODE_TICKING)
        at_us = now_us + tick_us;
    else if (reactor->mode == MODE_ARMED)
        at_us = rc_engine_deadline(&driver->engine);
    atomic_store(&driver->reactor_alarm_us, at_us);
    if (reactor->is_hosted) { /* the host sees descriptors, not libuv's timers */
        set_tick(reactor, at_us == INT64_MAX ? 0 : at_us > now_us ? at_us - now_us : 1);
        return;
    }
    set_tick(reactor, reactor->mode == MODE_TICKING ? tick_us : 0);
    if (at_us == INT64_MAX || reactor->mode == MODE_TICKING) {
        uv_timer_stop(&reactor->timer);
        return;
    }
    int64_t wait_us = at_us > now_us ? at_us - now_us : 0;
    uv_update_time(&reactor->loop);
    uv_timer_start(&reactor->timer, on_timer, (uint64_t)((wait_us + 999) / 1000), 0);
}

static void set_mode(struct rc_reactor *reactor, enum mode mode)
{
    if (reactor->mode != mode)
        reactor->quiet_ticks = reactor->busy_ticks = 0;
    reactor->mode = mode;
    atomic_store(&reactor->driver->reactor_dormant, mode == MODE_DORMANT);
}

/* There is something that only we can do, and only as the engine's owner. */
static bool has_work(const struct rc_reactor *reactor)
{
    EACH_DIAL(dial, reactor)
    {
        if (rc_dial_has_work(dial))
            return true;
    }
    return atomic_load(&reactor->driver->reactor_wants);
}

/* ---- turning --------------------------------------------------------------------------------- */

/* The engine has another owner. If there is something only we can do, ask for it. */
static void stand_back(struct rc_reactor *reactor)
{
    struct rc_driver *driver = reactor->driver;
    if (has_work(reactor)) {
        atomic_store(&driver->reactor_wants, true);
        rc_driver_kick(driver);
    }
    if (reactor->mode == MODE_ARMED)
        set_mode(reactor, MODE_TICKING);
    EACH_DIAL(dial, reactor)
    {
        if (!dial->connecting || dial->answered)
            reactor->unwatched |= rc_dial_watch(dial, 0); /* level triggered: it would wake us */
    }
    set_alarm(reactor);
}

/* A line's first dial. False: no memory. */
static bool make_dial(struct rc_reactor *reactor, struct rc_socket_line *line)
{
    EACH_DIAL(used, reactor)
    {
        if (rc_dial_take_line(used, line))
            return true;
    }
    struct rc_dial *dial = calloc(1, sizeof *dial);
    if (dial == NULL)
        return false;
    rc_dial_init(dial, &reactor->loop);
    dial->owner = reactor;
    dial->on_ready = on_dial_ready;
    dial->on_closed = on_dial_closed;
    (void)rc_dial_take_line(dial, line);
    dial->other = first_dial(reactor);
    atomic_store_explicit(&reactor->dials, dial, memory_order_release); /* pairs with first_dial */
    return true;
}

static void open_or_close_link(struct rc_reactor *reactor, struct rc_link *link)
{
    struct rc_socket_line *line = rc_socket_line_of(link->line);
    bool is_first = link->wants_open && line->dial == NULL;
    if (is_first && !make_dial(reactor, line)) {
        link->wants_open = false;
        rc_link_lost(link, "no memory");
    }
    if (line->dial != NULL)
        rc_dial_open_or_close(line->dial);
    else
        link->wants_close = false;
    if (link->is_leaving && line->dial != NULL)
        rc_dial_leave_line(line->dial);
}

/* What the links want. */
static void open_or_close(struct rc_reactor *reactor)
{
    struct rc_driver *driver = reactor->driver;
    struct rc_topology *topology = &driver->engine.topology;
    if (driver->wire->open_or_close != NULL) /* it opens and closes by itself */
        return;
    RC_TOPOLOGY_EACH(link, topology) {
        open_or_close_link(reactor, link);
    }
    if (topology->leaving > 0)
        rc_driver_release_links(driver);
}

static void pass(struct rc_reactor *reactor, struct reading reading)
{
    struct rc_driver *driver = reactor->driver;
    if (reactor->ending)
        return;
    if (!rc_driver_try_own(driver)) {
        stand_back(reactor);
        return;
    }
    atomic_fetch_add_explicit(&driver->reactor_turns, 1, memory_order_relaxed);
    atomic_store(&driver->reactor_wants, false);
    rc_engine_set_time(&driver->engine, rc_clock_us());
    if (reading.line != NULL)
        reading.line->line.is_readable = true;
    for (int i = 0; i < PASSES_MAX; i++) {
        open_or_close(reactor);
        bool any = rc_driver_turn(driver, reading.all);
        reading.all = false;
        if (!any && !rc_driver_needs_reactor(driver))
            break;
    }
    update_polls(reactor);
    set_alarm(reactor);
    rc_driver_leave(driver, true);
}

static void on_dial_ready(struct rc_dial *dial)
{
    pass(dial->owner, (struct reading){.line = dial->line});
}

static void on_dial_closed(struct rc_dial *dial)
{
    pass(dial->owner, READ_DUE);
}

static void on_async(uv_async_t *async)
{
    struct rc_reactor *reactor = async->data;
    struct rc_driver *driver = reactor->driver;
    if (atomic_load(&reactor->stop)) {
        uv_stop(&reactor->loop);
        return;
    }
    if (atomic_load(&driver->crowded))
        set_mode(reactor, MODE_ARMED);
    else if (reactor->mode == MODE_DORMANT)
        set_mode(reactor, MODE_TICKING);
    pass(reactor, reactor->mode == MODE_ARMED ? READ_DUE : READ_ALL);
}

static void on_tick(struct rc_reactor *reactor)
{
    struct rc_driver *driver = reactor->driver;
    uint64_t turns = atomic_load_explicit(&driver->inline_turns, memory_order_relaxed);
    if (turns != reactor->seen_inline_turns) { /* blocking callers keep it going */
        reactor->seen_inline_turns = turns;
        reactor->quiet_ticks = 0;
        reactor->busy_ticks = 0;
        if (driver->engine.near != NULL)
            pass(reactor, READ_ALL); /* news does not wait until they pause */
        else
            set_alarm(reactor);
        return;
    }
    if (atomic_load(&driver->owner) == RC_OWNER_SLEEPING) {
        if (++reactor->busy_ticks >= TICKS_TO_DORMANT)
            set_mode(reactor, MODE_DORMANT);
        /* It may have left in this very moment and not have seen that it has to tell us. */
        if (reactor->mode == MODE_DORMANT && atomic_load(&driver->owner) == RC_OWNER_NONE)
            set_mode(reactor, MODE_TICKING);
        set_alarm(reactor);
        return;
    }
    if (++reactor->quiet_ticks >= TICKS_TO_ARM)
        set_mode(reactor, MODE_ARMED);
    pass(reactor, READ_ALL);
}

static void on_timer(uv_timer_t *timer)
{
    pass(timer->data, READ_DUE);
}

static void on_sweep(uv_timer_t *sweep)
{
    struct rc_driver *driver = ((struct rc_reactor *)sweep->data)->driver;
    driver->wire->sweep(driver, rc_clock_us());
}

static void on_tick_fd(uv_poll_t *tick, int status, int events)
{
    struct rc_reactor *reactor = tick->data;
    uint64_t expirations;
    (void)status;
    (void)events;
    ssize_t n = read(reactor->tick_fd, &expirations, sizeof expirations);
    (void)n;
    reactor->has_tick = false;
    if (reactor->is_hosted)
        pass(reactor, READ_DUE);
    else if (reactor->mode == MODE_TICKING)
        on_tick(reactor);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void run(void *argument)
{
    struct rc_reactor *reactor = argument;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* signals are the host's */
    uv_run(&reactor->loop, UV_RUN_DEFAULT);
}

/* An error of libuv, which is an errno below zero. */
static int read_error(int error)
{
    return error == UV_EMFILE || error == UV_ENFILE ? RC_ERR_DESCRIPTORS : RC_ERR_NOMEM;
}

static int init_loop(struct rc_reactor *reactor)
{
    int error = uv_loop_init(&reactor->loop);
    if (error != 0)
        return read_error(error);
    reactor->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    error = reactor->tick_fd < 0 ? -errno : 0;
    if (error != 0)
        goto fail_loop;
    error = uv_poll_init(&reactor->loop, &reactor->tick, reactor->tick_fd);
    if (error != 0)
        goto fail_fd;
    error = uv_async_init(&reactor->loop, &reactor->async, on_async);
    if (error != 0)
        goto fail_poll;
    uv_timer_init(&reactor->loop, &reactor->timer);
    uv_timer_init(&reactor->loop, &reactor->sweep);
    reactor->async.data = reactor->timer.data = reactor->sweep.data = reactor->tick.data = reactor;
    uv_poll_start(&reactor->tick, UV_READABLE, on_tick_fd);
    if (reactor->driver->wire->sweep != NULL)
        uv_timer_start(&reactor->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    return 0;

fail_poll:
    uv_close((uv_handle_t *)&reactor->tick, NULL);
    uv_run(&reactor->loop, UV_RUN_DEFAULT);
fail_fd:
    close(reactor->tick_fd);
fail_loop:
    uv_loop_close(&reactor->loop);
    return read_error(error);
}

/* Nobody else uses the loop while this runs. */
static void end_loop(struct rc_reactor *reactor)
{
    atomic_store(&reactor->loop_ends, true); /* first: see rc_reactor_orphan */
    uv_close((uv_handle_t *)&reactor->async, NULL);
    uv_close((uv_handle_t *)&reactor->timer, NULL);
    uv_close((uv_handle_t *)&reactor->sweep, NULL);
    uv_close((uv_handle_t *)&reactor->tick, NULL);
    uv_run(&reactor->loop, UV_RUN_DEFAULT);
    uv_loop_close(&reactor->loop);
    close(reactor->tick_fd);
}

static int start(struct rc_driver *driver, bool is_hosted)
{
    struct rc_reactor *reactor = calloc(1, sizeof *reactor);
    if (reactor == NULL)
        return RC_ERR_NOMEM;
    reactor->driver = driver;
    reactor->is_hosted = is_hosted;
    driver->reactor = reactor;
    int error = init_loop(reactor);
    if (error != 0)
        rc_reactor_free(driver);
    return error;
}

int rc_reactor_start(struct rc_driver *driver)
{
    int error = start(driver, false);
    if (error != 0)
        return error;
    struct rc_reactor *reactor = driver->reactor;
    if (uv_thread_create(&reactor->thread, run, reactor) == 0)
        return 0;
    end_loop(reactor);
    rc_reactor_free(driver);
    return RC_ERR_NOMEM;
}

int rc_reactor_start_hosted(struct rc_driver *driver)
{
    int error = start(driver, true);
    if (error == 0) /* so that the kernel watches what wakes us, before the first turn */
        uv_run(&driver->reactor->loop, UV_RUN_NOWAIT);
    return error;
}

int rc_reactor_fd(struct rc_driver *driver)
{
    return uv_backend_fd(&driver->reactor->loop);
}

void rc_reactor_dispatch(struct rc_driver *driver)
{
    struct rc_reactor *reactor = driver->reactor;
    if (reactor->ending)
        return;
    uv_run(&reactor->loop, UV_RUN_NOWAIT);
    if (atomic_load(&driver->submitted) != NULL || rc_driver_needs_reactor(driver) ||
        driver->wire->is_instant)
        pass(reactor, READ_DUE);
    do { /* what is to be watched may change while libuv tells the kernel; the host waits for it */
        reactor->unwatched = false;
        uv_run(&reactor->loop, UV_RUN_NOWAIT);
    } while (reactor->unwatched);
}

void rc_reactor_wake(struct rc_driver *driver)
{
    struct rc_reactor *reactor = driver->reactor;
    /* Pairs with rc_reactor_stop: it waits for those who are in here, others see `stop`. */
    atomic_fetch_add(&reactor->wakers, 1);
    if (!atomic_load(&reactor->stop))
        uv_async_send(&reactor->async);
    atomic_fetch_sub(&reactor->wakers, 1);
}

void rc_reactor_stop(struct rc_driver *driver)
{
    struct rc_reactor *reactor = driver->reactor;
    atomic_store(&reactor->stop, true);
    uv_async_send(&reactor->async);
    if (!reactor->is_hosted)
        uv_thread_join(&reactor->thread);
    /* Late callers turn the loop a last time; all they can hear is that it is closed. */
    while (atomic_load(&reactor->wakers) > 0 || !rc_driver_try_own(driver))
        sched_yield();
    /* The thread is gone: what is left of its loop is ours. */
    reactor->ending = true;
    EACH_DIAL(dial, reactor)
    {
        rc_dial_shut(dial);
    }
    end_loop(reactor);
    atomic_store(&driver->owner, RC_OWNER_NONE);
}

void rc_reactor_free(struct rc_driver *driver)
{
    struct rc_dial *dial = first_dial(driver->reactor);
    while (dial != NULL) {
        struct rc_dial *other = dial->other;
        free(dial);
        dial = other;
    }
    free(driver->reactor);
    driver->reactor = NULL;
}

static void close_inherited(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* What libuv's loop and its ticks stand on. libuv itself cannot close them here: the loop may have
   been forked in the midst of a change. */
static void orphan_loop(struct rc_reactor *reactor)
{
    uv_loop_t *loop = &reactor->loop;
    if (atomic_load(&reactor->loop_ends)) /* which of them are closed already, nobody can tell */
        return;
    close_inherited(&reactor->tick_fd);
    close_inherited(&loop->async_io_watcher.fd);
    close_inherited(&loop->async_wfd); /* -1 where it is the same eventfd */
    close_inherited(&loop->signal_pipefd[0]);
    close_inherited(&loop->signal_pipefd[1]);
    if (!reactor->is_hosted) /* a host's own loop may still watch it */
        close_inherited(&loop->backend_fd);
}

void rc_reactor_orphan(struct rc_driver *driver)
{
    struct rc_reactor *reactor = driver->reactor;
    EACH_DIAL(dial, reactor)
    {
        close_inherited(&dial->fd);
    }
    orphan_loop(reactor);
    atomic_store(&reactor->stop, true); /* waking it is harmless */
}
