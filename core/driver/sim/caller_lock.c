/*
 * caller_lock - a caller that wants, holds and releases a lock.
 */
#include "driver/sim/caller_own.h"

void sim_caller_begin_lock(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct rc_op *op = sim_caller_op(caller, RC_OP_LOCK_ACQUIRE);
    bool is_forced = sim_dice_falls(&world->dice, 100);
    int64_t wait_ms =
        sim_dice_falls(&world->dice, 300) ? 0 : sim_dice_between(&world->dice, 20, 600);
    op->ask.lock = &caller->lock;
    op->ask.lock_options = (rc_lock_options){
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
    /* In a cluster longer than a lock lives: its place may move meanwhile. */
    int64_t ttl_us = world->weather.lock_ttl_ms * 1000;
    sim_world_in(world, &caller->timer,
                 world->is_cluster ? sim_dice_between(&world->dice, 1000, 4 * ttl_us)
                                   : sim_dice_spread(&world->dice, 1000, 2 * ttl_us));
}

void sim_caller_begin_unlock(struct sim_caller *caller)
{
    struct rc_op *op = sim_caller_op(caller, RC_OP_LOCK_RELEASE);
    op->ask.lock = &caller->lock;
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}
