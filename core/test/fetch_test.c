#include "engine/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "near/near.h"
#include "test/peer.h"
#include "test/test.h"

enum { OPS = 6, STALE_US = 1000000 };

static struct peer_server server;
static struct peer_client client, other;
static struct peer_op ops[OPS];
static struct rc_near *near;
static char buffer[1024];
static rc_near_value found;

static void set_up(void)
{
    struct rc_near_options options = {.bytes = 1 << 20, .server = 1};
    const char *why = NULL;
    peer_init(&server);
    server.now_us = rc_near_now_us();
    if (!CHECK(rc_near_open(&near, &options, &why) == 0))
        exit(1);
    peer_open_near(&client, &server, NULL, near);
    peer_open_near(&other, &server, NULL, near);
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void take_down(void)
{
    peer_close(&other);
    peer_close(&client);
    CHECK(!server.went_round);
    rc_near_close(near);
    for (int i = 0; i < OPS; i++)
        peer_op_deinit(&ops[i]);
    peer_deinit(&server);
}

static int look(const char *key)
{
    found.buffer = buffer;
    found.capacity = sizeof buffer;
    return rc_near_lookup(near, "", 0, key, strlen(key), STALE_US, &found);
}

static bool is_near(const char *key, const char *value)
{
    return look(key) == RC_NEAR_HIT && found.len == strlen(value) &&
           memcmp(found.data, value, found.len) == 0;
}

static uint64_t dooms(void)
{
    rc_near_stats stats;
    rc_near_read_stats(near, &stats);
    return stats.dooms;
}

static void put(const char *key, const char *value, int64_t ttl_ms)
{
    peer_put(&server, key, value, strlen(value), ttl_ms);
    peer_run(&server);
}

/* Reads a key once, so that it is near. */
static void warm(const char *key)
{
    peer_read(&client, &ops[0], key, 0);
    peer_run(&server);
    CHECK(ops[0].finished == 1 && ops[0].op.result.status == 0);
}

static struct peer_conn *tracked(struct peer_client *one)
{
    return one->conns[RC_LINK_T];
}

static void keeps_what_it_reads_until_it_changes(void)
{
    set_up();
    put("key", "one", 60000);
    CHECK(look("key") == RC_NEAR_MISS);
    warm("key");
    CHECK(peer_ended(&ops[0], 0, RC_HIT) && peer_says(&ops[0], "one"));
    CHECK(is_near("key", "one"));
    put("key", "two", 60000);
    CHECK(look("key") == RC_NEAR_MISS);
    take_down();
}

static void keeps_neither_absent_keys_nor_leases(void)
{
    set_up();
    warm("none");
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    peer_load(&client, &ops[1], "loading", 0, 1000, 9000, 9000);
    peer_run(&server);
    warm("loading");
    CHECK(look("none") == RC_NEAR_MISS && look("loading") == RC_NEAR_MISS);
    peer_release(&client, &ops[1]);
    peer_run(&server);
    take_down();
}

static void reads_a_key_once_for_all_who_ask_meanwhile(void)
{
    set_up();
    put("key", "one", -1);
    for (int i = 0; i < 4; i++)
        peer_read(&client, &ops[i], "key", 0);
    peer_run(&server);
    for (int i = 0; i < 4; i++)
        CHECK(peer_ended(&ops[i], 0, RC_HIT) && peer_says(&ops[i], "one"));
    CHECK(server.gets == 1);
    peer_read(&client, &ops[0], "key", RC_FRESH);
    peer_read(&client, &ops[1], "key", RC_FRESH);
    peer_run(&server);
    CHECK(server.gets == 3); /* each its own */
    take_down();
}

/* Its answer may have been under way for as long as this process, or the line, stood still. */
static void nobody_joins_a_read_that_was_sent_long_ago(void)
{
    set_up();
    put("key", "one", -1);
    warm("connected");
    int gets = (int)server.gets;
    tracked(&client)->deaf = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_sleep(&server, 4);
    peer_read(&client, &ops[1], "key", 0);
    peer_run(&server);
    CHECK((int)server.gets == gets + 1);
    put("key", "two", -1);
    peer_sleep(&server, 4);
    peer_read(&client, &ops[2], "key", 0);
    peer_run(&server);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_says(&ops[0], "one") && peer_says(&ops[1], "one") && peer_says(&ops[2], "two"));
    CHECK((int)server.gets == gets + 2);
    take_down();
}

