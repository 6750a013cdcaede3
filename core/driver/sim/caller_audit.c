/*
 * caller_audit - what must hold of callers while they wait, load and hold.
 */
#include <string.h>

#include "driver/sim/caller_own.h"
#include "driver/sim/wire.h"

enum { FORCED_US = 3000000 }; /* a request by force may be as late as that */

/* In good weather news comes within this time. */
static int64_t news_us(const struct sim_world *world)
{
    return 100000 + 8 * world->weather.delay_max_us;
}

bool sim_caller_is_lost(const struct sim_caller *caller)
{
    const struct sim_client *client = caller->client;
    return client->world->is_cluster && (client->engine.topology.other_count == 0 ||
                                         sim_wire_hides_loss(client, caller->began_us));
}

/* What may go wrong without anything being wrong: somebody else is slow, or has the lock; or a
   short wait is over before the first connection is made. */
static bool is_expected(const struct sim_caller *caller, int status)
{
    enum rc_op_kind kind = caller->op.ask.kind;
    return (kind == RC_OP_LOAD && status == RC_ERR_TIMEOUT) ||
           (kind == RC_OP_LOCK_ACQUIRE &&
            (status == RC_ERR_BUSY || status == RC_ERR_UNAVAILABLE)) ||
           (kind == RC_OP_LOCK_RELEASE && status == RC_ERR_NOTHELD) || sim_caller_is_lost(caller);
}

void sim_caller_failed(const struct sim_caller *caller, int status, const char *text, size_t len)
{
    struct sim_world *world = caller->client->world;
    sim_trace(world, "  caller %d: %s%s%.*s", caller->number, rc_strerror(status),
              len > 0 ? ": " : "", (int)len, text);
    if (!is_expected(caller, status) &&
        sim_world_is_healthy(world, world->now_us - caller->began_us + SIM_SETTLED_US))
        sim_violation(world, "G7: caller %d's call failed without a reason: %s", caller->number,
                      rc_strerror(status));
}

static void audit_waiting(struct sim_world *world, const struct sim_caller *caller)
{
    const struct sim_truth *truth = &world->oracle.keys[caller->key];
    int64_t lease_us = world->weather.lease_ttl_ms * 1000;
    int64_t limit_us = news_us(world) + lease_us;
    int64_t free_us = truth->kind == RC_KIND_LEASE ? truth->dies_us : truth->changed_us;
    bool is_free = truth->kind == RC_KIND_NONE ||
                   (truth->kind == RC_KIND_LEASE && truth->dies_us < world->now_us);
    if (caller->op.ask.kind != RC_OP_LOAD || !is_free || sim_caller_is_lost(caller))
        return;
    free_us = free_us > caller->began_us ? free_us : caller->began_us;
    if (world->now_us - free_us > limit_us &&
        sim_world_is_healthy(world, world->now_us - free_us + SIM_SETTLED_US))
        sim_violation(world, "G5: k%d is free since %.1f ms, caller %d waits, and nobody loads",
                      caller->key, (double)free_us / 1000, caller->number);
}

static void audit_loading(struct sim_world *world, const struct sim_caller *caller)
{
    const struct sim_truth *truth = &world->oracle.keys[caller->key];
    if (caller->load_until_us > world->now_us && truth->kind == RC_KIND_LEASE &&
        memcmp(truth->token, caller->op.run.token, RC_NONCE_SIZE) == 0 &&
        truth->dies_us < world->now_us && truth->shortened_us < caller->claim.since_us &&
        sim_world_is_healthy(world, SIM_SETTLED_US) && !sim_caller_is_lost(caller))
        sim_violation(world, "G5: k%d: the lease of caller %d's load has run out", caller->key,
                      caller->number);
}

/* Its lock, at this moment. */
static bool trusts(const struct sim_caller *caller)
{
    return atomic_load(&caller->lock.state) == RC_LOCK_HELD &&
           atomic_load(&caller->lock.trusted_until_us) > caller->client->world->now_us;
}

/* In a cluster one whose place has left its node is not told: it hears with the next renewal, and
   without renewals at the end of its trust. */
