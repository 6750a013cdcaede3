#include "engine/engine.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/held_lock.h"

enum { NEW_LOCK_MS = 1000 }; /* a map's age with which it is asked for behind a new lock */

/* ---- news of the nodes ----------------------------------------------------------------------- */

static void on_tracked(void *owner, struct rc_server_node *node)
{
    struct rc_engine *engine = owner;
    (void)node;
    rc_locks_on_tracking(&engine->locks);
}

/* Redis tells nothing of changes any more: each waiter has to ask. */
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
    if (RC_MUTANT(PUSH_BY_KEY))
        link = rc_node_link(rc_topology_node_of(&engine->topology, key, len), RC_LINK_T);
    rc_held_lock_push(link, key, len);
    if (link->node->near == NULL)
        return;
    if (key == NULL) {
        rc_node_begin_epoch(link->node);
        rc_fetches_push(&engine->fetches, link, NULL, 0);
        rc_revalidate_start(&link->node->revalidate); /* it may have been another database */
        rc_near_tell(engine->near, RC_TOLD_FLUSH, NULL, 0);
        return;
    }
    rc_fetches_push(&engine->fetches, link, key, len);
    rc_near_drop(engine->near, key, len, RC_NEAR_PUSH);
    rc_near_tell(engine->near, RC_TOLD_PUSH, key, len);
}

static void on_ready(void *owner, struct rc_link *link)
{
    struct rc_engine *engine = owner;
    rc_cluster_on_ready(&engine->cluster, link);
}

static void on_down(void *owner, struct rc_link *link)
{
    struct rc_engine *engine = owner;
    rc_cluster_on_down(&engine->cluster, link);
}

static bool on_answer(void *owner, struct rc_req *req, const struct rc_reply *reply)
{
    struct rc_engine *engine = owner;
    return rc_cluster_follow(&engine->cluster, req, reply);
}

static void on_push(void *owner, struct rc_link *link, const struct rc_reply *push)
{
    struct rc_engine *engine = owner;
    rc_track_push(&engine->track, push, drop_pushed, link);
}

static void on_silence(void *owner, struct rc_server_node *node)
{
    struct rc_engine *engine = owner;
    rc_lends_on_silence(&engine->lends, node);
}

static bool may_open(void *owner, struct rc_link *link)
{
    struct rc_engine *engine = owner;
    (void)link;
    return rc_sentinel_may_open(&engine->sentinel);
}

static int64_t unvouched_since(void *owner, char why[RC_TEXT_SIZE])
{
    struct rc_engine *engine = owner;
    return rc_sentinel_unvouched_since(&engine->sentinel, why);
}

static void on_watch(void *owner, struct rc_server_node *node)
{
    struct rc_engine *engine = owner;
    rc_ownership_watch(&engine->ownership, node);
}

static bool may_keep(void *owner, const struct rc_server_node *node, const char *key, size_t len)
{
    struct rc_engine *engine = owner;
    return rc_topology_may_keep(&engine->topology, node, rc_slot(key, len));
}

static void on_doubt(void *owner)
{
    struct rc_engine *engine = owner;
    rc_cluster_want(&engine->cluster);
}

/* That node says that a lock is held: whether the slot is its own others know. Who takes locks all
   the time asks once a second. */
static void on_word(void *owner, uint16_t number, bool is_new)
{
    struct rc_engine *engine = owner;
    if (!RC_MUTANT(RENEWED_ELSEWHERE))
        rc_cluster_confirm(&engine->cluster, number, is_new ? NEW_LOCK_MS : 0);
}

static void on_map(void *owner)
{
    struct rc_engine *engine = owner;
    rc_locks_on_map(&engine->locks);
}

/* Who the replicas are: others know. */
static void on_old_replicas(void *owner, bool is_wrong)
{
    struct rc_engine *engine = owner;
    if (engine->cluster.is_on)
        rc_cluster_want_replicas(&engine->cluster, is_wrong);
    else
        rc_scout_ask(&engine->scout);
}