static void goes_on_for_the_others_when_one_leaves(void)
{
    set_up();
    put("key", "one", -1);
    tracked(&client)->mute = true;
    ops[0].op.ask.tag = 7;
    peer_read(&client, &ops[0], "key", 0);
    peer_read(&client, &ops[1], "key", 0);
    peer_run(&server);
    CHECK(rc_engine_cancel(&client.engine, 7) == 1);
    ops[0].op.ask.tag = 0;
    tracked(&client)->mute = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_HIT) && peer_says(&ops[1], "one"));
    CHECK(server.gets == 1 && is_near("key", "one"));
    take_down();
}

/* Its slot has another key then; the others' read is joined, sent again, and kept by theirs. */
static void needs_no_key_of_one_who_has_left(void)
{
    set_up();
    put("key", "one", -1);
    put("other", "two", -1);
    warm("connected");
    tracked(&client)->mute = true;
    ops[0].op.ask.tag = 7;
    peer_read(&client, &ops[0], "key", 0);
    peer_read(&client, &ops[1], "key", 0);
    peer_run(&server);
    CHECK(rc_engine_cancel(&client.engine, 7) == 1);
    ops[0].op.ask.tag = 0;
    peer_run(&server);
    peer_read(&client, &ops[0], "other", 0);
    peer_read(&client, &ops[2], "key", 0);
    peer_run(&server);
    CHECK(ops[2].op.run.fetch == ops[1].op.run.fetch);
    peer_cut(tracked(&client), false);
    tracked(&client)->mute = false;
    peer_sleep(&server, 600);
    CHECK(peer_says(&ops[0], "two") && peer_says(&ops[1], "one") && peer_says(&ops[2], "one"));
    CHECK(is_near("key", "one") && is_near("other", "two"));
    take_down();
}

/* As the server would answer GET and PTTL of a key, with a push between them. */
static void a_push_between_the_answers_dooms_them(void)
{
    static const char answers[] = "$3\r\none\r\n"
                                  ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n"
                                  ":60000\r\n";
    set_up();
    warm("connected");
    tracked(&client)->mute = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_say(tracked(&client), answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_HIT) && peer_says(&ops[0], "one"));
    CHECK(look("key") == RC_NEAR_MISS && dooms() == 1);
    rc_buf_clear(&tracked(&client)->input);
    take_down();
}

static void a_push_in_front_of_the_answers_does_no_harm(void)
{
    static const char answers[] = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n"
                                  "$3\r\none\r\n:60000\r\n";
    set_up();
    warm("connected");
    tracked(&client)->mute = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_say(tracked(&client), answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_HIT) && is_near("key", "one") && dooms() == 0);
    rc_buf_clear(&tracked(&client)->input);
    take_down();
}

static void an_own_write_dooms_a_read_that_is_under_way(void)
{
    set_up();
    put("key", "one", -1);
    warm("connected");
    tracked(&client)->deaf = true; /* the answer is written, and does not arrive yet */
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_set(&client, &ops[1], "key", "two", -1);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE));
    /* Who asks now must see it: joins no read that is older. */
    peer_read(&client, &ops[2], "key", 0);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_says(&ops[0], "one") && peer_says(&ops[2], "two"));
    CHECK(dooms() == 2 && look("key") == RC_NEAR_MISS); /* behind "one" nothing is kept */
    warm("key");
    CHECK(is_near("key", "two"));
    take_down();
}

static void a_write_of_another_engine_on_the_machine_dooms_it_too(void)
{
    set_up();
    put("key", "one", -1);
    warm("connected");
    tracked(&client)->deaf = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_set(&other, &ops[1], "key", "two", -1);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE));
    rc_buf_clear(&tracked(&client)->later);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_says(&ops[0], "one") && look("key") == RC_NEAR_MISS && dooms() == 1);
    take_down();
}

