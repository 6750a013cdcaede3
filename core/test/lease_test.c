#include "engine/lease.h"

#include <string.h>

#include "engine/flight.h"
#include "test/peer.h"
#include "test/test.h"

enum { OPS = 12, TTL_MS = 3000, LOAD_MS = 60000, WAIT_MS = 20000 };

static struct peer_server server;
static struct peer_client near, far; /* two processes */
static struct peer_op ops[OPS];

static void set_up(void)
{
    peer_init(&server);
    memset(server.known, true, sizeof server.known);
    peer_open(&near, &server, NULL);
    peer_open(&far, &server, NULL);
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void take_down(void)
{
    peer_close(&far);
    peer_close(&near);
    CHECK(!server.went_round);
    for (int i = 0; i < OPS; i++)
        peer_op_deinit(&ops[i]);
    peer_deinit(&server);
}

static void load(struct peer_client *client, int i, uint32_t flags)
{
    peer_load(client, &ops[i], "key", flags, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
}

static void store(int i, const char *value, int64_t ttl_ms)
{
    peer_publish(&near, &ops[i], value, ttl_ms, 0);
    peer_run(&server);
}

/* Both connections are up. */
static void connect(struct peer_client *client)
{
    peer_load(client, &ops[OPS - 1], "other", 0, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
    peer_release(client, &ops[OPS - 1]);
    peer_run(&server);
}

static void put_value(const char *value, uint32_t stale_ms, int64_t ttl_ms)
{
    char bytes[200];
    rc_entry entry = {.kind = RC_KIND_VALUE, .stale_ms = stale_ms};
    rc_entry_write(bytes, &entry, "nonce-01");
    strcpy(bytes + RC_ENTRY_SIZE, value);
    peer_put(&server, "key", bytes, RC_ENTRY_SIZE + strlen(value), ttl_ms);
}

static bool is_at(int i, int outcome)
{
    return peer_ended(&ops[i], 0, outcome);
}

static bool has_value(int i, const char *value)
{
    return is_at(i, RC_HIT) && peer_says(&ops[i], value);
}

static void hits_what_is_there(void)
{
    set_up();
    put_value("one", 0, 5000);
    load(&near, 0, RC_WANT_TTL);
    CHECK(has_value(0, "one"));
    CHECK(ops[0].op.result.ttl_ms == 5000 && ops[0].op.result.flags == 0);
    CHECK(server.commands == 2);
    take_down();
}

static void gives_the_lease_on_a_miss_and_stores(void)
{
    set_up();
    load(&near, 0, 0);
    CHECK(is_at(0, RC_LOAD) && ops[0].op.result.flags == 0);
    CHECK(peer_has_lease(&server, "key") && peer_pttl(&server, "key") == TTL_MS);
    store(0, "one", 5000);
    CHECK(is_at(0, RC_STORED));
    CHECK(peer_pttl(&server, "key") == 5000);
    load(&far, 1, 0);
    CHECK(has_value(1, "one"));
    CHECK(near.engine.context.stats.active_leases == 0);
    take_down();
}

static void loads_once_for_all_who_wait_here(void)
{
    set_up();
    for (int i = 0; i < OPS; i++)
        load(&near, i, 0);
    CHECK(is_at(0, RC_LOAD));
    for (int i = 1; i < OPS; i++)
        CHECK(ops[i].finished == 0);
    store(0, "one", 5000);
    for (int i = 1; i < OPS; i++)
        CHECK(has_value(i, "one") && (ops[i].op.result.flags & RC_SHARED));
    CHECK(near.engine.context.stats.leases == 1);
    take_down();
}

static void wakes_those_who_wait_elsewhere_by_the_push(void)
{
    set_up();
    load(&near, 0, 0);
    load(&far, 1, 0);
    CHECK(ops[1].finished == 0);
    store(0, "one", 5000);
    CHECK(has_value(1, "one")); /* no time has passed */
    take_down();
}

static void takes_over_when_the_holder_dies_although_nobody_says_so(void)
{
    set_up();
    load(&near, 0, RC_NO_RENEW);
    near.conns[RC_LINK_W]->mute = true; /* it cannot even give the lease back */
    load(&far, 1, 0);
    peer_sleep(&server, TTL_MS - 1);
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, 100);
    CHECK(is_at(1, RC_LOAD));
    near.conns[RC_LINK_W]->mute = false;
    take_down();
}

/* A value loaded before somebody joined may be older than what that one knows. */
static void serves_only_callers_that_had_joined_when_the_request_was_sent(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    near.conns[RC_LINK_W]->deaf = true;
    store(0, "one", 5000);
    peer_unlink(&server, "key"); /* stored, and void again before anybody heard of it */
    load(&near, 2, RC_SCRIPT_FIRST | RC_WANT_TTL);
    near.conns[RC_LINK_W]->deaf = false;
    peer_run(&server);
    CHECK(is_at(0, RC_STORED));
    CHECK(has_value(1, "one"));
    CHECK(is_at(2, RC_LOAD));
    take_down();
}

static void does_not_hand_a_value_to_those_who_joined_behind_the_question(void)
{
    set_up();
    connect(&near);
    put_value("old", 0, 5000);
    near.conns[RC_LINK_T]->deaf = true;
    load(&near, 1, RC_SCRIPT_FIRST | RC_WANT_TTL); /* the answer "old" is on its way */
    put_value("new", 0, 5000);
    load(&near, 2, RC_SCRIPT_FIRST | RC_WANT_TTL);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(has_value(1, "old"));
    CHECK(has_value(2, "new"));
    take_down();
}

static void gives_the_lease_back_when_everybody_left(void)
{
    set_up();
    connect(&near);
    server.known[RC_SCRIPT_RELEASE] = false;
    near.conns[RC_LINK_T]->deaf = true;
    ops[0].op.ask.tag = 7;
    load(&near, 0, 0);
    CHECK(ops[0].finished == 0 && peer_has_lease(&server, "key"));
    CHECK(rc_engine_cancel(&near.engine, 7) == 1);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[0], RC_ERR_CANCELLED, RC_DONE));
    CHECK(!peer_has_lease(&server, "key")); /* although Redis had forgotten the script */
    CHECK(near.engine.leases.flights.count == 0);
    take_down();
}

