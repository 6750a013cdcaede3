#include "client/client.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "driver/fork.h"
#include "driver/reactor.h"
#include "engine/script.h"

enum {
    DEFAULT_CONNECT_TIMEOUT_MS = 1000,
    DEFAULT_COMMAND_TIMEOUT_MS = 500,
    DEFAULT_MAX_VALUE = 8 * 1024 * 1024,
    DEFAULT_MAX_KEY = 64 * 1024,
    DEFAULT_MAX_QUEUE = 64 * 1024,
    DEFAULT_DEGRADED_TTL_MS = 1000,
    DEFAULT_NEAR_BYTES = 64 * 1024 * 1024,
    MAX_TIMEOUT_MS = 24 * 3600 * 1000
};

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rc_client *registry;
static pthread_once_t once = PTHREAD_ONCE_INIT;

int rc_abi(void)
{
    return RC_ABI;
}

int64_t rc_now_us(void)
{
    return rc_clock_us();
}

/* ---- clients --------------------------------------------------------------------------------- */

static void lock_registry(void)
{
    pthread_mutex_lock(&registry_mutex);
}

static void unlock_registry(void)
{
    pthread_mutex_unlock(&registry_mutex);
}

/* A child must not inherit the registry, or the start of a driver, in the middle of a change. */
static void before_fork(void)
{
    lock_registry();
    for (struct rc_client *client = registry; client != NULL; client = client->next)
        pthread_mutex_lock(&client->driver_mutex);
}

static void after_fork(void)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next)
        pthread_mutex_unlock(&client->driver_mutex);
    unlock_registry();
}

static void after_fork_in_child(void)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        struct rc_driver *driver = atomic_load(&client->driver);
        if (driver != NULL)
            rc_reactor_orphan(driver->reactor);
    }
    after_fork();
}

