#include "engine/ifeq.h"

#include <string.h>

#include "engine/command.h"
#include "engine/script.h"
#include "test/peer.h"
#include "test/test.h"

enum { OPS = 4, TTL_MS = 3000, LOAD_MS = 60000, WAIT_MS = 20000 };

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];

/* A server that says it can compare. */
static void set_up(bool compares)
{
    peer_init(&server);
    server.is_valkey = true;
    server.compares = compares;
    memset(server.known, true, sizeof server.known);
    peer_open(&client, &server, NULL);
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, ops, OPS));
}

static bool load(int i, const char *key)
{
    peer_load(&client, &ops[i], key, 0, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
    return peer_ended(&ops[i], 0, RC_LOAD);
}

static bool store(int i, const char *value, int64_t ttl_ms)
{
    peer_publish(&client, &ops[i], value, ttl_ms, 0);
    peer_run(&server);
    return peer_ended(&ops[i], 0, RC_STORED);
}

static void release(int i)
{
    peer_release(&client, &ops[i]);
    peer_run(&server);
}

static unsigned publishes(void)
{
    return server.scripts[RC_SCRIPT_PUBLISH];
}

static void publishes_renews_and_releases_by_commands(void)
{
    set_up(true);
    CHECK(load(0, "one"));
    peer_sleep(&server, 2 * TTL_MS);
    CHECK(peer_has_lease(&server, "one") && client.engine.context.stats.heartbeats > 3);
    CHECK(store(0, "value", 5000) && peer_pttl(&server, "one") == 5000);
    CHECK(load(1, "two") && store(1, "value", -1) && peer_pttl(&server, "two") == -1);
    CHECK(load(2, "three"));
    release(2);
    CHECK(peer_ended(&ops[2], 0, RC_DONE) && peer_find(&server, "three") == NULL);
    CHECK(publishes() == 0 && server.scripts[RC_SCRIPT_HEARTBEAT] == 0);
    CHECK(server.scripts[RC_SCRIPT_RELEASE] == 0 && server.comparisons > 5);
    take_down();
}

static void the_script_says_what_stands_there_instead(void)
{
    char bytes[RC_ENTRY_SIZE + 4];
    rc_entry entry = {.kind = RC_KIND_VALUE};
    set_up(true);
    CHECK(load(0, "one"));
    rc_entry_write(bytes, &entry, "nonce-01");
    memcpy(bytes + RC_ENTRY_SIZE, "them", 4);
    peer_put(&server, "one", bytes, sizeof bytes, 7000);
    CHECK(!store(0, "mine", 5000) && peer_ended(&ops[0], 0, RC_UNSTORED));
    CHECK(peer_says(&ops[0], "them") && ops[0].op.result.ttl_ms == 7000);
    CHECK(publishes() == 1 && client.engine.context.stats.leases_lost == 1);
    CHECK(load(1, "two"));
    peer_unlink(&server, "two");
    CHECK(!store(1, "mine", 5000) && peer_find(&server, "two") == NULL);
    CHECK(peer_ended(&ops[1], 0, RC_UNSTORED) && server.comparisons == 2);
    take_down();
}

static void a_lease_that_is_gone_is_neither_renewed_nor_released(void)
{
    set_up(true);
    CHECK(load(0, "one"));
    peer_put(&server, "one", "theirs", 6, -1);
    peer_sleep(&server, TTL_MS);
    CHECK(client.engine.context.stats.heartbeats == 1); /* its answer has told */
    CHECK(load(1, "two"));
    peer_put(&server, "two", "theirs", 6, -1);
    release(1);
    CHECK(peer_find(&server, "two") != NULL && server.scripts[RC_SCRIPT_RELEASE] == 0);
    take_down();
}

static void one_try_proves_that_a_server_cannot_and_no_call_fails(void)
{
    set_up(false);
    for (int round = 0; round < 2; round++) {
        CHECK(load(0, "one") && store(0, "value", 5000));
        CHECK(load(1, "two"));
        release(1);
        CHECK(peer_ended(&ops[1], 0, RC_DONE) && peer_find(&server, "two") == NULL);
        peer_unlink(&server, "one");
        CHECK(server.comparisons == 2); /* of each command the first one */
    }
    CHECK(publishes() == 2 && server.scripts[RC_SCRIPT_RELEASE] == 2);
    peer_cut(client.conns[RC_LINK_W], true);
    peer_sleep(&server, 1000);
    CHECK(load(0, "one") && store(0, "value", 5000));
    CHECK(server.comparisons == 3 && publishes() == 3); /* it may be another server */
    take_down();
}

static void while_the_try_is_under_way_others_go_as_scripts(void)
{
    set_up(true);
    CHECK(load(0, "one") && load(1, "two"));
    peer_publish(&client, &ops[0], "value", 5000, 0);
    peer_publish(&client, &ops[1], "value", 5000, 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_STORED) && peer_ended(&ops[1], 0, RC_STORED));
    CHECK(server.comparisons == 1 && publishes() == 1);
    CHECK(load(2, "three") && store(2, "value", 5000));
    CHECK(server.comparisons == 2 && publishes() == 1);
    take_down();
}

