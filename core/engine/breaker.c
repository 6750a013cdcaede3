#include "engine/breaker.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"

enum { GAP_MIN_US = 50 * 1000 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void forget(struct rc_breaker *breaker)
{
    breaker->at = breaker->count = breaker->slow = breaker->bad = 0;
}

void rc_breaker_init(struct rc_breaker *breaker, const struct rc_breaker_rules *rules)
{
    assert(rules->window > 0 && rules->window <= RC_BREAKER_WINDOW_MAX && rules->probes > 0);
    memset(breaker, 0, sizeof *breaker);
    breaker->rules = *rules;
    breaker->short_us = smaller(rules->latency_us, rules->silence_us / 2);
    breaker->gone_us = larger(rules->silence_us / 4, GAP_MIN_US);
    breaker->gap_us = smaller(rules->latency_us / 2, breaker->gone_us);
    breaker->pace_us = rules->wait_us;
}

static void change(struct rc_breaker *breaker)
{
    if (breaker->on_change != NULL)
        breaker->on_change(breaker);
}

static void open(struct rc_breaker *breaker, const char *cause, int64_t now_us)
{
    if (breaker->state != RC_BREAKER_CLOSED || breaker->hold == RC_BREAKER_HELD_CLOSED)
        return;
    breaker->state = RC_BREAKER_OPEN;
    breaker->cause = cause;
    breaker->good_probes = 0;
    breaker->pace_us = breaker->rules.wait_us;
    breaker->next_us = now_us + breaker->pace_us;
    forget(breaker);
    change(breaker);
}

static void close(struct rc_breaker *breaker)
{
    breaker->state = RC_BREAKER_CLOSED;
    breaker->cause = NULL;
    forget(breaker);
    change(breaker);
}

static void weigh(struct rc_breaker *breaker, uint8_t sample, int step)
{
    breaker->slow += sample == RC_SAMPLE_SLOW ? (uint32_t)step : 0;
    breaker->bad += sample == RC_SAMPLE_BAD ? (uint32_t)step : 0;
}

/* The median is over the limit where more than half are: nothing needs to be sorted. */
static void add(struct rc_breaker *breaker, enum rc_breaker_sample sample, int64_t now_us)
{
    uint32_t window = breaker->rules.window;
    if (sample == RC_SAMPLE_GOOD && breaker->count == window && breaker->slow + breaker->bad == 0)
        return; /* one like all others */
    if (breaker->count == window)
        weigh(breaker, breaker->samples[breaker->at], -1);
    else
        breaker->count++;
    breaker->samples[breaker->at] = (uint8_t)sample;
    weigh(breaker, (uint8_t)sample, 1);
    breaker->at = breaker->at + 1 == window ? 0 : breaker->at + 1;
    if (sample == RC_SAMPLE_GOOD || breaker->count < window)
        return;
    if (breaker->bad * 1000 >= breaker->rules.errors_permille * window)
        open(breaker, "too many requests failed", now_us);
    else if ((breaker->slow + breaker->bad) * 2 > window)
        open(breaker, "its answers are slow", now_us);
}

void rc_breaker_hear(struct rc_breaker *breaker, bool is_error, int64_t sent_us, int64_t took_us,
                     int64_t now_us)
{
    if (breaker->state != RC_BREAKER_CLOSED) {
        rc_breaker_hurry(breaker, now_us);
        return;
    }
    if (is_error)
        add(breaker, RC_SAMPLE_BAD, now_us);
    else if (took_us <= breaker->rules.latency_us)
        add(breaker, RC_SAMPLE_GOOD, now_us);
    else if (sent_us >= breaker->away_us || RC_MUTANT(BREAKER_OWN_PAUSE))
        add(breaker, RC_SAMPLE_SLOW, now_us);
}

void rc_breaker_late(struct rc_breaker *breaker, int64_t late_us, int64_t now_us)
{
    if (late_us > breaker->gap_us)
        breaker->away_us = now_us;
    if (late_us > breaker->gone_us)
        breaker->back_us = now_us;
}

/* Its time-out says nothing where the caller wanted to wait for less than an answer may take, or
   where this process has just come back and not looked for answers yet. Nor is a server silent
   whose client was gone for long: where one has no processor, the other often has none, either. */
void rc_breaker_miss(struct rc_breaker *breaker, int64_t waited_us, int64_t silent_us,
                     int64_t now_us)
{
    int64_t silence_us = breaker->rules.silence_us;
    bool is_back = breaker->away_us != 0 && now_us - breaker->away_us < breaker->gap_us;
    bool was_gone = breaker->back_us != 0 && now_us - breaker->back_us < silence_us / 2 &&
                    !RC_MUTANT(BREAKER_OWN_PAUSE);
    if (breaker->state != RC_BREAKER_CLOSED || (is_back && !RC_MUTANT(BREAKER_OWN_PAUSE)))
        return;
    if (silent_us >= silence_us && !was_gone)
        open(breaker, "it does not answer", now_us);
    else if (waited_us > breaker->short_us)
        add(breaker, RC_SAMPLE_BAD, now_us);
}

void rc_breaker_broke(struct rc_breaker *breaker, int64_t now_us)
{
    if (breaker->state == RC_BREAKER_CLOSED)
        add(breaker, RC_SAMPLE_BAD, now_us);
}

void rc_breaker_renew(struct rc_breaker *breaker)
{
    if (breaker->state != RC_BREAKER_CLOSED && breaker->hold != RC_BREAKER_HELD_OPEN)
        close(breaker);
    forget(breaker);
}

void rc_breaker_set_hold(struct rc_breaker *breaker, enum rc_breaker_hold hold, int64_t now_us)
{
    bool was_held_open = breaker->hold == RC_BREAKER_HELD_OPEN;
    breaker->hold = hold;
    if (hold == RC_BREAKER_HELD_OPEN) {
        open(breaker, "it was opened by hand", now_us);
        breaker->cause = "it was opened by hand"; /* also where it was open before */
        breaker->state = RC_BREAKER_OPEN;
    } else if (hold == RC_BREAKER_HELD_CLOSED && breaker->state != RC_BREAKER_CLOSED) {
        close(breaker);
    } else if (was_held_open && breaker->state != RC_BREAKER_CLOSED) {
        breaker->good_probes = 0;
        breaker->pace_us = breaker->rules.wait_us;
        breaker->next_us = now_us;
        if (breaker->on_sent != NULL) /* the clock was set for later */
            breaker->on_sent(breaker);
    }
}

bool rc_breaker_may_probe(struct rc_breaker *breaker, int64_t now_us)
{
    if (breaker->state == RC_BREAKER_CLOSED || breaker->hold == RC_BREAKER_HELD_OPEN)
        return false;
    if (now_us < breaker->next_us || RC_MUTANT(BREAKER_BLIND))
        return false;
    breaker->state = RC_BREAKER_HALF_OPEN;
    breaker->probed_us = now_us;
    return true;
}

void rc_breaker_probed(struct rc_breaker *breaker, bool is_good, bool has_answered, int64_t now_us)
{
    if (breaker->state == RC_BREAKER_CLOSED || breaker->hold == RC_BREAKER_HELD_OPEN)
        return;
    if (is_good) {
        bool is_enough = ++breaker->good_probes >= breaker->rules.probes;
        if ((is_enough || RC_MUTANT(BREAKER_ONE_GOOD)) && !RC_MUTANT(BREAKER_STUCK))
            close(breaker);
        return;
    }
    int64_t pace_us = has_answered ? breaker->rules.wait_us : breaker->pace_us;
    breaker->state = RC_BREAKER_OPEN;
    breaker->good_probes = 0;
    breaker->next_us = now_us + pace_us;
    breaker->pace_us = 2 * pace_us < RC_BREAKER_WAIT_MAX_US ? 2 * pace_us : RC_BREAKER_WAIT_MAX_US;
}

void rc_breaker_hurry(struct rc_breaker *breaker, int64_t now_us)
{
    int64_t soon_us = breaker->probed_us + breaker->rules.wait_us;
    if (breaker->state != RC_BREAKER_OPEN || breaker->hold == RC_BREAKER_HELD_OPEN)
        return;
    if (soon_us < now_us || RC_MUTANT(BREAKER_HASTY))
        soon_us = now_us;
    breaker->pace_us = breaker->rules.wait_us;
    if (breaker->next_us <= soon_us)
        return;
    breaker->next_us = soon_us;
    if (breaker->on_sent != NULL) /* the clock was set for later */
        breaker->on_sent(breaker);
}

const char *rc_breaker_state_name(const struct rc_breaker *breaker)
{
    static const char *const names[] = {"closed", "open", "half-open"};
    return names[breaker->state];
}

void rc_breaker_tell(const struct rc_breaker *breaker, const char *address, int64_t now_us,
                     char *text, size_t size)
{
    int64_t left_us = breaker->next_us > now_us ? breaker->next_us - now_us : 0;
    if (breaker->hold == RC_BREAKER_HELD_OPEN) {
        snprintf(text, size, "the circuit breaker of %s is open: %s", address, breaker->cause);
        return;
    }
    snprintf(text, size, "the circuit breaker of %s is open: %s; it is probed again in %.2f s",
             address, breaker->cause != NULL ? breaker->cause : "the server was not well",
             (double)left_us / 1e6);
}
