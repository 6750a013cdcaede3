#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "driver/fork.h"
#include "driver/manual_clock.h"
#include "driver/memory.h"
#include "driver/tls.h"
#include "engine/script.h"

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

int64_t rc_client_now_us(const struct rc_client *client)
{
    return client->options.clock != NULL ? rc_clock_read(client->options.clock) : rc_clock_us();
}

bool rc_client_is_abroad(const struct rc_client *client)
{
    return client->home != rc_fork_generation();
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
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        pthread_mutex_lock(&client->driver_mutex);
        if (client->near != NULL)
            rc_near_before_fork(client->near);
    }
}

static void after_fork(void)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        if (client->near != NULL)
            rc_near_after_fork(client->near);
        pthread_mutex_unlock(&client->driver_mutex);
    }
    unlock_registry();
}

static void after_fork_in_child(void)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        struct rc_driver *driver = atomic_load(&client->driver);
        if (driver != NULL)
            rc_driver_orphan(driver);
        if (client->near != NULL)
            rc_near_after_fork_in_child(client->near);
    }
    after_fork();
}

static void init_process(void)
{
    rc_scripts_init();
    rc_fork_init();
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static bool is_same(const struct rc_client *client, const struct rc_client *wanted)
{
    const rc_options *a = &client->options, *b = &wanted->options;
    if (client->address.is_memory && rc_client_is_abroad(client))
        return false;
    return a->url_len == b->url_len && a->group_len == b->group_len &&
           a->tls_ca_len == b->tls_ca_len && a->near == b->near && a->near_bytes == b->near_bytes &&
           a->near_name_len == b->near_name_len && a->clock == b->clock &&
           a->connect_timeout_ms == b->connect_timeout_ms &&
           a->command_timeout_ms == b->command_timeout_ms &&
           a->max_value_bytes == b->max_value_bytes && a->max_key_bytes == b->max_key_bytes &&
           a->max_queue == b->max_queue && a->degraded_ttl_ms == b->degraded_ttl_ms &&
           a->spin == b->spin && a->driver == b->driver &&
           rc_buf_is(&client->name, rc_buf_head(&wanted->name), rc_buf_len(&wanted->name));
}

/* ---- stores in memory ------------------------------------------------------------------------ */

/* With the registry's mutex. Returns what is to be freed without it, or NULL. */
static struct rc_memory *leave_memory(struct rc_client *client)
{
    struct rc_memory *memory = client->memory;
    client->memory = NULL;
    /* Of a parent's store not even the mutex can be relied on. */
    bool is_last = memory != NULL && rc_memory_is_ours(memory) && rc_memory_unref(memory);
    return is_last ? memory : NULL;
}

/* The store of that name and clock that somebody has open. With the registry's mutex. */
static struct rc_memory *find_memory(const struct rc_client *wanted)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        if (client->memory != NULL && rc_memory_is_ours(client->memory) &&
            client->options.clock == wanted->options.clock &&
            strcmp(client->address.host, wanted->address.host) == 0)
            return client->memory;
    }
    return NULL;
}