/* Something in front of it may close the connection for a command that it does not know. */
static void a_connection_that_broke_at_the_try_is_followed_by_one_without(void)
{
    set_up(true);
    CHECK(load(0, "one"));
    client.conns[RC_LINK_W]->mute = true;
    peer_publish(&client, &ops[0], "value", 5000, 0);
    peer_run(&server);
    CHECK(ops[0].finished == 0);
    client.conns[RC_LINK_W]->mute = false;
    peer_cut(client.conns[RC_LINK_W], false);
    peer_sleep(&server, 400);
    CHECK(peer_ended(&ops[0], 0, RC_STORED) && publishes() == 1 && server.comparisons == 0);
    take_down();
}

static void a_publish_whose_answer_was_lost_was_done(void)
{
    set_up(true);
    CHECK(load(0, "one") && store(0, "value", 5000)); /* proven */
    CHECK(load(1, "two"));
    client.conns[RC_LINK_W]->deaf = true;
    peer_publish(&client, &ops[1], "value", 5000, 0);
    peer_run(&server);
    CHECK(ops[1].finished == 0 && !peer_has_lease(&server, "two"));
    client.conns[RC_LINK_W]->deaf = false;
    peer_cut(client.conns[RC_LINK_W], true);
    peer_sleep(&server, 400);
    CHECK(peer_ended(&ops[1], 0, RC_STORED) && publishes() == 1 && server.comparisons == 3);
    take_down();
}

static void errors_of_the_moment_prove_nothing(void)
{
    set_up(true);
    CHECK(load(0, "one"));
    server.error = "-OOM command not allowed when used memory > 'maxmemory'.";
    server.errors = 1;
    CHECK(store(0, "value", 5000) && publishes() == 1 && server.comparisons == 0);
    CHECK(load(1, "two") && store(1, "value", 5000));
    CHECK(publishes() == 1 && server.comparisons == 1);
    server.error = "-NOPERM this user has no permissions to run the 'set' command";
    CHECK(load(2, "three"));
    server.errors = 1;
    CHECK(store(2, "value", 5000) && publishes() == 2);
    CHECK(load(3, "four") && store(3, "value", 5000) && publishes() == 3);
    take_down();
}

/* ---- words ----------------------------------------------------------------------------------- */

/* What is sent to that server for a release of key "k" with lease "l": its name. */
static bool releases_by(const char *name, const char *version, const char *expected)
{
    struct rc_server one = {.is_known = true};
    struct rc_ifeq ifeq = {{RC_IFEQ_OFF}, false};
    struct rc_buf script, out;
    bool is_written = true;
    strcpy(one.name, name);
    strcpy(one.version, version);
    rc_ifeq_greet(&ifeq, &one);
    rc_buf_init(&script);
    rc_buf_init(&out);
    bool is_whole = rc_script_begin(&script, RC_SCRIPT_RELEASE, 1, 1) == 0 &&
                    rc_command_text(&script, "k") == 0 && rc_command_text(&script, "l") == 0;
    bool is_so = is_whole && rc_ifeq_write(&ifeq, &out, RC_SCRIPT_RELEASE, rc_buf_head(&script),
                                           rc_buf_len(&script), &is_written) == 0;
    is_so =
        is_so && is_written == (*expected != '\0') && rc_buf_is(&out, expected, strlen(expected));
    rc_buf_deinit(&script);
    rc_buf_deinit(&out);
    return is_so;
}

