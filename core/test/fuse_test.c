#include "engine/fuse.h"

#include <string.h>

#include "test/peer.h"
#include "test/test.h"

static struct peer_server server;
static struct peer_client client;
static struct peer_op op;

static void set_up(void)
{
    rc_options options = peer_options();
    options.breaker = 1;
    options.breaker_window = 20;
    options.breaker_errors = 500;
    options.breaker_latency_ms = 60000;
    options.breaker_wait_ms = 250;
    options.breaker_probes = 3;
    peer_init(&server);
    peer_open(&client, &server, &options);
    peer_op_init(&op);
    peer_get(&client, &op, "key", 0);
    peer_run(&server);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, &op, 1));
}

static void stand_still(bool still)
{
    for (int i = 0; i < PEER_LINKS; i++)
        client.conns[i]->mute = still;
    server.silent = still;
}

static bool is_open(void)
{
    return rc_breaker_is_shut(&client.engine.topology.node.fuse.breaker);
}

static int64_t ms_until_closed(void)
{
    int64_t ms = 0;
    while (is_open() && ms < 5000) {
        peer_sleep(&server, 1);
        ms++;
    }
    return ms;
}

/* A second time-out would be one too many. */
static void opens_at_the_first_time_out_of_a_silent_server(void)
{
    set_up();
    stand_still(true);
    peer_get(&client, &op, "key", 0);
    peer_sleep(&server, 499);
    CHECK(!is_open());
    peer_sleep(&server, 1);
    CHECK(is_open());
    peer_get(&client, &op, "key", 0);
    peer_run(&server);
    CHECK(op.op.result.status == RC_ERR_UNAVAILABLE);
    stand_still(false);
    take_down();
}

/* Whatever its connection was doing when the server came back: a new one is made within 500 ms, and
   then the server is probed at once. */
static void closes_within_half_a_second_of_its_servers_return(void)
{
    int64_t most_ms = 0;
    for (int64_t frozen_ms = 600; frozen_ms < 5000; frozen_ms += 190) {
        set_up();
        stand_still(true);
        peer_get(&client, &op, "key", 0);
        peer_sleep(&server, frozen_ms);
        CHECK(is_open());
        stand_still(false);
        int64_t ms = ms_until_closed();
        most_ms = ms > most_ms ? ms : most_ms;
        take_down();
    }
    CHECK(most_ms <= 502);
}

/* Nothing is slow for this one: an answer in time is a good one. */
static void closes_for_a_server_that_is_far_away(void)
{
    set_up();
    stand_still(true);
    peer_get(&client, &op, "key", 0);
    peer_sleep(&server, 500);
    for (int i = 0; i < 20 && is_open(); i++) {
        stand_still(true);
        peer_sleep(&server, 300); /* on the way */
        stand_still(false);
        peer_run(&server);
    }
    CHECK(!is_open());
    take_down();
}

int main(void)
{
    TEST(opens_at_the_first_time_out_of_a_silent_server);
    TEST(closes_within_half_a_second_of_its_servers_return);
    TEST(closes_for_a_server_that_is_far_away);
    return test_result();
}
