#include "driver/sim/fault.h"

#include <stdio.h>

#include "driver/sim/client.h"
#include "driver/sim/gate.h"
#include "driver/sim/reshard.h"
#include "driver/sim/server.h"
#include "driver/sim/wire.h"

enum {
    FOREIGN_EVERY_US = 30000,
    PAUSE_SEEDS = 4, /* of so many histories with breakers, in one only clients stand still */
    BATCH_SEEDS = 2, /* of so many histories one has batches: the others are about keys alone */
    SECOND_US = 1000000,
    WIRES_MAX = 4 * SIM_CLIENTS, /* to a node: two each, and as many that are on their way out */
    ALL_WIRES_MAX = WIRES_MAX * SIM_NODES
};

/* ---- a foreign writer ------------------------------------------------------------------------ */

static void write_plain(struct sim_node *node, int key)
{
    struct sim_world *world = node->world;
    char text[SIM_VALUE_ROOM], name[4];
    size_t id, len = sim_oracle_make(world, key, &id, text);
    snprintf(name, sizeof(name), "k%d", key % 10);
    sim_server_set(node, name, text, len,
                   sim_dice_falls(&world->dice, 500) ? sim_dice_between(&world->dice, 20, 400) : 0);
}

static void on_foreign(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    int key = (int)sim_dice_spread(&world->dice, 0, SIM_KEYS - 1);
    int64_t what = sim_dice_between(&world->dice, 0, 999);
    (void)timer;
    if (world->now_us >= world->end_us)
        return;
    sim_world_in(world, &world->foreign,
                 sim_dice_spread(&world->dice, 1, 2 * world->weather.foreign_every_us));
    int lock = key % SIM_LOCKS;
    bool is_lock = what >= 950 && what < 985;
    struct sim_node *node = sim_gate_owner(world, is_lock ? SIM_KEYS + lock : key);
    if (node == NULL || node->refuses || node->stopped_until_us > world->now_us)
        return;
    if (what < 500)
        sim_server_command(node, "DEL k%d", key);
    else if (what < 700)
        write_plain(node, key);
    else if (what < 850)
        sim_server_command(node, "PEXPIRE k%d %d", key,
                           (int)sim_dice_between(&world->dice, 1, 300));
    else if (what < 950)
        sim_server_command(node, "GET k%d", key);
    else if (is_lock)
        sim_server_command(node, "DEL lock%d", lock);
    else if (!sim_gate_is_moving(node))
        sim_server_command(node, "FLUSHALL");
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void cut_some_wire(struct sim_world *world)
{
    struct sim_wire *wires[ALL_WIRES_MAX];
    int count = 0, max = world->is_cluster ? ALL_WIRES_MAX : WIRES_MAX;
    RC_LIST_EACH(place, following, &world->wires) {
        struct sim_wire *wire = RC_CONTAINER(place, struct sim_wire, place);
        if (wire->is_open && count < max)
            wires[count++] = wire;
    }
    if (count == 0)
        return;
    enum sim_cut cut = (enum sim_cut)sim_dice_between(&world->dice, SIM_CUT_RESET, SIM_CUT_HALF);
    struct sim_wire *wire = wires[sim_dice_between(&world->dice, 0, count - 1)];
    /* What is late must be on its way. */
    for (int i = 0; i < count && cut == SIM_CUT_LATE && rc_buf_len(&wire->to_server.bytes) == 0;
         i++)
        wire = wires[i];
    static const char *const names[] = {"reset", "closed by the server", "lost, and late",
                                        "half-open"};
    sim_trace(world, "client %d's %s is %s", wire->client->number, rc_link_name(wire->link),
              names[cut]);
    sim_wire_cut(wire, cut);
    sim_world_hurt(world, 0);
}

static void set_clock(struct sim_world *world)
{
    int64_t step_us = sim_dice_between(&world->dice, -2 * SECOND_US, 2 * SECOND_US);
    sim_trace(world, "the servers' clock is set by %.1f ms", (double)step_us / 1000);
    world->unix_us += step_us;
    world->stepped_us = world->now_us;
    sim_world_hurt(world, 0);
}

/* What goes wrong for that long is the server's fault, or that of the ways to it. */
static void blame_server(struct sim_world *world, int64_t for_us)
{
    int64_t until_us = world->now_us + for_us;
    if (until_us > world->sick_until_us)
        world->sick_until_us = until_us;
}

/* Its answers are slow, or it only says that it is busy: what a breaker is for. */
static void weary(struct sim_world *world)
{
    struct sim_node *node = world->shards[0].master;
    int64_t for_us = sim_dice_between(&world->dice, 200, 1500) * 1000;
    if (sim_dice_falls(&world->dice, 500)) {
        int64_t limit_us = world->clients[0].engine.context.options.breaker_latency_ms * 1000;
        node->slow_us = limit_us + sim_dice_between(&world->dice, 0, 60000);
        node->slow_until_us = world->now_us + for_us;
        sim_trace(world, "the master is slow for %.1f ms: its answers take %.1f ms longer",
                  (double)for_us / 1000, (double)node->slow_us / 1000);
        for_us += node->slow_us;
    } else {
        node->busy_until_us = world->now_us + for_us;
        sim_trace(world, "the master is busy for %.1f ms", (double)for_us / 1000);
    }
    sim_world_hurt(world, for_us);
    blame_server(world, for_us);
}

static void hurt_cluster(struct sim_world *world, struct sim_client *client)
{
    bool is_nice = world->weather.is_nice;
    int64_t what = sim_dice_between(&world->dice, is_nice ? 50 : 0, 99);
    int64_t for_us = sim_dice_spread(&world->dice, 5000, 900000);
    int64_t shard = sim_dice_between(&world->dice, 0, world->shard_count - 1);
    if (what < 20) {
        cut_some_wire(world);
    } else if (what < 26) {
        sim_server_stop(world->shards[shard].master, for_us);
        sim_world_hurt(world, for_us);
    } else if (what < 32 && sim_world_runs(client)) {
        sim_client_pause(client, for_us);
        sim_world_hurt(world, for_us);
    } else if (what < 44) {
        sim_reshard_fail_over(world, what < 37   ? SIM_LEAVE_DEAD
                                     : what < 40 ? SIM_LEAVE_STOPPED
                                                 : SIM_LEAVE_CUT_OFF);
    } else if (what < 48) {
        sim_reshard_move(world, what < 46 ? SIM_MOVE_BY_GOSSIP : SIM_MOVE_OVER_NOBODY);
    } else if (what < 50) {
        set_clock(world);
    } else if (what < 60 && sim_world_runs(client)) {
        sim_client_kill(client);
    } else if (what < 80) {
        sim_reshard_move(world, SIM_MOVE_BY_KEY);
    } else if (what < 95) {
        sim_reshard_move(world, SIM_MOVE_AT_ONCE);
    } else {
        sim_reshard_fail_over(world, SIM_LEAVE_ASKED);
    }
}

static void on_fault(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_client *client = &world->clients[sim_dice_between(&world->dice, 0, SIM_CLIENTS - 1)];
    int64_t what = sim_dice_between(&world->dice, 0, 99);
    int64_t for_us = sim_dice_spread(&world->dice, 5000, 900000);
    const struct sim_weather *weather = &world->weather;
    (void)timer;
    if (world->now_us >= weather->calm_from_us)
        return;
    sim_world_in(world, &world->fault,
                 sim_dice_between(&world->dice, 1, 2 * weather->fault_every_us));
    if (world->is_cluster) {
        hurt_cluster(world, client);
    } else if (weather->only_pauses) {
        for_us = sim_dice_between(&world->dice, 50000, 900000);
        if (sim_world_runs(client)) {
            sim_client_pause(client, for_us);
            sim_world_hurt(world, for_us);
        }
    } else if (weather->is_nice) {
        if (sim_world_runs(client))
            sim_client_kill(client); /* that is nothing to the others */
    } else if (what < 20 && world->has_breakers) {
        weary(world);
    } else if (what < 45) {
        cut_some_wire(world);
        blame_server(world, 0);
    } else if (what < 60) {
        sim_server_stop(world->shards[0].master, for_us);
        sim_world_hurt(world, for_us);
        blame_server(world, for_us);
    } else if (what < 75 && sim_world_runs(client)) {
        sim_client_pause(client, for_us);
        sim_world_hurt(world, for_us);
    } else if (what < 83 && sim_world_runs(client)) {
        sim_client_kill(client);
    } else if (what < 93) {
        sim_server_fail_over(&world->shards[0]);
        blame_server(world, SIM_PROMOTION_MAX_US);
    } else {
        set_clock(world);
    }
}

void sim_faults_init(struct sim_world *world)
{
    struct sim_dice *dice = &world->dice;
    struct sim_weather *weather = &world->weather;
    weather->only_pauses = world->has_breakers && world->seed % PAUSE_SEEDS == 1;
    bool is_nice = sim_dice_falls(dice, 300) && !weather->only_pauses;
    weather->is_nice = is_nice;
    weather->delay_min_us = sim_dice_between(dice, 10, 200);
    weather->delay_max_us = sim_dice_falls(dice, 200)
                                ? sim_dice_between(dice, 8000, 40000)
                                : sim_dice_spread(dice, weather->delay_min_us, 8000);
    weather->split_permille = (int)sim_dice_between(dice, 0, 1) * 300;
    weather->fault_every_us = sim_dice_spread(dice, is_nice ? 200000 : 30000, 600000);
    weather->lag_max_us = sim_dice_spread(dice, 100, 300000);
    weather->sweep_every_us = sim_dice_between(dice, 50000, 4000000);
    weather->think_max_us = sim_dice_spread(dice, 20000, 120000);
    /* Long enough for a heartbeat, or a handshake, to go its way in time. */
    weather->lease_ttl_ms = sim_dice_between(dice, 60, 240) + 4 * weather->delay_max_us / 1000;
    weather->lock_ttl_ms = sim_dice_between(dice, 150, 600);
    weather->max_stale_ms = sim_dice_spread(dice, 20, 400);
    weather->command_timeout_ms =
        sim_dice_between(dice, 150, 400) + 8 * weather->delay_max_us / 1000;
    weather->has_batches = world->seed % BATCH_SEEDS == 1;
    weather->count_ttl_ms = weather->has_batches ? sim_dice_spread(dice, 100, 4000) : 0;
    weather->foreign_every_us = FOREIGN_EVERY_US;
    world->foreign.fire = on_foreign;
    world->fault.fire = on_fault;
    world->end_us = world->now_us + (is_nice ? 2 : 6) * SECOND_US;
    weather->calm_from_us = is_nice ? world->end_us : world->end_us - 4 * SECOND_US;
    world->healthy_since_us = is_nice ? INT64_MIN / 2 : world->now_us;
    sim_world_in(world, &world->foreign, FOREIGN_EVERY_US);
    sim_world_in(world, &world->fault, weather->fault_every_us);
}
