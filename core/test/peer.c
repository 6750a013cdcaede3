#include "test/peer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "engine/lease_request.h"
#include "test/peer_own.h"

enum { ROUNDS_MAX = 20000 };

/* ---- connections ----------------------------------------------------------------------------- */

static void shut(struct peer_server *server, struct peer_conn *conn, bool executes)
{
    if (executes && !conn->mute) {
        while (peer_execute_next(server, conn)) {
        }
    }
    conn->is_open = conn->tracks = false;
    rc_buf_clear(&conn->input);
    rc_buf_clear(&conn->output);
    rc_buf_clear(&conn->later);
    for (int i = 0; i < server->key_count; i++)
        server->keys[i].trackers &= ~(1u << (conn - server->conns));
}

static struct peer_server *server_of(struct peer_conn *conn)
{
    struct rc_engine *engine = conn->link->node->news.owner;
    return RC_CONTAINER(engine, struct peer_client, engine)->server;
}

void peer_cut(struct peer_conn *conn, bool executes)
{
    if (!conn->is_open)
        return;
    shut(server_of(conn), conn, executes);
    rc_link_lost(conn->link, "the server closed the connection");
}

void peer_say(struct peer_conn *conn, const char *bytes, size_t len)
{
    peer_must(rc_buf_append(&conn->output, bytes, len));
}

static void deliver(struct peer_server *server, struct peer_conn *conn)
{
    struct rc_buf taken;
    rc_buf_init(&taken);
    rc_buf_swap(&taken, &conn->output);
    while (rc_buf_len(&taken) > 0 && conn->is_open && !conn->link->wants_close) {
        size_t len = rc_buf_len(&taken);
        if (server->chunk > 0 && len > server->chunk)
            len = server->chunk;
        rc_link_feed(conn->link, rc_buf_head(&taken), len);
        rc_buf_consume(&taken, len);
    }
    rc_buf_deinit(&taken);
}

