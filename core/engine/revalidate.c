#include "engine/revalidate.h"

#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "engine/entry.h"

enum {
    BATCHES = 2,                  /* requests under way: one is answered while the other travels */
    LOOK_BUCKETS = 4096,          /* per turn: 256 KiB of the index, well under a millisecond */
    LOOK_BUCKETS_OFFERED = 32768, /* the same for an offer, which does not stand for long: 1 ms */
    HOTTEST = 3,
    GIVE_UP_AFTER = 256 /* asked, and none is there any more: Redis came back empty */
};

struct batch {
    struct rc_revalidate *revalidate;
    uint64_t round;
    size_t count;
    struct rc_near_claim claims[RC_NEAR_CLAIMS]; /* asked for in one request */
    struct rc_buf keys;
};

static void ask_for_next(struct rc_revalidate *revalidate);

static void on_timer(void *context, struct rc_timer *timer)
{
    (void)context;
    ask_for_next(RC_CONTAINER(timer, struct rc_revalidate, timer));
}

int rc_revalidate_init(struct rc_revalidate *revalidate, struct rc_context *context,
                       struct rc_link *link, struct rc_near *near, struct rc_near_owner *owner)
{
    memset(revalidate, 0, sizeof *revalidate);
    revalidate->context = context;
    revalidate->link = link;
    revalidate->near = near;
    revalidate->owner = owner;
    revalidate->heat = -1;
    revalidate->timer.fire = on_timer;
    return rc_context_add_timer(context);
}

/* What another owner offers, and is not yet ours, goes to a taker that can go on with it. */
static void return_offer(struct rc_revalidate *revalidate)
{
    if (revalidate->source != NULL)
        rc_near_return_offer(revalidate->near, revalidate->source);
    revalidate->source = NULL;
}

void rc_revalidate_deinit(struct rc_revalidate *revalidate)
{
    return_offer(revalidate);
    rc_context_clear_timer(revalidate->context, &revalidate->timer);
    rc_context_remove_timer(revalidate->context);
}

void rc_revalidate_stop(struct rc_revalidate *revalidate)
{
    revalidate->round++;
    return_offer(revalidate);
    revalidate->heat = -1;
    rc_context_clear_timer(revalidate->context, &revalidate->timer);
}

static void begin(struct rc_revalidate *revalidate, struct rc_near_owner *source)
{
    revalidate->source = source;
    revalidate->heat = source != NULL ? RC_NEAR_ANY_HEAT : HOTTEST;
    revalidate->cursor = revalidate->under_way = 0;
    revalidate->asked = revalidate->confirmed = 0;
    ask_for_next(revalidate);
}

void rc_revalidate_start(struct rc_revalidate *revalidate)
{
    rc_revalidate_stop(revalidate);
    begin(revalidate, NULL);
}

/* An adoption that has begun must not go on: who takes what we offer looks for it but once, and
   what becomes ours behind that would end with us. */
void rc_revalidate_leave(struct rc_revalidate *revalidate)
{
    revalidate->is_leaving = true;
    if (revalidate->source != NULL)
        rc_revalidate_stop(revalidate);
}

void rc_revalidate_adopt(struct rc_revalidate *revalidate)
{
    uint32_t offers = rc_near_offers(revalidate->near);
    if (revalidate->is_leaving || offers == revalidate->seen_offers || revalidate->heat >= 0 ||
        revalidate->under_way > 0 || !rc_link_is_ready(revalidate->link) ||
        !revalidate->link->tracking)
        return;
    struct rc_near_owner *source = rc_near_take_offer(revalidate->near, revalidate->owner);
    if (source != NULL)
        begin(revalidate, source);
    else
        revalidate->seen_offers = offers;
}

static void free_batch(struct batch *batch)
{
    rc_buf_deinit(&batch->keys);
    free(batch);
}

