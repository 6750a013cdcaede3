#include "driver/sim/bus.h"

#include <string.h>

#include "base/slot.h"
#include "driver/sim/gate.h"
#include "driver/sim/server.h"
#include "driver/sim/wire.h"

enum { ELECTIONS_MAX = 20 /* that a minority holds and nobody wins: each raises its epoch */ };

/* ---- keys that leave ------------------------------------------------------------------------- */

struct names {
    const struct sim_world *world;
    int place;
    struct rc_buf bytes; /* of each a length and the name */
};

static void note_name(void *owner, const struct rc_store_change *change)
{
    struct names *names = owner;
    if (sim_gate_place(names->world, rc_slot(change->key, change->key_len)) != names->place)
        return;
    sim_must(rc_buf_append(&names->bytes, &change->key_len, sizeof(change->key_len)));
    sim_must(rc_buf_append(&names->bytes, change->key, change->key_len));
}

static void drop_output(struct sim_node *node)
{
    RC_LIST_EACH(at_node, following, &node->wires) {
        struct sim_wire *wire = RC_CONTAINER(at_node, struct sim_wire, at_node);
        if (wire->peer != NULL)
            rc_buf_clear(&wire->peer->output);
    }
}

void sim_bus_trim(struct sim_node *node, int place, bool is_silent)
{
    struct sim_world *world = node->world;
    struct names names = {.world = world, .place = place};
    size_t len;
    rc_buf_init(&names.bytes);
    sim_world_forget(world, &node->trims[place]);
    rc_store_each(node->store, note_name, &names);
    sim_wire_collect(node); /* what it has said so far */
    world->is_moving = true;
    while (rc_buf_len(&names.bytes) > 0) {
        memcpy(&len, rc_buf_head(&names.bytes), sizeof(len));
        struct rc_store_change gone = {.key = rc_buf_head(&names.bytes) + sizeof(len),
                                       .key_len = len,
                                       .expires_ms = RC_STORE_NEVER};
        sim_must(rc_store_apply(node->store, &gone));
        rc_buf_consume(&names.bytes, sizeof(len) + len);
    }
    world->is_moving = false;
    rc_buf_deinit(&names.bytes);
    if (is_silent)
        drop_output(node);
    sim_wire_collect(node);
}

static void on_trim(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    for (int i = 0; i < 2 * world->shard_count; i++)
        for (int place = 0; place < SIM_PLACES; place++)
            if (&world->nodes[i].trims[place] == timer) {
                sim_trace(world, "n%d deletes what has left it of place %d", i, place);
                sim_bus_trim(&world->nodes[i], place, false);
            }
}

/* ---- beliefs --------------------------------------------------------------------------------- */

static void set_until(int64_t *until_us, bool goes_on, int64_t now_us)
{
    if (goes_on)
        *until_us = INT64_MAX;
    else if (*until_us == INT64_MAX)
        *until_us = now_us;
}

/* So many masters, those included that are none any more, that a majority may not know it. */
static bool is_unknown(const struct sim_world *world, int place)
{
    int count = 0;
    for (int i = 0; i < 2 * world->shard_count; i += 2) {
        bool knows = true;
        for (int j = i; j < i + 2; j++) {
            const struct sim_node *node = &world->nodes[j];
            knows &= node->stranger == NULL ||
                     node->beliefs[place].owner == world->holders[place]->number;
        }
        count += !knows;
    }
    return count > world->shard_count / 2;
}

static void look_around(struct sim_world *world, int place)
{
    const struct sim_node *holder = world->holders[place];
    bool is_split = false;
    for (int i = 0; i < 2 * world->shard_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        is_split |= node != holder && node->beliefs[place].owner == i && !node->is_down;
    }
    set_until(&world->split_us[place], is_split, world->now_us);
    set_until(&world->unknown_us[place], is_unknown(world, place), world->now_us);
}

static void look_for_peace(struct sim_world *world)
{
    bool is_settled = true;
    for (int i = 0; i < 2 * world->shard_count; i++)
        for (int place = 0; place < SIM_PLACES; place++)
            is_settled &= world->nodes[i].beliefs[place].owner == world->holders[place]->number &&
                          world->moves[place].target == NULL;
    if (!is_settled)
        world->settled_us = INT64_MAX;
    else if (world->settled_us == INT64_MAX)
        world->settled_us = world->now_us;
}

static void believe(struct sim_node *node, int place, struct sim_belief news)
{
    struct sim_belief *belief = &node->beliefs[place];
    node->epoch = news.epoch > node->epoch ? news.epoch : node->epoch;
    sim_world_forget(node->world, &node->rumours[place].timer);
    if (news.epoch > belief->epoch)
        *belief = news;
    look_around(node->world, place);
    look_for_peace(node->world);
}