static void an_own_write_is_gone_from_the_start_and_at_its_end(void)
{
    set_up();
    put("key", "one", -1);
    warm("key");
    CHECK(is_near("key", "one"));
    client.conns[RC_LINK_W]->mute = true;
    peer_delete(&client, &ops[1], "key");
    CHECK(look("key") == RC_NEAR_MISS);
    warm("key"); /* it is still there */
    CHECK(is_near("key", "one"));
    tracked(&client)->deaf = true; /* so that the push does not do the work */
    client.conns[RC_LINK_W]->mute = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE) && look("key") == RC_NEAR_MISS);
    tracked(&client)->deaf = false;
    peer_run(&server);
    take_down();
}

/* "one", of that version. */
static void put_entry(const char *key, const char nonce[RC_NONCE_SIZE])
{
    char entry[RC_ENTRY_SIZE + 3];
    rc_entry header = {.kind = RC_KIND_VALUE};
    rc_entry_write(entry, &header, nonce);
    memcpy(entry + RC_ENTRY_SIZE, "one", 3);
    peer_put(&server, key, entry, sizeof entry, 60000);
}

/* "one" behind as many bytes of a block, with a minute to live, half of it in its grace window. */
static void put_flagged(const char *key, uint8_t flags)
{
    enum { BLOCK = 16 };
    char entry[RC_ENTRY_SIZE + BLOCK + 3] = {0};
    rc_entry header = {.kind = RC_KIND_VALUE, .entry_flags = flags, .stale_ms = 30000};
    rc_entry_write(entry, &header, "nonce-1.");
    memcpy(entry + RC_ENTRY_SIZE + BLOCK, "one", 3);
    peer_put(&server, key, entry, sizeof entry, 60000);
}

static void put_told(const char *key)
{
    put_flagged(key, RC_ENTRY_EXTRA);
}

/* Seconds that the copy will stay, about. */
static int64_t stays_s(const char *key)
{
    if (!CHECK(look(key) == RC_NEAR_HIT))
        return -1;
    return (found.handle.deadline_us - rc_near_now_us() + 500000) / 1000000;
}

static void tells_a_copy_that_ends_before_its_time_from_one_that_tells_its_end(void)
{
    enum { SECOND_US = 1000000 };
    set_up();
    put_told("key");
    warm("key");
    CHECK(stays_s("key") == 60 && found.entry_flags == RC_ENTRY_EXTRA && found.len == 19);
    /* the view's ttl is the shorter one */
    put_told("key");
    peer_read_for(&client, &ops[0], "key", 0, 10 * SECOND_US);
    peer_run(&server);
    CHECK(stays_s("key") == 10);
    CHECK(found.entry_flags == (RC_ENTRY_EXTRA | RC_ENTRY_CAPPED));
    /* between the soft expiry and the end: not past the soft one, for nobody could tell */
    put_told("key");
    peer_read_for(&client, &ops[1], "key", 0, 45 * SECOND_US);
    peer_run(&server);
    CHECK(stays_s("key") == 30 && (found.entry_flags & RC_ENTRY_CAPPED));
    /* the longer one changes nothing */
    put_told("key");
    peer_read_for(&client, &ops[2], "key", 0, 90 * SECOND_US);
    peer_run(&server);
    CHECK(stays_s("key") == 60 && found.entry_flags == RC_ENTRY_EXTRA);
    /* only a copy can be one that ends before its time: in Redis nothing of ours has that flag */
    put_flagged("key", RC_ENTRY_EXTRA | RC_ENTRY_CAPPED);
    peer_read_for(&client, &ops[3], "key", 0, 90 * SECOND_US);
    peer_run(&server);
    CHECK(look("key") == RC_NEAR_MISS);
    take_down();
}

