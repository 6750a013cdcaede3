#include "engine/lease.h"

#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/flight.h"
#include "engine/lease_flow.h"
#include "engine/lease_request.h"
#include "engine/script.h"

enum {
    POLL_MIN_MS = 10, /* without tracking waiters look again, first after this, then less often */
    LOOK_MAX_MS = 60 * 1000, /* with it: so much trust in pushes, and in what the server says */
    LOST_MAX = 3,            /* requests in a row, before the loader runs without a lease */
    COVER_RETRY_MS = 20,     /* after a heartbeat that failed while a value's end is near */
    COVER_MAX_MS = 24 * 3600 * 1000 /* a heartbeat comes by before that, and asks again */
};

static void acquire(struct rc_flight *flight);
static void on_flight_timer(void *context, struct rc_timer *timer);
static void on_fetched(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text);
static void on_replica(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text);

void rc_leases_init(struct rc_leases *leases, struct rc_context *context,
                    struct rc_topology *topology, struct rc_track *track)
{
    memset(leases, 0, sizeof *leases);
    leases->context = context;
    leases->topology = topology;
    leases->track = track;
    leases->fetched.take = on_fetched;
    leases->from_replica.take = on_replica;
    rc_table_init(&leases->flights, &context->seed);
    rc_list_init(&leases->leading);
}

void rc_leases_deinit(struct rc_leases *leases)
{
    struct rc_table_node *node;
    while ((node = rc_table_any(&leases->flights)) != NULL)
        rc_flight_free((struct rc_flight *)(void *)node);
    rc_table_deinit(&leases->flights);
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct rc_req *take(struct rc_flight *flight, enum rc_script script)
{
    struct rc_req *req = rc_req_take(flight->leases->context);
    if (req == NULL)
        return NULL;
    req->expect = 1;
    req->script = (int8_t)script;
    req->may_retry = true;
    req->owner = flight;
    return req;
}

static void send(struct rc_leases *leases, struct rc_req *req, const char *key, size_t len,
                 int64_t deadline_us)
{
    rc_topology_send(leases->topology, req, rc_topology_slot(leases->topology, key, len),
                     deadline_us);
}

/* Until when a request for this op may be under way (NULL: for none): a timeout of its own is for
   all that comes before Redis has told how the key is. */
static int64_t answer_by_us(const struct rc_context *context, const struct rc_op *op)
{
    if (op != NULL && op->run.answer_by_us > context->now_us)
        return op->run.answer_by_us;
    return rc_context_after_ms(context, op != NULL && op->ask.timeout_ms > 0
                                            ? op->ask.timeout_ms
                                            : context->options.command_timeout_ms);
}

/* Gives a lease back, though nobody may hear the answer. It waits for its connection as long as the
   lease lives: who asks for the key meanwhile finds it taken. */
static struct rc_req *take_release(struct rc_flight *flight)
{
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    enum rc_purpose purpose = flight->purpose;
    enum rc_script script = rc_lease_release_script(purpose, flight->options.flags);
    struct rc_req *req = take(flight, script);
    if (req == NULL)
        return NULL; /* the lease ends by itself */
    req->owner = NULL;
    req->patience_ms = flight->options.lease_ttl_ms;
    if (rc_lease_encode_keys(&req->bytes, script, purpose, &flight->helper, key, len, flight->token,
                             0) != 0) {
        rc_req_give(req);
        return NULL;
    }
    return req;
}

void rc_lease_release(struct rc_flight *flight)
{
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    struct rc_req *req = take_release(flight);
    if (req != NULL)
        send(flight->leases, req, key, len,
             rc_context_after_ms(flight->leases->context, req->patience_ms));
}

/* The lease that `asked` may bring although nobody waits for it any more. */
static void release_late_lease(struct rc_flight *flight, struct rc_req *asked)
{
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    struct rc_topology *topology = flight->leases->topology;
    struct rc_req *req = take_release(flight);
    if (req != NULL)
        rc_topology_send_after(topology, req, rc_topology_slot(topology, key, len), asked);
}

/* ---- without Redis --------------------------------------------------------------------------- */

static void finish_stale(struct rc_context *context, struct rc_op *op)
{
    op->run.flight = NULL;
    op->result.outcome = RC_HIT;
    op->result.flags = RC_STALE;
    rc_context_finish(context, op);
}

/* What was loaded without Redis a moment ago is for these, too: one run per degraded_ttl, whether
   Redis is away or refuses each new lease. */
static bool serve_again(struct rc_flight *flight)
{
    struct rc_context *context = flight->leases->context;
    if (flight->served_cost == 0 || context->now_us >= flight->served_until_us) {
        rc_flight_forget_served(flight);
        return false;
    }
    rc_flight_give(flight, flight->leases->joined, rc_buf_head(&flight->served),
                   rc_buf_len(&flight->served), -2, RC_SHARED | RC_DEGRADED);
    flight->state = RC_FLIGHT_SERVED;
    rc_context_set_timer(context, &flight->timer, flight->served_until_us);
    return true;
}

/* The lease could not be had. Those who insist on Redis fail; for the others one of them loads. */
static void degrade(struct rc_flight *flight, int status, const char *text)
{
    struct rc_context *context = flight->leases->context;
    if (status == RC_ERR_REDIS && text != NULL) {
        snprintf(context->refusal, sizeof context->refusal, "Redis refuses leases: %s", text);
        context->refused_us = context->now_us;
    }
    bool refresh = flight->purpose == RC_FLIGHT_REFRESH;
    RC_LIST_EACH(member, following, &flight->waiting) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
        if (refresh) {
            finish_stale(context, op);
        } else if (op->ask.load.flags & (RC_STRICT | RC_PUT)) {
            op->run.flight = NULL;
            rc_context_fail(context, op, status, text);
        } else {
            op->run.without_redis = true;
        }
    }
    if (serve_again(flight))
        return;
    if (rc_list_is_empty(&flight->waiting)) {
        flight->state = RC_FLIGHT_IDLE;
        rc_flight_free_if_idle(flight);
        return;
    }
    context->stats.degraded++;
    flight->degraded = true;
    flight->state = RC_FLIGHT_LOADING;
    flight->options = rc_flight_first(flight)->ask.load;
    rc_context_set_timer(context, &flight->timer,
                         rc_context_after_ms(context, flight->options.max_load_ms));
    rc_flight_promote(flight);
}

