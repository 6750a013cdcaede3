#include "driver/sim/wire.h"

#include <stdlib.h>

#include "driver/sim/gate.h"

enum { LATE_MAX_US = 1500000 };

struct sim_chunk {
    int64_t at_us;
    size_t len;
};

/* ---- life ------------------------------------------------------------------------------------ */

static void free_pipe(struct sim_world *world, struct sim_pipe *pipe)
{
    sim_world_forget(world, &pipe->timer);
    rc_buf_deinit(&pipe->bytes);
    rc_buf_deinit(&pipe->chunks);
}

static void free_wire(struct sim_wire *wire)
{
    sim_world_forget(wire->world, &wire->opening);
    free_pipe(wire->world, &wire->to_server);
    free_pipe(wire->world, &wire->to_client);
    rc_request_deinit(&wire->request);
    rc_buf_deinit(&wire->input);
    rc_list_remove(&wire->place);
    rc_list_remove(&wire->at_node);
    free(wire);
}

static void free_if_unused(struct sim_wire *wire)
{
    if (wire->client == NULL && wire->peer == NULL && !rc_timer_is_set(&wire->opening))
        free_wire(wire);
}

static void disconnect(struct sim_wire *wire)
{
    if (wire->peer != NULL)
        rc_store_disconnect(wire->peer);
    wire->peer = NULL;
}