static void serves_nothing_of_a_lost_connection_until_it_is_confirmed(void)
{
    set_up();
    put_entry("kept", "nonce-1.");
    put_entry("changed", "nonce-1.");
    put("plain", "one", 60000);
    warm("kept");
    warm("changed");
    warm("plain");
    CHECK(is_near("kept", "one") && is_near("plain", "one"));
    server.refuses = true;
    peer_cut(tracked(&client), true);
    CHECK(look("kept") == RC_NEAR_STALE && look("plain") == RC_NEAR_STALE);
    put_entry("changed", "nonce-2.");
    server.refuses = false;
    unsigned gets = server.gets;
    peer_sleep(&server, 100);
    CHECK(is_near("kept", "one"));
    CHECK(look("changed") == RC_NEAR_MISS && look("plain") == RC_NEAR_MISS);
    CHECK(server.gets == gets && server.ranges == 2);
    put("kept", "two", -1); /* it is tracked again */
    CHECK(look("kept") == RC_NEAR_MISS);
    take_down();
}

/* Nobody knows how far it is behind. */
static void keeps_nothing_of_a_replica(void)
{
    rc_health health;
    set_up();
    put("key", "one", -1);
    warm("key");
    CHECK(is_near("key", "one"));
    server.is_replica = true;
    peer_sleep(&server, 300); /* the heartbeat, and another connection */
    CHECK(look("key") != RC_NEAR_HIT);
    for (int i = 0; i < 4; i++) {
        warm("key");
        CHECK(peer_says(&ops[0], "one") && look("key") != RC_NEAR_HIT);
        peer_sleep(&server, 250);
    }
    rc_engine_get_health(&client.engine, &health);
    CHECK(!health.ready && !health.tracking && strstr(health.cause, "replica") != NULL);
    server.is_replica = false;
    peer_sleep(&server, 300);
    warm("key");
    CHECK(is_near("key", "one"));
    rc_engine_get_health(&client.engine, &health);
    CHECK(health.tracking);
    take_down();
}

static void forgets_everything_at_a_flush(void)
{
    static const char push[] = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
    set_up();
    put("key", "one", -1);
    warm("key");
    CHECK(is_near("key", "one"));
    peer_unlink(&server, "key");
    rc_buf_clear(&tracked(&client)->output);
    peer_say(tracked(&client), push, sizeof push - 1);
    peer_run(&server);
    CHECK(look("key") == RC_NEAR_MISS);
    take_down();
}

static void asks_for_a_sign_of_life_only_while_somebody_reads(void)
{
    set_up();
    put("key", "one", -1);
    warm("key");
    unsigned commands = server.commands;
    int64_t start_us = rc_near_asof(client.engine.topology.node.owner);
    CHECK(is_near("key", "one"));
    peer_sleep(&server, 600);
    CHECK(rc_near_asof(client.engine.topology.node.owner) - start_us >= 250000); /* by PING, */
    CHECK(server.commands == commands); /* which does not count */
    peer_sleep(&server, 10000);
    int64_t quiet_us = server.now_us - rc_near_asof(client.engine.topology.node.owner);
    CHECK(quiet_us > 5000000 && !client.engine.topology.node.horizon.is_watching);
    take_down();
}

/* Else it would stop before the answer is there, whose copy nobody would then keep coherent. */
static void watches_until_the_answer_is_there(void)
{
    const struct rc_horizon *horizon = &client.engine.topology.node.horizon;
    set_up();
    put("key", "one", -1);
    warm("connected");
    peer_sleep(&server, 10000);
    CHECK(!horizon->is_watching);
    tracked(&client)->deaf = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_sleep(&server, 300);
    CHECK(horizon->is_watching);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_HIT) && horizon->is_watching);
    peer_sleep(&server, 10000);
    CHECK(!horizon->is_watching);
    /* Of one that never comes, no longer than readers could be served. */
    tracked(&client)->deaf = true;
    peer_read(&client, &ops[0], "key", 0);
    peer_run(&server);
    peer_sleep(&server, 1600);
    CHECK(!horizon->is_watching);
    tracked(&client)->deaf = false;
    peer_run(&server);
    take_down();
}

