/*
 * operation - the public calls on op slots: each checks, encodes, and hands the seat to the driver.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "client/registry.h"
#include "driver/fork.h"
#include "engine/command.h"
#include "engine/lease_request.h"
#include "engine/script.h"

static struct rc_seat *seat_of(rc_op *op)
{
    return (struct rc_seat *)(void *)op;
}

rc_op *rc_op_new(rc_client *client)
{
    struct rc_seat *seat = client != NULL ? calloc(1, sizeof *seat) : NULL;
    if (seat == NULL || rc_seat_init(seat, client) != 0) {
        free(seat);
        return NULL;
    }
    rc_client_count_user(client, 1);
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
    rc_list_init(&op->run.active);
    rc_list_init(&op->run.member);
    op->run.deadline.index = 0;
    op->run.is_running = op->run.leads = false;
    rc_op_reset(op, op->ask.kind);
    seat->driver = NULL;
    seat->is_ready = false;
    rc_loop_leave(seat);
}

/* Of a slot that is done: it holds a lease that is not ended yet. Ending it changes the kind. */
static bool is_loading(const struct rc_seat *seat)
{
    const struct rc_op *op = &seat->op;
    return op->ask.kind == RC_OP_LOAD && op->result.status == 0 && op->result.outcome == RC_LOAD;
}

void rc_op_drop(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    forget_parent(seat);
    if (seat->driver == NULL || (rc_seat_is_done(seat) && !is_loading(seat)))
        return;
    seat->is_ready = false; /* then the engine has never heard of it */
    rc_driver_call(seat->driver, drop_op, op);
    op->result.status = RC_ERR_CANCELLED;
    rc_op_measure(op);
    atomic_store(&seat->state, RC_SEAT_DONE); /* nobody else does it any more */
}

void rc_op_free(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    rc_op_drop(op);
    forget_parent(seat);
    rc_loop_leave(seat);
    struct rc_client *client = seat->client;
    rc_seat_deinit(seat);
    free(seat);
    rc_client_count_user(client, -1);
}

int rc_op_trim(rc_op *op, size_t keep_bytes)
{
    struct rc_seat *seat = seat_of(op);
    forget_parent(seat);
    if (!rc_seat_is_done(seat) || is_loading(seat))
        return RC_ERR_ARGUMENT;
    rc_op_shrink(op, keep_bytes);
    return 0;
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
    op->ask.tag = tag;
}

void rc_op_timeout(rc_op *op, int32_t timeout_ms)
{
    op->ask.timeout_ms = timeout_ms;
}

int rc_op_entry(rc_op *op, uint32_t index)
{
    rc_result *result = &op->result;
    if (index >= op->reply.count)
        return RC_ERR_ARGUMENT;
    const rc_node *node = &op->reply.nodes[index];
    result->status = node->type == '-' ? rc_reply_status(node) : 0;
    if (node->type == '-') {
        result->data = node->str;
        result->len = node->len;
        return result->status;
    }
    if (rc_entry_is_too_large(node->len, seat_of(op)->client->options.max_value_bytes)) {
        result->status = RC_ERR_TOOLARGE;
        return RC_ERR_TOOLARGE;
    }
    rc_entry_read(result, node->type == '$' ? node->str : NULL, node->len);
    result->outcome = rc_entry_is_absent(result->kind) ? RC_MISS : RC_HIT;
    return 0;
}

int rc_operation_ready(rc_op *op, enum rc_op_kind kind)
{
    struct rc_seat *seat = seat_of(op);
    forget_parent(seat);
    if (!rc_seat_is_done(seat) || is_loading(seat))
        return RC_ERR_ARGUMENT;
    rc_op_reset(op, kind);
    return 0;
}