/* With the one that asks out, the next one asks, or fails where there is no memory for that. */
static void cancels_all_who_wait_for_one_load(void)
{
    set_up();
    connect(&near);
    near.conns[RC_LINK_T]->deaf = true;
    for (int i = 0; i < 6; i++) {
        ops[i].op.ask.tag = i % 3 == 2 ? 8 : 7;
        load(&near, i, i % 2 == 0 ? RC_STRICT : 0);
    }
    int count = rc_engine_cancel(&near.engine, 7);
    CHECK(count == 4);
    CHECK(rc_engine_cancel(&near.engine, 7) == 0);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    for (int i = 0; i < 6; i++)
        CHECK(i % 3 == 2 || peer_ended(&ops[i], RC_ERR_CANCELLED, RC_DONE));
    CHECK(is_at(2, RC_LOAD));
    take_down();
}

static void gives_the_lease_back_over_the_next_connection(void)
{
    set_up();
    load(&near, 0, 0);
    peer_sleep(&server, 1);
    near.conns[RC_LINK_W]->mute = true;
    rc_engine_drop(&near.engine, &ops[0].op);
    peer_run(&server);
    CHECK(peer_has_lease(&server, "key"));
    peer_cut(near.conns[RC_LINK_W], false);
    near.conns[RC_LINK_W]->mute = false;
    peer_sleep(&server, 100);
    CHECK(!peer_has_lease(&server, "key"));
    take_down();
}

static void gives_the_lease_back_when_the_publish_is_cancelled_before_it_is_sent(void)
{
    set_up();
    load(&near, 0, RC_NO_RENEW);
    server.refuses = true;
    peer_cut(near.conns[RC_LINK_W], false);
    ops[0].op.ask.tag = 7;
    store(0, "one", 5000);
    CHECK(ops[0].finished == 0);
    CHECK(rc_engine_cancel(&near.engine, 7) == 1);
    server.refuses = false;
    peer_sleep(&server, 200);
    CHECK(peer_find(&server, "key") == NULL);
    take_down();
}

static void gives_the_lease_back_when_the_grant_was_not_heard(void)
{
    set_up();
    connect(&near);
    near.conns[RC_LINK_T]->deaf = true;
    load(&near, 0, RC_STRICT);
    CHECK(peer_has_lease(&server, "key"));
    server.refuses = true;
    peer_cut(near.conns[RC_LINK_T], true);
    peer_sleep(&server, 1000);
    CHECK(peer_ended(&ops[0], RC_ERR_UNAVAILABLE, RC_DONE));
    CHECK(!peer_has_lease(&server, "key"));
    near.conns[RC_LINK_T]->deaf = server.refuses = false;
    take_down();
}

static void passes_the_lease_on_when_the_leader_gives_up(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    peer_release(&near, &ops[0]);
    peer_run(&server);
    CHECK(is_at(0, RC_DONE));
    CHECK(is_at(1, RC_LOAD));
    CHECK(memcmp(ops[0].op.run.token, ops[1].op.run.token, RC_NONCE_SIZE) == 0);
    store(1, "one", 5000);
    CHECK(is_at(1, RC_STORED));
    take_down();
}

static void gives_the_next_leader_a_whole_lease_without_renewal(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, RC_NO_RENEW);
    peer_sleep(&server, 900);
    peer_release(&near, &ops[0]);
    peer_run(&server);
    CHECK(is_at(1, RC_LOAD));
    peer_sleep(&server, TTL_MS - 100);
    store(1, "one", 5000);
    CHECK(is_at(1, RC_STORED));
    take_down();
}

static void waiters_wake_when_tracking_breaks(void)
{
    set_up();
    load(&near, 0, 0);
    load(&far, 1, 0);
    unsigned asked = server.scripts[RC_SCRIPT_ACQUIRE];
    far.conns[RC_LINK_T]->deaf = true; /* the push does not get through ... */
    peer_unlink(&server, "key");
    peer_run(&server);
    CHECK(ops[1].finished == 0 && server.scripts[RC_SCRIPT_ACQUIRE] == asked);
    far.conns[RC_LINK_T]->deaf = false;
    peer_cut(far.conns[RC_LINK_T], false); /* ... and is lost with the connection */
    peer_sleep(&server, 100);
    CHECK(is_at(1, RC_LOAD));
    take_down();
}

