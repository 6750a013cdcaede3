/*
 * options - what rc_open is given: defaults, ranges, and what does not go together.
 */
#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

#include "client/client.h"
#include "engine/breaker.h"
#include "near/near.h"

#define DEFAULT_URL "memory://"

enum { MINUTE_MS = 60 * 1000, HOUR_MS = 60 * MINUTE_MS, MIB = 1024 * 1024, ZONE_MAX = 4096 };

/* Every number that rc_open takes: the only table of their ranges and defaults.
   lua/redcache/options.lua says the same in Lua's names and in seconds; spec/unit/options_spec.lua
   compares the two. */
struct number {
    size_t at;
    bool is_wide;    /* int64_t */
    int64_t initial; /* in place of 0 */
    int64_t min;
    int64_t max;
};

#define WIDE(field)   offsetof(rc_options, field), true
#define NARROW(field) offsetof(rc_options, field), false

static const struct number NUMBERS[] = {
    /* A minute without an answer is no time-out any more, but milliseconds taken for seconds. */
    [RC_OPTION_CONNECT_TIMEOUT] = {NARROW(connect_timeout_ms), 1000, 1, MINUTE_MS},
    [RC_OPTION_COMMAND_TIMEOUT] = {NARROW(command_timeout_ms), 500, 1, MINUTE_MS},
    /* Redis takes strings of up to 512 MiB, and our header is one part of them. */
    [RC_OPTION_MAX_VALUE] = {WIDE(max_value_bytes), 8 * MIB, 1, 512 * MIB - 1024},
    [RC_OPTION_MAX_KEY] = {NARROW(max_key_bytes), 64 * 1024, 1, 16 * MIB},
    [RC_OPTION_MAX_QUEUE] = {NARROW(max_queue), 64 * 1024, 1, 16 * MIB},
    [RC_OPTION_MAX_LENT] = {NARROW(max_lent), 16, 1, 4096},
    [RC_OPTION_DEGRADED_TTL] = {NARROW(degraded_ttl_ms), 1000, 1, HOUR_MS},
    [RC_OPTION_SPIN] = {NARROW(spin), 1, -1, 1},
    [RC_OPTION_NEAR_BYTES] = {WIDE(near_bytes), 64 * MIB, RC_NEAR_MIN_BYTES, INT64_C(1) << 36},
    [RC_OPTION_DRIVER] = {NARROW(driver), 0, RC_DRIVER_REACTOR, RC_DRIVER_HOST},
    /* 0 is for what the store was opened with. */
    [RC_OPTION_MAX_BYTES] = {WIDE(max_bytes), 0, 64 * 1024, INT64_C(1) << 36},
    [RC_OPTION_BREAKER] = {NARROW(breaker), 1, -1, 1},
    [RC_OPTION_BREAKER_WINDOW] = {NARROW(breaker_window), 20, 1, RC_BREAKER_WINDOW_MAX},
    [RC_OPTION_BREAKER_ERRORS] = {NARROW(breaker_errors), 500, 1, 1000},
    [RC_OPTION_BREAKER_LATENCY] = {NARROW(breaker_latency_ms), 100, 1, MINUTE_MS},
    [RC_OPTION_BREAKER_WAIT] = {NARROW(breaker_wait_ms), 250, 1, 1000},
    [RC_OPTION_BREAKER_PROBES] = {NARROW(breaker_probes), 3, 1, 100},
};

enum { NUMBERS_END = sizeof NUMBERS / sizeof NUMBERS[0] };

static bool is_number(int32_t option)
{
    return option >= 0 && option < NUMBERS_END && NUMBERS[option].max != 0;
}

int rc_option_range(int32_t option, int64_t *min, int64_t *max)
{
    if (!is_number(option))
        return RC_ERR_ARGUMENT;
    *min = NUMBERS[option].min;
    *max = NUMBERS[option].max;
    return 0;
}

bool rc_refuse(rc_refusal *refusal, int32_t option, const char *why)
{
    if (why == NULL)
        return false;
    refusal->option = option;
    refusal->text = why;
    return true;
}

static int64_t read_number(const rc_options *options, const struct number *number)
{
    const char *at = (const char *)options + number->at;
    int64_t wide;
    int32_t narrow;
    if (number->is_wide)
        memcpy(&wide, at, sizeof wide);
    else
        memcpy(&narrow, at, sizeof narrow);
    return number->is_wide ? wide : narrow;
}

static void write_number(rc_options *options, const struct number *number, int64_t value)
{
    char *at = (char *)options + number->at;
    int32_t narrow = (int32_t)value;
    if (number->is_wide)
        memcpy(at, &value, sizeof value);
    else
        memcpy(at, &narrow, sizeof narrow);
}

bool rc_options_complete(rc_options *options, rc_refusal *refusal)
{
    if (options->url_len == 0) {
        options->url = DEFAULT_URL;
        options->url_len = strlen(DEFAULT_URL);
    }
    /* A server that is far away is not slow, unless somebody has said what is slow. */
    if (options->breaker == 0 && options->breaker_latency_ms == 0)
        options->breaker_latency_ms = MINUTE_MS;
    for (int32_t option = 0; option < NUMBERS_END; option++) {
        const struct number *number = &NUMBERS[option];
        int64_t value = is_number(option) ? read_number(options, number) : 0;
        if (!is_number(option))
            continue;
        if (value == 0)
            write_number(options, number, number->initial);
        else if (value < number->min || value > number->max)
            return !rc_refuse(refusal, option, "it is out of range");
    }
    if (options->zone_len > ZONE_MAX)
        return !rc_refuse(refusal, RC_OPTION_ZONE, "it is too long");
    if (options->driver != RC_DRIVER_REACTOR && options->clock != NULL)
        return !rc_refuse(refusal, RC_OPTION_CLOCK, "it has no driver but the default one");
    return true;
}

