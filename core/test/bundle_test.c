#include "engine/bundle.h"

#include <stdio.h>
#include <string.h>

#include "engine/script.h"
#include "test/peer.h"
#include "test/test.h"

enum { OPS = 45, TTL_MS = 3000, LOAD_MS = 60000, WAIT_MS = 20000 };

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];

static const char *name_of(int i)
{
    static char name[16];
    snprintf(name, sizeof name, "key-%d", i);
    return name;
}

/* A server that compares nothing by itself, and knows the scripts of one key. */
static void set_up(int count)
{
    peer_init(&server);
    memset(server.known, true, sizeof server.known);
    server.known[RC_SCRIPT_PUBLISH_MANY] = false;
    peer_open(&client, &server, NULL);
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
    for (int i = 0; i < count; i++)
        peer_load(&client, &ops[i], name_of(i), 0, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, ops, OPS));
}

/* Without running them. */
static void publish(int first, int last)
{
    for (int i = first; i <= last; i++)
        peer_publish(&client, &ops[i], name_of(i), i % 3 == 0 ? -1 : 5000 + i, 0);
}

/* What it was given, for as long as it was said. */
static bool is_stored(int i)
{
    const char *name = name_of(i);
    const struct peer_key *key = peer_find(&server, name);
    return peer_ended(&ops[i], 0, RC_STORED) && key != NULL &&
           rc_buf_len(&key->value) == RC_ENTRY_SIZE + strlen(name) &&
           memcmp(rc_buf_head(&key->value) + RC_ENTRY_SIZE, name, strlen(name)) == 0 &&
           peer_pttl(&server, name) == (i % 3 == 0 ? -1 : 5000 + i);
}

static bool are_stored(int first, int last)
{
    bool all = true;
    for (int i = first; i <= last; i++)
        all = all && is_stored(i);
    return all;
}

static unsigned alone(void)
{
    return server.scripts[RC_SCRIPT_PUBLISH];
}

static unsigned together(void)
{
    return server.scripts[RC_SCRIPT_PUBLISH_MANY];
}

static void publishes_behind_each_other_are_one_request(void)
{
    set_up(45);
    publish(0, 44);
    peer_run(&server);
    CHECK(are_stored(0, 44) && alone() == 0);
    CHECK(together() == 4); /* 2 that bring the source, 20, 20, and 3 */
    CHECK(client.engine.context.stats.noscript == 0);
    take_down();
}

static void one_alone_is_its_own_script(void)
{
    set_up(2);
    publish(0, 0);
    peer_run(&server);
    publish(1, 1);
    peer_run(&server);
    CHECK(are_stored(0, 1) && alone() == 2 && together() == 0);
    take_down();
}

static void another_request_stands_between(void)
{
    set_up(4);
    publish(0, 1);
    peer_delete(&client, &ops[4], "other");
    publish(2, 2);
    peer_delete(&client, &ops[5], name_of(2)); /* behind its publish */
    publish(3, 3);
    peer_run(&server);
    CHECK(are_stored(0, 1) && is_stored(3) && peer_find(&server, name_of(2)) == NULL);
    CHECK(peer_ended(&ops[2], 0, RC_STORED) && together() == 1 && alone() == 2);
    take_down();
}

static void each_key_has_its_own_result(void)
{
    char bytes[RC_ENTRY_SIZE + 4];
    rc_entry entry = {.kind = RC_KIND_VALUE};
    set_up(5);
    rc_entry_write(bytes, &entry, "nonce-01");
    memcpy(bytes + RC_ENTRY_SIZE, "them", 4);
    peer_put(&server, name_of(1), bytes, sizeof bytes, 7000);
    peer_unlink(&server, name_of(3));
    publish(0, 4);
    peer_run(&server);
    CHECK(is_stored(0) && is_stored(2) && is_stored(4));
    CHECK(peer_ended(&ops[1], 0, RC_UNSTORED) && peer_says(&ops[1], "them"));
    CHECK(ops[1].op.result.ttl_ms == 7000);
    CHECK(peer_ended(&ops[3], 0, RC_UNSTORED) && peer_find(&server, name_of(3)) == NULL);
    CHECK(client.engine.context.stats.leases_lost == 2);
    CHECK(together() == 2 && alone() == 2); /* for those two */
    take_down();
}