/* What knows more than one server. Where that fails nothing is left of the lends either. */
static int init_many(struct rc_engine *engine)
{
    struct rc_context *context = &engine->context;
    struct rc_topology *topology = &engine->topology;
    struct rc_replicas *replicas = &engine->replicas;
    int error = rc_replicas_init(replicas, context, topology, on_old_replicas, engine);
    if (error != 0)
        goto fail;
    error = rc_cluster_init(&engine->cluster, context, topology, replicas, on_map, engine);
    if (error != 0)
        goto fail_replicas;
    error = rc_sentinel_init(&engine->sentinel, context, topology, &engine->lends, replicas);
    if (error != 0)
        goto fail_cluster;
    error = rc_ownership_init(&engine->ownership, context, topology, on_doubt, engine);
    if (error == 0)
        return 0;
    rc_sentinel_deinit(&engine->sentinel);
fail_cluster:
    rc_cluster_deinit(&engine->cluster);
fail_replicas:
    rc_replicas_deinit(replicas);
fail:
    rc_lends_deinit(&engine->lends);
    return error;
}

int rc_engine_init(struct rc_engine *engine, const rc_options *options,
                   const struct rc_address *address, struct rc_near *near,
                   const struct rc_seed *seed, int64_t now_us)
{
    bool has_sentinels = address->sentinel_count > 0;
    const struct rc_node_news news = {.owner = engine,
                                      .on_tracked = on_tracked,
                                      .on_untracked = on_untracked,
                                      .on_ready = on_ready,
                                      .on_down = on_down,
                                      .on_answer = on_answer,
                                      .on_push = on_push,
                                      .on_silence = on_silence,
                                      .on_watch = on_watch,
                                      .may_keep = may_keep,
                                      .may_open = has_sentinels ? may_open : NULL,
                                      .unvouched_since = has_sentinels ? unvouched_since : NULL};
    struct rc_context *context = &engine->context;
    struct rc_topology *topology = &engine->topology;
    memset(engine, 0, sizeof *engine);
    rc_list_init(&engine->running);
    int error = rc_context_init(context, options, seed);
    if (error != 0)
        return error;
    context->now_us = now_us;
    context->login = &engine->login;
    error = rc_login_init(&engine->login, context);
    if (error != 0) {
        rc_context_deinit(context);
        return error;
    }
    error = rc_topology_init(topology, context, address, near, &news);
    if (error != 0) {
        rc_login_deinit(&engine->login);
        rc_context_deinit(context);
        return error;
    }
    error = rc_lends_init(&engine->lends, context, topology);
    if (error == 0)
        error = init_many(engine);
    if (error != 0) {
        rc_topology_deinit(topology);
        rc_login_deinit(&engine->login);
        rc_context_deinit(context);
        return error;
    }
    engine->near = near; /* others may keep copies there while no node of ours can */
    rc_fetches_init(&engine->fetches, context, topology, engine->near);
    rc_scout_init(&engine->scout, context, topology, &engine->replicas, &engine->sentinel);
    rc_calls_init(&engine->calls, context, topology, &engine->cluster, &engine->replicas);
    rc_track_init(&engine->track, seed);
    rc_leases_init(&engine->leases, context, topology, &engine->track);
    rc_locks_init(&engine->locks, context, topology, &engine->track, on_word, engine);
    return 0;
}

void rc_engine_deinit(struct rc_engine *engine)
{
    rc_leases_deinit(&engine->leases);
    rc_locks_deinit(&engine->locks);
    rc_track_deinit(&engine->track);
    rc_fetches_deinit(&engine->fetches);
    rc_calls_deinit(&engine->calls);
    rc_ownership_deinit(&engine->ownership);
    rc_sentinel_deinit(&engine->sentinel);
    rc_lends_deinit(&engine->lends);
    rc_cluster_deinit(&engine->cluster);
    rc_replicas_deinit(&engine->replicas);
    rc_topology_deinit(&engine->topology);
    rc_login_deinit(&engine->login);
    rc_context_deinit(&engine->context);
}

/* ---- kinds of ops ---------------------------------------------------------------------------- */

/* The keys it writes. */
enum writes {
    NO_KEY,
    OWN_KEY,
    OWN_IF_HIDDEN, /* a put may take the old value away before the new one is there */
    NAMED_KEYS,
    NAMED_OR_OWN
};

enum effect {
    DROPS,  /* it may change what stands there: near copies go */
    WRITES, /* and an acknowledged one wins over earlier deletes */
    STORES, /* and the version it writes is known */
    DELETES
};