static void looks_from_time_to_time_where_tracking_is_not_allowed(void)
{
    set_up();
    server.no_tracking = true;
    load(&near, 0, 0);
    load(&far, 1, 0);
    store(0, "one", 5000);
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, 200);
    CHECK(has_value(1, "one"));
    take_down();
}

static void beats_each_third_of_the_ttl(void)
{
    set_up();
    load(&near, 0, 0);
    peer_sleep(&server, TTL_MS * 10 + 500);
    CHECK(near.engine.context.stats.heartbeats == 30);
    CHECK(peer_has_lease(&server, "key") && peer_pttl(&server, "key") >= TTL_MS * 2 / 3 - 1);
    store(0, "one", 5000);
    CHECK(is_at(0, RC_STORED));
    take_down();
}

/* The one that asked for the lease wanted no renewal, and has gone before the answer came. */
static void a_lease_is_renewed_as_the_one_wants_who_loads(void)
{
    set_up();
    connect(&near);
    near.conns[RC_LINK_T]->deaf = true;
    ops[0].op.ask.tag = 7;
    load(&near, 0, RC_NO_RENEW);
    load(&near, 1, 0);
    CHECK(rc_engine_cancel(&near.engine, 7) == 1);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(is_at(1, RC_LOAD));
    peer_sleep(&server, TTL_MS * 2);
    CHECK(peer_has_lease(&server, "key"));
    store(1, "one", 5000);
    CHECK(is_at(1, RC_STORED));
    take_down();
}

static void heartbeats_end_after_max_load(void)
{
    set_up();
    peer_load(&near, &ops[0], "key", 0, TTL_MS, 5000, WAIT_MS);
    peer_run(&server);
    load(&far, 1, 0);
    peer_sleep(&server, 4900);
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, 1200);
    CHECK(is_at(1, RC_LOAD)); /* at once: the lease was given back */
    store(0, "late", 5000);
    CHECK(is_at(0, RC_UNSTORED) && ops[0].op.result.kind == RC_KIND_NONE);
    take_down();
}

static void an_old_heartbeat_does_not_end_the_next_lease(void)
{
    set_up();
    peer_load(&near, &ops[0], "key", 0, TTL_MS, 1500, WAIT_MS);
    peer_run(&server);
    load(&near, 1, 0);
    peer_sleep(&server, 999);
    near.conns[RC_LINK_W]->mute = true;
    peer_sleep(&server, 10); /* a heartbeat is under way */
    peer_unlink(&server, "key");
    rc_leases_abandon(&near.engine.leases, &ops[0].op); /* hands over */
    CHECK(near.engine.context.stats.heartbeats == 1);
    ops[1].op.ask.tag = 3;
    peer_run(&server);
    near.conns[RC_LINK_W]->mute = false;
    take_down();
}

static void a_deleted_lease_is_lost(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    peer_unlink(&server, "key");
    store(0, "old", 5000);
    CHECK(is_at(0, RC_UNSTORED) && ops[0].op.result.kind == RC_KIND_NONE);
    CHECK(is_at(1, RC_LOAD)); /* and not the old value */
    CHECK(peer_has_lease(&server, "key"));
    take_down();
}

static void gets_the_newer_value_that_stands_there(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    put_value("new", 0, 4000);
    store(0, "old", 5000);
    CHECK(is_at(0, RC_UNSTORED) && peer_says(&ops[0], "new"));
    CHECK(ops[0].op.result.ttl_ms == 4000);
    CHECK(has_value(1, "new"));
    take_down();
}

static void a_publish_may_be_repeated(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    near.conns[RC_LINK_W]->deaf = true;
    store(0, "one", 5000);
    peer_cut(near.conns[RC_LINK_W], true);
    near.conns[RC_LINK_W]->deaf = false;
    peer_sleep(&server, 100);
    CHECK(is_at(0, RC_STORED));
    CHECK(has_value(1, "one"));
    CHECK(server.scripts[RC_SCRIPT_PUBLISH] == 2);
    take_down();
}

static void shares_without_storing(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    store(0, "mine", 0);
    CHECK(is_at(0, RC_UNSTORED));
    CHECK(has_value(1, "mine"));
    CHECK(peer_find(&server, "key") == NULL);
    take_down();
}

static void tells_the_error_to_those_who_waited_for_that_load(void)
{
    set_up();
    load(&near, 0, 0);
    load(&near, 1, 0);
    load(&far, 2, 0);
    peer_fail(&near, &ops[0], "no such table", 0);
    peer_run(&server);
    CHECK(is_at(0, RC_DONE));
    CHECK(is_at(1, RC_FAILED) && peer_says(&ops[1], "no such table"));
    CHECK(is_at(2, RC_FAILED) && peer_says(&ops[2], "no such table"));
    load(&near, 3, 0); /* a caller that did not wait for it */
    CHECK(is_at(3, RC_LOAD));
    take_down();
}

