#include "engine/lock.h"

#include <string.h>

#include "test/peer.h"
#include "test/test.h"

enum { OPS = 6, TTL_MS = 3000, WAIT_MS = 20000 };

static struct peer_server server;
static struct peer_client near, far;
static struct peer_op ops[OPS];
static struct rc_lock locks[OPS]; /* handles of one lock; the even ones near, the odd ones far */

static struct peer_client *client_of(int i)
{
    return i % 2 == 0 ? &near : &far;
}

static void set_up(void)
{
    peer_init(&server);
    memset(server.known, true, sizeof server.known);
    peer_open(&near, &server, NULL);
    peer_open(&far, &server, NULL);
    for (int i = 0; i < OPS; i++) {
        peer_op_init(&ops[i]);
        CHECK(rc_lock_init(&locks[i], "job", 3) == 0);
    }
}

static void take_down(void)
{
    peer_close(&far);
    peer_close(&near);
    CHECK(!server.went_round);
    for (int i = 0; i < OPS; i++) {
        peer_op_deinit(&ops[i]);
        rc_lock_deinit(&locks[i]);
    }
    peer_deinit(&server);
}

static void acquire(int i, uint32_t flags, int32_t ttl_ms, int32_t wait_ms)
{
    peer_acquire(client_of(i), &ops[i], &locks[i], flags, ttl_ms, wait_ms, 0);
    peer_run(&server);
}

static void unlock(int i)
{
    peer_unlock(client_of(i), &ops[i], &locks[i]);
    peer_run(&server);
}

static void drop(int i)
{
    rc_engine_drop(&client_of(i)->engine, &ops[i].op);
    peer_run(&server);
}

static bool has(int i)
{
    return peer_ended(&ops[i], 0, RC_DONE) && peer_holds(&server, &locks[i]);
}

static bool is_busy(int i)
{
    return peer_ended(&ops[i], RC_ERR_BUSY, RC_DONE);
}

static void gives_it_to_one_at_a_time_with_a_growing_fence(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    CHECK(has(0));
    acquire(1, 0, TTL_MS, 0);
    acquire(2, 0, TTL_MS, 0);
    CHECK(is_busy(1) && is_busy(2));
    int64_t fence = ops[0].op.result.number;
    unlock(0);
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && !peer_holds(&server, &locks[0]));
    acquire(1, 0, TTL_MS, 0);
    CHECK(has(1) && ops[1].op.result.number > fence);
    take_down();
}

static void costs_two_commands_when_nobody_else_wants_it(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    unsigned before = server.commands;
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    CHECK(server.commands == before + 2);
    take_down();
}

static void wakes_who_waits_elsewhere_when_it_is_released(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(1, 0, TTL_MS, WAIT_MS);
    peer_sleep(&server, 200);
    CHECK(ops[1].finished == 0);
    unlock(0);
    CHECK(has(1)); /* no time has passed */
    take_down();
}

static void is_first_come_first_served_within_a_process(void)
{
    set_up();
    acquire(1, 0, TTL_MS, 0);
    acquire(0, 0, TTL_MS, WAIT_MS);
    acquire(2, 0, TTL_MS, WAIT_MS);
    unlock(1);
    CHECK(has(0) && ops[2].finished == 0);
    unlock(0);
    CHECK(has(2));
    take_down();
}

static void notices_a_holder_that_died(void)
{
    set_up();
    acquire(0, RC_NO_RENEW, TTL_MS, 0);
    acquire(1, 0, TTL_MS, WAIT_MS);
    near.conns[RC_LINK_T]->mute = near.conns[RC_LINK_W]->mute = true;
    peer_sleep(&server, TTL_MS - 1);
    CHECK(ops[1].finished == 0);
    peer_sleep(&server, 100);
    CHECK(has(1));
    CHECK(!peer_holds(&server, &locks[0]));
    near.conns[RC_LINK_T]->mute = near.conns[RC_LINK_W]->mute = false;
    take_down();
}

static void renews_each_third_of_the_ttl(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    peer_sleep(&server, 10 * TTL_MS + 500);
    CHECK(near.engine.context.stats.lock_renewals == 30);
    CHECK(has(0) && peer_pttl(&server, "job") >= TTL_MS * 2 / 3 - 1);
    take_down();
}

