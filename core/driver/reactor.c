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
#include "driver/lookup.h"
#include "driver/socket.h"

enum {
    TICK_US = 3000,       /* how soon after the last inline turn the reactor takes over */
    TICK_NEAR_US = 400,   /* the same with a near cache: news must not wait for a millisecond */
    TICKS_TO_ARM = 8,     /* without an inline turn: poll the sockets again */
    TICKS_TO_DORMANT = 4, /* the engine was never free: its owner sleeps and sees everything */
    PASSES_MAX = 16,      /* per wake-up, before libuv gets its turn again */
    UPKEEP_MS = 100
};

enum mode { MODE_ARMED, MODE_TICKING, MODE_DORMANT };

/* A connection on its way: address after address. */
struct door {
    struct rc_reactor *reactor;
    int which;
    uv_poll_t poll;
    struct rc_lookup *lookup;   /* under way, NULL: none */
    struct addrinfo *addresses; /* of the lookup, NULL for unix sockets */
    struct addrinfo *next;
    int fd;        /* connecting or connected, -1 */
    bool has_poll; /* the poll handle is open */
    bool connecting;
    bool answered;   /* the connect has ended, well or badly */
    int poll_events; /* what it polls for now */
};

struct rc_reactor {
    struct rc_driver *driver;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t async;
    uv_timer_t timer; /* whole milliseconds */
    uv_timer_t upkeep;
    int tick_fd; /* ticks are finer than that */
    uv_poll_t tick;
    struct door doors[RC_TOPOLOGY_LINKS];
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

static void pass(struct rc_reactor *reactor, unsigned readable);

static struct rc_link *link_of(struct door *door)
{
    return &door->reactor->driver->engine.topology.links[door->which];
}

/* ---- polling --------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *handle, int status, int events);

static void set_poll(struct door *door, int events)
{
    if (!door->has_poll || door->poll_events == events ||
        uv_is_closing((const uv_handle_t *)&door->poll))
        return;
    door->poll_events = events;
    door->reactor->unwatched = true;
    if (events == 0)
        uv_poll_stop(&door->poll);
    else
        uv_poll_start(&door->poll, events, on_poll);
}

static void update_polls(struct rc_reactor *reactor)
{
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        struct door *door = &reactor->doors[i];
        int events = 0;
        if (door->connecting)
            events = door->answered ? 0 : UV_WRITABLE;
        else if (reactor->mode == MODE_ARMED)
            events = UV_READABLE | (reactor->driver->unwritten[i] ? UV_WRITABLE : 0);
        set_poll(door, events);
    }
}

static void on_timer(uv_timer_t *timer);

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

/* ---- connecting ------------------------------------------------------------------------------ */

static void on_poll_closed(uv_handle_t *handle)
{
    struct door *door = handle->data;
    int fd = door->fd;
    door->has_poll = false;
    door->fd = -1; /* first: a child of fork() closes what stands here */
    close(fd);
    pass(door->reactor, 0); /* the link may want to be opened again */
}

static void free_addresses(struct door *door)
{
    if (door->addresses != NULL)
        uv_freeaddrinfo(door->addresses);
    door->addresses = door->next = NULL;
}

/* The descriptor is closed once libuv has let go of it. */
static void shut(struct door *door)
{
    door->reactor->driver->fds[door->which] = -1;
    rc_tls_free(door->reactor->driver->tls[door->which]);
    door->reactor->driver->tls[door->which] = NULL;
    door->connecting = door->answered = false;
    if (door->lookup != NULL)
        rc_lookup_abandon(door->lookup);
    door->lookup = NULL;
    free_addresses(door);
    if (door->has_poll && !uv_is_closing((uv_handle_t *)&door->poll))
        uv_close((uv_handle_t *)&door->poll, on_poll_closed);
}

static void give_up(struct door *door, const char *cause)
{
    shut(door);
    rc_link_lost(link_of(door), cause);
}

static void give_up_errno(struct door *door, long error)
{
    char text[128];
    give_up(door, rc_socket_error(error, text, sizeof text));
}

static bool poll_new_fd(struct door *door, int fd)
{
    door->fd = fd;
    if (uv_poll_init(&door->reactor->loop, &door->poll, fd) != 0) {
        close(fd);
        door->fd = -1;
        return false;
    }
    door->poll.data = door;
    door->has_poll = true;
    door->connecting = true;
    door->answered = false;
    door->poll_events = 0;
    return true;
}

/* Goes through the addresses until one connect is under way. */
static void connect_next(struct door *door)
{
    int error = -ENOENT;
    while (door->next != NULL) {
        struct addrinfo *address = door->next;
        door->next = address->ai_next;
        int fd = rc_socket_connect(address->ai_addr, (socklen_t)address->ai_addrlen);
        if (fd >= 0 && poll_new_fd(door, fd))
            return;
        error = fd < 0 ? fd : -ENOMEM;
    }
    give_up_errno(door, error);
}

static void on_lookup(void *driver)
{
    rc_reactor_wake(driver);
}

static void open_door(struct door *door)
{
    const struct rc_address *address = link_of(door)->address;
    if (address->is_unix) {
        int fd = rc_socket_connect_unix(address->host);
        if (fd < 0 || !poll_new_fd(door, fd))
            give_up_errno(door, fd < 0 ? fd : -ENOMEM);
        return;
    }
    door->addresses = door->next = rc_lookup_digits(address->host, address->port);
    if (door->next != NULL)
        connect_next(door);
    else if (rc_lookup_start(&door->lookup, address->host, address->port, on_lookup,
                             door->reactor->driver) != 0)
        give_up_errno(door, -ENOMEM);
}

static bool start_tls(struct door *door)
{
    struct rc_driver *driver = door->reactor->driver;
    if (driver->tls_context == NULL)
        return true;
    driver->tls[door->which] = rc_tls_new(driver->tls_context, link_of(door)->address->host);
    return driver->tls[door->which] != NULL;
}

static void on_connected(struct door *door)
{
    int error = rc_socket_result(door->fd);
    door->connecting = door->answered = false;
    if (error == 0 && !start_tls(door)) {
        give_up_errno(door, -ENOMEM);
    } else if (error == 0) {
        free_addresses(door);
        door->reactor->driver->fds[door->which] = door->fd;
        rc_link_opened(link_of(door));
    } else if (door->next == NULL) {
        give_up_errno(door, error);
    } else { /* another address, once libuv has let go of this descriptor */
        uv_close((uv_handle_t *)&door->poll, on_poll_closed);
    }
}

static void take_addresses(struct door *door)
{
    const char *why;
    door->addresses = door->next = rc_lookup_take(door->lookup, &why);
    door->lookup = NULL;
    if (door->next != NULL)
        connect_next(door);
    else
        give_up(door, why);
}

/* The engine is ours: does for a link what it wants, and goes on with a connection under way. */
static void tend(struct door *door)
{
    struct rc_link *link = link_of(door);
    if (door->reactor->driver->wire->tend != NULL)
        return; /* it does so itself */
    if (link->wants_close) {
        link->wants_close = false;
        shut(door);
    }
    if (door->lookup != NULL && !rc_lookup_is_done(door->lookup))
        return;
    if (door->answered) {
        on_connected(door);
    } else if (door->lookup != NULL) {
        take_addresses(door);
    } else if (door->next != NULL && !door->has_poll) {
        connect_next(door);
    } else if (link->wants_open && !door->has_poll) {
        link->wants_open = false;
        open_door(door);
    }
}

/* There is something that only we can do, and only as the engine's owner. */
static bool has_work(const struct rc_reactor *reactor)
{
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        const struct door *door = &reactor->doors[i];
        bool found = door->lookup != NULL && rc_lookup_is_done(door->lookup);
        if (door->answered || found || (door->next != NULL && !door->has_poll))
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
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        if (!reactor->doors[i].connecting || reactor->doors[i].answered)
            set_poll(&reactor->doors[i], 0); /* level triggered: it would wake us again and again */
    }
    set_alarm(reactor);
}

