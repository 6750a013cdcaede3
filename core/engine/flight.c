#include "engine/flight.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct rc_flight *rc_flight_find(struct rc_leases *leases, const struct rc_op *op)
{
    struct rc_table_node *node =
        rc_table_find(&leases->flights, rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key));
    while (node != NULL && ((struct rc_flight *)(void *)node)->purpose != op->ask.purpose)
        node = rc_table_find_next(node);
    return (struct rc_flight *)(void *)node;
}

struct rc_flight *rc_flight_new(struct rc_leases *leases, const struct rc_op *op)
{
    struct rc_flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL)
        return NULL;
    flight->leases = leases;
    flight->purpose = op->ask.purpose;
    rc_list_init(&flight->waiting);
    rc_buf_init(&flight->key);
    rc_buf_init(&flight->helper);
    rc_buf_init(&flight->served);
    if (rc_context_add_timer(leases->context) != 0)
        goto fail;
    if (rc_buf_append(&flight->key, rc_buf_head(&op->ask.key), rc_buf_len(&op->ask.key)) != 0)
        goto fail_timer;
    flight->node.key = rc_buf_head(&flight->key);
    flight->node.key_len = rc_buf_len(&flight->key);
    if (rc_table_insert(&leases->flights, &flight->node) != 0)
        goto fail_timer;
    return flight;

fail_timer:
    rc_context_remove_timer(leases->context);
fail:
    rc_buf_deinit(&flight->key);
    free(flight);
    return NULL;
}

void rc_flight_forget_served(struct rc_flight *flight)
{
    flight->leases->served_bytes -= flight->served_cost;
    flight->served_cost = 0;
    rc_buf_clear(&flight->served);
}

void rc_flight_free(struct rc_flight *flight)
{
    struct rc_leases *leases = flight->leases;
    assert(rc_list_is_empty(&flight->waiting) && flight->leader == NULL);
    assert(flight->req == NULL && flight->heartbeat == NULL);
    leases->served_bytes -= flight->served_cost;
    rc_context_clear_timer(leases->context, &flight->timer);
    rc_context_remove_timer(leases->context);
    rc_track_unwatch(leases->track, &flight->watch);
    rc_track_unwatch(leases->track, &flight->helper_watch);
    rc_table_remove(&leases->flights, &flight->node);
    rc_buf_deinit(&flight->key);
    rc_buf_deinit(&flight->helper);
    rc_buf_deinit(&flight->served);
    free(flight);
}

void rc_flight_free_if_idle(struct rc_flight *flight)
{
    bool idle = flight->state == RC_FLIGHT_IDLE || flight->state == RC_FLIGHT_WAITING;
    if (idle && rc_list_is_empty(&flight->waiting) && flight->leader == NULL &&
        flight->req == NULL && flight->heartbeat == NULL)
        rc_flight_free(flight);
}

void rc_flight_join(struct rc_flight *flight, struct rc_op *op)
{
    op->run.joined = ++flight->leases->joined;
    op->run.flight = flight;
    if (op->run.has_waited && !flight->has_waited) {
        memcpy(flight->waited_token, op->run.waited_token, RC_NONCE_SIZE);
        flight->has_waited = true;
    }
    rc_list_append(&flight->waiting, &op->run.member);
}

struct rc_op *rc_flight_first(const struct rc_flight *flight)
{
    if (rc_list_is_empty(&flight->waiting))
        return NULL;
    return RC_CONTAINER(flight->waiting.next, struct rc_op, run.member);
}

void rc_flight_hit(struct rc_context *context, struct rc_op *op, const char *bytes, size_t len,
                   int64_t ttl_ms, uint32_t flags)
{
    op->run.flight = NULL;
    if (rc_entry_is_too_large(len, context->options.max_value_bytes)) {
        rc_context_fail(context, op, RC_ERR_TOOLARGE, NULL);
        return;
    }
    rc_op_keep_entry(op, bytes, len, ttl_ms);
    op->run.bypassed_near = true;
    op->result.outcome = RC_HIT;
    op->result.flags = flags;
    rc_context_finish(context, op);
}

void rc_flight_give(struct rc_flight *flight, uint64_t served_until, const char *bytes, size_t len,
                    int64_t ttl_ms, uint32_t flags)
{
    struct rc_op *op;
    while ((op = rc_flight_first(flight)) != NULL && op->run.joined <= served_until) {
        if (flags & RC_SHARED)
            flight->leases->context->stats.shared++;
        rc_flight_hit(flight->leases->context, op, bytes, len, ttl_ms, flags);
    }
}

static bool cannot_read(const struct rc_op *op, const char *bytes, size_t len)
{
    char identity[RC_IDENTITY_SIZE];
    return (op->ask.load.flags & RC_REPLACE) && bytes != NULL &&
           rc_entry_identity(identity, bytes, len) == op->run.seen_len &&
           memcmp(identity, op->run.seen, op->run.seen_len) == 0;
}

void rc_flight_give_found(struct rc_flight *flight, uint64_t served_until, const char *bytes,
                          size_t len, int64_t ttl_ms, uint32_t flags)
{
    RC_LIST_EACH(member, following, &flight->waiting) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
        if (op->run.joined <= served_until && !cannot_read(op, bytes, len))
            rc_flight_hit(flight->leases->context, op, bytes, len, ttl_ms, flags);
    }
}

void rc_flight_give_failure(struct rc_flight *flight, uint64_t served_until, const char *text,
                            size_t len)
{
    struct rc_op *op;
    while ((op = rc_flight_first(flight)) != NULL && op->run.joined <= served_until) {
        op->run.flight = NULL;
        rc_op_keep(op, text, len);
        op->result.kind = RC_KIND_ERROR;
        op->result.outcome = RC_FAILED;
        rc_context_finish(flight->leases->context, op);
    }
}

void rc_flight_tell_busy(struct rc_flight *flight, const char *token)
{
    RC_LIST_EACH(member, following, &flight->waiting) {
        struct rc_op *op = RC_CONTAINER(member, struct rc_op, run.member);
        if (!(op->ask.load.flags & RC_NO_WAIT))
            continue;
        if (token != NULL)
            memcpy(op->run.waited_token, token, RC_NONCE_SIZE);
        op->run.has_waited = token != NULL;
        op->run.flight = NULL;
        rc_entry_read(&op->result, NULL, 0);
        op->result.outcome = RC_BUSY;
        rc_context_finish(flight->leases->context, op);
    }
}

void rc_flight_promote(struct rc_flight *flight)
{
    struct rc_context *context = flight->leases->context;
    struct rc_op *op = rc_flight_first(flight);
    assert(op != NULL && flight->leader == NULL);
    flight->leader = op;
    op->run.leads = true;
    op->run.without_redis = flight->degraded;
    memcpy(op->run.token, flight->token, RC_NONCE_SIZE);
    rc_context_nonce(context, op->run.nonce);
    op->result.outcome = RC_LOAD;
    op->result.flags = flight->degraded ? RC_DEGRADED : 0;
    if (flight->purpose == RC_FLIGHT_REFRESH)
        op->result.flags |= RC_REFRESH; /* its stale value is already in the result */
    else
        rc_entry_read(&op->result, NULL, 0); /* what the first read found is no value of ours */
    rc_context_finish(context, op);
    rc_list_append(&flight->leases->leading, &op->run.member);
    rc_flight_tell_busy(flight, flight->degraded ? NULL : flight->token);
}