static void init_process(void)
{
    rc_scripts_init();
    rc_fork_init();
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static const char *check_options(rc_options *options)
{
    if (options->connect_timeout_ms == 0)
        options->connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS;
    if (options->command_timeout_ms == 0)
        options->command_timeout_ms = DEFAULT_COMMAND_TIMEOUT_MS;
    if (options->max_value_bytes == 0)
        options->max_value_bytes = DEFAULT_MAX_VALUE;
    if (options->max_key_bytes == 0)
        options->max_key_bytes = DEFAULT_MAX_KEY;
    if (options->max_queue == 0)
        options->max_queue = DEFAULT_MAX_QUEUE;
    if (options->degraded_ttl_ms == 0)
        options->degraded_ttl_ms = DEFAULT_DEGRADED_TTL_MS;
    if (options->spin == 0)
        options->spin = 1;
    if (options->near_bytes == 0)
        options->near_bytes = DEFAULT_NEAR_BYTES;
    if (options->connect_timeout_ms < 0 || options->connect_timeout_ms > MAX_TIMEOUT_MS)
        return "connect_timeout_ms is out of range";
    if (options->command_timeout_ms < 0 || options->command_timeout_ms > MAX_TIMEOUT_MS)
        return "command_timeout_ms is out of range";
    if (options->max_value_bytes < 0 || options->max_value_bytes > INT32_MAX / 4)
        return "max_value_bytes is out of range";
    if (options->max_key_bytes < 0 || options->max_key_bytes > 1 << 24)
        return "max_key_bytes is out of range";
    if (options->near_bytes < RC_NEAR_MIN_BYTES || options->near_bytes > INT64_C(1) << 36)
        return "near_bytes is out of range";
    return options->max_queue < 0 ? "max_queue is out of range" : NULL;
}

static bool is_same(const struct rc_client *client, const struct rc_client *wanted)
{
    const rc_options *a = &client->options, *b = &wanted->options;
    return a->url_len == b->url_len && a->group_len == b->group_len &&
           a->tls_ca_len == b->tls_ca_len && a->near == b->near && a->near_bytes == b->near_bytes &&
           a->near_name_len == b->near_name_len && a->connect_timeout_ms == b->connect_timeout_ms &&
           a->command_timeout_ms == b->command_timeout_ms &&
           a->max_value_bytes == b->max_value_bytes && a->max_key_bytes == b->max_key_bytes &&
           a->max_queue == b->max_queue && a->degraded_ttl_ms == b->degraded_ttl_ms &&
           a->spin == b->spin && rc_buf_len(&client->name) == rc_buf_len(&wanted->name) &&
           memcmp(rc_buf_head(&client->name), rc_buf_head(&wanted->name),
                  rc_buf_len(&client->name)) == 0;
}

static void free_client(struct rc_client *client)
{
    pthread_mutex_destroy(&client->driver_mutex);
    rc_tls_context_free(client->tls_context);
    if (client->near != NULL)
        rc_near_close(client->near);
    rc_buf_deinit(&client->name);
    free(client);
}

/* Its name, and the certificates it trusts. */
static const char *prepare(struct rc_client *client, const rc_options *options)
{
    const char *why = NULL;
    struct rc_buf path;
    int error = rc_buf_append(&client->name, options->url, options->url_len);
    error |= rc_buf_append(&client->name, options->group, options->group_len);
    error |= rc_buf_append(&client->name, options->tls_ca, options->tls_ca_len);
    error |= rc_buf_append(&client->name, options->near_name, options->near_name_len);
    if (error != 0)
        return "no memory";
    if (!client->address.is_tls)
        return NULL;
    rc_buf_init(&path);
    if (rc_buf_append(&path, options->tls_ca, options->tls_ca_len) != 0 ||
        rc_buf_append(&path, "", 1) != 0)
        why = "no memory";
    else
        (void)rc_tls_context_new(&client->tls_context, options->tls_ca_len > 0 ? path.bytes : NULL,
                                 &why);
    rc_buf_deinit(&path);
    return client->tls_context == NULL ? why : NULL;
}

/* Keys of different servers and databases must not meet in one region. */
static uint64_t server_name(const struct rc_address *address)
{
    const struct rc_seed seed = {{0x7265646361636865, 1}}; /* the same in every process */
    return rc_siphash(&seed, address->label, strlen(address->label));
}

static const char *open_near(struct rc_client *client)
{
    const rc_options *options = &client->options;
    const char *why = NULL;
    size_t end = rc_buf_len(&client->name);
    struct rc_near_options near = {.bytes = (size_t)options->near_bytes,
                                   .server = server_name(&client->address)};
    if (options->near_name_len > 0) {
        near.name = rc_buf_head(&client->name) + end - options->near_name_len;
        near.name_len = options->near_name_len;
    }
    return rc_near_open(&client->near, &near, &why) == 0 ? NULL : why;
}

static struct rc_client *new_client(const rc_options *options, const char **why)
{
    struct rc_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        *why = "no memory";
        return NULL;
    }
    client->options = *options;
    rc_buf_init(&client->name);
    pthread_mutex_init(&client->driver_mutex, NULL);
    client->references = 1;
    *why = check_options(&client->options);
    if (*why == NULL &&
        rc_address_parse(&client->address, options->url, options->url_len, why) == 0)
        *why = prepare(client, options);
    if (*why == NULL)
        return client;
    free_client(client);
    return NULL;
}

int rc_open(const rc_options *options, rc_client **result, const char **error_text)
{
    const char *why = NULL;
    pthread_once(&once, init_process);
    struct rc_client *wanted = new_client(options, &why);
    if (wanted == NULL) {
        if (error_text != NULL)
            *error_text = why;
        return RC_ERR_ARGUMENT;
    }
    lock_registry();
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        if (!client->leaving && !atomic_load(&client->closed) && is_same(client, wanted)) {
            client->references++;
            unlock_registry();
            free_client(wanted);
            *result = client;
            return 0;
        }
    }
    /* Only now: most calls find an open client. */
    why = wanted->options.near > 0 ? open_near(wanted) : NULL;
    if (why != NULL) {
        unlock_registry();
        free_client(wanted);
        if (error_text != NULL)
            *error_text = why;
        return RC_ERR_ARGUMENT;
    }
    wanted->next = registry;
    registry = wanted;
    unlock_registry();
    *result = wanted;
    return 0;
}

void rc_client_count_user(struct rc_client *client, int change)
{
    lock_registry();
    client->users += (unsigned)change;
    bool last = client->users == 0 && client->references == 0;
    if (last) {
        struct rc_client **link = &registry;
        while (*link != client)
            link = &(*link)->next;
        *link = client->next;
    }
    unlock_registry();
    if (last) {
        struct rc_driver *driver = atomic_load(&client->driver);
        if (driver != NULL && driver->fork_generation == rc_fork_generation())
            rc_driver_free(driver);
        free_client(client);
    }
}

