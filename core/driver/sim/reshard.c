#include "driver/sim/reshard.h"

#include <stdio.h>

#include "base/slot.h"
#include "driver/sim/bus.h"
#include "driver/sim/gate.h"
#include "driver/sim/server.h"
#include "driver/sim/wire.h"

enum {
    ALL_KEYS = 1000,    /* more than there are */
    GAP_MIN_US = 20000, /* from a master's end to its heir's beginning */
    GAP_MAX_US = 400000,
    LIVES_MAX_US = 5000000, /* a master that is none any more does not hear of it for so long */
    TRIM_MAX_US = 4000000,  /* so late a node may tell of keys that have left it at once */
    LOSING_SEEDS = 8,       /* of so many histories one loses deletes: */
    LAG_US = 100000,        /* its replicas hear late, */
    CALM = 20               /* and what comes back with them stands there for a while */
};

/* ---- what can be done ------------------------------------------------------------------------ */

static bool is_well(const struct sim_node *node)
{
    const struct sim_world *world = node->world;
    return !node->refuses && !node->is_cut_off && node->stopped_until_us <= world->now_us &&
           !rc_timer_is_set(&world->shards[node->shard].promotion);
}

static struct sim_node *some_master(struct sim_world *world)
{
    return world->shards[sim_dice_between(&world->dice, 0, world->shard_count - 1)].master;
}

/* ---- moves ----------------------------------------------------------------------------------- */

struct copying {
    const struct sim_world *world;
    struct rc_store *to;
    int place;
    int left; /* as many keys at most */
    char name[64];
    size_t name_len; /* of the last one */
};

static void copy_key(void *owner, const struct rc_store_change *change)
{
    struct copying *copying = owner;
    int place = sim_gate_place(copying->world, rc_slot(change->key, change->key_len));
    if (place != copying->place || copying->left == 0 || change->key_len > sizeof(copying->name))
        return;
    sim_must(rc_store_apply(copying->to, change));
    copying->name_len = change->key_len;
    for (size_t i = 0; i < change->key_len; i++)
        copying->name[i] = change->key[i];
    copying->left--;
}

static void copy_keys(struct sim_node *from, struct sim_node *to, struct copying *copying)
{
    struct sim_world *world = from->world;
    copying->world = world;
    copying->to = to->store;
    rc_store_set_time(from->store, sim_world_unix_us(world));
    rc_store_set_time(to->store, sim_world_unix_us(world));
    rc_store_sweep(from->store, ALL_KEYS); /* what is over stays behind */
    world->is_moving = true;
    rc_store_each(from->store, copy_key, copying);
    world->is_moving = false;
    sim_wire_collect(to);
}

/* As DUMP, RESTORE and DEL do it, which nobody sees the middle of. False: there is none left. */
static bool move_key(struct sim_node *from, struct sim_node *to, int place)
{
    struct sim_world *world = from->world;
    struct copying copying = {.place = place, .left = 1};
    copy_keys(from, to, &copying);
    if (copying.left > 0)
        return false;
    struct rc_store_change gone = {
        .key = copying.name, .key_len = copying.name_len, .expires_ms = RC_STORE_NEVER};
    world->is_moving = true;
    sim_must(rc_store_apply(from->store, &gone));
    world->is_moving = false;
    sim_wire_collect(from);
    return true;
}

static void end_move(struct sim_world *world, int place)
{
    struct sim_move *move = &world->moves[place];
    sim_world_forget(world, &move->timer);
    move->target = move->heir = NULL;
}

/* It stays where it was. What has gone already is lost. */
static void break_off(struct sim_world *world, int place)
{
    struct sim_node *holder = world->holders[place], *heir = world->moves[place].heir;
    bool is_nobodys = holder->beliefs[place].owner == SIM_NOBODY;
    end_move(world, place);
    if (is_nobodys)
        sim_bus_claim(holder, place);
    if (heir == NULL)
        return;
    sim_bus_trim(heir, place, true);
    sim_oracle_lose(world, 1U << place);
}

static void take_place(struct sim_world *world, int place)
{
    struct sim_node *old = world->holders[place], *new = world->moves[place].target;
    bool is_moved = world->moves[place].heir != NULL;
    end_move(world, place);
    sim_bus_claim(new, place);
    if (is_moved)
        sim_bus_tell(old, place);
    else
        sim_oracle_lose(world, 1U << place);
}

