#include "engine/lease_request.h"

#include <string.h>

#include "base/slot.h"
#include "engine/command.h"

int rc_lease_helper_key(struct rc_buf *out, enum rc_purpose purpose, const char *key, size_t len)
{
    rc_buf_clear(out);
    return rc_slot_helper_key(out, key, len, purpose == RC_FLIGHT_PUT ? ":put" : ":refresh");
}

/* A put that hides the old value has a key to put it aside. */
static bool has_old_key(enum rc_purpose purpose, uint32_t flags)
{
    return purpose == RC_FLIGHT_PUT && (flags & RC_HIDE_OLD) != 0;
}

static int write_old_key(struct rc_buf *out, const char *key, size_t len)
{
    struct rc_buf old;
    rc_buf_init(&old);
    int error = rc_slot_helper_key(&old, key, len, ":old");
    if (error == 0)
        error = rc_command_bytes(out, rc_buf_head(&old), rc_buf_len(&old));
    rc_buf_deinit(&old);
    return error;
}

void rc_lease_write(char lease[RC_ENTRY_SIZE], const char *token)
{
    rc_entry_write_kind(lease, RC_KIND_LEASE, 0, token);
}

/* A request about a flight's keys: value key, helper key (refresh and put), the old value's. */
static int begin(struct rc_buf *out, enum rc_script script, enum rc_purpose purpose, uint32_t flags,
                 const struct rc_buf *helper, const char *key, size_t len, uint32_t argument_count)
{
    bool two = purpose != RC_FLIGHT_LOAD, three = has_old_key(purpose, flags);
    int error = rc_script_begin(out, script, three ? 3 : two ? 2 : 1, argument_count);
    error |= rc_command_bytes(out, key, len);
    if (two)
        error |= rc_command_bytes(out, rc_buf_head(helper), rc_buf_len(helper));
    if (three)
        error |= write_old_key(out, key, len);
    return error;
}

/* About every key that can hold the lease: a refresh or put leases the helper key first, and the
   value key at once or later. */
int rc_lease_encode_keys(struct rc_buf *out, enum rc_script script, enum rc_purpose purpose,
                         const struct rc_buf *helper, const char *key, size_t len,
                         const char *token, int64_t ttl_ms)
{
    char lease[RC_ENTRY_SIZE];
    bool restore = script == RC_SCRIPT_PUT_RESTORE;
    uint32_t keys = purpose == RC_FLIGHT_LOAD ? 1 : 2;
    rc_lease_write(lease, token);
    int error = rc_script_begin(out, script, keys + restore, ttl_ms > 0 ? 2 : 1);
    if (purpose != RC_FLIGHT_LOAD)
        error |= rc_command_bytes(out, rc_buf_head(helper), rc_buf_len(helper));
    error |= rc_command_bytes(out, key, len);
    if (restore)
        error |= write_old_key(out, key, len);
    error |= rc_command_bytes(out, lease, sizeof lease);
    if (ttl_ms > 0)
        error |= rc_command_int(out, ttl_ms);
    return error;
}

enum rc_script rc_lease_release_script(enum rc_purpose purpose, uint32_t flags)
{
    return has_old_key(purpose, flags) ? RC_SCRIPT_PUT_RESTORE : RC_SCRIPT_RELEASE;
}

int rc_lease_encode_acquire(struct rc_flight *flight, struct rc_buf *out)
{
    static const enum rc_script SCRIPTS[] = {[RC_FLIGHT_LOAD] = RC_SCRIPT_ACQUIRE,
                                             [RC_FLIGHT_PUT] = RC_SCRIPT_PUT,
                                             [RC_FLIGHT_REFRESH] = RC_SCRIPT_REFRESH};
    char lease[RC_ENTRY_SIZE];
    enum rc_purpose purpose = flight->purpose;
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    const struct rc_op *op = rc_flight_first(flight);
    bool replaces = purpose == RC_FLIGHT_LOAD && (op->ask.load.flags & RC_REPLACE) != 0;
    rc_lease_write(lease, flight->token);
    int error = begin(out, SCRIPTS[purpose], purpose, flight->options.flags, &flight->helper, key,
                      len, purpose == RC_FLIGHT_REFRESH || replaces ? 4 : 3);
    if (purpose == RC_FLIGHT_REFRESH)
        error |= rc_command_bytes(out, op->run.seen, op->run.seen_len);
    error |= rc_command_bytes(out, lease, sizeof lease);
    error |= rc_command_int(out, flight->options.lease_ttl_ms);
    if (purpose == RC_FLIGHT_LOAD)
        error |=
            rc_command_bytes(out, flight->waited_token, flight->has_waited ? RC_NONCE_SIZE : 0);
    else
        error |= rc_command_int(out, rc_lease_margin_ms(flight));
    return replaces ? error | rc_command_bytes(out, op->run.seen, op->run.seen_len) : error;
}

int64_t rc_lease_margin_ms(const struct rc_flight *flight)
{
    /* A packet that is lost once is sent again after 200 ms; a third of the lease as for any
       heartbeat. All that others lose is the old value's last moment: they wait for the new one. */
    enum { MARGIN_MAX_MS = 250 };
    int64_t third_ms = flight->options.lease_ttl_ms / 3;
    return third_ms < MARGIN_MAX_MS ? third_ms : MARGIN_MAX_MS;
}

int rc_lease_encode_cover(struct rc_flight *flight, struct rc_buf *out)
{
    char lease[RC_ENTRY_SIZE];
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    const struct rc_op *op = flight->leader;
    rc_lease_write(lease, flight->token);
    int error = begin(out, RC_SCRIPT_COVER, flight->purpose, 0, &flight->helper, key, len, 5);
    error |= rc_command_bytes(out, lease, sizeof lease);
    error |= rc_command_int(out, flight->options.lease_ttl_ms);
    error |= rc_command_bytes(out, op->run.seen, op->run.seen_len);
    error |= rc_command_int(out, rc_lease_margin_ms(flight));
    return error | rc_command_int(out, flight->options.flags & RC_NO_RENEW ? 0 : 1);
}