static bool move(struct peer_server *server, struct peer_conn *conn)
{
    struct rc_link *link = conn->link;
    bool moved = link->wants_close || (link->wants_open && !server->silent);
    if (link->wants_close) {
        link->wants_close = false;
        shut(server, conn, true);
    }
    if (link->wants_open && !server->silent) {
        link->wants_open = false;
        conn->is_open = !server->refuses;
        conn->run = server->run;
        if (conn->is_open)
            rc_link_opened(link);
        else
            rc_link_lost(link, "Connection refused");
    }
    if (!conn->is_open)
        return moved;
    size_t len = rc_buf_len(&link->output);
    if (len > 0 && !conn->clogged) {
        peer_must(rc_buf_append(&conn->input, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    while (!conn->mute && peer_execute_next(server, conn))
        moved = true;
    if (!conn->deaf && rc_buf_len(&conn->output) > 0) {
        deliver(server, conn);
        moved = true;
    }
    return moved;
}

/* Those that have come since the last time. */
static void hang_on_links(struct peer_client *client)
{
    RC_TOPOLOGY_EACH(link, &client->engine.topology) {
        int i = 0;
        while (i < PEER_LINKS && client->conns[i]->link != link)
            i++;
        if (i < PEER_LINKS)
            continue;
        for (i = RC_NODE_LINKS; client->conns[i]->link != NULL; i++)
            assert(i + 1 < PEER_LINKS);
        client->conns[i]->link = link;
    }
}

static bool run_client(struct peer_client *client)
{
    struct rc_engine *engine = &client->engine;
    int64_t now_us = client->server->now_us;
    rc_engine_set_time(engine, now_us);
    bool moved = rc_engine_deadline(engine) <= now_us;
    struct rc_op *op;
    rc_engine_run(engine);
    while ((op = rc_engine_take_finished(engine)) != NULL) {
        RC_CONTAINER(op, struct peer_op, op)->finished++;
        moved = true;
    }
    hang_on_links(client);
    for (int i = 0; i < PEER_LINKS; i++) {
        struct peer_conn *conn = client->conns[i];
        if (conn->link == NULL)
            continue;
        moved |= move(client->server, conn);
        if (conn->link->is_leaving && !conn->link->wants_close) {
            struct rc_link *link = conn->link;
            conn->link = NULL;
            rc_topology_release(&engine->topology, link);
            moved = true;
        }
    }
    return moved;
}

void peer_run(struct peer_server *server)
{
    bool moved = true;
    for (int i = 0; moved; i++) {
        if (i == ROUNDS_MAX) {
            server->went_round = true;
            return;
        }
        moved = false;
        for (int c = 0; c < server->client_count; c++)
            moved |= run_client(server->clients[c]);
    }
}

void peer_sleep(struct peer_server *server, int64_t ms)
{
    int64_t until_us = server->now_us + ms * 1000;
    peer_run(server);
    for (;;) {
        int64_t next_us = until_us;
        for (int c = 0; c < server->client_count; c++) {
            int64_t deadline_us = rc_engine_deadline(&server->clients[c]->engine);
            next_us = deadline_us < next_us ? deadline_us : next_us;
        }
        if (next_us > server->now_us)
            server->now_us = next_us;
        else if (next_us < until_us) /* a timer that is due and was not run */
            server->went_round = true;
        peer_run(server);
        if (server->now_us >= until_us || server->went_round)
            break;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void peer_init(struct peer_server *server)
{
    memset(server, 0, sizeof *server);
    rc_scripts_init();
    server->now_us = INT64_C(1000) * 1000 * 1000;
    server->run = server->history = 1;
}

void peer_deinit(struct peer_server *server)
{
    for (int i = 0; i < server->key_count; i++) {
        rc_buf_deinit(&server->keys[i].name);
        rc_buf_deinit(&server->keys[i].value);
    }
    for (int i = 0; i < PEER_CONNS; i++) {
        rc_buf_deinit(&server->conns[i].input);
        rc_buf_deinit(&server->conns[i].output);
        rc_buf_deinit(&server->conns[i].later);
    }
}

rc_options peer_options(void)
{
    return (rc_options){.connect_timeout_ms = 1000,
                        .command_timeout_ms = 500,
                        .max_value_bytes = 1 << 20,
                        .max_key_bytes = 65536,
                        .max_queue = 1000,
                        .max_lent = 3,
                        .degraded_ttl_ms = 1000};
}

static void link_up(struct peer_client *client)
{
    struct peer_server *server = client->server;
    int place = 0;
    while (server->clients[place] != client)
        place++;
    for (int i = 0; i < PEER_LINKS; i++) {
        client->conns[i] = &server->conns[place * PEER_LINKS + i];
        client->conns[i]->link = NULL;
    }
    for (int i = 0; i < RC_NODE_LINKS; i++)
        client->conns[i]->link = &client->engine.topology.node.links[i];
}

void peer_open(struct peer_client *client, struct peer_server *server, const rc_options *options)
{
    peer_open_near(client, server, options, NULL);
}

void peer_open_near(struct peer_client *client, struct peer_server *server,
                    const rc_options *options, struct rc_near *near)
{
    rc_options defaults = peer_options();
    struct rc_address address;
    struct rc_seed seed = {{0x1234567, 0x89abcdef ^ (uint64_t)server->client_count}};
    const char *why, url[] = "redis://127.0.0.1:6379";
    peer_must(rc_address_parse(&address, url, strlen(url), &why));
    assert(server->client_count < PEER_CLIENTS);
    client->server = server;
    peer_must(rc_engine_init(&client->engine, options != NULL ? options : &defaults, &address, near,
                             &seed, server->now_us));
    server->clients[server->client_count++] = client;
    link_up(client);
}

void peer_use(struct peer_client *client, const char *url)
{
    const char *why;
    peer_must(rc_address_parse(&client->engine.topology.node.address, url, strlen(url), &why));
}

void peer_close(struct peer_client *client)
{
    struct peer_server *server = client->server;
    rc_engine_set_time(&client->engine, server->now_us);
    rc_engine_close(&client->engine);
    peer_run(server);
    rc_engine_end(&client->engine);
    peer_run(server);
    rc_engine_deinit(&client->engine);
    /* Only the last place may get free: the last opened is closed first. */
    assert(server->clients[server->client_count - 1] == client);
    server->client_count--;
    for (int i = 0; i < PEER_LINKS; i++) {
        shut(server, client->conns[i], false);
        client->conns[i]->mute = client->conns[i]->deaf = client->conns[i]->clogged = false;
        client->conns[i]->link = NULL;
    }
}

/* ---- ops ------------------------------------------------------------------------------------- */

void peer_op_init(struct peer_op *op)
{
    peer_must(rc_op_init(&op->op));
    op->finished = 0;
}

void peer_op_deinit(struct peer_op *op)
{
    rc_op_deinit(&op->op);
}

bool peer_take_down(struct peer_client *client, struct peer_op *ops, int count)
{
    struct peer_server *server = client->server;
    peer_close(client);
    for (int i = 0; i < count; i++)
        peer_op_deinit(&ops[i]);
    peer_deinit(server);
    return !server->went_round;
}

static struct rc_op *begin(struct peer_op *op, enum rc_op_kind kind)
{
    if (op->op.run.is_running) /* no memory: it waits for another connection */
        exit(1);
    rc_op_reset(&op->op, kind);
    op->finished = 0;
    return &op->op;
}

static void submit(struct peer_client *client, struct peer_op *op)
{
    rc_engine_set_time(&client->engine, client->server->now_us);
    rc_engine_submit(&client->engine, &op->op);
}

static void keep_key(struct rc_op *op, const char *key)
{
    rc_buf_clear(&op->ask.key);
    peer_must(rc_buf_append(&op->ask.key, key, strlen(key)));
}

void peer_get(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags)
{
    struct rc_op *op = begin(peer_op, RC_OP_GET);
    keep_key(op, key);
    op->ask.expect = flags & RC_WANT_TTL ? 2 : 1;
    submit(client, peer_op);
}

void peer_read(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags)
{
    peer_read_for(client, peer_op, key, flags, 0);
}

void peer_read_for(struct peer_client *client, struct peer_op *peer_op, const char *key,
                   uint32_t flags, int64_t near_ttl_us)
{
    struct rc_op *op = begin(peer_op, RC_OP_GET);
    keep_key(op, key);
    op->ask.expect = 2;
    op->ask.near = true;
    op->ask.near_group = 0;
    op->ask.near_ttl_us = near_ttl_us;
    op->ask.flags = flags;
    submit(client, peer_op);
}

void peer_barrier(struct peer_client *client, struct peer_op *peer_op)
{
    begin(peer_op, RC_OP_BARRIER);
    submit(client, peer_op);
}

void peer_set(struct peer_client *client, struct peer_op *peer_op, const char *key,
              const char *value, int64_t ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_SET);
    op->ask.is_plain = true;
    keep_key(op, key);
    peer_must(rc_command_head(&op->ask.request, ttl_ms < 0 ? 3 : 5));
    peer_must(rc_command_text(&op->ask.request, "SET"));
    peer_must(rc_command_text(&op->ask.request, key));
    peer_must(rc_command_text(&op->ask.request, value));
    if (ttl_ms >= 0) {
        peer_must(rc_command_text(&op->ask.request, "PX"));
        peer_must(rc_command_int(&op->ask.request, ttl_ms));
    }
    op->ask.expect = 1;
    submit(client, peer_op);
}

void peer_delete(struct peer_client *client, struct peer_op *peer_op, const char *key)
{
    struct rc_op *op = begin(peer_op, RC_OP_DELETE);
    keep_key(op, key);
    peer_must(rc_command_head(&op->ask.request, 2));
    peer_must(rc_command_text(&op->ask.request, "UNLINK"));
    peer_must(rc_command_text(&op->ask.request, key));
    op->ask.expect = 1;
    submit(client, peer_op);
}

void peer_load(struct peer_client *client, struct peer_op *peer_op, const char *key, uint32_t flags,
               int32_t lease_ttl_ms, int32_t max_load_ms, int32_t wait_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOAD);
    op->ask.load = (rc_load_options){flags, lease_ttl_ms, max_load_ms, wait_ms, "nonc"};
    op->ask.purpose = flags & RC_PUT ? RC_FLIGHT_PUT : RC_FLIGHT_LOAD;
    rc_buf_clear(&op->ask.key);
    peer_must(rc_buf_append(&op->ask.key, key, strlen(key)));
    op->ask.expect = flags & RC_WANT_TTL ? 2 : 1;
    submit(client, peer_op);
}

void peer_publish(struct peer_client *client, struct peer_op *peer_op, const char *value,
                  int64_t ttl_ms, uint32_t stale_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_PUBLISH);
    char header[RC_ENTRY_SIZE];
    rc_entry entry = {.kind = RC_KIND_VALUE, .stale_ms = stale_ms};
    rc_entry_write(header, &entry, op->run.nonce);
    peer_must(rc_lease_encode_end(op, header, sizeof header, value, strlen(value), ttl_ms));
    submit(client, peer_op);
}

void peer_fail(struct peer_client *client, struct peer_op *peer_op, const char *why,
               int32_t error_ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_FAIL);
    char header[RC_ENTRY_SIZE];
    rc_entry_write_kind(header, RC_KIND_ERROR, error_ttl_ms > 0 ? RC_ENTRY_STICKY : 0,
                        op->run.token);
    peer_must(rc_lease_encode_end(op, header, sizeof header, why, strlen(why),
                                  error_ttl_ms > 0 ? error_ttl_ms : 1000));
    submit(client, peer_op);
}

void peer_release(struct peer_client *client, struct peer_op *peer_op)
{
    struct rc_op *op = begin(peer_op, RC_OP_RELEASE);
    peer_must(rc_lease_encode_end(op, NULL, 0, NULL, 0, 0));
    submit(client, peer_op);
}

void peer_acquire(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle,
                  uint32_t flags, int32_t ttl_ms, int32_t wait_ms, int32_t max_hold_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_ACQUIRE);
    op->ask.lock = handle;
    op->ask.lock_options = (rc_lock_options){flags, ttl_ms, wait_ms, max_hold_ms};
    submit(client, peer_op);
}