/* What one kind of op does otherwise than another. */
struct kind {
    void (*start)(struct rc_engine *engine, struct rc_op *op);
    /* Takes the op out of what it waits in besides its request or fetch. NULL: nothing. */
    void (*leave)(struct rc_engine *engine, struct rc_op *op);
    /* The time that Redis had for an answer is over, and not that of the call: what still asks
       Redis gives up, and a caller that waits for another's load or lock goes on. False: it cannot.
       NULL: the two times are one. */
    bool (*go_on)(struct rc_engine *engine, struct rc_op *op);
    enum writes writes;
    enum effect effect; /* on those keys */
    bool reads;         /* its result is what stands in its key */
    bool locks;         /* it is about op->lock */
};

/* One row each, by enum rc_op_kind: at the end of this file. */
static const struct kind kinds[RC_OP_KINDS];

/* ---- own writes ------------------------------------------------------------------------------ */

/* They are gone from the near cache when they start, and again when they are done. So is what was
   read past it: another process of this machine may hold an older copy whose push is still on its
   way, and a reader who saw the newer value must not find that. */

/* Between the beginning and the end of a write the slot may have gone to another node: what was
   noted there has gone along (rc_topology_hand_over). */
static struct rc_server_node *node_of(struct rc_engine *engine, const char *key, size_t len)
{
    return rc_topology_node_of(&engine->topology, key, len);
}

static void note_version(struct rc_engine *engine, int32_t slot, const char *key, size_t len,
                         const char version[RC_NONCE_SIZE])
{
    struct rc_server_node *node = rc_topology_node(&engine->topology, slot);
    rc_replay_saw(&node->replay, slot, key, len, version);
}

/* The value of a refresh: those who read meanwhile go on with the old one, near copies as well,
   until Redis has said that the new one stands there. Nobody has a newer one by then but from
   Redis, and that has taken the copy's place. */
static bool keeps_near(const struct rc_op *op)
{
    return op->ask.kind == RC_OP_PUBLISH && op->ask.purpose == RC_FLIGHT_REFRESH;
}

static void begin_write(struct rc_engine *engine, const struct rc_op *op, const char *key,
                        size_t len)
{
    char version[RC_NONCE_SIZE];
    if (keeps_near(op))
        return;
    bool is_known = engine->near != NULL && rc_near_drop_known(engine->near, key, len, version);
    if (kinds[op->ask.kind].effect != DELETES)
        return;
    int32_t slot = rc_topology_slot(&engine->topology, key, len);
    struct rc_server_node *node = rc_topology_node(&engine->topology, slot);
    rc_replay_begin(&node->replay, slot, key, len, is_known ? version : NULL);
}

static void end_write(struct rc_engine *engine, const struct rc_op *op, const char *key, size_t len)
{
    enum effect effect = kinds[op->ask.kind].effect;
    bool is_done = op->result.status == 0;
    /* A value that was not stored has written nothing. */
    bool is_value = effect == STORES && op->result.outcome != RC_UNSTORED;
    if (engine->near != NULL && !RC_MUTANT(NO_PURGE_AT_ACK))
        rc_near_drop(engine->near, key, len, RC_NEAR_WRITE);
    /* Also of one whose end nobody knows. */
    if (engine->near != NULL && (effect != STORES || !is_done || is_value))
        rc_near_tell(engine->near, RC_TOLD_WRITE, key, len);
    if (effect == DELETES) {
        struct rc_server_node *node = node_of(engine, key, len);
        if (rc_replay_end(&node->replay, key, len, is_done))
            rc_node_replay(node);
        return;
    }
    if (!is_done || !(is_value || effect == WRITES))
        return;
    int32_t slot = rc_topology_slot(&engine->topology, key, len);
    rc_replay_overrule(&rc_topology_node(&engine->topology, slot)->replay, key, len);
    if (is_value && !op->ask.is_plain)
        note_version(engine, slot, key, len, op->run.nonce);
}

/* Of the keys that the caller has named among the arguments. False: there are none. */
static bool each_named(struct rc_engine *engine, const struct rc_op *op,
                       void (*act)(struct rc_engine *, const struct rc_op *, const char *, size_t))
{
    const struct rc_buf *named = &op->ask.written;
    for (size_t at = 0; at < rc_buf_len(named);) {
        uint32_t len;
        memcpy(&len, rc_buf_head(named) + at, sizeof len);
        act(engine, op, rc_buf_head(named) + at + sizeof len, len);
        at += sizeof len + len;
    }
    return rc_buf_len(named) > 0;
}

