/* What was written here while the server was away: found by all who share the near cache, void once
   it is back, and deleted there before anything else is asked. */
#include "engine/owed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/peer.h"
#include "test/test.h"

static struct peer_server server;
static struct peer_client client, other;
static struct peer_op op;
static struct rc_near *near;

static void set_up(void)
{
    const struct rc_near_options options = {.bytes = 128 * 1024};
    const char *why;
    peer_init(&server);
    server.now_us = rc_near_now_us();
    if (rc_near_open(&near, &options, &why) != 0)
        exit(1); /* without it the test makes no sense */
    peer_open_near(&client, &server, NULL, near);
    peer_open_near(&other, &server, NULL, near);
    peer_op_init(&op);
}

static void take_down(void)
{
    peer_close(&other);
    peer_close(&client);
    CHECK(!server.went_round);
    peer_op_deinit(&op);
    peer_deinit(&server);
    rc_near_close(near);
}

static struct rc_near_entry entry_of(const char *key, const char *value, uint8_t kind)
{
    return (struct rc_near_entry){.hash = rc_near_hash(near, key, strlen(key)),
                                  .key = key,
                                  .key_len = strlen(key),
                                  .value = value,
                                  .value_len = strlen(value),
                                  .kind = kind,
                                  .deadline_us = rc_near_now_us() + 60000000};
}

static int write_here(const char *key, const char *value)
{
    struct rc_near_entry entry = entry_of(key, value, RC_KIND_VALUE);
    return rc_near_write_local(near, &entry);
}

/* RC_NEAR_*, and the value. */
static int look(const char *key, const char *value)
{
    char buffer[64];
    rc_near_value found = {.buffer = buffer, .capacity = sizeof buffer};
    int outcome = rc_near_lookup(near, "", 0, key, strlen(key), 1000000, &found);
    if (outcome == RC_NEAR_LOCAL &&
        !CHECK(found.len == strlen(value) && memcmp(found.data, value, found.len) == 0))
        return -1;
    return outcome;
}

static void set(struct peer_client *by, const char *key, const char *value)
{
    peer_set(by, &op, key, value, -1);
    peer_run(&server);
}

static void cut(struct peer_client *whose)
{
    server.refuses = true;
    for (int role = RC_LINK_W; role <= RC_LINK_T; role++)
        if (whose->conns[role] != NULL)
            peer_cut(whose->conns[role], false);
    peer_run(&server);
}

static void let_in(void)
{
    server.refuses = false;
    peer_sleep(&server, 3000);
}

static void promises_nothing_to_a_server_that_nobody_has_reached(void)
{
    set_up();
    CHECK(write_here("k", "v") == RC_ERR_UNAVAILABLE && look("k", "") == RC_NEAR_MISS);
    CHECK(!rc_near_is_owed(near));
    take_down();
}

static void is_found_until_the_server_is_back_and_has_deleted_it(void)
{
    set_up();
    set(&client, "k", "old");
    cut(&client);
    CHECK(write_here("k", "here") == 0 && look("k", "here") == RC_NEAR_LOCAL);
    CHECK(rc_near_is_owed(near) && peer_find(&server, "k") != NULL);
    let_in();
    CHECK(peer_find(&server, "k") == NULL && !rc_near_is_owed(near));
    CHECK(look("k", "") == RC_NEAR_MISS);
    take_down();
}

/* The other process has its connections all the time. */
static void is_deleted_before_the_next_read_of_any_process(void)
{
    set_up();
    set(&client, "k", "old");
    peer_read(&other, &op, "k", 0);
    peer_run(&server);
    CHECK(peer_says(&op, "old"));
    CHECK(write_here("k", "here") == 0);
    peer_read(&other, &op, "k", 0);
    peer_run(&server);
    CHECK(peer_ended(&op, 0, RC_MISS) && peer_find(&server, "k") == NULL);
    CHECK(!rc_near_is_owed(near) && look("k", "") == RC_NEAR_MISS);
    take_down();
}

static void deletes_nothing_twice(void)
{
    set_up();
    set(&client, "k", "old");
    peer_read(&client, &op, "k", 0);
    peer_run(&server);
    CHECK(write_here("k", "here") == 0);
    set(&client, "k", "new");
    unsigned unlinks = server.unlinks;
    peer_read(&client, &op, "k", 0);
    peer_run(&server);
    CHECK(peer_says(&op, "new") && server.unlinks == unlinks);
    take_down();
}

static void sends_again_what_was_lost_with_its_connection(void)
{
    set_up();
    set(&client, "k", "old");
    CHECK(write_here("k", "here") == 0);
    client.conns[RC_LINK_W]->mute = true; /* the request goes out, and nobody reads it */
    set(&client, "else", "v");
    cut(&client);
    CHECK(rc_near_is_owed(near) && peer_find(&server, "k") != NULL);
    client.conns[RC_LINK_W]->mute = false;
    let_in();
    CHECK(!rc_near_is_owed(near) && peer_find(&server, "k") == NULL);
    take_down();
}

