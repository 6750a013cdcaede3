/*
 * client - the public C interface: clients and their registry, op slots, locks.
 *
 * Everything here runs in the caller's thread: it checks, encodes, hands the seat to the driver.
 * What needs the engine goes through the driver's queue.
 */
#include "redcache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "driver/clock.h"
#include "driver/driver.h"
#include "driver/fork.h"
#include "driver/reactor.h"
#include "engine/command.h"
#include "engine/lease_request.h"
#include "engine/script.h"

enum {
    DEFAULT_CONNECT_TIMEOUT_MS = 1000,
    DEFAULT_COMMAND_TIMEOUT_MS = 500,
    DEFAULT_MAX_VALUE = 8 * 1024 * 1024,
    DEFAULT_MAX_KEY = 64 * 1024,
    DEFAULT_MAX_QUEUE = 64 * 1024,
    DEFAULT_DEGRADED_TTL_MS = 1000,
    MAX_TIMEOUT_MS = 24 * 3600 * 1000
};

struct rc_client {
    /* Fixed after init. */
    rc_options options; /* strings: `name` */
    struct rc_buf name; /* url, group, tls_ca */
    struct rc_address address;
    struct rc_tls_context *tls_context; /* rediss:// only */

    /* Guarded by registry_mutex. */
    struct rc_client *next;
    unsigned references;
    bool leaving;   /* the last reference is on its way out: not to be opened again */
    unsigned users; /* seats and locks: the memory stays as long as there are any */

    /* Guarded by driver_mutex; read anywhere (acquire). */
    pthread_mutex_t driver_mutex;
    _Atomic(struct rc_driver *) driver; /* NULL before the first use */
    _Atomic bool closed;
    struct rc_driver *abandoned; /* of the parent process, never touched again */
};

struct rc_lock_handle {
    struct rc_lock lock; /* first: rc_lock * is the address of the handle */
    struct rc_client *client;
    unsigned fork_generation; /* when it was last acquired */
    bool used;                /* the engine knows it */
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
    if (options->connect_timeout_ms < 0 || options->connect_timeout_ms > MAX_TIMEOUT_MS)
        return "connect_timeout_ms is out of range";
    if (options->command_timeout_ms < 0 || options->command_timeout_ms > MAX_TIMEOUT_MS)
        return "command_timeout_ms is out of range";
    if (options->max_value_bytes < 0 || options->max_value_bytes > INT32_MAX / 4)
        return "max_value_bytes is out of range";
    if (options->max_key_bytes < 0 || options->max_key_bytes > 1 << 24)
        return "max_key_bytes is out of range";
    return options->max_queue < 0 ? "max_queue is out of range" : NULL;
}

static bool is_same(const struct rc_client *client, const struct rc_client *wanted)
{
    const rc_options *a = &client->options, *b = &wanted->options;
    return a->url_len == b->url_len && a->group_len == b->group_len &&
           a->tls_ca_len == b->tls_ca_len && a->connect_timeout_ms == b->connect_timeout_ms &&
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
    wanted->next = registry;
    registry = wanted;
    unlock_registry();
    *result = wanted;
    return 0;
}

/* Counts a seat or lock; with the last user of a client nobody refers to any more its memory goes.
   */
static void count_user(struct rc_client *client, int change)
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
    count_user(client, -1);
}

/* The driver of this process, started now if need be. NULL: closed, or it can not be started
   (`error`). */
static struct rc_driver *get_driver(struct rc_client *client, int *error)
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
        *error = rc_driver_start(&driver, &client->options, &client->address, client->tls_context);
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
    struct rc_driver *driver = get_driver(client, &error);
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
    struct rc_driver *driver = get_driver(client, &error);
    memset(health, 0, sizeof *health);
    if (driver != NULL)
        rc_driver_call(driver, read_health, &call);
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
    struct rc_driver *driver = tag != 0 ? get_driver(client, &error) : NULL;
    if (driver != NULL)
        rc_driver_call(driver, cancel_tag, &call);
    return call.count;
}

/* ---- op slots -------------------------------------------------------------------------------- */

static struct rc_seat *seat_of(rc_op *op)
{
    return (struct rc_seat *)(void *)op;
}

rc_op *rc_op_new(rc_client *client)
{
    struct rc_seat *seat = calloc(1, sizeof *seat);
    if (seat == NULL || rc_seat_init(seat, client) != 0) {
        free(seat);
        return NULL;
    }
    count_user(client, 1);
    return &seat->op;
}