/* Of a kind that writes. */
static void each_written(struct rc_engine *engine, const struct rc_op *op,
                         void (*act)(struct rc_engine *, const struct rc_op *, const char *,
                                     size_t))
{
    enum writes writes = kinds[op->ask.kind].writes;
    if (writes == NAMED_KEYS || writes == NAMED_OR_OWN) {
        if (each_named(engine, op, act) || writes == NAMED_KEYS)
            return;
    } else if (writes == OWN_IF_HIDDEN && !(op->ask.load.flags & RC_HIDE_OLD)) {
        return;
    }
    act(engine, op, rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key));
}

/* Of a kind that reads. What it has brought past the near cache must not be followed by an older
   copy; and a delete of the version that it has seen may have to be sent again. What a replica has
   said is about neither: it may be older than a delete that stands. */
static void end_read(struct rc_engine *engine, struct rc_op *op)
{
    const rc_result *result = &op->result;
    const char *key = rc_buf_head(&op->ask.key);
    size_t len = rc_buf_len(&op->ask.key);
    bool is_told = result->outcome == RC_HIT || result->outcome == RC_MISS;
    if (result->status != 0 || op->run.from_replica)
        return;
    /* What was loaded without Redis is kept by its caller, perhaps. */
    bool is_kept = (result->flags & RC_DEGRADED) && engine->near != NULL &&
                   rc_near_has_local(engine->near, key, len);
    if (op->run.bypassed_near && is_told && engine->near != NULL && !is_kept)
        rc_near_drop(engine->near, key, len, RC_NEAR_UNKEPT);
    if (result->kind == RC_KIND_VALUE || result->kind == RC_KIND_NEGATIVE)
        note_version(engine, rc_topology_slot_of(&engine->topology, op), key, len, result->version);
}

/* ---- the life of an op ----------------------------------------------------------------------- */

/* Out of everything it is in; what was sent for it alone is no longer waited for. */
static void take_out(struct rc_engine *engine, struct rc_op *op)
{
    const struct kind *kind = &kinds[op->ask.kind];
    if (engine->calls.burst.is_open) /* it may be freed soon */
        rc_burst_part(&engine->calls.burst);
    if (op->run.req != NULL && !rc_call_leave_to_others(op))
        rc_link_forget(op->run.req);
    op->run.req = NULL;
    if (op->run.fetch != NULL)
        rc_fetch_leave(op);
    else if (kind->leave != NULL)
        kind->leave(engine, op);
}

static bool go_on(struct rc_engine *engine, struct rc_op *op)
{
    const struct kind *kind = &kinds[op->ask.kind];
    return kind->go_on != NULL && kind->go_on(engine, op);
}

static void on_deadline(void *context, struct rc_timer *timer)
{
    struct rc_op *op = RC_CONTAINER(timer, struct rc_op, run.deadline);
    struct rc_engine *engine = RC_CONTAINER(context, struct rc_engine, context);
    bool is_early = op->run.wait_until_us > 0;
    if (is_early && go_on(engine, op))
        return;
    bool waited =
        op->ask.kind == RC_OP_LOCK_ACQUIRE && op->ask.lock_options.wait_ms > 0 && !is_early;
    /* Nobody could have told us whether a lock is free? */
    const char *deaf = waited ? rc_locks_why_deaf(&engine->locks, op->ask.lock) : NULL;
    bool is_loaded = op->ask.kind == RC_OP_LOAD && rc_leases_is_loaded_elsewhere(op);
    take_out(engine, op);
    if (deaf != NULL)
        rc_context_fail(context, op, RC_ERR_UNAVAILABLE, deaf);
    else
        rc_context_fail(context, op, waited ? RC_ERR_BUSY : RC_ERR_TIMEOUT, NULL);
    if (is_loaded)
        op->result.flags = RC_WAITED;
}

/* From here on only the end of the call counts. */
static void stop_waiting_for_redis(struct rc_engine *engine, struct rc_op *op)
{
    rc_context_set_timer(&engine->context, &op->run.deadline, op->run.wait_until_us);
    op->run.wait_until_us = 0;
}

static void set_deadline(struct rc_engine *engine, struct rc_op *op, int64_t wait_ms)
{
    op->run.deadline.fire = on_deadline;
    rc_context_set_timer(&engine->context, &op->run.deadline,
                         rc_context_after_ms(&engine->context, wait_ms));
}

