#include "engine/engine.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/hold.h"

/* ---- news of the nodes ------------------------------------------------------------------------ */

static void on_tracked(void *owner, struct rc_server_node *node)
{
    struct rc_engine *engine = owner;
    (void)node;
    rc_locks_on_tracking(&engine->locks);
}

/* Nobody tells us of changes any more: all who wait look for themselves. */
static void on_untracked(void *owner, struct rc_server_node *node)
{
    struct rc_engine *engine = owner;
    (void)node;
    rc_track_fire_all(&engine->track);
}

static void drop_pushed(void *owner, const char *key, size_t len)
{
    struct rc_link *link = owner;
    struct rc_engine *engine = link->node->news.owner;
    rc_hold_push(link, key, len);
    if (engine->near == NULL)
        return;
    if (key == NULL) {
        rc_node_begin_epoch(link->node);
        rc_fetches_push(&engine->fetches, link, NULL, 0);
        rc_revalidate_start(&link->node->revalidate); /* it may have been another database */
        return;
    }
    rc_fetches_push(&engine->fetches, link, key, len);
    rc_near_drop(engine->near, key, len, RC_NEAR_PUSH);
}

static void on_push(void *owner, struct rc_link *link, const struct rc_reply *push)
{
    struct rc_engine *engine = owner;
    rc_track_push(&engine->track, push, drop_pushed, link);
}

static void deliver_fetched(void *owner, struct rc_op *op, int status, struct rc_reply *reply,
                            const char *text);

int rc_engine_init(struct rc_engine *engine, const rc_options *options,
                   const struct rc_address *address, struct rc_near *near,
                   const struct rc_seed *seed, int64_t now_us)
{
    const struct rc_node_news news = {engine, on_tracked, on_untracked, on_push};
    struct rc_context *context = &engine->context;
    struct rc_topology *topology = &engine->topology;
    memset(engine, 0, sizeof *engine);
    rc_list_init(&engine->running);
    int error = rc_context_init(context, options, seed);
    if (error != 0)
        return error;
    context->now_us = now_us;
    error = rc_topology_init(topology, context, address, near, &news);
    if (error != 0) {
        rc_context_deinit(context);
        return error;
    }
    engine->near = rc_topology_node(topology, RC_SLOT_ANY)->near;
    rc_fetches_init(&engine->fetches, context, topology, engine->near);
    engine->fetches.deliver = deliver_fetched;
    engine->fetches.engine = engine;
    rc_track_init(&engine->track, seed);
    rc_leases_init(&engine->leases, context, topology, &engine->track);
    rc_locks_init(&engine->locks, context, topology, &engine->track);
    return 0;
}

void rc_engine_deinit(struct rc_engine *engine)
{
    rc_leases_deinit(&engine->leases);
    rc_locks_deinit(&engine->locks);
    rc_track_deinit(&engine->track);
    rc_fetches_deinit(&engine->fetches);
    rc_topology_deinit(&engine->topology);
    rc_context_deinit(&engine->context);
}

/* ---- simple commands ------------------------------------------------------------------------- */

static void read_entry(struct rc_op *op, const struct rc_reply *reply, int64_t max_value_bytes)
{
    const rc_node *value = &reply->nodes[0];
    if (reply->count > 1 && reply->nodes[1].type == ':')
        op->result.ttl_ms = reply->nodes[1].integer;
    if (rc_entry_is_too_large(value->len, max_value_bytes)) {
        op->result.status = RC_ERR_TOOLARGE;
        return;
    }
    if (value->type == '-') {
        op->result.status = RC_ERR_REDIS;
        op->result.data = value->str;
        op->result.len = value->len;
        return;
    }
    rc_entry_read(&op->result, value->type == '$' ? value->str : NULL, value->len);
    op->result.outcome = rc_entry_is_absent(op->result.kind) ? RC_MISS : RC_HIT;
}

