#include "engine/lend.h"

#include <string.h>

#include "test/peer.h"
#include "test/test.h"

enum { HANDLES = 5, MAX_LENT = 3 }; /* peer_options */

static struct peer_server server;
static struct peer_client client;
static struct rc_lent lents[HANDLES];
static struct peer_op ops[HANDLES], calls[HANDLES];

static void set_up(void)
{
    peer_init(&server);
    peer_open(&client, &server, NULL);
    memset(lents, 0, sizeof lents);
    for (int i = 0; i < HANDLES; i++) {
        peer_op_init(&ops[i]);
        peer_op_init(&calls[i]);
    }
}

static void take_down(void)
{
    peer_close(&client);
    CHECK(!server.went_round);
    for (int i = 0; i < HANDLES; i++) {
        CHECK(lents[i].spare == NULL);
        peer_op_deinit(&ops[i]);
        peer_op_deinit(&calls[i]);
    }
    peer_deinit(&server);
}

static bool borrows(int i)
{
    peer_borrow(&client, &ops[i], &lents[i]);
    peer_run(&server);
    return peer_ended(&ops[i], 0, RC_DONE) && lents[i].spare != NULL;
}

static void give_back(int i)
{
    rc_engine_set_time(&client.engine, server.now_us);
    rc_engine_take_back(&client.engine, &lents[i]);
    peer_run(&server);
}

static void call(int i, const char *name, int32_t timeout_ms)
{
    calls[i].op.ask.timeout_ms = timeout_ms;
    peer_call(&client, &calls[i], &lents[i], name);
    peer_run(&server);
}

/* The place-th of those that come and go. */
static struct peer_conn *spare(int place)
{
    return client.conns[RC_NODE_LINKS + place];
}

static int count_open(void)
{
    int count = 0;
    for (int i = 0; i < PEER_LINKS - RC_NODE_LINKS; i++)
        count += spare(i)->is_open;
    return count;
}

/* ---- lending --------------------------------------------------------------------------------- */

static void lends_a_connection_to_one_caller_and_then_to_another(void)
{
    set_up();
    peer_sleep(&server, 1000);
    CHECK(server.hellos == 0);
    CHECK(borrows(0) && count_open() == 1);
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], 0, RC_DONE) && calls[0].op.result.nodes == 1);
    CHECK(server.resets == 0);
    give_back(0);
    CHECK(server.resets == 1 && lents[0].spare == NULL);
    CHECK(borrows(1) && count_open() == 1);
    CHECK(strcmp(rc_link_name(spare(0)->link), "X") == 0);
    give_back(1);
    take_down();
}

static void a_returned_connection_is_lent_once_it_is_reset(void)
{
    set_up();
    CHECK(borrows(0));
    spare(0)->mute = true;
    give_back(0);
    CHECK(!borrows(1)); /* whatever was done to it is not undone yet */
    spare(0)->mute = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE) && server.resets == 1 && count_open() == 1);
    give_back(1);
    take_down();
}

static void a_connection_that_can_not_be_reset_is_closed(void)
{
    set_up();
    server.no_reset = true;
    CHECK(borrows(0));
    unsigned hellos = server.hellos;
    give_back(0);
    CHECK(count_open() == 0);
    CHECK(borrows(1) && server.hellos == hellos + 2); /* one came behind the refused RESET */
    give_back(1);
    take_down();
}

static void asks_an_idle_connection_before_it_is_lent(void)
{
    set_up();
    CHECK(borrows(0));
    give_back(0);
    peer_sleep(&server, 2000);
    spare(0)->mute = true; /* as if it were half open */
    peer_borrow(&client, &ops[1], &lents[1]);
    peer_run(&server);
    CHECK(ops[1].finished == 0);
    peer_cut(spare(0), false);
    spare(0)->mute = false;
    peer_sleep(&server, 100); /* another connection, in the same time */
    CHECK(peer_ended(&ops[1], 0, RC_DONE));
    give_back(1);
    take_down();
}