static void does_not_wait_for_a_load_when_asked_not_to(void)
{
    set_up();
    load(&near, 0, RC_NO_WAIT);
    CHECK(is_at(0, RC_LOAD)); /* a lease that is free is taken */
    load(&near, 1, RC_NO_WAIT);
    load(&far, 2, RC_NO_WAIT);
    load(&far, 3, RC_NO_WAIT | RC_SCRIPT_FIRST);
    CHECK(is_at(1, RC_BUSY) && is_at(2, RC_BUSY) && is_at(3, RC_BUSY));
    load(&far, 4, 0); /* one that waits, and one that does not behind it */
    load(&far, 5, RC_NO_WAIT);
    CHECK(ops[4].finished == 0 && is_at(5, RC_BUSY));
    store(0, "one", 5000);
    CHECK(has_value(4, "one"));
    load(&far, 2, RC_NO_WAIT);
    CHECK(has_value(2, "one"));
    CHECK(near.engine.context.stats.active_leases == 0);
    CHECK(far.engine.context.running_ops == 0);
    take_down();
}

/* Two ask at once: one of them gets the lease. */
static void one_of_those_who_do_not_wait_gets_the_lease(void)
{
    set_up();
    connect(&near);
    peer_load(&near, &ops[0], "key", RC_NO_WAIT | RC_SCRIPT_FIRST, TTL_MS, LOAD_MS, WAIT_MS);
    peer_load(&near, &ops[1], "key", RC_NO_WAIT | RC_SCRIPT_FIRST, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
    CHECK(is_at(0, RC_LOAD) && is_at(1, RC_BUSY));
    store(0, "one", 5000);
    take_down();
}

static void who_did_not_wait_hears_how_that_load_failed(void)
{
    set_up();
    load(&near, 0, RC_NO_WAIT);
    load(&near, 1, RC_NO_WAIT);
    load(&far, 2, RC_NO_WAIT);
    CHECK(is_at(1, RC_BUSY) && is_at(2, RC_BUSY));
    peer_fail(&near, &ops[0], "no such table", 0);
    peer_run(&server);
    load(&near, 1, 0);
    load(&far, 2, RC_NO_WAIT);
    CHECK(is_at(1, RC_FAILED) && peer_says(&ops[1], "no such table"));
    CHECK(is_at(2, RC_FAILED) && peer_says(&ops[2], "no such table"));
    load(&far, 3, RC_NO_WAIT);
    CHECK(is_at(3, RC_LOAD));
    take_down();
}

/* What was sent over a connection that is lost may still be done, long after. */
static void a_lost_request_for_the_lease_revives_no_load(void)
{
    struct rc_buf lost;
    set_up();
    connect(&near);
    connect(&far);
    rc_buf_init(&lost);
    near.conns[RC_LINK_T]->mute = true;
    load(&near, 0, 0);
    CHECK(rc_buf_append(&lost, rc_buf_head(&near.conns[RC_LINK_T]->input),
                        rc_buf_len(&near.conns[RC_LINK_T]->input)) == 0);
    near.conns[RC_LINK_T]->mute = false;
    peer_cut(near.conns[RC_LINK_T], false);
    peer_sleep(&server, 100);
    CHECK(is_at(0, RC_LOAD)); /* asked again */
    peer_unlink(&server, "key");
    struct peer_conn *any = far.conns[RC_LINK_W];
    CHECK(rc_buf_append(&any->input, rc_buf_head(&lost), rc_buf_len(&lost)) == 0);
    peer_run(&server);
    CHECK(peer_has_lease(&server, "key"));
    store(0, "stale", 60000);
    CHECK(is_at(0, RC_UNSTORED));
    rc_buf_deinit(&lost);
    take_down();
}

/* Redis reads what a closed connection has sent, in its own time: here behind what another one has
   sent since, and before the next connection's handshake. */
static void execute_late(struct peer_conn *conn, struct peer_conn *other)
{
    struct rc_buf lost;
    rc_buf_init(&lost);
    CHECK(rc_buf_append(&lost, rc_buf_head(&conn->input), rc_buf_len(&conn->input)) == 0);
    unsigned before = server.scripts[RC_SCRIPT_RELEASE];
    rc_link_give_up(conn->link, "the server does not answer");
    conn->mute = false;
    peer_run(&server);
    CHECK(server.scripts[RC_SCRIPT_RELEASE] == before + 1); /* it was of no use yet */
    CHECK(rc_buf_append(&other->input, rc_buf_head(&lost), rc_buf_len(&lost)) == 0);
    rc_buf_deinit(&lost);
    peer_run(&server);
}

/* Nobody waits for it any more: its caller ran out of time, or has left. */
static void gives_a_lease_back_that_comes_behind_its_lost_connection(void)
{
    for (int leaves = 0; leaves < 2; leaves++) {
        set_up();
        connect(&near);
        connect(&far);
        struct peer_conn *t = near.conns[RC_LINK_T];
        t->mute = true;
        load(&near, 0, 0);
        if (leaves)
            rc_engine_drop(&near.engine, &ops[0].op);
        peer_sleep(&server, 600);
        CHECK(leaves || is_at(0, RC_LOAD)); /* without Redis */
        execute_late(t, far.conns[RC_LINK_W]);
        CHECK(peer_has_lease(&server, "key"));
        peer_sleep(&server, 100);
        CHECK(rc_link_is_ready(t->link) && !peer_has_lease(&server, "key"));
        take_down();
    }
}

static void remembers_an_error_when_asked_to(void)
{
    set_up();
    load(&near, 0, 0);
    peer_fail(&near, &ops[0], "no such table", 2000);
    peer_run(&server);
    load(&far, 1, 0);
    CHECK(is_at(1, RC_FAILED) && peer_says(&ops[1], "no such table"));
    load(&far, 2, RC_SCRIPT_FIRST);
    CHECK(is_at(2, RC_FAILED));
    peer_sleep(&server, 2001);
    load(&far, 3, 0);
    CHECK(is_at(3, RC_LOAD));
    take_down();
}

static void refreshes_while_others_read_the_stale_value(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_REFRESH) && peer_says(&ops[0], "old"));
    load(&near, 1, RC_WANT_TTL);
    load(&far, 2, RC_WANT_TTL);
    CHECK(has_value(1, "old") && (ops[1].op.result.flags & RC_STALE));
    CHECK(has_value(2, "old") && (ops[2].op.result.flags & RC_STALE));
    store(0, "new", 9000);
    CHECK(is_at(0, RC_STORED));
    load(&far, 3, RC_WANT_TTL);
    CHECK(has_value(3, "new") && ops[3].op.result.flags == 0);
    take_down();
}