static void read_answer(struct rc_op *op, const struct rc_reply *reply)
{
    const rc_node *node = &reply->nodes[0];
    op->result.outcome = RC_DONE;
    op->result.nodes = reply->count;
    if (node->type == ':' || node->type == '#')
        op->result.number = node->integer;
    if (node->str != NULL && reply->count == 1) {
        op->result.data = node->str;
        op->result.len = node->len;
    }
    if (node->type == '-' && op->kind != RC_OP_COMMAND)
        op->result.status = RC_ERR_REDIS;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    op->req = NULL;
    if (status != 0) {
        rc_context_fail(req->context, op, status, text);
        return;
    }
    rc_reply_swap(&op->reply, reply);
    if (op->kind == RC_OP_GET)
        read_entry(op, &op->reply, req->context->options.max_value_bytes);
    else
        read_answer(op, &op->reply);
    if (op->kind == RC_OP_BARRIER)
        op->result.number = req->sent_us;
    rc_context_finish(req->context, op);
}

/* What was read over T, for a get or as the first look of a load. */
static void deliver_fetched(void *owner, struct rc_op *op, int status, struct rc_reply *reply,
                            const char *text)
{
    struct rc_engine *engine = owner;
    if (op->kind == RC_OP_LOAD) {
        rc_leases_first_answer(&engine->leases, op, status, reply, text);
    } else if (status != 0) {
        rc_context_fail(&engine->context, op, status, text);
    } else {
        rc_reply_swap(&op->reply, reply);
        read_entry(op, &op->reply, engine->context.options.max_value_bytes);
        rc_context_finish(&engine->context, op);
    }
}

static int64_t command_timeout_ms(const struct rc_engine *engine, const struct rc_op *op)
{
    return op->timeout_ms > 0 ? op->timeout_ms : engine->context.options.command_timeout_ms;
}

static int32_t slot_of(const struct rc_engine *engine, const struct rc_buf *key)
{
    return rc_topology_slot(&engine->topology, rc_buf_head(key), rc_buf_len(key));
}