static void a_handle_has_one_connection(void)
{
    set_up();
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], RC_ERR_ARGUMENT, RC_DONE));
    CHECK(borrows(0));
    peer_borrow(&client, &ops[1], &lents[0]);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], RC_ERR_ARGUMENT, RC_DONE) && count_open() == 1);
    give_back(0);
    give_back(0); /* twice is harmless */
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], RC_ERR_ARGUMENT, RC_DONE));
    take_down();
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static void lends_so_many_and_no_more(void)
{
    set_up();
    for (int i = 0; i < MAX_LENT; i++)
        CHECK(borrows(i));
    CHECK(!borrows(MAX_LENT));
    CHECK(count_open() == MAX_LENT && server.hellos == MAX_LENT + 1); /* and W */
    peer_sleep(&server, 499);
    CHECK(ops[MAX_LENT].finished == 0);
    peer_sleep(&server, 2);
    CHECK(peer_ended(&ops[MAX_LENT], RC_ERR_OVERLOAD, RC_DONE));
    CHECK(peer_says(&ops[MAX_LENT], "all 3 lent connections are in use"));
    for (int i = 0; i < MAX_LENT; i++)
        give_back(i);
    take_down();
}

static void those_who_wait_get_what_comes_back_in_their_order(void)
{
    set_up();
    for (int i = 0; i < MAX_LENT; i++)
        CHECK(borrows(i));
    CHECK(!borrows(3) && !borrows(4));
    give_back(1);
    CHECK(peer_ended(&ops[3], 0, RC_DONE) && ops[4].finished == 0);
    CHECK(count_open() == MAX_LENT);
    peer_sleep(&server, 100);
    call(2, "BLPOP", 10);
    peer_sleep(&server, 20); /* it is closed: there is room for another one */
    CHECK(peer_ended(&ops[4], 0, RC_DONE) && count_open() == MAX_LENT);
    for (int i = 0; i < HANDLES; i++)
        give_back(i);
    take_down();
}

static void a_caller_that_gives_up_waiting_is_passed_over(void)
{
    set_up();
    for (int i = 0; i < MAX_LENT; i++)
        CHECK(borrows(i));
    CHECK(!borrows(3) && !borrows(4));
    rc_engine_drop(&client.engine, &ops[3].op);
    give_back(0);
    CHECK(lents[3].spare == NULL && peer_ended(&ops[4], 0, RC_DONE));
    for (int i = 0; i < HANDLES; i++)
        give_back(i);
    take_down();
}

static void a_connection_whose_borrower_has_gone_is_closed(void)
{
    set_up();
    CHECK(borrows(0));
    server.silent = true;
    CHECK(!borrows(1));
    rc_engine_drop(&client.engine, &ops[1].op);
    server.silent = false;
    peer_run(&server);
    CHECK(count_open() == 1 && client.engine.lends.count == 1);
    give_back(0);
    take_down();
}

static void closes_what_nobody_wants_for_half_a_minute(void)
{
    set_up();
    CHECK(borrows(0) && borrows(1));
    give_back(0);
    peer_sleep(&server, 20000);
    give_back(1);
    peer_sleep(&server, 9990);
    CHECK(count_open() == 2);
    peer_sleep(&server, 20);
    CHECK(count_open() == 1);
    peer_sleep(&server, 19970);
    CHECK(count_open() == 1);
    peer_sleep(&server, 20);
    CHECK(count_open() == 0 && client.engine.lends.count == 0);
    CHECK(borrows(0)); /* what is lent stays, used or not */
    peer_sleep(&server, 60000);
    CHECK(count_open() == 1);
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], 0, RC_DONE));
    give_back(0);
    take_down();
}

/* ---- what may be dirty is closed ------------------------------------------------------------- */

/* The late answer of a command that was given up would be the next borrower's. */
static void a_command_that_timed_out_closes_its_connection(void)
{
    set_up();
    CHECK(borrows(0));
    struct peer_conn *first = spare(0);
    call(0, "BLPOP", 300);
    peer_sleep(&server, 301);
    CHECK(peer_ended(&calls[0], RC_ERR_TIMEOUT, RC_DONE));
    CHECK(!first->is_open && lents[0].spare == NULL);
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], RC_ERR_LOST, RC_DONE));
    CHECK(peer_says(&calls[0], "a command on it has timed out"));
    CHECK(borrows(1));
    call(1, "GET", 0);
    CHECK(peer_ended(&calls[1], 0, RC_DONE) && calls[1].op.reply.nodes[0].type == '_');
    give_back(0);
    CHECK(borrows(0)); /* the handle may be used again */
    give_back(0);
    give_back(1);
    take_down();
}

