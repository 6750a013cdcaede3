#include "engine/horizon.h"

#include <string.h>

enum {
    DEFAULT_NEED_US = 1000000, /* maxStale, while no reader has told */
    TICK_MIN_US = 2000,
    PATIENCE_MIN_US = 1000000,
    SECOND_LOOK_US = 10000,
    FIRST_PACE_US = 4000, /* no reader has said yet how fresh it must be */
    SWEEP_EVERY_US = 200000,
    SWEEP_BUCKETS = 1024 /* 64 KiB of the index: some 20 us */
};

static void on_tick(void *context, struct rc_timer *timer);

int rc_horizon_init(struct rc_horizon *horizon, struct rc_context *context, struct rc_link *link,
                    struct rc_near *near, struct rc_near_owner *owner)
{
    memset(horizon, 0, sizeof *horizon);
    horizon->context = context;
    horizon->link = link;
    horizon->near = near;
    horizon->owner = owner;
    horizon->timer.fire = on_tick;
    return rc_context_add_timer(context);
}

void rc_horizon_deinit(struct rc_horizon *horizon)
{
    rc_context_clear_timer(horizon->context, &horizon->timer);
    rc_context_remove_timer(horizon->context);
}

static int64_t need_us(const struct rc_horizon *horizon)
{
    int64_t need = rc_near_need_us(horizon->owner);
    return need < DEFAULT_NEED_US ? need : DEFAULT_NEED_US;
}

/* A quarter: an answer that takes as long as that again still comes in time. */
int64_t rc_horizon_period_us(const struct rc_horizon *horizon)
{
    int64_t period = need_us(horizon) / 4;
    return period > TICK_MIN_US ? period : TICK_MIN_US;
}

static void set_timer(struct rc_horizon *horizon)
{
    int64_t period = rc_horizon_period_us(horizon);
    int64_t after_us = horizon->pace_us < period ? horizon->pace_us : period;
    horizon->pace_us = 2 * after_us;
    rc_context_set_timer(horizon->context, &horizon->timer, horizon->context->now_us + after_us);
}

/* An answer that does not come within maxStale: nobody knows what has changed. But a server that is
   busy for a moment is no reason to connect again. */
static int64_t patience_us(const struct rc_horizon *horizon)
{
    int64_t need = need_us(horizon);
    return need > PATIENCE_MIN_US ? need : PATIENCE_MIN_US;
}

static void on_pong(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_horizon *horizon = req->owner;
    (void)reply;
    (void)text;
    horizon->heartbeat = NULL;
    if (status != RC_ERR_TIMEOUT)
        return;
    /* The answer may be there and not yet read, where this process itself stood still. */
    horizon->stuck_us = horizon->context->now_us;
    rc_context_set_timer(horizon->context, &horizon->timer,
                         horizon->context->now_us + SECOND_LOOK_US);
}

static void heartbeat_if_due(struct rc_horizon *horizon)
{
    struct rc_context *context = horizon->context;
    struct rc_link *link = horizon->link;
    int64_t last_us =
        horizon->heartbeat_us > link->confirmed_us ? horizon->heartbeat_us : link->confirmed_us;
    bool is_due = context->now_us - last_us >= rc_horizon_period_us(horizon) - TICK_MIN_US;
    if (!rc_link_is_ready(link) || horizon->heartbeat != NULL || !is_due)
        return;
    struct rc_req *req = rc_link_question(link);
    if (req == NULL)
        return;
    req->done = on_pong;
    req->owner = horizon;
    horizon->heartbeat = req;
    horizon->heartbeat_us = context->now_us;
    rc_link_send(link, req, context->now_us + patience_us(horizon));
}

void rc_horizon_watch(struct rc_horizon *horizon)
{
    horizon->asked_us = horizon->context->now_us;
    if (horizon->is_watching) { /* since a time when somebody read; that may be over for long */
        if (horizon->context->now_us - rc_near_asof(horizon->owner) > need_us(horizon))
            heartbeat_if_due(horizon);
        return;
    }
    horizon->is_watching = true;
    horizon->pace_us = FIRST_PACE_US;
    heartbeat_if_due(horizon); /* ahead of the read that made us watch */
    set_timer(horizon);
}

void rc_horizon_offer(struct rc_horizon *horizon)
{
    horizon->is_offered = true;
    heartbeat_if_due(horizon); /* where nobody has read for a while the last word is an old one */
    rc_horizon_watch(horizon);
}

struct rc_req *rc_horizon_ping(struct rc_horizon *horizon)
{
    int64_t now_us = horizon->context->now_us;
    if (!rc_link_is_ready(horizon->link) || rc_horizon_reach(horizon, now_us) < now_us)
        return rc_link_question(horizon->link);
    return rc_link_ping(horizon->link);
}

int64_t rc_horizon_reach(const struct rc_horizon *horizon, int64_t sent_us)
{
    int64_t bound_us = horizon->link->confirmed_us + rc_horizon_period_us(horizon);
    return sent_us < bound_us ? sent_us : bound_us;
}

static void sweep(struct rc_horizon *horizon)
{
    if (horizon->context->now_us - horizon->swept_us < SWEEP_EVERY_US)
        return;
    horizon->swept_us = horizon->context->now_us;
    horizon->sweep_at = rc_near_sweep(horizon->near, horizon->sweep_at, SWEEP_BUCKETS);
}

static void on_tick(void *context, struct rc_timer *timer)
{
    struct rc_horizon *horizon = RC_CONTAINER(timer, struct rc_horizon, timer);
    int64_t now_us = ((struct rc_context *)context)->now_us;
    int64_t read_us = rc_near_read_us(horizon->owner);
    int64_t need = need_us(horizon);
    if (horizon->stuck_us != 0 && horizon->link->received_us < horizon->stuck_us)
        rc_link_give_up(horizon->link, "the server does not answer");
    horizon->stuck_us = 0;
    sweep(horizon);
    if (horizon->on_watch != NULL)
        horizon->on_watch(horizon);
    /* Readers tell of themselves once in an eighth of what they need. */
    if (horizon->is_offered || now_us - read_us <= rc_horizon_period_us(horizon) + need / 8) {
        heartbeat_if_due(horizon);
    } else if (!horizon->stays && now_us - rc_near_asof(horizon->owner) > need &&
               now_us - horizon->asked_us > need) { /* who asks reads once the answer is there */
        horizon->is_watching = false; /* a read now goes to Redis, and we watch again */
        rc_near_forget_need(horizon->owner);
        return;
    }
    set_timer(horizon);
}
