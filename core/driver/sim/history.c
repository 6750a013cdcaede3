#include "driver/sim/history.h"

#include <assert.h>
#include <string.h>

#include "driver/sim/caller.h"
#include "driver/sim/client.h"
#include "driver/sim/fault.h"
#include "driver/sim/reshard.h"
#include "driver/sim/server.h"
#include "driver/sim/wire.h"
#include "engine/script.h"

enum {
    AUDIT_EVERY_US = 20000,
    REST_US = 5000000, /* behind the end: every call must have ended */
    EVENTS_MAX = 2000000
};

/* ---- running --------------------------------------------------------------------------------- */

static void on_audit(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    sim_callers_audit(world);
    sim_oracle_audit(world);
    sim_world_in(world, timer, AUDIT_EVERY_US);
}

static void turn_clients(struct sim_world *world)
{
    int count = 0;
    for (int i = 0; i < SIM_CLIENTS; i++) {
        if (!world->clients[i].wants_turn)
            continue;
        count++;
        assert(count == 1); /* an event happens to one client at most */
        world->clients[i].wants_turn = false;
        sim_client_turn(&world->clients[i]);
    }
}

static void do_next(struct sim_world *world)
{
    struct rc_timer *timer = rc_heap_first(&world->agenda);
    rc_heap_clear(&world->agenda, timer);
    if (timer->at_us > world->now_us)
        world->now_us = timer->at_us;
    atomic_store(&world->clock, world->now_us);
    timer->fire(world, timer);
    turn_clients(world);
    sim_oracle_look(world);
    sim_breakers_look(world);
    world->events++;
}

void sim_history_run(struct sim_world *world)
{
    int64_t last_us = world->end_us + REST_US;
    while (world->oracle.violations == 0 &&
           (world->now_us < world->end_us || !sim_callers_are_idle(world))) {
        do_next(world);
        if (world->events > EVENTS_MAX || world->now_us > last_us)
            sim_violation(world, "G6: the run does not come to rest");
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void sim_history_init(struct sim_world *world, const struct sim_history_options *options)
{
    uint64_t seed = options->seed;
    memset(world, 0, sizeof(*world));
    rc_scripts_init();
    world->seed = seed;
    world->dice.state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    world->is_traced = options->is_traced;
    world->asks_replicas = options->is_cluster && options->asks_replicas;
    world->has_tags = options->has_tags;
    world->has_breakers = options->has_breakers && !options->is_cluster;
    world->has_ifeq = options->has_ifeq;
    world->now_us = 1000000;
    world->unix_us = INT64_C(1700000000000000);
    world->stepped_us = INT64_MIN;
    world->shard_count = 1;
    for (int place = 0; place < SIM_PLACES; place++)
        world->lost_us[place] = world->split_us[place] = world->unknown_us[place] = INT64_MIN;
    atomic_store(&world->clock, world->now_us);
    rc_heap_init(&world->agenda);
    rc_list_init(&world->wires);
    world->audit.fire = on_audit;
    sim_faults_init(world);
    if (options->is_cluster)
        sim_reshard_init(world);
    sim_oracle_init(world);
    sim_ledger_init(world);
    sim_tags_init(world);
    sim_servers_init(world);
    if (options->is_cluster)
        sim_reshard_begin(world);
    sim_clients_init(world);
    sim_callers_init(world);
    sim_world_in(world, &world->audit, AUDIT_EVERY_US);
}

void sim_history_deinit(struct sim_world *world)
{
    sim_wire_free_all(world); /* they lead to links, which are the engines' */
    sim_clients_deinit(world);
    sim_callers_deinit(world);
    sim_servers_deinit(world);
    sim_oracle_deinit(world);
    sim_ledger_deinit(world);
    sim_tags_deinit(world);
    rc_heap_deinit(&world->agenda);
}
