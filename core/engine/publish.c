/*
 * publish - the end of a load: what becomes of the value, of the lease and of those who wait.
 */
#include <assert.h>
#include <string.h>

#include "engine/lease_flow.h"
#include "engine/lease_request.h"

enum { SERVED_MAX_BYTES = 16 * 1024 * 1024 }; /* kept for callers while Redis is away */

/* A load without Redis ended: its value serves those who are cut off too, now and for a moment. */
static void serve_degraded(struct rc_flight *flight, const char *bytes, size_t len)
{
    struct rc_leases *leases = flight->leases;
    struct rc_context *context = leases->context;
    RC_LIST_EACH(member, following, &flight->waiting) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
        if (op->run.without_redis) {
            context->stats.shared++;
            rc_flight_hit(context, op, bytes, len, -2, RC_SHARED | RC_DEGRADED);
        }
    }
    size_t cost = sizeof *flight + rc_buf_len(&flight->key) + len;
    rc_flight_forget_served(flight);
    if (context->options.degraded_ttl_ms <= 0 || leases->served_bytes + cost > SERVED_MAX_BYTES ||
        rc_buf_append(&flight->served, bytes, len) != 0)
        return;
    flight->served_cost = cost;
    flight->served_until_us = rc_context_after_ms(context, context->options.degraded_ttl_ms);
    leases->served_bytes += cost;
    if (!rc_list_is_empty(&flight->waiting))
        return; /* they ask Redis first: it may grant the lease again */
    flight->state = RC_FLIGHT_SERVED;
    rc_context_set_timer(context, &flight->timer, flight->served_until_us);
}

/* The leader has said all it had to say. */
static void detach(struct rc_flight *flight, struct rc_op *op)
{
    if (flight == NULL)
        return;
    assert(flight->leader == op);
    flight->leader = NULL;
    flight->leases->context->stats.active_leases -= !flight->degraded;
    op->run.flight = NULL;
    rc_context_clear_timer(flight->leases->context, &flight->timer);
}

static void finish(struct rc_context *context, struct rc_op *op, int outcome)
{
    op->result.outcome = outcome;
    rc_context_finish(context, op);
}

/* What the script said about our value: 1 stored or lease intact, 0 lost, 2 lost and a newer value
   is there. */
static int64_t end_code(const struct rc_reply *reply)
{
    const rc_node *nodes = reply->nodes;
    if (nodes[0].type == ':')
        return nodes[0].integer > 0;
    return nodes[0].type == '*' && reply->count >= 2 && nodes[1].type == ':' ? nodes[1].integer
                                                                             : -1;
}

/* Where the string to store lies: counted from the request's end, because EVAL's head is longer
   than EVALSHA's. */
static const char *own_entry(const struct rc_op *op, const struct rc_req *req)
{
    const struct rc_buf *bytes =
        op->ask.kind == RC_OP_PUBLISH && op->ask.ttl_ms == 0 ? &op->ask.request : &req->bytes;
    return bytes->bytes + bytes->end - op->ask.entry_from_end;
}

static void on_end_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_leases *leases = req->detail;
    struct rc_context *context = leases->context;
    struct rc_flight *flight = op->run.flight;
    bool shares =
        op->ask.kind == RC_OP_PUBLISH && flight != NULL && flight->purpose == RC_FLIGHT_LOAD;
    op->run.req = NULL;
    if (flight != NULL && status != 0)
        rc_lease_release(flight);
    detach(flight, op);
    int64_t code = status == 0 && reply->nodes[0].type != '-' ? end_code(reply) : -1;
    if (code == 1 && shares)
        rc_flight_give(flight, flight->served_until, own_entry(op, req), op->ask.entry_len,
                       op->ask.ttl_ms > 0 ? op->ask.ttl_ms : -1, RC_SHARED);
    if (code == 2 && reply->count >= 3 && reply->nodes[2].type == '$' &&
        !rc_entry_is_too_large(reply->nodes[2].len, context->options.max_value_bytes)) {
        rc_op_keep_entry(op, reply->nodes[2].str, reply->nodes[2].len,
                         reply->count > 3 ? reply->nodes[3].integer : -2);
        if (shares)
            rc_flight_give(flight, flight->served_until, reply->nodes[2].str, reply->nodes[2].len,
                           op->result.ttl_ms, 0);
    }
    if (code == 0 || code == 2)
        context->stats.leases_lost += op->ask.kind == RC_OP_PUBLISH;
    if (status != 0) {
        rc_context_fail(context, op, status, text);
    } else if (code < 0) {
        rc_op_keep(op, reply->nodes[0].str, reply->nodes[0].len);
        op->result.status = reply->nodes[0].type == '-' ? RC_ERR_REDIS : RC_ERR_PROTOCOL;
        if (flight != NULL)
            rc_lease_release(flight);
        finish(context, op, RC_DONE);
    } else {
        int ended = op->ask.kind == RC_OP_PUBLISH ? RC_UNSTORED : RC_DONE;
        finish(context, op,
               code == 1 && op->ask.kind == RC_OP_PUBLISH && op->ask.ttl_ms != 0 ? RC_STORED
                                                                                 : ended);
    }
    if (flight != NULL)
        rc_lease_next_round(flight);
}