static void a_caller_that_serves_takes_the_stale_value_and_no_lease(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL | RC_SERVE);
    CHECK(has_value(0, "old") && ops[0].op.result.flags == RC_STALE);
    CHECK(near.engine.context.stats.leases == 0 && server.commands == 2);
    load(&near, 1, RC_WANT_TTL | RC_SERVE | RC_SCRIPT_FIRST);
    CHECK(has_value(1, "old") && ops[1].op.result.flags == RC_STALE);
    load(&near, 2, RC_WANT_TTL); /* nobody refreshes it yet */
    CHECK(is_at(2, RC_LOAD) && (ops[2].op.result.flags & RC_REFRESH));
    peer_release(&near, &ops[2]);
    peer_run(&server);
    take_down();
}

/* peer_load asks for versions that begin with "nonc". */
static void an_early_refresh_is_had_once_and_of_that_version_alone(void)
{
    set_up();
    put_value("old", 0, 9000);
    load(&near, 0, RC_WANT_TTL | RC_SERVE | RC_EARLY);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_REFRESH) && peer_says(&ops[0], "old"));
    load(&near, 1, RC_WANT_TTL | RC_SERVE | RC_EARLY);
    load(&far, 2, RC_WANT_TTL | RC_SERVE | RC_EARLY);
    CHECK(has_value(1, "old") && has_value(2, "old"));
    CHECK(ops[2].op.result.number > 0 && ops[2].op.result.number <= TTL_MS);
    CHECK(ops[2].op.result.flags == RC_STALE);
    load(&far, 3, RC_WANT_TTL); /* for whom it is fresh */
    CHECK(has_value(3, "old") && ops[3].op.result.flags == 0);
    store(0, "new", 9000);
    CHECK(is_at(0, RC_STORED));
    load(&far, 4, RC_WANT_TTL | RC_SERVE | RC_EARLY);
    CHECK(has_value(4, "new") && ops[4].op.result.flags == 0);
    CHECK(near.engine.context.stats.leases == 1 && far.engine.context.stats.leases == 0);
    take_down();
}

static void an_early_refresh_of_what_is_gone_is_a_load(void)
{
    set_up();
    load(&near, 0, RC_WANT_TTL | RC_SERVE | RC_EARLY);
    CHECK(is_at(0, RC_LOAD) && ops[0].op.result.flags == 0);
    store(0, "one", 5000);
    CHECK(is_at(0, RC_STORED));
    take_down();
}

/* TTL_MS allows a margin of 250 ms before the end of what is refreshed. */
static void a_refresh_takes_the_place_of_a_value_that_ends(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_REFRESH));
    peer_sleep(&server, 3700);
    load(&far, 1, RC_WANT_TTL);
    CHECK(has_value(1, "old") && !peer_has_lease(&server, "key"));
    peer_sleep(&server, 100);
    CHECK(peer_has_lease(&server, "key"));
    peer_sleep(&server, 10 * TTL_MS); /* the heartbeats are for both keys now */
    CHECK(peer_has_lease(&server, "key"));
    load(&far, 2, RC_WANT_TTL);
    CHECK(ops[2].finished == 0); /* no second loader */
    store(0, "new", 9000);
    CHECK(is_at(0, RC_STORED) && has_value(2, "new"));
    take_down();
}

static void a_refresh_that_begins_near_the_end_takes_its_place_at_once(void)
{
    set_up();
    put_value("old", 5000, 200);
    load(&near, 0, RC_WANT_TTL);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_REFRESH) && peer_says(&ops[0], "old"));
    CHECK(peer_has_lease(&server, "key"));
    load(&far, 1, RC_WANT_TTL);
    CHECK(ops[1].finished == 0);
    peer_fail(&near, &ops[0], "down", 0);
    peer_run(&server);
    CHECK(is_at(1, RC_FAILED) && peer_says(&ops[1], "down")); /* not a load of its own */
    take_down();
}

static void a_deleted_value_is_not_taken_for_one_that_expired(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL);
    load(&near, 1, RC_PUT); /* waits for nothing: the value stands there */
    CHECK(is_at(1, RC_LOAD));
    peer_unlink(&server, "key");
    peer_sleep(&server, 10000);
    CHECK(peer_find(&server, "key") == NULL);
    store(0, "void", 5000);
    store(1, "void", 5000);
    CHECK(is_at(0, RC_UNSTORED) && is_at(1, RC_UNSTORED) && peer_find(&server, "key") == NULL);
    take_down();
}