/* Of one that goes on watching, as in nginx. */
static void the_first_read_after_a_pause_goes_behind_a_sign_of_life(void)
{
    set_up();
    put("key", "one", -1);
    rc_engine_warm(&client.engine);
    warm("key");
    peer_sleep(&server, 5000);
    unsigned questions = server.questions;
    peer_sleep(&server, 1000);
    CHECK(server.questions == questions); /* nobody reads */
    peer_read(&client, &ops[0], "key", RC_FRESH);
    peer_run(&server);
    CHECK(server.questions == questions + 1);
    CHECK(rc_near_asof(client.engine.topology.node.owner) == server.now_us);
    peer_read(&client, &ops[0], "key", RC_FRESH);
    peer_run(&server);
    CHECK(server.questions == questions + 1); /* it is known */
    take_down();
}

/* The other engine's copy is older, and its push has not arrived yet: a caller that was handed the
   newer value must not find the older one afterwards. */
static void what_is_read_past_it_takes_older_copies_out(void)
{
    set_up();
    put("get", "one", -1);
    put("load", "one", -1);
    warm("get");
    peer_get(&client, &ops[1], "get", 0); /* both connections are there */
    peer_read(&other, &ops[2], "load", 0);
    peer_run(&server);
    peer_read(&other, &ops[1], "get", 0);
    peer_run(&server);
    server.refuses = true;
    peer_cut(tracked(&client), true);
    CHECK(is_near("get", "one") && is_near("load", "one"));
    tracked(&other)->deaf = true;
    put("get", "two", -1);
    put("load", "two", -1);
    CHECK(is_near("get", "one")); /* within maxStale */
    client.conns[RC_LINK_W]->mute = true;
    peer_read(&client, &ops[0], "get", 0);
    peer_sleep(&server, 600);
    CHECK(ops[0].op.result.status == RC_ERR_TIMEOUT && look("get") != RC_NEAR_MISS);
    client.conns[RC_LINK_W]->mute = false;
    peer_read(&client, &ops[3], "get", 0);
    peer_load(&client, &ops[4], "load", RC_WANT_TTL, 1000, 9000, 9000);
    peer_run(&server);
    CHECK(peer_says(&ops[3], "two") && look("get") == RC_NEAR_MISS);
    CHECK(peer_says(&ops[4], "two"));
    tracked(&other)->deaf = false;
    peer_run(&server);
    take_down();
}

static void gives_a_connection_up_that_does_not_answer(void)
{
    set_up();
    put("key", "one", -1);
    warm("key");
    CHECK(is_near("key", "one"));
    tracked(&client)->mute = true;
    uint64_t epoch = client.engine.topology.node.links[RC_LINK_T].epoch;
    for (int i = 0; i < 30 && client.engine.topology.node.links[RC_LINK_T].epoch == epoch; i++) {
        look("key"); /* somebody reads */
        peer_sleep(&server, 50);
    }
    CHECK(client.engine.topology.node.links[RC_LINK_T].epoch == epoch + 1);
    tracked(&client)->mute = false;
    peer_sleep(&server, 500);
    CHECK(rc_link_is_ready(&client.engine.topology.node.links[RC_LINK_T]));
    take_down();
}

static void a_barrier_tells_when_it_was_set(void)
{
    set_up();
    peer_barrier(&client, &ops[0]);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && ops[0].op.result.number == server.now_us);
    CHECK(rc_near_asof(client.engine.topology.node.owner) == server.now_us);
    take_down();
}

static void goes_to_the_other_connection_where_tracking_is_not_allowed(void)
{
    set_up();
    server.no_tracking = true;
    put("key", "one", -1);
    warm("key");
    CHECK(peer_says(&ops[0], "one") && look("key") == RC_NEAR_MISS);
    warm("key");
    CHECK(peer_says(&ops[0], "one") && look("key") == RC_NEAR_MISS);
    CHECK(rc_link_is_ready(&client.engine.topology.node.links[RC_LINK_W]));
    take_down();
}

