#include "engine/call.h"

#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/plan.h"

enum {
    KEEP_BYTES = 1024 * 1024, /* room that waits for the next call in parts */
    /* An answer up to this size is copied for those who share it: as much as a slot keeps that is
       seldom used (core/slot.lua). Room for larger ones would be taken for all of them at once, and
       malloc keeps what stands below the last block. */
    SHARED_BYTES = 16 * 1024
};

/* A call of several parts while it runs. */
struct rc_gather {
    struct rc_calls *calls;
    struct rc_op *op;
    uint32_t pending; /* parts without an answer */
    struct rc_plan plan;
};

static void on_fetched(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text);

void rc_calls_init(struct rc_calls *calls, struct rc_context *context, struct rc_topology *topology,
                   struct rc_cluster *cluster, struct rc_replicas *replicas)
{
    calls->context = context;
    calls->topology = topology;
    calls->cluster = cluster;
    calls->replicas = replicas;
    calls->fetched.take = on_fetched;
    calls->spare = NULL;
    memset(&calls->burst, 0, sizeof calls->burst);
}

int64_t rc_call_timeout_ms(const struct rc_context *context, const struct rc_op *op)
{
    return op->ask.timeout_ms > 0 ? op->ask.timeout_ms : context->options.command_timeout_ms;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void read_entry(struct rc_op *op, const struct rc_reply *reply, int64_t max_value_bytes)
{
    const rc_node *value = &reply->nodes[0];
    if (reply->count > 1 && reply->nodes[1].type == ':')
        op->result.ttl_ms = reply->nodes[1].integer;
    if (rc_entry_is_too_large(value->len, max_value_bytes)) {
        op->result.status = RC_ERR_TOOLARGE;
        return;
    }
    if (reply->count > 1 && reply->nodes[1].type == '-' && value->type == '$')
        value = &reply->nodes[1]; /* a user who may not ask PTTL: no value without its time */
    if (value->type == '-') {
        op->result.status = RC_ERR_REDIS;
        op->result.data = value->str;
        op->result.len = value->len;
        return;
    }
    rc_entry_read(&op->result, value->type == '$' ? value->str : NULL, value->len);
    op->result.outcome = rc_entry_is_absent(op->result.kind) ? RC_MISS : RC_HIT;
}

static inline void read_answer(struct rc_op *op, const struct rc_reply *reply)
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
    bool is_batch = op->ask.kind == RC_OP_COMMAND || op->ask.kind == RC_OP_LENT;
    if (node->type == '-' && !is_batch)
        op->result.status = rc_reply_status(node);
}

void rc_call_take_answer(struct rc_op *op, struct rc_reply *reply)
{
    rc_reply_swap(&op->reply, reply);
    read_answer(op, &op->reply);
}

static void take_entry(struct rc_context *context, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text)
{
    if (status != 0) {
        rc_context_fail(context, op, status, text);
        return;
    }
    rc_reply_swap(&op->reply, reply);
    read_entry(op, &op->reply, context->options.max_value_bytes);
    rc_context_finish(context, op);
}

static void on_fetched(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text)
{
    take_entry(RC_CONTAINER(receiver, struct rc_calls, fetched)->context, op, status, reply, text);
}

static void on_read_answer(struct rc_req *req, int status, struct rc_reply *reply,
                           const char *text);