/* Its replica is the master: it becomes a replica of that, and knows all that it does. */
static void step_down(struct sim_node *node)
{
    sim_trace(node->world, "n%d hears that it is no master any more", node->number);
    sim_bus_tell_all(node);
    sim_server_follow(node);
}

static int64_t delay_us(struct sim_world *world)
{
    return sim_dice_spread(&world->dice, 100, world->weather.bus_delay_max_us);
}

static void on_rumour(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_rumour *rumour = RC_CONTAINER(timer, struct sim_rumour, timer);
    struct sim_node *node = rumour->node;
    int place = (int)(rumour - node->rumours);
    if (node->stopped_until_us > world->now_us || node->refuses || node->is_cut_off) {
        int64_t from_us =
            node->stopped_until_us > world->now_us ? node->stopped_until_us : world->now_us;
        sim_world_at(world, timer, from_us + delay_us(world));
        return;
    }
    bool had_it = node->beliefs[place].owner == node->number;
    if (had_it && rumour->news.owner == sim_world_pair(node)->number) {
        step_down(node);
        return;
    }
    believe(node, place, rumour->news);
    if (had_it && node->beliefs[place].owner != node->number) {
        sim_trace(world, "n%d hears that it has lost place %d", node->number, place);
        sim_bus_trim(node, place, world->weather.trims_silently);
    }
}

void sim_bus_claim(struct sim_node *node, int place)
{
    struct sim_world *world = node->world;
    struct sim_belief news = {node->number, ++world->epoch};
    sim_trace(world, "n%d owns place %d, epoch %d", node->number, place, (int)news.epoch);
    world->holders[place] = node;
    sim_world_forget(world, &node->trims[place]); /* they are its own again */
    believe(node, place, news);
    for (int i = 0; i < 2 * world->shard_count; i++) {
        struct sim_rumour *rumour = &world->nodes[i].rumours[place];
        if (&world->nodes[i] == node)
            continue;
        rumour->news = news;
        sim_world_in(world, &rumour->timer, delay_us(world));
    }
}

void sim_bus_tell(struct sim_node *node, int place)
{
    believe(node, place, node->world->holders[place]->beliefs[place]);
}

void sim_bus_tell_all(struct sim_node *node)
{
    for (int place = 0; place < SIM_PLACES; place++)
        sim_bus_tell(node, place);
}

void sim_bus_give_up(struct sim_node *node, int place)
{
    node->beliefs[place].owner = SIM_NOBODY;
    look_for_peace(node->world);
}

/* ---- partitions ------------------------------------------------------------------------------ */

static void set_down(struct sim_node *node, bool is_down)
{
    node->is_down = is_down;
    for (int place = 0; place < SIM_PLACES; place++)
        look_around(node->world, place);
}

static void on_down(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_node *node = RC_CONTAINER(timer, struct sim_node, down);
    sim_trace(world, "n%d says that the cluster is down", node->number);
    node->epoch += sim_dice_between(&world->dice, 1, ELECTIONS_MAX);
    world->epoch = node->epoch > world->epoch ? node->epoch : world->epoch;
    set_down(node, true);
}

/* It hears at last: of its epoch the others do, too. */
static void on_heal(void *context, struct rc_timer *timer)
{
    struct sim_world *world = context;
    struct sim_node *node = RC_CONTAINER(timer, struct sim_node, heal);
    sim_trace(world, "n%d is no longer cut off", node->number);
    node->is_cut_off = false;
    sim_world_forget(world, &node->down);
    if (!sim_world_is_master(node) && node->stranger != NULL)
        step_down(node);
    set_down(node, false);
    for (int i = 0; i < 2 * world->shard_count; i++)
        if (world->nodes[i].epoch < node->epoch)
            world->nodes[i].epoch = node->epoch;
}

void sim_bus_cut_off(struct sim_node *node, int64_t for_us)
{
    struct sim_world *world = node->world;
    sim_trace(world, "n%d is cut off from the others", node->number);
    node->is_cut_off = true;
    sim_world_in(world, &node->down, world->weather.node_timeout_us);
    sim_world_in(world, &node->heal, for_us);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static void init_node(struct sim_node *node)
{
    node->down.fire = on_down;
    node->heal.fire = on_heal;
    for (int place = 0; place < SIM_PLACES; place++) {
        const struct sim_node *holder = node->world->holders[place];
        node->beliefs[place] = (struct sim_belief){holder->number, 1 + holder->shard};
        node->rumours[place].node = node;
        node->rumours[place].timer.fire = on_rumour;
        node->trims[place].fire = on_trim;
    }
    node->epoch = node->world->epoch;
}

void sim_bus_init(struct sim_world *world)
{
    world->epoch = world->shard_count;
    for (int i = 0; i < 2 * world->shard_count; i++)
        init_node(&world->nodes[i]);
    world->settled_us = world->now_us;
}
