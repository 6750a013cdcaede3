/* Locks with a queue, on a store in memory whose clock stands still: who is next, and when a ticket
   ends. */
#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

enum { HANDLES = 5, TTL_MS = 3000, WAIT_MS = 60000 };

static rc_clock *manual;
static rc_client *clients[HANDLES]; /* a handle of each */
static rc_op *ops[HANDLES];
static rc_lock *locks[HANDLES];

static void must(bool is_good)
{
    if (!CHECK(is_good))
        exit(1);
}

/* `sides`: 'r' shares, 'w' is alone. */
static void set_up(const char *sides)
{
    static const char *const groups[] = {"a", "b", "c", "d", "e"}, *const own[] = {"doc0", "doc1",
                                                                                   "doc2", "doc3",
                                                                                   "doc4"};
    must((manual = rc_clock_new()) != NULL);
    for (int i = 0; i < HANDLES; i++) {
        rc_options options = {.clock = manual, .group = groups[i], .group_len = 1};
        must(rc_open(&options, &clients[i], NULL) == 0);
        must((ops[i] = rc_op_new(clients[i])) != NULL);
        bool shares = sides[i] == 'r';
        locks[i] = rc_lock_new_queued(clients[i], "doc", 3, shares ? own[i] : NULL, shares ? 4 : 0);
        must(locks[i] != NULL);
    }
}

static void take_down(void)
{
    for (int i = 0; i < HANDLES; i++) {
        if (locks[i] != NULL)
            rc_lock_free(locks[i]);
        rc_op_free(ops[i]);
        rc_unref(clients[i], 100);
    }
    rc_clock_free(manual);
}

/* Everybody does what there is to do: a few times, for what one does is news to others. */
static void settle(void)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < HANDLES; i++) {
            if (ops[i] != NULL)
                (void)rc_done(ops[i]);
            rc_clock_advance(manual, 1000);
        }
    }
}

static void ask(int i, int32_t wait_ms)
{
    const rc_lock_options options = {.ttl_ms = TTL_MS, .wait_ms = wait_ms};
    must(rc_lock_acquire(locks[i], ops[i], &options) == 0);
    settle();
}

static void unlock(int i)
{
    must(rc_lock_release(locks[i], ops[i]) == 0);
    CHECK(rc_wait(ops[i]) == 0);
    settle();
}

static bool has(int i)
{
    return rc_lock_state(locks[i]) == RC_LOCK_HELD;
}

static void the_order_of_coming_is_that_of_serving(void)
{
    set_up("wwwww");
    for (int i = 0; i < HANDLES; i++)
        ask(i, WAIT_MS);
    for (int i = 0; i < HANDLES; i++) {
        for (int other = 0; other < HANDLES; other++)
            CHECK(has(other) == (other == i));
        unlock(i);
    }
    take_down();
}

static void those_that_share_hold_it_together_behind_who_came_first(void)
{
    set_up("rrwrw");
    ask(0, 0);
    ask(1, 0);
    CHECK(has(0) && has(1));
    ask(2, WAIT_MS);
    ask(3, WAIT_MS);
    CHECK(!has(2) && !has(3));
    unlock(0);
    CHECK(!has(2));
    unlock(1);
    CHECK(has(2) && !has(3));
    ask(4, WAIT_MS);
    unlock(2);
    CHECK(has(3) && !has(4));
    unlock(3);
    CHECK(has(4));
    take_down();
}

static void a_ticket_lives_while_its_owner_waits(void)
{
    set_up("wwwww");
    ask(0, 0);
    ask(1, WAIT_MS);
    for (int seconds = 0; seconds < 20; seconds++) {
        rc_clock_advance(manual, 1000000);
        settle();
    }
    ask(2, WAIT_MS);
    unlock(0);
    CHECK(has(1) && !has(2));
    take_down();
}

static void who_gives_up_or_goes_leaves_no_ticket(void)
{
    set_up("rwrww");
    ask(0, 0);
    ask(1, WAIT_MS); /* goes: its handle is freed */
    ask(3, 500);     /* gives up */
    ask(2, WAIT_MS);
    CHECK(!has(2));
    rc_lock_free(locks[1]);
    locks[1] = NULL;
    settle();
    CHECK(!has(2));
    rc_clock_advance(manual, 600000);
    settle();
    CHECK(rc_wait(ops[3]) == RC_ERR_BUSY);
    CHECK(has(2));
    take_down();
}

static void a_client_that_closes_leaves_no_ticket(void)
{
    set_up("rwrww");
    ask(0, 0);
    ask(1, WAIT_MS);
    ask(2, WAIT_MS);
    CHECK(rc_close(clients[1], 100) == 0);
    settle();
    CHECK(rc_wait(ops[1]) == RC_ERR_CLOSED);
    CHECK(has(2));
    take_down();
}

static void a_try_takes_no_ticket(void)
{
    set_up("wwwww");
    ask(0, 0);
    ask(1, 0);
    CHECK(rc_wait(ops[1]) == RC_ERR_BUSY);
    ask(2, WAIT_MS);
    unlock(0);
    CHECK(has(2));
    take_down();
}

static void it_is_not_taken_from_its_holder(void)
{
    set_up("wrwww");
    const rc_lock_options options = {.ttl_ms = TTL_MS, .flags = RC_FORCE};
    CHECK(rc_lock_acquire(locks[0], ops[0], &options) == RC_ERR_ARGUMENT);
    CHECK(rc_lock_acquire(locks[1], ops[1], &options) == RC_ERR_ARGUMENT);
    take_down();
}

static void who_is_alone_is_so_beside_handles_without_a_queue(void)
{
    set_up("wrwww");
    const rc_lock_options options = {.ttl_ms = TTL_MS};
    rc_lock *plain = rc_lock_new(clients[4], "doc", 3);
    must(plain != NULL);
    must(rc_lock_acquire(plain, ops[4], &options) == 0);
    CHECK(rc_wait(ops[4]) == 0);
    ask(0, 0);
    ask(1, 0);
    CHECK(rc_wait(ops[0]) == RC_ERR_BUSY && rc_wait(ops[1]) == RC_ERR_BUSY);
    must(rc_lock_release(plain, ops[4]) == 0);
    CHECK(rc_wait(ops[4]) == 0);
    ask(0, 0);
    CHECK(has(0));
    must(rc_lock_acquire(plain, ops[4], &options) == 0);
    CHECK(rc_wait(ops[4]) == RC_ERR_BUSY);
    rc_lock_free(plain);
    take_down();
}

int main(void)
{
    TEST(the_order_of_coming_is_that_of_serving);
    TEST(those_that_share_hold_it_together_behind_who_came_first);
    TEST(a_ticket_lives_while_its_owner_waits);
    TEST(who_gives_up_or_goes_leaves_no_ticket);
    TEST(a_client_that_closes_leaves_no_ticket);
    TEST(a_try_takes_no_ticket);
    TEST(it_is_not_taken_from_its_holder);
    TEST(who_is_alone_is_so_beside_handles_without_a_queue);
    return test_result();
}