/* The deadline of a call that waits for more than one answer. */
static void set_deadlines(struct rc_engine *engine, struct rc_op *op, int64_t wait_ms)
{
    op->run.answer_by_us =
        op->ask.timeout_ms > 0 ? rc_context_after_ms(&engine->context, op->ask.timeout_ms) : 0;
    if (op->ask.timeout_ms > 0 && op->ask.timeout_ms < wait_ms) {
        /* Behind the deadline of its request, which knows better what went wrong. */
        set_deadline(engine, op, op->ask.timeout_ms + 1);
        op->run.wait_until_us = rc_context_after_ms(&engine->context, wait_ms);
    } else {
        set_deadline(engine, op, wait_ms);
    }
}

/* Reads that come behind the op must see what it writes, were it their own caller's. */
static void part_burst(struct rc_engine *engine, const struct rc_op *op)
{
    struct rc_burst *burst = &engine->calls.burst;
    const struct rc_buf *key = &op->ask.key;
    enum writes writes = kinds[op->ask.kind].writes;
    bool is_own = writes == OWN_KEY || writes == OWN_IF_HIDDEN ||
                  (writes == NAMED_OR_OWN && rc_buf_len(&op->ask.written) == 0);
    if (is_own)
        rc_burst_write(burst, rc_buf_head(key), rc_buf_len(key));
    else if (op->ask.kind != RC_OP_GET)
        rc_burst_part(burst);
}

void rc_engine_open_burst(struct rc_engine *engine)
{
    rc_burst_open(&engine->calls.burst);
}

void rc_engine_close_burst(struct rc_engine *engine)
{
    rc_burst_close(&engine->calls.burst);
}

void rc_engine_submit(struct rc_engine *engine, struct rc_op *op)
{
    struct rc_context *context = &engine->context;
    int error = rc_context_start(context, op);
    op->run.req = NULL;
    op->run.fetch = NULL;
    op->run.gather = NULL;
    op->run.slot = 0;
    op->run.bypassed_near = op->run.from_replica = false;
    op->run.answer_by_us = op->run.wait_until_us = 0;
    op->run.tag = op->ask.tag;
    rc_list_append(&engine->running, &op->run.active);
    if (context->closing) {
        rc_list_remove(&op->run.member);
        op->run.leads = false;
        error = RC_ERR_CLOSED;
    }
    if (error != 0) {
        rc_context_fail(context, op, error, NULL);
        return;
    }
    const struct kind *kind = &kinds[op->ask.kind];
    if (engine->calls.burst.is_open)
        part_burst(engine, op);
    if (kind->writes != NO_KEY)
        each_written(engine, op, begin_write);
    kind->start(engine, op);
}

struct rc_op *rc_engine_take_finished(struct rc_engine *engine)
{
    struct rc_list *finished = &engine->context.finished;
    if (rc_list_is_empty(finished))
        return NULL;
    struct rc_op *op = RC_CONTAINER(finished->next, struct rc_op, run.active);
    assert(!op->run.is_running);
    rc_list_remove(&op->run.active);
    const struct kind *kind = &kinds[op->ask.kind];
    if (kind->writes != NO_KEY)
        each_written(engine, op, end_write);
    if (kind->reads)
        end_read(engine, op);
    rc_op_measure(op);
    return op;
}

static bool has_tag(const struct rc_op *op, const void *tag)
{
    return op->run.tag == *(const uint64_t *)tag;
}

static bool is_for_lock(const struct rc_op *op, const void *lock)
{
    return kinds[op->ask.kind].locks && op->ask.lock == lock;
}

static bool is_over(const struct rc_op *op, const void *lent)
{
    return op->ask.lent == lent;
}

/* Ends the running ops that match; returns how many. With one op others may end, too (of a load
   whose leader is taken out, where there is no memory to go on): the one that follows may then
   stand among the finished ones, and the walk begins again. */
static int cancel_running(struct rc_engine *engine,
                          bool (*matches)(const struct rc_op *op, const void *argument),
                          const void *argument)
{
    int count = 0;
    struct rc_list *active = engine->running.next;
    while (active != &engine->running) {
        struct rc_op *op = RC_CONTAINER(active, struct rc_op, run.active);
        active = active->next;
        if (!matches(op, argument))
            continue;
        take_out(engine, op);
        rc_context_fail(&engine->context, op, RC_ERR_CANCELLED, NULL);
        count++;
        if (active != &engine->running &&
            !RC_CONTAINER(active, struct rc_op, run.active)->run.is_running)
            active = engine->running.next;
    }
    return count;
}

