#include "driver/sim/server.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/sim/client.h"
#include "driver/sim/wire.h"
#include "engine/command.h"

enum { SWEEP_KEYS = 20, PROMOTION_MIN_US = 20000 };

/* On its way to the replica. */
struct change {
    struct rc_list place;
    int64_t at_us;
    struct rc_store_change change;
    struct rc_buf bytes; /* key, then value */
};

/* ---- replication ----------------------------------------------------------------------------- */

static void free_change(struct change *change)
{
    rc_list_remove(&change->place);
    rc_buf_deinit(&change->bytes);
    free(change);
}

void sim_server_lose_changes(struct sim_node *node)
{
    RC_LIST_EACH(place, following, &node->changes)
        free_change(RC_CONTAINER(place, struct change, place));
    sim_world_forget(node->world, &node->replicate);
}

static void send_change(struct sim_node *node, const struct rc_store_change *made)
{
    struct sim_world *world = node->world;
    struct change *change = calloc(1, sizeof(*change));
    sim_must(change == NULL ? RC_ERR_NOMEM : 0);
    change->change = *made;
    rc_buf_init(&change->bytes);
    sim_must(rc_buf_append(&change->bytes, made->key, made->key_len));
    sim_must(rc_buf_append(&change->bytes, made->value, made->value_len));
    change->at_us = world->now_us + world->weather.lag_min_us +
                    sim_dice_spread(&world->dice, 0, world->weather.lag_max_us);
    if (!rc_list_is_empty(&node->changes)) {
        struct change *last = RC_CONTAINER(node->changes.prev, struct change, place);
        change->at_us = change->at_us > last->at_us ? change->at_us : last->at_us;
    } else {
        sim_world_at(world, &node->replicate, change->at_us);
    }
    rc_list_append(&node->changes, &change->place);
}

static void apply(struct sim_node *node, struct change *change)
{
    struct rc_store_change *made = &change->change;
    if (made->key != NULL)
        made->key = rc_buf_head(&change->bytes);
    if (made->value != NULL)
        made->value = rc_buf_head(&change->bytes) + made->key_len;
    rc_store_set_time(node->store, sim_world_unix_us(node->world));
    sim_must(rc_store_apply(node->store, made));
}

static void on_replicate(void *context, struct rc_timer *timer)
{
    struct sim_node *node = RC_CONTAINER(timer, struct sim_node, replicate);
    struct sim_world *world = context;
    while (!rc_list_is_empty(&node->changes)) {
        struct change *change = RC_CONTAINER(node->changes.next, struct change, place);
        if (change->at_us > world->now_us) {
            sim_world_at(world, &node->replicate, change->at_us);
            return;
        }
        apply(sim_world_pair(node), change);
        free_change(change);
    }
}

void sim_server_catch_up(struct sim_node *node)
{
    RC_LIST_EACH(place, following, &node->changes) {
        struct change *change = RC_CONTAINER(place, struct change, place);
        apply(sim_world_pair(node), change);
        free_change(change);
    }
    sim_world_forget(node->world, &node->replicate);
}

