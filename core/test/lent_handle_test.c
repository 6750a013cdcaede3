/* The public calls on lent connections, over a store in memory: it knows no BLPOP, but
   connections, RESET and SELECT are the real ones. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/client.h"
#include "redcache.h"
#include "test/test.h"

/* A client, a slot of it and a handle. */
struct bed {
    rc_client *client;
    rc_op *op;
    rc_lent *lent;
};

/* Without this a test makes no sense. */
static void *need(void *what)
{
    if (!CHECK(what != NULL))
        exit(1);
    return what;
}

static struct bed open_bed(rc_clock *by)
{
    static const char url[] = "memory://lent";
    struct bed bed = {0};
    rc_options options = {.url = url,
                          .url_len = strlen(url),
                          .near = 1,
                          .near_bytes = 1 << 20,
                          .max_lent = 2,
                          .clock = by};
    (void)rc_open(&options, &bed.client, NULL);
    bed.op = need(rc_op_new(need(bed.client)));
    bed.lent = need(rc_lent_new(bed.client));
    return bed;
}

static void close_bed(struct bed *bed)
{
    if (bed->lent != NULL)
        rc_lent_free(bed->lent);
    rc_op_free(bed->op);
    rc_unref(bed->client, 100);
}

static int status_of(rc_op *op, int error)
{
    return error != 0 ? error : rc_wait(op);
}

static int borrow(struct bed *bed)
{
    return status_of(bed->op, rc_lent_borrow(bed->lent, bed->op, NULL, 0));
}

/* One command over what was lent, or over what all share. */
static int call(struct bed *bed, bool is_lent, const char *name, const char *key, bool writes)
{
    size_t len = key != NULL ? strlen(key) : 0;
    int error = is_lent ? rc_lent_begin(bed->lent, bed->op) : rc_begin(bed->op, 0);
    if (error == 0)
        error = rc_command_begin(bed->op, key != NULL ? 2 : 1);
    if (error == 0)
        error = rc_argument(bed->op, name, strlen(name));
    if (error == 0 && key != NULL)
        error = writes ? rc_argument_written(bed->op, key, len) : rc_argument(bed->op, key, len);
    return error != 0 ? error : status_of(bed->op, rc_submit(bed->op));
}

static bool says(const struct bed *bed, const char *text)
{
    const rc_result *result = rc_op_result(bed->op);
    return result->len >= strlen(text) && memcmp(result->data, text, strlen(text)) == 0;
}

static void a_handle_has_a_state_of_its_own(void)
{
    struct bed bed = open_bed(NULL);
    CHECK(call(&bed, false, "SELECT", "1", false) == RC_ERR_REFUSED);
    CHECK(
        says(&bed, "SELECT changes the connection for all who share it: it goes over a lent one"));
    CHECK(call(&bed, true, "SELECT", "1", false) == RC_ERR_ARGUMENT); /* nothing was borrowed */
    CHECK(borrow(&bed) == 0);
    CHECK(call(&bed, true, "SELECT", "1", false) == 0 && says(&bed, "OK"));
    CHECK(call(&bed, true, "INCR", "lent", true) == 0 && rc_op_result(bed.op)->number == 1);
    CHECK(call(&bed, false, "EXISTS", "lent", false) == 0 && rc_op_result(bed.op)->number == 0);
    CHECK(call(&bed, true, "MONITOR", NULL, false) == RC_ERR_REFUSED);
    CHECK(call(&bed, true, "EXISTS", "lent", false) == 0 && rc_op_result(bed.op)->number == 1);
    rc_lent_return(bed.lent);
    CHECK(call(&bed, true, "EXISTS", "lent", false) == RC_ERR_ARGUMENT);
    CHECK(borrow(&bed) == 0); /* the same connection, reset */
    CHECK(call(&bed, true, "EXISTS", "lent", false) == 0 && rc_op_result(bed.op)->number == 0);
    close_bed(&bed);
}

