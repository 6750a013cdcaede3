/*
 * caller_load - a caller that remembers: the loader it runs, and what becomes of its value.
 */
#include <string.h>

#include "driver/sim/caller_own.h"
#include "engine/lease_request.h"

enum { WAIT_MAX_MS = 1500, MAX_LOAD_MS = 1000 };

void sim_caller_begin_load(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct rc_op *op;
    if (sim_caller_look_near(caller)) {
        sim_caller_rest(caller);
        return;
    }
    op = sim_caller_op(caller, RC_OP_LOAD);
    sim_caller_keep_key(caller);
    op->ask.purpose = RC_FLIGHT_LOAD;
    op->ask.load = (rc_load_options){
        .flags = (sim_dice_falls(&world->dice, 150) ? RC_NO_RENEW : 0) |
                 (sim_dice_falls(&world->dice, 200) ? RC_SCRIPT_FIRST : 0),
        .lease_ttl_ms = (int32_t)world->weather.lease_ttl_ms,
        .max_load_ms = MAX_LOAD_MS,
        .wait_timeout_ms = (int32_t)sim_dice_between(&world->dice, 300, WAIT_MAX_MS)};
    bool is_for_replicas = world->asks_replicas && !(op->ask.load.flags & RC_SCRIPT_FIRST) &&
                           sim_dice_falls(&world->dice, 300);
    op->ask.flags = is_for_replicas ? RC_REPLICA : 0;
    op->ask.near = (op->ask.load.flags & RC_SCRIPT_FIRST) == 0 && !is_for_replicas;
    op->ask.near_group = 0;
    op->ask.near_ttl_us = 0;
    op->ask.near_avoids = false;
    op->ask.expect = 2; /* its first read: with the TTL */
    sim_caller_claim(caller, sim_caller_max_stale_us(caller), "a remember");
    sim_caller_submit(caller, op->ask.load.wait_timeout_ms);
}

/* Most loaders are quick; some take longer than a lease lives. */
static void run_loader(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    const struct rc_op *op = &caller->op;
    int64_t ttl_us = world->weather.lease_ttl_ms * 1000;
    bool is_cut_off = (op->result.flags & RC_DEGRADED) != 0;
    int64_t takes_us = sim_dice_falls(&world->dice, 250)
                           ? sim_dice_between(&world->dice, ttl_us / 2, 3 * ttl_us)
                           : sim_dice_spread(&world->dice, 200, ttl_us / 2);
    sim_trace(world, "  caller %d loads k%d%s for %.1f ms", caller->number, caller->key,
              is_cut_off                        ? ", cut off,"
              : (op->result.flags & RC_REFRESH) ? " again"
                                                : "",
              (double)takes_us / 1000);
    if (!is_cut_off)
        sim_oracle_leased(world, caller->key, op->run.token);
    caller->state = SIM_LOADING;
    caller->load_until_us = !is_cut_off && !(op->ask.load.flags & RC_NO_RENEW)
                                ? world->now_us + (int64_t)op->ask.load.max_load_ms * 1000
                                : 0;
    sim_world_in(world, &caller->timer, takes_us);
}

static void publish(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    char text[SIM_VALUE_ROOM], header[RC_ENTRY_SIZE];
    bool is_refresh = (caller->op.result.flags & RC_REFRESH) != 0;
    struct rc_op *op = sim_caller_op(caller, RC_OP_PUBLISH);
    int64_t ttl_ms = sim_dice_spread(&world->dice, 30, 8000);
    rc_entry entry = {.kind = RC_KIND_VALUE,
                      .stale_ms = sim_dice_falls(&world->dice, 300) ? (uint32_t)ttl_ms / 2 : 0};
    size_t len = sim_oracle_make(world, caller->key, &caller->id, text);
    struct sim_value *value = sim_oracle_value(world, caller->id);
    value->is_loaded = true;
    value->is_refresh = is_refresh;
    memcpy(value->token, op->run.token, RC_NONCE_SIZE);
    memcpy(value->nonce, op->run.nonce, RC_NONCE_SIZE);
    if (is_refresh)
        memcpy(value->seen, op->run.seen, RC_NONCE_SIZE);
    sim_trace(world, "caller %d publishes #%zu in k%d", caller->number, caller->id, caller->key);
    rc_entry_write(header, &entry, op->run.nonce);
    sim_must(rc_lease_encode_end(op, header, sizeof(header), text, len, ttl_ms));
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

void sim_caller_end_loader(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    int64_t how = sim_dice_between(&world->dice, 0, 99);
    char header[RC_ENTRY_SIZE];
    if (how < 85) {
        publish(caller);
        return;
    }
    struct rc_op *op = sim_caller_op(caller, how < 93 ? RC_OP_FAIL : RC_OP_RELEASE);
    sim_trace(world, "caller %d %s in k%d", caller->number, how < 93 ? "fails" : "gives up",
              caller->key);
    if (op->ask.kind == RC_OP_FAIL) {
        rc_entry_write_kind(header, RC_KIND_ERROR, 0, op->run.token);
        sim_must(rc_lease_encode_end(op, header, sizeof(header), "failed", 6, 100));
    } else {
        sim_must(rc_lease_encode_end(op, NULL, 0, NULL, 0, 0));
    }
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

void sim_caller_end_load(struct sim_caller *caller)
{
    const rc_result *result = &caller->op.result;
    struct sim_world *world = sim_caller_world(caller);
    if (result->outcome == RC_LOAD) {
        run_loader(caller);
        return;
    }
    if (result->outcome == RC_HIT && (result->flags & RC_DEGRADED))
        sim_oracle_read(world, &caller->claim, result->data, result->len);
    else if (result->outcome == RC_HIT && caller->op.run.from_replica)
        sim_oracle_once(world, &caller->claim, result->data, result->len);
    else if (result->outcome == RC_HIT)
        sim_oracle_saw(world, &caller->claim, result->data, result->len);
    else if (result->outcome == RC_FAILED &&
             (result->len != 6 || memcmp(result->data, "failed", 6) != 0))
        sim_violation(world, "G1: k%d: an error nobody has made", caller->key);
    sim_caller_rest(caller);
}

void sim_caller_end_publish(struct sim_caller *caller)
{
    const rc_result *result = &caller->op.result;
    struct sim_world *world = sim_caller_world(caller);
    struct sim_claim claim = {caller->key, caller->began_us, INT64_MIN, "a publish", false};
    if (result->outcome == RC_STORED)
        sim_oracle_stored(world, sim_caller_machine(caller), caller->key, caller->id,
                          caller->began_us);
    else if (result->outcome == RC_UNSTORED && result->kind != RC_KIND_NONE)
        sim_oracle_saw(world, &claim, result->data, result->len);
    sim_caller_rest(caller);
}