/* The op, which shared a read, asks for itself within the time that it has left. */
static void ask_alone(struct rc_calls *calls, struct rc_op *op)
{
    struct rc_req *req = rc_req_take_read(calls->context, op);
    if (req == NULL) {
        rc_context_fail(calls->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    req->done = on_read_answer;
    req->owner = op;
    req->detail = calls;
    op->run.req = req;
    rc_topology_send(calls->topology, req, rc_topology_slot_of(calls->topology, op),
                     op->run.call_until_us);
}

static void tell_other(struct rc_context *context, struct rc_op *other, int status,
                       const struct rc_reply *reply, const char *text)
{
    if (status == 0)
        status = rc_reply_append(&other->reply, reply, 0, reply->count);
    if (status != 0) {
        rc_context_fail(context, other, status, text);
        return;
    }
    context->stats.shared++;
    rc_reply_resolve(&other->reply);
    read_entry(other, &other->reply, context->options.max_value_bytes);
    rc_context_finish(context, other);
}

/* Each that shares the op's read has a copy of its answer, but of a large one: then it asks, and
   takes its own as if it had shared nothing. */
__attribute__((noinline)) static void tell_others(struct rc_calls *calls, struct rc_op *op,
                                                  int status, const struct rc_reply *reply,
                                                  const char *text)
{
    bool is_large = status == 0 && rc_buf_len(&reply->arena) > SHARED_BYTES;
    RC_LIST_EACH(member, following, &op->run.member) {
        struct rc_op *other = RC_CONTAINER(member, struct rc_op, run.member);
        rc_list_remove(member);
        other->run.req = NULL;
        if (is_large)
            ask_alone(calls, other);
        else
            tell_other(calls->context, other, status, reply, text);
    }
}

static void on_read_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    op->run.req = NULL;
    if (!rc_list_is_empty(&op->run.member))
        tell_others(req->detail, op, status, reply, text);
    take_entry(req->context, op, status, reply, text);
}

/* Joins an equal read of the burst, whose request is not sent yet. */
static bool join(struct rc_calls *calls, struct rc_op *op)
{
    struct rc_op *first = rc_burst_find(&calls->burst, op);
    struct rc_req *req = first != NULL ? first->run.req : NULL;
    if (req == NULL || req->error != 0) /* it is about to fail: this one may not */
        return false;
    op->run.req = req;
    op->run.call_until_us = first->run.call_until_us;
    rc_list_append(&first->run.member, &op->run.member);
    return true;
}

bool rc_call_leave_to_others(struct rc_op *op)
{
    struct rc_req *req = op->run.req;
    if (op->ask.kind != RC_OP_GET || req == NULL || rc_list_is_empty(&op->run.member))
        return false;
    struct rc_op *next = RC_CONTAINER(op->run.member.next, struct rc_op, run.member);
    rc_list_remove(&op->run.member);
    if (req->owner == op) {
        req->owner = next;
        req->read_key = &next->ask.key;
    }
    return true;
}

static bool may_retry(const struct rc_op *op)
{
    return op->ask.kind == RC_OP_DELETE || (op->ask.flags & RC_RETRY) ||
           (RC_MUTANT(COUNT_AGAIN) && op->ask.script >= 0);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void free_gather(struct rc_gather *gather)
{
    struct rc_calls *calls = gather->calls;
    gather->op->run.gather = NULL;
    if (calls->spare == NULL && rc_plan_room(&gather->plan) <= KEEP_BYTES) {
        rc_plan_clear(&gather->plan);
        calls->spare = gather;
        return;
    }
    rc_plan_deinit(&gather->plan);
    free(gather);
}

void rc_calls_deinit(struct rc_calls *calls)
{
    if (calls->spare == NULL)
        return;
    rc_plan_deinit(&calls->spare->plan);
    free(calls->spare);
    calls->spare = NULL;
}

static struct rc_gather *new_gather(struct rc_calls *calls, struct rc_op *op)
{
    struct rc_gather *gather = calls->spare;
    calls->spare = NULL;
    if (gather == NULL) {
        gather = calloc(1, sizeof *gather);
        if (gather == NULL)
            return NULL;
        gather->calls = calls;
        rc_plan_init(&gather->plan);
    }
    gather->op = op;
    gather->pending = 0;
    op->run.gather = gather;
    return gather;
}

void rc_call_leave(struct rc_op *op)
{
    struct rc_gather *gather = op->run.gather;
    if (gather == NULL)
        return;
    for (uint32_t i = 0; i < gather->plan.part_count; i++) {
        if (gather->plan.parts[i].req != NULL)
            rc_link_forget(gather->plan.parts[i].req);
    }
    free_gather(gather);
}

static void finish_gather(struct rc_gather *gather)
{
    struct rc_context *context = gather->calls->context;
    struct rc_op *op = gather->op;
    const char *text = NULL;
    int status = rc_plan_status(&gather->plan, &text);
    if (status == 0)
        status = rc_plan_join(&gather->plan, &op->reply);
    if (status == 0) {
        read_answer(op, &op->reply);
        rc_context_finish(context, op);
    } else {
        rc_context_fail(context, op, status, text);
    }
    free_gather(gather);
}

static void on_part(struct rc_req *req, int status, struct rc_reply *reply, const char *text);

/* Makes the requests of the parts from that one on, all or none. */
static int prepare(struct rc_gather *gather, uint32_t first, uint8_t hops)
{
    struct rc_plan *plan = &gather->plan;
    const struct rc_op *op = gather->op;
    for (uint32_t i = first; i < plan->part_count; i++) {
        struct rc_plan_part *part = &plan->parts[i];
        part->req = rc_req_take(gather->calls->context);
        if (part->req == NULL) {
            while (i-- > first) {
                rc_req_give(plan->parts[i].req);
                plan->parts[i].req = NULL;
            }
            return RC_ERR_NOMEM;
        }
        rc_buf_swap(&part->req->bytes, &part->bytes);
        part->req->expect = part->expect;
        part->req->hops = hops;
        part->req->is_asking = part->place.is_asking;
        part->req->may_retry = may_retry(op);
        part->req->done = on_part;
        part->req->owner = gather;
        part->req->detail = (void *)(uintptr_t)i;
    }
    return 0;
}

/* What is of no slot goes to some master: the url's server may have left long ago. */
static int32_t slot_of(int32_t slot)
{
    return slot != RC_SLOT_ANY ? slot : 0;
}

static void on_replica_part(struct rc_req *req, int status, struct rc_reply *reply,
                            const char *text);

static bool is_for_replicas(const struct rc_op *op)
{
    return (op->ask.flags & RC_REPLICA) ||
           (RC_MUTANT(REPLICA_WRITES) && op->ask.kind == RC_OP_COMMAND);
}

/* A part that is sent for the first time goes to a replica, if one may answer. NULL: none. */
static struct rc_link *replica_for(const struct rc_gather *gather, const struct rc_req *req,
                                   int32_t slot)
{
    bool may_answer = is_for_replicas(gather->op) && req->hops == 0;
    return may_answer ? rc_replicas_choose(gather->calls->replicas, slot) : NULL;
}

static void send_to_replica(struct rc_calls *calls, struct rc_link *link, struct rc_req *req,
                            int32_t slot, int64_t deadline_us)
{
    req->slot = slot;
    req->may_retry = false; /* not over the next connection: the master is asked */
    rc_link_send(link, req, rc_replicas_until_us(calls->replicas, deadline_us));
}

static void send_parts(struct rc_gather *gather, uint32_t first)
{
    const struct rc_plan *plan = &gather->plan;
    struct rc_topology *topology = gather->calls->topology;
    int64_t deadline_us = gather->op->run.call_until_us;
    for (uint32_t i = first; i < plan->part_count; i++) {
        const struct rc_plan_place *place = &plan->parts[i].place;
        struct rc_req *req = plan->parts[i].req;
        struct rc_link *replica = replica_for(gather, req, slot_of(place->slot));
        gather->pending++;
        if (replica != NULL) {
            req->done = on_replica_part;
            send_to_replica(gather->calls, replica, req, slot_of(place->slot), deadline_us);
        } else if (place->is_asking)
            rc_topology_send_to(topology, req, rc_topology_at(topology, place->owner), place->slot,
                                deadline_us);
        else
            rc_topology_send(topology, req, slot_of(place->slot), deadline_us);
    }
}

/* Of struct rc_plan_guide. */
struct follower {
    struct rc_cluster *cluster;
    const struct rc_link *link; /* that the error has come over */
};

static bool follow(void *owner, const rc_node *error, struct rc_plan_place *place)
{
    const struct follower *follower = owner;
    struct rc_cluster_way way;
    if (!rc_cluster_resolve(follower->cluster, follower->link, error, &way))
        return false;
    place->is_asking = way.kind == RC_REDIRECT_ASK;
    if (way.kind != RC_REDIRECT_WAIT) { /* else to the same one: it waits where all of it waits */
        place->owner = way.number;
        place->slot = way.slot;
    }
    return true;
}

static uint32_t count_forgotten(const struct rc_reply *reply)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < reply->count; i = rc_reply_skip(reply, i))
        count += reply->nodes[i].len >= 8 && memcmp(reply->nodes[i].str, "NOSCRIPT", 8) == 0;
    return count;
}