static void drop_op(struct rc_engine *engine, void *argument)
{
    rc_engine_drop(engine, argument);
}

static bool is_ours(const struct rc_seat *seat)
{
    return seat->driver != NULL && seat->driver->fork_generation == rc_fork_generation();
}

/* What a slot did in the parent process does not go on here. */
static void forget_parent(struct rc_seat *seat)
{
    struct rc_op *op = &seat->op;
    if (seat->driver == NULL || is_ours(seat))
        return;
    atomic_store(&seat->state, RC_SEAT_DONE);
    rc_list_init(&op->active);
    rc_list_init(&op->member);
    op->deadline.index = 0;
    op->running = op->leads = false;
    rc_op_reset(op, op->kind);
    seat->driver = NULL;
}

/* Of a slot that is done: it holds a lease that is not ended yet. Ending it changes the kind. */
static bool is_loading(const struct rc_seat *seat)
{
    const struct rc_op *op = &seat->op;
    return op->kind == RC_OP_LOAD && op->result.status == 0 && op->result.outcome == RC_LOAD;
}

void rc_op_free(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    forget_parent(seat);
    if (seat->driver != NULL && (!rc_seat_is_done(seat) || is_loading(seat)))
        rc_driver_call(seat->driver, drop_op, op);
    struct rc_client *client = seat->client;
    rc_seat_deinit(seat);
    free(seat);
    count_user(client, -1);
}

const rc_result *rc_op_result(rc_op *op)
{
    return &op->result;
}

const rc_node *rc_op_nodes(rc_op *op)
{
    return op->reply.nodes;
}

void rc_op_tag(rc_op *op, uint64_t tag)
{
    op->tag = tag;
}

void rc_op_timeout(rc_op *op, int32_t timeout_ms)
{
    op->timeout_ms = timeout_ms;
}

int rc_op_entry(rc_op *op, uint32_t index)
{
    rc_result *result = &op->result;
    if (index >= op->reply.count)
        return RC_ERR_ARGUMENT;
    const rc_node *node = &op->reply.nodes[index];
    result->status = node->type == '-' ? RC_ERR_REDIS : 0;
    if (node->type == '-') {
        result->data = node->str;
        result->len = node->len;
        return RC_ERR_REDIS;
    }
    if (rc_entry_is_too_large(node->len, seat_of(op)->client->options.max_value_bytes)) {
        result->status = RC_ERR_TOOLARGE;
        return RC_ERR_TOOLARGE;
    }
    rc_entry_read(result, node->type == '$' ? node->str : NULL, node->len);
    bool is_absent = result->kind == RC_KIND_NONE || result->kind == RC_KIND_LEASE ||
                     result->kind == RC_KIND_ERROR;
    result->outcome = is_absent ? RC_MISS : RC_HIT;
    return 0;
}

/* The slot is free for a new operation of this kind. */
static int ready(rc_op *op, enum rc_op_kind kind)
{
    struct rc_seat *seat = seat_of(op);
    forget_parent(seat);
    if (!rc_seat_is_done(seat) || is_loading(seat))
        return RC_ERR_ARGUMENT;
    rc_op_reset(op, kind);
    return 0;
}

static int submit(rc_op *op)
{
    int error;
    struct rc_seat *seat = seat_of(op);
    struct rc_driver *driver = get_driver(seat->client, &error);
    if (driver == NULL)
        return error;
    rc_driver_submit(driver, seat);
    return 0;
}

/* After an encoding that may have failed. */
static int submit_encoded(rc_op *op, int error)
{
    if (error != 0) {
        rc_buf_clear(&op->request);
        return RC_ERR_NOMEM;
    }
    return submit(op);
}

static int set_key(rc_op *op, const char *key, size_t key_len)
{
    const struct rc_client *client = seat_of(op)->client;
    if (key_len > (size_t)client->options.max_key_bytes)
        return RC_ERR_TOOLARGE;
    rc_buf_clear(&op->key);
    return rc_buf_append(&op->key, key, key_len);
}

int rc_done(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    if (rc_seat_is_done(seat))
        return 1;
    if (is_ours(seat))
        rc_driver_kick(seat->driver);
    return 0;
}