void peer_unlock(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_RELEASE);
    op->ask.lock = handle;
    submit(client, peer_op);
}

void peer_extend(struct peer_client *client, struct peer_op *peer_op, struct rc_lock *handle,
                 int32_t ttl_ms)
{
    struct rc_op *op = begin(peer_op, RC_OP_LOCK_EXTEND);
    op->ask.lock = handle;
    op->ask.ttl_ms = ttl_ms;
    submit(client, peer_op);
}

bool peer_ended(const struct peer_op *op, int status, int outcome)
{
    return op->finished == 1 && op->op.result.status == status && op->op.result.outcome == outcome;
}

bool peer_says(const struct peer_op *op, const char *data)
{
    const rc_result *result = &op->op.result;
    return result->len == strlen(data) &&
           (result->len == 0 || memcmp(result->data, data, result->len) == 0);
}

bool peer_holds(const struct peer_server *server, struct rc_lock *handle)
{
    return atomic_load(&handle->state) == RC_LOCK_HELD &&
           atomic_load(&handle->trusted_until_us) > server->now_us;
}

void peer_borrow(struct peer_client *client, struct peer_op *peer_op, struct rc_lent *lent)
{
    struct rc_op *op = begin(peer_op, RC_OP_BORROW);
    rc_buf_clear(&op->ask.key);
    op->ask.lent = lent;
    submit(client, peer_op);
}

void peer_call(struct peer_client *client, struct peer_op *peer_op, struct rc_lent *lent,
               const char *name)
{
    struct rc_op *op = begin(peer_op, RC_OP_LENT);
    op->ask.lent = lent;
    op->ask.expect = 1;
    peer_must(rc_command_head(&op->ask.request, 2));
    peer_must(rc_command_text(&op->ask.request, name));
    peer_must(rc_command_text(&op->ask.request, "key"));
    submit(client, peer_op);
}