/* Sends what the part's server has not run: with a script's source, or elsewhere. False: there is
   nothing of the kind, or no memory; the answers stay as they are. */
static bool repeat(struct rc_gather *gather, uint32_t part, const struct rc_req *req)
{
    struct rc_plan *plan = &gather->plan;
    struct rc_calls *calls = gather->calls;
    struct follower follower = {calls->cluster, req->link};
    const struct rc_plan_guide guide = {rc_topology_owners(calls->topology), &follower, follow};
    if (!rc_plan_has_undone(&plan->parts[part].reply) || req->hops >= RC_HOPS_MAX)
        return false;
    uint32_t forgotten = count_forgotten(&plan->parts[part].reply);
    uint32_t first =
        rc_plan_repeat(plan, part, rc_buf_head(&req->bytes), rc_buf_len(&req->bytes), &guide);
    if (first == 0)
        return false;
    calls->context->stats.noscript += forgotten;
    if (prepare(gather, first, req->hops + 1) == 0) {
        send_parts(gather, first);
        return true;
    }
    while (first < plan->part_count)
        rc_plan_fail(&plan->parts[first++], RC_ERR_NOMEM, NULL);
    return false;
}

static void on_part(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_gather *gather = req->owner;
    uint32_t number = (uint32_t)(uintptr_t)req->detail;
    struct rc_plan_part *part = &gather->plan.parts[number];
    part->req = NULL;
    gather->pending--;
    if (status == 0) {
        rc_plan_answer(&gather->plan, number, reply);
        repeat(gather, number, req);
    } else {
        rc_plan_fail(part, status, text);
    }
    if (gather->pending == 0)
        finish_gather(gather);
}