static void a_cancelled_command_closes_its_connection(void)
{
    set_up();
    CHECK(borrows(0));
    calls[0].op.ask.tag = 7;
    call(0, "BLPOP", 60000);
    rc_engine_set_time(&client.engine, server.now_us);
    CHECK(rc_engine_cancel(&client.engine, 7) == 1);
    peer_run(&server);
    CHECK(peer_ended(&calls[0], RC_ERR_CANCELLED, RC_DONE) && count_open() == 0);
    call(0, "GET", 0);
    CHECK(peer_ended(&calls[0], RC_ERR_LOST, RC_DONE));
    calls[0].op.ask.tag = 0;
    take_down();
}

static void giving_back_in_the_midst_of_a_command_closes_the_connection(void)
{
    set_up();
    CHECK(borrows(0));
    call(0, "BLPOP", 60000);
    give_back(0);
    CHECK(peer_ended(&calls[0], RC_ERR_CANCELLED, RC_DONE));
    CHECK(count_open() == 0 && server.resets == 0);
    take_down();
}

static void a_broken_connection_is_lost_with_what_ran_over_it(void)
{
    set_up();
    CHECK(borrows(0));
    call(0, "BLPOP", 60000);
    peer_cut(spare(0), false);
    peer_sleep(&server, 100);
    CHECK(peer_ended(&calls[0], RC_ERR_UNKNOWN, RC_DONE) && count_open() == 0);
    call(0, "GET", 0); /* never over another connection */
    CHECK(peer_ended(&calls[0], RC_ERR_LOST, RC_DONE));
    CHECK(peer_says(&calls[0], "the server closed the connection"));
    CHECK(borrows(1));
    spare(0)->clogged = true;
    call(1, "GET", 0);
    peer_cut(spare(0), false);
    peer_run(&server);
    CHECK(peer_ended(&calls[1], RC_ERR_UNAVAILABLE, RC_DONE)); /* it has not left us */
    spare(0)->clogged = false;
    take_down();
}

static void a_connection_that_breaks_idle_is_forgotten(void)
{
    set_up();
    CHECK(borrows(0));
    give_back(0);
    unsigned hellos = server.hellos;
    peer_cut(spare(0), false);
    peer_sleep(&server, 5000);
    CHECK(count_open() == 0 && client.engine.lends.count == 0 && server.hellos == hellos);
    take_down();
}

/* ---- waiting for long ------------------------------------------------------------------------ */

static void a_command_may_wait_for_as_long_as_its_caller(void)
{
    set_up();
    CHECK(borrows(0));
    call(0, "BLPOP", 600000);
    peer_sleep(&server, 300000);
    CHECK(calls[0].finished == 0 && count_open() == 1);
    CHECK(server.questions > 200); /* over W, whether the server is there */
    peer_say(spare(0), "*0\r\n", 4);
    peer_run(&server);
    CHECK(peer_ended(&calls[0], 0, RC_DONE));
    give_back(0);
    take_down();
}

static void a_server_that_has_gone_silent_ends_the_wait(void)
{
    set_up();
    CHECK(borrows(0));
    call(0, "BLPOP", 600000);
    peer_sleep(&server, 5000);
    client.conns[RC_LINK_W]->mute = spare(0)->mute = true;
    peer_sleep(&server, 5000);
    CHECK(peer_ended(&calls[0], RC_ERR_UNKNOWN, RC_DONE));
    call(0, "GET", 0);
    CHECK(peer_says(&calls[0], "the server does not answer"));
    client.conns[RC_LINK_W]->mute = spare(0)->mute = false;
    take_down();
}

/* ---- where there is no connection ------------------------------------------------------------ */

static void a_borrower_hears_why_there_is_none(void)
{
    set_up();
    server.refuses = true;
    CHECK(!borrows(0));
    peer_sleep(&server, 501);
    CHECK(peer_ended(&ops[0], RC_ERR_UNAVAILABLE, RC_DONE));
    CHECK(peer_says(&ops[0], "Connection refused"));
    server.refuses = false;
    server.refusal = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    CHECK(!borrows(1));
    CHECK(peer_ended(&ops[1], RC_ERR_REDIS, RC_DONE)); /* at once */
    peer_sleep(&server, 5000);
    CHECK(client.engine.lends.count == 0);
    server.refusal = NULL;
    CHECK(borrows(2));
    give_back(2);
    take_down();
}