static void keeps_the_value_of_an_empty_key(void)
{
    set_up();
    put("", "one", 60000);
    warm("");
    CHECK(peer_says(&ops[0], "one") && is_near("", "one"));
    peer_set(&client, &ops[1], "", "two", -1);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE) && look("") == RC_NEAR_MISS);
    take_down();
}

static void forgets_a_read_that_nobody_waits_for(void)
{
    set_up();
    put("key", "one", -1);
    warm("connected");
    tracked(&client)->deaf = true;
    peer_read(&client, &ops[1], "key", 0);
    peer_run(&server);
    rc_engine_drop(&client.engine, &ops[1].op);
    peer_read(&client, &ops[2], "key", 0); /* finds nothing to join */
    peer_run(&server);
    CHECK(server.gets == 3);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[2], 0, RC_HIT) && ops[1].finished == 0);
    take_down();
}

static void waits_as_long_as_the_most_patient_of_those_who_ask(void)
{
    set_up();
    put("key", "one", -1);
    warm("connected");
    tracked(&client)->deaf = true;
    ops[1].op.ask.timeout_ms = 100;
    ops[2].op.ask.timeout_ms = 300;
    peer_read(&client, &ops[1], "key", 0);
    peer_read(&client, &ops[2], "key", 0);
    peer_sleep(&server, 200);
    CHECK(peer_ended(&ops[1], RC_ERR_TIMEOUT, RC_DONE) && ops[2].finished == 0);
    tracked(&client)->deaf = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[2], 0, RC_HIT) && server.gets == 2);
    take_down();
}

/* The keys that a batch writes are listed beside it. */
static void a_batch_takes_out_what_it_writes(void)
{
    static const char *const keys[] = {"one", "three"};
    struct rc_op *op = &ops[1].op;
    set_up();
    put("one", "1", -1);
    put("two", "2", -1);
    put("three", "3", -1);
    warm("one");
    warm("two");
    warm("three");
    if (op->run.is_running) /* no memory: it waits for another connection */
        exit(1);
    rc_op_reset(op, RC_OP_COMMAND);
    op->ask.expect = 2;
    for (int i = 0; i < 2; i++) {
        uint32_t len = (uint32_t)strlen(keys[i]);
        bool is_written = CHECK(rc_command_head(&op->ask.request, 2) == 0) &&
                          CHECK(rc_command_text(&op->ask.request, "UNLINK") == 0) &&
                          CHECK(rc_command_text(&op->ask.request, keys[i]) == 0) &&
                          CHECK(rc_buf_append(&op->ask.written, &len, sizeof len) == 0) &&
                          CHECK(rc_buf_append(&op->ask.written, keys[i], len) == 0);
        if (!is_written)
            exit(1);
    }
    rc_engine_set_time(&client.engine, server.now_us);
    rc_engine_submit(&client.engine, op);
    CHECK(look("one") == RC_NEAR_MISS && look("three") == RC_NEAR_MISS); /* before it is sent */
    CHECK(is_near("two", "2"));
    peer_run(&server);
    CHECK(ops[1].finished == 1 && op->result.nodes == 2 && is_near("two", "2"));
    take_down();
}

static void a_barrier_needs_a_near_cache(void)
{
    struct peer_client plain;
    set_up();
    peer_barrier(&client, &ops[0]);
    peer_open(&plain, &server, NULL);
    peer_barrier(&plain, &ops[1]);
    peer_run(&server);
    CHECK(ops[0].finished == 1 && ops[0].op.result.status == 0);
    CHECK(peer_ended(&ops[1], RC_ERR_ARGUMENT, RC_DONE));
    peer_close(&plain);
    take_down();
}

/* ---- no place for an owner ------------------------------------------------------------------- */

static bool is_told_off(void)
{
    rc_health health;
    rc_engine_set_time(&client.engine, server.now_us);
    rc_engine_get_health(&client.engine, &health);
    return strstr(health.off, "near: the region has no place") != NULL;
}