static enum rc_ifeq_state state_at(const char *name, const char *version)
{
    struct rc_server one = {.is_known = true};
    struct rc_ifeq ifeq = {{RC_IFEQ_OFF}, false};
    strcpy(one.name, name);
    strcpy(one.version, version);
    rc_ifeq_greet(&ifeq, &one);
    return ifeq.states[RC_IFEQ_SET];
}

static void each_server_has_its_words(void)
{
    static const char DELIFEQ[] = "*3\r\n$7\r\nDELIFEQ\r\n$1\r\nk\r\n$1\r\nl\r\n";
    static const char DELEX[] = "*4\r\n$5\r\nDELEX\r\n$1\r\nk\r\n$4\r\nIFEQ\r\n$1\r\nl\r\n";
    CHECK(releases_by("valkey", "9.0.0", DELIFEQ) && releases_by("valkey", "10.2.1", DELIFEQ));
    CHECK(releases_by("redis", "8.4.0", DELEX) && releases_by("redis", "9.0.0", DELEX));
    CHECK(releases_by("valkey", "8.1.4", "") && releases_by("redis", "8.2.9", ""));
    CHECK(state_at("valkey", "8.1.0") == RC_IFEQ_UNTRIED);
    CHECK(state_at("valkey", "8.0.9") == RC_IFEQ_OFF);
    CHECK(state_at("redis", "8.4.0") == RC_IFEQ_UNTRIED);
    CHECK(state_at("redis", "8.3.9") == RC_IFEQ_OFF);
    /* Who does not say so is not asked. */
    CHECK(state_at("", "") == RC_IFEQ_OFF && state_at("redis", "") == RC_IFEQ_OFF);
    CHECK(state_at("redict", "7.3.0") == RC_IFEQ_OFF && state_at("other", "99.0.0") == RC_IFEQ_OFF);
    CHECK(state_at("valkey", "unstable") == RC_IFEQ_OFF);
}

static void two_keys_are_no_matter_of_one_command(void)
{
    struct rc_ifeq ifeq = {{RC_IFEQ_PROVEN, RC_IFEQ_PROVEN}, false};
    struct rc_buf script, out;
    bool is_written = true;
    rc_buf_init(&script);
    rc_buf_init(&out);
    bool is_whole = rc_script_begin(&script, RC_SCRIPT_RELEASE, 2, 1) == 0;
    for (int i = 0; i < 3; i++)
        is_whole = is_whole && rc_command_text(&script, "word") == 0;
    CHECK(is_whole && rc_ifeq_write(&ifeq, &out, RC_SCRIPT_RELEASE, rc_buf_head(&script),
                                    rc_buf_len(&script), &is_written) == 0);
    CHECK(!is_written && rc_buf_len(&out) == 0);
    rc_buf_deinit(&script);
    rc_buf_deinit(&out);
}

int main(void)
{
    rc_scripts_init();
    TEST(publishes_renews_and_releases_by_commands);
    TEST(the_script_says_what_stands_there_instead);
    TEST(a_lease_that_is_gone_is_neither_renewed_nor_released);
    TEST(one_try_proves_that_a_server_cannot_and_no_call_fails);
    TEST(while_the_try_is_under_way_others_go_as_scripts);
    TEST(a_connection_that_broke_at_the_try_is_followed_by_one_without);
    TEST(a_publish_whose_answer_was_lost_was_done);
    TEST(errors_of_the_moment_prove_nothing);
    TEST(each_server_has_its_words);
    TEST(two_keys_are_no_matter_of_one_command);
    return test_result();
}
