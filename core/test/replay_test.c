#include "engine/replay.h"

#include <stdio.h>
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
    CHECK(peer_take_down(&client, &op, 1));
}

/* An entry with a header: its version is the number, eight digits. */
static size_t write_entry(char entry[64], unsigned version)
{
    rc_entry header = {.kind = RC_KIND_VALUE};
    char nonce[RC_NONCE_SIZE + 1];
    snprintf(nonce, sizeof nonce, "%08u", version);
    rc_entry_write(entry, &header, nonce);
    return RC_ENTRY_SIZE + (size_t)snprintf(entry + RC_ENTRY_SIZE, 16, "v%u", version);
}

static void put(const char *key, unsigned version)
{
    char entry[64];
    peer_put(&server, key, entry, write_entry(entry, version), -1);
}

static bool has(const char *key, unsigned version)
{
    char entry[64];
    size_t len = write_entry(entry, version);
    const struct peer_key *found = peer_find(&server, key);
    return found != NULL && rc_buf_len(&found->value) == len &&
           memcmp(rc_buf_head(&found->value), entry, len) == 0;
}

static void read_it(const char *key)
{
    peer_get(&client, &op, key, 0);
    peer_run(&server);
    CHECK(op.op.result.status == 0);
}

static void delete (const char *key)
{
    peer_delete(&client, &op, key);
    peer_run(&server);
    CHECK(peer_ended(&op, 0, RC_DONE));
}

static void set(const char *key, const char *value)
{
    peer_set(&client, &op, key, value, -1);
    peer_run(&server);
    CHECK(peer_ended(&op, 0, RC_DONE));
}

static void reconnect(void)
{
    peer_cut(w, true);
    peer_sleep(&server, 100);
    CHECK(rc_link_is_ready(w->link));
}

/* Another server behind the address; its keys are what the test makes of them. */
static void fail_over(void)
{
    server.run++;
    server.earlier = server.history++;
    reconnect();
}

static unsigned sent_again(void)
{
    return server.scripts[RC_SCRIPT_UNLINK_VERSION];
}

static uint64_t lost(void)
{
    return client.engine.context.stats.deletes_lost;
}

static void deletes_again_what_a_failover_brought_back(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 1); /* of the replica, which had not heard of it */
    fail_over();
    CHECK(peer_find(&server, "a") == NULL && sent_again() == 1 && lost() == 0);
    peer_sleep(&server, 1000);
    CHECK(sent_again() == 1);
    take_down();
}

/* Each of these ends a connection, and loses nothing. */
static void a_connection_that_ends_removes_nothing(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 1); /* somebody has put the very value back */
    reconnect();
    server.history++; /* its first replica has come; or the last one has left an hour ago */
    reconnect();
    CHECK(has("a", 1) && sent_again() == 0 && server.unlinks == 1 && lost() == 0);
    take_down();
}

static void a_newer_value_wins_and_the_lost_delete_is_counted(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 2);
    fail_over();
    CHECK(has("a", 2) && sent_again() == 1 && lost() == 1);
    take_down();
}

static void a_value_without_a_version_is_left_alone_and_counted(void)
{
    set_up();
    set("a", "plain");
    read_it("a");
    delete ("a");
    peer_put(&server, "a", "plain", 5, -1);
    fail_over();
    CHECK(peer_find(&server, "a") != NULL && sent_again() == 0 && lost() == 1);
    take_down();
}

static void a_write_acknowledged_since_wins(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    set("a", "precious");
    fail_over();
    CHECK(peer_find(&server, "a") != NULL && sent_again() == 1 && lost() == 0);
    put("a", 1); /* and where that is lost, too, the old value must not be back */
    fail_over();
    CHECK(peer_find(&server, "a") == NULL && lost() == 0);
    take_down();
}

/* What was read behind the delete was not deleted by it. */
static void a_version_seen_behind_the_delete_is_not_its(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 2);
    read_it("a");
    fail_over();
    CHECK(has("a", 2) && lost() == 1);
    take_down();
}

static void the_first_version_counts_where_a_key_is_deleted_twice(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("b", 2);
    read_it("b");
    delete ("a");
    put("a", 1);
    fail_over();
    CHECK(peer_find(&server, "a") == NULL && has("b", 2) && sent_again() == 1);
    take_down();
}

