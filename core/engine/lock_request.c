#include "engine/lock_request.h"

#include "engine/command.h"

/* Outlives any backward step of the server's clock we care for. */
enum { FENCE_LIFE_MIN_MS = 3600 * 1000 };

int64_t rc_lock_deadline(const struct rc_locks *locks, const struct rc_op *op)
{
    int64_t ms = op != NULL && op->ask.timeout_ms > 0 ? op->ask.timeout_ms
                                                      : locks->context->options.command_timeout_ms;
    return rc_context_after_ms(locks->context, ms);
}

int32_t rc_lock_slot(const struct rc_locks *locks, const struct rc_buf *key)
{
    return rc_topology_slot(locks->topology, rc_buf_head(key), rc_buf_len(key));
}

void rc_lock_send(struct rc_locks *locks, struct rc_req *req, const struct rc_buf *key,
                  int64_t deadline_us)
{
    int32_t slot = rc_lock_slot(locks, key);
    if (req->needs_word)
        rc_topology_send_vouched(locks->topology, req, slot, deadline_us);
    else
        rc_topology_send(locks->topology, req, slot, deadline_us);
}

int rc_lock_put_key(struct rc_buf *out, const struct rc_buf *key)
{
    return rc_command_bytes(out, rc_buf_head(key), rc_buf_len(key));
}

/* A request with one answer that may be repeated; NULL: no memory. */
static struct rc_req *take(struct rc_locks *locks, enum rc_script script, uint32_t keys,
                           uint32_t arguments)
{
    struct rc_req *req = rc_req_take(locks->context);
    if (req == NULL)
        return NULL;
    req->expect = 1;
    req->may_retry = true;
    req->script = (int8_t)script;
    if (rc_script_begin(&req->bytes, script, keys, arguments) != 0) {
        rc_req_give(req);
        return NULL;
    }
    return req;
}

struct rc_req *rc_lock_take_release(struct rc_locks *locks, const struct rc_buf *key,
                                    const struct rc_buf *mark_key, const struct rc_buf *queue_key,
                                    const char *token)
{
    struct rc_req *req = queue_key == NULL ? take(locks, RC_SCRIPT_LOCK_RELEASE, 2, 1)
                                           : take(locks, RC_SCRIPT_QUEUE_RELEASE, 3, 1);
    if (req != NULL &&
        (rc_lock_put_key(&req->bytes, key) != 0 || rc_lock_put_key(&req->bytes, mark_key) != 0 ||
         (queue_key != NULL && rc_lock_put_key(&req->bytes, queue_key) != 0) ||
         rc_command_bytes(&req->bytes, token, RC_TOKEN_SIZE) != 0)) {
        rc_req_give(req);
        return NULL;
    }
    return req;
}

bool rc_lock_is_renewal(const struct rc_req *req)
{
    return req->script == RC_SCRIPT_LOCK_RENEW || req->script == RC_SCRIPT_QUEUE_RENEW;
}

struct rc_req *rc_lock_take_renew(struct rc_locks *locks, struct rc_lock *lock, int32_t ttl_ms)
{
    bool is_shared = lock->queue.kind == RC_QUEUE_SHARED;
    struct rc_req *req = is_shared ? take(locks, RC_SCRIPT_QUEUE_RENEW, 2, 2)
                                   : take(locks, RC_SCRIPT_LOCK_RENEW, 1, 2);
    if (req == NULL)
        return NULL;
    if (rc_lock_put_key(&req->bytes, &lock->key) != 0 ||
        (is_shared && rc_lock_put_key(&req->bytes, &lock->queue.key) != 0) ||
        rc_command_bytes(&req->bytes, lock->token, RC_TOKEN_SIZE) != 0 ||
        rc_command_int(&req->bytes, ttl_ms) != 0) {
        rc_req_give(req);
        return NULL;
    }
    req->is_tracked = true; /* the holder hears of its loss */
    req->needs_word = true; /* else a holder that is cut off from all others would never */
    return req;
}

struct rc_req *rc_lock_take_ask(struct rc_locks *locks, const struct rc_op *op, const char *token)
{
    const struct rc_lock_queue *queue = &op->ask.lock->queue;
    bool is_queued = queue->kind != RC_QUEUE_NONE;
    struct rc_req *req =
        is_queued ? take(locks, RC_SCRIPT_QUEUE_LOCK, 5, 5) : take(locks, RC_SCRIPT_LOCK, 3, 4);
    int64_t fence_ms = 10 * (int64_t)op->ask.lock_options.ttl_ms;
    if (req == NULL)
        return NULL;
    req->is_tracked = true; /* a waiting caller hears of the release */
    req->needs_word = true;
    int error = rc_lock_put_key(&req->bytes, &op->ask.lock->key);
    error |= rc_lock_put_key(&req->bytes, &op->ask.lock->fence_key);
    error |= rc_lock_put_key(&req->bytes, &op->ask.lock->mark_key);
    if (is_queued) {
        error |= rc_lock_put_key(&req->bytes, &queue->key);
        error |= rc_lock_put_key(&req->bytes, &queue->alone);
    }
    error |= rc_command_bytes(&req->bytes, token, RC_TOKEN_SIZE);
    error |= rc_command_int(&req->bytes, op->ask.lock_options.ttl_ms);
    if (is_queued)
        error |= rc_command_bytes(&req->bytes, &queue->kind, 1);
    else
        error |= rc_command_int(&req->bytes, op->ask.lock_options.flags & RC_FORCE ? 1 : 0);
    error |=
        rc_command_int(&req->bytes, fence_ms > FENCE_LIFE_MIN_MS ? fence_ms : FENCE_LIFE_MIN_MS);
    if (is_queued)
        error |= rc_command_int(&req->bytes, op->ask.lock_options.wait_ms > 0 ? 1 : 0);
    if (error != 0) {
        rc_req_give(req);
        return NULL;
    }
    return req;
}

void rc_lock_send_for(struct rc_locks *locks, struct rc_op *op, struct rc_req *req,
                      void (*done)(struct rc_req *, int, struct rc_reply *, const char *))
{
    if (req == NULL) {
        rc_context_fail(locks->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    req->done = done;
    req->owner = op;
    req->detail = locks;
    op->run.req = req;
    rc_lock_send(locks, req, &op->ask.lock->key, rc_lock_deadline(locks, op));
}