static void a_server_that_has_forgotten_the_script_gets_it_again(void)
{
    set_up(12);
    publish(0, 2);
    peer_run(&server);
    memset(server.known, 0, sizeof server.known);
    publish(3, 5);
    peer_run(&server);
    CHECK(are_stored(0, 5) && together() == 1 && alone() == 1 + 3);
    publish(6, 7);
    peer_run(&server);
    publish(8, 11);
    peer_run(&server);
    CHECK(are_stored(6, 11) && together() == 3);
    take_down();
}

static void a_server_that_refuses_it_is_not_asked_again(void)
{
    set_up(8);
    server.error = "-NOPERM this user has no permissions to access one of the keys";
    server.errors = 1;
    publish(0, 1);
    peer_run(&server);
    CHECK(are_stored(0, 1) && together() == 0 && alone() == 2);
    publish(2, 5);
    peer_run(&server);
    CHECK(are_stored(2, 5) && together() == 0 && alone() == 6);
    peer_cut(client.conns[RC_LINK_W], true);
    peer_sleep(&server, 400);
    publish(6, 7);
    peer_run(&server);
    CHECK(are_stored(6, 7) && together() == 1); /* it may be another server */
    take_down();
}

static void an_error_of_the_moment_is_each_ones_own(void)
{
    set_up(4);
    server.error = "-OOM command not allowed when used memory > 'maxmemory'.";
    server.errors = 2; /* the bundle, and the first alone */
    publish(0, 1);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], RC_ERR_REDIS, RC_DONE) && is_stored(1));
    publish(2, 3);
    peer_run(&server);
    CHECK(are_stored(2, 3) && together() == 1);
    take_down();
}

static void what_was_lost_with_the_connection_is_done_once(void)
{
    for (int executes = 0; executes < 2; executes++) {
        set_up(3);
        client.conns[RC_LINK_W]->deaf = executes;
        client.conns[RC_LINK_W]->mute = !executes;
        publish(0, 2);
        peer_run(&server);
        CHECK(ops[0].finished == 0 && peer_has_lease(&server, name_of(0)) == !executes);
        client.conns[RC_LINK_W]->deaf = client.conns[RC_LINK_W]->mute = false;
        peer_cut(client.conns[RC_LINK_W], executes);
        peer_sleep(&server, 100);
        for (int i = 0; i < 3; i++)
            CHECK(peer_ended(&ops[i], 0, RC_STORED) && peer_find(&server, name_of(i)) != NULL);
        take_down();
    }
}

/* Each in its own time, and the answer for all finds its way past those that have gone. */
static void callers_give_up_one_by_one(void)
{
    set_up(4);
    client.conns[RC_LINK_W]->mute = true;
    for (int i = 0; i < 4; i++) {
        ops[i].op.ask.timeout_ms = i % 2 == 0 ? 100 : 400;
        publish(i, i);
    }
    peer_sleep(&server, 200);
    CHECK(peer_ended(&ops[0], RC_ERR_TIMEOUT, RC_DONE) && ops[1].finished == 0);
    CHECK(peer_ended(&ops[2], RC_ERR_TIMEOUT, RC_DONE) && ops[3].finished == 0);
    client.conns[RC_LINK_W]->mute = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_STORED) && peer_ended(&ops[3], 0, RC_STORED));
    take_down();
}

static void what_is_under_way_does_not_grow(void)
{
    set_up(5);
    client.conns[RC_LINK_W]->mute = true;
    publish(0, 2);
    peer_run(&server); /* the bytes are on their way */
    publish(3, 4);
    client.conns[RC_LINK_W]->mute = false;
    peer_run(&server);
    CHECK(are_stored(0, 4) && together() == 2 && alone() == 1);
    take_down();
}

static void large_values_go_alone(void)
{
    char large[4096];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    set_up(3);
    publish(0, 0);
    peer_publish(&client, &ops[1], large, 5000, 0);
    publish(2, 2);
    peer_run(&server);
    CHECK(is_stored(0) && peer_ended(&ops[1], 0, RC_STORED) && is_stored(2));
    CHECK(together() == 0 && alone() == 3);
    take_down();
}

int main(void)
{
    rc_scripts_init();
    TEST(publishes_behind_each_other_are_one_request);
    TEST(one_alone_is_its_own_script);
    TEST(another_request_stands_between);
    TEST(each_key_has_its_own_result);
    TEST(a_server_that_has_forgotten_the_script_gets_it_again);
    TEST(a_server_that_refuses_it_is_not_asked_again);
    TEST(an_error_of_the_moment_is_each_ones_own);
    TEST(what_was_lost_with_the_connection_is_done_once);
    TEST(callers_give_up_one_by_one);
    TEST(what_is_under_way_does_not_grow);
    TEST(large_values_go_alone);
    return test_result();
}
