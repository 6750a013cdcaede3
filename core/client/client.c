#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/sha1.h"
#include "base/slot.h"
#include "client/registry.h"
#include "client/stores.h"
#include "driver/fork.h"
#include "driver/manual_clock.h"
#include "driver/memory.h"
#include "driver/tls.h"

int rc_abi(void)
{
    return RC_ABI;
}

int32_t rc_key_slot(const char *key, size_t key_len)
{
    return rc_slot(key, key_len);
}

void rc_sha1(const char *bytes, size_t len, char *hex_41_bytes)
{
    rc_sha1_hex(bytes, len, hex_41_bytes);
}

int64_t rc_now_us(void)
{
    return rc_clock_us();
}

int64_t rc_client_now_us(const struct rc_client *client)
{
    return client->options.clock != NULL ? rc_clock_read(client->options.clock) : rc_clock_us();
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
    rc_buf_deinit(&client->login.text);
    free(client);
}

/* What it is told from others by. */
static int write_name(struct rc_buf *name, const rc_options *options)
{
    int error = rc_buf_append(name, options->url, options->url_len);
    error |= rc_buf_append(name, options->group, options->group_len);
    error |= rc_buf_append(name, options->tls_ca, options->tls_ca_len);
    error |= rc_buf_append(name, options->tls_cert, options->tls_cert_len);
    error |= rc_buf_append(name, options->tls_key, options->tls_key_len);
    error |= rc_buf_append(name, options->tls_name, options->tls_name_len);
    error |= rc_buf_append(name, options->user, options->user_len);
    error |= rc_buf_append(name, options->password, options->password_len);
    error |= rc_buf_append(name, options->sentinel_user, options->sentinel_user_len);
    error |= rc_buf_append(name, options->sentinel_password, options->sentinel_password_len);
    error |= rc_buf_append(name, options->zone, options->zone_len);
    return error | rc_buf_append(name, options->near_name, options->near_name_len);
}

/* Appends it, NUL-ended: it begins at *at then. */
static int add_path(struct rc_buf *paths, const char *text, size_t len, size_t *at)
{
    *at = rc_buf_len(paths);
    int error = rc_buf_append(paths, text, len);
    return error | rc_buf_append(paths, "", 1);
}

static const char *path_at(const struct rc_buf *paths, size_t at, size_t len)
{
    return len > 0 ? rc_buf_head(paths) + at : NULL;
}

/* Whom it trusts, and who it is. false: refused. */
static bool prepare_tls(struct rc_client *client, const rc_options *options, rc_refusal *refusal)
{
    static const int32_t at_fault[] = {
        [RC_TLS_NO_FAULT] = RC_OPTION_NONE,   [RC_TLS_NO_LIBRARY] = RC_OPTION_URL,
        [RC_TLS_BAD_CA] = RC_OPTION_TLS_CA,   [RC_TLS_BAD_CERT] = RC_OPTION_TLS_CERT,
        [RC_TLS_BAD_KEY] = RC_OPTION_TLS_KEY,
    };
    struct rc_buf paths;
    size_t ca, cert, key, name;
    enum rc_tls_fault fault = RC_TLS_NO_FAULT;
    const char *why = "no memory";
    rc_buf_init(&paths);
    int error = add_path(&paths, options->tls_ca, options->tls_ca_len, &ca);
    error |= add_path(&paths, options->tls_cert, options->tls_cert_len, &cert);
    error |= add_path(&paths, options->tls_key, options->tls_key_len, &key);
    error |= add_path(&paths, options->tls_name, options->tls_name_len, &name);
    if (error == 0) {
        const struct rc_tls_files files = {
            .ca = path_at(&paths, ca, options->tls_ca_len),
            .cert = path_at(&paths, cert, options->tls_cert_len),
            .key = path_at(&paths, key, options->tls_key_len),
            .name = path_at(&paths, name, options->tls_name_len),
        };
        error = rc_tls_context_new(&client->tls_context, &files, &fault, &why);
    }
    rc_buf_deinit(&paths);
    return error == 0 || !rc_refuse(refusal, at_fault[fault], why);
}