static void a_newer_value_is_not_taken_for_the_old_one(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL);
    load(&near, 1, RC_PUT);
    peer_put(&server, "key", "somebody's", 10, 4000);
    peer_sleep(&server, 3999);
    CHECK(!peer_has_lease(&server, "key") && peer_find(&server, "key") != NULL);
    store(1, "put", 5000);
    store(0, "refreshed", 5000);
    CHECK(is_at(0, RC_UNSTORED) && is_at(1, RC_UNSTORED));
    take_down();
}

static void a_put_outlives_the_value_it_replaces(void)
{
    const uint32_t renewal[] = {0, RC_NO_RENEW};
    for (int i = 0; i < 2; i++) {
        set_up();
        put_value("old", 0, 1000);
        load(&near, 0, RC_PUT | renewal[i]);
        CHECK(is_at(0, RC_LOAD) && !peer_has_lease(&server, "key"));
        peer_sleep(&server, 2000);
        CHECK(peer_has_lease(&server, "key"));
        CHECK(i == 0 || peer_pttl(&server, "key") == TTL_MS - 2000); /* no longer than granted */
        store(0, "put", 5000);
        CHECK(is_at(0, RC_STORED) && peer_pttl(&server, "key") == 5000);
        take_down();
    }
}

static void a_cover_that_is_not_heard_of_is_asked_for_again(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&near, 0, RC_WANT_TTL);
    peer_sleep(&server, 3740);
    near.conns[RC_LINK_W]->mute = true;
    peer_sleep(&server, 20);
    CHECK(near.engine.context.stats.heartbeats == 4); /* one for the cover */
    near.conns[RC_LINK_W]->mute = false;
    peer_cut(near.conns[RC_LINK_W], false);
    peer_sleep(&server, 200);
    CHECK(peer_has_lease(&server, "key"));
    store(0, "new", 9000);
    CHECK(is_at(0, RC_STORED));
    take_down();
}

static void replaces_what_its_caller_cannot_read(void)
{
    set_up();
    put_value("odd", 0, -1);
    peer_get(&near, &ops[0], "key", 0);
    peer_run(&server);
    for (int i = 1; i < 4; i++) {
        memcpy(ops[i].op.run.seen, i == 3 ? "nonce-00" : "nonce-01", RC_NONCE_SIZE);
        ops[i].op.run.seen_len = RC_NONCE_SIZE;
    }
    load(&near, 3, RC_REPLACE); /* what it saw is gone: another one is a hit */
    CHECK(has_value(3, "odd"));
    peer_load(&near, &ops[3], "key", RC_SCRIPT_FIRST, TTL_MS, LOAD_MS, WAIT_MS);
    load(&near, 1, RC_REPLACE); /* joins behind one that can read it */
    CHECK(has_value(3, "odd") && is_at(1, RC_LOAD) && peer_has_lease(&server, "key"));
    load(&far, 2, RC_REPLACE);
    CHECK(ops[2].finished == 0);
    store(1, "new", 5000);
    CHECK(is_at(1, RC_STORED) && has_value(2, "new"));
    take_down();
}

static void survives_a_refresh_whose_caller_left(void)
{
    set_up();
    put_value("old", 5000, 4000);
    load(&far, 1, RC_WANT_TTL); /* has the refresh */
    peer_get(&near, &ops[2], "key", 0);
    peer_run(&server);
    near.conns[RC_LINK_W]->mute = true;
    ops[0].op.ask.tag = 7;
    load(&near, 0, RC_WANT_TTL);
    struct peer_conn *w = near.conns[RC_LINK_W];
    w->mute = false;
    w->deaf = true;
    peer_run(&server); /* the value is known, the refresh asked for */
    w->deaf = false;
    peer_run(&server);
    CHECK(ops[0].finished == 1);
    /* The same with the answer to the refresh still on its way. */
    peer_load(&near, &ops[3], "key", RC_WANT_TTL, TTL_MS, LOAD_MS, 1);
    peer_run(&server);
    CHECK(has_value(3, "old"));
    peer_load(&near, &ops[4], "key", RC_WANT_TTL, TTL_MS, LOAD_MS, 50);
    rc_engine_set_time(&near.engine, server.now_us);
    rc_engine_run(&near.engine);
    struct rc_link *link = w->link;
    CHECK(rc_buf_append(&w->input, rc_buf_head(&link->output), rc_buf_len(&link->output)) == 0);
    rc_link_sent(link, rc_buf_len(&link->output));
    static const char answer[] =
        "$27\r\n\xfb\x01\x01\0\0\0\0\0nonce-01\x88\x13\0\0\0\0\0\0old\r\n:9\r\n";
    rc_buf_clear(&w->input);
    rc_link_feed(link, answer, sizeof answer - 1); /* soft-expired: it asks for the refresh */
    CHECK(ops[4].finished == 0);
    w->mute = true;
    peer_sleep(&server, 60);
    CHECK(peer_ended(&ops[4], RC_ERR_TIMEOUT, RC_DONE));
    w->mute = false;
    peer_run(&server); /* {0}, and nobody is left */
    CHECK(near.engine.leases.flights.count == 0);
    take_down();
}

