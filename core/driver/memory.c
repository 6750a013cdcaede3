#include "driver/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "driver/fork.h"
#include "driver/random.h"
#include "redcache.h"
#include "store/store.h"

enum {
    SWEEP_EVERY_US = 90 * 1000, /* a little less than each driver's round: they share the work */
    SWEEP_KEYS = 512            /* some 20 us under the mutex */
};

struct rc_memory {
    /* Fixed after init. */
    size_t max_bytes;
    int64_t offset_us; /* from the drivers' time to the wall clock */
    unsigned fork_generation;

    /* Guarded by the client registry's mutex. */
    unsigned references;

    pthread_mutex_t mutex;
    /* Guarded by mutex. */
    struct rc_store *store;
    int64_t now_us; /* the latest that any driver has told */
    int64_t swept_us;
};

static void on_push(void *owner, struct rc_store_conn *conn)
{
    struct rc_memory_end *end = conn->user;
    (void)owner;
    end->tell(end->owner);
}

int rc_memory_new(struct rc_memory **result, size_t max_bytes, int64_t now_us, int64_t unix_us)
{
    struct rc_store_options options = {.max_bytes = max_bytes, .on_push = on_push};
    struct rc_memory *memory = calloc(1, sizeof *memory);
    int error = memory != NULL ? rc_random_bytes(&options.seed, sizeof options.seed) : RC_ERR_NOMEM;
    if (error == 0)
        error = rc_store_new(&memory->store, &options);
    if (error != 0) {
        free(memory);
        return error;
    }
    memory->max_bytes = max_bytes;
    memory->offset_us = unix_us - now_us;
    memory->fork_generation = rc_fork_generation();
    memory->references = 1;
    memory->now_us = now_us;
    pthread_mutex_init(&memory->mutex, NULL);
    *result = memory;
    return 0;
}

void rc_memory_ref(struct rc_memory *memory)
{
    memory->references++;
}

bool rc_memory_unref(struct rc_memory *memory)
{
    return --memory->references == 0;
}

void rc_memory_free(struct rc_memory *memory)
{
    if (memory == NULL)
        return;
    rc_store_free(memory->store);
    pthread_mutex_destroy(&memory->mutex);
    free(memory);
}

size_t rc_memory_max_bytes(const struct rc_memory *memory)
{
    return memory->max_bytes;
}

bool rc_memory_is_ours(const struct rc_memory *memory)
{
    return memory->fork_generation == rc_fork_generation();
}

/* The drivers of several threads read the clock, and then come here in any order. */
static void set_time(struct rc_memory *memory, int64_t now_us)
{
    if (now_us > memory->now_us)
        memory->now_us = now_us;
    rc_store_set_time(memory->store, memory->now_us + memory->offset_us);
}

static void take_output(struct rc_memory_end *end)
{
    rc_buf_swap(&end->conn->output, &end->answers);
    end->wants_close = end->conn->wants_close;
}

int rc_memory_connect(struct rc_memory *memory, struct rc_memory_end *end)
{
    rc_buf_clear(&end->answers);
    end->wants_close = false;
    pthread_mutex_lock(&memory->mutex);
    int error = rc_store_connect(memory->store, &end->conn);
    if (error == 0)
        end->conn->user = end;
    pthread_mutex_unlock(&memory->mutex);
    return error;
}

void rc_memory_disconnect(struct rc_memory *memory, struct rc_memory_end *end)
{
    if (end->conn == NULL)
        return;
    pthread_mutex_lock(&memory->mutex);
    rc_store_disconnect(end->conn);
    pthread_mutex_unlock(&memory->mutex);
    end->conn = NULL;
    rc_buf_deinit(&end->answers);
}

int rc_memory_say(struct rc_memory *memory, struct rc_memory_end *end, const char *bytes,
                  size_t len, int64_t now_us)
{
    pthread_mutex_lock(&memory->mutex);
    set_time(memory, now_us);
    int error = rc_store_feed(end->conn, bytes, len);
    if (rc_buf_len(&end->answers) == 0)
        take_output(end);
    pthread_mutex_unlock(&memory->mutex);
    return error;
}

void rc_memory_hear(struct rc_memory *memory, struct rc_memory_end *end)
{
    pthread_mutex_lock(&memory->mutex);
    take_output(end);
    pthread_mutex_unlock(&memory->mutex);
}

void rc_memory_sweep(struct rc_memory *memory, int64_t now_us)
{
    pthread_mutex_lock(&memory->mutex);
    if (now_us - memory->swept_us >= SWEEP_EVERY_US) {
        memory->swept_us = now_us;
        set_time(memory, now_us);
        (void)rc_store_sweep(memory->store, SWEEP_KEYS);
    }
    pthread_mutex_unlock(&memory->mutex);
}