int rc_lease_encode_set(struct rc_flight *flight, struct rc_buf *out)
{
    char lease[RC_ENTRY_SIZE];
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    rc_lease_write(lease, flight->token);
    int error = rc_command_head(out, 7);
    error |= rc_command_text(out, "SET");
    error |= rc_command_bytes(out, key, len);
    error |= rc_command_bytes(out, lease, sizeof lease);
    error |= rc_command_text(out, "NX");
    error |= rc_command_text(out, "GET");
    error |= rc_command_text(out, "PX");
    return error | rc_command_int(out, flight->options.lease_ttl_ms);
}

enum rc_script rc_lease_end_script(const struct rc_op *op)
{
    enum rc_purpose purpose = op->ask.purpose;
    bool stores = op->ask.kind == RC_OP_PUBLISH && op->ask.ttl_ms != 0;
    if (stores && purpose == RC_FLIGHT_REFRESH)
        return RC_SCRIPT_REFRESH_PUBLISH;
    if (stores && purpose == RC_FLIGHT_PUT)
        return RC_SCRIPT_PUT_PUBLISH;
    if (stores || (op->ask.kind == RC_OP_FAIL && purpose == RC_FLIGHT_LOAD))
        return RC_SCRIPT_PUBLISH;
    /* A failed refresh keeps its helper key a while: the next attempt waits as long as the failed
       one could have. */
    if (op->ask.kind == RC_OP_FAIL && purpose == RC_FLIGHT_REFRESH)
        return RC_SCRIPT_REFRESH_FAIL;
    return rc_lease_release_script(purpose, op->ask.load.flags);
}

static int encode_publish(struct rc_op *op, enum rc_purpose purpose, const struct rc_buf *helper,
                          const char *head, size_t head_len, const char *tail, size_t tail_len,
                          int64_t ttl_ms)
{
    struct rc_buf *out = &op->ask.request;
    char lease[RC_ENTRY_SIZE];
    const char *key = rc_buf_head(&op->ask.key);
    size_t len = rc_buf_len(&op->ask.key);
    enum rc_script script = rc_lease_end_script(op);
    rc_lease_write(lease, op->run.token);
    int error = begin(out, script, purpose, op->ask.load.flags, helper, key, len,
                      script == RC_SCRIPT_PUBLISH ? 3 : 4);
    if (script == RC_SCRIPT_REFRESH_PUBLISH)
        error |= rc_command_bytes(out, op->run.seen, op->run.seen_len);
    error |= rc_command_bytes(out, lease, sizeof lease);
    error |= rc_command_pair(out, head, head_len, tail, tail_len);
    size_t entry_end = rc_buf_len(out) - strlen("\r\n");
    error |= rc_command_int(out, ttl_ms);
    if (script == RC_SCRIPT_PUT_PUBLISH)
        error |= rc_command_bytes(out, op->run.seen, op->run.seen_len);
    else if (script == RC_SCRIPT_REFRESH_FAIL)
        error |= rc_command_int(out, op->ask.load.lease_ttl_ms);
    op->ask.entry_len = head_len + tail_len;
    op->ask.entry_from_end = rc_buf_len(out) - entry_end + op->ask.entry_len;
    return error;
}

int rc_lease_encode_end(struct rc_op *op, const char *head, size_t head_len, const char *tail,
                        size_t tail_len, int64_t ttl_ms)
{
    struct rc_buf helper;
    enum rc_purpose purpose = op->ask.purpose;
    const char *key = rc_buf_head(&op->ask.key);
    size_t len = rc_buf_len(&op->ask.key);
    int error = 0;
    rc_buf_init(&helper);
    rc_buf_clear(&op->ask.request);
    op->ask.ttl_ms = ttl_ms;
    op->ask.entry_from_end = op->ask.entry_len = 0;
    if (purpose != RC_FLIGHT_LOAD)
        error = rc_lease_helper_key(&helper, purpose, key, len);
    bool store = op->ask.kind == RC_OP_PUBLISH && ttl_ms != 0;
    bool mark = op->ask.kind == RC_OP_FAIL && purpose != RC_FLIGHT_PUT;
    if (error == 0 && (op->run.without_redis || (op->ask.kind == RC_OP_PUBLISH && !store))) {
        /* Not stored, but shared: the bytes alone, in front of the release. */
        error |= rc_buf_append(&op->ask.request, head, head_len);
        error |= rc_buf_append(&op->ask.request, tail, tail_len);
        op->ask.entry_len = op->ask.entry_from_end = head_len + tail_len;
    } else if (error == 0 && (store || mark)) {
        error = encode_publish(op, purpose, &helper, head, head_len, tail, tail_len, ttl_ms);
    }
    rc_buf_deinit(&helper);
    return error;
}

int rc_lease_encode_release(struct rc_op *op, struct rc_buf *out)
{
    struct rc_buf helper;
    enum rc_purpose purpose = op->ask.purpose;
    const char *key = rc_buf_head(&op->ask.key);
    size_t len = rc_buf_len(&op->ask.key);
    enum rc_script script = rc_lease_end_script(op);
    rc_buf_init(&helper);
    int error = purpose == RC_FLIGHT_LOAD ? 0 : rc_lease_helper_key(&helper, purpose, key, len);
    if (error == 0)
        error = rc_lease_encode_keys(out, script, purpose, &helper, key, len, op->run.token, 0);
    rc_buf_deinit(&helper);
    return error;
}