/* The same commands for the master. NULL: no memory. */
static struct rc_req *ask_again(struct rc_req *req)
{
    struct rc_req *again = rc_req_take(req->context);
    if (again == NULL)
        return NULL;
    rc_buf_swap(&again->bytes, &req->bytes);
    again->expect = req->expect;
    again->may_retry = true; /* it only reads */
    again->owner = req->owner;
    again->detail = req->detail;
    return again;
}

static void on_replica_part(struct rc_req *req, int status, struct rc_reply *reply,
                            const char *text)
{
    struct rc_gather *gather = req->owner;
    struct rc_calls *calls = gather->calls;
    uint32_t number = (uint32_t)(uintptr_t)req->detail;
    struct rc_req *again =
        rc_replicas_hear(calls->replicas, req, status, reply) || RC_MUTANT(REPLICA_TOLD)
            ? NULL
            : ask_again(req);
    if (again == NULL) {
        on_part(req, status, reply, text);
        return;
    }
    again->done = on_part;
    gather->plan.parts[number].req = again;
    rc_topology_send(calls->topology, again, req->slot, gather->op->run.call_until_us);
}

static void start_parts(struct rc_calls *calls, struct rc_op *op, const uint16_t *owners)
{
    struct rc_gather *gather = new_gather(calls, op);
    int error = gather == NULL ? RC_ERR_NOMEM
                               : rc_plan_split(&gather->plan, rc_buf_head(&op->ask.request),
                                               rc_buf_len(&op->ask.request), owners);
    if (error == 0)
        error = prepare(gather, 0, 0);
    if (error != 0) {
        if (gather != NULL)
            free_gather(gather);
        rc_context_fail(calls->context, op, error, NULL);
        return;
    }
    op->run.call_until_us =
        rc_context_after_ms(calls->context, rc_call_timeout_ms(calls->context, op));
    send_parts(gather, 0);
}

