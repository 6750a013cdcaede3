/*
 * options - what rc_open is given: defaults, ranges, and what does not go together.
 */
#include <string.h>

#include "client/client.h"
#include "near/near.h"

#define DEFAULT_URL "memory://"

enum {
    DEFAULT_CONNECT_TIMEOUT_MS = 1000,
    DEFAULT_COMMAND_TIMEOUT_MS = 500,
    DEFAULT_MAX_VALUE = 8 * 1024 * 1024,
    DEFAULT_MAX_KEY = 64 * 1024,
    DEFAULT_MAX_QUEUE = 64 * 1024,
    DEFAULT_DEGRADED_TTL_MS = 1000,
    DEFAULT_NEAR_BYTES = 64 * 1024 * 1024,
    MIN_STORE_BYTES = 64 * 1024,
    MAX_TIMEOUT_MS = 24 * 3600 * 1000
};

const char *rc_options_complete(rc_options *options)
{
    if (options->url_len == 0) {
        options->url = DEFAULT_URL;
        options->url_len = strlen(DEFAULT_URL);
    }
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
    if (options->driver < RC_DRIVER_REACTOR || options->driver > RC_DRIVER_HOST)
        return "driver is out of range";
    if (options->driver != RC_DRIVER_REACTOR && options->clock != NULL)
        return "clock has no driver but the default one";
    return options->max_queue < 0 ? "max_queue is out of range" : NULL;
}

const char *rc_options_check_memory(const rc_options *options, const struct rc_address *address)
{
    if (!address->is_memory && options->max_bytes != 0)
        return "max_bytes is for memory:// only: a server has a limit of its own";
    if (!address->is_memory && options->clock != NULL)
        return "clock is for memory:// only: a server goes by its own";
    if (address->is_memory && options->near_name_len > 0)
        return "near_name is not for memory://: other processes do not see its store";
    if (options->max_bytes != 0 &&
        (options->max_bytes < MIN_STORE_BYTES || options->max_bytes > INT64_C(1) << 36))
        return "max_bytes is out of range";
    return NULL;
}