static void pass(struct rc_reactor *reactor, unsigned readable)
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
    for (int i = 0; i < PASSES_MAX; i++) {
        for (int link = 0; link < RC_TOPOLOGY_LINKS; link++)
            tend(&reactor->doors[link]);
        bool any = rc_driver_turn(driver, readable);
        readable = 0;
        if (!any && !rc_driver_needs_reactor(driver))
            break;
    }
    update_polls(reactor);
    set_alarm(reactor);
    rc_driver_leave(driver, true);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct door *door = handle->data;
    struct rc_reactor *reactor = door->reactor;
    (void)status; /* reading tells */
    (void)events;
    door->answered = door->connecting;
    pass(reactor, 1u << door->which);
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
    pass(reactor, reactor->mode == MODE_ARMED ? 0 : ~0u);
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
            pass(reactor, ~0u); /* news does not wait until they pause */
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
    pass(reactor, ~0u);
}

static void on_timer(uv_timer_t *timer)
{
    pass(timer->data, 0);
}

static void on_upkeep(uv_timer_t *upkeep)
{
    struct rc_driver *driver = ((struct rc_reactor *)upkeep->data)->driver;
    driver->wire->upkeep(driver, rc_clock_us());
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
        pass(reactor, 0);
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
    uv_timer_init(&reactor->loop, &reactor->upkeep);
    reactor->async.data = reactor->timer.data = reactor->upkeep.data = reactor->tick.data = reactor;
    uv_poll_start(&reactor->tick, UV_READABLE, on_tick_fd);
    if (reactor->driver->wire->upkeep != NULL)
        uv_timer_start(&reactor->upkeep, on_upkeep, UPKEEP_MS, UPKEEP_MS);
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
    uv_close((uv_handle_t *)&reactor->upkeep, NULL);
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
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++) {
        reactor->doors[i].reactor = reactor;
        reactor->doors[i].which = i;
        reactor->doors[i].fd = -1;
    }
    int error = init_loop(reactor);
    if (error != 0) {
        free(reactor);
        return error;
    }
    driver->reactor = reactor;
    return 0;
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
        pass(reactor, 0);
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
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++)
        shut(&reactor->doors[i]);
    end_loop(reactor);
    atomic_store(&driver->owner, RC_OWNER_NONE);
}

void rc_reactor_free(struct rc_driver *driver)
{
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
    for (int i = 0; i < RC_TOPOLOGY_LINKS; i++)
        close_inherited(&reactor->doors[i].fd);
    orphan_loop(reactor);
    atomic_store(&reactor->stop, true); /* waking it is harmless */
}