static void renewals_end_after_max_hold(void)
{
    set_up();
    peer_acquire(&near, &ops[0], &locks[0], 0, TTL_MS, 0, 5000);
    peer_sleep(&server, 5000);
    CHECK(has(0));
    peer_sleep(&server, TTL_MS);
    CHECK(!peer_holds(&server, &locks[0]));
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST);
    take_down();
}

static void stops_trusting_before_the_key_expires(void)
{
    set_up();
    acquire(0, RC_NO_RENEW, TTL_MS, 0);
    peer_sleep(&server, TTL_MS - TTL_MS / 10 - 1);
    CHECK(has(0));
    peer_sleep(&server, 1);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST);
    CHECK(peer_find(&server, "job") != NULL);
    take_down();
}

static void knows_at_once_that_it_was_taken_away(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(1, RC_FORCE, TTL_MS, 0);
    CHECK(has(1));
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST); /* no time has passed */
    unlock(0);
    CHECK(peer_ended(&ops[0], RC_ERR_NOTHELD, RC_DONE));
    CHECK(has(1));
    peer_unlink(&server, "job");
    peer_run(&server);
    CHECK(atomic_load(&locks[1].state) == RC_LOCK_LOST);
    take_down();
}

/* Any client may have deleted it; the holder may be long dead. */
static void hears_that_the_key_is_gone(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(1, 0, TTL_MS, WAIT_MS);
    CHECK(ops[1].finished == 0);
    peer_unlink(&server, "job");
    peer_run(&server);
    peer_sleep(&server, 2); /* a release would have told by its mark: it has a moment to */
    CHECK(has(1));
    take_down();
}

/* Somebody who extends without end costs a waiter a look a second. */
static void looks_once_a_second_at_a_key_that_changes_all_the_time(void)
{
    set_up();
    acquire(0, RC_NO_RENEW, 60000, 0);
    acquire(1, 0, TTL_MS, WAIT_MS);
    unsigned before = server.commands;
    for (int i = 0; i < 500; i++) {
        peer_pexpire(&server, "job", 60000);
        peer_run(&server);
        peer_sleep(&server, 10);
    }
    CHECK(ops[1].finished == 0);
    /* In 5 s: the holder looks each time, by GET and PTTL. */
    CHECK(server.commands - before <= 2 * 500 + 5 + 3);
    peer_unlink(&server, "job");
    peer_run(&server);
    peer_sleep(&server, 1001);
    CHECK(has(1));
    take_down();
}

static void trusts_a_shortened_key_no_longer_than_it_lives(void)
{
    set_up();
    acquire(0, RC_NO_RENEW, 60000, 0);
    peer_pexpire(&server, "job", 70000); /* a longer life is no news */
    peer_run(&server);
    int64_t until = atomic_load(&locks[0].trusted_until_us);
    CHECK(until - server.now_us > 50000 * 1000);
    peer_pexpire(&server, "job", 1000);
    peer_run(&server);
    CHECK(atomic_load(&locks[0].trusted_until_us) <= server.now_us + 900 * 1000);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_HELD);
    peer_pexpire(&server, "job", 40); /* less than the margin that is kept back */
    peer_run(&server);
    peer_sleep(&server, 1);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST);
    take_down();
}

/* The lock is taken over between the two answers to a look: nobody tells of it once more. */
static void looks_again_where_a_push_came_between_the_answers(void)
{
    char answers[160];
    set_up();
    acquire(0, RC_NO_RENEW, 60000, 0);
    struct peer_conn *t = near.conns[RC_LINK_T];
    peer_pexpire(&server, "job", 70000); /* a push, and so a look */
    t->mute = true;
    peer_run(&server);
    int len = snprintf(answers, sizeof answers,
                       "$%d\r\n%.*s\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\njob\r\n:60000\r\n",
                       RC_TOKEN_SIZE, RC_TOKEN_SIZE, locks[0].token);
    rc_buf_clear(&t->input);
    peer_say(t, answers, (size_t)len);
    peer_run(&server);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_HELD);
    peer_put(&server, "job", "another's", 9, 60000);
    t->mute = false;
    peer_run(&server);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST);
    take_down();
}