static void start_command(struct rc_engine *engine, struct rc_op *op)
{
    struct rc_context *context = &engine->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL) {
        rc_context_fail(context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    rc_buf_swap(&req->bytes, &op->request);
    req->expect = op->expect;
    req->may_retry = op->kind == RC_OP_GET || op->kind == RC_OP_DELETE || (op->flags & RC_RETRY);
    req->done = on_answer;
    req->owner = op;
    op->req = req;
    rc_topology_send(&engine->topology, req, RC_LINK_W, slot_of(engine, &op->key),
                     rc_context_after_ms(context, command_timeout_ms(engine, op)));
}

/* A read over T, if its answer can be kept. */
static bool start_fetch(struct rc_engine *engine, struct rc_op *op, const char *key, size_t len)
{
    if (!op->near || !rc_fetch_is_possible(&engine->fetches, key, len))
        return false;
    rc_fetch_start(&engine->fetches, op, key, len, op->flags, command_timeout_ms(engine, op));
    return true;
}

static void start_barrier(struct rc_engine *engine, struct rc_op *op)
{
    struct rc_context *context = &engine->context;
    struct rc_server_node *node = rc_topology_node(&engine->topology, RC_SLOT_ANY);
    struct rc_req *req = engine->near != NULL ? rc_horizon_ping(&node->horizon) : NULL;
    if (req == NULL) {
        rc_context_fail(context, op, engine->near != NULL ? RC_ERR_NOMEM : RC_ERR_ARGUMENT, NULL);
        return;
    }
    req->done = on_answer;
    req->owner = op;
    op->req = req;
    rc_topology_send(&engine->topology, req, RC_LINK_T, RC_SLOT_ANY,
                     rc_context_after_ms(context, command_timeout_ms(engine, op)));
}

/* ---- own writes: gone from the near cache when they start, and again when they are done. And what
   was read past it: another process of this machine may hold an older copy whose push is still on
   its way, and a reader who saw the newer value must not find that ------------------------------- */

/* The keys an op writes, one after the other; `at` begins as 0. False: there are no more. */
static bool next_written(const struct rc_op *op, size_t *at, const char **key, size_t *len)
{
    const struct rc_buf *written = &op->written;
    bool is_first = *at == 0, is_one = false;
    uint32_t part;
    switch (op->kind) {
    case RC_OP_SET: is_one = true; break;
    case RC_OP_DELETE: is_one = rc_buf_len(written) == 0; break; /* perhaps the empty key */
    case RC_OP_COMMAND: break;
    case RC_OP_LOAD:
        if (!(op->load.flags & RC_HIDE_OLD))
            return false;
        /* fallthrough */
    case RC_OP_PUBLISH:
    case RC_OP_FAIL:
    case RC_OP_RELEASE: is_one = true; break;
    default: return false;
    }
    if (is_one) {
        *at = 1;
        *key = rc_buf_head(&op->key);
        *len = rc_buf_len(&op->key);
        return is_first;
    }
    if (*at >= rc_buf_len(written))
        return false;
    memcpy(&part, rc_buf_head(written) + *at, sizeof part);
    *key = rc_buf_head(written) + *at + sizeof part;
    *len = part;
    *at += sizeof part + part;
    return true;
}

/* What a read brought past the near cache. */
static void drop_bypassed(struct rc_engine *engine, const struct rc_op *op)
{
    if (!op->has_newer || engine->near == NULL)
        return;
    if ((op->kind == RC_OP_GET && op->result.status == 0) ||
        (op->kind == RC_OP_LOAD && op->result.outcome == RC_HIT))
        rc_near_drop(engine->near, rc_buf_head(&op->key), rc_buf_len(&op->key), RC_NEAR_WRITE);
}

static struct rc_replay *replay_of(struct rc_engine *engine, const char *key, size_t len)
{
    int32_t slot = rc_topology_slot(&engine->topology, key, len);
    return &rc_topology_node(&engine->topology, slot)->replay;
}

static void begin_writes(struct rc_engine *engine, const struct rc_op *op)
{
    const char *key;
    size_t len, at = 0;
    while (next_written(op, &at, &key, &len)) {
        char version[RC_NONCE_SIZE];
        bool is_known = engine->near != NULL && rc_near_drop_known(engine->near, key, len, version);
        if (op->kind == RC_OP_DELETE)
            rc_replay_begin(replay_of(engine, key, len), key, len, is_known ? version : NULL);
    }
}

static void end_writes(struct rc_engine *engine, const struct rc_op *op)
{
    const char *key;
    size_t len, at = 0;
    bool is_done = op->result.status == 0, is_value = op->kind == RC_OP_SET;
    if (op->kind == RC_OP_PUBLISH)
        is_value = op->result.outcome == RC_STORED;
    while (next_written(op, &at, &key, &len)) {
        if (engine->near != NULL && !RC_MUTANT(NO_PURGE_AT_ACK))
            rc_near_drop(engine->near, key, len, RC_NEAR_WRITE);
        if (op->kind == RC_OP_DELETE)
            rc_replay_end(replay_of(engine, key, len), key, len, is_done);
        else if (is_done && (is_value || op->kind == RC_OP_COMMAND))
            rc_replay_settle(replay_of(engine, key, len), key, len);
        if (is_done && is_value && !op->is_plain)
            rc_replay_saw(replay_of(engine, key, len), key, len, op->nonce);
    }
}

/* The version that a read has brought: a delete of it may have to be sent again. */
static void note_read(struct rc_engine *engine, const struct rc_op *op)
{
    const rc_result *result = &op->result;
    const char *key = rc_buf_head(&op->key);
    size_t len = rc_buf_len(&op->key);
    if ((op->kind == RC_OP_GET || op->kind == RC_OP_LOAD) && result->status == 0 &&
        (result->kind == RC_KIND_VALUE || result->kind == RC_KIND_NEGATIVE))
        rc_replay_saw(replay_of(engine, key, len), key, len, result->version);
}

/* ---- the life of an op ----------------------------------------------------------------------- */

/* Out of everything it is in; what was sent for it alone is no longer waited for. */
static void take_out(struct rc_engine *engine, struct rc_op *op)
{
    if (op->req != NULL)
        rc_link_forget(op->req);
    op->req = NULL;
    if (op->fetch != NULL)
        rc_fetch_leave(op);
    else if (op->kind == RC_OP_LOCK_ACQUIRE)
        rc_locks_leave(&engine->locks, op);
    else if (op->kind == RC_OP_LOAD || op->kind == RC_OP_PUBLISH || op->kind == RC_OP_FAIL ||
             op->kind == RC_OP_RELEASE)
        rc_leases_leave(&engine->leases, op);
}

/* The time that Redis had for an answer is over, and not that of the call: what still asks Redis
   gives up, and whoever waits for another's load or lock goes on. */
static bool goes_on(struct rc_engine *engine, struct rc_op *op)
{
    if (op->kind == RC_OP_LOCK_ACQUIRE && !rc_locks_has_answered(&engine->locks, op))
        return false;
    rc_context_set_timer(&engine->context, &op->deadline, op->wait_until_us);
    op->wait_until_us = 0;
    if (op->kind == RC_OP_LOAD && op->fetch != NULL) { /* prolonged by others who share it */
        rc_fetch_leave(op);
        rc_leases_first_answer(&engine->leases, op, RC_ERR_TIMEOUT, NULL, NULL);
    } else if (op->kind == RC_OP_LOAD) {
        rc_leases_hurry(op);
    }
    return true;
}

static void on_deadline(void *context, struct rc_timer *timer)
{
    struct rc_op *op = RC_CONTAINER(timer, struct rc_op, deadline);
    struct rc_engine *engine = RC_CONTAINER(context, struct rc_engine, context);
    bool is_early = op->wait_until_us > 0;
    if (is_early && goes_on(engine, op))
        return;
    bool waited = op->kind == RC_OP_LOCK_ACQUIRE && op->lock_options.wait_ms > 0 && !is_early;
    /* Nobody could have told us whether a lock is free? */
    const char *deaf =
        waited ? rc_topology_why_deaf(&engine->topology, slot_of(engine, &op->lock->key)) : NULL;
    bool is_loaded = op->kind == RC_OP_LOAD && rc_leases_is_loaded_elsewhere(op);
    take_out(engine, op);
    if (deaf != NULL)
        rc_context_fail(context, op, RC_ERR_UNAVAILABLE, deaf);
    else
        rc_context_fail(context, op, waited ? RC_ERR_BUSY : RC_ERR_TIMEOUT, NULL);
    if (is_loaded)
        op->result.flags = RC_WAITED;
}

static void set_deadline(struct rc_engine *engine, struct rc_op *op, int64_t wait_ms)
{
    op->deadline.fire = on_deadline;
    rc_context_set_timer(&engine->context, &op->deadline,
                         rc_context_after_ms(&engine->context, wait_ms));
}

/* The deadline of a call that waits for more than one answer. */
static void set_deadlines(struct rc_engine *engine, struct rc_op *op, int64_t wait_ms)
{
    op->answer_by_us =
        op->timeout_ms > 0 ? rc_context_after_ms(&engine->context, op->timeout_ms) : 0;
    if (op->timeout_ms > 0 && op->timeout_ms < wait_ms) {
        /* Behind the deadline of its request, which knows better what went wrong. */
        set_deadline(engine, op, op->timeout_ms + 1);
        op->wait_until_us = rc_context_after_ms(&engine->context, wait_ms);
    } else {
        set_deadline(engine, op, wait_ms);
    }
}

static void start(struct rc_engine *engine, struct rc_op *op)
{
    switch (op->kind) {
    case RC_OP_GET:
        if (!op->near) {
            start_command(engine, op);
            break;
        }
        /* Behind the deadline of its request, which knows better what went wrong. */
        set_deadline(engine, op, command_timeout_ms(engine, op) + 1);
        op->has_newer = !start_fetch(engine, op, rc_buf_head(&op->key), rc_buf_len(&op->key));
        if (op->has_newer)
            start_command(engine, op);
        break;
    case RC_OP_BARRIER: start_barrier(engine, op); break;
    case RC_OP_COMMAND:
    case RC_OP_SET:
    case RC_OP_DELETE: start_command(engine, op); break;
    case RC_OP_LOAD:
        set_deadlines(engine, op, op->load.wait_timeout_ms);
        if (start_fetch(engine, op, rc_buf_head(&op->key), rc_buf_len(&op->key)))
            break;
        op->has_newer = op->near;
        rc_leases_load(&engine->leases, op);
        break;
    case RC_OP_PUBLISH:
    case RC_OP_FAIL:
    case RC_OP_RELEASE:
        if (op->leads)
            rc_leases_end(&engine->leases, op);
        else
            rc_context_fail(&engine->context, op, RC_ERR_CANCELLED, NULL);
        break;
    case RC_OP_LOCK_ACQUIRE:
        if (op->lock_options.wait_ms > 0)
            set_deadlines(engine, op, op->lock_options.wait_ms);
        else /* one try: behind the deadline of its request, as above */
            set_deadline(engine, op, command_timeout_ms(engine, op) + 1);
        rc_locks_acquire(&engine->locks, op);
        break;
    case RC_OP_LOCK_RELEASE: rc_locks_release(&engine->locks, op); break;
    case RC_OP_LOCK_EXTEND: rc_locks_extend(&engine->locks, op); break;
    }
}

void rc_engine_submit(struct rc_engine *engine, struct rc_op *op)
{
    struct rc_context *context = &engine->context;
    int error = rc_context_start(context, op);
    op->req = NULL;
    op->fetch = NULL;
    op->has_newer = false;
    op->answer_by_us = op->wait_until_us = 0;
    op->running_tag = op->tag;
    rc_list_append(&engine->running, &op->active);
    if (context->closing) {
        rc_list_remove(&op->member);
        op->leads = false;
        error = RC_ERR_CLOSED;
    }
    if (error != 0) {
        rc_context_fail(context, op, error, NULL);
        return;
    }
    begin_writes(engine, op);
    start(engine, op);
}

void rc_engine_run(struct rc_engine *engine)
{
    rc_context_fire_timers(&engine->context);
}

int64_t rc_engine_deadline(const struct rc_engine *engine)
{
    const struct rc_timer *timer = rc_heap_first(&engine->context.timers);
    return timer != NULL ? timer->at_us : INT64_MAX;
}

struct rc_op *rc_engine_take_finished(struct rc_engine *engine)
{
    struct rc_list *finished = &engine->context.finished;
    if (rc_list_is_empty(finished))
        return NULL;
    struct rc_op *op = RC_CONTAINER(finished->next, struct rc_op, active);
    rc_list_remove(&op->active);
    end_writes(engine, op);
    drop_bypassed(engine, op);
    note_read(engine, op);
    rc_op_measure(op);
    return op;
}

static bool has_tag(const struct rc_op *op, const void *tag)
{
    return op->running_tag == *(const uint64_t *)tag;
}

static bool is_for_lock(const struct rc_op *op, const void *lock)
{
    return (op->kind == RC_OP_LOCK_ACQUIRE || op->kind == RC_OP_LOCK_RELEASE ||
            op->kind == RC_OP_LOCK_EXTEND) &&
           op->lock == lock;
}

/* Ends the running ops that match; returns how many. With one op others may end, too (of a load whose
   leader is taken out, where there is no memory to go on): the one that follows may then stand among
   the finished ones, and the walk begins again. */
static int cancel_running(struct rc_engine *engine,
                          bool (*matches)(const struct rc_op *op, const void *argument),
                          const void *argument)
{
    int count = 0;
    struct rc_list *active = engine->running.next;
    while (active != &engine->running) {
        struct rc_op *op = RC_CONTAINER(active, struct rc_op, active);
        active = active->next;
        if (!matches(op, argument))
            continue;
        take_out(engine, op);
        rc_context_fail(&engine->context, op, RC_ERR_CANCELLED, NULL);
        count++;
        if (active != &engine->running && !RC_CONTAINER(active, struct rc_op, active)->running)
            active = engine->running.next;
    }
    return count;
}

int rc_engine_cancel(struct rc_engine *engine, uint64_t tag)
{
    int count = cancel_running(engine, has_tag, &tag);
    RC_LIST_EACH(member, next, &engine->leases.leading) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, member);
        if (op->running_tag != tag)
            continue;
        rc_leases_abandon(&engine->leases, op);
        count++;
    }
    return count;
}