/* false: refused. */
static bool prepare(struct rc_client *client, const rc_options *options, rc_refusal *refusal)
{
    if (write_name(&client->name, options) != 0)
        return !rc_refuse(refusal, RC_OPTION_NONE, "no memory");
    /* The engine reads it for as long as there are replicas. */
    client->options.zone = rc_buf_head(&client->name) + rc_buf_len(&client->name) -
                           options->near_name_len - options->zone_len;
    return !client->address.is_tls || prepare_tls(client, options, refusal);
}

/* The same in every process. */
static uint64_t fingerprint_of(const char *text, size_t len)
{
    const struct rc_seed seed = {{0x7265646361636865, 1}};
    return rc_siphash(&seed, text, len);
}

/* Redis checks a user's rights when a key is read, not when a copy of it is served: users must not
   find each other's copies. Without a name Redis takes the user called default. */
static uint64_t user_name(const rc_options *options, const struct rc_address *address)
{
    if (options->auth != 0) /* one after the other, and all of them are one: no name is so long */
        return fingerprint_of("\0auth", 5);
    return address->has_user ? fingerprint_of(address->user, address->user_len)
                             : fingerprint_of("default", 7);
}

static const char *open_near(struct rc_client *client)
{
    const rc_options *options = &client->options;
    const struct rc_address *address = &client->address;
    const char *why = NULL;
    size_t end = rc_buf_len(&client->name);
    struct rc_near_options near = {.bytes = (size_t)options->near_bytes,
                                   .server =
                                       fingerprint_of(address->server, strlen(address->server)),
                                   .user = user_name(options, address)};
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
    rc_buf_init(&client->login.text);
    pthread_mutex_init(&client->driver_mutex, NULL);
    client->references = 1;
    options = &client->options;
    bool good = rc_options_complete(&client->options, refusal);
    if (good) {
        (void)rc_address_parse(&client->address, options->url, options->url_len, &why);
        good = !rc_refuse(refusal, RC_OPTION_URL, why) &&
               rc_options_check_memory(options, &client->address, refusal) &&
               rc_options_check_tls(options, &client->address, refusal) &&
               rc_options_take_login(options, &client->address, refusal) &&
               rc_options_log_in(options, &client->address, refusal) &&
               rc_options_check_auth(options, &client->address, refusal) &&
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
    const struct rc_memory *memory = client->address.is_memory ? rc_stores_find(client) : NULL;
    size_t max_bytes = (size_t)client->options.max_bytes;
    if (memory == NULL || max_bytes == 0 || max_bytes == rc_memory_max_bytes(memory))
        return true;
    return !rc_refuse(refusal, RC_OPTION_MAX_BYTES, "the store is open with another number");
}

/* Each host has a client of its own, but all hosts of a machine keep one near cache: the one that
   the master process, or an earlier Lua state, has opened. With the registry's mutex. */
static bool share_near(struct rc_client *client)
{
    const struct rc_client *other =
        client->options.driver != RC_DRIVER_REACTOR ? rc_registry_find(client) : NULL;
    if (other == NULL || other->near == NULL || client->address.is_memory)
        return false;
    rc_near_ref(other->near);
    client->near = other->near;
    return true;
}

/* With the registry's mutex: most calls find an open client, the others open what it needs here. */
static bool enter(struct rc_client *client, rc_refusal *refusal)
{
    bool good =
        !client->address.is_memory ||
        !rc_refuse(refusal, RC_OPTION_NONE, rc_stores_join(client, rc_client_now_us(client)));
    if (good && client->options.near > 0 && !share_near(client))
        good = !rc_refuse(refusal, RC_OPTION_NEAR_BYTES, open_near(client));
    if (!good) {
        rc_memory_free(rc_stores_leave(client)); /* there is nothing in it yet */
        return false;
    }
    rc_registry_add(client);
    return true;
}

int rc_open(const rc_options *options, rc_client **result, rc_refusal *refusal)
{
    rc_refusal ours;
    rc_registry_init();
    refusal = refusal != NULL ? refusal : &ours;
    struct rc_client *wanted = new_client(options, refusal), *found = NULL;
    bool good = wanted != NULL;
    if (good) {
        rc_registry_lock();
        good = check_max_bytes(wanted, refusal);
        if (good && wanted->options.driver == RC_DRIVER_REACTOR)
            found = rc_registry_find(wanted);
        if (found != NULL)
            found->references++;
        else if (good)
            good = enter(wanted, refusal);
        rc_registry_unlock();
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
    rc_registry_lock();
    client->users += (unsigned)change;
    bool last = client->users == 0 && client->references == 0;
    if (last)
        rc_registry_remove(client);
    rc_registry_unlock();
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
    rc_registry_lock();
    struct rc_memory *memory = rc_stores_leave(client);
    rc_registry_unlock();
    rc_memory_free(memory);
    return 0;
}

bool rc_client_leave(struct rc_client *client)
{
    rc_registry_lock();
    bool last = client->references <= 1;
    client->leaving |= last;
    rc_registry_unlock();
    return last;
}

void rc_unref(rc_client *client, int32_t timeout_ms)
{
    rc_registry_lock();
    bool last = client->references == 1;
    client->leaving = last;
    if (!last)
        client->references--;
    rc_registry_unlock();
    if (!last)
        return;
    /* Still counted, so that nobody frees it; an open in this moment makes a new client. */
    rc_close(client, timeout_ms);
    rc_registry_lock();
    client->references--;
    client->users++;
    rc_registry_unlock();
    rc_client_count_user(client, -1);
}

void rc_client_count_loop(struct rc_client *client, int change)
{
    rc_registry_lock();
    if (client->loops_generation != rc_fork_generation())
        client->loops = 0; /* those were the parent's */
    client->loops_generation = rc_fork_generation();
    if (change > 0 || client->loops > 0)
        client->loops += (unsigned)change;
    rc_registry_unlock();
}

/* The first call in a child of fork(): its stores begin empty. */
static int join_memory_inherited(struct rc_client *client)
{
    const char *why = NULL;
    rc_registry_lock();
    if (client->memory != NULL && !rc_memory_is_ours(client->memory))
        why = rc_stores_join(client, rc_client_now_us(client));
    rc_registry_unlock();
    return why != NULL ? RC_ERR_NOMEM : 0;
}

static void authenticate(struct rc_engine *engine, void *argument)
{
    const struct rc_client_login *login = argument;
    const struct rc_credentials credentials = {
        .user = rc_buf_head(&login->text),
        .user_len = login->user_len,
        .password = rc_buf_head(&login->text) + login->user_len,
        .password_len = rc_buf_len(&login->text) - login->user_len,
        .expires_us = login->expires_us,
        .version = login->version,
    };
    (void)rc_engine_authenticate(engine, &credentials); /* without memory the old ones stay */
}

void rc_client_tell_login(struct rc_client *client, struct rc_driver *driver)
{
    if (client->login.version > 0)
        rc_driver_call(driver, authenticate, &client->login);
}

static int start_driver(struct rc_client *client, struct rc_driver **driver)
{
    struct rc_driver_means means = {
        .near = client->near,
        .tls_context = client->tls_context,
        .memory = client->memory,
    };
    if (client->address.is_memory && rc_client_is_inherited(client))
        means.near = NULL; /* the region's keys are those of the parent's store */
    return rc_driver_start(driver, &client->options, &client->address, &means);
}

struct rc_driver *rc_client_start_driver(struct rc_client *client, int *error)
{
    struct rc_driver *driver;
    *error = RC_ERR_CLOSED;
    if (atomic_load(&client->closed))
        return NULL;
    if (rc_client_is_inherited(client) && client->address.is_memory) {
        *error = join_memory_inherited(client);
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
        else
            rc_client_tell_login(client, driver);
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

struct hold_call {
    int32_t hold;
    const char *address;
    int count;
};

static void hold_breakers(struct rc_engine *engine, void *argument)
{
    struct hold_call *call = argument;
    call->count = rc_engine_hold_breakers(engine, call->hold, call->address);
}

int rc_breaker(rc_client *client, int32_t hold, const char *address)
{
    int error;
    struct hold_call call = {.hold = hold, .address = address};
    if (hold < RC_HOLD_AUTO || hold > RC_HOLD_CLOSED || client->options.breaker < 0)
        return RC_ERR_ARGUMENT;
    struct rc_driver *driver = rc_client_driver(client, &error);
    if (driver == NULL)
        return error;
    rc_driver_call(driver, hold_breakers, &call);
    return call.count;
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