static void a_server_that_took_over_other_data_has_lost_it(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 1);
    /* The same process: it was a replica for a while, and is a master again. */
    server.earlier = 7;
    server.history = 8;
    reconnect();
    CHECK(peer_find(&server, "a") == NULL && sent_again() == 1);
    take_down();
}

static void waits_for_a_master(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 1);
    server.is_replica = true;
    fail_over();
    CHECK(has("a", 1) && sent_again() == 0);
    server.is_replica = false;
    reconnect();
    CHECK(peer_find(&server, "a") == NULL && sent_again() == 1);
    take_down();
}

static void proves_nothing_without_knowing_the_server(void)
{
    set_up();
    server.no_info = true;
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 1);
    fail_over();
    CHECK(has("a", 1) && sent_again() == 0 && lost() == 0);
    take_down();
}

static void sends_it_once_more_after_another_failover(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    for (int i = 0; i < 3; i++) {
        put("a", 1);
        fail_over();
        CHECK(peer_find(&server, "a") == NULL);
    }
    CHECK(sent_again() == 3);
    take_down();
}

static void forgets_it_after_ten_seconds(void)
{
    set_up();
    put("a", 1);
    put("b", 2);
    read_it("a");
    read_it("b");
    delete ("a");
    peer_sleep(&server, 6000);
    delete ("b");
    peer_sleep(&server, 5000);
    put("a", 1);
    put("b", 2);
    fail_over();
    CHECK(has("a", 1) && peer_find(&server, "b") == NULL && lost() == 0);
    take_down();
}

static void a_delete_that_failed_is_not_noted(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    server.error = "-NOPERM no";
    server.errors = 1;
    peer_delete(&client, &op, "a");
    peer_run(&server);
    CHECK(op.op.result.status == RC_ERR_REDIS);
    fail_over();
    CHECK(has("a", 1) && sent_again() == 0 && lost() == 0);
    take_down();
}

/* What a failed delete was about is no business of the one before it. */
static void a_delete_that_failed_behind_another_changes_nothing(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    delete ("a");
    put("a", 2);
    read_it("a");
    server.error = "-NOPERM no";
    server.errors = 1;
    peer_delete(&client, &op, "a");
    peer_run(&server);
    CHECK(op.op.result.status == RC_ERR_REDIS);
    fail_over();
    CHECK(has("a", 2) && lost() == 1);
    put("a", 1);
    fail_over();
    CHECK(peer_find(&server, "a") == NULL);
    take_down();
}

static void a_delete_whose_slot_goes_away_is_not_noted(void)
{
    set_up();
    put("a", 1);
    read_it("a");
    w->mute = true;
    peer_delete(&client, &op, "a");
    peer_run(&server);
    rc_engine_drop(&client.engine, &op.op);
    w->mute = false;
    peer_run(&server);
    put("a", 1);
    fail_over();
    CHECK(has("a", 1) && sent_again() == 0 && lost() == 0);
    CHECK(client.engine.topology.node.replay.by_key.count == 0);
    take_down();
}

/* What is over the bounds is counted as lost: who deletes more in ten seconds is told. */
static void is_bounded_in_number_and_bytes(void)
{
    static char key[2000];
    set_up();
    for (int i = 0; i < RC_REPLAY_ENTRIES + 100; i++) {
        snprintf(key, sizeof key, "key%d", i);
        peer_delete(&client, &op, "key"); /* the peer has room for few keys: */
        rc_buf_clear(&op.op.ask.key);     /* another name for the engine only */
        CHECK(rc_buf_append(&op.op.ask.key, key, strlen(key)) == 0);
        peer_run(&server);
    }
    rc_replay_begin(&client.engine.topology.node.replay, -1, "one", 3, NULL);
    memset(key, 'k', sizeof key - 1);
    for (int i = 0; i < 1000; i++) {
        memcpy(key, &i, sizeof i);
        rc_replay_begin(&client.engine.topology.node.replay, -1, key, sizeof key - 1, NULL);
        rc_replay_end(&client.engine.topology.node.replay, key, sizeof key - 1, true);
        if (!CHECK(client.engine.topology.node.replay.bytes <= RC_REPLAY_BYTES))
            break;
    }
    size_t kept = client.engine.topology.node.replay.by_key.count;
    CHECK(kept > 400 && kept <= RC_REPLAY_ENTRIES);
    fail_over();
    CHECK(sent_again() == 0 && lost() >= 1000);
    take_down();
}