static void on_move(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_move *move = RC_CONTAINER(timer, struct sim_move, timer);
    int place = (int)(move - world->moves);
    struct sim_node *from = world->holders[place];
    if (!is_well(from) || !is_well(move->target))
        sim_world_in(world, timer, GAP_MIN_US);
    else if (move->heir != NULL && move_key(from, move->heir, place))
        sim_world_in(world, timer, move->step_us);
    else
        take_place(world, place);
}

static void move_by_key(struct sim_world *world, int place)
{
    struct sim_move *move = &world->moves[place];
    move->heir = move->target;
    move->step_us = sim_dice_between(&world->dice, 50, world->weather.move_max_us / 4);
    sim_world_in(world, &move->timer, move->step_us);
}

/* The old owner does not tell of the keys before it has told that they are elsewhere. */
static void move_at_once(struct sim_world *world, int place)
{
    struct sim_node *old = world->holders[place];
    struct copying copying = {.place = place, .left = ALL_KEYS};
    copy_keys(old, world->moves[place].target, &copying);
    world->moves[place].heir = world->moves[place].target;
    take_place(world, place);
    if (sim_dice_falls(&world->dice, 300))
        sim_bus_trim(old, place, true);
    else
        sim_world_in(world, &old->trims[place], sim_dice_between(&world->dice, 0, TRIM_MAX_US));
}

/* Each master keeps a place: one without counts for no majority. */
static bool is_last(const struct sim_node *from)
{
    const struct sim_world *world = from->world;
    int count = 0;
    for (int place = 0; place < SIM_PLACES; place++)
        count += world->holders[place] == from && world->moves[place].target == NULL;
    return count < 2;
}

void sim_reshard_move(struct sim_world *world, enum sim_move_kind kind)
{
    static const char *const names[] = {"key by key", "at once", "by gossip", "over nobody"};
    int place = (int)sim_dice_between(&world->dice, 0, SIM_PLACES - 1);
    struct sim_node *from = world->holders[place], *to = some_master(world);
    struct sim_move *move = &world->moves[place];
    if (move->target != NULL || from == to || !is_well(from) || !is_well(to) || is_last(from) ||
        from->beliefs[place].owner != from->number || to->beliefs[place].owner != from->number)
        return;
    sim_trace(world, "place %d goes from n%d to n%d, %s", place, from->number, to->number,
              names[kind]);
    move->target = to;
    world->settled_us = INT64_MAX;
    sim_bus_trim(to, place, false);
    switch (kind) {
    case SIM_MOVE_BY_KEY: move_by_key(world, place); break;
    case SIM_MOVE_AT_ONCE: move_at_once(world, place); break;
    case SIM_MOVE_BY_GOSSIP:
        take_place(world, place);
        sim_world_hurt(world, 0);
        break;
    case SIM_MOVE_OVER_NOBODY:
        sim_bus_give_up(from, place);
        sim_world_in(world, &move->timer, sim_dice_spread(&world->dice, GAP_MIN_US, GAP_MAX_US));
        sim_world_hurt(world, GAP_MAX_US + world->weather.bus_delay_max_us);
        break;
    }
}

/* ---- failovers ------------------------------------------------------------------------------- */

/* No key moves to this node or from it. Its replica hears of what it drops, as of any change. */
static void break_off_all(struct sim_node *node)
{
    struct sim_world *world = node->world;
    for (int place = 0; place < SIM_PLACES; place++)
        if (world->moves[place].target == node || world->holders[place] == node)
            break_off(world, place);
}

/* The replica owns what the master did. Returns these places. */
static unsigned inherit(struct sim_node *old)
{
    struct sim_world *world = old->world;
    struct sim_node *new = sim_world_pair(old);
    unsigned places = 0;
    for (int place = 0; place < SIM_PLACES; place++)
        places |= (world->holders[place] == old ? 1U : 0U) << place;
    sim_server_promote(new);
    for (int place = 0; place < SIM_PLACES; place++)
        if (places & 1U << place)
            sim_bus_claim(new, place);
    return places;
}

static void on_promotion(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_shard *shard = RC_CONTAINER(timer, struct sim_shard, promotion);
    struct sim_node *old = shard->master;
    bool is_dead = old->refuses;
    sim_trace(world, "n%d is promoted, what was on its way to it is lost",
              sim_world_pair(old)->number);
    break_off_all(old);
    sim_server_lose_changes(old);
    unsigned places = inherit(old);
    if (is_dead) {
        sim_server_restart(old);
        sim_bus_tell_all(old);
    }
    sim_oracle_lose(world, places);
}