static void sends_again_what_the_server_refuses_for_now(void)
{
    set_up();
    set(&client, "k", "old");
    CHECK(write_here("k", "here") == 0);
    server.error = "-NOREPLICAS Not enough good replicas to write.\r\n";
    server.errors = 1;
    set(&client, "else", "v");
    CHECK(rc_near_is_owed(near));
    peer_sleep(&server, 200);
    set(&client, "else", "v");
    CHECK(!rc_near_is_owed(near) && peer_find(&server, "k") == NULL);
    CHECK(client.engine.context.stats.deletes_lost == 0);
    take_down();
}

static void counts_what_the_user_may_not_delete(void)
{
    set_up();
    set(&client, "k", "old");
    CHECK(write_here("k", "here") == 0 && write_here("k2", "here") == 0);
    server.error = "-NOPERM this user has no permissions\r\n";
    server.errors = 1;
    set(&client, "else", "v");
    CHECK(!rc_near_is_owed(near) && client.engine.context.stats.deletes_lost == 2);
    take_down();
}

static void keeps_a_load_unless_the_key_was_written_since(void)
{
    set_up();
    set(&client, "k", "old");
    cut(&client);
    struct rc_near_entry loaded = entry_of("k", "loaded", RC_KIND_VALUE);
    uint64_t mark = rc_near_local_mark(near, loaded.hash);
    CHECK(rc_near_keep_local(near, &loaded, mark) && look("k", "loaded") == RC_NEAR_LOCAL);
    CHECK(!rc_near_is_owed(near));
    CHECK(write_here("k", "written") == 0);
    CHECK(!rc_near_keep_local(near, &loaded, mark) && look("k", "written") == RC_NEAR_LOCAL);
    mark = rc_near_local_mark(near, loaded.hash);
    let_in();
    CHECK(!rc_near_keep_local(near, &loaded, mark) && look("k", "") == RC_NEAR_MISS);
    take_down();
}

static void forgets_a_load_once_the_server_is_back(void)
{
    set_up();
    set(&client, "k", "old");
    cut(&client);
    struct rc_near_entry loaded = entry_of("k", "loaded", RC_KIND_VALUE);
    CHECK(rc_near_keep_local(near, &loaded, rc_near_local_mark(near, loaded.hash)));
    CHECK(look("k", "loaded") == RC_NEAR_LOCAL && rc_near_has_local(near, "k", 1));
    let_in();
    CHECK(look("k", "") == RC_NEAR_MISS && !rc_near_has_local(near, "k", 1));
    CHECK(peer_find(&server, "k") != NULL);
    take_down();
}

static void keeps_nothing_from_redis_near_while_deletes_are_owed(void)
{
    set_up();
    set(&client, "k", "old");
    peer_read(&client, &op, "k", 0);
    peer_run(&server);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    if (owner == NULL)
        exit(1);
    struct rc_near_entry entry = entry_of("other", "value", RC_KIND_VALUE);
    CHECK(write_here("k", "here") == 0);
    CHECK(!rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash)));
    set(&client, "else", "v");
    CHECK(rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash)));
    rc_near_remove_owner(near, owner);
    take_down();
}

static void says_that_it_is_full(void)
{
    char name[64];
    int status = 0, count = 0;
    set_up();
    set(&client, "k", "old");
    cut(&client);
    while (count < 10000 && status == 0) {
        snprintf(name, sizeof name, "a key of some length %d", count++);
        status = write_here(name, "v");
    }
    CHECK(status == RC_ERR_OVERLOAD && count > 10);
    CHECK(look(name, "") == RC_NEAR_MISS);
    let_in();
    CHECK(!rc_near_is_owed(near) && write_here(name, "v") == 0);
    take_down();
}

int main(void)
{
    TEST(promises_nothing_to_a_server_that_nobody_has_reached);
    TEST(is_found_until_the_server_is_back_and_has_deleted_it);
    TEST(is_deleted_before_the_next_read_of_any_process);
    TEST(deletes_nothing_twice);
    TEST(sends_again_what_was_lost_with_its_connection);
    TEST(sends_again_what_the_server_refuses_for_now);
    TEST(counts_what_the_user_may_not_delete);
    TEST(keeps_a_load_unless_the_key_was_written_since);
    TEST(forgets_a_load_once_the_server_is_back);
    TEST(keeps_nothing_from_redis_near_while_deletes_are_owed);
    TEST(says_that_it_is_full);
    return test_result();
}
