#include "driver/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "driver/fork.h"
#include "driver/manual_clock.h"
#include "driver/random.h"

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

/* ---- starting -------------------------------------------------------------------------------- */

static const struct rc_runner *runner_of(const rc_options *options, bool is_memory)
{
    if (options->clock != NULL)
        return &rc_runner_clock;
    if (options->driver == RC_DRIVER_HOST)
        return &rc_runner_host;
    if (options->driver == RC_DRIVER_POLL)
        return &rc_runner_poll;
    return is_memory ? &rc_runner_instant : &rc_runner_inline;
}

static const struct rc_wire *wire_of(const rc_options *options, bool is_memory)
{
    if (is_memory)
        return &rc_wire_memory;
    return options->driver == RC_DRIVER_HOST ? &rc_wire_host : &rc_wire_socket;
}

static void free_lines(struct rc_driver *driver)
{
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        rc_driver_free_line(link);
    }
    free(driver->polled);
}

static int make_lines(struct rc_driver *driver)
{
    const struct rc_carrier carrier = {driver, rc_driver_add_line};
    return rc_topology_set_carrier(&driver->engine.topology, &carrier);
}

static int open_wake_fd(struct rc_driver *driver)
{
    driver->wake_fd[0] = driver->wake_fd[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (driver->wake_fd[0] >= 0)
        return 0;
    return errno == EMFILE || errno == ENFILE ? RC_ERR_DESCRIPTORS : RC_ERR_NOMEM;
}

static void init(struct rc_driver *driver, const rc_options *options,
                 const struct rc_driver_means *means)
{
    driver->runner = runner_of(options, means->memory != NULL);
    driver->wire = wire_of(options, means->memory != NULL);
    driver->memory = means->memory;
    driver->tls_context = means->tls_context;
    driver->clock = options->clock;
    driver->time_us = options->clock != NULL ? &options->clock->now_us : NULL;
    driver->fork_generation = rc_fork_generation();
    driver->cpu_count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    driver->may_spin = options->spin > 0 && driver->cpu_count > 1;
    atomic_store(&driver->reactor_alarm_us, INT64_MAX);
    atomic_store(&driver->spin_credits, 16);
    driver->last_told = UINT32_MAX;
    rc_list_init(&driver->waiters);
}

int rc_driver_start(struct rc_driver **result, const rc_options *options,
                    const struct rc_address *address, const struct rc_driver_means *means)
{
    struct rc_seed seed;
    struct rc_driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        return RC_ERR_NOMEM;
    init(driver, options, means);
    int error = rc_random_bytes(&seed, sizeof seed);
    if (error == 0)
        error = rc_engine_init(&driver->engine, options, address, means->near, &seed,
                               rc_driver_now_us(driver));
    if (error != 0)
        goto fail;
    pthread_mutex_init(&driver->waiters_mutex, NULL);
    error = make_lines(driver);
    if (error == 0)
        error = open_wake_fd(driver);
    if (error != 0)
        goto fail_lines;
    if (driver->runner->start != NULL)
        error = driver->runner->start(driver);
    if (error != 0)
        goto fail_fd;
    *result = driver;
    return 0;

fail_fd:
    close(driver->wake_fd[0]);
fail_lines:
    free_lines(driver);
    pthread_mutex_destroy(&driver->waiters_mutex);
    rc_engine_deinit(&driver->engine);
fail:
    free(driver);
    return error;
}

/* ---- ending ---------------------------------------------------------------------------------- */

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
    if (driver->runner->pause != NULL)
        driver->runner->pause(driver);
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
    if (driver->runner->stop != NULL)
        driver->runner->stop(driver);
    /* A caller that was about to submit or free something finishes it alone from now on. */
    atomic_store(&driver->ended, true);
}

void rc_driver_orphan(struct rc_driver *driver)
{
    if (driver->runner->orphan != NULL)
        driver->runner->orphan(driver);
    if (driver->wake_fd[0] >= 0)
        close(driver->wake_fd[0]);
    driver->wake_fd[0] = driver->wake_fd[1] = -1;
}

void rc_driver_free(struct rc_driver *driver)
{
    if (driver->runner->free != NULL)
        driver->runner->free(driver);
    close(driver->wake_fd[0]);
    pthread_mutex_destroy(&driver->waiters_mutex);
    free_lines(driver);
    rc_engine_deinit(&driver->engine);
    free(driver);
}
