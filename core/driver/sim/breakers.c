#include "driver/sim/breakers.h"

#include "driver/sim/world.h"

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
            sim_trace(world, "client %d: its breaker is closed", client->number);
        seen->opened_us = 0;
        return;
    }
    if (seen->opened_us == 0) {
        seen->opened_us = world->now_us;
        sim_trace(world, "client %d: its breaker opens: %s", client->number,
                  node->fuse.breaker.cause);
    }
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