static void a_store_in_memory_says_what_it_does_not_know(void)
{
    struct bed bed = open_bed(NULL);
    CHECK(borrow(&bed) == 0 && call(&bed, true, "LPOP", "k", false) == 0);
    CHECK(says(&bed, "ERR memory:// has no such command"));
    close_bed(&bed);
}

static void another_waits_for_what_comes_back(void)
{
    struct bed bed = open_bed(NULL);
    rc_lent *others[2];
    for (int i = 0; i < 2; i++) {
        others[i] = need(rc_lent_new(bed.client));
        CHECK(status_of(bed.op, rc_lent_borrow(others[i], bed.op, "k", 1)) == 0);
    }
    rc_op_timeout(bed.op, 30);
    CHECK(borrow(&bed) == RC_ERR_OVERLOAD && says(&bed, "all 2 lent connections are in use"));
    rc_lent_free(others[0]);
    CHECK(borrow(&bed) == 0);
    rc_lent_free(others[1]);
    close_bed(&bed);
}

/* What a transaction has named changes with its end; what was read near in between is older. */
static void the_end_of_a_transaction_drops_what_it_has_named(void)
{
    struct bed bed = open_bed(NULL);
    rc_near_stats stats;
    rc_view *view = need(rc_view_new(bed.client, "", 0, "", 0, 0, 0, 0));
    CHECK(borrow(&bed) == 0);
    CHECK(call(&bed, true, "INCR", "counter", true) == 0);
    CHECK(call(&bed, true, "MULTI", NULL, false) == 0);
    CHECK(call(&bed, true, "INCR", "counter", true) == 0);
    CHECK(status_of(bed.op, rc_view_read(view, bed.op, "counter", 7, 0)) == 0);
    rc_get_near_stats(bed.client, &stats);
    CHECK(stats.entries == 1);
    uint64_t writes = stats.writes;
    CHECK(call(&bed, true, "PING", NULL, false) == 0);
    rc_get_near_stats(bed.client, &stats);
    CHECK(stats.entries == 1 && stats.writes == writes);
    CHECK(call(&bed, true, "EXEC", NULL, false) == 0);
    rc_get_near_stats(bed.client, &stats);
    CHECK(stats.entries == 0 && stats.writes == writes + 1);
    rc_view_free(view);
    close_bed(&bed);
}

static void messages_wait_in_the_handle_until_they_are_asked_for(void)
{
    struct bed bed = open_bed(NULL);
    CHECK(rc_lent_listen(bed.lent, bed.op) == RC_ERR_ARGUMENT);
    CHECK(borrow(&bed) == 0);
    CHECK(call(&bed, true, "SUBSCRIBE", "news", false) == 0);
    CHECK(rc_op_result(bed.op)->nodes == 4 && rc_op_nodes(bed.op)[0].type == '>');
    rc_op_timeout(bed.op, 10);
    CHECK(status_of(bed.op, rc_lent_listen(bed.lent, bed.op)) == RC_ERR_TIMEOUT);
    for (int i = 0; i < 2; i++) {
        CHECK(rc_begin(bed.op, 0) == 0 && rc_command_begin(bed.op, 3) == 0);
        CHECK(rc_argument(bed.op, "PUBLISH", 7) == 0 && rc_argument(bed.op, "news", 4) == 0);
        CHECK(rc_argument(bed.op, i == 0 ? "first" : "other", 5) == 0);
        CHECK(status_of(bed.op, rc_submit(bed.op)) == 0 && rc_op_result(bed.op)->number == 1);
    }
    CHECK(call(&bed, true, "PING", NULL, false) == 0); /* what came before it is in */
    CHECK(status_of(bed.op, rc_lent_listen(bed.lent, bed.op)) == 0);
    const rc_node *nodes = rc_op_nodes(bed.op);
    if (CHECK(rc_op_result(bed.op)->nodes == 8 && rc_op_result(bed.op)->number == 0)) {
        CHECK(memcmp(nodes[3].str, "first", 5) == 0);
        CHECK(memcmp(nodes[7].str, "other", 5) == 0);
    }
    rc_lent_return(bed.lent);
    CHECK(status_of(bed.op, rc_lent_listen(bed.lent, bed.op)) == RC_ERR_ARGUMENT);
    CHECK(borrow(&bed) == 0); /* the same connection, which hears of nothing any more */
    close_bed(&bed);
}

