#include "engine/breaker.h"

#include <string.h>

#include "test/test.h"

enum { MS = 1000 };

static const struct rc_breaker_rules RULES = {.window = 20,
                                              .errors_permille = 500,
                                              .latency_us = 100 * MS,
                                              .silence_us = 500 * MS,
                                              .wait_us = 250 * MS,
                                              .probes = 3};

static int64_t now_us;

static void hear(struct rc_breaker *breaker, int64_t took_us)
{
    int64_t sent_us = now_us;
    now_us += took_us;
    rc_breaker_hear(breaker, false, sent_us, took_us, now_us);
}

static void ready(struct rc_breaker *breaker)
{
    now_us = 1000 * MS;
    rc_breaker_init(breaker, &RULES);
}

static void stays_closed_while_all_is_well(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 1000; i++)
        hear(&breaker, i % 2 == 0 ? 200 * MS : 1 * MS); /* half of them, not more */
    CHECK(!rc_breaker_is_shut(&breaker));
}

static void opens_where_the_median_is_slow(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 19; i++)
        hear(&breaker, 200 * MS);
    CHECK(!rc_breaker_is_shut(&breaker));
    hear(&breaker, 200 * MS);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void opens_where_half_have_failed(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 10; i++)
        hear(&breaker, 1 * MS);
    for (int i = 0; i < 9; i++)
        rc_breaker_hear(&breaker, true, now_us, 1 * MS, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
    rc_breaker_broke(&breaker, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void forgets_what_left_the_window(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 9; i++)
            rc_breaker_hear(&breaker, true, now_us, 1 * MS, now_us);
        for (int i = 0; i < 11; i++)
            hear(&breaker, 1 * MS);
    }
    CHECK(!rc_breaker_is_shut(&breaker));
    CHECK(breaker.bad == 9 && breaker.slow == 0 && breaker.count == 20);
}

