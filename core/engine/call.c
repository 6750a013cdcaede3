#include "engine/call.h"

static void on_fetched(struct rc_receiver *receiver, struct rc_op *op, int status,
                       struct rc_reply *reply, const char *text);

void rc_calls_init(struct rc_calls *calls, struct rc_context *context, struct rc_topology *topology)
{
    calls->context = context;
    calls->topology = topology;
    calls->fetched.take = on_fetched;
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
    if (node->type == '-' && op->ask.kind != RC_OP_COMMAND)
        op->result.status = RC_ERR_REDIS;
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

static void on_read_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    op->run.req = NULL;
    take_entry(req->context, op, status, reply, text);
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
    read_answer(op, &op->reply);
    if (op->ask.kind == RC_OP_BARRIER)
        op->result.number = req->sent_us;
    rc_context_finish(req->context, op);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void send(struct rc_calls *calls, struct rc_op *op, struct rc_req *req, int32_t slot)
{
    req->owner = op;
    op->run.req = req;
    rc_topology_send(calls->topology, req, slot,
                     rc_context_after_ms(calls->context, rc_call_timeout_ms(calls->context, op)));
}

void rc_call_start(struct rc_calls *calls, struct rc_op *op)
{
    bool reads = op->ask.kind == RC_OP_GET;
    struct rc_req *req = reads ? rc_req_take_read(calls->context, op) : rc_req_take(calls->context);
    if (req == NULL) {
        rc_context_fail(calls->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    if (!reads) {
        rc_buf_swap(&req->bytes, &op->ask.request);
        req->expect = op->ask.expect;
        req->may_retry = op->ask.kind == RC_OP_DELETE || (op->ask.flags & RC_RETRY);
    }
    req->done = reads ? on_read_answer : on_answer;
    send(calls, op, req,
         rc_topology_slot(calls->topology, rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key)));
}

void rc_call_start_barrier(struct rc_calls *calls, struct rc_op *op)
{
    struct rc_server_node *node = rc_topology_node(calls->topology, RC_SLOT_ANY);
    struct rc_req *req = node->near != NULL ? rc_horizon_ping(&node->horizon) : NULL;
    if (req == NULL) {
        rc_context_fail(calls->context, op, node->near != NULL ? RC_ERR_NOMEM : RC_ERR_ARGUMENT,
                        NULL);
        return;
    }
    req->done = on_answer;
    req->is_tracked = true;
    send(calls, op, req, RC_SLOT_ANY);
}