void rc_engine_drop(struct rc_engine *engine, struct rc_op *op)
{
    bool is_told = !op->running && rc_list_is_empty(&op->active);
    if (op->running) {
        take_out(engine, op);
        op->result.status = RC_ERR_CANCELLED;
        rc_context_finish(&engine->context, op);
    }
    if (!is_told)
        end_writes(engine, op);
    rc_list_remove(&op->active); /* out of the finished ones: the driver must not touch it again */
    if (op->leads)
        rc_leases_abandon(&engine->leases, op);
}

void rc_engine_drop_lock(struct rc_engine *engine, struct rc_lock *lock)
{
    cancel_running(engine, is_for_lock, lock);
    rc_locks_drop(&engine->locks, lock);
}

/* ---- closing --------------------------------------------------------------------------------- */

void rc_engine_close(struct rc_engine *engine)
{
    struct rc_context *context = &engine->context;
    context->closing = true;
    while (!rc_list_is_empty(&engine->running)) { /* with one op others may end, too */
        struct rc_op *op = RC_CONTAINER(engine->running.next, struct rc_op, active);
        take_out(engine, op);
        rc_context_fail(context, op, RC_ERR_CLOSED, NULL);
    }
    rc_leases_shutdown(&engine->leases);
    rc_locks_shutdown(&engine->locks);
}