static void renews_a_shortened_key_at_once(void)
{
    set_up();
    acquire(0, 0, 60000, 0);
    peer_pexpire(&server, "job", 1000);
    peer_run(&server);
    CHECK(atomic_load(&locks[0].trusted_until_us) > server.now_us + 50000 * 1000LL);
    peer_sleep(&server, 5000);
    CHECK(has(0));
    take_down();
}

/* The request is the one who left's, and so is the life of what it grants. */
static void trusts_a_grant_no_longer_than_it_was_asked_for(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    near.conns[RC_LINK_T]->deaf = true;
    acquire(0, RC_NO_RENEW, 200, WAIT_MS);
    acquire(2, RC_NO_RENEW, 30000, WAIT_MS);
    drop(0);
    near.conns[RC_LINK_T]->deaf = false;
    near.conns[RC_LINK_T]->mute = true; /* a renewal does not get through */
    peer_run(&server);
    CHECK(has(2));
    int64_t trusted_us = atomic_load(&locks[2].trusted_until_us);
    CHECK(trusted_us < server.now_us + peer_pttl(&server, "job") * 1000);
    near.conns[RC_LINK_T]->mute = false;
    take_down();
}

static void trusts_a_repeated_request_no_longer_than_the_key_lives(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    near.conns[RC_LINK_T]->deaf = true;
    acquire(0, RC_NO_RENEW, 400, WAIT_MS);
    CHECK(peer_find(&server, "job") != NULL); /* granted, but nobody heard */
    peer_sleep(&server, 300);
    near.conns[RC_LINK_T]->deaf = false;
    peer_cut(near.conns[RC_LINK_T], true);
    peer_sleep(&server, 60);
    CHECK(has(0));
    CHECK(atomic_load(&locks[0].trusted_until_us) <
          server.now_us + peer_pttl(&server, "job") * 1000);
    take_down();
}

static void keeps_it_through_a_broken_connection(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    for (int i = 0; i < 20; i++) {
        peer_sleep(&server, 777);
        peer_cut(near.conns[RC_LINK_T], i % 2 == 0);
        peer_cut(near.conns[RC_LINK_W], i % 3 == 0);
    }
    CHECK(has(0));
    unlock(0);
    peer_sleep(&server, 100);
    CHECK(peer_ended(&ops[0], 0, RC_DONE));
    take_down();
}

/* TTL-only changes push, too: our own renewal wakes our own watch. */
static void a_push_in_front_of_the_renewals_answer_does_not_make_it_void(void)
{
    static const char push[] = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\njob\r\n";
    set_up();
    acquire(0, 0, TTL_MS, 0);
    for (int i = 0; i < 5; i++) {
        near.conns[RC_LINK_T]->mute = true;
        peer_sleep(&server, TTL_MS / 3);
        peer_say(near.conns[RC_LINK_T], push, sizeof push - 1);
        peer_run(&server);
        near.conns[RC_LINK_T]->mute = false;
        peer_sleep(&server, 1);
    }
    CHECK(has(0));
    CHECK(atomic_load(&locks[0].trusted_until_us) > server.now_us + TTL_MS * 800);
    take_down();
}

static void a_slow_answer_to_a_renewal_still_counts(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    near.conns[RC_LINK_T]->mute = true;
    peer_sleep(&server, 1000);
    near.conns[RC_LINK_T]->mute = false;
    near.conns[RC_LINK_T]->deaf = true;
    peer_sleep(&server, 450); /* done, and as slow as the command timeout allows */
    int64_t before_us = atomic_load(&locks[0].trusted_until_us);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(atomic_load(&locks[0].trusted_until_us) > before_us);
    take_down();
}

/* The next one's time comes before the answer of this one. */
static void does_not_renew_again_while_a_renewal_is_under_way(void)
{
    set_up();
    acquire(0, 0, 600, 0);
    near.conns[RC_LINK_T]->mute = true;
    peer_sleep(&server, 410);
    CHECK(near.engine.context.stats.lock_renewals == 1);
    int64_t before_us = atomic_load(&locks[0].trusted_until_us);
    peer_say(near.conns[RC_LINK_T], ":1\r\n", 4);
    peer_run(&server);
    CHECK(atomic_load(&locks[0].trusted_until_us) == before_us + 200 * 1000);
    rc_buf_clear(&near.conns[RC_LINK_T]->input);
    near.conns[RC_LINK_T]->mute = false;
    take_down();
}

