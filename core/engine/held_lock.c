#include "engine/held_lock.h"

#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/lock_request.h"
#include "engine/redirect.h"

enum { TRUST_MARGIN_MIN_MS = 50 };

void rc_held_lock_end(struct rc_lock *lock, int state)
{
    struct rc_locks *locks = lock->locks;
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) != RC_LOCK_HELD)
        return;
    locks->context->stats.active_locks--;
    locks->context->stats.locks_lost += state == RC_LOCK_LOST;
    /* Pairs with the acquire in rc_lock_state(). */
    atomic_store_explicit(&lock->state, state, memory_order_release);
    rc_context_clear_timer(locks->context, &lock->renew);
    rc_context_clear_timer(locks->context, &lock->trust);
    rc_track_unwatch(locks->track, &lock->watch);
    rc_list_remove(&lock->held);
    if (lock->check != NULL)
        rc_link_forget(lock->check);
    lock->check = NULL;
}

static int64_t trust_end(int64_t sent_us, int32_t ttl_ms)
{
    int64_t margin_ms = ttl_ms / 10 > TRUST_MARGIN_MIN_MS ? ttl_ms / 10 : TRUST_MARGIN_MIN_MS;
    return sent_us + (ttl_ms - margin_ms) * 1000;
}

/* The key has ttl_ms to live, by the answer to a request that was sent at sent_us. */
static void trust(struct rc_lock *lock, int64_t sent_us, int32_t ttl_ms)
{
    int64_t until_us = trust_end(sent_us, ttl_ms);
    lock->key_until_us = sent_us + (int64_t)ttl_ms * 1000;
    /* Relaxed: a reader that sees the older deadline errs on the safe side. */
    atomic_store_explicit(&lock->trusted_until_us, until_us, memory_order_relaxed);
    rc_context_set_timer(lock->locks->context, &lock->trust, until_us);
}

static void on_trust_end(void *context, struct rc_timer *timer)
{
    (void)context;
    rc_held_lock_end(RC_CONTAINER(timer, struct rc_lock, trust), RC_LOCK_LOST);
}

static void watch_hold(struct rc_lock *lock)
{
    (void)rc_track_watch(lock->locks->track, &lock->watch, rc_buf_head(&lock->key),
                         rc_buf_len(&lock->key));
}

static void set_renewal(struct rc_lock *lock)
{
    if (lock->renews)
        rc_context_set_timer(lock->locks->context, &lock->renew,
                             rc_context_after_ms(lock->locks->context, (lock->ttl_ms + 2) / 3));
}

static void send_renewal(struct rc_lock *lock);

/* Somebody may have made its life shorter than we know: it certainly is where the key would have
   to live on behind what Redis says now, whose milliseconds are rounded. */
static void trust_no_longer(struct rc_lock *lock, int64_t sent_us, int64_t left_ms)
{
    struct rc_context *context = lock->locks->context;
    if (left_ms < 0 || rc_context_after_ms(context, left_ms + 3) >= lock->key_until_us)
        return;
    trust(lock, sent_us, (int32_t)left_ms);
    if (lock->renews && context->now_us < lock->hold_until_us) {
        set_renewal(lock);
        send_renewal(lock);
    }
}

/* The answer to a renewal (number) or to a look at the key (string, and its life). */
static void on_check_answer(struct rc_req *req, int status, struct rc_reply *reply,
                            const char *text)
{
    struct rc_lock *lock = req->owner;
    bool is_doomed = lock->is_check_doomed;
    (void)text;
    lock->check = NULL;
    if (RC_MUTANT(RENEWED_ELSEWHERE) && status == 0 && rc_redirect_is(&reply->nodes[0]))
        trust(lock, req->sent_us, lock->ttl_ms);
    if (status != 0 || reply->nodes[0].type == '-')
        return; /* nothing learnt: the next renewal or the end of trust decides */
    const rc_node *node = &reply->nodes[0];
    bool is_renewal = rc_lock_is_renewal(req);
    bool ours = is_renewal ? node->integer == 1
                           : node->type == '$' && node->len == RC_TOKEN_SIZE &&
                                 memcmp(node->str, lock->token, RC_TOKEN_SIZE) == 0;
    if (!ours) {
        rc_held_lock_end(lock, RC_LOCK_LOST);
        return;
    }
    watch_hold(lock);
    if (is_renewal)
        trust(lock, req->sent_us, lock->ttl_ms);
    else if (reply->count == 2 && reply->nodes[1].type == ':')
        trust_no_longer(lock, req->sent_us, reply->nodes[1].integer);
    if (is_doomed)
        rc_held_lock_verify(lock);
}