/* The batch that went in one request was not run as a whole: its answers are those of a part. */
__attribute__((noinline)) static bool repeat_batch(struct rc_calls *calls, struct rc_op *op,
                                                   const struct rc_req *req)
{
    struct rc_gather *gather = rc_plan_has_undone(&op->reply) ? new_gather(calls, op) : NULL;
    if (gather == NULL)
        return false;
    if (rc_plan_take_whole(&gather->plan, req->slot, req->expect) == 0) {
        rc_plan_answer(&gather->plan, 0, &op->reply);
        if (repeat(gather, 0, req))
            return true;
        rc_reply_swap(&gather->plan.parts[0].reply, &op->reply);
    }
    free_gather(gather);
    return false;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Whether it is worth looking: a single script is mended by its link, a single server has all. */
static bool may_be_undone(const struct rc_calls *calls, const struct rc_op *op,
                          const struct rc_req *req)
{
    return (op->ask.script >= 0 && req->expect > 1) || calls->cluster->is_on;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    op->run.req = NULL;
    if (status != 0) {
        rc_context_fail(req->context, op, status, text);
        return;
    }
    rc_reply_swap(&op->reply, reply);
    if (may_be_undone(req->detail, op, req) && repeat_batch(req->detail, op, req))
        return;
    read_answer(op, &op->reply);
    op->result.connection = rc_link_connection(req->link);
    if (op->ask.kind == RC_OP_BARRIER)
        op->result.number = req->sent_us;
    rc_context_finish(req->context, op);
}

static void begin(struct rc_calls *calls, struct rc_op *op, struct rc_req *req)
{
    req->owner = op;
    req->detail = calls;
    op->run.req = req;
    op->run.call_until_us =
        rc_context_after_ms(calls->context, rc_call_timeout_ms(calls->context, op));
}

static void send(struct rc_calls *calls, struct rc_op *op, struct rc_req *req, int32_t slot)
{
    begin(calls, op, req);
    rc_topology_send(calls->topology, req, slot, op->run.call_until_us);
}

/* One request with all that the op has encoded. NULL: no memory, and the op is over. */
static inline struct rc_req *make_whole(struct rc_calls *calls, struct rc_op *op)
{
    bool reads = op->ask.kind == RC_OP_GET;
    struct rc_req *req = reads ? rc_req_take_read(calls->context, op) : rc_req_take(calls->context);
    if (req == NULL) {
        rc_context_fail(calls->context, op, RC_ERR_NOMEM, NULL);
        return NULL;
    }
    if (!reads) {
        rc_buf_swap(&req->bytes, &op->ask.request);
        req->expect = op->ask.expect;
        req->may_retry = may_retry(op);
    }
    if (!reads && op->ask.script >= 0 && req->expect == 1)
        req->script = op->ask.script;
    req->done = reads ? on_read_answer : on_answer;
    return req;
}

static inline void start_whole(struct rc_calls *calls, struct rc_op *op, int32_t slot)
{
    struct rc_req *req = make_whole(calls, op);
    if (req != NULL)
        send(calls, op, req, slot);
}

/* A replica was asked for all of the op. */
static void on_replica_answer(struct rc_req *req, int status, struct rc_reply *reply,
                              const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_calls *calls = req->detail;
    bool reads = op->ask.kind == RC_OP_GET;
    struct rc_req *again = NULL;
    op->run.from_replica = rc_replicas_hear(calls->replicas, req, status, reply);
    if (!op->run.from_replica && !RC_MUTANT(REPLICA_TOLD))
        again = reads ? rc_req_take_read(calls->context, op) : ask_again(req);
    if (again == NULL) {
        (reads ? on_read_answer : on_answer)(req, status, reply, text);
        return;
    }
    again->done = reads ? on_read_answer : on_answer;
    again->owner = op;
    again->detail = calls;
    op->run.req = again;
    rc_topology_send(calls->topology, again, req->slot, op->run.call_until_us);
}

/* To a replica, or to the master where none can be asked. */
static void start_at_replica(struct rc_calls *calls, struct rc_op *op, int32_t slot)
{
    struct rc_link *replica = rc_replicas_choose(calls->replicas, slot);
    struct rc_req *req = make_whole(calls, op);
    if (req == NULL)
        return;
    if (replica == NULL) {
        send(calls, op, req, slot);
        return;
    }
    req->done = on_replica_answer;
    begin(calls, op, req);
    send_to_replica(calls, replica, req, slot, op->run.call_until_us);
}

static void on_replica_read(struct rc_req *req, int status, struct rc_reply *reply,
                            const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_calls *calls = req->detail;
    op->run.req = NULL;
    if (rc_replicas_hear(calls->replicas, req, status, reply))
        op->run.receiver->take(op->run.receiver, op, status, reply, text);
    else
        op->run.receiver->take(op->run.receiver, op, RC_ERR_UNAVAILABLE, NULL, NULL);
}

bool rc_call_ask_replica(struct rc_calls *calls, struct rc_op *op, struct rc_receiver *receiver,
                         int64_t deadline_us)
{
    const struct rc_buf *key = &op->ask.key;
    int32_t slot = rc_topology_slot(calls->topology, rc_buf_head(key), rc_buf_len(key));
    struct rc_link *replica = rc_replicas_choose(calls->replicas, slot);
    struct rc_req *req = replica != NULL ? rc_req_take_read(calls->context, op) : NULL;
    if (req == NULL)
        return false;
    req->done = on_replica_read;
    req->owner = op;
    req->detail = calls;
    op->run.req = req;
    op->run.receiver = receiver;
    send_to_replica(calls, replica, req, slot, deadline_us);
    return true;
}

/* Where there are several servers. Not a part of what everybody runs. */
__attribute__((noinline)) static void start_somewhere(struct rc_calls *calls, struct rc_op *op,
                                                      const uint16_t *owners)
{
    int32_t slot = RC_SLOT_ANY;
    if (op->ask.at_slot != RC_OP_BY_KEY)
        slot = op->ask.at_slot;
    else if (op->ask.kind == RC_OP_GET || op->ask.kind == RC_OP_SET)
        slot = rc_topology_slot_of(calls->topology, op);
    else if (!rc_plan_is_whole(rc_buf_head(&op->ask.request), rc_buf_len(&op->ask.request), owners,
                               &slot)) {
        start_parts(calls, op, owners);
        return;
    }
    if (is_for_replicas(op))
        start_at_replica(calls, op, slot_of(slot));
    else
        start_whole(calls, op, slot_of(slot));
}

void rc_call_start(struct rc_calls *calls, struct rc_op *op)
{
    const uint16_t *owners = rc_topology_owners(calls->topology);
    if (calls->burst.is_open && op->ask.kind == RC_OP_GET && join(calls, op))
        return;
    if (owners == NULL && (op->ask.flags & RC_REPLICA))
        start_at_replica(calls, op, RC_SLOT_ANY);
    else if (owners == NULL)
        start_whole(calls, op, RC_SLOT_ANY);
    else
        start_somewhere(calls, op, owners);
}

void rc_call_start_barrier(struct rc_calls *calls, struct rc_op *op)
{
    struct rc_server_node *node = rc_topology_node(calls->topology, RC_SLOT_ANY);
    /* In a cluster an answer of one node proves nothing: the caller reads. */
    bool is_possible = node->near != NULL && rc_topology_owners(calls->topology) == NULL;
    struct rc_req *req = is_possible ? rc_horizon_ping(&node->horizon) : NULL;
    if (req == NULL) {
        rc_context_fail(calls->context, op, is_possible ? RC_ERR_NOMEM : RC_ERR_ARGUMENT, NULL);
        return;
    }
    req->done = on_answer;
    req->is_tracked = true;
    send(calls, op, req, RC_SLOT_ANY);
}