int rc_wait(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    if (!rc_seat_is_done(seat)) {
        if (!is_ours(seat))
            return RC_ERR_FORKED;
        rc_driver_wait(seat->driver, seat);
    }
    return op->result.status;
}

/* ---- entries --------------------------------------------------------------------------------- */

static int encode_get(rc_op *op, const char *key, size_t key_len, bool with_ttl)
{
    struct rc_buf *out = &op->request;
    int error = rc_command_head(out, 2);
    error |= rc_command_text(out, "GET");
    error |= rc_command_bytes(out, key, key_len);
    op->expect = 1;
    if (with_ttl) {
        error |= rc_command_head(out, 2);
        error |= rc_command_text(out, "PTTL");
        error |= rc_command_bytes(out, key, key_len);
        op->expect = 2;
    }
    return error;
}

int rc_get(rc_op *op, const char *key, size_t key_len, uint32_t flags)
{
    int error = ready(op, RC_OP_GET);
    if (error == 0)
        error = set_key(op, key, key_len);
    if (error != 0)
        return error;
    return submit_encoded(op, encode_get(op, key, key_len, flags & RC_WANT_TTL));
}

/* The header in front of a value; plain values have none. Returns its length. */
static size_t make_header(rc_op *op, char header[RC_ENTRY_SIZE], const rc_entry *entry,
                          const char *nonce)
{
    char fresh[RC_NONCE_SIZE];
    struct rc_driver *driver = seat_of(op)->driver;
    int error;
    if (entry == NULL)
        return 0;
    if (driver == NULL || !is_ours(seat_of(op)))
        driver = get_driver(seat_of(op)->client, &error);
    if (driver == NULL)
        return 0; /* closed: the submit that follows will say so */
    if (nonce == NULL) {
        rc_context_nonce(&driver->engine.context, fresh);
        nonce = fresh;
    }
    rc_entry_write(header, entry, nonce);
    return RC_ENTRY_SIZE;
}

static bool is_too_large(rc_op *op, size_t value_len)
{
    return value_len > (size_t)seat_of(op)->client->options.max_value_bytes;
}

int rc_set(rc_op *op, const char *key, size_t key_len, const rc_entry *entry, const char *value,
           size_t value_len, int64_t ttl_ms, uint32_t flags)
{
    char header[RC_ENTRY_SIZE];
    if (ttl_ms == 0 || ttl_ms < -1)
        return RC_ERR_ARGUMENT;
    if (is_too_large(op, value_len))
        return RC_ERR_TOOLARGE;
    int error = ready(op, RC_OP_SET);
    if (error == 0)
        error = set_key(op, key, key_len);
    if (error != 0)
        return error;
    size_t header_len = make_header(op, header, flags & RC_PLAIN ? NULL : entry, NULL);
    struct rc_buf *out = &op->request;
    error = rc_command_head(out, ttl_ms < 0 ? 3 : 5);
    error |= rc_command_text(out, "SET");
    error |= rc_command_bytes(out, key, key_len);
    error |= rc_command_pair(out, header, header_len, value, value_len);
    if (ttl_ms > 0) {
        error |= rc_command_text(out, "PX");
        error |= rc_command_int(out, ttl_ms);
    }
    op->expect = 1;
    return submit_encoded(op, error);
}

int rc_delete(rc_op *op, const char *key, size_t key_len)
{
    int error = ready(op, RC_OP_DELETE);
    if (error == 0)
        error = set_key(op, key, key_len);
    if (error != 0)
        return error;
    error = rc_command_head(&op->request, 2);
    error |= rc_command_text(&op->request, "UNLINK");
    error |= rc_command_bytes(&op->request, key, key_len);
    op->expect = 1;
    return submit_encoded(op, error);
}

/* ---- any commands ---------------------------------------------------------------------------- */

int rc_begin(rc_op *op, uint32_t flags)
{
    int error = ready(op, RC_OP_COMMAND);
    if (error != 0)
        return error; /* it may be running: hands off */
    op->flags = flags;
    rc_buf_clear(&op->key);
    return 0;
}

int rc_command_begin(rc_op *op, uint32_t argument_count)
{
    op->expect++;
    return rc_command_head(&op->request, argument_count);
}

int rc_argument(rc_op *op, const char *bytes, size_t len)
{
    return rc_command_bytes(&op->request, bytes, len);
}

