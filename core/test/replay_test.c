#include "engine/replay.h"

#include <string.h>

#include "test/peer.h"
#include "test/test.h"

static struct peer_server server;
static struct peer_client client;
static struct peer_op op;
static struct peer_conn *w;

static void set_up(void)
{
    peer_init(&server);
    peer_open(&client, &server, NULL);
    peer_op_init(&op);
    w = client.conns[RC_LINK_W];
}

static void take_down(void)
{
    peer_close(&client);
    CHECK(!server.went_round);
    peer_op_deinit(&op);
    peer_deinit(&server);
}

static void delete (const char *key)
{
    peer_delete(&client, &op, key);
    peer_run(&server);
}

static void repeats_recent_deletes_on_the_next_connection(void)
{
    set_up();
    peer_put(&server, "a", "1", 1, -1);
    delete ("a");
    delete ("b");
    CHECK(peer_ended(&op, 0, RC_DONE) && op.op.result.number == 0);
    peer_put(&server, "a", "old", 3, -1); /* a failover has brought it back */
    peer_cut(w, true);
    peer_sleep(&server, 100);
    CHECK(peer_find(&server, "a") == NULL);
    CHECK(server.unlinks == 4);
    peer_sleep(&server, 1000);
    CHECK(server.unlinks == 4);
    take_down();
}

static void repeats_them_again_if_that_connection_breaks_too(void)
{
    set_up();
    delete ("a");
    for (int i = 0; i < 3; i++) {
        peer_cut(w, true);
        peer_sleep(&server, 100);
    }
    CHECK(server.unlinks == 4);
    take_down();
}

static void forgets_them_after_ten_seconds(void)
{
    set_up();
    delete ("a");
    peer_sleep(&server, 6000);
    delete ("b");
    peer_sleep(&server, 5000);
    peer_cut(w, true);
    peer_sleep(&server, 100);
    CHECK(server.unlinks == 3);
    take_down();
}

static void does_not_repeat_on_the_same_connection(void)
{
    set_up();
    for (int i = 0; i < 10; i++)
        delete ("a");
    CHECK(server.unlinks == 10);
    take_down();
}

static void is_bounded_in_number_and_bytes(void)
{
    static char key[2000];
    set_up();
    for (int i = 0; i < 3 * RC_REPLAY_ENTRIES; i++)
        delete ("a");
    memset(key, 'k', sizeof key - 1);
    for (int i = 0; i < 2000; i++) {
        delete (key);
        if (!CHECK(client.engine.replay.bytes <= RC_REPLAY_BYTES))
            break;
    }
    unsigned before = server.unlinks;
    peer_cut(w, true);
    peer_sleep(&server, 100);
    unsigned again = server.unlinks - before;
    CHECK(again > 400 && again <= RC_REPLAY_ENTRIES);
    take_down();
}

static void a_very_long_delete_is_not_kept(void)
{
    static char key[RC_REPLAY_BYTES / 2];
    set_up();
    delete ("a");
    memset(key, 'k', sizeof key - 1);
    delete (key);
    CHECK(peer_ended(&op, 0, RC_DONE));
    CHECK(client.engine.replay.bytes < 100);
    take_down();
}

int main(void)
{
    TEST(repeats_recent_deletes_on_the_next_connection);
    TEST(repeats_them_again_if_that_connection_breaks_too);
    TEST(forgets_them_after_ten_seconds);
    TEST(does_not_repeat_on_the_same_connection);
    TEST(is_bounded_in_number_and_bytes);
    TEST(a_very_long_delete_is_not_kept);
    return test_result();
}