/* Header and remaining life of one copy, as the answers tell. Returns whether it may be served. */
static bool confirm(struct batch *batch, const struct rc_near_claim *claim, const rc_node *header,
                    const rc_node *ttl, int64_t sent_us)
{
    struct rc_revalidate *revalidate = batch->revalidate;
    const char *key = rc_buf_head(&batch->keys) + claim->key_at;
    rc_result entry = {.ttl_ms = ttl->type == ':' ? ttl->integer : -2};
    rc_entry_read(&entry, header->type == '$' ? header->str : NULL, header->len);
    return revalidate->may_confirm(revalidate->link, key, claim->key_len) &&
           (entry.kind == RC_KIND_VALUE || entry.kind == RC_KIND_NEGATIVE) &&
           memcmp(entry.version, claim->version, sizeof entry.version) == 0 &&
           rc_near_confirm(revalidate->near, revalidate->owner, revalidate->source, key,
                           claim->key_len, claim->version, rc_entry_deadline(&entry, sent_us));
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct batch *batch = req->owner;
    struct rc_revalidate *revalidate = batch->revalidate;
    bool is_current = batch->round == revalidate->round;
    (void)text;
    if (is_current && status == 0 && reply->count == 2 * batch->count) {
        for (size_t i = 0; i < batch->count; i++) {
            const struct rc_near_claim *claim = &batch->claims[i];
            if (confirm(batch, claim, &reply->nodes[2 * i], &reply->nodes[2 * i + 1], req->sent_us))
                revalidate->confirmed++;
            else
                rc_near_drop_claim(revalidate->near, revalidate->owner, revalidate->source,
                                   rc_buf_head(&batch->keys) + claim->key_at, claim->key_len);
        }
        revalidate->asked += (uint32_t)batch->count;
    }
    free_batch(batch);
    if (!is_current)
        return;
    revalidate->under_way--;
    bool is_vain = revalidate->asked >= GIVE_UP_AFTER && revalidate->confirmed == 0;
    if (is_vain && revalidate->source != NULL) { /* nor would another taker find anything */
        rc_near_end_offer(revalidate->source);
        revalidate->source = NULL;
    }
    if (status != 0 || is_vain)
        rc_revalidate_stop(revalidate);
    else
        ask_for_next(revalidate);
}

static int encode(struct rc_buf *out, const struct batch *batch)
{
    int error = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const char *key = rc_buf_head(&batch->keys) + batch->claims[i].key_at;
        size_t len = batch->claims[i].key_len;
        error |= rc_command_head(out, 4);
        error |= rc_command_text(out, "GETRANGE");
        error |= rc_command_bytes(out, key, len);
        error |= rc_command_text(out, "0");
        error |= rc_command_int(out, RC_ENTRY_SIZE - 1);
        error |= rc_command_head(out, 2);
        error |= rc_command_text(out, "PTTL");
        error |= rc_command_bytes(out, key, len);
    }
    return error;
}

static bool ask(struct rc_revalidate *revalidate, struct batch *batch)
{
    struct rc_context *context = revalidate->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL || encode(&req->bytes, batch) != 0) {
        if (req != NULL)
            rc_req_give(req);
        return false;
    }
    req->expect = (uint32_t)(2 * batch->count);
    req->done = on_answer;
    req->owner = batch;
    req->stays = true; /* what another server says is not this owner's to vouch for */
    batch->round = revalidate->round;
    revalidate->under_way++;
    rc_link_send(revalidate->link, req,
                 rc_context_after_ms(context, context->options.command_timeout_ms));
    return true;
}

/* Finds the next copies to ask for, unless enough is under way. */
static void ask_for_next(struct rc_revalidate *revalidate)
{
    struct rc_context *context = revalidate->context;
    uint32_t buckets = revalidate->source != NULL ? LOOK_BUCKETS_OFFERED : LOOK_BUCKETS;
    while (revalidate->heat >= 0 && revalidate->under_way < BATCHES && buckets > 0) {
        struct batch *batch = malloc(sizeof *batch);
        if (batch == NULL)
            break; /* a moment later there may be memory */
        batch->revalidate = revalidate;
        rc_buf_init(&batch->keys);
        batch->count = rc_near_claims(revalidate->near, revalidate->owner, revalidate->source,
                                      revalidate->heat, &revalidate->cursor, buckets, batch->claims,
                                      &batch->keys);
        if (revalidate->cursor == 0)
            revalidate->heat = revalidate->source != NULL ? -1 : revalidate->heat - 1;
        if (batch->count < RC_NEAR_CLAIMS)
            buckets = 0; /* it has looked at all of them */
        if (batch->count == 0 || !ask(revalidate, batch))
            free_batch(batch);
    }
    if (revalidate->heat >= 0 && revalidate->under_way < BATCHES)
        rc_context_set_timer(context, &revalidate->timer, context->now_us + 1000);
    if (revalidate->heat < 0 && revalidate->under_way == 0 && revalidate->source != NULL) {
        rc_near_end_offer(revalidate->source);
        revalidate->source = NULL;
        rc_revalidate_adopt(revalidate); /* several workers leave at once */
    }
}