static int64_t unix_now_us(const struct rc_client *client)
{
    struct timespec now;
    if (client->options.clock != NULL)
        return RC_CLOCK_START_UNIX_US + rc_clock_now(client->options.clock);
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* With the registry's mutex. */
static const char *join_memory(struct rc_client *client)
{
    struct rc_memory *memory = find_memory(client);
    size_t max_bytes = (size_t)client->options.max_bytes;
    if (memory != NULL)
        rc_memory_ref(memory);
    else if (rc_memory_new(&memory, max_bytes != 0 ? max_bytes : RC_MEMORY_DEFAULT_BYTES,
                           rc_client_now_us(client), unix_now_us(client)) != 0)
        return "no memory";
    client->memory = memory;
    return NULL;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void free_client(struct rc_client *client) /* which has left its memory */
{
    if (client->options.clock != NULL)
        rc_clock_free(client->options.clock);
    pthread_mutex_destroy(&client->driver_mutex);
    rc_tls_context_free(client->tls_context);
    if (client->near != NULL)
        rc_near_close(client->near);
    rc_buf_deinit(&client->name);
    free(client);
}

/* Its name, and the certificates it trusts. false: refused. */
static bool prepare(struct rc_client *client, const rc_options *options, rc_refusal *refusal)
{
    const char *why = NULL;
    struct rc_buf path;
    int error = rc_buf_append(&client->name, options->url, options->url_len);
    error |= rc_buf_append(&client->name, options->group, options->group_len);
    error |= rc_buf_append(&client->name, options->tls_ca, options->tls_ca_len);
    error |= rc_buf_append(&client->name, options->near_name, options->near_name_len);
    if (error != 0)
        return !rc_refuse(refusal, RC_OPTION_NONE, "no memory");
    if (!client->address.is_tls)
        return true;
    rc_buf_init(&path);
    if (rc_buf_append(&path, options->tls_ca, options->tls_ca_len) != 0 ||
        rc_buf_append(&path, "", 1) != 0)
        why = "no memory";
    else
        (void)rc_tls_context_new(&client->tls_context, options->tls_ca_len > 0 ? path.bytes : NULL,
                                 &why);
    rc_buf_deinit(&path);
    return client->tls_context != NULL || !rc_refuse(refusal, RC_OPTION_TLS_CA, why);
}

/* The same in every process. */
static uint64_t print_of(const char *text, size_t len)
{
    const struct rc_seed seed = {{0x7265646361636865, 1}};
    return rc_siphash(&seed, text, len);
}

/* Redis checks a user's rights when a key is read, not when a copy of it is served: users must not
   find each other's copies. Without a name Redis takes the user called default. */
static uint64_t user_name(const struct rc_address *address)
{
    return address->has_user ? print_of(address->user, address->user_len) : print_of("default", 7);
}

static const char *open_near(struct rc_client *client)
{
    const rc_options *options = &client->options;
    const struct rc_address *address = &client->address;
    const char *why = NULL;
    size_t end = rc_buf_len(&client->name);
    struct rc_near_options near = {.bytes = (size_t)options->near_bytes,
                                   .server = print_of(address->server, strlen(address->server)),
                                   .user = user_name(address)};
    if (options->clock != NULL)
        near.clock = &options->clock->now_us;
    if (options->near_name_len > 0) {
        near.name = rc_buf_head(&client->name) + end - options->near_name_len;
        near.name_len = options->near_name_len;
    }
    return rc_near_open(&client->near, &near, &why) == 0 ? NULL : why;
}

static struct rc_client *new_client(const rc_options *options, rc_refusal *refusal)
{
    const char *why = NULL;
    struct rc_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        (void)rc_refuse(refusal, RC_OPTION_NONE, "no memory");
        return NULL;
    }
    client->options = *options;
    if (options->clock != NULL)
        rc_clock_ref(options->clock);
    client->home = rc_fork_generation();
    rc_buf_init(&client->name);
    pthread_mutex_init(&client->driver_mutex, NULL);
    client->references = 1;
    options = &client->options;
    bool good = rc_options_complete(&client->options, refusal);
    if (good) {
        (void)rc_address_parse(&client->address, options->url, options->url_len, &why);
        good = !rc_refuse(refusal, RC_OPTION_URL, why) &&
               rc_options_check_memory(options, &client->address, refusal) &&
               prepare(client, options, refusal);
    }
    if (good)
        return client;
    free_client(client);
    return NULL;
}

/* false: refused. */
static bool check_max_bytes(const struct rc_client *client, rc_refusal *refusal)
{
    const struct rc_memory *memory = client->address.is_memory ? find_memory(client) : NULL;
    size_t max_bytes = (size_t)client->options.max_bytes;
    if (memory == NULL || max_bytes == 0 || max_bytes == rc_memory_max_bytes(memory))
        return true;
    return !rc_refuse(refusal, RC_OPTION_MAX_BYTES, "the store is open with another number");
}

static struct rc_client *find_client(const struct rc_client *wanted)
{
    for (struct rc_client *client = registry; client != NULL; client = client->next) {
        if (!client->leaving && !atomic_load(&client->closed) && is_same(client, wanted))
            return client;
    }
    return NULL;
}

/* Each host has a client of its own, but all hosts of a machine keep one near cache: the one that
   the master process, or an earlier Lua state, has opened. With the registry's mutex. */
static bool share_near(struct rc_client *client)
{
    const struct rc_client *other =
        client->options.driver != RC_DRIVER_REACTOR ? find_client(client) : NULL;
    if (other == NULL || other->near == NULL || client->address.is_memory)
        return false;
    rc_near_ref(other->near);
    client->near = other->near;
    return true;
}

/* With the registry's mutex: most calls find an open client, the others open what it needs here. */
static bool enter_registry(struct rc_client *client, rc_refusal *refusal)
{
    bool good =
        !client->address.is_memory || !rc_refuse(refusal, RC_OPTION_NONE, join_memory(client));
    if (good && client->options.near > 0 && !share_near(client))
        good = !rc_refuse(refusal, RC_OPTION_NEAR_BYTES, open_near(client));
    if (!good) {
        rc_memory_free(leave_memory(client)); /* there is nothing in it yet */
        return false;
    }
    client->next = registry;
    registry = client;
    return true;
}

int rc_open(const rc_options *options, rc_client **result, rc_refusal *refusal)
{
    rc_refusal ours;
    pthread_once(&once, init_process);
    refusal = refusal != NULL ? refusal : &ours;
    struct rc_client *wanted = new_client(options, refusal), *found = NULL;
    bool good = wanted != NULL;
    if (good) {
        lock_registry();
        good = check_max_bytes(wanted, refusal);
        if (good && wanted->options.driver == RC_DRIVER_REACTOR)
            found = find_client(wanted);
        if (found != NULL)
            found->references++;
        else if (good)
            good = enter_registry(wanted, refusal);
        unlock_registry();
        if (found != NULL || !good)
            free_client(wanted);
    }
    if (!good)
        return RC_ERR_ARGUMENT;
    *result = found != NULL ? found : wanted;
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
    if (was_closed)
        return 0;
    if (driver != NULL && driver->fork_generation == rc_fork_generation())
        rc_driver_close(driver, timeout_ms);
    lock_registry();
    struct rc_memory *memory = leave_memory(client);
    unlock_registry();
    rc_memory_free(memory);
    return 0;
}

bool rc_client_leave(struct rc_client *client)
{
    lock_registry();
    bool last = client->references <= 1;
    client->leaving |= last;
    unlock_registry();
    return last;
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

uint32_t rc_loop_count(void)
{
    uint32_t count = 0;
    lock_registry();
    for (struct rc_client *client = registry; client != NULL; client = client->next)
        count += client->loops_home == rc_fork_generation() ? client->loops : 0;
    unlock_registry();
    return count;
}

void rc_client_count_loop(struct rc_client *client, int change)
{
    lock_registry();
    if (client->loops_home != rc_fork_generation())
        client->loops = 0; /* those were the parent's */
    client->loops_home = rc_fork_generation();
    if (change > 0 || client->loops > 0)
        client->loops += (unsigned)change;
    unlock_registry();
}

/* The first call in a child of fork(): its stores begin empty. */
static int join_memory_abroad(struct rc_client *client)
{
    const char *why = NULL;
    lock_registry();
    if (client->memory != NULL && !rc_memory_is_ours(client->memory))
        why = join_memory(client);
    unlock_registry();
    return why != NULL ? RC_ERR_NOMEM : 0;
}

static int start_driver(struct rc_client *client, struct rc_driver **driver)
{
    struct rc_driver_means means = {
        .near = client->near,
        .tls_context = client->tls_context,
        .memory = client->memory,
    };
    if (client->address.is_memory && rc_client_is_abroad(client))
        means.near = NULL; /* the region's keys are those of the parent's store */
    return rc_driver_start(driver, &client->options, &client->address, &means);
}

struct rc_driver *rc_client_running_driver(const struct rc_client *client)
{
    struct rc_driver *driver = atomic_load_explicit(&client->driver, memory_order_acquire);
    return driver != NULL && driver->fork_generation == rc_fork_generation() ? driver : NULL;
}

struct rc_driver *rc_client_driver(struct rc_client *client, int *error)
{
    struct rc_driver *driver = atomic_load_explicit(&client->driver, memory_order_acquire);
    *error = RC_ERR_CLOSED;
    if (atomic_load(&client->closed))
        return NULL;
    if (driver != NULL && driver->fork_generation == rc_fork_generation())
        return driver;
    if (rc_client_is_abroad(client) && client->address.is_memory) {
        *error = join_memory_abroad(client);
        if (*error != 0)
            return NULL;
        *error = RC_ERR_CLOSED;
    }
    pthread_mutex_lock(&client->driver_mutex);
    driver = atomic_load(&client->driver);
    if (atomic_load(&client->closed)) {
        driver = NULL;
    } else if (driver == NULL || driver->fork_generation != rc_fork_generation()) {
        client->abandoned = driver; /* the parent's: its threads and sockets are not ours */
        *error = start_driver(client, &driver);
        if (*error != 0)
            driver = client->abandoned = NULL;
        atomic_store_explicit(&client->driver, driver, memory_order_release);
    }
    pthread_mutex_unlock(&client->driver_mutex);
    return driver;
}

struct cancel_call {
    uint64_t tag;
    int count;
};

static void cancel_tag(struct rc_engine *engine, void *argument)
{
    struct cancel_call *call = argument;
    call->count = rc_engine_cancel(engine, call->tag);
}

int rc_cancel(rc_client *client, uint64_t tag)
{
    int error;
    struct cancel_call call = {.tag = tag};
    struct rc_driver *driver = tag != 0 ? rc_client_driver(client, &error) : NULL;
    if (driver != NULL)
        rc_driver_call(driver, cancel_tag, &call);
    return call.count;
}
