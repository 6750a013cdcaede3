#include "engine/link.h"

#include <stdlib.h>
#include <string.h>

#include "test/peer.h"
#include "test/test.h"

enum { OPS = 8 };

#define NO_INFO "-NOPERM no permissions to run it\r\n"
/* The end of each handshake. */
#define ASKS                                                                                       \
    "*3\r\n$4\r\nINFO\r\n$6\r\nserver\r\n$11\r\nreplication\r\n"                                   \
    "*1\r\n$4\r\nPING\r\n"

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];
static struct peer_conn *w;

static void set_up_with(const rc_options *options)
{
    peer_init(&server);
    peer_open(&client, &server, options);
    w = client.conns[RC_LINK_W];
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void set_up(void)
{
    set_up_with(NULL);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, ops, OPS));
}

static void get(int i)
{
    peer_get(&client, &ops[i], "key", 0);
    peer_run(&server);
}

static void set(int i, const char *value)
{
    peer_set(&client, &ops[i], "key", value, -1);
    peer_run(&server);
}

static bool has_value(int i, const char *value)
{
    return peer_ended(&ops[i], 0, RC_HIT) && peer_says(&ops[i], value);
}

static bool failed(int i, int status, const char *why)
{
    return peer_ended(&ops[i], status, RC_DONE) && peer_says(&ops[i], why);
}

static void connects_with_the_first_request_only(void)
{
    set_up();
    peer_sleep(&server, 5000);
    CHECK(server.hellos == 0);
    set(0, "one");
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && server.hellos == 1);
    CHECK(strcmp(w->link->server.name, "redis") == 0);
    CHECK(strcmp(w->link->server.version, "7.0.15") == 0);
    get(1);
    CHECK(has_value(1, "one"));
    take_down();
}

static void is_ready_when_the_ping_is_answered(void)
{
    set_up();
    server.loading = true;
    get(0);
    peer_sleep(&server, 300);
    CHECK(ops[0].finished == 0 && !rc_link_is_ready(w->link));
    CHECK(server.hellos > 2);
    server.loading = false;
    peer_sleep(&server, 190);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    take_down();
}

static void reads_from_a_server_that_can_not_save(void)
{
    set_up();
    server.ping = "-MISCONF Redis is configured to save RDB snapshots, but it cannot\r\n";
    get(0);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    take_down();
}

static void takes_answers_in_any_pieces(void)
{
    set_up();
    server.chunk = 1;
    peer_put(&server, "key", "one\r\ntwo", 8, -1);
    for (int i = 0; i < OPS; i++)
        peer_get(&client, &ops[i], "key", RC_WANT_TTL);
    peer_run(&server);
    for (int i = 0; i < OPS; i++)
        CHECK(has_value(i, "one\r\ntwo") && ops[i].op.result.ttl_ms == -1);
    take_down();
}

static void sends_again_what_may_be_repeated(void)
{
    set_up();
    get(0);
    w->deaf = true;
    get(1);
    get(2);
    peer_cut(w, false);
    w->deaf = false;
    peer_sleep(&server, 50);
    CHECK(peer_ended(&ops[1], 0, RC_MISS) && peer_ended(&ops[2], 0, RC_MISS));
    CHECK(client.engine.context.stats.retries == 2);
    take_down();
}

static void reports_unknown_outcome_for_a_set_cut_after_sending(void)
{
    set_up();
    get(0);
    w->deaf = true;
    set(1, "one");
    peer_cut(w, true);
    w->deaf = false;
    peer_sleep(&server, 50);
    CHECK(failed(1, RC_ERR_UNKNOWN, ""));
    CHECK(server.sets == 1);
    take_down();
}

static void sends_a_set_again_that_was_never_on_the_wire(void)
{
    set_up();
    get(0);
    w->clogged = true;
    set(1, "one");
    peer_cut(w, true);
    w->clogged = false;
    peer_sleep(&server, 50);
    CHECK(peer_ended(&ops[1], 0, RC_DONE));
    CHECK(server.sets == 1);
    take_down();
}

