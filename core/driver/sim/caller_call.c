/*
 * caller_call - how a call begins and ends, whatever it is; and what is asked before the engine is.
 */
#include <string.h>

#include "driver/sim/caller_own.h"
#include "engine/command.h"

struct sim_world *sim_caller_world(const struct sim_caller *caller)
{
    return caller->client->world;
}

int sim_caller_machine(const struct sim_caller *caller)
{
    return (int)(caller->client->machine - sim_caller_world(caller)->machines);
}

/* A batch makes as much traffic as several calls that may be answered near. */
enum { BATCH_THINKS = 3 };

void sim_caller_rest(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    bool is_of_batches = caller->kind == SIM_OF_BATCHES;
    bool is_idle = (is_of_batches && !world->weather.has_batches) ||
                   (caller->kind == SIM_OF_TAGS && !world->has_tags);
    int64_t think_max_us = world->weather.think_max_us * (is_of_batches ? BATCH_THINKS : 1);
    caller->state = SIM_IDLE;
    if (world->now_us < world->end_us && !is_idle)
        sim_world_in(world, &caller->timer, sim_dice_spread(&world->dice, 100, think_max_us));
}

void sim_caller_name_key(int key, char name[3])
{
    name[0] = 'k';
    name[1] = (char)('0' + key);
    name[2] = '\0';
}

/* From now on an answer must be of that age at most, and know of what this machine has written. */
void sim_caller_claim(struct sim_caller *caller, int64_t allowance_us, const char *how)
{
    struct sim_world *world = sim_caller_world(caller);
    caller->began_us = world->now_us;
    caller->claim = (struct sim_claim){
        caller->key, world->now_us - allowance_us,
        world->oracle.floors[sim_caller_machine(caller)][caller->key], how, false};
}

struct rc_op *sim_caller_op(struct sim_caller *caller, enum rc_op_kind kind)
{
    struct rc_op *op = &caller->op;
    rc_op_reset(op, kind);
    op->ask.near = false;
    op->ask.flags = 0;
    op->ask.timeout_ms = 0;
    return op;
}

void sim_caller_submit(struct sim_caller *caller, int64_t timeout_ms)
{
    struct sim_world *world = sim_caller_world(caller);
    caller->state = SIM_CALLING;
    caller->began_us = world->now_us;
    caller->must_end_us = world->now_us + timeout_ms * 1000 + SIM_LATE_US;
    rc_engine_set_time(&caller->client->engine, world->now_us);
    rc_engine_submit(&caller->client->engine, &caller->op);
    sim_world_wake(caller->client);
}

int64_t sim_caller_timeout_ms(const struct sim_caller *caller)
{
    return sim_caller_world(caller)->weather.command_timeout_ms + 1;
}

void sim_caller_keep_key(struct sim_caller *caller)
{
    char name[3];
    struct rc_op *op = &caller->op;
    sim_caller_name_key(caller->key, name);
    rc_buf_clear(&op->ask.key);
    sim_must(rc_buf_append(&op->ask.key, name, 2));
}

void sim_caller_encode(struct rc_op *op, const char *verb, int key)
{
    char name[3];
    sim_caller_name_key(key, name);
    sim_must(rc_command_head(&op->ask.request, 2));
    sim_must(rc_command_text(&op->ask.request, verb));
    sim_must(rc_command_text(&op->ask.request, name));
    op->ask.expect++;
}

/* ---- L0 and near cache ----------------------------------------------------------------------- */

int64_t sim_caller_max_stale_us(const struct sim_caller *caller)
{
    return sim_caller_world(caller)->weather.max_stale_ms * 1000;
}

/* As rc_l0_find: the place of the key, and where that does not tell, its handle. */
static bool is_kept(struct sim_caller *caller)
{
    struct rc_near *near = caller->client->machine->near;
    int64_t max_stale_us = sim_caller_max_stale_us(caller);
    rc_l0 l0 = {0};
    rc_near_l0_init(near, &l0);
    if (rc_near_l0_check(near, &l0, &caller->kept_place, rc_near_reader_us(near), max_stale_us) ==
        RC_VIEW_SOUND)
        return true;
    if (!rc_near_is_valid(near, &caller->kept, max_stale_us))
        return false;
    rc_near_l0_see(near, &caller->kept_place, &caller->kept);
    return true;
}

static bool look_in_l0(struct sim_caller *caller)
{
    if (caller->kept_key != caller->key || !is_kept(caller))
        return false;
    sim_caller_claim(caller, sim_caller_max_stale_us(caller), "l0");
    caller->claim.is_near = true;
    sim_oracle_saw(sim_caller_world(caller), &caller->claim, caller->kept_text, caller->kept_len);
    return true;
}

bool sim_caller_look_near(struct sim_caller *caller)
{
    char name[3];
    rc_near_value value = {.buffer = caller->kept_text, .capacity = sizeof(caller->kept_text)};
    if (look_in_l0(caller))
        return true;
    sim_caller_name_key(caller->key, name);
    caller->kept_key = -1;
    if (rc_near_lookup(caller->client->machine->near, NULL, 0, name, 2,
                       sim_caller_max_stale_us(caller), &value) != RC_NEAR_HIT)
        return false;
    sim_caller_claim(caller, sim_caller_max_stale_us(caller), "near");
    caller->claim.is_near = true;
    sim_oracle_saw(sim_caller_world(caller), &caller->claim, value.data, value.len);
    caller->kept_key = caller->key;
    caller->kept = value.handle;
    rc_near_l0_see(caller->client->machine->near, &caller->kept_place, &caller->kept);
    caller->kept_len = value.len;
    return true;
}