int rc_engine_cancel(struct rc_engine *engine, uint64_t tag)
{
    int count = cancel_running(engine, has_tag, &tag);
    RC_LIST_EACH(member, next, &engine->leases.leading) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
        if (op->run.tag != tag)
            continue;
        rc_leases_abandon(&engine->leases, op);
        count++;
    }
    return count;
}

void rc_engine_drop(struct rc_engine *engine, struct rc_op *op)
{
    bool is_told = !op->run.is_running && rc_list_is_empty(&op->run.active);
    if (op->run.is_running) {
        take_out(engine, op);
        op->result.status = RC_ERR_CANCELLED;
        rc_context_finish(&engine->context, op);
    }
    if (!is_told && kinds[op->ask.kind].writes != NO_KEY)
        each_written(engine, op, end_write);
    rc_list_remove(
        &op->run.active); /* out of the finished ones: the driver must not touch it again */
    if (op->run.leads)
        rc_leases_abandon(&engine->leases, op);
}

void rc_engine_drop_lock(struct rc_engine *engine, struct rc_lock *lock)
{
    cancel_running(engine, is_for_lock, lock);
    rc_locks_drop(&engine->locks, lock);
}

void rc_engine_take_back(struct rc_engine *engine, struct rc_lent *lent)
{
    cancel_running(engine, is_over, lent);
    rc_lends_return(&engine->lends, lent);
}

int rc_engine_authenticate(struct rc_engine *engine, const struct rc_credentials *credentials)
{
    if (engine->context.closing || !rc_login_is_newer(&engine->login, credentials))
        return 0;
    int error = rc_login_set(&engine->login, credentials);
    if (error != 0)
        return error;
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        rc_link_authenticate(link);
    }
    return 0;
}

void rc_engine_fail_login(struct rc_engine *engine, const char *text, size_t len)
{
    if (engine->context.closing)
        return;
    rc_login_fail(&engine->login, text, len);
    if (rc_login_is_usable(&engine->login))
        return;
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        rc_link_hurry(link);
    }
}

/* ---- closing --------------------------------------------------------------------------------- */

void rc_engine_close(struct rc_engine *engine)
{
    struct rc_context *context = &engine->context;
    context->closing = true;
    while (!rc_list_is_empty(&engine->running)) { /* with one op others may end, too */
        struct rc_op *op = RC_CONTAINER(engine->running.next, struct rc_op, run.active);
        take_out(engine, op);
        rc_context_fail(context, op, RC_ERR_CLOSED, NULL);
    }
    rc_leases_shutdown(&engine->leases);
    rc_locks_shutdown(&engine->locks);
    rc_lends_shutdown(&engine->lends);
    rc_replicas_shutdown(&engine->replicas);
    rc_sentinel_shutdown(&engine->sentinel);
}

void rc_engine_warm(struct rc_engine *engine)
{
    rc_topology_warm(&engine->topology);
}

bool rc_engine_offer(struct rc_engine *engine)
{
    bool has_offered = false;
    RC_TOPOLOGY_NODES(node, &engine->topology) {
        has_offered |= rc_node_offer(node);
    }
    return has_offered;
}

bool rc_engine_is_offer_ended(struct rc_engine *engine)
{
    bool is_ended = true;
    RC_TOPOLOGY_NODES(node, &engine->topology) {
        is_ended &= !node->revalidate.is_leaving || rc_near_is_offer_ended(node->owner);
    }
    return is_ended;
}