static void refuses_over_the_queue_limit(void)
{
    rc_options options = peer_options();
    options.max_queue = 3;
    set_up_with(&options);
    server.silent = true;
    for (int i = 0; i < 5; i++)
        get(i);
    CHECK(ops[2].finished == 0);
    CHECK(failed(3, RC_ERR_OVERLOAD, "") && failed(4, RC_ERR_OVERLOAD, ""));
    server.silent = false;
    peer_run(&server);
    for (int i = 0; i < 3; i++)
        CHECK(peer_ended(&ops[i], 0, RC_MISS));
    get(3);
    CHECK(peer_ended(&ops[3], 0, RC_MISS));
    take_down();
}

static void refuses_over_the_limit_of_bytes(void)
{
    enum { PART = 15 << 20 }; /* four of them are below the limit of 64 MiB */
    char *large = malloc(PART + 1);
    set_up();
    memset(large, 'x', PART);
    large[PART] = '\0';
    server.silent = true;
    for (int i = 0; i < 5; i++)
        set(i, large);
    CHECK(ops[3].finished == 0);
    CHECK(failed(4, RC_ERR_OVERLOAD, ""));
    server.silent = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && peer_ended(&ops[3], 0, RC_DONE));
    set(5, "small");
    CHECK(peer_ended(&ops[5], 0, RC_DONE));
    take_down();
    free(large);
}

static void ends_in_time_when_nobody_answers(void)
{
    set_up();
    get(0);
    w->mute = true;
    get(1);
    ops[2].op.ask.timeout_ms = 50;
    get(2);
    peer_sleep(&server, 49);
    CHECK(ops[2].finished == 0);
    peer_sleep(&server, 1);
    CHECK(failed(2, RC_ERR_TIMEOUT, ""));
    peer_sleep(&server, 450);
    CHECK(failed(1, RC_ERR_TIMEOUT, ""));
    CHECK(client.engine.context.stats.timeouts == 2);
    w->mute = false;
    take_down();
}

static void a_late_answer_goes_to_nobody_else(void)
{
    set_up();
    peer_put(&server, "key", "one", 3, -1);
    get(0);
    w->deaf = true;
    get(1);
    peer_sleep(&server, 500);
    CHECK(failed(1, RC_ERR_TIMEOUT, ""));
    peer_put(&server, "key", "two", 3, -1);
    get(1);
    w->deaf = false;
    peer_run(&server);
    CHECK(has_value(1, "two"));
    take_down();
}

static void gives_a_silent_connection_up_and_makes_a_new_one(void)
{
    set_up();
    get(0);
    w->mute = true;
    get(1);
    peer_sleep(&server, 1100);
    CHECK(client.engine.context.stats.disconnects == 1);
    w->mute = false;
    peer_sleep(&server, 100);
    get(2);
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

/* What is sent for its effect alone is waited for by nobody: it keeps no dead connection. */
static void gives_a_silent_connection_up_although_a_release_may_wait(void)
{
    set_up();
    peer_load(&client, &ops[0], "key", 0, 60000, 60000, 60000);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_LOAD) && peer_has_lease(&server, "key"));
    w->mute = true;
    rc_engine_drop(&client.engine, &ops[0].op);
    peer_sleep(&server, 1100);
    CHECK(client.engine.context.stats.disconnects == 1);
    w->mute = false;
    peer_sleep(&server, 100);
    CHECK(!peer_has_lease(&server, "key"));
    take_down();
}

/* Half open: what we say is lost, what the server says arrives. */
static void pushes_do_not_prove_that_the_server_hears_us(void)
{
    static const char push[] = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nother\r\n";
    set_up();
    get(0);
    w->mute = true;
    get(1);
    for (int i = 0; i < 12; i++) {
        peer_say(w, push, sizeof(push) - 1);
        peer_sleep(&server, 100);
    }
    CHECK(client.engine.context.stats.disconnects == 1);
    w->mute = false;
    take_down();
}