int rc_argument_int(rc_op *op, int64_t number)
{
    return rc_command_int(&op->request, number);
}

int rc_argument_entry(rc_op *op, const rc_entry *entry, const char *value, size_t value_len)
{
    char header[RC_ENTRY_SIZE];
    if (is_too_large(op, value_len))
        return RC_ERR_TOOLARGE;
    return rc_command_pair(&op->request, header, make_header(op, header, entry, NULL), value,
                           value_len);
}

int rc_submit(rc_op *op)
{
    return op->expect > 0 ? submit(op) : RC_ERR_ARGUMENT;
}

int rc_delete_submit(rc_op *op)
{
    if (op->expect != 1)
        return RC_ERR_ARGUMENT;
    op->kind = RC_OP_DELETE;
    return submit(op);
}

/* ---- remember -------------------------------------------------------------------------------- */

int rc_load(rc_op *op, const char *key, size_t key_len, const rc_load_options *options)
{
    const struct rc_client *client = seat_of(op)->client;
    char purpose = options->flags & RC_PUT ? RC_FLIGHT_PUT : RC_FLIGHT_LOAD;
    if (options->lease_ttl_ms <= 0 || options->max_load_ms <= 0 || options->wait_timeout_ms <= 0)
        return RC_ERR_ARGUMENT;
    if (key_len > (size_t)client->options.max_key_bytes)
        return RC_ERR_TOOLARGE;
    int error = ready(op, RC_OP_LOAD);
    if (error != 0)
        return error;
    op->load = *options;
    rc_buf_clear(&op->key);
    if (rc_buf_append(&op->key, &purpose, 1) != 0 || rc_buf_append(&op->key, key, key_len) != 0)
        return RC_ERR_NOMEM;
    if (!(options->flags & (RC_PUT | RC_SCRIPT_FIRST)))
        error = encode_get(op, key, key_len, options->flags & RC_WANT_TTL);
    return submit_encoded(op, error);
}

/* Turns the slot of a load into the operation that ends it. */
static int begin_end(rc_op *op, enum rc_op_kind kind)
{
    struct rc_seat *seat = seat_of(op);
    if (!rc_seat_is_done(seat) || !is_loading(seat))
        return RC_ERR_ARGUMENT;
    rc_op_reset(op, kind);
    return is_ours(seat) ? 0 : RC_ERR_FORKED;
}

/* Submits the end of a load. Where that fails the lease is given back all the same. */
static int submit_end(rc_op *op, int error)
{
    error = submit_encoded(op, error);
    if (error != 0)
        rc_driver_call(seat_of(op)->driver, drop_op, op);
    return error;
}

int rc_publish(rc_op *op, const rc_entry *entry, const char *value, size_t value_len,
               int64_t ttl_ms, uint32_t flags)
{
    char header[RC_ENTRY_SIZE];
    if (ttl_ms < -1)
        return RC_ERR_ARGUMENT;
    if (is_too_large(op, value_len))
        return RC_ERR_TOOLARGE;
    int error = begin_end(op, RC_OP_PUBLISH);
    if (error != 0)
        return error;
    size_t header_len = make_header(op, header, flags & RC_PLAIN ? NULL : entry, op->nonce);
    return submit_end(op, rc_lease_encode_end(op, header, header_len, value, value_len, ttl_ms));
}

int rc_fail(rc_op *op, const char *text, size_t text_len, int32_t error_ttl_ms)
{
    enum {
        MARKER_MS = 1000,
        MAX_TEXT = 4096
    }; /* long enough for all who wait to wake up and read it */
    char header[RC_ENTRY_SIZE];
    int error = begin_end(op, RC_OP_FAIL);
    if (error != 0)
        return error;
    rc_entry_write_kind(header, RC_KIND_ERROR, error_ttl_ms > 0 ? RC_ENTRY_STICKY : 0, op->token);
    return submit_end(op, rc_lease_encode_end(op, header, sizeof header, text,
                                              text_len < MAX_TEXT ? text_len : MAX_TEXT,
                                              error_ttl_ms > 0 ? error_ttl_ms : MARKER_MS));
}

int rc_release(rc_op *op)
{
    int error = begin_end(op, RC_OP_RELEASE);
    if (error != 0)
        return error;
    return submit_end(op, rc_lease_encode_end(op, NULL, 0, NULL, 0, 0));
}