void rc_held_lock_push(const struct rc_link *link, const char *key, size_t len)
{
    struct rc_req *req = rc_link_half_answered(link);
    if (req == NULL || req->done != on_check_answer)
        return;
    struct rc_lock *lock = req->owner;
    if (key == NULL || rc_buf_is(&lock->key, key, len))
        lock->is_check_doomed = true;
}

/* Somebody changed the lock's key (maybe our own renewal): look, which also makes the server track
   it again. */
void rc_held_lock_verify(struct rc_lock *lock)
{
    struct rc_locks *locks = lock->locks;
    if (lock->check != NULL)
        return; /* its answer comes behind this news, so it tells as much */
    struct rc_req *req = rc_req_take(locks->context);
    if (req == NULL)
        return;
    if (rc_command_head(&req->bytes, 2) != 0 || rc_command_text(&req->bytes, "GET") != 0 ||
        rc_lock_put_key(&req->bytes, &lock->key) != 0 || rc_command_head(&req->bytes, 2) != 0 ||
        rc_command_text(&req->bytes, "PTTL") != 0 ||
        rc_lock_put_key(&req->bytes, &lock->key) != 0) {
        rc_req_give(req);
        return;
    }
    req->expect = 2;
    req->may_retry = true;
    req->is_tracked = true;
    req->done = on_check_answer;
    req->owner = lock;
    lock->check = req;
    lock->is_check_doomed = false;
    rc_lock_send(locks, req, &lock->key, rc_lock_deadline(locks, NULL));
}

/* A check that is under way may be answered by the node before: the heir is asked behind it. */
void rc_held_lock_follow(struct rc_lock *lock)
{
    struct rc_locks *locks = lock->locks;
    uint16_t home = rc_topology_owner(locks->topology, rc_lock_slot(locks, &lock->key));
    if (home == lock->home || RC_MUTANT(RENEWED_ELSEWHERE))
        return;
    lock->home = home;
    if (lock->check != NULL)
        lock->is_check_doomed = true;
    else
        rc_held_lock_verify(lock);
}

static void on_hold_watch(struct rc_watch *watch)
{
    rc_held_lock_verify(RC_CONTAINER(watch, struct rc_lock, watch));
}

static void send_renewal(struct rc_lock *lock)
{
    struct rc_locks *locks = lock->locks;
    if (lock->check != NULL && rc_lock_is_renewal(lock->check))
        return; /* a slow answer is worth waiting for: without it trust would run out */
    struct rc_req *req = rc_lock_take_renew(locks, lock, lock->ttl_ms);
    if (req == NULL)
        return;
    if (lock->check != NULL)
        rc_link_forget(lock->check);
    req->done = on_check_answer;
    req->is_upkeep = true;
    req->owner = lock;
    lock->check = req;
    lock->is_check_doomed = false;
    locks->context->stats.lock_renewals++;
    rc_lock_send(locks, req, &lock->key, rc_lock_deadline(locks, NULL));
    locks->on_word(locks->owner, lock->home, false);
}

static void on_renew_timer(void *context, struct rc_timer *timer)
{
    struct rc_lock *lock = RC_CONTAINER(timer, struct rc_lock, renew);
    (void)context;
    if (lock->locks->context->now_us >= lock->hold_until_us)
        return; /* held for as long as allowed: trust runs out by itself */
    set_renewal(lock);
    send_renewal(lock);
}