/* Every piece of it is a sign of life. */
static void waits_for_a_large_answer_that_comes_slowly(void)
{
    set_up();
    get(0);
    w->mute = true;
    get(1);
    peer_say(w, "$12\r\n", 5);
    for (int i = 0; i < 12; i++) {
        peer_say(w, "x", 1);
        peer_sleep(&server, 200);
    }
    CHECK(client.engine.context.stats.disconnects == 0);
    w->mute = false;
    take_down();
}

static void tries_again_less_and_less_often(void)
{
    set_up();
    server.refusal = "-ERR max number of clients reached\r\n";
    get(0);
    peer_sleep(&server, 1000);
    CHECK(failed(0, RC_ERR_UNAVAILABLE, "ERR max number of clients reached"));
    CHECK(server.hellos >= 4 && server.hellos <= 9);
    unsigned before = server.hellos;
    peer_sleep(&server, 10000);
    CHECK(server.hellos - before >= 19 && server.hellos - before <= 41); /* 250 to 500 ms */
    server.refusal = NULL;
    peer_sleep(&server, 1001);
    get(1);
    CHECK(peer_ended(&ops[1], 0, RC_MISS));
    take_down();
}

static void fails_at_once_when_redis_has_been_away_for_long(void)
{
    set_up();
    server.refuses = true;
    get(0);
    peer_sleep(&server, 600);
    CHECK(failed(0, RC_ERR_UNAVAILABLE, "Connection refused"));
    get(1);
    CHECK(failed(1, RC_ERR_UNAVAILABLE, "Connection refused"));
    server.refuses = false;
    peer_sleep(&server, 1001);
    get(2);
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

static void gives_up_a_connect_that_goes_nowhere(void)
{
    set_up();
    server.silent = true;
    get(0);
    peer_sleep(&server, 1001);
    CHECK(failed(0, RC_ERR_UNAVAILABLE, ""));
    CHECK(w->link->state == RC_LINK_BACKOFF);
    CHECK(strcmp(w->link->cause, "connecting timed out") == 0);
    server.silent = false;
    peer_sleep(&server, 100);
    CHECK(rc_link_is_ready(w->link));
    take_down();
}

static void tells_at_once_that_the_login_was_refused(void)
{
    set_up();
    peer_use(&client, "redis://me:secret@127.0.0.1");
    server.refusal = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    get(0);
    CHECK(failed(0, RC_ERR_REDIS, "WRONGPASS invalid username-password pair or user is disabled."));
    get(1);
    CHECK(ops[1].finished == 1 && ops[1].op.result.status == RC_ERR_REDIS);
    server.refusal = NULL; /* the password was set meanwhile */
    peer_sleep(&server, 1001);
    get(2);
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

static void garbage_fails_one_and_the_others_are_sent_again(void)
{
    set_up();
    get(0);
    w->mute = true;
    get(1);
    get(2);
    peer_say(w, "HTTP/1.1 400 Bad Request\r\n", 26);
    peer_run(&server);
    w->mute = false;
    peer_sleep(&server, 100);
    CHECK(failed(1, RC_ERR_PROTOCOL, ""));
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

/* Redis has done it, or has not: nobody can read which. */
static void garbage_for_a_set_leaves_its_outcome_unknown(void)
{
    set_up();
    get(0);
    w->mute = true;
    set(1, "one");
    peer_say(w, "xOK\r\n", 5);
    peer_run(&server);
    w->mute = false;
    CHECK(peer_ended(&ops[1], RC_ERR_UNKNOWN, RC_DONE));
    take_down();
}

static void an_answer_nobody_asked_for_ends_the_connection(void)
{
    set_up();
    get(0);
    peer_say(w, "+OK\r\n", 5);
    peer_run(&server);
    CHECK(client.engine.context.stats.disconnects == 1);
    peer_sleep(&server, 100);
    get(1);
    CHECK(peer_ended(&ops[1], 0, RC_MISS));
    take_down();
}

static void an_answer_over_the_limit_fails_alone(void)
{
    set_up();
    get(0);
    w->mute = true;
    get(1);
    get(2);
    peer_say(w, "$99999999\r\n", 11);
    peer_run(&server);
    w->mute = false;
    peer_sleep(&server, 100);
    CHECK(failed(1, RC_ERR_TOOLARGE, ""));
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

static void sends_a_script_whole_when_redis_has_forgotten_it(void)
{
    struct rc_lock lock;
    set_up();
    CHECK(rc_lock_init(&lock, "job", 3) == 0);
    peer_acquire(&client, &ops[0], &lock, 0, 1000, 0, 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_DONE));
    CHECK(client.engine.context.stats.noscript == 1);
    memset(server.known, 0, sizeof server.known);
    peer_get(&client, &ops[1], "key", 0);
    peer_unlock(&client, &ops[0], &lock);
    peer_get(&client, &ops[2], "key", 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_DONE));
    CHECK(peer_ended(&ops[1], 0, RC_MISS) && peer_ended(&ops[2], 0, RC_MISS));
    CHECK(client.engine.context.stats.noscript == 2);
    take_down();
    rc_lock_deinit(&lock);
}

static void does_not_run_a_script_for_somebody_who_left(void)
{
    struct rc_lock lock;
    set_up();
    CHECK(rc_lock_init(&lock, "job", 3) == 0);
    peer_acquire(&client, &ops[0], &lock, 0, 1000, 0, 0);
    peer_run(&server);
    client.conns[RC_LINK_T]->deaf = true;
    memset(server.known, 0, sizeof server.known);
    peer_extend(&client, &ops[1], &lock, 50000);
    peer_run(&server);
    rc_engine_drop(&client.engine, &ops[1].op);
    client.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(server.scripts[RC_SCRIPT_LOCK_RENEW] == 0);
    take_down();
    rc_lock_deinit(&lock);
}

static void set_refused(int i)
{
    server.error = "-READONLY You can't write against a read only replica.";
    server.errors = 1;
    set(i, "one");
    CHECK(failed(i, RC_ERR_REDIS, server.error + 1));
}

/* Behind the same address is another server by now, which only a new connection finds. */
static void looks_for_the_master_where_a_write_was_refused(void)
{
    set_up();
    get(0);
    server.is_replica = true;
    set_refused(0);
    CHECK(server.questions == 2 && server.hellos == 1); /* of the handshake, and this one */
    peer_sleep(&server, 30); /* it has become a replica: asked again who is there */
    CHECK(server.hellos == 2 && strstr(w->link->cause, "replica") != NULL);
    set_refused(1); /* this soon nothing will have changed */
    peer_sleep(&server, 100);
    CHECK(server.questions == 4 && server.hellos == 2);
    peer_sleep(&server, 500);
    server.run = 2;
    server.is_replica = false;
    set_refused(2);
    peer_sleep(&server, 30);
    CHECK(server.hellos == 3 && w->run == 2);
    set(3, "one");
    CHECK(peer_ended(&ops[3], 0, RC_DONE) && w->link->cause[0] == '\0');
    take_down();
}

static void a_refused_write_is_no_sign_where_the_server_is_a_master(void)
{
    set_up();
    get(0);
    set_refused(0);
    set_refused(1);
    peer_sleep(&server, 1000);
    CHECK(server.hellos == 1 && server.questions == 3);
    take_down();
}

static void gives_the_room_of_a_large_output_back(void)
{
    static char large[900000];
    set_up();
    memset(large, 'x', sizeof large - 1);
    w->clogged = true;
    set(0, large);
    set(1, large);
    w->clogged = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE));
    CHECK(w->link->output.room <= 1 << 20);
    take_down();
}