/* The client's end is closed, by itself or because it was told. */
static void detach_client(struct sim_wire *wire)
{
    if (wire->client != NULL)
        wire->link->line = NULL;
    wire->client = NULL;
    wire->link = NULL;
    wire->is_open = false;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static int64_t delay_us(struct sim_world *world)
{
    const struct sim_weather *weather = &world->weather;
    return sim_dice_spread(&world->dice, weather->delay_min_us, weather->delay_max_us);
}

static void set_timer(struct sim_pipe *pipe)
{
    struct sim_wire *wire = pipe->wire;
    bool to_server = pipe == &wire->to_server;
    int64_t stopped_us = to_server              ? wire->node->stopped_until_us
                         : wire->client != NULL ? wire->client->paused_until_us
                                                : 0;
    int64_t at_us = pipe->last_us;
    if (rc_buf_len(&pipe->chunks) > 0)
        at_us = ((const struct sim_chunk *)(const void *)rc_buf_head(&pipe->chunks))->at_us;
    else if (!pipe->ends)
        return;
    at_us = at_us > stopped_us ? at_us : stopped_us;
    sim_world_at(wire->world, &pipe->timer,
                 at_us > wire->world->now_us ? at_us : wire->world->now_us);
}

static void put_chunk(struct sim_pipe *pipe, size_t len)
{
    const struct sim_wire *wire = pipe->wire;
    int64_t at_us = wire->world->now_us + delay_us(wire->world);
    if (pipe == &wire->to_client && wire->node->slow_until_us > wire->world->now_us)
        at_us += wire->node->slow_us;
    struct sim_chunk chunk = {at_us > pipe->last_us ? at_us : pipe->last_us, len};
    pipe->last_us = chunk.at_us;
    sim_must(rc_buf_append(&pipe->chunks, (const char *)&chunk, sizeof(chunk)));
}

static void put(struct sim_pipe *pipe, const char *bytes, size_t len)
{
    struct sim_world *world = pipe->wire->world;
    if (pipe->swallows || pipe->ends || len == 0)
        return;
    sim_must(rc_buf_append(&pipe->bytes, bytes, len));
    while (len > 1 && sim_dice_falls(&world->dice, world->weather.split_permille)) {
        size_t part = (size_t)sim_dice_between(&world->dice, 1, (int64_t)len - 1);
        put_chunk(pipe, part);
        len -= part;
    }
    put_chunk(pipe, len);
    if (!rc_timer_is_set(&pipe->timer))
        set_timer(pipe);
}

/* It carries nothing further; the other end hears of that behind the last byte. */
static void end_pipe(struct sim_pipe *pipe)
{
    struct sim_world *world = pipe->wire->world;
    if (pipe->swallows || pipe->ends)
        return;
    int64_t at_us = world->now_us + delay_us(world);
    bool is_empty = rc_buf_len(&pipe->chunks) == 0;
    pipe->ends = true;
    pipe->last_us = is_empty && at_us > pipe->last_us ? at_us : pipe->last_us;
    set_timer(pipe);
}

static size_t take_chunk(struct sim_pipe *pipe)
{
    if (rc_buf_len(&pipe->chunks) == 0)
        return 0;
    size_t len = ((const struct sim_chunk *)(const void *)rc_buf_head(&pipe->chunks))->len;
    rc_buf_consume(&pipe->chunks, sizeof(struct sim_chunk));
    return len;
}

static bool is_over(const struct sim_pipe *pipe)
{
    return pipe->ends && rc_buf_len(&pipe->chunks) == 0;
}

void sim_wire_collect(struct sim_node *node)
{
    RC_LIST_EACH(at_node, following, &node->wires) {
        struct sim_wire *wire = RC_CONTAINER(at_node, struct sim_wire, at_node);
        struct rc_store_conn *peer = wire->peer;
        if (peer == NULL)
            continue;
        put(&wire->to_client, rc_buf_head(&peer->output), rc_buf_len(&peer->output));
        rc_buf_clear(&peer->output);
        if (peer->wants_close) {
            disconnect(wire);
            end_pipe(&wire->to_client);
            free_if_unused(wire);
        }
    }
}

static void on_server_arrival(void *context, struct rc_timer *timer)
{
    struct sim_pipe *pipe = RC_CONTAINER(timer, struct sim_pipe, timer);
    struct sim_wire *wire = pipe->wire;
    struct sim_node *node = wire->node;
    struct sim_world *world = context;
    if (node->stopped_until_us > world->now_us) {
        set_timer(pipe);
        return;
    }
    size_t len = take_chunk(pipe);
    if (len > 0 && wire->peer != NULL) {
        rc_store_set_time(node->store, sim_world_unix_us(world));
        world->speaking = wire;
        if (world->is_cluster || world->has_breakers)
            sim_gate_feed(wire, rc_buf_head(&pipe->bytes), len);
        else
            sim_must(rc_store_feed(wire->peer, rc_buf_head(&pipe->bytes), len));
        world->speaking = NULL;
    }
    rc_buf_consume(&pipe->bytes, len);
    if (is_over(pipe)) {
        disconnect(wire);
        end_pipe(&wire->to_client);
    } else {
        set_timer(pipe);
    }
    free_if_unused(wire);
    sim_wire_collect(node);
}

static void on_client_arrival(void *context, struct rc_timer *timer)
{
    struct sim_pipe *pipe = RC_CONTAINER(timer, struct sim_pipe, timer);
    struct sim_wire *wire = pipe->wire;
    struct sim_client *client = wire->client;
    struct sim_world *world = context;
    if (client != NULL && client->paused_until_us > world->now_us) {
        set_timer(pipe);
        return;
    }
    size_t len = take_chunk(pipe);
    if (len > 0 && wire->is_open) {
        rc_engine_set_time(&client->engine, world->now_us);
        rc_link_feed(wire->link, rc_buf_head(&pipe->bytes), len);
    }
    rc_buf_consume(&pipe->bytes, len);
    if (is_over(pipe)) {
        struct rc_link *link = wire->link;
        bool was_open = wire->is_open;
        detach_client(wire);
        end_pipe(&wire->to_server);
        free_if_unused(wire);
        if (was_open) {
            rc_engine_set_time(&client->engine, world->now_us);
            rc_link_lost(link, "the server closed the connection");
            link->wants_close = false;
        }
    } else {
        set_timer(pipe);
    }
    if (client != NULL)
        sim_world_wake(client);
}

/* ---- opening --------------------------------------------------------------------------------- */

static void fail_opening(struct sim_wire *wire, const char *cause)
{
    struct sim_client *client = wire->client;
    struct rc_link *link = wire->link;
    detach_client(wire);
    free_if_unused(wire);
    rc_engine_set_time(&client->engine, client->world->now_us);
    rc_link_lost(link, cause);
    link->wants_close = false;
    sim_world_wake(client);
}

static void on_opened(void *context, struct rc_timer *timer)
{
    struct sim_wire *wire = RC_CONTAINER(timer, struct sim_wire, opening);
    struct sim_world *world = context;
    struct sim_client *client = wire->client;
    if (client == NULL) {
        free_if_unused(wire);
        return;
    }
    if (client->paused_until_us > world->now_us) {
        sim_world_at(world, &wire->opening, client->paused_until_us);
        return;
    }
    wire->node = sim_gate_find(world, wire->link->address);
    if (wire->node->is_silent)
        return; /* the link gives up by itself */
    if (wire->node->refuses) {
        fail_opening(wire, "Connection refused");
        return;
    }
    sim_must(rc_store_connect(wire->node->store, &wire->peer));
    rc_list_append(&wire->node->wires, &wire->at_node);
    wire->is_open = true;
    wire->opened_us = world->now_us;
    rc_engine_set_time(&client->engine, world->now_us);
    rc_link_opened(wire->link);
    sim_world_wake(client);
}

static void init_pipe(struct sim_wire *wire, struct sim_pipe *pipe,
                      void (*fire)(void *context, struct rc_timer *timer))
{
    pipe->wire = wire;
    pipe->timer.fire = fire;
    rc_buf_init(&pipe->bytes);
    rc_buf_init(&pipe->chunks);
}

static void open_wire(struct sim_client *client, struct rc_link *link)
{
    struct sim_wire *wire = calloc(1, sizeof(*wire));
    sim_must(wire == NULL ? RC_ERR_NOMEM : 0);
    wire->world = client->world;
    wire->client = client;
    wire->number = client->number;
    wire->link = link;
    wire->node = sim_gate_find(client->world, link->address);
    rc_request_init(&wire->request);
    rc_buf_init(&wire->input);
    wire->opening.fire = on_opened;
    init_pipe(wire, &wire->to_server, on_server_arrival);
    init_pipe(wire, &wire->to_client, on_client_arrival);
    rc_list_append(&client->world->wires, &wire->place);
    rc_list_init(&wire->at_node);
    link->line = (struct rc_line *)(void *)wire; /* a simulated line */
    sim_world_in(wire->world, &wire->opening, delay_us(wire->world) * 2);
}

/* ---- the client's side ----------------------------------------------------------------------- */

static bool is_half_open(const struct sim_wire *wire)
{
    return wire->is_open && (wire->to_server.swallows || wire->to_client.swallows);
}

bool sim_wire_hides_loss(const struct sim_client *client, int64_t since_us)
{
    RC_LIST_EACH(place, following, &client->world->wires) {
        const struct sim_wire *wire = RC_CONTAINER(place, struct sim_wire, place);
        if (wire->client == client && is_half_open(wire))
            return true;
    }
    return client->half_open_us >= since_us;
}

static void close_client(struct sim_wire *wire)
{
    if (is_half_open(wire))
        wire->client->half_open_us = wire->world->now_us;
    detach_client(wire);
    if (wire->peer != NULL)
        end_pipe(&wire->to_server);
    free_if_unused(wire);
}

void sim_wire_open_or_close(struct sim_client *client, struct rc_link *link)
{
    if (link->wants_close) {
        link->wants_close = false;
        if (link->line != NULL)
            close_client(sim_wire_of(link));
    }
    if (link->wants_open && link->line == NULL) {
        link->wants_open = false;
        open_wire(client, link);
    }
    struct sim_wire *wire = sim_wire_of(link);
    if (wire != NULL && wire->is_open && rc_buf_len(&link->output) > 0) {
        size_t len = rc_buf_len(&link->output);
        put(&wire->to_server, rc_buf_head(&link->output), len);
        rc_link_sent(link, len);
    }
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void lose_bytes(struct sim_pipe *pipe)
{
    rc_buf_clear(&pipe->bytes);
    rc_buf_clear(&pipe->chunks);
    sim_world_forget(pipe->wire->world, &pipe->timer);
}

static void delay_chunks(struct sim_pipe *pipe, int64_t by_us)
{
    char *at = pipe->chunks.bytes + pipe->chunks.start;
    for (size_t left = rc_buf_len(&pipe->chunks); left > 0; left -= sizeof(struct sim_chunk)) {
        ((struct sim_chunk *)(void *)at)->at_us += by_us;
        at += sizeof(struct sim_chunk);
    }
    pipe->last_us += by_us;
    set_timer(pipe);
}

void sim_wire_swallow(struct sim_pipe *pipe)
{
    lose_bytes(pipe);
    pipe->swallows = true;
}

void sim_wire_cut(struct sim_wire *wire, enum sim_cut cut)
{
    struct sim_dice *dice = &wire->world->dice;
    if (!wire->is_open && wire->peer == NULL)
        return;
    if (cut == SIM_CUT_HALF) {
        int which = (int)sim_dice_between(dice, 1, 3);
        struct sim_pipe *pipes[] = {&wire->to_server, &wire->to_client};
        for (int i = 0; i < 2; i++)
            if (which & 1 << i)
                sim_wire_swallow(pipes[i]);
        return;
    }
    if (cut == SIM_CUT_LATE) {
        delay_chunks(&wire->to_server, sim_dice_spread(dice, 1000, LATE_MAX_US));
        lose_bytes(&wire->to_client);
        end_pipe(&wire->to_client);
        end_pipe(&wire->to_server);
        return;
    }
    if (cut == SIM_CUT_RESET) {
        lose_bytes(&wire->to_server);
        lose_bytes(&wire->to_client);
        wire->to_server.ends = true;
    }
    disconnect(wire);
    wire->to_client.swallows = false;
    end_pipe(&wire->to_client);
    free_if_unused(wire);
}

void sim_wire_orphan(struct sim_wire *wire, bool tells)
{
    detach_client(wire);
    if (!tells) {
        sim_wire_swallow(&wire->to_server);
    } else if (wire->peer != NULL) {
        end_pipe(&wire->to_server);
    }
    free_if_unused(wire);
}

void sim_wire_lose_node(struct sim_node *node)
{
    RC_LIST_EACH(at_node, following, &node->wires) {
        struct sim_wire *wire = RC_CONTAINER(at_node, struct sim_wire, at_node);
        disconnect(wire);
        sim_wire_swallow(&wire->to_server);
        rc_list_remove(&wire->at_node);
        free_if_unused(wire);
    }
}

void sim_wire_free_all(struct sim_world *world)
{
    RC_LIST_EACH(place, following, &world->wires) {
        struct sim_wire *wire = RC_CONTAINER(place, struct sim_wire, place);
        detach_client(wire);
        disconnect(wire);
        free_wire(wire);
    }
}
