/*
 * caller_lock - a caller that wants, holds and releases a lock.
 */
#include <string.h>

#include "driver/sim/caller_own.h"

enum { FORCED_US = 3000000 }; /* a request by force may be as late as that */

void sim_caller_begin_lock(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct rc_op *op = sim_caller_op(caller, RC_OP_LOCK_ACQUIRE);
    bool is_forced = sim_dice_falls(&world->dice, 100);
    int64_t wait_ms =
        sim_dice_falls(&world->dice, 300) ? 0 : sim_dice_between(&world->dice, 20, 600);
    op->lock = &caller->lock;
    op->lock_options = (rc_lock_options){
        .flags = (is_forced ? RC_FORCE : 0) | (sim_dice_falls(&world->dice, 200) ? RC_NO_RENEW : 0),
        .ttl_ms = (int32_t)world->weather.lock_ttl_ms,
        .wait_ms = (int32_t)wait_ms};
    if (is_forced)
        caller->forced_us = world->now_us;
    sim_trace(world, "caller %d wants lock%d%s", caller->number, caller->lock_number,
              is_forced ? " by force" : "");
    sim_caller_submit(caller, wait_ms > 0 ? wait_ms : sim_caller_timeout_ms(caller));
}

void sim_caller_end_lock(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    sim_oracle_granted(world, caller->lock_number, caller->op.result.number, caller->began_us);
    sim_trace(world, "  caller %d has lock%d: %.6s", caller->number, caller->lock_number,
              caller->lock.token);
    caller->state = SIM_HOLDING;
    caller->granted_us = caller->began_us;
    sim_world_in(world, &caller->timer,
                 sim_dice_spread(&world->dice, 1000, 2000 * world->weather.lock_ttl_ms));
}

void sim_caller_begin_unlock(struct sim_caller *caller)
{
    struct rc_op *op = sim_caller_op(caller, RC_OP_LOCK_RELEASE);
    op->lock = &caller->lock;
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

bool sim_caller_trusts(const struct sim_caller *caller)
{
    return atomic_load(&caller->lock.state) == RC_LOCK_HELD &&
           atomic_load(&caller->lock.trusted_until_us) > sim_caller_world(caller)->now_us;
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
        sim_oracle_violation(world, "G9: lock%d was taken from its holder", lock);
    for (int i = 0; i < SIM_CALLERS; i++) {
        struct sim_caller *caller = &world->callers[i];
        int64_t since_us = caller->granted_us;
        /* What is deleted by hand is known to be lost when Redis has told. */
        bool is_deleted = truth->emptied_us > since_us ||
                          memcmp(truth->emptied_token, caller->lock.token, RC_TOKEN_SIZE) == 0;
        bool is_excused = is_taken || is_deleted || world->failed_over_us > since_us ||
                          world->stepped_us > since_us;
        if (caller->lock_number != lock || caller->state != SIM_HOLDING ||
            !caller->client->is_alive || is_excused || !sim_caller_trusts(caller) ||
            memcmp(caller->lock.token, token, RC_TOKEN_SIZE) == 0)
            continue;
        sim_oracle_violation(world, "G9: lock%d is another one's while caller %d trusts it", lock,
                             caller->number);
    }
}