static void extends_and_shortens(void)
{
    set_up();
    acquire(0, RC_NO_RENEW, TTL_MS, 0);
    peer_extend(&near, &ops[1], &locks[0], 60000);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_DONE) && peer_pttl(&server, "job") == 60000);
    peer_sleep(&server, 50000);
    CHECK(peer_holds(&server, &locks[0]));
    peer_extend(&near, &ops[1], &locks[0], 1000);
    near.conns[RC_LINK_T]->deaf = true; /* done, but we do not hear of it */
    peer_sleep(&server, 950);
    CHECK(!peer_holds(&server, &locks[0]));
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    take_down();
}

static void a_renewal_does_not_take_back_what_an_extension_gave(void)
{
    set_up();
    acquire(0, 0, 900, 0);
    peer_sleep(&server, 290);
    near.conns[RC_LINK_T]->mute = true;
    peer_extend(&near, &ops[1], &locks[0], 60000);
    peer_sleep(&server, 100); /* the old renewal's time passes */
    near.conns[RC_LINK_T]->mute = false;
    peer_run(&server);
    CHECK(peer_pttl(&server, "job") >= 59000);
    peer_sleep(&server, 10000);
    CHECK(peer_holds(&server, &locks[0]) && peer_pttl(&server, "job") >= 40000);
    take_down();
}

static void gives_it_back_when_who_asked_has_left(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    server.known[RC_SCRIPT_LOCK_RELEASE] = false;
    near.conns[RC_LINK_T]->deaf = true;
    acquire(0, 0, TTL_MS, WAIT_MS);
    CHECK(peer_find(&server, "job") != NULL);
    drop(0);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(peer_find(&server, "job") == NULL);
    CHECK(near.engine.locks.lines.count == 0);
    take_down();
}

static void a_single_try_ends_in_time_behind_others(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    unlock(0);
    near.conns[RC_LINK_T]->mute = near.conns[RC_LINK_W]->mute = true;
    for (int i = 0; i < OPS; i += 2)
        acquire(i, 0, TTL_MS, 0);
    peer_sleep(&server, 510);
    for (int i = 0; i < OPS; i += 2)
        CHECK(peer_ended(&ops[i], RC_ERR_TIMEOUT, RC_DONE));
    near.conns[RC_LINK_T]->mute = near.conns[RC_LINK_W]->mute = false;
    take_down();
}

static void a_forced_acquire_is_not_refused_by_somebody_elses_answer(void)
{
    set_up();
    acquire(1, 0, TTL_MS, 0);
    acquire(0, 0, TTL_MS, 0);
    near.conns[RC_LINK_T]->deaf = true;
    acquire(0, 0, TTL_MS, 0);
    acquire(2, RC_FORCE, TTL_MS, 0);
    near.conns[RC_LINK_T]->deaf = false;
    peer_run(&server);
    CHECK(has(2));
    CHECK(is_busy(0));
    take_down();
}

static void two_acquires_with_one_handle_hold_once(void)
{
    set_up();
    struct peer_conn *t = near.conns[RC_LINK_T];
    acquire(1, 0, TTL_MS, 0);
    peer_acquire(&near, &ops[0], &locks[0], 0, TTL_MS, WAIT_MS, 0);
    peer_acquire(&near, &ops[2], &locks[0], 0, TTL_MS, WAIT_MS, 0);
    peer_run(&server);
    t->deaf = true;
    unlock(1);
    t->deaf = false;
    t->clogged = true;
    peer_run(&server);
    t->deaf = true;
    t->clogged = false;
    peer_run(&server); /* the first is granted */
    t->deaf = false;
    t->clogged = true;
    peer_run(&server); /* and hears it; the second asks */
    CHECK(peer_ended(&ops[0], 0, RC_DONE) && ops[2].finished == 0);
    peer_unlink(&server, "job");
    t->clogged = false;
    peer_run(&server);
    CHECK(peer_ended(&ops[2], 0, RC_DONE));
    CHECK(peer_holds(&server, &locks[0]));
    CHECK(near.engine.context.stats.active_locks == 1);
    unlock(0);
    CHECK(peer_find(&server, "job") == NULL);
    CHECK(near.engine.context.stats.active_locks == 0);
    take_down();
}