static void on_change(void *owner, const struct rc_store_change *change)
{
    struct sim_node *node = owner;
    if (!node->world->is_moving)
        sim_oracle_change(node->world, node, change);
    if (sim_world_is_master(node) && !node->is_cut_off && sim_world_pair(node)->stranger == NULL)
        send_change(node, change);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_sweep(void *context, struct rc_timer *timer)
{
    struct sim_node *node = RC_CONTAINER(timer, struct sim_node, sweep);
    struct sim_world *world = context;
    if (sim_world_is_master(node) && !node->refuses && node->stopped_until_us <= world->now_us) {
        rc_store_set_time(node->store, sim_world_unix_us(world));
        rc_store_sweep(node->store, SWEEP_KEYS);
        sim_wire_collect(node);
    }
    sim_world_in(world, &node->sweep, world->weather.sweep_every_us);
}

static void make_store(struct sim_node *node)
{
    struct sim_world *world = node->world;
    struct rc_store_options options = {.owner = node, .on_change = on_change};
    bool is_chosen = (world->seed + (uint64_t)node->shard) % 2 == 0;
    options.compares = world->has_ifeq && (is_chosen || !world->is_cluster);
    options.seed.words[0] = sim_dice_roll(&world->dice);
    options.seed.words[1] = sim_dice_roll(&world->dice);
    sim_must(rc_store_new(&node->store, &options));
    rc_store_set_time(node->store, sim_world_unix_us(world));
    rc_store_set_role(node->store, sim_world_is_master(node) ? RC_STORE_MASTER : RC_STORE_REPLICA);
}

static void on_promotion(void *context, struct rc_timer *timer);

void sim_servers_init(struct sim_world *world)
{
    for (int i = 0; i < world->shard_count; i++) {
        world->shards[i].master = &world->nodes[2 * i];
        world->shards[i].promotion.fire = on_promotion;
    }
    for (int i = 0; i < 2 * world->shard_count; i++) {
        struct sim_node *node = &world->nodes[i];
        node->world = world;
        node->number = i;
        node->shard = i / 2;
        node->replicate.fire = on_replicate;
        node->sweep.fire = on_sweep;
        rc_list_init(&node->wires);
        rc_list_init(&node->changes);
        make_store(node);
        sim_world_in(world, &node->sweep, world->weather.sweep_every_us);
        if (sim_world_is_master(node))
            sim_must(rc_store_connect(node->store, &node->stranger));
    }
    for (int place = 0; place < SIM_PLACES; place++)
        world->holders[place] = &world->nodes[0];
}

void sim_servers_deinit(struct sim_world *world)
{
    for (int i = 0; i < 2 * world->shard_count; i++) {
        sim_server_lose_changes(&world->nodes[i]);
        rc_store_free(world->nodes[i].store);
    }
}

/* ---- a foreign client ------------------------------------------------------------------------ */

static void do_command(struct sim_node *node, const struct rc_buf *command)
{
    rc_store_set_time(node->store, sim_world_unix_us(node->world));
    sim_must(rc_store_feed(node->stranger, rc_buf_head(command), rc_buf_len(command)));
    rc_buf_clear(&node->stranger->output);
    sim_wire_collect(node);
}

void sim_server_set(struct sim_node *node, const char *name, const char *value, size_t len,
                    int64_t ttl_ms)
{
    struct rc_buf command;
    sim_trace(node->world, "somebody: SET %s to %.8s, ttl %d ms", name, value, (int)ttl_ms);
    rc_buf_init(&command);
    sim_must(rc_command_head(&command, ttl_ms > 0 ? 5 : 3));
    sim_must(rc_command_text(&command, "SET"));
    sim_must(rc_command_text(&command, name));
    sim_must(rc_command_bytes(&command, value, len));
    if (ttl_ms > 0) {
        sim_must(rc_command_text(&command, "PX"));
        sim_must(rc_command_int(&command, ttl_ms));
    }
    do_command(node, &command);
    rc_buf_deinit(&command);
}

void sim_server_command(struct sim_node *node, const char *format, ...)
{
    char line[64], *word, *rest = line;
    uint32_t count = 0;
    struct rc_buf words, command;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    sim_trace(node->world, "somebody: %s", line);
    rc_buf_init(&words);
    rc_buf_init(&command);
    while ((word = strsep(&rest, " ")) != NULL) {
        sim_must(rc_command_bytes(&words, word, strlen(word)));
        count++;
    }
    sim_must(rc_command_head(&command, count));
    sim_must(rc_buf_append(&command, rc_buf_head(&words), rc_buf_len(&words)));
    do_command(node, &command);
    rc_buf_deinit(&words);
    rc_buf_deinit(&command);
}

/* ---- what can happen to them ----------------------------------------------------------------- */

void sim_server_stop(struct sim_node *node, int64_t for_us)
{
    sim_trace(node->world, "the master%s is stopped for %.1f ms", node->name,
              (double)for_us / 1000);
    int64_t until_us = node->world->now_us + for_us;
    if (until_us > node->stopped_until_us)
        node->stopped_until_us = until_us;
}

/* A replica has to get everything once. */
static void copy_change(void *owner, const struct rc_store_change *change)
{
    struct sim_node *node = owner;
    sim_must(rc_store_apply(node->store, change));
}

void sim_server_promote(struct sim_node *node)
{
    struct sim_world *world = node->world;
    struct sim_node *old = sim_world_pair(node);
    world->shards[node->shard].master = node;
    for (int place = 0; place < SIM_PLACES; place++)
        if (world->holders[place] == old)
            world->holders[place] = node;
    rc_store_set_role(node->store, RC_STORE_MASTER);
    rc_store_set_time(node->store, sim_world_unix_us(world));
    sim_must(rc_store_connect(node->store, &node->stranger));
}

void sim_server_restart(struct sim_node *node)
{
    sim_wire_lose_node(node);
    rc_store_free(node->store);
    node->stranger = NULL;
    node->refuses = node->is_silent = false;
    node->stopped_until_us = node->slow_until_us = node->busy_until_us = 0;
    make_store(node);
    rc_store_each(sim_world_pair(node)->store, copy_change, node);
}

void sim_server_retire(struct sim_node *node)
{
    rc_store_disconnect(node->stranger);
    node->stranger = NULL;
    rc_store_set_role(node->store, RC_STORE_REPLICA);
}

void sim_server_follow(struct sim_node *node)
{
    struct rc_store_change gone = {.database = RC_STORE_DATABASES, .expires_ms = RC_STORE_NEVER};
    sim_server_retire(node);
    rc_store_set_time(node->store, sim_world_unix_us(node->world));
    sim_must(rc_store_apply(node->store, &gone));
    rc_store_each(sim_world_pair(node)->store, copy_change, node);
    sim_wire_collect(node);
}

/* What was the master comes back empty, as the replica of the new one. */
static void on_promotion(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_shard *shard = RC_CONTAINER(timer, struct sim_shard, promotion);
    struct sim_node *old = shard->master;
    sim_trace(world, "the replica is promoted, what was on its way to it is lost");
    sim_server_lose_changes(old);
    sim_server_promote(sim_world_pair(old));
    sim_server_restart(old);
    sim_oracle_lose(world, (1U << SIM_PLACES) - 1);
}

void sim_server_die(struct sim_node *node, bool is_silent)
{
    struct sim_world *world = node->world;
    sim_trace(world, "the master%s dies%s", node->name, is_silent ? " without a word" : "");
    node->refuses = true;
    node->is_silent = is_silent;
    sim_server_lose_changes(node);
    RC_LIST_EACH(at_node, following, &node->wires) {
        struct sim_wire *wire = RC_CONTAINER(at_node, struct sim_wire, at_node);
        if (is_silent) {
            sim_wire_swallow(&wire->to_server);
            sim_wire_swallow(&wire->to_client);
            continue;
        }
        /* Whatever it has said before arrives in part of the cases. */
        sim_wire_cut(wire, sim_dice_falls(&world->dice, 500) ? SIM_CUT_CLOSE : SIM_CUT_RESET);
    }
}

void sim_server_fail_over(struct sim_shard *shard)
{
    struct sim_node *node = shard->master;
    struct sim_world *world = node->world;
    bool is_silent = sim_dice_falls(&world->dice, 400);
    int64_t gap_us = sim_dice_between(&world->dice, PROMOTION_MIN_US, SIM_PROMOTION_MAX_US);
    if (rc_timer_is_set(&shard->promotion))
        return;
    sim_server_die(node, is_silent);
    sim_world_in(world, &shard->promotion, gap_us);
    sim_world_hurt(world, gap_us);
}