/* ---- joining --------------------------------------------------------------------------------- */

static void on_watch(struct rc_flight *flight)
{
    if (flight->state == RC_FLIGHT_WAITING)
        acquire(flight);
}

static void on_key_watch(struct rc_watch *watch)
{
    on_watch(RC_CONTAINER(watch, struct rc_flight, watch));
}

static void on_helper_watch(struct rc_watch *watch)
{
    on_watch(RC_CONTAINER(watch, struct rc_flight, helper_watch));
}

static struct rc_flight *make_flight(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = rc_flight_new(leases, op);
    if (flight == NULL)
        return NULL;
    flight->timer.fire = on_flight_timer;
    flight->watch.fire = on_key_watch;
    flight->helper_watch.fire = on_helper_watch;
    if (flight->purpose != RC_FLIGHT_LOAD &&
        rc_lease_helper_key(&flight->helper, flight->purpose, rc_buf_head(&flight->key),
                            rc_buf_len(&flight->key)) != 0) {
        rc_flight_free(flight);
        return NULL;
    }
    return flight;
}

static void join(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = rc_flight_find(leases, op);
    if (flight != NULL && flight->state == RC_FLIGHT_SERVED) {
        if (op->run.without_redis) {
            leases->context->stats.shared++;
            rc_flight_hit(leases->context, op, rc_buf_head(&flight->served),
                          rc_buf_len(&flight->served), -2, RC_SHARED | RC_DEGRADED);
            return;
        }
        /* Redis is back: what was loaded without it is void, unless it refuses the lease. */
        rc_context_clear_timer(leases->context, &flight->timer);
        flight->state = RC_FLIGHT_IDLE;
    }
    if (flight == NULL)
        flight = make_flight(leases, op);
    if (flight == NULL) {
        rc_context_fail(leases->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    rc_flight_join(flight, op);
    if (flight->state == RC_FLIGHT_LOADING || flight->state == RC_FLIGHT_PUBLISHING)
        rc_flight_tell_busy(flight, flight->degraded ? NULL : flight->token);
    else if (flight->state == RC_FLIGHT_WAITING)
        rc_flight_tell_busy(flight, flight->has_waited ? flight->waited_token : NULL);
    if (flight->state != RC_FLIGHT_IDLE || flight->req != NULL)
        return;
    if (op->run.without_redis)
        degrade(flight, op->result.status, NULL);
    else
        acquire(flight);
}

static void begin(struct rc_op *op)
{
    op->run.flight = NULL;
    op->run.leads = op->run.without_redis = false;
    if (!(op->ask.load.flags & RC_REPLACE)) /* then it stands there already */
        op->run.seen_len = 0;
}

/* Redis did not answer the first read. */
static void join_cut_off(struct rc_leases *leases, struct rc_op *op, int status, const char *text)
{
    if (op->ask.load.flags & RC_STRICT) {
        rc_context_fail(leases->context, op, status, text);
        return;
    }
    op->run.without_redis = true;
    join(leases, op);
}

/* The value is there but soft-expired: everybody may read it, one caller loads a newer one. */
static void refresh(struct rc_leases *leases, struct rc_op *op)
{
    op->ask.purpose = RC_FLIGHT_REFRESH;
    memcpy(op->run.seen, op->result.version, RC_NONCE_SIZE);
    op->run.seen_len = RC_NONCE_SIZE;
    if (rc_flight_find(leases, op) != NULL)
        finish_stale(leases->context, op);
    else
        join(leases, op);
}

static bool is_soft_expired(const rc_result *result)
{
    return result->stale_ms > 0 && result->ttl_ms >= 0 &&
           result->ttl_ms <= (int64_t)result->stale_ms;
}

/* Whether the value that its caller wants loaded again stands there. */
static bool is_early(const struct rc_op *op)
{
    const rc_load_options *options = &op->ask.load;
    return (options->flags & RC_EARLY) && op->result.kind != RC_KIND_PLAIN &&
           op->result.kind != RC_KIND_UNKNOWN &&
           memcmp(op->result.version, options->early_version, sizeof options->early_version) == 0;
}

static void read_first_answer(struct rc_leases *leases, struct rc_op *op, struct rc_reply *reply)
{
    const rc_node *value = &reply->nodes[0];
    if (value->type != '$') {
        join(leases, op);
        return;
    }
    if (rc_entry_is_too_large(value->len, leases->context->options.max_value_bytes)) {
        rc_context_fail(leases->context, op, RC_ERR_TOOLARGE, NULL);
        return;
    }
    op->result.ttl_ms =
        reply->count > 1 && reply->nodes[1].type == ':' ? reply->nodes[1].integer : -2;
    rc_entry_read(&op->result, value->str, value->len);
    rc_reply_swap(&op->reply, reply); /* data points into the arena that moves along */
    bool failed = op->result.kind == RC_KIND_ERROR && (op->result.entry_flags & RC_ENTRY_STICKY);
    if (failed) {
        op->result.outcome = RC_FAILED;
        rc_context_finish(leases->context, op);
    } else if (op->result.kind == RC_KIND_LEASE || op->result.kind == RC_KIND_ERROR) {
        join(leases, op);
    } else if (is_early(op)) {
        refresh(leases, op);
    } else if (is_soft_expired(&op->result)) {
        if (op->ask.load.flags & RC_SERVE)
            finish_stale(leases->context, op);
        else
            refresh(leases, op);
    } else {
        op->result.outcome = RC_HIT;
        rc_context_finish(leases->context, op);
    }
}

void rc_leases_first_answer(struct rc_leases *leases, struct rc_op *op, int status,
                            struct rc_reply *reply, const char *text)
{
    char cause[RC_TEXT_SIZE];
    begin(op);
    if (status != 0)
        join_cut_off(leases, op, status, text);
    else if (reply->nodes[0].type == '-')
        join_cut_off(leases, op, RC_ERR_REDIS, rc_node_text(&reply->nodes[0], cause));
    else
        read_first_answer(leases, op, reply);
}

static void on_fetched(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text)
{
    rc_leases_first_answer(RC_CONTAINER(receiver, struct rc_leases, fetched), op, status, reply,
                           text);
}

static void on_first_answer(struct rc_req *req, int status, struct rc_reply *reply,
                            const char *text)
{
    struct rc_op *op = req->owner;
    op->run.req = NULL;
    rc_leases_first_answer(req->detail, op, status, reply, text);
}

void rc_leases_load(struct rc_leases *leases, struct rc_op *op)
{
    begin(op);
    if (op->ask.load.flags & (RC_PUT | RC_SCRIPT_FIRST | RC_REPLACE)) {
        join(leases, op);
        return;
    }
    struct rc_req *req = rc_req_take_read(leases->context, op);
    if (req == NULL) {
        rc_context_fail(leases->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    req->done = on_first_answer;
    req->owner = op;
    req->detail = leases;
    op->run.req = req;
    send(leases, req, rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key),
         answer_by_us(leases->context, op));
}

/* Whether what a replica says is a value that needs no newer one. */
static bool is_whole_hit(const struct rc_leases *leases, const struct rc_reply *reply)
{
    const rc_node *value = &reply->nodes[0];
    bool has_ttl = reply->count > 1 && reply->nodes[1].type == ':';
    rc_result found = {.ttl_ms = has_ttl ? reply->nodes[1].integer : -2};
    if (value->type != '$' ||
        rc_entry_is_too_large(value->len, leases->context->options.max_value_bytes))
        return false;
    rc_entry_read(&found, value->str, value->len);
    return !rc_entry_is_absent(found.kind) && !is_soft_expired(&found);
}

static void on_replica(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text)
{
    struct rc_leases *leases = RC_CONTAINER(receiver, struct rc_leases, from_replica);
    op->run.from_replica = status == 0 && is_whole_hit(leases, reply);
    if (op->run.from_replica)
        rc_leases_first_answer(leases, op, 0, reply, text);
    else
        rc_leases_load(leases, op);
}

/* ---- acquiring ------------------------------------------------------------------------------- */

/* What is still to be heard of an earlier lease says nothing about the next one. */
static void forget_heartbeat(struct rc_flight *flight)
{
    if (flight->heartbeat != NULL)
        rc_link_forget(flight->heartbeat);
    flight->heartbeat = NULL;
}

static void lose_lease(struct rc_flight *flight)
{
    /* The leader goes on alone: its publish will find the lease void. */
    flight->leases->context->stats.leases_lost++;
    if (flight->leader != NULL) {
        flight->leader->run.flight = NULL;
        flight->leader = NULL;
        flight->leases->context->stats.active_leases -= !flight->degraded;
    }
    rc_lease_next_round(flight);
}

static void set_loading_timer(struct rc_flight *flight)
{
    bool is_cover_next = flight->cover_us > 0 && flight->cover_us < flight->heartbeat_us;
    rc_context_set_timer(flight->leases->context, &flight->timer,
                         is_cover_next ? flight->cover_us : flight->heartbeat_us);
}

void rc_lease_start_heartbeat(struct rc_flight *flight)
{
    struct rc_context *context = flight->leases->context;
    bool renew = !(flight->options.flags & RC_NO_RENEW);
    int64_t ttl_ms = flight->options.lease_ttl_ms;
    int64_t heartbeat_ms = RC_MUTANT(LATE_HEARTBEAT) ? ttl_ms + 2 : (ttl_ms + 2) / 3;
    flight->heartbeat_us = rc_context_after_ms(context, renew ? heartbeat_ms : ttl_ms);
    set_loading_timer(flight);
}

/* The value that a refresh or put is to replace still lives so long (-1: for ever, or no longer):
   before its end the lease takes its place. Counted from the answer, so that the script finds it
   within the margin. */
static void plan_cover(struct rc_flight *flight, int64_t left_ms)
{
    struct rc_context *context = flight->leases->context;
    int64_t wait_ms = left_ms - rc_lease_margin_ms(flight);
    flight->cover_us = 0;
    if (left_ms < 0 || left_ms > COVER_MAX_MS)
        return;
    flight->cover_us = rc_context_after_ms(context, wait_ms > 0 ? wait_ms + 1 : 1);
}

static void on_acquired(struct rc_flight *flight, const struct rc_reply *reply)
{
    struct rc_context *context = flight->leases->context;
    struct rc_op *op = rc_flight_first(flight);
    context->stats.leases++;
    if (op == NULL) { /* everybody has gone meanwhile */
        rc_lease_release(flight);
        flight->state = RC_FLIGHT_IDLE;
        rc_flight_free_if_idle(flight);
        return;
    }
    bool is_put = flight->purpose == RC_FLIGHT_PUT;
    if (is_put && reply->count > 2 && reply->nodes[2].str != NULL &&
        reply->nodes[2].len <= sizeof op->run.seen) {
        memcpy(op->run.seen, reply->nodes[2].str, reply->nodes[2].len);
        op->run.seen_len = (uint8_t)reply->nodes[2].len;
    }
    const rc_node *left = reply->count > (is_put ? 3u : 2u) ? &reply->nodes[is_put ? 3 : 2] : NULL;
    plan_cover(flight, left != NULL && left->type == ':' ? left->integer : -1);
    context->stats.active_leases++;
    flight->state = RC_FLIGHT_LOADING;
    /* Who asked may have gone meanwhile: the lease is renewed as the one wants who loads. */
    flight->options.flags = op->ask.load.flags;
    flight->options.max_load_ms = op->ask.load.max_load_ms;
    flight->load_until_us = rc_context_after_ms(context, flight->options.max_load_ms);
    rc_lease_start_heartbeat(flight);
    rc_flight_promote(flight);
}

static void on_busy(struct rc_flight *flight, const struct rc_reply *reply)
{
    struct rc_leases *leases = flight->leases;
    struct rc_context *context = leases->context;
    if (flight->purpose == RC_FLIGHT_REFRESH) {
        if (!rc_list_is_empty(&flight->waiting)) { /* it may have left meanwhile */
            struct rc_op *op = rc_flight_first(flight);
            if (reply->count > 2 && reply->nodes[2].type == ':' && reply->nodes[2].integer > 0)
                op->result.number = reply->nodes[2].integer;
            finish_stale(context, op);
        }
        rc_lease_next_round(flight);
        return;
    }
    int64_t left_ms = reply->count > 2 ? reply->nodes[2].integer : 0;
    if (left_ms > LOOK_MAX_MS)
        left_ms = LOOK_MAX_MS;
    if (reply->count > 3 && reply->nodes[3].len == RC_NONCE_SIZE) {
        memcpy(flight->waited_token, reply->nodes[3].str, RC_NONCE_SIZE);
        flight->has_waited = true;
    }
    context->stats.lease_waits++;
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    int32_t slot = rc_topology_slot(leases->topology, key, len);
    bool is_tracked = rc_topology_is_tracked(leases->topology, slot) &&
                      rc_track_watch(leases->track, &flight->watch, key, len) == 0;
    if (is_tracked && rc_buf_len(&flight->helper) > 0)
        is_tracked = rc_track_watch(leases->track, &flight->helper_watch,
                                    rc_buf_head(&flight->helper), rc_buf_len(&flight->helper)) == 0;
    int64_t recheck_ms =
        left_ms > 0 ? left_ms + 1 : 1; /* expiry pushes are lazy: a timer of our own */
    if (!is_tracked) {
        int64_t poll_ms = (int64_t)POLL_MIN_MS << (flight->polls < 4 ? flight->polls : 4);
        flight->polls++;
        recheck_ms = recheck_ms < poll_ms ? recheck_ms : poll_ms;
    }
    if (RC_MUTANT(NO_LOCAL_TIMER) && is_tracked)
        recheck_ms = LOOK_MAX_MS;
    flight->state = RC_FLIGHT_WAITING;
    rc_context_set_timer(context, &flight->timer, rc_context_after_ms(context, recheck_ms));
    rc_flight_tell_busy(flight, flight->has_waited ? flight->waited_token : NULL);
    rc_flight_free_if_idle(flight);
}

static void on_value(struct rc_flight *flight, const struct rc_reply *reply)
{
    const rc_node *value = &reply->nodes[2];
    int64_t ttl_ms = reply->count > 3 ? reply->nodes[3].integer : -2;
    rc_result entry;
    rc_entry_read_with_ttl(&entry, value->str, value->len, ttl_ms);
    rc_flight_give_found(flight, flight->served_until, value->str, value->len, ttl_ms,
                         is_soft_expired(&entry) ? RC_STALE : 0);
    rc_lease_next_round(flight);
}

static void read_acquire_answer(struct rc_flight *flight, const struct rc_reply *reply)
{
    const rc_node *nodes = reply->nodes;
    int64_t code =
        reply->count >= 2 && nodes[0].type == '*' && nodes[1].type == ':' ? nodes[1].integer : -1;
    if (code == 1)
        on_acquired(flight, reply);
    else if (code == 0)
        on_busy(flight, reply);
    else if (code == 2 && reply->count >= 3 && nodes[2].type == '$')
        on_value(flight, reply);
    else if (code == 3 && reply->count >= 3 && nodes[2].type == '$' &&
             nodes[2].len >= RC_ENTRY_SIZE) {
        rc_flight_give_failure(flight, flight->served_until, nodes[2].str + RC_ENTRY_SIZE,
                               nodes[2].len - RC_ENTRY_SIZE);
        rc_lease_next_round(flight);
    } else
        degrade(flight, RC_ERR_PROTOCOL, NULL);
}

static void on_acquire_answer(struct rc_req *req, int status, struct rc_reply *reply,
                              const char *text)
{
    struct rc_flight *flight = req->owner;
    char cause[RC_TEXT_SIZE];
    flight->req = NULL;
    if (status == 0) {
        flight->lost = 0;
        flight->answered_us = flight->leases->context->now_us;
    }
    if (status == 0 && reply->nodes[0].type != '-') {
        rc_flight_forget_served(flight);
        flight->leases->context->refusal[0] = '\0';
        read_acquire_answer(flight, reply);
        return;
    }
    if (status == 0) {
        text = rc_node_text(&reply->nodes[0], cause);
        status = RC_ERR_REDIS;
    } else if (req->sent_us != 0) {
        release_late_lease(flight, req); /* it may be granted, and nobody hears */
    }
    bool is_lost = status == RC_ERR_UNKNOWN;
    if (status == RC_ERR_CLOSED || (is_lost && flight->lost++ < LOST_MAX))
        rc_lease_next_round(flight); /* under another token */
    else
        degrade(flight, is_lost ? RC_ERR_UNAVAILABLE : status, text);
}

/* The first round where a miss is likely: SET NX GET does for free what the script does for four
   times the price, except telling how a running load goes on. */
static bool asks_with_set(const struct rc_flight *flight, const struct rc_op *op)
{
    return flight->purpose == RC_FLIGHT_LOAD && !flight->asked &&
           (op->ask.load.flags & RC_SCRIPT_FIRST) &&
           !(op->ask.load.flags & (RC_WANT_TTL | RC_REPLACE));
}

static void on_set_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_flight *flight = req->owner;
    const rc_node *node = status == 0 ? &reply->nodes[0] : NULL;
    char lease[RC_ENTRY_SIZE];
    if (node == NULL || node->type == '-') {
        on_acquire_answer(req, status, reply, text);
        return;
    }
    flight->req = NULL;
    flight->lost = 0;
    flight->answered_us = flight->leases->context->now_us;
    rc_flight_forget_served(flight);
    flight->leases->context->refusal[0] = '\0';
    rc_lease_write(lease, flight->token);
    bool ours = node->type != '$' ||
                (node->len == sizeof lease && memcmp(node->str, lease, sizeof lease) == 0);
    rc_result entry;
    rc_entry_read(&entry, ours ? NULL : node->str, node->len);
    if (ours)
        on_acquired(flight, reply);
    else if (entry.kind == RC_KIND_LEASE || entry.kind == RC_KIND_ERROR)
        acquire(flight); /* the script knows what to make of it */
    else {
        rc_flight_give(flight, flight->served_until, node->str, node->len, -2, 0);
        rc_lease_next_round(flight);
    }
}

/* One round: asks for value or lease on behalf of all who wait now. */
static void acquire(struct rc_flight *flight)
{
    struct rc_leases *leases = flight->leases;
    struct rc_op *op = rc_flight_first(flight);
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    rc_context_clear_timer(leases->context, &flight->timer);
    rc_track_unwatch(leases->track, &flight->watch);
    rc_track_unwatch(leases->track, &flight->helper_watch);
    flight->state = RC_FLIGHT_IDLE;
    flight->degraded = false;
    flight->cover_us = 0;
    if (op == NULL) {
        rc_flight_free_if_idle(flight);
        return;
    }
    const char *cause;
    int error = rc_topology_is_barred(leases->topology,
                                      rc_topology_slot(leases->topology, key, len), &cause);
    if (error != 0) { /* a lease that T brings could not be ended */
        degrade(flight, error, cause);
        return;
    }
    flight->options = op->ask.load;
    rc_context_nonce(leases->context, flight->token);
    if (RC_MUTANT(TOKEN_PER_CLIENT))
        memcpy(flight->token, &leases->context->seed, RC_NONCE_SIZE);
    bool set = asks_with_set(flight, op);
    flight->asked = true;
    struct rc_req *req = take(flight, flight->purpose == RC_FLIGHT_LOAD  ? RC_SCRIPT_ACQUIRE
                                      : flight->purpose == RC_FLIGHT_PUT ? RC_SCRIPT_PUT
                                                                         : RC_SCRIPT_REFRESH);
    /* Not sent twice: the first copy may be done long after its connection is lost, behind a delete
       that was to void the load. A refresh compares what it replaces, so it may be. */
    if (req != NULL)
        req->may_retry = flight->purpose == RC_FLIGHT_REFRESH;
    if (req == NULL ||
        (set ? rc_lease_encode_set : rc_lease_encode_acquire)(flight, &req->bytes) != 0) {
        if (req != NULL)
            rc_req_give(req);
        degrade(flight, RC_ERR_NOMEM, NULL);
        return;
    }
    req->done = set ? on_set_answer : on_acquire_answer;
    if (set)
        req->script = -1;
    flight->req = req;
    flight->state = RC_FLIGHT_ACQUIRING;
    flight->served_until = leases->joined;
    req->is_tracked = !set && flight->purpose != RC_FLIGHT_REFRESH;
    rc_topology_send_vouched(leases->topology, req, rc_topology_slot(leases->topology, key, len),
                             answer_by_us(leases->context, op));
}

bool rc_leases_is_loaded_elsewhere(const struct rc_op *op)
{
    const struct rc_flight *flight = op->run.flight;
    return flight != NULL && flight->state != RC_FLIGHT_IDLE &&
           flight->state != RC_FLIGHT_ACQUIRING;
}

void rc_leases_hurry(struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    int64_t began_us = op->run.answer_by_us - (int64_t)op->ask.timeout_ms * 1000;
    if (flight != NULL && flight->state == RC_FLIGHT_ACQUIRING && flight->req != NULL &&
        flight->answered_us < began_us)
        rc_context_set_timer(flight->leases->context, &flight->req->timer, 0);
}

/* After an answer: those it did not serve ask again. */
void rc_lease_next_round(struct rc_flight *flight)
{
    struct rc_context *context = flight->leases->context;
    rc_context_clear_timer(context, &flight->timer);
    forget_heartbeat(flight);
    flight->state = RC_FLIGHT_IDLE;
    if (context->closing) {
        RC_LIST_EACH(member, following, &flight->waiting) {
            struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
            op->run.flight = NULL;
            rc_context_fail(context, op, RC_ERR_CLOSED, NULL);
        }
    }
    if (rc_list_is_empty(&flight->waiting))
        rc_flight_free_if_idle(flight);
    else
        acquire(flight);
}

/* ---- heartbeats ------------------------------------------------------------------------------ */

/* What COVER said of the old value. Unheard, it is asked again: within the margin there is time for
   that, and behind it the script finds nothing to cover. */
static void on_covered(struct rc_flight *flight, const struct rc_reply *reply)
{
    const rc_node *left = reply != NULL && reply->count > 2 ? &reply->nodes[2] : NULL;
    if (reply != NULL) /* an error: the next heartbeat asks again */
        plan_cover(flight, left != NULL && left->type == ':' ? left->integer : -1);
    else if (flight->cover_us > 0 && flight->cover_us <= flight->leases->context->now_us)
        flight->cover_us = rc_context_after_ms(flight->leases->context, COVER_RETRY_MS);
    set_loading_timer(flight);
}

static void on_heartbeat_answer(struct rc_req *req, int status, struct rc_reply *reply,
                                const char *text)
{
    struct rc_flight *flight = req->owner;
    (void)text;
    flight->heartbeat = NULL;
    const rc_node *count = status == 0 ? &reply->nodes[0] : NULL;
    if (count != NULL && count->type == '*' && reply->count > 1)
        count = &reply->nodes[1];
    bool lost = count != NULL && count->type == ':' && count->integer == 0;
    if (flight->state != RC_FLIGHT_LOADING || flight->degraded)
        rc_flight_free_if_idle(flight);
    else if (lost)
        lose_lease(flight);
    else if (flight->purpose != RC_FLIGHT_LOAD)
        on_covered(flight, status == 0 ? reply : NULL);
}

void rc_lease_send_heartbeat(struct rc_flight *flight)
{
    const char *key = rc_buf_head(&flight->key);
    size_t len = rc_buf_len(&flight->key);
    bool covers = flight->purpose != RC_FLIGHT_LOAD;
    enum rc_script script = covers ? RC_SCRIPT_COVER : RC_SCRIPT_HEARTBEAT;
    struct rc_req *req = flight->heartbeat == NULL ? take(flight, script) : NULL;
    if (req == NULL)
        return; /* the last one is still under way */
    int error = covers
                    ? rc_lease_encode_cover(flight, &req->bytes)
                    : rc_lease_encode_keys(&req->bytes, script, RC_FLIGHT_LOAD, &flight->helper,
                                           key, len, flight->token, flight->options.lease_ttl_ms);
    if (error != 0) {
        rc_req_give(req);
        return;
    }
    req->done = on_heartbeat_answer;
    req->is_upkeep = true;
    flight->heartbeat = req;
    flight->leases->context->stats.heartbeats++;
    send(flight->leases, req, key, len, answer_by_us(flight->leases->context, NULL));
}

static void on_loading_timer(struct rc_flight *flight)
{
    struct rc_context *context = flight->leases->context;
    bool renew = !(flight->options.flags & RC_NO_RENEW);
    bool is_heartbeat = flight->degraded || context->now_us >= flight->heartbeat_us;
    if (flight->degraded || (!renew && is_heartbeat) || context->now_us >= flight->load_until_us) {
        if (!flight->degraded)
            rc_lease_release(flight); /* others need not wait until it expires */
        lose_lease(flight);
        return;
    }
    /* Where the last one is still under way its answer plans the next. */
    if (flight->cover_us > 0 && context->now_us >= flight->cover_us)
        flight->cover_us = rc_context_after_ms(context, COVER_RETRY_MS);
    rc_lease_send_heartbeat(flight);
    if (is_heartbeat)
        rc_lease_start_heartbeat(flight);
    else
        set_loading_timer(flight);
}

static void on_flight_timer(void *context, struct rc_timer *timer)
{
    struct rc_flight *flight = RC_CONTAINER(timer, struct rc_flight, timer);
    (void)context;
    if (flight->state == RC_FLIGHT_WAITING)
        acquire(flight);
    else if (flight->state == RC_FLIGHT_LOADING)
        on_loading_timer(flight);
    else if (flight->state == RC_FLIGHT_SERVED)
        rc_flight_free(flight);
}