static struct rc_replay *find_home(void *owner, uint16_t slot)
{
    (void)slot;
    return owner;
}

/* What is carried makes room as what is new does, the oldest of both first; and what found none is
   told of once its server is lost. */
static void what_is_carried_is_bounded_too(void)
{
    struct rc_replay from, to;
    const struct rc_replay_homes homes = {&to, find_home};
    char key[16];
    set_up();
    set("a", "a");
    struct rc_context *context = &client.engine.context;
    rc_replay_init(&from, context);
    rc_replay_init(&to, context);
    from.server = w->link->identity;
    for (int i = 0; i < 2 * RC_REPLAY_ENTRIES; i++) {
        struct rc_replay *at = i % 4 != 3 ? &from : &to; /* 1,536 and 512 */
        snprintf(key, sizeof key, "key%d", i);
        context->now_us++;
        rc_replay_begin(at, 1, key, strlen(key), "version0");
        rc_replay_end(at, key, strlen(key), true);
    }
    size_t kept = from.by_key.count, had = to.by_key.count;
    rc_replay_carry(&from, &homes);
    CHECK(from.by_key.count == 0 && from.bytes == 0 && to.has_come);
    if (CHECK(kept == RC_REPLAY_ENTRIES && had == RC_REPLAY_ENTRIES / 2)) {
        CHECK(to.by_key.count == RC_REPLAY_ENTRIES && to.squeezed == RC_REPLAY_ENTRIES);
        for (int i = 2 * RC_REPLAY_ENTRIES - 1; i >= RC_REPLAY_ENTRIES; i--) {
            snprintf(key, sizeof key, "key%d", i);
            if (!CHECK(rc_replay_known(&to, key, strlen(key)) != NULL))
                break;
        }
    }
    rc_replay_forget(&to);
    CHECK(to.by_key.count == 0 && to.bytes == 0);
    rc_replay_deinit(&from);
    rc_replay_deinit(&to);
    take_down();
}

/* The slot was elsewhere while the delete was under way, at a server nobody knows: that one may
   have done it, and not the one that has the slot again. */
static void what_comes_back_to_whom_was_asked_is_done_again(void)
{
    struct rc_replay away;
    set_up();
    set("b", "b");
    put("a", 1);
    struct rc_server_node *node = w->link->node;
    const struct rc_replay_homes there = {&away, find_home}, back = {&node->replay, find_home};
    rc_replay_init(&away, &client.engine.context);
    rc_replay_begin(&node->replay, 1, "a", 1, "00000001");
    rc_replay_carry(&node->replay, &there);
    CHECK(rc_replay_end(&away, "a", 1, true));
    rc_replay_carry(&away, &back);
    rc_node_replay(node);
    peer_run(&server);
    CHECK(peer_find(&server, "a") == NULL && sent_again() == 1 && lost() == 0);
    rc_replay_deinit(&away);
    take_down();
}

static void a_very_long_key_is_not_noted(void)
{
    static char key[RC_REPLAY_BYTES / 2];
    set_up();
    delete ("a");
    memset(key, 'k', sizeof key - 1);
    delete (key);
    CHECK(client.engine.topology.node.replay.bytes < 100);
    take_down();
}

int main(void)
{
    TEST(deletes_again_what_a_failover_brought_back);
    TEST(a_connection_that_ends_removes_nothing);
    TEST(a_newer_value_wins_and_the_lost_delete_is_counted);
    TEST(a_value_without_a_version_is_left_alone_and_counted);
    TEST(a_write_acknowledged_since_wins);
    TEST(a_version_seen_behind_the_delete_is_not_its);
    TEST(the_first_version_counts_where_a_key_is_deleted_twice);
    TEST(a_server_that_took_over_other_data_has_lost_it);
    TEST(waits_for_a_master);
    TEST(proves_nothing_without_knowing_the_server);
    TEST(sends_it_once_more_after_another_failover);
    TEST(forgets_it_after_ten_seconds);
    TEST(a_delete_that_failed_is_not_noted);
    TEST(a_delete_that_failed_behind_another_changes_nothing);
    TEST(a_delete_whose_slot_goes_away_is_not_noted);
    TEST(is_bounded_in_number_and_bytes);
    TEST(what_is_carried_is_bounded_too);
    TEST(what_comes_back_to_whom_was_asked_is_done_again);
    TEST(a_very_long_key_is_not_noted);
    return test_result();
}
