#include "engine/fuse.h"

#include <string.h>

enum { TICK_MIN_US = 5000, SOON_US = 1000, PROBE_MIN_MS = 1000 };

static void probe(struct rc_fuse *fuse);

static int64_t tick_us(const struct rc_fuse *fuse)
{
    int64_t half_us = fuse->breaker.gap_us / 2;
    return half_us > TICK_MIN_US ? half_us : TICK_MIN_US;
}

static void wake_at(struct rc_fuse *fuse, int64_t at_us)
{
    fuse->due_us = at_us;
    fuse->breaker.is_watched = true;
    rc_context_set_timer(fuse->context, &fuse->timer, at_us);
}

static bool is_busy(const struct rc_fuse *fuse)
{
    return !rc_list_is_empty(&fuse->commands->in_flight) ||
           !rc_list_is_empty(&fuse->tracked->in_flight);
}

/* The next look: soon while answers are waited for, and when it may be probed. */
static void wake_next(struct rc_fuse *fuse)
{
    const struct rc_breaker *breaker = &fuse->breaker;
    int64_t now_us = fuse->context->now_us, at_us = now_us + tick_us(fuse);
    if (fuse->context->closing)
        return;
    if (!rc_breaker_is_shut(breaker)) {
        if (is_busy(fuse))
            wake_at(fuse, at_us);
        return;
    }
    bool can_probe = fuse->probe == NULL && rc_link_is_ready(fuse->commands) &&
                     breaker->hold != RC_BREAKER_HELD_OPEN;
    if (!can_probe)
        wake_at(fuse, now_us + breaker->rules.wait_us);
    else
        wake_at(fuse, breaker->next_us > now_us ? breaker->next_us : now_us + SOON_US);
}

static void on_probed(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_fuse *fuse = req->owner;
    int64_t now_us = fuse->context->now_us;
    (void)text;
    fuse->probe = NULL;
    bool has_answered = status == 0 || reply != NULL;
    bool is_good = status == 0 && reply->nodes[0].type != '-' &&
                   now_us - req->sent_us <= fuse->breaker.rules.latency_us;
    rc_breaker_probed(&fuse->breaker, is_good, has_answered, now_us);
    if (fuse->context->closing)
        return;
    if (is_good)
        probe(fuse);
    if (rc_breaker_is_shut(&fuse->breaker) && fuse->probe == NULL)
        wake_next(fuse);
}

/* For the answer to a probe: a second, or longer where an answer may take longer. */
static int32_t patience_ms(const struct rc_fuse *fuse)
{
    const rc_options *options = &fuse->context->options;
    int32_t ms =
        options->breaker_latency_ms > PROBE_MIN_MS ? options->breaker_latency_ms : PROBE_MIN_MS;
    return ms < options->command_timeout_ms ? ms : options->command_timeout_ms;
}

static void probe(struct rc_fuse *fuse)
{
    struct rc_context *context = fuse->context;
    struct rc_link *link = fuse->commands;
    rc_link_want(link);
    if (fuse->probe != NULL || !rc_link_is_ready(link) ||
        !rc_breaker_may_probe(&fuse->breaker, context->now_us))
        return;
    struct rc_req *req = rc_link_ping(link);
    if (req == NULL) {
        rc_breaker_probed(&fuse->breaker, false, false, context->now_us);
        return;
    }
    req->done = on_probed;
    req->owner = fuse;
    fuse->probe = req;
    context->stats.breaker_probes++;
    rc_link_send(link, req, rc_context_after_ms(context, patience_ms(fuse)));
}

static void on_timer(void *context, struct rc_timer *timer)
{
    struct rc_fuse *fuse = RC_CONTAINER(timer, struct rc_fuse, timer);
    int64_t now_us = ((struct rc_context *)context)->now_us;
    fuse->breaker.is_watched = false;
    rc_breaker_late(&fuse->breaker, now_us - fuse->due_us, now_us);
    if (fuse->context->closing)
        return;
    if (rc_breaker_is_shut(&fuse->breaker))
        probe(fuse);
    wake_next(fuse);
}

static void on_sent(struct rc_breaker *breaker)
{
    struct rc_fuse *fuse = RC_CONTAINER(breaker, struct rc_fuse, breaker);
    wake_at(fuse, fuse->context->now_us + tick_us(fuse));
}

static void on_change(struct rc_breaker *breaker)
{
    struct rc_fuse *fuse = RC_CONTAINER(breaker, struct rc_fuse, breaker);
    rc_stats *stats = &fuse->context->stats;
    if (!rc_breaker_is_shut(breaker)) {
        stats->breakers_open--;
        if (fuse->on_closed != NULL)
            fuse->on_closed(fuse);
        return;
    }
    stats->breakers_open++;
    stats->breaker_trips++;
    wake_at(fuse, breaker->next_us);
}

int rc_fuse_init(struct rc_fuse *fuse, struct rc_context *context, struct rc_link *commands,
                 struct rc_link *tracked)
{
    const rc_options *options = &context->options;
    memset(fuse, 0, sizeof *fuse);
    fuse->context = context;
    fuse->commands = commands;
    fuse->tracked = tracked;
    fuse->timer.fire = on_timer;
    fuse->is_on = options->breaker > 0;
    if (!fuse->is_on)
        return 0;
    const struct rc_breaker_rules rules = {
        .window = (uint32_t)options->breaker_window,
        .errors_permille = (uint32_t)options->breaker_errors,
        .latency_us = (int64_t)options->breaker_latency_ms * 1000,
        .silence_us = (int64_t)options->command_timeout_ms * 1000,
        .wait_us = (int64_t)options->breaker_wait_ms * 1000,
        .probes = (uint32_t)options->breaker_probes};
    rc_breaker_init(&fuse->breaker, &rules);
    fuse->breaker.on_sent = on_sent;
    fuse->breaker.on_change = on_change;
    int error = rc_context_add_timer(context);
    if (error != 0) {
        fuse->is_on = false;
        return error;
    }
    commands->breaker = tracked->breaker = &fuse->breaker;
    if (context->breaker_hold != RC_BREAKER_AUTO)
        rc_fuse_set_hold(fuse, (enum rc_breaker_hold)context->breaker_hold);
    return 0;
}

void rc_fuse_deinit(struct rc_fuse *fuse)
{
    if (!fuse->is_on)
        return;
    rc_context_clear_timer(fuse->context, &fuse->timer);
    rc_context_remove_timer(fuse->context);
    if (rc_breaker_is_shut(&fuse->breaker))
        fuse->context->stats.breakers_open--;
    fuse->is_on = false;
}

void rc_fuse_renew(struct rc_fuse *fuse)
{
    if (fuse->is_on)
        rc_breaker_renew(&fuse->breaker);
}

bool rc_fuse_set_hold(struct rc_fuse *fuse, enum rc_breaker_hold hold)
{
    if (fuse->is_on)
        rc_breaker_set_hold(&fuse->breaker, hold, fuse->context->now_us);
    return fuse->is_on;
}

void rc_fuse_hurry(struct rc_fuse *fuse)
{
    if (!fuse->is_on || !rc_breaker_is_shut(&fuse->breaker))
        return;
    rc_breaker_hurry(&fuse->breaker, fuse->context->now_us);
    if (fuse->probe == NULL && !fuse->context->closing)
        wake_next(fuse);
}