static void waits_before_it_repeats_a_failed_refresh(void)
{
    set_up();
    put_value("old", 50000, 40000);
    load(&near, 0, RC_WANT_TTL);
    peer_fail(&near, &ops[0], "down", 0);
    peer_run(&server);
    load(&far, 1, RC_WANT_TTL);
    CHECK(has_value(1, "old") && (ops[1].op.result.flags & RC_STALE));
    peer_sleep(&server, TTL_MS + 1);
    load(&far, 2, RC_WANT_TTL);
    CHECK(is_at(2, RC_LOAD) && (ops[2].op.result.flags & RC_REFRESH));
    take_down();
}

static void a_put_waits_for_the_load_and_voids_nothing_newer(void)
{
    set_up();
    load(&far, 0, 0);
    load(&near, 1, RC_PUT);
    CHECK(ops[1].finished == 0);
    peer_publish(&far, &ops[0], "loaded", 5000, 0);
    peer_run(&server);
    CHECK(is_at(0, RC_STORED));
    CHECK(is_at(1, RC_LOAD)); /* never a hit */
    store(1, "put", 5000);
    CHECK(is_at(1, RC_STORED));
    load(&near, 2, RC_PUT);
    peer_unlink(&server, "key");
    store(2, "old", 5000);
    CHECK(is_at(2, RC_UNSTORED) && peer_find(&server, "key") == NULL);
    take_down();
}

static void loads_without_redis_and_shares_for_a_moment(void)
{
    set_up();
    server.refuses = true;
    load(&near, 0, 0);
    peer_sleep(&server, 1);
    load(&near, 1, 0);
    peer_sleep(&server, 500);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_DEGRADED));
    store(0, "alone", 5000);
    CHECK(is_at(0, RC_UNSTORED));
    CHECK(has_value(1, "alone") && (ops[1].op.result.flags & RC_DEGRADED));
    load(&near, 2, 0);
    CHECK(has_value(2, "alone"));
    peer_sleep(&server, 1001);
    load(&near, 3, 0);
    CHECK(is_at(3, RC_LOAD));
    peer_release(&near, &ops[3]);
    peer_run(&server);
    CHECK(near.engine.leases.served_bytes == 0);
    take_down();
}

static void forgets_what_was_loaded_without_redis_when_it_is_back(void)
{
    set_up();
    server.refuses = true;
    load(&near, 0, 0);
    peer_sleep(&server, 501);
    store(0, "alone", 5000);
    server.refuses = false;
    peer_sleep(&server, 900);
    load(&near, 1, 0);
    CHECK(is_at(1, RC_LOAD) && !(ops[1].op.result.flags & RC_DEGRADED));
    CHECK(near.engine.leases.served_bytes == 0);
    take_down();
}

static void bounds_what_it_shares_by_all_it_takes(void)
{
    char key[16];
    set_up();
    near.engine.leases.served_bytes = 16 * 1024 * 1024 - 4 * sizeof(struct rc_flight);
    server.refuses = true;
    for (int i = 0; i < OPS; i++) {
        snprintf(key, sizeof key, "key%d", i);
        peer_load(&near, &ops[i], key, 0, TTL_MS, LOAD_MS, WAIT_MS);
    }
    peer_sleep(&server, 501);
    for (int i = 0; i < OPS; i++)
        store(i, "", 5000);
    CHECK(near.engine.leases.flights.count == 3);
    peer_sleep(&server, 1001);
    CHECK(near.engine.leases.flights.count == 0);
    CHECK(near.engine.leases.served_bytes == 16 * 1024 * 1024 - 4 * sizeof(struct rc_flight));
    take_down();
}

static void tells_the_cause_to_those_who_insist_on_redis(void)
{
    set_up();
    server.refuses = true;
    load(&near, 0, RC_STRICT);
    load(&near, 1, RC_PUT);
    peer_sleep(&server, 501);
    CHECK(peer_ended(&ops[0], RC_ERR_UNAVAILABLE, RC_DONE));
    CHECK(peer_says(&ops[0], "Connection refused"));
    CHECK(peer_ended(&ops[1], RC_ERR_UNAVAILABLE, RC_DONE));
    take_down();
}

static void ends_by_its_own_timeout(void)
{
    set_up();
    load(&near, 0, 0);
    peer_load(&far, &ops[1], "key", 0, TTL_MS, LOAD_MS, 700);
    peer_sleep(&server, 699);
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, 1);
    CHECK(peer_ended(&ops[1], RC_ERR_TIMEOUT, RC_DONE));
    CHECK(far.engine.leases.flights.count == 0);
    take_down();
}

static void an_error_from_redis_does_not_keep_anybody_from_loading(void)
{
    set_up();
    connect(&near);
    server.error = "-OOM command not allowed when used memory > 'maxmemory'";
    server.errors = 100;
    load(&near, 0, 0);
    CHECK(is_at(0, RC_LOAD) && (ops[0].op.result.flags & RC_DEGRADED));
    load(&near, 1, RC_STRICT | RC_SCRIPT_FIRST);
    peer_release(&near, &ops[0]);
    peer_run(&server);
    CHECK(ops[1].finished == 1 && ops[1].op.result.status == RC_ERR_REDIS);
    CHECK(ops[1].op.result.len > 4 && memcmp(ops[1].op.result.data, "OOM ", 4) == 0);
    server.errors = 0;
    take_down();
}