int rc_operation_submit(rc_op *op)
{
    int error;
    struct rc_seat *seat = seat_of(op);
    struct rc_driver *driver = rc_client_driver(seat->client, &error);
    if (driver == NULL) {
        rc_op_measure(op);
        return error;
    }
    if (seat->is_held) {
        seat->is_held = false;
        rc_driver_hold(driver, seat);
        return 0;
    }
    rc_driver_submit(driver, seat);
    return 0;
}

void rc_op_hold(rc_op *op, int held)
{
    seat_of(op)->is_held = held != 0;
}

void rc_start_held(rc_op *const *ops, uint32_t count)
{
    /* A rc_op * is the address of its seat. */
    struct rc_seat *const *seats = (struct rc_seat *const *)(const void *)ops;
    for (uint32_t i = 0; i < count; i++) {
        /* Of one client: another driver only where it was closed, or the process forked. */
        if (seats[i]->is_ready)
            rc_driver_submit_all(seats[i]->driver, seats + i, count - i);
    }
}

/* After an encoding that may have failed. */
static int submit_encoded(rc_op *op, int error)
{
    if (error != 0) {
        rc_buf_clear(&op->ask.request);
        rc_op_measure(op);
        return RC_ERR_NOMEM;
    }
    return rc_operation_submit(op);
}

/* The key is what prefix and rest make together. */
static int set_key_under(rc_op *op, const char *prefix, size_t prefix_len, const char *key,
                         size_t key_len)
{
    const struct rc_client *client = seat_of(op)->client;
    if (key_len > (size_t)client->options.max_key_bytes ||
        prefix_len > (size_t)client->options.max_key_bytes - key_len)
        return RC_ERR_TOOLARGE;
    rc_buf_clear(&op->ask.key);
    int error = rc_buf_append(&op->ask.key, prefix, prefix_len);
    return error == 0 ? rc_buf_append(&op->ask.key, key, key_len) : error;
}

static int set_key(rc_op *op, const struct rc_buf *prefix, const char *key, size_t key_len)
{
    return prefix == NULL
               ? set_key_under(op, NULL, 0, key, key_len)
               : set_key_under(op, rc_buf_head(prefix), rc_buf_len(prefix), key, key_len);
}

int rc_done(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    if (!rc_seat_is_done(seat) && is_ours(seat))
        rc_driver_kick(seat->driver); /* where there is no thread it is done by this */
    return rc_seat_is_done(seat);
}

int rc_is_done(const rc_op *op)
{
    const struct rc_seat *seat = (const struct rc_seat *)(const void *)op;
    return rc_seat_is_done(seat);
}

static bool take_claim(struct rc_seat *seat)
{
    bool has_claim = seat->has_claim;
    seat->has_claim = false;
    return has_claim;
}