static void waits_with_short_looks_where_tracking_is_not_allowed(void)
{
    set_up();
    server.no_tracking = true;
    acquire(0, 0, TTL_MS, 0);
    acquire(1, 0, TTL_MS, WAIT_MS);
    peer_sleep(&server, 500);
    unlock(0);
    peer_sleep(&server, 60);
    CHECK(has(1));
    take_down();
}

static void a_hostile_pttl_does_no_harm(void)
{
    set_up();
    acquire(1, 0, TTL_MS, 0);
    peer_get(&near, &ops[2], "key", 0);
    acquire(0, 0, TTL_MS, 0);
    struct peer_conn *w = near.conns[RC_LINK_W];
    w->mute = true;
    acquire(0, 0, TTL_MS, WAIT_MS);
    static const char answer[] = ":9223372036854775807\r\n";
    peer_say(w, answer, sizeof answer - 1);
    peer_run(&server);
    rc_buf_clear(&w->input);
    w->mute = false;
    unlock(1);
    CHECK(has(0));
    take_down();
}

static void closing_gives_it_back_and_tells_the_handle(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(2, 0, TTL_MS, WAIT_MS);
    rc_engine_close(&near.engine);
    peer_run(&server);
    CHECK(atomic_load(&locks[0].state) == RC_LOCK_LOST);
    CHECK(peer_ended(&ops[2], RC_ERR_CLOSED, RC_DONE));
    CHECK(peer_find(&server, "job") == NULL);
    take_down();
}

static void a_dropped_handle_gives_it_back(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(2, 0, TTL_MS, WAIT_MS);
    rc_locks_drop(&near.engine.locks, &locks[0]);
    peer_run(&server);
    CHECK(has(2));
    take_down();
}

static void a_handle_that_goes_ends_its_own_operations_alone(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    acquire(2, 0, TTL_MS, WAIT_MS);
    acquire(4, 0, TTL_MS, WAIT_MS);
    rc_engine_drop_lock(&near.engine, &locks[2]);
    peer_run(&server);
    CHECK(peer_ended(&ops[2], RC_ERR_CANCELLED, RC_DONE) && ops[4].finished == 0);
    CHECK(peer_holds(&server, &locks[0]));
    rc_engine_drop_lock(&near.engine, &locks[0]);
    peer_run(&server);
    CHECK(has(4));
    take_down();
}

static void refuses_a_handle_that_holds_it_already(void)
{
    set_up();
    acquire(0, 0, TTL_MS, 0);
    peer_acquire(&near, &ops[2], &locks[0], 0, TTL_MS, WAIT_MS, 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[2], RC_ERR_ARGUMENT, RC_DONE));
    CHECK(peer_says(&ops[2], "the handle already holds the lock"));
    CHECK(peer_holds(&server, &locks[0]));
    take_down();
}

/* Redis reads what a closed connection has sent, in its own time: here behind what another one has
   sent since, and before the next connection's handshake. */
static void gives_a_lock_back_that_comes_behind_its_lost_connection(void)
{
    for (int leaves = 0; leaves < 2; leaves++) {
        struct rc_buf lost;
        set_up();
        acquire(0, 0, TTL_MS, 0);
        unlock(0);
        acquire(1, 0, TTL_MS, 0);
        unlock(1);
        struct peer_conn *t = near.conns[RC_LINK_T], *other = far.conns[RC_LINK_W];
        rc_buf_init(&lost);
        t->mute = true;
        acquire(0, 0, TTL_MS, WAIT_MS);
        if (leaves)
            drop(0);
        peer_sleep(&server, 600);
        if (!leaves)
            drop(0);
        CHECK(rc_buf_append(&lost, rc_buf_head(&t->input), rc_buf_len(&t->input)) == 0);
        rc_link_give_up(t->link, "the server does not answer");
        t->mute = false;
        peer_run(&server);
        CHECK(rc_buf_append(&other->input, rc_buf_head(&lost), rc_buf_len(&lost)) == 0);
        rc_buf_deinit(&lost);
        peer_run(&server);
        CHECK(peer_find(&server, "job") != NULL);
        peer_sleep(&server, 100);
        CHECK(rc_link_is_ready(t->link) && peer_find(&server, "job") == NULL);
        take_down();
    }
}

static bool is_released(void)
{
    return peer_find(&server, "job") == NULL;
}