/* A region of 16 owners, all of them somebody else's when the client comes. */
static void asks_again_for_an_owner_while_somebody_reads(void)
{
    enum { OWNERS = 16 };
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES, .server = 1};
    struct rc_near_owner *owners[OWNERS];
    struct rc_near *full;
    const char *why = NULL;
    set_up();
    peer_close(&other);
    peer_close(&client);
    if (!CHECK(rc_near_open(&full, &options, &why) == 0))
        exit(1);
    for (int i = 0; i < OWNERS; i++)
        CHECK((owners[i] = rc_near_add_owner(full, NULL)) != NULL);
    struct rc_near *before = near;
    near = full;
    peer_open_near(&client, &server, NULL, near);
    put("key", "one", -1);
    warm("key");
    CHECK(peer_says(&ops[0], "one") && look("key") == RC_NEAR_MISS && is_told_off());
    CHECK(rc_engine_asof_us(&client.engine) == 0);
    rc_near_remove_owner(near, owners[3]);
    warm("key");
    CHECK(look("key") == RC_NEAR_MISS && is_told_off()); /* it has just asked */
    peer_sleep(&server, 1000);
    CHECK(is_told_off()); /* and does not where nobody reads */
    warm("key");
    CHECK(is_near("key", "one") && !is_told_off());
    peer_close(&client);
    for (int i = 0; i < OWNERS; i++) {
        if (i != 3)
            rc_near_remove_owner(near, owners[i]);
    }
    near = before;
    rc_near_close(full);
    peer_open_near(&client, &server, NULL, near);
    peer_open_near(&other, &server, NULL, near);
    take_down();
}

/* A client without a place near still writes what others keep there. */
static void writes_are_seen_near_by_all_without_an_owner(void)
{
    enum { OWNERS = 256 }; /* of a region of 1 MiB */
    struct rc_near_owner *owners[OWNERS];
    int count = 0;
    set_up();
    peer_close(&other);
    while (count < OWNERS && (owners[count] = rc_near_add_owner(near, NULL)) != NULL)
        count++;
    peer_open_near(&other, &server, NULL, near);
    put("key", "one", -1);
    warm("key");
    CHECK(is_near("key", "one") && other.engine.topology.node.near == NULL);
    tracked(&client)->deaf = true; /* the push is late */
    peer_set(&other, &ops[1], "key", "two", -1);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE) && look("key") == RC_NEAR_MISS);
    tracked(&client)->deaf = false;
    while (count-- > 0)
        rc_near_remove_owner(near, owners[count]);
    take_down();
}

/* ---- handing over ---------------------------------------------------------------------------- */

enum { HANDED = 20 };

static const char *key_of(int number)
{
    static char key[16];
    snprintf(key, sizeof key, "key:%d", number);
    return key;
}

/* The first keys are read by `client`, the last five by `other`, and `client` offers its own. */
static void offer_what_is_near(void)
{
    for (int i = 0; i < HANDED; i++) {
        put_entry(key_of(i), "nonce-1.");
        peer_read(i < HANDED - 5 ? &client : &other, &ops[0], key_of(i), 0);
        peer_run(&server);
        CHECK(is_near(key_of(i), "one"));
    }
    rc_engine_set_time(&client.engine, server.now_us);
    CHECK(rc_engine_offer(&client.engine));
}

/* Without those who leave. */
static int count_near(void)
{
    int count = 0;
    rc_near_renew_owner(client.engine.topology.node.owner);
    for (int i = 0; i < HANDED; i++)
        count += is_near(key_of(i), "one");
    return count;
}

