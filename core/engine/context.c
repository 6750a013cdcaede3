#include "engine/context.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Room a pooled request keeps; one that carried a large value gives it back. */
enum { KEEP_BYTES = 64 * 1024 };

int rc_context_init(struct rc_context *context, const rc_options *options,
                    const struct rc_seed *seed)
{
    memset(context, 0, sizeof *context);
    context->options = *options;
    context->options.url = context->options.group = NULL;
    context->options.url_len = context->options.group_len = 0;
    context->seed = *seed;
    rc_heap_init(&context->timers);
    rc_list_init(&context->pool);
    rc_list_init(&context->finished);
    return 0;
}

void rc_context_deinit(struct rc_context *context)
{
    RC_LIST_EACH(place, following, &context->pool) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        rc_buf_deinit(&req->bytes);
        free(req);
    }
    rc_heap_deinit(&context->timers);
}

uint64_t rc_context_random(struct rc_context *context)
{
    /* Relaxed: only uniqueness matters, no other memory hangs on it. */
    uint64_t number = atomic_fetch_add_explicit(&context->nonces, 1, memory_order_relaxed);
    return rc_siphash(&context->seed, &number, sizeof number);
}

void rc_context_nonce(struct rc_context *context, char nonce[RC_NONCE_SIZE])
{
    uint64_t number = rc_context_random(context);
    memcpy(nonce, &number, RC_NONCE_SIZE);
}

int rc_context_add_timer(struct rc_context *context)
{
    int error = rc_heap_reserve(&context->timers, context->timer_owners + context->running_ops + 1);
    if (error == 0)
        context->timer_owners++;
    return error;
}

void rc_context_remove_timer(struct rc_context *context)
{
    context->timer_owners--;
}

void rc_context_set_timer(struct rc_context *context, struct rc_timer *timer, int64_t at_us)
{
    /* Most deadlines: those of requests without a timeout of their own. */
    bool is_default = at_us == rc_context_after_ms(context, context->options.command_timeout_ms);
    int error = is_default ? rc_heap_set_in_line(&context->timers, timer, at_us)
                           : rc_heap_set(&context->timers, timer, at_us);
    assert(error == 0); /* rc_context_add_timer made the room */
    (void)error;
}

void rc_context_clear_timer(struct rc_context *context, struct rc_timer *timer)
{
    rc_heap_clear(&context->timers, timer);
}

void rc_context_fire_timers(struct rc_context *context)
{
    struct rc_timer *timer;
    assert(context->now_us > 0); /* the driver has told the time */
    while ((timer = rc_heap_first(&context->timers)) != NULL && timer->at_us <= context->now_us) {
        rc_heap_clear(&context->timers, timer);
        timer->fire(context, timer);
    }
}

struct rc_req *rc_req_take(struct rc_context *context)
{
    struct rc_req *req;
    if (!rc_list_is_empty(&context->pool)) {
        req = RC_CONTAINER(context->pool.next, struct rc_req, place);
        rc_list_remove(&req->place);
        return req;
    }
    if (rc_context_add_timer(context) != 0)
        return NULL;
    req = calloc(1, sizeof *req);
    if (req == NULL) {
        rc_context_remove_timer(context);
        return NULL;
    }
    rc_list_init(&req->place);
    rc_buf_init(&req->bytes);
    req->context = context;
    req->script = -1;
    req->slot = -1;
    return req;
}

void rc_req_give(struct rc_req *req)
{
    struct rc_context *context = req->context;
    rc_heap_clear(&context->timers, &req->timer);
    rc_list_remove(&req->place);
    struct rc_buf bytes = req->bytes;
    rc_buf_clear(&bytes);
    rc_buf_trim(&bytes, KEEP_BYTES);
    memset(req, 0, sizeof *req);
    req->context = context;
    req->bytes = bytes;
    req->script = -1;
    req->slot = -1;
    rc_list_prepend(&context->pool, &req->place);
}

struct rc_req *rc_req_take_read(struct rc_context *context, const struct rc_op *op)
{
    struct rc_req *req = rc_req_take(context);
    if (req == NULL)
        return NULL;
    req->read_key = &op->ask.key;
    req->expect = op->ask.expect;
    req->may_retry = true;
    return req;
}

int rc_context_start(struct rc_context *context, struct rc_op *op)
{
    assert(!op->run.is_running);
    op->run.is_running = true;
    context->running_ops++;
    return rc_heap_reserve(&context->timers, context->timer_owners + context->running_ops);
}

void rc_context_finish(struct rc_context *context, struct rc_op *op)
{
    assert(op->run.is_running);
    op->run.is_running = false;
    context->running_ops--;
    op->run.req = NULL;
    rc_heap_clear(&context->timers, &op->run.deadline);
    rc_list_remove(&op->run.member);
    rc_list_remove(&op->run.active);
    rc_list_append(&context->finished, &op->run.active);
}

void rc_context_fail(struct rc_context *context, struct rc_op *op, int status, const char *text)
{
    op->result.outcome = RC_DONE;
    op->result.flags = 0;
    rc_op_keep(op, text, text != NULL ? strlen(text) : 0);
    op->result.kind = RC_KIND_NONE;
    op->result.status = status;
    if (status == RC_ERR_TIMEOUT)
        context->stats.timeouts++;
    rc_context_finish(context, op);
}

const char *rc_node_text(const rc_node *node, char text[RC_TEXT_SIZE])
{
    size_t len = node->len < RC_TEXT_SIZE ? node->len : RC_TEXT_SIZE - 1;
    if (len > 0)
        memcpy(text, node->str, len);
    text[len] = '\0';
    return text;
}
