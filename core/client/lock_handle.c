/*
 * lock_handle - the public calls on locks. The engine's part is engine/lock.c.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "driver/fork.h"

struct rc_lock_handle {
    struct rc_lock lock; /* first: rc_lock * is the address of the handle */
    struct rc_client *client;
    unsigned fork_generation; /* when it was last acquired */
    bool used;                /* the engine knows it */
};

static struct rc_lock_handle *handle_of(rc_lock *lock)
{
    return (struct rc_lock_handle *)(void *)lock;
}

/* Takes a handle that is ready, or frees one that is not: error. */
static rc_lock *begin(rc_client *client, struct rc_lock_handle *handle, int error)
{
    if (error != 0) {
        free(handle);
        return NULL;
    }
    handle->client = client;
    rc_client_count_user(client, 1);
    return &handle->lock;
}

static struct rc_lock_handle *new_handle(const rc_client *client, size_t key_len)
{
    if (client == NULL || key_len > (size_t)client->options.max_key_bytes)
        return NULL;
    return calloc(1, sizeof(struct rc_lock_handle));
}

rc_lock *rc_lock_new(rc_client *client, const char *key, size_t key_len)
{
    struct rc_lock_handle *handle = new_handle(client, key_len);
    if (handle == NULL)
        return NULL;
    return begin(client, handle, rc_lock_init(&handle->lock, key, key_len));
}

rc_lock *rc_lock_new_queued(rc_client *client, const char *key, size_t key_len, const char *own,
                            size_t own_len)
{
    struct rc_lock_handle *handle = new_handle(client, key_len > own_len ? key_len : own_len);
    if (handle == NULL)
        return NULL;
    return begin(client, handle, rc_lock_init_queued(&handle->lock, key, key_len, own, own_len));
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
    rc_client_count_user(client, -1);
}

int rc_lock_acquire(rc_lock *lock, rc_op *op, const rc_lock_options *options)
{
    struct rc_lock_handle *handle = handle_of(lock);
    if (options->ttl_ms < 100 || options->wait_ms < 0 || options->max_hold_ms < 0)
        return RC_ERR_ARGUMENT;
    if ((options->flags & RC_FORCE) != 0 && lock->queue.kind != RC_QUEUE_NONE)
        return RC_ERR_ARGUMENT;
    int error = rc_operation_ready(op, RC_OP_LOCK_ACQUIRE);
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
    op->ask.lock = lock;
    op->ask.lock_options = *options;
    return rc_operation_submit(op);
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
    int64_t left_us = atomic_load_explicit(&lock->trusted_until_us, memory_order_relaxed) -
                      rc_client_now_us(handle_of(lock)->client);
    return left_us > 0 ? (left_us + 999) / 1000 : 0;
}

static int submit_for_lock(rc_lock *lock, rc_op *op, enum rc_op_kind kind, int64_t ttl_ms)
{
    struct rc_lock_handle *handle = handle_of(lock);
    if (!handle->used)
        return RC_ERR_NOTHELD;
    if (handle->fork_generation != rc_fork_generation())
        return RC_ERR_FORKED;
    int error = rc_operation_ready(op, kind);
    if (error != 0)
        return error;
    op->ask.lock = lock;
    op->ask.ttl_ms = ttl_ms;
    return rc_operation_submit(op);
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