static void opens_at_once_where_the_server_is_silent(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    rc_breaker_miss(&breaker, 500 * MS, 499 * MS, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
    rc_breaker_miss(&breaker, 500 * MS, 500 * MS, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void counts_no_short_time_out(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 1000; i++)
        rc_breaker_miss(&breaker, 10 * MS, 10 * MS, now_us);
    CHECK(!rc_breaker_is_shut(&breaker) && breaker.count == 0);
}

static void counts_not_what_was_under_way_while_its_process_was_away(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 100; i++) {
        int64_t sent_us = now_us;
        now_us += 300 * MS;
        rc_breaker_late(&breaker, 51 * MS, now_us); /* some timer's */
        rc_breaker_hear(&breaker, false, sent_us, 300 * MS, now_us);
        rc_breaker_miss(&breaker, 600 * MS, 600 * MS, now_us + 1 * MS);
    }
    CHECK(!rc_breaker_is_shut(&breaker) && breaker.count == 0);
    now_us += 300 * MS;
    rc_breaker_late(&breaker, 50 * MS, now_us); /* as a busy machine may be */
    rc_breaker_miss(&breaker, 600 * MS, 600 * MS, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void open_it(struct rc_breaker *breaker)
{
    ready(breaker);
    rc_breaker_miss(breaker, 500 * MS, 500 * MS, now_us);
}

/* Gone: for a quarter of a time-out and more. */
static void takes_nobody_for_silent_whose_client_was_gone(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    rc_breaker_late(&breaker, 126 * MS, now_us);
    rc_breaker_miss(&breaker, 500 * MS, 500 * MS, now_us + 249 * MS);
    CHECK(!rc_breaker_is_shut(&breaker) && breaker.bad == 1);
    rc_breaker_late(&breaker, 125 * MS, now_us + 150 * MS);
    rc_breaker_miss(&breaker, 500 * MS, 500 * MS, now_us + 250 * MS);
    CHECK(rc_breaker_is_shut(&breaker));
}

/* A caller who asks only now and then: nobody has turned between its calls. */
static void counts_what_was_sent_in_the_turn_that_came_back(void)
{
    struct rc_breaker breaker;
    ready(&breaker);
    for (int i = 0; i < 20; i++) {
        now_us += 1000 * MS;
        rc_breaker_late(&breaker, 200 * MS, now_us);
        hear(&breaker, 200 * MS);
    }
    CHECK(rc_breaker_is_shut(&breaker));
}

/* A minute: nobody has said what is slow. */
static void minds_no_slow_answer_where_none_is_slow(void)
{
    struct rc_breaker_rules rules = RULES;
    struct rc_breaker breaker;
    rules.latency_us = 60 * 1000 * MS;
    now_us = 1000 * MS;
    rc_breaker_init(&breaker, &rules);
    for (int i = 0; i < 100; i++)
        hear(&breaker, 400 * MS);
    for (int i = 0; i < 100; i++)
        rc_breaker_miss(&breaker, 250 * MS, 250 * MS, now_us); /* they wanted it sooner */
    CHECK(!rc_breaker_is_shut(&breaker) && breaker.bad == 0);
    for (int i = 0; i < 10; i++)
        rc_breaker_miss(&breaker, 251 * MS, 251 * MS, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void closes_after_probes_in_a_row(void)
{
    struct rc_breaker breaker;
    open_it(&breaker);
    CHECK(!rc_breaker_may_probe(&breaker, now_us + 249 * MS));
    now_us += 250 * MS;
    for (int i = 0; i < 3; i++) {
        CHECK(rc_breaker_is_shut(&breaker) && rc_breaker_may_probe(&breaker, now_us));
        rc_breaker_probed(&breaker, true, true, now_us);
    }
    CHECK(!rc_breaker_is_shut(&breaker) && !rc_breaker_may_probe(&breaker, now_us));
}

static void begins_again_behind_a_bad_probe(void)
{
    struct rc_breaker breaker;
    open_it(&breaker);
    now_us += 250 * MS;
    CHECK(rc_breaker_may_probe(&breaker, now_us));
    rc_breaker_probed(&breaker, true, true, now_us);
    CHECK(rc_breaker_may_probe(&breaker, now_us));
    rc_breaker_probed(&breaker, false, false, now_us);
    CHECK(strcmp(rc_breaker_state_name(&breaker), "open") == 0);
    CHECK(!rc_breaker_may_probe(&breaker, now_us + 249 * MS));
    CHECK(rc_breaker_may_probe(&breaker, now_us + 250 * MS));
    rc_breaker_probed(&breaker, false, false, now_us);
    CHECK(!rc_breaker_may_probe(&breaker, now_us + 499 * MS)); /* it doubles */
    for (int i = 0; i < 10; i++) {
        now_us += 1000 * MS; /* up to a second */
        CHECK(rc_breaker_may_probe(&breaker, now_us));
        rc_breaker_probed(&breaker, false, false, now_us);
    }
}

static void hurries_where_there_is_a_sign_of_life_but_not_all_the_time(void)
{
    struct rc_breaker breaker;
    int probes = 0;
    open_it(&breaker);
    for (int ms = 0; ms < 10000; ms++) {
        now_us += 1 * MS;
        rc_breaker_hear(&breaker, false, now_us, 0, now_us);
        if (rc_breaker_may_probe(&breaker, now_us)) {
            probes++;
            rc_breaker_probed(&breaker, false, false, now_us);
        }
    }
    CHECK(probes > 30 && probes <= 41); /* one in wait_us */
}

static void knows_nothing_of_another_server(void)
{
    struct rc_breaker breaker;
    open_it(&breaker);
    rc_breaker_renew(&breaker);
    CHECK(!rc_breaker_is_shut(&breaker) && breaker.count == 0 && breaker.cause == NULL);
}

static void says_why(void)
{
    struct rc_breaker breaker;
    char text[256], brief[8];
    open_it(&breaker);
    rc_breaker_tell(&breaker, "h:1", now_us, text, sizeof text);
    CHECK(strcmp(text, "the circuit breaker of h:1 is open: it does not answer; it is probed again "
                       "in 0.25 s") == 0);
    rc_breaker_tell(&breaker, "h:1", now_us, brief, sizeof brief);
    CHECK(strlen(brief) == 7);
}

static void stays_open_while_it_is_held_open(void)
{
    struct rc_breaker breaker;
    char text[256];
    ready(&breaker);
    rc_breaker_set_hold(&breaker, RC_BREAKER_HELD_OPEN, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
    now_us += 10000 * MS;
    CHECK(!rc_breaker_may_probe(&breaker, now_us));
    for (int i = 0; i < 10; i++)
        rc_breaker_probed(&breaker, true, true, now_us); /* one was under way */
    hear(&breaker, 1 * MS);
    rc_breaker_renew(&breaker);
    CHECK(rc_breaker_is_shut(&breaker));
    rc_breaker_tell(&breaker, "h:1", now_us, text, sizeof text);
    CHECK(strcmp(text, "the circuit breaker of h:1 is open: it was opened by hand") == 0);
    rc_breaker_set_hold(&breaker, RC_BREAKER_AUTO, now_us);
    CHECK(rc_breaker_is_shut(&breaker) && rc_breaker_may_probe(&breaker, now_us));
    for (int i = 0; i < 3; i++)
        rc_breaker_probed(&breaker, true, true, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
}

static void stays_closed_while_it_is_held_closed(void)
{
    struct rc_breaker breaker;
    open_it(&breaker);
    rc_breaker_set_hold(&breaker, RC_BREAKER_HELD_CLOSED, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
    for (int i = 0; i < 40; i++)
        rc_breaker_hear(&breaker, true, now_us, 1 * MS, now_us);
    rc_breaker_miss(&breaker, 500 * MS, 500 * MS, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
    rc_breaker_set_hold(&breaker, RC_BREAKER_AUTO, now_us);
    CHECK(!rc_breaker_is_shut(&breaker));
    rc_breaker_hear(&breaker, true, now_us, 1 * MS, now_us);
    CHECK(rc_breaker_is_shut(&breaker));
}

static void opened_by_hand_where_it_is_open_already(void)
{
    struct rc_breaker breaker;
    open_it(&breaker);
    now_us += 250 * MS;
    CHECK(rc_breaker_may_probe(&breaker, now_us));
    rc_breaker_set_hold(&breaker, RC_BREAKER_HELD_OPEN, now_us);
    CHECK(strcmp(rc_breaker_state_name(&breaker), "open") == 0);
    CHECK(strcmp(breaker.cause, "it was opened by hand") == 0);
}

int main(void)
{
    TEST(stays_closed_while_all_is_well);
    TEST(opens_where_the_median_is_slow);
    TEST(opens_where_half_have_failed);
    TEST(forgets_what_left_the_window);
    TEST(opens_at_once_where_the_server_is_silent);
    TEST(counts_no_short_time_out);
    TEST(counts_not_what_was_under_way_while_its_process_was_away);
    TEST(takes_nobody_for_silent_whose_client_was_gone);
    TEST(counts_what_was_sent_in_the_turn_that_came_back);
    TEST(minds_no_slow_answer_where_none_is_slow);
    TEST(closes_after_probes_in_a_row);
    TEST(begins_again_behind_a_bad_probe);
    TEST(hurries_where_there_is_a_sign_of_life_but_not_all_the_time);
    TEST(knows_nothing_of_another_server);
    TEST(says_why);
    TEST(stays_open_while_it_is_held_open);
    TEST(stays_closed_while_it_is_held_closed);
    TEST(opened_by_hand_where_it_is_open_already);
    return test_result();
}