bool rc_options_check_memory(const rc_options *options, const struct rc_address *address,
                             rc_refusal *refusal)
{
    if (!address->is_memory && options->max_bytes != 0)
        return !rc_refuse(refusal, RC_OPTION_MAX_BYTES,
                          "it is for memory:// only: a server has a limit of its own");
    if (!address->is_memory && options->clock != NULL)
        return !rc_refuse(refusal, RC_OPTION_CLOCK,
                          "it is for memory:// only: a server goes by its own");
    if (address->is_memory && options->near_name_len > 0)
        return !rc_refuse(refusal, RC_OPTION_NEAR_NAME,
                          "a shared near cache is not for memory://: other processes do not see "
                          "its store");
    return true;
}

bool rc_options_check_tls(const rc_options *options, const struct rc_address *address,
                          rc_refusal *refusal)
{
    static const char NEEDS_TLS[] = "it is for TLS, which the url asks for: rediss://";
    if (!address->is_tls && options->tls_cert_len > 0)
        return !rc_refuse(refusal, RC_OPTION_TLS_CERT, NEEDS_TLS);
    if (!address->is_tls && options->tls_key_len > 0)
        return !rc_refuse(refusal, RC_OPTION_TLS_KEY, NEEDS_TLS);
    if (!address->is_tls && options->tls_name_len > 0)
        return !rc_refuse(refusal, RC_OPTION_TLS_NAME, NEEDS_TLS);
    if (options->tls_cert_len > 0 && options->tls_key_len == 0)
        return !rc_refuse(refusal, RC_OPTION_TLS_CERT, "it needs the file with its key, too");
    if (options->tls_key_len > 0 && options->tls_cert_len == 0)
        return !rc_refuse(refusal, RC_OPTION_TLS_KEY,
                          "it needs the file with its certificate, too");
    return true;
}

bool rc_options_take_login(const rc_options *options, struct rc_address *address,
                           rc_refusal *refusal)
{
    size_t user_len = options->user_len, password_len = options->password_len;
    int32_t first = user_len > 0 ? RC_OPTION_USER : RC_OPTION_PASSWORD;
    if (user_len == 0 && password_len == 0)
        return true;
    if (address->is_memory)
        return !rc_refuse(refusal, first, "memory:// has no users");
    if (address->has_password)
        return !rc_refuse(refusal, first, "user and password stand in the url already");
    if (password_len == 0)
        return !rc_refuse(refusal, RC_OPTION_USER, "it needs a password, too");
    if (user_len >= sizeof address->user)
        return !rc_refuse(refusal, RC_OPTION_USER, "it is too long");
    if (password_len >= sizeof address->password)
        return !rc_refuse(refusal, RC_OPTION_PASSWORD, "it is too long");
    if (user_len > 0) /* of none there is not even a place to copy from */
        memcpy(address->user, options->user, user_len);
    memcpy(address->password, options->password, password_len);
    address->user_len = user_len;
    address->password_len = password_len;
    address->has_user = user_len > 0;
    address->has_password = true;
    return true;
}

bool rc_options_log_in(const rc_options *options, struct rc_address *address, rc_refusal *refusal)
{
    bool has_user = options->sentinel_user_len > 0;
    bool has_password = options->sentinel_password_len > 0;
    int32_t named = has_user ? RC_OPTION_SENTINEL_USER : RC_OPTION_SENTINEL_PASSWORD;
    if (address->sentinel_count == 0 && (has_user || has_password))
        return !rc_refuse(refusal, named, "it is for redis+sentinel:// only");
    if (has_user && !has_password)
        return !rc_refuse(refusal, named, "it needs the sentinels' password beside it");
    if (!rc_address_log_in_at_sentinels(address, options->sentinel_user, options->sentinel_user_len,
                                        options->sentinel_password, options->sentinel_password_len))
        return !rc_refuse(refusal, named, "user or password is too long");
    return true;
}

static bool is_this_machine(const struct rc_address *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (address->is_unix || address->is_memory || strcmp(address->host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, address->host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* The cluster may name others; who lists nodes of this machine alone speaks of a bed on it. */
static bool are_this_machine(const struct rc_address *list)
{
    for (uint32_t i = 0; i < list->node_count; i++) {
        struct rc_address address;
        rc_address_listed(&address, list, i);
        if (!is_this_machine(&address))
            return false;
    }
    return list->node_count > 0;
}

bool rc_options_is_private(const rc_options *options, const struct rc_address *address)
{
    return address->is_tls || options->tls == RC_TLS_OFF || is_this_machine(address) ||
           are_this_machine(address);
}

bool rc_options_check_auth(const rc_options *options, const struct rc_address *address,
                           rc_refusal *refusal)
{
    if (options->tls == RC_TLS_OFF && address->is_tls)
        return !rc_refuse(refusal, RC_OPTION_TLS, "the url asks for TLS: rediss://");
    if (options->auth == 0)
        return true;
    if (address->is_memory)
        return !rc_refuse(refusal, RC_OPTION_AUTH, "memory:// has no users");
    if (address->has_password)
        return !rc_refuse(refusal, RC_OPTION_AUTH,
                          "it gives user and password: leave them out elsewhere");
    if (!rc_options_is_private(options, address))
        return !rc_refuse(refusal, RC_OPTION_AUTH,
                          "without TLS everybody on the way reads the passwords: use rediss://, or "
                          "say tls = \"off\"");
    return true;
}
