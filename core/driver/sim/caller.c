#include "driver/sim/caller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/sim/caller_own.h"
#include "driver/sim/reshard.h"
#include "engine/command.h"

/* ---- reading --------------------------------------------------------------------------------- */

/* A replica's answer may be of any age; the master's, where it has to answer, may not. */
static void begin_replica_read(struct sim_caller *caller)
{
    struct rc_op *op = sim_caller_op(caller, RC_OP_GET);
    sim_caller_keep_key(caller);
    op->ask.flags = RC_REPLICA;
    op->ask.expect = 2;
    sim_caller_claim(caller, 0, "a get for replicas");
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

static void begin_read(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    if (world->asks_replicas && sim_dice_falls(&world->dice, 400)) {
        begin_replica_read(caller);
        return;
    }
    bool is_near = !sim_dice_falls(&world->dice, 100);
    bool is_fresh = is_near && sim_dice_falls(&world->dice, 100);
    if (is_near && !is_fresh && sim_caller_look_near(caller)) {
        sim_caller_rest(caller);
        return;
    }
    struct rc_op *op = sim_caller_op(caller, RC_OP_GET);
    sim_caller_keep_key(caller);
    op->ask.near = is_near;
    op->ask.flags = is_fresh ? RC_FRESH : 0;
    op->ask.near_group = 0;
    op->ask.near_ttl_us = 0;
    op->ask.near_avoids = false;
    op->ask.expect = 2; /* with the TTL */
    sim_caller_claim(caller, is_near && !is_fresh ? sim_caller_max_stale_us(caller) : 0,
                     is_fresh  ? "a fresh get"
                     : is_near ? "a near get"
                               : "a get");
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

static void end_read(struct sim_caller *caller)
{
    const rc_result *result = &caller->op.result;
    if (caller->op.run.from_replica && result->outcome == RC_HIT)
        sim_oracle_once(sim_caller_world(caller), &caller->claim, result->data, result->len);
    else if (result->outcome == RC_HIT)
        sim_oracle_saw(sim_caller_world(caller), &caller->claim, result->data, result->len);
    else if (result->outcome == RC_MISS && !caller->op.run.from_replica)
        sim_oracle_saw_nothing(sim_caller_world(caller), &caller->claim);
    sim_caller_rest(caller);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void begin_set(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    char text[SIM_VALUE_ROOM], header[RC_ENTRY_SIZE], name[3];
    struct rc_op *op = sim_caller_op(caller, RC_OP_SET);
    rc_entry entry = {.kind = RC_KIND_VALUE};
    size_t len = sim_oracle_make(world, caller->key, &caller->id, text);
    char *nonce = sim_oracle_value(world, caller->id)->nonce;
    rc_context_nonce(&caller->client->engine.context, nonce);
    rc_entry_write(header, &entry, nonce);
    memcpy(op->run.nonce, nonce, RC_NONCE_SIZE);
    sim_caller_name_key(caller->key, name);
    sim_caller_keep_key(caller);
    sim_must(rc_command_head(&op->ask.request, 5));
    sim_must(rc_command_text(&op->ask.request, "SET"));
    sim_must(rc_command_text(&op->ask.request, name));
    sim_must(rc_command_pair(&op->ask.request, header, sizeof(header), text, len));
    sim_must(rc_command_text(&op->ask.request, "PX"));
    sim_must(rc_command_int(&op->ask.request, sim_dice_spread(&world->dice, 20, 8000)));
    op->ask.expect = 1;
    sim_trace(world, "caller %d sets k%d = #%zu", caller->number, caller->key, caller->id);
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

static void begin_delete(struct sim_caller *caller)
{
    struct rc_op *op = sim_caller_op(caller, RC_OP_DELETE);
    sim_caller_keep_key(caller);
    sim_caller_encode(op, "UNLINK", caller->key);
    sim_trace(sim_caller_world(caller), "caller %d deletes k%d", caller->number, caller->key);
    sim_oracle_begin_delete(sim_caller_world(caller), caller->client->number, caller->key);
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

/* ---- the life of a call ---------------------------------------------------------------------- */

static void begin(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    if (caller->kind == SIM_OF_BATCHES) {
        sim_caller_begin_batch(caller);
        return;
    }
    if (caller->kind == SIM_OF_TAGS) {
        sim_caller_begin_tagged(caller);
        return;
    }
    int64_t what = sim_dice_between(&world->dice, 0, 99);
    caller->key = (int)sim_dice_spread(&world->dice, 0, SIM_KEYS - 1);
    if (what < 40)
        begin_read(caller);
    else if (what < 76)
        sim_caller_begin_load(caller);
    else if (what < 82)
        begin_set(caller);
    else if (what < 92)
        begin_delete(caller);
    else
        sim_caller_begin_lock(caller);
}

static void on_timer(void *context, struct rc_timer *timer)
{
    struct sim_caller *caller = RC_CONTAINER(timer, struct sim_caller, timer);
    struct sim_world *world = context;
    if (!caller->client->is_alive)
        return;
    if (caller->client->paused_until_us > world->now_us) {
        sim_world_at(world, &caller->timer, caller->client->paused_until_us);
        return;
    }
    rc_engine_set_time(&caller->client->engine, world->now_us);
    if (caller->state == SIM_LOADING && caller->kind == SIM_OF_TAGS)
        sim_caller_store_tagged(caller);
    else if (caller->state == SIM_LOADING)
        sim_caller_end_loader(caller);
    else if (caller->state == SIM_HOLDING)
        sim_caller_begin_unlock(caller);
    else
        begin(caller);
}

void sim_caller_finished(struct sim_world *world, struct rc_op *op)
{
    struct sim_caller *caller = RC_CONTAINER(op, struct sim_caller, op);
    int status = op->result.status;
    if (op->ask.kind == RC_OP_DELETE && caller->kind == SIM_OF_KEYS)
        sim_oracle_end_delete(world, caller->client->number, caller->key);
    if (world->now_us > caller->must_end_us &&
        sim_world_is_healthy(world, world->now_us - caller->began_us))
        sim_violation(world, "G6: caller %d's call ended %.1f ms behind its deadline",
                      caller->number,
                      (double)(world->now_us - caller->must_end_us + SIM_LATE_US) / 1000);
    if (status != 0) {
        sim_caller_failed(caller, status, op->result.data, op->result.len);
        if (caller->kind == SIM_OF_BATCHES)
            sim_caller_fail_batch(caller, status);
        sim_caller_rest(caller);
        return;
    }
    if (caller->kind == SIM_OF_TAGS) {
        sim_caller_end_tagged(caller);
        return;
    }
    switch (op->ask.kind) {
    case RC_OP_GET: end_read(caller); break;
    case RC_OP_LOAD: sim_caller_end_load(caller); break;
    case RC_OP_PUBLISH: sim_caller_end_publish(caller); break;
    case RC_OP_SET:
        sim_oracle_stored(world, sim_caller_machine(caller), caller->key, caller->id,
                          caller->began_us);
        sim_caller_rest(caller);
        break;
    case RC_OP_DELETE:
        sim_oracle_deleted(world, caller->client->number, caller->key, caller->began_us);
        sim_reshard_on_delete(world, caller->key);
        sim_caller_rest(caller);
        break;
    case RC_OP_LOCK_ACQUIRE: sim_caller_end_lock(caller); break;
    case RC_OP_COMMAND: sim_caller_end_batch(caller); break;
    default: sim_caller_rest(caller); break;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void init_lock(struct sim_caller *caller)
{
    char name[8];
    snprintf(name, sizeof(name), "lock%d", caller->lock_number % SIM_LOCKS);
    sim_must(rc_lock_init(&caller->lock, name, 5));
}

void sim_callers_init(struct sim_world *world)
{
    world->callers = calloc(SIM_CALLERS, sizeof(*world->callers));
    sim_must(world->callers == NULL ? RC_ERR_NOMEM : 0);
    for (int i = 0; i < SIM_CALLERS; i++) {
        struct sim_caller *caller = &world->callers[i];
        caller->client = &world->clients[i % SIM_CLIENTS];
        caller->number = i;
        caller->kind = i < SIM_KEY_CALLERS     ? SIM_OF_KEYS
                       : i < SIM_BATCH_CALLERS ? SIM_OF_BATCHES
                                               : SIM_OF_TAGS;
        caller->timer.fire = on_timer;
        caller->kept_key = -1;
        caller->lock_number = i % SIM_LOCKS;
        caller->forced_us = INT64_MIN / 2;
        sim_must(rc_op_init(&caller->op));
        init_lock(caller);
        if (caller->kind == SIM_OF_TAGS)
            sim_caller_open_tags(caller);
        sim_caller_rest(caller);
    }
}

void sim_callers_deinit(struct sim_world *world)
{
    for (int i = 0; i < SIM_CALLERS; i++) {
        sim_world_forget(world, &world->callers[i].timer);
        rc_lock_deinit(&world->callers[i].lock);
        rc_op_deinit(&world->callers[i].op);
        sim_caller_close_tags(&world->callers[i]);
    }
    free(world->callers);
}

void sim_callers_start(struct sim_client *client)
{
    for (int i = 0; i < SIM_CALLERS; i++)
        if (client->world->callers[i].client == client)
            sim_caller_rest(&client->world->callers[i]);
}

void sim_callers_drop(struct sim_client *client)
{
    struct sim_world *world = client->world;
    rc_engine_set_time(&client->engine, world->now_us);
    for (int i = 0; i < SIM_CALLERS; i++) {
        struct sim_caller *caller = &world->callers[i];
        if (caller->client != client)
            continue;
        sim_world_forget(world, &caller->timer);
        bool is_calling = caller->state == SIM_CALLING;
        if (is_calling && caller->kind == SIM_OF_KEYS && caller->op.ask.kind == RC_OP_DELETE)
            sim_oracle_end_delete(world, client->number, caller->key);
        if (is_calling && caller->kind == SIM_OF_BATCHES)
            sim_caller_fail_batch(caller, RC_ERR_UNKNOWN);
        rc_engine_drop(&client->engine, &caller->op);
        rc_engine_drop_lock(&client->engine, &caller->lock);
        rc_lock_deinit(&caller->lock);
        rc_op_deinit(&caller->op);
        sim_must(rc_op_init(&caller->op));
        memset(&caller->lock, 0, sizeof(caller->lock));
        init_lock(caller);
        caller->kept_key = -1;
        if (caller->kind == SIM_OF_TAGS) {
            sim_caller_close_tags(caller);
            sim_caller_open_tags(caller);
        }
        caller->state = SIM_IDLE;
    }
}
