#include "client/stores.h"

#include <string.h>
#include <time.h>

#include "client/client.h"
#include "client/registry.h"
#include "driver/manual_clock.h"
#include "driver/memory.h"

struct rc_memory *rc_stores_leave(struct rc_client *client)
{
    struct rc_memory *memory = client->memory;
    client->memory = NULL;
    /* Of a parent's store not even the mutex can be relied on. */
    bool is_last = memory != NULL && rc_memory_is_ours(memory) && rc_memory_unref(memory);
    return is_last ? memory : NULL;
}

struct rc_memory *rc_stores_find(const struct rc_client *wanted)
{
    for (struct rc_client *client = rc_registry_first(); client != NULL; client = client->next) {
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

const char *rc_stores_join(struct rc_client *client, int64_t now_us)
{
    struct rc_memory *memory = rc_stores_find(client);
    size_t max_bytes = (size_t)client->options.max_bytes;
    if (memory != NULL)
        rc_memory_ref(memory);
    else if (rc_memory_new(&memory, max_bytes != 0 ? max_bytes : RC_MEMORY_DEFAULT_BYTES, now_us,
                           unix_now_us(client)) != 0)
        return "no memory";
    client->memory = memory;
    return NULL;
}
