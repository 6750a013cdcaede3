#include "driver/sim/client.h"

#include <string.h>

#include "driver/sim/caller.h"
#include "driver/sim/gate.h"
#include "driver/sim/wire.h"
#include "near/mix.h"

enum {
    ROUNDS_MAX = 1000, /* of one turn: an engine that turns in a circle is a violation */
    REAPED_MIN_US = 50000,
    REAPED_MAX_US = 400000
};

/* ---- turning --------------------------------------------------------------------------------- */

static bool move(struct sim_client *client)
{
    struct rc_engine *engine = &client->engine;
    bool any = false;
    struct rc_op *op;
    rc_engine_run(engine);
    RC_TOPOLOGY_EACH(link, &engine->topology) {
        sim_wire_open_or_close(client, link);
    }
    while ((op = rc_engine_take_finished(engine)) != NULL) {
        sim_caller_finished(client->world, op);
        any = true;
    }
    return any || rc_engine_deadline(engine) <= client->world->now_us;
}

void sim_client_turn(struct sim_client *client)
{
    struct sim_world *world = client->world;
    if (!client->is_alive)
        return;
    if (client->paused_until_us > world->now_us) {
        sim_world_at(world, &client->turn, client->paused_until_us);
        return;
    }
    rc_engine_set_time(&client->engine, world->now_us);
    for (int rounds = 0; move(client); rounds++)
        if (rounds == ROUNDS_MAX) {
            sim_violation(world, "client %d turns in a circle", client->number);
            return;
        }
    client->wants_turn = false; /* what its callers have asked for meanwhile is under way */
    int64_t deadline_us = rc_engine_deadline(&client->engine);
    if (deadline_us != INT64_MAX)
        sim_world_at(world, &client->turn, deadline_us);
    else
        sim_world_forget(world, &client->turn);
}

static void on_turn(void *context, struct rc_timer *timer)
{
    (void)context;
    sim_client_turn(RC_CONTAINER(timer, struct sim_client, turn));
}

/* ---- life ------------------------------------------------------------------------------------ */

/* That the url names: any of a cluster that answers now. Who knows a single node, which does not,
   is not served by the others. */
static struct sim_node *some_node(struct sim_world *world)
{
    int count = 2 * world->shard_count;
    int first = world->is_cluster ? (int)sim_dice_between(&world->dice, 0, count - 1) : 0;
    for (int i = 0; i < count; i++) {
        struct sim_node *node = &world->nodes[(first + i) % count];
        if (!node->refuses && node->stopped_until_us <= world->now_us && !node->is_cut_off)
            return node;
    }
    return &world->nodes[first];
}

static void start(struct sim_client *client)
{
    struct sim_world *world = client->world;
    char url[32];
    struct rc_address address;
    struct rc_seed seed = {{sim_dice_roll(&world->dice), sim_dice_roll(&world->dice)}};
    rc_options options = {.connect_timeout_ms = 300,
                          .command_timeout_ms = (int32_t)world->weather.command_timeout_ms,
                          .max_value_bytes = 4096,
                          .max_key_bytes = 1024,
                          .max_queue = 1000,
                          .degraded_ttl_ms = 50,
                          .breaker = world->has_breakers ? 1 : -1,
                          .breaker_window = 10,
                          .breaker_errors = 500,
                          .breaker_latency_ms =
                              20 + 8 * (int32_t)(world->weather.delay_max_us / 1000),
                          .breaker_wait_ms = SIM_BREAKER_WAIT_MS,
                          .breaker_probes = SIM_BREAKER_PROBES};
    const char *why;
    sim_gate_url(some_node(world), url);
    sim_must(rc_address_parse(&address, url, strlen(url), &why));
    sim_must(rc_engine_init(&client->engine, &options, &address, client->machine->near, &seed,
                            world->now_us));
    client->is_alive = true;
    client->births++;
    client->born_us = world->now_us;
    client->epoch = -1;
    client->settled_us = INT64_MAX;
    client->paused_until_us = 0;
}

/* Its owner's slot is taken over, as the near cache does it with those of dead processes. */
static void bury(struct sim_client *client)
{
    rc_engine_end(&client->engine);
    while (rc_engine_take_finished(&client->engine) != NULL) {
    }
    rc_engine_deinit(&client->engine);
}

static void on_reaped(void *context, struct rc_timer *timer)
{
    struct sim_client *client = RC_CONTAINER(timer, struct sim_client, reaper);
    (void)context;
    sim_callers_drop(client);
    bury(client);
    start(client);
    sim_trace(client->world, "client %d: another one is started in its place", client->number);
    sim_callers_start(client);
    sim_client_turn(client);
}

static void open_machine(struct sim_world *world, struct sim_machine *machine)
{
    struct rc_mix_seed seed;
    struct rc_near_options options = {
        .bytes = RC_NEAR_MIN_BYTES, .stripes = 1, .seed = &seed, .clock = &world->clock};
    const char *why;
    for (int i = 0; i < 4; i++)
        seed.words[i] = sim_dice_roll(&world->dice);
    sim_must(rc_near_open(&machine->near, &options, &why));
}

void sim_clients_init(struct sim_world *world)
{
    for (int i = 0; i < SIM_MACHINES; i++)
        open_machine(world, &world->machines[i]);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *client = &world->clients[i];
        client->world = world;
        client->number = i;
        client->machine = &world->machines[i / 2];
        client->turn.fire = on_turn;
        client->reaper.fire = on_reaped;
        start(client);
    }
}

void sim_clients_deinit(struct sim_world *world)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *client = &world->clients[i];
        sim_callers_drop(client);
        bury(client);
    }
    for (int i = 0; i < SIM_MACHINES; i++)
        rc_near_close(world->machines[i].near);
}

/* ---- faults ---------------------------------------------------------------------------------- */

void sim_client_pause(struct sim_client *client, int64_t for_us)
{
    sim_trace(client->world, "client %d is stopped for %.1f ms", client->number,
              (double)for_us / 1000);
    client->paused_until_us = client->world->now_us + for_us;
}

void sim_client_kill(struct sim_client *client)
{
    struct sim_world *world = client->world;
    bool tells = sim_dice_falls(&world->dice, 700);
    int64_t gap_us = sim_dice_between(&world->dice, REAPED_MIN_US, REAPED_MAX_US);
    sim_trace(world, "client %d is killed", client->number);
    client->is_alive = false;
    sim_world_forget(world, &client->turn);
    RC_TOPOLOGY_EACH(link, &client->engine.topology) {
        if (link->line != NULL)
            sim_wire_orphan(sim_wire_of(link), tells);
    }
    sim_world_in(world, &client->reaper, gap_us); /* nobody else is hurt */
}