void rc_engine_begin(struct rc_engine *engine)
{
    rc_node_begin(rc_topology_node(&engine->topology, RC_SLOT_ANY));
}

bool rc_engine_offer(struct rc_engine *engine)
{
    return rc_node_offer(rc_topology_node(&engine->topology, RC_SLOT_ANY));
}

bool rc_engine_is_offer_ended(const struct rc_engine *engine)
{
    return rc_near_is_offer_ended(engine->topology.node.owner);
}

int64_t rc_engine_asof_us(const struct rc_engine *engine)
{
    return engine->near != NULL ? rc_near_asof(engine->topology.node.owner) : 0;
}

bool rc_engine_is_drained(const struct rc_engine *engine)
{
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        bool useful = link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
        if (useful && link->request_count > 0)
            return false;
    }
    return true;
}

bool rc_engine_rest(struct rc_engine *engine)
{
    const rc_stats *stats = &engine->context.stats;
    bool is_needed = stats->active_leases > 0 || stats->active_locks > 0 ||
                     !rc_list_is_empty(&engine->running) ||
                     !rc_list_is_empty(&engine->context.finished);
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        is_needed |= link->request_count > 0;
    }
    if (is_needed)
        return false;
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        rc_link_rest(link);
    }
    return true;
}

void rc_engine_end(struct rc_engine *engine)
{
    /* Twice: an op that ends over one link may have something to say over the other. */
    for (int i = 0; i < 2; i++) {
        RC_TOPOLOGY_EACH(link, &engine->topology) {
            rc_link_shutdown(link);
        }
    }
}

/* ---- health ---------------------------------------------------------------------------------- */

/* A refusal is news for a moment: without another call nobody knows whether it still holds. */
static bool is_refused(const struct rc_context *context)
{
    enum { NEWS_US = 5 * 1000 * 1000 };
    return context->refusal[0] != '\0' && context->now_us - context->refused_us < NEWS_US;
}

void rc_engine_get_health(struct rc_engine *engine, rc_health *health)
{
    rc_node_get_health(rc_topology_node(&engine->topology, RC_SLOT_ANY), health);
    if (health->ready && is_refused(&engine->context)) {
        health->ready = 0; /* what is loaded cannot be stored */
        snprintf(health->cause, sizeof health->cause, "%s", engine->context.refusal);
    }
}