static void closing_ends_everybody_and_gives_leases_back(void)
{
    set_up();
    for (int i = 0; i < 4; i++)
        load(&near, i, 0);
    peer_load(&near, &ops[4], "other", 0, TTL_MS, LOAD_MS, WAIT_MS);
    peer_run(&server);
    near.conns[RC_LINK_W]->deaf = true;
    store(0, "one", 5000); /* in the middle of its publish, and others wait behind */
    load(&near, 5, RC_SCRIPT_FIRST);
    load(&near, 6, RC_SCRIPT_FIRST);
    rc_engine_close(&near.engine);
    peer_run(&server);
    for (int i = 0; i < 7; i++)
        CHECK(i == 4 || peer_ended(&ops[i], RC_ERR_CLOSED, RC_DONE));
    CHECK(peer_find(&server, "other") == NULL);
    near.conns[RC_LINK_W]->deaf = false;
    peer_run(&server);
    CHECK(rc_engine_is_drained(&near.engine));
    store(4, "late", 1000);
    CHECK(peer_ended(&ops[4], RC_ERR_CLOSED, RC_DONE));
    take_down();
}

static void a_hostile_ttl_of_a_lease_does_no_harm(void)
{
    static const char answer[] = "*3\r\n:0\r\n:9223372036854775807\r\n$8\r\nabcdefgh\r\n";
    set_up();
    load(&near, 0, 0);
    load(&far, 1, 0);
    far.conns[RC_LINK_T]->mute = true;
    peer_unlink(&server, "key");
    peer_run(&server);
    peer_say(far.conns[RC_LINK_T], answer, sizeof answer - 1);
    peer_run(&server);
    rc_buf_clear(&far.conns[RC_LINK_T]->input);
    far.conns[RC_LINK_T]->mute = false;
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, WAIT_MS);
    CHECK(ops[1].finished == 1);
    take_down();
}

int main(void)
{
    TEST(hits_what_is_there);
    TEST(gives_the_lease_on_a_miss_and_stores);
    TEST(loads_once_for_all_who_wait_here);
    TEST(wakes_those_who_wait_elsewhere_by_the_push);
    TEST(takes_over_when_the_holder_dies_although_nobody_says_so);
    TEST(serves_only_callers_that_had_joined_when_the_request_was_sent);
    TEST(does_not_hand_a_value_to_those_who_joined_behind_the_question);
    TEST(gives_the_lease_back_when_everybody_left);
    TEST(cancels_all_who_wait_for_one_load);
    TEST(gives_the_lease_back_over_the_next_connection);
    TEST(gives_the_lease_back_when_the_publish_is_cancelled_before_it_is_sent);
    TEST(gives_the_lease_back_when_the_grant_was_not_heard);
    TEST(passes_the_lease_on_when_the_leader_gives_up);
    TEST(gives_the_next_leader_a_whole_lease_without_renewal);
    TEST(waiters_wake_when_tracking_breaks);
    TEST(looks_from_time_to_time_where_tracking_is_not_allowed);
    TEST(beats_each_third_of_the_ttl);
    TEST(a_lease_is_renewed_as_the_one_wants_who_loads);
    TEST(heartbeats_end_after_max_load);
    TEST(an_old_heartbeat_does_not_end_the_next_lease);
    TEST(a_deleted_lease_is_lost);
    TEST(gets_the_newer_value_that_stands_there);
    TEST(a_publish_may_be_repeated);
    TEST(shares_without_storing);
    TEST(tells_the_error_to_those_who_waited_for_that_load);
    TEST(does_not_wait_for_a_load_when_asked_not_to);
    TEST(one_of_those_who_do_not_wait_gets_the_lease);
    TEST(who_did_not_wait_hears_how_that_load_failed);
    TEST(a_lost_request_for_the_lease_revives_no_load);
    TEST(gives_a_lease_back_that_comes_behind_its_lost_connection);
    TEST(remembers_an_error_when_asked_to);
    TEST(refreshes_while_others_read_the_stale_value);
    TEST(a_caller_that_serves_takes_the_stale_value_and_no_lease);
    TEST(an_early_refresh_is_had_once_and_of_that_version_alone);
    TEST(an_early_refresh_of_what_is_gone_is_a_load);
    TEST(a_refresh_takes_the_place_of_a_value_that_ends);
    TEST(a_refresh_that_begins_near_the_end_takes_its_place_at_once);
    TEST(a_deleted_value_is_not_taken_for_one_that_expired);
    TEST(a_newer_value_is_not_taken_for_the_old_one);
    TEST(a_put_outlives_the_value_it_replaces);
    TEST(a_cover_that_is_not_heard_of_is_asked_for_again);
    TEST(replaces_what_its_caller_cannot_read);
    TEST(survives_a_refresh_whose_caller_left);
    TEST(waits_before_it_repeats_a_failed_refresh);
    TEST(a_put_waits_for_the_load_and_voids_nothing_newer);
    TEST(loads_without_redis_and_shares_for_a_moment);
    TEST(forgets_what_was_loaded_without_redis_when_it_is_back);
    TEST(bounds_what_it_shares_by_all_it_takes);
    TEST(tells_the_cause_to_those_who_insist_on_redis);
    TEST(ends_by_its_own_timeout);
    TEST(an_error_from_redis_does_not_keep_anybody_from_loading);
    TEST(closing_ends_everybody_and_gives_leases_back);
    TEST(a_hostile_ttl_of_a_lease_does_no_harm);
    return test_result();
}
