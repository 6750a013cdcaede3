#include "engine/login.h"

#include <stdlib.h>
#include <string.h>

#include "test/peer.h"
#include "test/test.h"

enum { OPS = 8 };

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];
static struct rc_login *login;
static uint64_t versions;

static void set_up(bool asks)
{
    rc_options options = peer_options();
    options.auth = asks;
    peer_init(&server);
    peer_open(&client, &server, &options);
    login = &client.engine.login;
    versions = 0;
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, ops, OPS));
}

static struct rc_credentials credentials(const char *user, const char *password, int64_t ttl_ms)
{
    return (struct rc_credentials){
        .user = user,
        .user_len = strlen(user),
        .password = password,
        .password_len = strlen(password),
        .expires_us = ttl_ms > 0 ? server.now_us + ttl_ms * 1000 : INT64_MAX,
        .version = ++versions,
    };
}

static void give(const char *user, const char *password, int64_t ttl_ms)
{
    struct rc_credentials given = credentials(user, password, ttl_ms);
    rc_engine_set_time(&client.engine, server.now_us);
    if (!CHECK(rc_engine_authenticate(&client.engine, &given) == 0))
        exit(1);
    peer_run(&server);
}

static void fail(const char *text)
{
    rc_engine_set_time(&client.engine, server.now_us);
    rc_engine_fail_login(&client.engine, text, strlen(text));
    peer_run(&server);
}

static void get(int i)
{
    peer_get(&client, &ops[i], "key", 0);
    peer_run(&server);
}

static bool is_user(const char *user)
{
    return strcmp(server.user, user) == 0;
}

static void sends_nothing_before_it_knows_who_it_is(void)
{
    set_up(true);
    get(0);
    peer_sleep(&server, 300);
    CHECK(server.hellos == 0 && ops[0].finished == 0);
    CHECK(rc_login_claim(login) && !rc_login_claim(login)); /* one of all is asked */
    give("ann", "one", 0);
    CHECK(peer_ended(&ops[0], 0, RC_MISS) && is_user("ann") && server.auths == 0);
    take_down();
}

static void a_call_that_waits_for_credentials_ends_in_time_and_says_why(void)
{
    set_up(true);
    get(0);
    CHECK(rc_login_claim(login));
    fail("the vault is away");
    peer_sleep(&server, 510);
    CHECK(peer_ended(&ops[0], RC_ERR_UNAVAILABLE, RC_DONE));
    CHECK(peer_says(&ops[0], "the function auth has failed: the vault is away"));
    take_down();
}

static void asks_again_after_a_failure_and_less_and_less_often(void)
{
    int asked = 0;
    set_up(true);
    get(0);
    for (int ms = 0; ms < 10000; ms += 10) {
        peer_sleep(&server, 10);
        if (rc_login_claim(login)) {
            asked++;
            fail("no");
        }
    }
    CHECK(asked >= 5 && asked <= 8); /* after 0.1, 0.2, 0.4, 0.8, 1.6, 3.2 s */
    give("ann", "one", 0);
    get(1);
    CHECK(peer_ended(&ops[1], 0, RC_MISS));
    take_down();
}

static void asks_somebody_else_where_nothing_comes(void)
{
    set_up(true);
    get(0);
    CHECK(rc_login_claim(login));
    peer_sleep(&server, 4000);
    get(1);
    CHECK(!rc_login_claim(login));
    peer_sleep(&server, 7000);
    CHECK(rc_login_claim(login));
    take_down();
}

static void open_connections_say_it_in_line_with_what_runs(void)
{
    set_up(true);
    give("ann", "one", 0);
    peer_put(&server, "key", "value", 5, -1);
    get(0);
    unsigned auths = server.auths, hellos = server.hellos, retries;
    struct rc_credentials newer = credentials("bob", "two", 0);
    server.chunk = 1;
    for (int i = 1; i < 4; i++)
        peer_get(&client, &ops[i], "key", RC_WANT_TTL);
    if (!CHECK(rc_engine_authenticate(&client.engine, &newer) == 0))
        exit(1);
    for (int i = 4; i < OPS; i++)
        peer_get(&client, &ops[i], "key", RC_WANT_TTL);
    peer_run(&server);
    for (int i = 1; i < OPS; i++)
        CHECK(peer_ended(&ops[i], 0, RC_HIT) && peer_says(&ops[i], "value"));
    retries = (unsigned)client.engine.context.stats.retries;
    CHECK(server.auths > auths && server.hellos == hellos && retries == 0 && is_user("bob"));
    take_down();
}

static void older_ones_change_nothing(void)
{
    set_up(true);
    struct rc_credentials older = credentials("ann", "one", 0);
    give("bob", "two", 0);
    get(0);
    CHECK(rc_engine_authenticate(&client.engine, &older) == 0);
    peer_run(&server);
    CHECK(server.auths == 0 && is_user("bob"));
    take_down();
}

static void asks_before_they_end_and_connects_with_none_that_have(void)
{
    set_up(true);
    give("ann", "one", 1000);
    get(0);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    peer_sleep(&server, 690);
    CHECK(!rc_login_claim(login));
    peer_sleep(&server, 20);
    CHECK(rc_login_claim(login));
    peer_sleep(&server, 500);
    get(1); /* a connection that stands is as good as before */
    CHECK(peer_ended(&ops[1], 0, RC_MISS));
    unsigned hellos = server.hellos;
    rc_link_give_up(client.conns[RC_LINK_W]->link, "once more");
    peer_sleep(&server, 3000);
    CHECK(server.hellos == hellos);
    get(2);
    CHECK(ops[2].finished == 0); /* although the server has been away for longer than it waits */
    give("bob", "two", 1000);
    CHECK(peer_ended(&ops[2], 0, RC_MISS) && is_user("bob"));
    take_down();
}

static void refused_ones_are_asked_for_again_and_calls_wait(void)
{
    set_up(true);
    server.login = "two";
    CHECK(rc_login_claim(login));
    give("ann", "one", 0);
    get(0);
    peer_sleep(&server, 100);
    CHECK(ops[0].finished == 0 && server.hellos == 1);
    CHECK(rc_login_claim(login));
    give("ann", "two", 0);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    server.login = "three"; /* what stands goes on as who it was */
    give("ann", "four", 0);
    get(1);
    CHECK(peer_ended(&ops[1], 0, RC_MISS) && server.auths >= 1);
    CHECK(rc_login_claim(login));
    take_down();
}

static void lets_in_a_client_that_was_refused(void)
{
    set_up(false);
    server.login = "two";
    give("ann", "one", 0);
    get(0);
    CHECK(peer_ended(&ops[0], RC_ERR_REDIS, RC_DONE) && !rc_login_claim(login));
    give("ann", "two", 0);
    get(1);
    CHECK(peer_ended(&ops[1], 0, RC_MISS));
    take_down();
}

int main(void)
{
    TEST(sends_nothing_before_it_knows_who_it_is);
    TEST(a_call_that_waits_for_credentials_ends_in_time_and_says_why);
    TEST(asks_again_after_a_failure_and_less_and_less_often);
    TEST(asks_somebody_else_where_nothing_comes);
    TEST(open_connections_say_it_in_line_with_what_runs);
    TEST(older_ones_change_nothing);
    TEST(asks_before_they_end_and_connects_with_none_that_have);
    TEST(refused_ones_are_asked_for_again_and_calls_wait);
    TEST(lets_in_a_client_that_was_refused);
    return test_result();
}