void rc_held_lock_start(struct rc_lock *lock, const struct rc_op *op, const char *token,
                        int32_t asked_ttl_ms, int64_t sent_us)
{
    struct rc_context *context = lock->locks->context;
    rc_held_lock_end(lock,
                     RC_LOCK_FREE); /* two slots acquired with one handle: the newer token counts */
    lock->ttl_ms = op->ask.lock_options.ttl_ms;
    lock->renews = !(op->ask.lock_options.flags & RC_NO_RENEW);
    lock->hold_until_us = op->ask.lock_options.max_hold_ms > 0
                              ? rc_context_after_ms(context, op->ask.lock_options.max_hold_ms)
                              : INT64_MAX;
    lock->home = rc_topology_owner(lock->locks->topology, rc_lock_slot(lock->locks, &lock->key));
    memcpy(lock->token, token, RC_TOKEN_SIZE);
    rc_list_append(&lock->locks->held, &lock->held);
    trust(lock, sent_us, asked_ttl_ms);
    set_renewal(lock);
    watch_hold(lock);
    context->stats.locks++;
    context->stats.active_locks++;
    atomic_store_explicit(&lock->state, RC_LOCK_HELD,
                          memory_order_release); /* pairs: rc_lock_state() */
    lock->locks->on_word(lock->locks->owner, lock->home, true);
    if (asked_ttl_ms != lock->ttl_ms)
        send_renewal(lock);
}

static void on_extend_answer(struct rc_req *req, int status, struct rc_reply *reply,
                             const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_locks *locks = req->detail;
    struct rc_lock *lock = op->ask.lock;
    op->run.req = NULL;
    char cause[RC_TEXT_SIZE];
    bool held = atomic_load_explicit(&lock->state, memory_order_relaxed) == RC_LOCK_HELD;
    if (status == 0 && reply->nodes[0].type == '-') {
        status = RC_ERR_REDIS;
        text = rc_node_text(&reply->nodes[0], cause);
    } else if (status == 0 && (!held || reply->nodes[0].integer != 1)) {
        rc_held_lock_end(lock, RC_LOCK_LOST);
        status = RC_ERR_NOTHELD;
    }
    if (status != 0) {
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == RC_LOCK_HELD)
            set_renewal(lock);
        rc_context_fail(locks->context, op, status, text);
        return;
    }
    lock->ttl_ms = (int32_t)op->ask.ttl_ms;
    trust(lock, req->sent_us, lock->ttl_ms);
    set_renewal(lock);
    watch_hold(lock);
    rc_context_finish(locks->context, op);
}

void rc_locks_extend(struct rc_locks *locks, struct rc_op *op)
{
    struct rc_lock *lock = op->ask.lock;
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) != RC_LOCK_HELD) {
        rc_context_fail(locks->context, op, RC_ERR_NOTHELD, NULL);
        return;
    }
    /* A renewal behind it would take back what it gives: renewals go on when it has ended. */
    if (lock->check != NULL)
        rc_link_forget(lock->check);
    lock->check = NULL;
    if (lock->renews)
        rc_context_set_timer(locks->context, &lock->renew, rc_lock_deadline(locks, op));
    /* A shorter life counts from now on: the answer may get lost. */
    int64_t until_us = trust_end(locks->context->now_us, (int32_t)op->ask.ttl_ms);
    if (until_us < atomic_load_explicit(&lock->trusted_until_us, memory_order_relaxed))
        trust(lock, locks->context->now_us, (int32_t)op->ask.ttl_ms);
    rc_lock_send_for(locks, op, rc_lock_take_renew(locks, lock, (int32_t)op->ask.ttl_ms),
                     on_extend_answer);
    locks->on_word(locks->owner, lock->home, false);
}

void rc_held_lock_prepare(struct rc_lock *lock, struct rc_locks *locks)
{
    lock->locks = locks;
    lock->renew.fire = on_renew_timer;
    lock->trust.fire = on_trust_end;
    lock->watch.fire = on_hold_watch;
}