int rc_close(rc_client *client, int32_t timeout_ms)
{
    pthread_mutex_lock(&client->driver_mutex);
    bool was_closed = atomic_exchange(&client->closed, true);
    struct rc_driver *driver = atomic_load(&client->driver);
    pthread_mutex_unlock(&client->driver_mutex);
    if (was_closed || driver == NULL || driver->fork_generation != rc_fork_generation())
        return 0;
    rc_driver_close(driver, timeout_ms);
    return 0;
}

void rc_unref(rc_client *client, int32_t timeout_ms)
{
    lock_registry();
    bool last = client->references == 1;
    client->leaving = last;
    if (!last)
        client->references--;
    unlock_registry();
    if (!last)
        return;
    /* Still counted, so that nobody frees it; whoever opens it in this moment gets a new client. */
    rc_close(client, timeout_ms);
    lock_registry();
    client->references--;
    client->users++;
    unlock_registry();
    rc_client_count_user(client, -1);
}

struct rc_driver *rc_client_driver(struct rc_client *client, int *error)
{
    struct rc_driver *driver = atomic_load_explicit(&client->driver, memory_order_acquire);
    *error = RC_ERR_CLOSED;
    if (atomic_load(&client->closed))
        return NULL;
    if (driver != NULL && driver->fork_generation == rc_fork_generation())
        return driver;
    pthread_mutex_lock(&client->driver_mutex);
    driver = atomic_load(&client->driver);
    if (atomic_load(&client->closed)) {
        driver = NULL;
    } else if (driver == NULL || driver->fork_generation != rc_fork_generation()) {
        client->abandoned = driver; /* the parent's: its threads and sockets are not ours */
        *error = rc_driver_start(&driver, &client->options, &client->address, client->tls_context,
                                 client->near);
        if (*error != 0)
            driver = client->abandoned = NULL;
        atomic_store_explicit(&client->driver, driver, memory_order_release);
    }
    pthread_mutex_unlock(&client->driver_mutex);
    return driver;
}

struct stats_call {
    rc_stats *stats;
    rc_health *health;
    uint64_t tag;
    int count;
};

static void read_stats(struct rc_engine *engine, void *argument)
{
    *((struct stats_call *)argument)->stats = engine->context.stats;
}

void rc_get_stats(rc_client *client, rc_stats *stats)
{
    int error;
    struct stats_call call = {.stats = stats};
    struct rc_driver *driver = rc_client_driver(client, &error);
    memset(stats, 0, sizeof *stats);
    if (driver == NULL)
        return;
    rc_driver_call(driver, read_stats, &call);
    stats->inline_turns = atomic_load(&driver->inline_turns);
    stats->reactor_turns = atomic_load(&driver->reactor_turns);
    stats->waiting = (uint64_t)atomic_load(&driver->waiting);
}

static void read_health(struct rc_engine *engine, void *argument)
{
    rc_engine_get_health(engine, ((struct stats_call *)argument)->health);
}

void rc_get_health(rc_client *client, rc_health *health)
{
    int error;
    struct stats_call call = {.health = health};
    struct rc_driver *driver = rc_client_driver(client, &error);
    memset(health, 0, sizeof *health);
    if (driver != NULL)
        rc_driver_call(driver, read_health, &call);
}

static void read_horizon(struct rc_engine *engine, void *argument)
{
    rc_near_stats *stats = argument;
    int64_t asof_us = engine->near != NULL ? rc_near_asof(engine->owner) : 0;
    if (asof_us > 0)
        stats->horizon_age_us = engine->context.now_us - asof_us;
}

void rc_get_near_stats(rc_client *client, rc_near_stats *stats)
{
    int error;
    struct rc_driver *driver = rc_client_driver(client, &error);
    memset(stats, 0, sizeof *stats);
    if (client->near != NULL)
        rc_near_read_stats(client->near, stats);
    stats->horizon_age_us = -1;
    if (driver != NULL)
        rc_driver_call(driver, read_horizon, stats);
}

static void cancel_tag(struct rc_engine *engine, void *argument)
{
    struct stats_call *call = argument;
    call->count = rc_engine_cancel(engine, call->tag);
}

int rc_cancel(rc_client *client, uint64_t tag)
{
    int error;
    struct stats_call call = {.tag = tag};
    struct rc_driver *driver = tag != 0 ? rc_client_driver(client, &error) : NULL;
    if (driver != NULL)
        rc_driver_call(driver, cancel_tag, &call);
    return call.count;
}