/* Nothing to tell Redis, or nobody to tell it to. */
static void end_cut_off(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    if (flight != NULL) {
        detach(flight, op);
        flight->state = RC_FLIGHT_IDLE;
        flight->degraded = false;
        if (op->ask.kind == RC_OP_PUBLISH)
            serve_degraded(flight, rc_buf_head(&op->ask.request), op->ask.entry_len);
        else if (op->ask.kind == RC_OP_FAIL)
            rc_flight_give_failure(flight, leases->joined,
                                   rc_buf_head(&op->ask.request) + RC_ENTRY_SIZE,
                                   op->ask.entry_len - RC_ENTRY_SIZE);
        if (flight->state != RC_FLIGHT_SERVED)
            rc_lease_next_round(flight);
    }
    op->result.flags = RC_DEGRADED;
    finish(leases->context, op, op->ask.kind == RC_OP_PUBLISH ? RC_UNSTORED : RC_DONE);
}

/* The lease stays, the next op leads. False when nobody waits for that. */
static bool hand_over(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    if (flight == NULL || flight->degraded || rc_list_is_empty(&flight->waiting) ||
        flight->purpose != RC_FLIGHT_LOAD)
        return false;
    flight->leader = NULL;
    op->run.flight = NULL;
    flight->options = rc_flight_first(flight)->ask.load;
    flight->load_until_us = rc_context_after_ms(leases->context, flight->options.max_load_ms);
    rc_lease_send_heartbeat(flight); /* the lease lives as long as its new leader asked for */
    rc_lease_start_heartbeat(flight);
    rc_flight_promote(flight);
    return true;
}

void rc_leases_end(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    size_t len = rc_buf_len(&op->ask.key);
    assert(op->run.leads);
    op->run.leads = false;
    rc_list_remove(&op->run.member);
    if (op->ask.kind == RC_OP_RELEASE && hand_over(leases, op)) {
        finish(leases->context, op, RC_DONE);
        return;
    }
    if (op->run.without_redis) {
        end_cut_off(leases, op);
        return;
    }
    struct rc_req *req = rc_req_take(leases->context);
    enum rc_script script = rc_lease_end_script(op);
    int error = req == NULL ? RC_ERR_NOMEM : 0;
    if (error == 0) {
        rc_buf_swap(&req->bytes, &op->ask.request);
        if (script == RC_SCRIPT_RELEASE || script == RC_SCRIPT_PUT_RESTORE) {
            rc_buf_swap(&req->bytes, &op->ask.request); /* the value stays for those who share it */
            error = rc_lease_encode_release(op, &req->bytes);
        }
    }
    if (error != 0) {
        if (req != NULL)
            rc_req_give(req);
        detach(flight, op);
        rc_context_fail(leases->context, op, error, NULL);
        if (flight != NULL)
            rc_lease_next_round(flight);
        return;
    }
    req->expect = 1;
    req->script = (int8_t)script;
    req->may_retry = true;
    req->done = on_end_answer;
    req->owner = op;
    req->detail = leases;
    op->run.req = req;
    if (flight != NULL) {
        flight->state = RC_FLIGHT_PUBLISHING;
        flight->served_until = leases->joined;
        rc_context_clear_timer(leases->context, &flight->timer);
    }
    if (op->ask.kind == RC_OP_FAIL && flight != NULL && script == RC_SCRIPT_PUBLISH)
        rc_flight_give_failure(flight, flight->served_until, own_entry(op, req) + RC_ENTRY_SIZE,
                               op->ask.entry_len - RC_ENTRY_SIZE);
    int64_t timeout_ms =
        op->ask.timeout_ms > 0 ? op->ask.timeout_ms : leases->context->options.command_timeout_ms;
    rc_topology_send(leases->topology, req,
                     rc_topology_slot(leases->topology, rc_buf_head(&op->ask.key), len),
                     rc_context_after_ms(leases->context, timeout_ms));
}

void rc_leases_leave(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    (void)leases;
    rc_list_remove(&op->run.member);
    op->run.flight = NULL;
    if (flight != NULL && flight->leader == op) { /* in the middle of its publish */
        rc_lease_release(flight);                 /* which may not have been sent at all */
        detach(flight, op);
        rc_lease_next_round(flight);
    } else if (flight != NULL) {
        rc_flight_free_if_idle(flight);
    }
}

void rc_leases_abandon(struct rc_leases *leases, struct rc_op *op)
{
    struct rc_flight *flight = op->run.flight;
    op->run.leads = false;
    rc_list_remove(&op->run.member);
    if (flight == NULL || hand_over(leases, op))
        return;
    if (!flight->degraded)
        rc_lease_release(flight);
    detach(flight, op);
    rc_lease_next_round(flight);
}

void rc_leases_shutdown(struct rc_leases *leases)
{
    /* next_round may free the flight it is called for, but no other. */
    for (size_t i = 0; i < leases->flights.bucket_count; i++) {
        struct rc_table_node *node = leases->flights.buckets[i];
        while (node != NULL) {
            struct rc_flight *flight = (struct rc_flight *)(void *)node;
            node = node->next;
            if (flight->leader != NULL && !flight->leader->run.is_running) {
                if (!flight->degraded)
                    rc_lease_release(flight);
                detach(flight, flight->leader);
            }
            if (flight->req == NULL && flight->leader == NULL && flight->state != RC_FLIGHT_SERVED)
                rc_lease_next_round(flight);
        }
    }
}