static void reaches_the_same_server_as_the_shared_connection(void)
{
    set_up();
    peer_set(&client, &calls[0], "key", "one", -1);
    peer_run(&server);
    server.run = 2; /* behind the same address */
    CHECK(!borrows(0));
    peer_sleep(&server, 200);
    server.run = 1;
    peer_sleep(&server, 200);
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && spare(0)->run == 1);
    give_back(0);
    take_down();
}

/* The shared connection was made again meanwhile, and leads elsewhere. */
static void lends_none_that_was_left_behind(void)
{
    set_up();
    peer_set(&client, &calls[0], "key", "one", -1);
    CHECK(borrows(0));
    give_back(0);
    server.run = 2; /* behind the same address */
    peer_cut(client.conns[RC_LINK_W], false);
    peer_sleep(&server, 100);
    CHECK(client.conns[RC_LINK_W]->run == 2);
    CHECK(borrows(1));
    CHECK(count_open() == 1);
    for (int i = 0; i < PEER_LINKS - RC_NODE_LINKS; i++)
        CHECK(!spare(i)->is_open || spare(i)->run == 2);
    give_back(1);
    take_down();
}

/* ---- the end --------------------------------------------------------------------------------- */

static void closing_ends_what_is_lent_and_those_who_wait(void)
{
    set_up();
    for (int i = 0; i < MAX_LENT; i++)
        CHECK(borrows(i));
    CHECK(!borrows(3));
    call(0, "BLPOP", 60000);
    rc_engine_set_time(&client.engine, server.now_us);
    rc_engine_close(&client.engine);
    peer_run(&server);
    CHECK(peer_ended(&calls[0], RC_ERR_CLOSED, RC_DONE));
    CHECK(peer_ended(&ops[3], RC_ERR_CLOSED, RC_DONE) && count_open() == 0);
    call(1, "GET", 0);
    CHECK(peer_ended(&calls[1], RC_ERR_CLOSED, RC_DONE));
    give_back(1);
    take_down();
}

static void a_lent_connection_keeps_the_others_from_resting(void)
{
    set_up();
    CHECK(borrows(0));
    CHECK(!rc_engine_rest(&client.engine));
    give_back(0);
    CHECK(rc_engine_rest(&client.engine));
    peer_run(&server);
    CHECK(count_open() == 0 && !client.conns[RC_LINK_W]->is_open);
    CHECK(borrows(1));
    give_back(1);
    take_down();
}

int main(void)
{
    TEST(lends_a_connection_to_one_caller_and_then_to_another);
    TEST(a_returned_connection_is_lent_once_it_is_reset);
    TEST(a_connection_that_can_not_be_reset_is_closed);
    TEST(asks_an_idle_connection_before_it_is_lent);
    TEST(a_handle_has_one_connection);
    TEST(lends_so_many_and_no_more);
    TEST(those_who_wait_get_what_comes_back_in_their_order);
    TEST(a_caller_that_gives_up_waiting_is_passed_over);
    TEST(a_connection_whose_borrower_has_gone_is_closed);
    TEST(closes_what_nobody_wants_for_half_a_minute);
    TEST(a_command_that_timed_out_closes_its_connection);
    TEST(a_cancelled_command_closes_its_connection);
    TEST(giving_back_in_the_midst_of_a_command_closes_the_connection);
    TEST(a_broken_connection_is_lost_with_what_ran_over_it);
    TEST(a_connection_that_breaks_idle_is_forgotten);
    TEST(a_command_may_wait_for_as_long_as_its_caller);
    TEST(a_server_that_has_gone_silent_ends_the_wait);
    TEST(a_borrower_hears_why_there_is_none);
    TEST(reaches_the_same_server_as_the_shared_connection);
    TEST(lends_none_that_was_left_behind);
    TEST(closing_ends_what_is_lent_and_those_who_wait);
    TEST(a_lent_connection_keeps_the_others_from_resting);
    return test_result();
}
