#include "driver/manual_clock.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

static rc_client *open_client(rc_clock *clock, const char *group)
{
    rc_client *client = NULL;
    rc_options options = {.clock = clock,
                          .group = group,
                          .group_len = strlen(group),
                          .near = 1,
                          .near_bytes = 1 << 20};
    if (!CHECK(rc_open(&options, &client, NULL) == 0))
        exit(1);
    return client;
}

static rc_clock *new_clock(void)
{
    rc_clock *clock = rc_clock_new();
    if (!CHECK(clock != NULL))
        exit(1);
    return clock;
}

static rc_op *new_op(rc_client *client)
{
    rc_op *op = rc_op_new(client);
    if (!CHECK(op != NULL))
        exit(1);
    return op;
}

static rc_lock *new_lock(rc_client *client)
{
    rc_lock *lock = rc_lock_new(client, "job", 3);
    if (!CHECK(lock != NULL))
        exit(1);
    return lock;
}

static int set(rc_op *op, const char *key, int64_t ttl_ms)
{
    const rc_entry entry = {.kind = RC_KIND_VALUE};
    int error = rc_set(op, key, strlen(key), &entry, "v", 1, ttl_ms, 0);
    return error != 0 ? error : rc_wait(op);
}

static int get(rc_op *op, const char *key)
{
    int error = rc_get(op, key, strlen(key), 0);
    if (error == 0)
        error = rc_wait(op);
    return error != 0 ? error : rc_op_result(op)->outcome;
}

static void clients_go_by_it(void)
{
    rc_clock *clock = new_clock();
    rc_client *client = open_client(clock, "a");
    rc_op *op = new_op(client);
    CHECK(rc_clock_now(clock) == 0);
    CHECK(set(op, "k", 1000) == 0);
    rc_clock_advance(clock, 999999);
    CHECK(get(op, "k") == RC_HIT);
    rc_clock_advance(clock, 1001); /* as in Redis, it lives through its last millisecond */
    CHECK(get(op, "k") == RC_MISS);
    CHECK(rc_clock_now(clock) == 1001000);
    rc_op_free(op);
    rc_unref(client, 100);
    rc_clock_free(clock);
}

static void clients_of_one_clock_share_a_store(void)
{
    rc_clock *clock = new_clock(), *other = new_clock();
    rc_client *a = open_client(clock, "a"), *b = open_client(clock, "b");
    rc_client *apart = open_client(other, "b");
    rc_op *op_a = new_op(a), *op_b = new_op(b), *op_apart = new_op(apart);
    CHECK(a != b && b != apart);
    CHECK(set(op_a, "k", 1000) == 0);
    CHECK(get(op_b, "k") == RC_HIT);
    CHECK(get(op_apart, "k") == RC_MISS);
    rc_op_free(op_a);
    rc_op_free(op_b);
    rc_op_free(op_apart);
    rc_unref(a, 100);
    rc_unref(b, 100);
    rc_unref(apart, 100);
    rc_clock_free(other);
    rc_clock_free(clock);
}

static int acquire(rc_lock *lock, rc_op *op, int32_t ttl_ms, int32_t wait_ms)
{
    const rc_lock_options options = {.ttl_ms = ttl_ms, .wait_ms = wait_ms};
    int error = rc_lock_acquire(lock, op, &options);
    return error != 0 ? error : rc_wait(op);
}

static void a_wait_moves_it_to_the_deadline(void)
{
    rc_clock *clock = new_clock();
    rc_client *a = open_client(clock, "a"), *b = open_client(clock, "b");
    rc_op *op_a = new_op(a), *op_b = new_op(b);
    rc_lock *held = new_lock(a), *wanted = new_lock(b);
    CHECK(acquire(held, op_a, 300, 0) == 0);
    CHECK(acquire(wanted, op_b, 300, 2500) == RC_ERR_BUSY);
    CHECK(rc_clock_now(clock) == 2500000);
    CHECK(rc_lock_state(held) == RC_LOCK_HELD); /* it was renewed meanwhile */
    rc_clock_advance(clock, 60000000);
    CHECK(rc_lock_state(held) == RC_LOCK_HELD);
    rc_lock_free(wanted);
    rc_lock_free(held);
    rc_op_free(op_a);
    rc_op_free(op_b);
    rc_unref(a, 100);
    rc_unref(b, 100);
    rc_clock_free(clock);
}

static void an_operation_nobody_waits_for_is_done_all_the_same(void)
{
    rc_clock *clock = new_clock();
    rc_client *client = open_client(clock, "a");
    rc_op *op = new_op(client);
    CHECK(rc_get(op, "k", 1, 0) == 0);
    rc_clock_advance(clock, 0);
    CHECK(rc_done(op));
    CHECK(rc_get(op, "k", 1, 0) == 0);
    CHECK(rc_done(op)); /* asking turns the loop, too */
    rc_op_free(op);
    rc_unref(client, 100);
    rc_clock_free(clock);
}

static void it_may_be_freed_before_its_clients(void)
{
    rc_clock *clock = new_clock();
    rc_client *client = open_client(clock, "a");
    rc_op *op = new_op(client);
    rc_clock_free(clock);
    CHECK(set(op, "k", 1000) == 0 && get(op, "k") == RC_HIT);
    CHECK(rc_close(client, 100) == 0);
    CHECK(get(op, "k") == RC_ERR_CLOSED);
    rc_unref(client, 100);
    rc_op_free(op);
}

int main(void)
{
    TEST(clients_go_by_it);
    TEST(clients_of_one_clock_share_a_store);
    TEST(a_wait_moves_it_to_the_deadline);
    TEST(an_operation_nobody_waits_for_is_done_all_the_same);
    TEST(it_may_be_freed_before_its_clients);
    return test_result();
}