/* Seen in nginx: of two workers that leave one has just begun to take what the other offers. */
static void who_leaves_returns_what_it_has_begun_to_take_over(void)
{
    struct peer_client third;
    set_up();
    peer_open_near(&third, &server, NULL, near);
    peer_read(&third, &ops[2], "its own", 0);
    peer_run(&server);
    tracked(&third)->mute = true; /* too busy to take anything */
    peer_read(&third, &ops[2], "its own", RC_FRESH);
    offer_what_is_near();
    tracked(&other)->deaf = true;
    for (int i = 0; i < 50 && other.engine.topology.node.revalidate.source == NULL; i++)
        peer_sleep(&server, 10);
    CHECK(other.engine.topology.node.revalidate.source == client.engine.topology.node.owner);
    rc_engine_set_time(&other.engine, server.now_us);
    CHECK(rc_engine_offer(&other.engine));
    CHECK(other.engine.topology.node.revalidate.source == NULL);
    tracked(&third)->mute = false;
    for (int i = 0; i < 50; i++)
        peer_sleep(&server, 10);
    tracked(&other)->deaf = false; /* the answers to what it asked for come now */
    for (int i = 0; i < 10; i++)
        peer_sleep(&server, 10);
    CHECK(rc_engine_is_offer_ended(&client.engine) && rc_engine_is_offer_ended(&other.engine));
    rc_near_renew_owner(other.engine.topology.node.owner);
    CHECK(count_near() == HANDED);
    peer_close(&third);
    take_down();
}

static void a_lost_connection_returns_what_it_has_begun_to_take_over(void)
{
    set_up();
    offer_what_is_near();
    tracked(&other)->deaf = true;
    for (int i = 0; i < 50 && other.engine.topology.node.revalidate.source == NULL; i++)
        peer_sleep(&server, 10);
    CHECK(other.engine.topology.node.revalidate.source == client.engine.topology.node.owner);
    tracked(&other)->deaf = false;
    peer_cut(tracked(&other), false);
    peer_run(&server);
    CHECK(other.engine.topology.node.revalidate.source == NULL);
    peer_read(&other, &ops[0], "connect", 0);
    for (int i = 0; i < 50; i++)
        peer_sleep(&server, 10);
    CHECK(rc_engine_is_offer_ended(&client.engine) && count_near() == HANDED);
    take_down();
}

int main(void)
{
    TEST(keeps_what_it_reads_until_it_changes);
    TEST(keeps_neither_absent_keys_nor_leases);
    TEST(reads_a_key_once_for_all_who_ask_meanwhile);
    TEST(nobody_joins_a_read_that_was_sent_long_ago);
    TEST(goes_on_for_the_others_when_one_leaves);
    TEST(needs_no_key_of_one_who_has_left);
    TEST(a_push_between_the_answers_dooms_them);
    TEST(a_push_in_front_of_the_answers_does_no_harm);
    TEST(an_own_write_dooms_a_read_that_is_under_way);
    TEST(a_write_of_another_engine_on_the_machine_dooms_it_too);
    TEST(an_own_write_is_gone_from_the_start_and_at_its_end);
    TEST(tells_a_copy_that_ends_before_its_time_from_one_that_tells_its_end);
    TEST(serves_nothing_of_a_lost_connection_until_it_is_confirmed);
    TEST(keeps_nothing_of_a_replica);
    TEST(forgets_everything_at_a_flush);
    TEST(asks_for_a_sign_of_life_only_while_somebody_reads);
    TEST(watches_until_the_answer_is_there);
    TEST(the_first_read_after_a_pause_goes_behind_a_sign_of_life);
    TEST(what_is_read_past_it_takes_older_copies_out);
    TEST(gives_a_connection_up_that_does_not_answer);
    TEST(a_barrier_tells_when_it_was_set);
    TEST(goes_to_the_other_connection_where_tracking_is_not_allowed);
    TEST(keeps_the_value_of_an_empty_key);
    TEST(forgets_a_read_that_nobody_waits_for);
    TEST(waits_as_long_as_the_most_patient_of_those_who_ask);
    TEST(a_batch_takes_out_what_it_writes);
    TEST(a_barrier_needs_a_near_cache);
    TEST(asks_again_for_an_owner_while_somebody_reads);
    TEST(writes_are_seen_near_by_all_without_an_owner);
    TEST(who_leaves_returns_what_it_has_begun_to_take_over);
    TEST(a_lost_connection_returns_what_it_has_begun_to_take_over);
    return test_result();
}