int rc_wait(rc_op *op)
{
    struct rc_seat *seat = seat_of(op);
    if (!rc_seat_is_done(seat)) {
        if (!is_ours(seat))
            return RC_ERR_FORKED;
        if (seat->is_ready) /* nobody else would ever start it */
            rc_start_held(&op, 1);
        seat->may_answer = seat->client->options.auth != 0;
        rc_driver_wait(seat->driver, seat);
        if (take_claim(seat))
            return RC_WAIT_AUTH;
        if (!rc_seat_is_done(seat)) /* the host owns the connections */
            return RC_ERR_ARGUMENT;
    }
    return op->result.status;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Submits a read of the op's key: the engine writes it when it is sent. */
static int submit_read(rc_op *op, bool with_ttl)
{
    op->ask.expect = with_ttl ? 2 : 1;
    return rc_operation_submit(op);
}

int rc_get_under(rc_op *op, const char *prefix, size_t prefix_len, const char *key, size_t key_len,
                 uint32_t flags)
{
    int error = rc_operation_ready(op, RC_OP_GET);
    if (error == 0)
        error = set_key_under(op, prefix, prefix_len, key, key_len);
    if (error != 0)
        return error;
    op->ask.flags = flags & RC_REPLICA;
    return submit_read(op, flags & RC_WANT_TTL);
}

int rc_get(rc_op *op, const char *key, size_t key_len, uint32_t flags)
{
    return rc_get_under(op, NULL, 0, key, key_len, flags);
}

/* The op's read may be kept near, as the view says. */
static void keep_near(rc_op *op, const struct rc_view *view)
{
    op->ask.near = true;
    op->ask.near_group = view->group;
    op->ask.near_ttl_us = view->ttl_us;
    op->ask.near_avoids = view->is_avoiding;
}

int rc_view_read(rc_view *view, rc_op *op, const char *key, size_t key_len, uint32_t flags)
{
    int error = rc_operation_ready(op, RC_OP_GET);
    if (error == 0)
        error = set_key(op, &view->prefix, key, key_len);
    if (error != 0)
        return error;
    keep_near(op, view);
    op->ask.flags = flags & RC_FRESH;
    return submit_read(op, true);
}

int rc_barrier(rc_op *op)
{
    if (seat_of(op)->client->near == NULL)
        return RC_ERR_ARGUMENT;
    int error = rc_operation_ready(op, RC_OP_BARRIER);
    return error == 0 ? rc_operation_submit(op) : error;
}

/* A plain value has no header, but one that could be taken for an entry: that is an entry. */
static const rc_entry *entry_of(const rc_entry *entry, bool is_plain, const char *value, size_t len)
{
    static const rc_entry RAW = {.kind = RC_KIND_VALUE, .codec = RC_CODEC_RAW};
    if (!is_plain)
        return entry;
    if (len == 0 || (uint8_t)value[0] != RC_ENTRY_MAGIC)
        return NULL;
    return entry != NULL ? entry : &RAW;
}

/* The header in front of a value; plain values have none (entry NULL). Returns its length. */
static size_t make_header(rc_op *op, char header[RC_ENTRY_SIZE], const rc_entry *entry,
                          const char *nonce)
{
    char fresh[RC_NONCE_SIZE];
    struct rc_driver *driver = seat_of(op)->driver;
    int error;
    if (entry == NULL)
        return 0;
    if (driver == NULL || !is_ours(seat_of(op)))
        driver = rc_client_driver(seat_of(op)->client, &error);
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
    int error = rc_operation_ready(op, RC_OP_SET);
    if (error == 0)
        error = set_key(op, NULL, key, key_len);
    if (error != 0)
        return error;
    entry = entry_of(entry, flags & RC_PLAIN, value, value_len);
    size_t header_len = make_header(op, header, entry, NULL);
    op->ask.is_plain = header_len == 0;
    if (!op->ask.is_plain)
        memcpy(op->run.nonce, rc_entry_version(header), RC_NONCE_SIZE);
    struct rc_buf *out = &op->ask.request;
    error = rc_command_head(out, ttl_ms < 0 ? 3 : 5);
    error |= rc_command_text(out, "SET");
    error |= rc_command_bytes(out, key, key_len);
    error |= rc_command_pair(out, header, header_len, value, value_len);
    if (ttl_ms > 0) {
        error |= rc_command_text(out, "PX");
        error |= rc_command_int(out, ttl_ms);
    }
    op->ask.expect = 1;
    return submit_encoded(op, error);
}

int rc_delete(rc_op *op, const char *key, size_t key_len)
{
    int error = rc_operation_ready(op, RC_OP_DELETE);
    if (error == 0)
        error = set_key(op, NULL, key, key_len);
    if (error != 0)
        return error;
    error = rc_command_head(&op->ask.request, 2);
    error |= rc_command_text(&op->ask.request, "UNLINK");
    error |= rc_command_bytes(&op->ask.request, key, key_len);
    op->ask.expect = 1;
    return submit_encoded(op, error);
}

/* ---- any commands ---------------------------------------------------------------------------- */

int rc_begin(rc_op *op, uint32_t flags)
{
    int error = rc_operation_ready(op, RC_OP_COMMAND);
    if (error != 0)
        return error; /* it may be running: hands off */
    op->ask.flags = flags;
    rc_buf_clear(&op->ask.key);
    rc_sharing_init(&op->ask.sharing, false, false);
    return 0;
}

int rc_pause(rc_op *op, int32_t ms)
{
    int error = rc_operation_ready(op, RC_OP_PAUSE);
    if (error != 0)
        return error;
    op->ask.ttl_ms = ms > 0 ? ms : 0;
    return rc_operation_submit(op);
}

int rc_at_slot(rc_op *op, int32_t slot)
{
    if (op->ask.kind != RC_OP_COMMAND || slot < 0 || slot >= RC_SLOT_COUNT)
        return RC_ERR_ARGUMENT;
    op->ask.at_slot = slot;
    return 0;
}

int rc_command_begin(rc_op *op, uint32_t argument_count)
{
    op->ask.expect++;
    rc_sharing_begin(&op->ask.sharing, argument_count);
    rc_op_measure(op); /* a batch that breaks off here is not finished by the engine */
    return rc_command_head(&op->ask.request, argument_count);
}

int rc_script_define(const char *source, size_t len)
{
    rc_registry_init();
    return rc_script_add(source, len);
}

int rc_command_script(rc_op *op, int script, uint32_t key_count, uint32_t argument_count)
{
    if (!rc_script_is_known(script))
        return RC_ERR_ARGUMENT;
    op->ask.expect++;
    op->ask.script = (int16_t)script;
    rc_sharing_begin(&op->ask.sharing, 1 + key_count + argument_count);
    rc_sharing_argument(&op->ask.sharing, "", 0); /* what begins it is written here */
    rc_op_measure(op);
    return rc_script_begin(&op->ask.request, script, key_count, argument_count);
}

int rc_argument(rc_op *op, const char *bytes, size_t len)
{
    rc_sharing_argument(&op->ask.sharing, bytes, len);
    return rc_command_bytes(&op->ask.request, bytes, len);
}

int rc_argument_written(rc_op *op, const char *key, size_t key_len)
{
    uint32_t len = (uint32_t)key_len;
    rc_sharing_argument(&op->ask.sharing, key, key_len);
    if (key_len <= RC_NEAR_MAX_KEY && (rc_buf_append(&op->ask.written, &len, sizeof len) != 0 ||
                                       rc_buf_append(&op->ask.written, key, key_len) != 0))
        return RC_ERR_NOMEM;
    return rc_command_bytes(&op->ask.request, key, key_len);
}

int rc_argument_under(rc_op *op, const char *prefix, size_t prefix_len, const char *key,
                      size_t key_len, int is_written)
{
    uint32_t len = (uint32_t)(prefix_len + key_len);
    rc_sharing_argument(&op->ask.sharing, "", 0);
    if (is_written && prefix_len <= RC_NEAR_MAX_KEY && key_len <= RC_NEAR_MAX_KEY - prefix_len &&
        (rc_buf_append(&op->ask.written, &len, sizeof len) != 0 ||
         rc_buf_append(&op->ask.written, prefix, prefix_len) != 0 ||
         rc_buf_append(&op->ask.written, key, key_len) != 0))
        return RC_ERR_NOMEM;
    return rc_command_pair(&op->ask.request, prefix, prefix_len, key, key_len);
}

int rc_argument_int(rc_op *op, int64_t number)
{
    rc_sharing_argument(&op->ask.sharing, "", 0);
    return rc_command_int(&op->ask.request, number);
}

int rc_argument_entry(rc_op *op, const rc_entry *entry, const char *value, size_t value_len)
{
    char header[RC_ENTRY_SIZE];
    if (is_too_large(op, value_len))
        return RC_ERR_TOOLARGE;
    rc_sharing_argument(&op->ask.sharing, "", 0);
    entry = entry_of(entry, entry == NULL, value, value_len);
    return rc_command_pair(&op->ask.request, header, make_header(op, header, entry, NULL), value,
                           value_len);
}

int rc_submit(rc_op *op)
{
    char text[RC_SHARING_TEXT];
    const char *objection = rc_sharing_objection(&op->ask.sharing, text);
    if (op->ask.expect == 0)
        return RC_ERR_ARGUMENT;
    if (objection != NULL) {
        rc_op_keep(op, objection, strlen(objection));
        op->result.status = RC_ERR_REFUSED;
        return RC_ERR_REFUSED;
    }
    int error = op->ask.lent != NULL ? op->ask.lent->on_submit(op->ask.lent, op) : 0;
    return error == 0 ? rc_operation_submit(op) : error;
}

int rc_delete_submit(rc_op *op)
{
    if (op->ask.expect != 1)
        return RC_ERR_ARGUMENT;
    op->ask.kind = RC_OP_DELETE;
    return rc_operation_submit(op);
}

/* ---- remember -------------------------------------------------------------------------------- */

/* Names what the slot's last result has found, before the slot is used again. */
static void keep_seen(rc_op *op)
{
    const rc_result *found = &op->result;
    op->run.seen_len = 0;
    if (found->kind == RC_KIND_UNKNOWN || found->kind == RC_KIND_PLAIN) {
        op->run.seen_len = (uint8_t)rc_entry_identity(op->run.seen, found->data, found->len);
    } else if (found->kind != RC_KIND_NONE) {
        memcpy(op->run.seen, found->version, RC_NONCE_SIZE);
        op->run.seen_len = RC_NONCE_SIZE;
    }
}

static int start_load(rc_op *op, const struct rc_view *view, const char *key, size_t key_len,
                      const rc_load_options *options)
{
    const struct rc_buf *prefix = view != NULL ? &view->prefix : NULL;
    if (options->lease_ttl_ms <= 0 || options->max_load_ms <= 0 || options->wait_timeout_ms <= 0)
        return RC_ERR_ARGUMENT;
    bool is_idle = rc_seat_is_done(seat_of(op)) && !is_loading(seat_of(op));
    bool was_busy = is_idle && op->ask.kind == RC_OP_LOAD && op->result.status == 0 &&
                    op->result.outcome == RC_BUSY;
    if ((options->flags & RC_REPLACE) && is_idle)
        keep_seen(op);
    int error = rc_operation_ready(op, RC_OP_LOAD);
    if (error == 0)
        error = set_key(op, prefix, key, key_len);
    if (error != 0)
        return error;
    op->run.has_waited = was_busy && op->run.has_waited; /* another key's token meets no lease */
    op->ask.load = *options;
    op->ask.purpose = options->flags & RC_PUT ? RC_FLIGHT_PUT : RC_FLIGHT_LOAD;
    if (options->flags & (RC_PUT | RC_SCRIPT_FIRST | RC_REPLACE))
        return rc_operation_submit(op);
    if (view != NULL)
        keep_near(op, view);
    op->ask.flags = options->flags & (RC_FRESH | RC_REPLICA);
    return submit_read(op, view != NULL || options->flags & RC_WANT_TTL);
}

int rc_load(rc_op *op, const char *key, size_t key_len, const rc_load_options *options)
{
    return start_load(op, NULL, key, key_len, options);
}

int rc_view_load(rc_view *view, rc_op *op, const char *key, size_t key_len,
                 const rc_load_options *options)
{
    return start_load(op, view, key, key_len, options);
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
    entry = entry_of(entry, flags & RC_PLAIN, value, value_len);
    size_t header_len = make_header(op, header, entry, op->run.nonce);
    op->ask.is_plain = header_len == 0;
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
    rc_entry_write_kind(header, RC_KIND_ERROR, error_ttl_ms > 0 ? RC_ENTRY_STICKY : 0,
                        op->run.token);
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