/* The master waits until its replica has everything, and knows of it first. */
static void leave_as_asked(struct sim_node *node)
{
    sim_trace(node->world, "n%d is asked to leave", node->number);
    break_off_all(node);
    sim_server_catch_up(node);
    inherit(node);
    sim_server_retire(node);
    sim_bus_tell_all(node);
}

/* Some master is away, or one that is none does not know it yet: who else left now would leave no
   majority. */
static bool is_in_trouble(const struct sim_world *world)
{
    for (int i = 0; i < world->shard_count; i++) {
        const struct sim_shard *shard = &world->shards[i];
        if (rc_timer_is_set(&shard->promotion) || sim_world_pair(shard->master)->stranger != NULL)
            return true;
    }
    return false;
}

static void replace(struct sim_node *node, enum sim_leave_kind kind)
{
    struct sim_world *world = node->world;
    struct sim_shard *shard = &world->shards[node->shard];
    int64_t gap_us = sim_dice_between(&world->dice, GAP_MIN_US, GAP_MAX_US);
    int64_t lives_us = sim_dice_spread(&world->dice, 1, LIVES_MAX_US);
    bool is_silent = sim_dice_falls(&world->dice, 400);
    if (!is_well(node) || is_in_trouble(world))
        return;
    switch (kind) {
    case SIM_LEAVE_ASKED: leave_as_asked(node); return;
    case SIM_LEAVE_DEAD: sim_server_die(node, is_silent); break;
    case SIM_LEAVE_STOPPED: sim_server_stop(node, gap_us + lives_us); break;
    case SIM_LEAVE_CUT_OFF: sim_bus_cut_off(node, gap_us + lives_us); break;
    }
    sim_world_in(world, &shard->promotion, gap_us);
    sim_world_hurt(world, gap_us + world->weather.bus_delay_max_us);
}

void sim_reshard_fail_over(struct sim_world *world, enum sim_leave_kind kind)
{
    replace(some_master(world), kind);
}

void sim_reshard_on_delete(struct sim_world *world, int place)
{
    const struct sim_weather *weather = &world->weather;
    if (!weather->loses_deletes || world->now_us >= weather->calm_from_us ||
        sim_dice_falls(&world->dice, 700))
        return;
    int64_t kind = sim_dice_between(&world->dice, SIM_LEAVE_DEAD, SIM_LEAVE_CUT_OFF);
    if (kind != SIM_LEAVE_ASKED && !world->holders[place]->refuses)
        replace(world->holders[place], (enum sim_leave_kind)kind);
}

/* ---- the beginning --------------------------------------------------------------------------- */

void sim_reshard_init(struct sim_world *world)
{
    struct sim_dice *dice = &world->dice;
    struct sim_weather *weather = &world->weather;
    world->is_cluster = true;
    world->shard_count = (int)sim_dice_between(dice, 2, SIM_SHARDS);
    weather->bus_delay_max_us = sim_dice_spread(dice, 1000, 2000000);
    weather->node_timeout_us = sim_dice_between(dice, 100000, 600000);
    weather->move_max_us = weather->is_nice ? 40000 : sim_dice_spread(dice, 10000, 400000);
    weather->trims_silently = sim_dice_falls(dice, 500);
    weather->loses_deletes = !weather->is_nice && world->seed % LOSING_SEEDS == 0;
    if (weather->loses_deletes) {
        weather->lag_min_us = LAG_US;
        weather->foreign_every_us *= CALM;
        weather->think_max_us *= 2;
    }
    /* What is sent elsewhere has to connect there first, and a place that moves takes its time. */
    weather->command_timeout_ms += 8 * weather->delay_max_us / 1000 + 200;
    weather->lease_ttl_ms += 300 + weather->move_max_us / 1000;
    weather->lock_ttl_ms += 300 + weather->move_max_us / 1000;
    sim_gate_init(world);
}

void sim_reshard_begin(struct sim_world *world)
{
    for (int i = 0; i < 2 * world->shard_count; i++)
        snprintf(world->nodes[i].name, sizeof(world->nodes[i].name), " n%d", i);
    for (int i = 0; i < world->shard_count; i++)
        world->shards[i].promotion.fire = on_promotion;
    for (int place = 0; place < SIM_PLACES; place++) {
        world->holders[place] = world->shards[place % world->shard_count].master;
        world->moves[place].timer.fire = on_move;
    }
    sim_bus_init(world);
}
