#include "driver/sim/breakers.h"

#include "driver/sim/caller.h"
#include "driver/sim/wire.h"

/* Two seconds of backoff, connecting and probing at the slowest, and one more. */
enum { HEALED_US = 3000 * 1000 };

static void watch_probes(struct sim_world *world, struct sim_client *client,
                         struct sim_breaker *seen)
{
    uint64_t probes = client->engine.context.stats.breaker_probes;
    while (seen->probes < probes) {
        int64_t *oldest = &seen->probed_us[seen->probes++ % SIM_BREAKER_PROBES];
        if (*oldest != 0 && world->now_us - *oldest < SIM_BREAKER_WAIT_MS * 1000)
            sim_violation(world, "G13: client %d has sent more than %d probes within %d ms",
                          client->number, SIM_BREAKER_PROBES, SIM_BREAKER_WAIT_MS);
        *oldest = world->now_us;
    }
}

/* A read that has waited for the connection since before is sent when it is there. */
static void watch_link(struct sim_world *world, const struct sim_client *client,
                       const struct rc_link *link, int64_t opened_us)
{
    RC_LIST_EACH(place, following, &link->in_flight) {
        const struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        if (req->read_key != NULL && req->sent_us > opened_us && req->sent_us != link->ready_us)
            sim_violation(world,
                          "G13: client %d has sent a caller's read while its breaker was open",
                          client->number);
    }
}

/* Calls that ask for themselves alone: others may wait for what was asked for before. */
static void watch_callers(struct sim_world *world, const struct sim_client *client,
                          int64_t opened_us)
{
    for (int i = 0; i < SIM_KEY_CALLERS; i++) {
        const struct sim_caller *caller = &world->callers[i];
        enum rc_op_kind kind = caller->op.ask.kind;
        bool asks_alone = kind == RC_OP_SET || (kind == RC_OP_GET && !caller->op.ask.near);
        if (caller->client == client && caller->state == SIM_CALLING && asks_alone &&
            caller->began_us > opened_us && caller->began_us < world->now_us)
            sim_violation(world, "G13: caller %d waits although its client's breaker is open", i);
    }
}

/* What was sent while the server was not well has ended by then. */
static int64_t echo_us(const struct sim_world *world)
{
    return (world->weather.command_timeout_ms + 500) * 1000;
}

static void on_open(struct sim_world *world, const struct sim_client *client,
                    struct sim_breaker *seen)
{
    const char *cause = client->engine.topology.node.fuse.breaker.cause;
    int64_t sick_us = world->now_us - echo_us(world);
    seen->opened_us = world->now_us;
    seen->opened_at_probe = seen->probes;
    seen->master = world->shards[0].master;
    sim_trace(world, "client %d: its breaker opens: %s", client->number, cause);
    if (world->sick_until_us < sick_us && !sim_wire_hides_loss(client, sick_us))
        sim_violation(world, "G13: client %d: its breaker opens, but the server is well: %s",
                      client->number, cause);
}

/* Another server, which it may stand for now, is known for nothing. */
static void on_close(struct sim_world *world, const struct sim_client *client,
                     struct sim_breaker *seen)
{
    sim_trace(world, "client %d: its breaker is closed", client->number);
    if (seen->probes - seen->opened_at_probe < SIM_BREAKER_PROBES &&
        seen->master == world->shards[0].master)
        sim_violation(world, "G13: client %d: its breaker closes after %d probes", client->number,
                      (int)(seen->probes - seen->opened_at_probe));
    seen->opened_us = 0;
}

static void watch(struct sim_world *world, struct sim_client *client, struct sim_breaker *seen)
{
    const struct rc_server_node *node = &client->engine.topology.node;
    if (seen->birth != client->births)
        *seen = (struct sim_breaker){.birth = client->births};
    if (!client->is_alive || client->paused_until_us > world->now_us)
        return;
    watch_probes(world, client, seen);
    if (!rc_breaker_is_shut(&node->fuse.breaker)) {
        if (seen->opened_us != 0)
            on_close(world, client, seen);
        return;
    }
    if (seen->opened_us == 0)
        on_open(world, client, seen);
    watch_callers(world, client, seen->opened_us);
    for (int role = 0; role < RC_NODE_LINKS; role++)
        watch_link(world, client, &node->links[role], seen->opened_us);
    if (sim_world_is_healthy(world, HEALED_US) && world->now_us - seen->opened_us > HEALED_US)
        sim_violation(world, "G13: client %d: its breaker stays open", client->number);
}

void sim_breakers_look(struct sim_world *world)
{
    for (int i = 0; world->has_breakers && i < SIM_CLIENTS; i++)
        watch(world, &world->clients[i], &world->breakers[i]);
}