/* Who unlocks may leave, or run out of time, while the connection is away, stands still or is lost
   in the middle, and while Redis does not know the script. */
static void releases_although_nobody_waits_for_it(void)
{
    enum { AWAY, CLOGGED, LOST, SCRIPT, HOWS };
    for (int how = 0; how < HOWS; how++) {
        for (int leaves = 0; leaves < 3; leaves++) {
            set_up();
            acquire(0, 0, 60000, 0);
            peer_get(&near, &ops[2], "other", 0);
            peer_run(&server);
            struct peer_conn *w = near.conns[RC_LINK_W];
            CHECK(has(0) && rc_link_is_ready(w->link));
            w->mute = how == LOST || how == SCRIPT;
            w->clogged = how == CLOGGED;
            server.refuses = how == AWAY;
            if (how == AWAY)
                peer_cut(w, false);
            if (leaves == 2) {
                rc_engine_drop_lock(&near.engine, &locks[0]);
            } else {
                unlock(0);
                if (leaves == 1)
                    drop(0);
            }
            peer_sleep(&server, 900);
            CHECK(leaves != 0 || (ops[0].finished == 1 && ops[0].op.result.status != 0));
            CHECK(!is_released());
            if (how == SCRIPT)
                memset(server.known, 0, sizeof server.known);
            if (how == LOST)
                peer_cut(w, false);
            w->mute = w->clogged = server.refuses = false;
            peer_sleep(&server, 1000);
            CHECK(is_released());
            take_down();
        }
    }
}

/* Redis announces the mark of a release, and nobody writes it for a lock that is not ours. */
static void looks_for_the_end_of_a_lock_without_an_end(void)
{
    set_up();
    peer_put(&server, "job", "somebody else's", 15, -1);
    acquire(0, 0, TTL_MS, WAIT_MS);
    peer_sleep(&server, 3000);
    CHECK(ops[0].finished == 0);
    peer_unlink(&server, "job");
    peer_sleep(&server, 6000);
    CHECK(has(0));
    take_down();
}

int main(void)
{
    TEST(gives_it_to_one_at_a_time_with_a_growing_fence);
    TEST(costs_two_commands_when_nobody_else_wants_it);
    TEST(wakes_who_waits_elsewhere_when_it_is_released);
    TEST(is_first_come_first_served_within_a_process);
    TEST(notices_a_holder_that_died);
    TEST(renews_each_third_of_the_ttl);
    TEST(renewals_end_after_max_hold);
    TEST(stops_trusting_before_the_key_expires);
    TEST(knows_at_once_that_it_was_taken_away);
    TEST(hears_that_the_key_is_gone);
    TEST(looks_once_a_second_at_a_key_that_changes_all_the_time);
    TEST(trusts_a_shortened_key_no_longer_than_it_lives);
    TEST(looks_again_where_a_push_came_between_the_answers);
    TEST(renews_a_shortened_key_at_once);
    TEST(trusts_a_grant_no_longer_than_it_was_asked_for);
    TEST(trusts_a_repeated_request_no_longer_than_the_key_lives);
    TEST(keeps_it_through_a_broken_connection);
    TEST(gives_a_lock_back_that_comes_behind_its_lost_connection);
    TEST(releases_although_nobody_waits_for_it);
    TEST(a_push_in_front_of_the_renewals_answer_does_not_make_it_void);
    TEST(a_slow_answer_to_a_renewal_still_counts);
    TEST(does_not_renew_again_while_a_renewal_is_under_way);
    TEST(extends_and_shortens);
    TEST(a_renewal_does_not_take_back_what_an_extension_gave);
    TEST(gives_it_back_when_who_asked_has_left);
    TEST(a_single_try_ends_in_time_behind_others);
    TEST(a_forced_acquire_is_not_refused_by_somebody_elses_answer);
    TEST(two_acquires_with_one_handle_hold_once);
    TEST(waits_with_short_looks_where_tracking_is_not_allowed);
    TEST(a_hostile_pttl_does_no_harm);
    TEST(closing_gives_it_back_and_tells_the_handle);
    TEST(a_dropped_handle_gives_it_back);
    TEST(a_handle_that_goes_ends_its_own_operations_alone);
    TEST(refuses_a_handle_that_holds_it_already);
    TEST(looks_for_the_end_of_a_lock_without_an_end);
    return test_result();
}
