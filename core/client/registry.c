#include "client/registry.h"

#include <pthread.h>

#include "client/client.h"
#include "driver/fork.h"
#include "engine/script.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rc_client *first; /* guarded by mutex */

void rc_registry_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void rc_registry_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/* ---- fork ------------------------------------------------------------------------------------ */

/* A child must not inherit the registry, or the start of a driver, in the middle of a change. */
static void before_fork(void)
{
    rc_registry_lock();
    for (struct rc_client *client = first; client != NULL; client = client->next) {
        pthread_mutex_lock(&client->driver_mutex);
        if (client->near != NULL)
            rc_near_before_fork(client->near);
    }
}

static void after_fork(void)
{
    for (struct rc_client *client = first; client != NULL; client = client->next) {
        if (client->near != NULL)
            rc_near_after_fork(client->near);
        pthread_mutex_unlock(&client->driver_mutex);
    }
    rc_registry_unlock();
}

static void after_fork_in_child(void)
{
    for (struct rc_client *client = first; client != NULL; client = client->next) {
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

void rc_registry_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_process);
}

/* ---- clients --------------------------------------------------------------------------------- */

void rc_registry_add(struct rc_client *client)
{
    client->next = first;
    first = client;
}

void rc_registry_remove(struct rc_client *client)
{
    struct rc_client **at = &first;
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
}

struct rc_client *rc_registry_first(void)
{
    return first;
}

static bool is_same_breaker(const rc_options *a, const rc_options *b)
{
    return a->breaker == b->breaker && a->breaker_window == b->breaker_window &&
           a->breaker_errors == b->breaker_errors &&
           a->breaker_latency_ms == b->breaker_latency_ms &&
           a->breaker_wait_ms == b->breaker_wait_ms && a->breaker_probes == b->breaker_probes;
}

static bool is_same(const struct rc_client *client, const struct rc_client *wanted)
{
    const rc_options *a = &client->options, *b = &wanted->options;
    if (client->address.is_memory && client->home != rc_fork_generation())
        return false; /* its store is the parent's */
    return a->url_len == b->url_len && a->group_len == b->group_len &&
           a->tls_ca_len == b->tls_ca_len && a->tls_cert_len == b->tls_cert_len &&
           a->tls_key_len == b->tls_key_len && a->tls_name_len == b->tls_name_len &&
           a->user_len == b->user_len && a->password_len == b->password_len && a->near == b->near &&
           a->near_bytes == b->near_bytes && a->near_name_len == b->near_name_len &&
           a->clock == b->clock && a->connect_timeout_ms == b->connect_timeout_ms &&
           a->command_timeout_ms == b->command_timeout_ms &&
           a->max_value_bytes == b->max_value_bytes && a->max_key_bytes == b->max_key_bytes &&
           a->sentinel_user_len == b->sentinel_user_len &&
           a->sentinel_password_len == b->sentinel_password_len && a->zone_len == b->zone_len &&
           a->max_queue == b->max_queue && a->max_lent == b->max_lent &&
           a->degraded_ttl_ms == b->degraded_ttl_ms && a->spin == b->spin &&
           a->driver == b->driver && a->auth == b->auth && a->tls == b->tls &&
           is_same_breaker(a, b) &&
           rc_buf_is(&client->name, rc_buf_head(&wanted->name), rc_buf_len(&wanted->name));
}

struct rc_client *rc_registry_find(const struct rc_client *wanted)
{
    for (struct rc_client *client = first; client != NULL; client = client->next) {
        if (!client->leaving && !atomic_load(&client->closed) && is_same(client, wanted))
            return client;
    }
    return NULL;
}

uint32_t rc_loop_count(void)
{
    uint32_t count = 0;
    rc_registry_lock();
    for (struct rc_client *client = first; client != NULL; client = client->next)
        count += client->loops_generation == rc_fork_generation() ? client->loops : 0;
    rc_registry_unlock();
    return count;
}