/* Of a cluster: the oldest of those whose copies are read. */
int64_t rc_engine_asof_us(struct rc_engine *engine)
{
    const struct rc_topology *topology = &engine->topology;
    int64_t asof_us = INT64_MAX;
    if (engine->near == NULL)
        return 0;
    if (topology->owners == NULL)
        return topology->node.near != NULL ? rc_near_asof(topology->node.owner) : 0;
    RC_TOPOLOGY_NODES(node, &engine->topology) {
        bool is_read = node->near != NULL && node->slots > 0 && node->horizon.is_watching;
        if (is_read && rc_near_asof(node->owner) < asof_us)
            asof_us = rc_near_asof(node->owner);
    }
    return asof_us < INT64_MAX ? asof_us : 0;
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
                     engine->lends.lent > 0 || !rc_list_is_empty(&engine->running) ||
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
        rc_cluster_shutdown(&engine->cluster);
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

/* Of the first server whose copies cannot be kept here: behind what that server cannot do. */
static void tell_no_owner(struct rc_engine *engine, rc_health *health)
{
    size_t len = strlen(health->off), size = sizeof health->off;
    RC_TOPOLOGY_NODES(node, &engine->topology) {
        bool is_read = node->slots > 0 || engine->topology.owners == NULL;
        const char *why = rc_node_no_owner(node);
        if (!is_read || why == NULL)
            continue;
        int more = snprintf(health->off + len, size - len, "near: %s\n", why);
        if (more < 0 || (size_t)more >= size - len)
            health->off[len] = '\0'; /* no half of a line */
        return;
    }
}

int rc_engine_hold_breakers(struct rc_engine *engine, int hold, const char *address)
{
    return rc_topology_hold_breakers(&engine->topology, (enum rc_breaker_hold)hold, address);
}

void rc_engine_get_health(struct rc_engine *engine, rc_health *health)
{
    rc_node_get_health(rc_topology_node(&engine->topology, RC_SLOT_ANY), health);
    if (engine->cluster.is_on)
        rc_cluster_get_health(&engine->cluster, health);
    if (engine->cluster.is_on && health->ready &&
        rc_topology_tell_open(&engine->topology, health->cause, sizeof health->cause))
        health->ready = 0;
    rc_sentinel_get_health(&engine->sentinel, health);
    rc_replicas_get_health(&engine->replicas, health);
    rc_scout_get_health(&engine->scout, health);
    rc_topology_tell_breakers(&engine->topology, health->breaker, sizeof health->breaker);
    tell_no_owner(engine, health);
    if (health->ready && is_refused(&engine->context)) {
        health->ready = 0; /* what is loaded cannot be stored */
        snprintf(health->cause, sizeof health->cause, "%s", engine->context.refusal);
    }
    if (health->cause[0] == '\0') /* what there is still works */
        snprintf(health->cause, sizeof health->cause, "%s", engine->login.cause);
}

/* ---- what each kind does --------------------------------------------------------------------- */

/* A read over T, if its answer can be kept. */
static bool start_fetch(struct rc_engine *engine, struct rc_op *op, struct rc_receiver *receiver)
{
    if (!op->ask.near || !rc_fetch_is_possible(&engine->fetches, op))
        return false;
    rc_fetch_start(&engine->fetches, op, receiver, rc_call_timeout_ms(&engine->context, op));
    return true;
}

static void start_get(struct rc_engine *engine, struct rc_op *op)
{
    if (op->ask.near) /* behind the deadline of its request, which knows better what went wrong */
        set_deadline(engine, op, rc_call_timeout_ms(&engine->context, op) + 1);
    if (start_fetch(engine, op, &engine->calls.fetched))
        return;
    op->run.bypassed_near = op->ask.near;
    rc_call_start(&engine->calls, op);
}

static void start_call(struct rc_engine *engine, struct rc_op *op)
{
    rc_call_start(&engine->calls, op);
}

static void leave_call(struct rc_engine *engine, struct rc_op *op)
{
    (void)engine;
    rc_call_leave(op);
}

static void on_pause_over(void *context, struct rc_timer *timer)
{
    rc_context_finish(context, RC_CONTAINER(timer, struct rc_op, run.deadline));
}

static void start_pause(struct rc_engine *engine, struct rc_op *op)
{
    op->run.deadline.fire = on_pause_over;
    rc_context_set_timer(&engine->context, &op->run.deadline,
                         rc_context_after_ms(&engine->context, op->ask.ttl_ms));
}

static void start_barrier(struct rc_engine *engine, struct rc_op *op)
{
    rc_call_start_barrier(&engine->calls, op);
}

static void start_load(struct rc_engine *engine, struct rc_op *op)
{
    set_deadlines(engine, op, op->ask.load.wait_timeout_ms);
    if (start_fetch(engine, op, &engine->leases.fetched))
        return;
    op->run.flight = NULL; /* it is in none yet */
    if ((op->ask.flags & RC_REPLICA) &&
        rc_call_ask_replica(
            &engine->calls, op, &engine->leases.from_replica,
            rc_context_after_ms(&engine->context, rc_call_timeout_ms(&engine->context, op))))
        return;
    op->run.bypassed_near = op->ask.near;
    rc_leases_load(&engine->leases, op);
}

static bool go_on_load(struct rc_engine *engine, struct rc_op *op)
{
    stop_waiting_for_redis(engine, op);
    if (op->run.fetch != NULL) { /* prolonged by others who share it */
        rc_fetch_leave(op);
        rc_leases_first_answer(&engine->leases, op, RC_ERR_TIMEOUT, NULL, NULL);
    } else {
        rc_leases_hurry(op);
    }
    return true;
}

static void end_load(struct rc_engine *engine, struct rc_op *op)
{
    if (op->run.leads)
        rc_leases_end(&engine->leases, op);
    else
        rc_context_fail(&engine->context, op, RC_ERR_CANCELLED, NULL);
}

static void leave_load(struct rc_engine *engine, struct rc_op *op)
{
    rc_leases_leave(&engine->leases, op);
}

static void start_acquire(struct rc_engine *engine, struct rc_op *op)
{
    if (op->ask.lock_options.wait_ms > 0)
        set_deadlines(engine, op, op->ask.lock_options.wait_ms);
    else /* one try: behind the deadline of its request, as in start_get */
        set_deadline(engine, op, rc_call_timeout_ms(&engine->context, op) + 1);
    rc_locks_acquire(&engine->locks, op);
}

static bool go_on_acquire(struct rc_engine *engine, struct rc_op *op)
{
    if (!rc_locks_has_answered(&engine->locks, op))
        return false;
    stop_waiting_for_redis(engine, op);
    return true;
}

static void leave_acquire(struct rc_engine *engine, struct rc_op *op)
{
    rc_locks_leave(&engine->locks, op);
}

static void start_release(struct rc_engine *engine, struct rc_op *op)
{
    rc_locks_release(&engine->locks, op);
}

static void start_extend(struct rc_engine *engine, struct rc_op *op)
{
    rc_locks_extend(&engine->locks, op);
}

static void start_borrow(struct rc_engine *engine, struct rc_op *op)
{
    rc_lends_borrow(&engine->lends, op);
}

static void start_lent(struct rc_engine *engine, struct rc_op *op)
{
    rc_lends_send(&engine->lends, op);
}

static void start_listen(struct rc_engine *engine, struct rc_op *op)
{
    rc_lends_listen(&engine->lends, op);
}

static void leave_lent(struct rc_engine *engine, struct rc_op *op)
{
    rc_lends_leave(&engine->lends, op);
}

static const struct kind kinds[RC_OP_KINDS] = {
    [RC_OP_GET] = {.start = start_get, .reads = true},
    [RC_OP_SET] = {.start = start_call, .writes = OWN_KEY, .effect = STORES},
    [RC_OP_DELETE] = {.start = start_call,
                      .leave = leave_call,
                      .writes = NAMED_OR_OWN,
                      .effect = DELETES},
    [RC_OP_COMMAND] = {.start = start_call,
                       .leave = leave_call,
                       .writes = NAMED_KEYS,
                       .effect = WRITES},
    [RC_OP_BORROW] = {.start = start_borrow, .leave = leave_lent},
    [RC_OP_LENT] = {.start = start_lent,
                    .leave = leave_lent,
                    .writes = NAMED_KEYS,
                    .effect = WRITES},
    [RC_OP_LISTEN] = {.start = start_listen, .leave = leave_lent},
    [RC_OP_BARRIER] = {.start = start_barrier},
    [RC_OP_LOAD] = {.start = start_load,
                    .leave = leave_load,
                    .go_on = go_on_load,
                    .writes = OWN_IF_HIDDEN,
                    .effect = DROPS,
                    .reads = true},
    [RC_OP_PUBLISH] = {.start = end_load, .leave = leave_load, .writes = OWN_KEY, .effect = STORES},
    [RC_OP_FAIL] = {.start = end_load, .leave = leave_load, .writes = OWN_KEY, .effect = DROPS},
    [RC_OP_RELEASE] = {.start = end_load, .leave = leave_load, .writes = OWN_KEY, .effect = DROPS},
    [RC_OP_LOCK_ACQUIRE] = {.start = start_acquire,
                            .leave = leave_acquire,
                            .go_on = go_on_acquire,
                            .locks = true},
    [RC_OP_LOCK_RELEASE] = {.start = start_release, .locks = true},
    [RC_OP_LOCK_EXTEND] = {.start = start_extend, .locks = true},
    [RC_OP_PAUSE] = {.start = start_pause},
};