static int64_t loss_us(const struct sim_world *world)
{
    return news_us(world) + (world->is_cluster ? world->weather.lock_ttl_ms * 1000 : 0);
}

static void audit_holding(struct sim_world *world, const struct sim_caller *caller)
{
    const struct sim_truth *truth = &world->oracle.locks[caller->lock_number];
    bool is_ours = truth->token_len == RC_TOKEN_SIZE &&
                   memcmp(truth->token, caller->lock.token, RC_TOKEN_SIZE) == 0;
    if (!is_ours && trusts(caller) && world->now_us - truth->changed_us > loss_us(world) &&
        sim_world_is_healthy(world, world->now_us - truth->changed_us + SIM_SETTLED_US))
        sim_violation(world, "G9: caller %d trusts lock%d, which is not its own any more",
                      caller->number, caller->lock_number);
}

void sim_callers_audit(struct sim_world *world)
{
    for (int i = 0; i < SIM_CALLERS; i++) {
        const struct sim_caller *caller = &world->callers[i];
        if (!sim_world_runs(caller->client))
            continue;
        if (caller->state == SIM_CALLING) {
            audit_waiting(world, caller);
            if (world->now_us > caller->must_end_us &&
                sim_world_is_healthy(world, world->now_us - caller->began_us))
                sim_violation(world, "G6: caller %d's call has not ended by its deadline",
                              caller->number);
        } else if (caller->state == SIM_LOADING) {
            audit_loading(world, caller);
        } else if (caller->state == SIM_HOLDING) {
            audit_holding(world, caller);
        }
    }
}

/* Somebody may have asked for it by force: such a request may come in late. */
static bool may_be_forced(const struct sim_world *world, int lock)
{
    for (int i = 0; i < SIM_CALLERS; i++)
        if (world->callers[i].lock_number == lock &&
            world->now_us - world->callers[i].forced_us < FORCED_US)
            return true;
    return false;
}

void sim_callers_check_lock(struct sim_world *world, int lock, const char *token)
{
    const struct sim_truth *truth = &world->oracle.locks[lock];
    bool is_taken = truth->kind == RC_KIND_LEASE && truth->dies_us > world->now_us &&
                    memcmp(truth->token, token, RC_TOKEN_SIZE) != 0;
    if (is_taken && !may_be_forced(world, lock))
        sim_violation(world, "G9: lock%d was taken from its holder", lock);
    for (int i = 0; i < SIM_CALLERS; i++) {
        struct sim_caller *caller = &world->callers[i];
        int64_t since_us = caller->granted_us;
        /* What is deleted by hand is known to be lost when Redis has told. */
        bool is_deleted = truth->emptied_us > since_us ||
                          memcmp(truth->emptied_token, caller->lock.token, RC_TOKEN_SIZE) == 0;
        bool is_excused = is_taken || is_deleted ||
                          sim_world_lost_us(world, SIM_KEYS + lock) > since_us ||
                          world->stepped_us > since_us;
        if (caller->lock_number != lock || caller->state != SIM_HOLDING ||
            !caller->client->is_alive || is_excused || !trusts(caller) ||
            memcmp(caller->lock.token, token, RC_TOKEN_SIZE) == 0)
            continue;
        sim_violation(world, "G9: lock%d is another one's while caller %d trusts it", lock,
                      caller->number);
    }
}

bool sim_callers_load(const struct sim_world *world, int key, const char token[RC_NONCE_SIZE])
{
    for (int i = 0; i < SIM_CALLERS; i++) {
        const struct sim_caller *caller = &world->callers[i];
        /* One that was cut off had asked under that token, and the request may be done late. */
        if (caller->state == SIM_LOADING && caller->key == key && !caller->op.run.without_redis &&
            memcmp(caller->op.run.token, token, RC_NONCE_SIZE) == 0)
            return true;
    }
    return false;
}

bool sim_callers_are_idle(const struct sim_world *world)
{
    for (int i = 0; i < SIM_CALLERS; i++)
        if (world->callers[i].state != SIM_IDLE)
            return false;
    return true;
}