static void a_handle_may_be_freed_at_any_time(void)
{
    struct bed bed = open_bed(NULL);
    CHECK(borrow(&bed) == 0 && rc_lent_begin(bed.lent, bed.op) == 0);
    CHECK(rc_command_begin(bed.op, 1) == 0 && rc_argument(bed.op, "PING", 4) == 0);
    CHECK(rc_submit(bed.op) == 0);
    rc_lent_free(bed.lent);
    bed.lent = NULL;
    int status = rc_wait(bed.op);
    CHECK(status == 0 || status == RC_ERR_CANCELLED);
    close_bed(&bed);
    CHECK(rc_lent_new(NULL) == NULL);
}

static void a_handle_outlives_its_client(void)
{
    struct bed bed = open_bed(NULL);
    CHECK(borrow(&bed) == 0);
    CHECK(rc_close(bed.client, 0) == 0);
    CHECK(call(&bed, true, "PING", NULL, false) == RC_ERR_CLOSED);
    CHECK(borrow(&bed) == RC_ERR_CLOSED);
    close_bed(&bed);
}

#ifndef __SANITIZE_THREAD__
static void a_child_process_borrows_for_itself(void)
{
    struct bed bed = open_bed(NULL);
    int status = -1;
    CHECK(borrow(&bed) == 0);
    pid_t child = fork();
    if (child == 0) {
        bool good = call(&bed, true, "PING", NULL, false) == RC_ERR_FORKED && borrow(&bed) == 0 &&
                    call(&bed, true, "PING", NULL, false) == 0;
        rc_lent_return(bed.lent);
        _exit(good ? 0 : 1);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHECK(call(&bed, true, "PING", NULL, false) == 0); /* the parent's is still its own */
    close_bed(&bed);
}
#endif

static uint32_t count_spares(const struct bed *bed)
{
    struct rc_driver *driver = need(rc_client_running_driver(bed->client));
    return driver->engine.lends.count;
}

static void an_idle_connection_is_closed_in_time(void)
{
    rc_clock *hand = need(rc_clock_new());
    struct bed bed = open_bed(hand);
    CHECK(borrow(&bed) == 0);
    rc_clock_advance(hand, 100 * 1000000);
    CHECK(count_spares(&bed) == 1);
    rc_lent_return(bed.lent);
    rc_clock_advance(hand, 29 * 1000000);
    CHECK(count_spares(&bed) == 1);
    rc_clock_advance(hand, 2 * 1000000);
    CHECK(count_spares(&bed) == 0);
    CHECK(rc_client_running_driver(bed.client)->line_count == 2);
    close_bed(&bed);
    rc_clock_free(hand);
}

int main(void)
{
    TEST(a_handle_has_a_state_of_its_own);
    TEST(a_store_in_memory_says_what_it_does_not_know);
    TEST(another_waits_for_what_comes_back);
    TEST(the_end_of_a_transaction_drops_what_it_has_named);
    TEST(messages_wait_in_the_handle_until_they_are_asked_for);
    TEST(a_handle_may_be_freed_at_any_time);
    TEST(a_handle_outlives_its_client);
#ifndef __SANITIZE_THREAD__ /* it stands no threads behind a fork */
    TEST(a_child_process_borrows_for_itself);
#endif
    TEST(an_idle_connection_is_closed_in_time);
    return test_result();
}