/* Whether the bytes stand in what the link wants to send. */
static bool wants_to_say(const struct rc_link *link, const char *text)
{
    size_t len = strlen(text), left = rc_buf_len(&link->output);
    for (const char *at = rc_buf_head(&link->output); left >= len; at++, left--) {
        if (memcmp(at, text, len) == 0)
            return true;
    }
    return false;
}

static void says_who_it_is_and_selects_its_database(void)
{
    set_up();
    peer_use(&client, "redis://me:secret@127.0.0.1/3");
    w->clogged = true;
    get(0);
    CHECK(wants_to_say(w->link, "$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n"));
    CHECK(wants_to_say(w->link, "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n" ASKS));
    w->clogged = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    take_down();
}

static void selects_the_first_database_too(void)
{
    set_up();
    w->clogged = true;
    get(0);
    CHECK(wants_to_say(w->link, "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n" ASKS));
    w->clogged = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_MISS));
    take_down();
}

static void lives_with_a_user_who_may_not_choose_a_database(void)
{
    static const char answers[] = "%0\r\n-NOPERM no permissions to run it\r\n" NO_INFO "+PONG\r\n";
    set_up();
    w->mute = true;
    get(0);
    peer_say(w, answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(rc_link_is_ready(w->link));
    w->mute = false;
    peer_cut(w, false);
    peer_use(&client, "redis://127.0.0.1/3");
    w->mute = true;
    peer_sleep(&server, 100);
    peer_say(w, answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(!rc_link_is_ready(w->link) && strstr(w->link->cause, "NOPERM") != NULL);
    w->mute = false;
    take_down();
}

/* Each list of answers is one of a connection that is not ours, or of no Redis: nothing may be sent
   over it. */
static void refuses_answers_that_are_not_those_of_a_handshake(void)
{
    static const char *const answers[][2] = {
        {"+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n", "HELLO"},
        {"*0\r\n+OK\r\n+PONG\r\n", "HELLO"},
        {"+OK\r\n+OK\r\n+PONG\r\n", "HELLO"},
        {"%0\r\n+QUEUED\r\n+PONG\r\n", "SELECT"},
        {"%0\r\n:1\r\n+PONG\r\n", "SELECT"},
        {"%0\r\n+OK\r\n+QUEUED\r\n+PONG\r\n", "INFO"},
        {"%0\r\n+OK\r\n" NO_INFO "+QUEUED\r\n", "PING"},
        {"%0\r\n+OK\r\n" NO_INFO "$4\r\nPONG\r\n", "PING"},
        {"%0\r\n+OK\r\n" NO_INFO "+PONGO\r\n", "PING"},
        {"%0\r\n+OK\r\n" NO_INFO "+OK\r\n", "PING"},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        set_up();
        w->mute = true;
        get(0);
        peer_say(w, answers[i][0], strlen(answers[i][0]));
        peer_run(&server);
        CHECK(!rc_link_is_ready(w->link));
        CHECK(strstr(w->link->cause, answers[i][1]) != NULL);
        w->mute = false;
        peer_sleep(&server, 100);
        CHECK(peer_ended(&ops[0], 0, RC_MISS)); /* the next connection is a good one */
        take_down();
    }
}

static void tells_at_once_that_there_is_no_such_database(void)
{
    static const char answers[] = "%0\r\n-ERR DB index is out of range\r\n";
    set_up();
    peer_use(&client, "redis://127.0.0.1/99");
    w->mute = true;
    get(0);
    peer_say(w, answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(failed(0, RC_ERR_REDIS, "ERR DB index is out of range"));
    take_down();
}

static void tells_of_a_cluster_that_it_has_no_such_database(void)
{
    static const char answers[] = "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n"
                                  "-ERR SELECT is not allowed in cluster mode\r\n";
    set_up();
    peer_use(&client, "redis://127.0.0.1/3");
    w->mute = true;
    get(0);
    peer_say(w, answers, sizeof answers - 1);
    peer_run(&server);
    CHECK(failed(0, RC_ERR_REDIS,
                 "the cluster has no database 3: ERR SELECT is not allowed in cluster mode (it has "
                 "0 alone, or on Valkey 9 and newer as many as its cluster-databases says)"));
    take_down();
}

static void does_not_trust_the_tracking_of_an_old_server(void)
{
    set_up();
    struct rc_link *t = client.conns[RC_LINK_T]->link;
    server.refusal = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.4\r\n";
    rc_link_want(t);
    peer_run(&server);
    CHECK(rc_link_is_ready(t) && !t->tracking && strstr(t->cause, "7.0.5") != NULL);
    server.refusal = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.5\r\n";
    rc_link_give_up(t, "once more");
    peer_sleep(&server, 100);
    CHECK(rc_link_is_ready(t) && t->tracking);
    take_down();
}

static void a_value_over_the_limit_is_refused_and_the_line_goes_on(void)
{
    rc_options options = peer_options();
    options.max_value_bytes = 10;
    set_up_with(&options);
    peer_put(&server, "key", "eleven byte", 11, -1);
    get(0);
    CHECK(has_value(0, "eleven byte")); /* a header would have room, too */
    peer_put(&server, "key", "as long as a header and eleven byte", 35, -1);
    get(1);
    CHECK(ops[1].finished == 1 && ops[1].op.result.status == RC_ERR_TOOLARGE);
    peer_load(&client, &ops[2], "key", 0, 1000, 5000, 2000);
    peer_run(&server);
    CHECK(ops[2].finished == 1 && ops[2].op.result.status == RC_ERR_TOOLARGE);
    CHECK(client.engine.context.stats.disconnects == 0);
    take_down();
}

int main(void)
{
    TEST(connects_with_the_first_request_only);
    TEST(is_ready_when_the_ping_is_answered);
    TEST(reads_from_a_server_that_can_not_save);
    TEST(takes_answers_in_any_pieces);
    TEST(sends_again_what_may_be_repeated);
    TEST(reports_unknown_outcome_for_a_set_cut_after_sending);
    TEST(sends_a_set_again_that_was_never_on_the_wire);
    TEST(refuses_over_the_queue_limit);
    TEST_SLOW(refuses_over_the_limit_of_bytes);
    TEST(ends_in_time_when_nobody_answers);
    TEST(a_late_answer_goes_to_nobody_else);
    TEST(gives_a_silent_connection_up_and_makes_a_new_one);
    TEST(gives_a_silent_connection_up_although_a_release_may_wait);
    TEST(pushes_do_not_prove_that_the_server_hears_us);
    TEST(waits_for_a_large_answer_that_comes_slowly);
    TEST(tries_again_less_and_less_often);
    TEST(fails_at_once_when_redis_has_been_away_for_long);
    TEST(gives_up_a_connect_that_goes_nowhere);
    TEST(tells_at_once_that_the_login_was_refused);
    TEST(garbage_fails_one_and_the_others_are_sent_again);
    TEST(garbage_for_a_set_leaves_its_outcome_unknown);
    TEST(an_answer_nobody_asked_for_ends_the_connection);
    TEST(an_answer_over_the_limit_fails_alone);
    TEST(sends_a_script_whole_when_redis_has_forgotten_it);
    TEST(does_not_run_a_script_for_somebody_who_left);
    TEST(looks_for_the_master_where_a_write_was_refused);
    TEST(a_refused_write_is_no_sign_where_the_server_is_a_master);
    TEST(gives_the_room_of_a_large_output_back);
    TEST(says_who_it_is_and_selects_its_database);
    TEST(selects_the_first_database_too);
    TEST(lives_with_a_user_who_may_not_choose_a_database);
    TEST(refuses_answers_that_are_not_those_of_a_handshake);
    TEST(tells_at_once_that_there_is_no_such_database);
    TEST(tells_of_a_cluster_that_it_has_no_such_database);
    TEST(does_not_trust_the_tracking_of_an_old_server);
    TEST(a_value_over_the_limit_is_refused_and_the_line_goes_on);
    return test_result();
}