/* ---- locks ----------------------------------------------------------------------------------- */

static struct rc_lock_handle *handle_of(rc_lock *lock)
{
    return (struct rc_lock_handle *)(void *)lock;
}

rc_lock *rc_lock_new(rc_client *client, const char *key, size_t key_len)
{
    struct rc_lock_handle *handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        return NULL;
    if (key_len > (size_t)client->options.max_key_bytes ||
        rc_lock_init(&handle->lock, key, key_len) != 0) {
        free(handle);
        return NULL;
    }
    handle->client = client;
    count_user(client, 1);
    return &handle->lock;
}

static void drop_lock(struct rc_engine *engine, void *lock)
{
    rc_engine_drop_lock(engine, lock);
}

void rc_lock_free(rc_lock *lock)
{
    struct rc_lock_handle *handle = handle_of(lock);
    struct rc_client *client = handle->client;
    struct rc_driver *driver = atomic_load(&client->driver);
    if (handle->used && driver != NULL && handle->fork_generation == rc_fork_generation())
        rc_driver_call(driver, drop_lock, lock);
    rc_lock_deinit(lock);
    free(handle);
    count_user(client, -1);
}

int rc_lock_acquire(rc_lock *lock, rc_op *op, const rc_lock_options *options)
{
    struct rc_lock_handle *handle = handle_of(lock);
    if (options->ttl_ms < 100 || options->wait_ms < 0 || options->max_hold_ms < 0)
        return RC_ERR_ARGUMENT;
    int error = ready(op, RC_OP_LOCK_ACQUIRE);
    if (error != 0)
        return error;
    if (handle->used &&
        handle->fork_generation != rc_fork_generation()) { /* the parent's hold is not ours */
        lock->locks = NULL;
        lock->check = NULL;
        lock->renew.index = lock->trust.index = 0;
        lock->watch.is_set = false;
        rc_list_init(&lock->held);
        atomic_store(&lock->state, RC_LOCK_FREE);
    }
    handle->used = true;
    handle->fork_generation = rc_fork_generation();
    op->lock = lock;
    op->lock_options = *options;
    return submit(op);
}

int rc_lock_state(rc_lock *lock)
{
    const struct rc_lock_handle *handle = handle_of(lock);
    int state =
        atomic_load_explicit(&lock->state, memory_order_acquire); /* pairs: start_hold, end_hold */
    if (state != RC_LOCK_HELD)
        return state;
    if (handle->fork_generation != rc_fork_generation())
        return RC_LOCK_LOST;
    return rc_lock_remaining(lock) > 0 ? RC_LOCK_HELD : RC_LOCK_LOST;
}

int64_t rc_lock_remaining(rc_lock *lock)
{
    if (atomic_load_explicit(&lock->state, memory_order_acquire) != RC_LOCK_HELD ||
        handle_of(lock)->fork_generation != rc_fork_generation())
        return 0;
    int64_t left_us =
        atomic_load_explicit(&lock->trusted_until_us, memory_order_relaxed) - rc_clock_us();
    return left_us > 0 ? (left_us + 999) / 1000 : 0;
}

static int submit_for_lock(rc_lock *lock, rc_op *op, enum rc_op_kind kind, int64_t ttl_ms)
{
    struct rc_lock_handle *handle = handle_of(lock);
    if (!handle->used)
        return RC_ERR_NOTHELD;
    if (handle->fork_generation != rc_fork_generation())
        return RC_ERR_FORKED;
    int error = ready(op, kind);
    if (error != 0)
        return error;
    op->lock = lock;
    op->ttl_ms = ttl_ms;
    return submit(op);
}

int rc_lock_release(rc_lock *lock, rc_op *op)
{
    return submit_for_lock(lock, op, RC_OP_LOCK_RELEASE, 0);
}

int rc_lock_extend(rc_lock *lock, rc_op *op, int32_t ttl_ms)
{
    return ttl_ms < 100 ? RC_ERR_ARGUMENT : submit_for_lock(lock, op, RC_OP_LOCK_EXTEND, ttl_ms);
}

int rc_lock_token(rc_lock *lock, char *token)
{
    if (atomic_load_explicit(&lock->state, memory_order_acquire) != RC_LOCK_HELD)
        return RC_ERR_NOTHELD;
    memcpy(token, lock->token, RC_TOKEN_SIZE);
    return 0;
}
