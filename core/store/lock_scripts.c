/* The scripts of locks, done natively: each function does what the source of its name in
   engine/script.c says, in the same order. What they write is pinned: a lock that was evicted would
   have two holders. */
#include "store/run.h"

#include <stdio.h>

#include "store/answer.h"
#include "store/key.h"

/* Answers {1, fence}. Lua counts in doubles, and so does this. */
static void give_fence(struct rc_run *run)
{
    char text[32];
    double now = (double)run->call->store->now_us;
    double fence = (double)RC_RUN_CALL(run, RC_WORD("INCR"), rc_run_key(run, 2)).number;
    if (fence < now)
        fence = now;
    int len = snprintf(text, sizeof text, "%.0f", fence);
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 2), (struct rc_text){text, (size_t)len},
                RC_WORD("PX"), rc_run_arg(run, 4));
    rc_run_get(run, 1);
    rc_run_answer_list(run, 2, 1);
    rc_run_answer_int(run, fence >= 0x1p63 ? INT64_MAX : (int64_t)fence);
    rc_run_pin(run, 1);
    rc_run_pin(run, 2);
}

static void lock(struct rc_run *run)
{
    struct rc_text key = rc_run_key(run, 1), token = rc_run_arg(run, 1), ttl = rc_run_arg(run, 2);
    if (rc_text_equal(rc_run_arg(run, 3), RC_WORD("1"))) {
        RC_RUN_CALL(run, RC_WORD("SET"), key, token, RC_WORD("PX"), ttl);
        give_fence(run);
        return;
    }
    struct rc_value old = RC_RUN_CALL(run, RC_WORD("SET"), key, token, RC_WORD("NX"),
                                      RC_WORD("GET"), RC_WORD("PX"), ttl);
    if (old.type == '$' && !rc_run_is(run, old, token)) {
        rc_run_get(run, 3);
        rc_run_answer_code(run, 0);
        return;
    }
    if (old.type == '$')
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), key, ttl);
    give_fence(run);
}

static void renew(struct rc_run *run)
{
    if (!rc_run_is(run, rc_run_get(run, 1), rc_run_arg(run, 1))) {
        rc_run_answer_int(run, 0);
        return;
    }
    RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, 1), rc_run_arg(run, 2));
    rc_run_get(run, 1);
    rc_run_answer_int(run, 1);
}

static void release(struct rc_run *run)
{
    struct rc_text token = rc_run_arg(run, 1);
    if (!rc_run_is(run, rc_run_get(run, 1), token)) {
        rc_run_answer_int(run, rc_run_is(run, rc_run_get(run, 2), token));
        return;
    }
    RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 2), token, RC_WORD("PX"), RC_WORD("1000"));
    rc_run_answer_int(run, 1);
    rc_run_pin(run, 2);
}

const struct rc_twin rc_lock_twins[] = {
    {"b09cdd53c7dfee1073b5d9fdd6895707b843ddbe", lock},
    {"2a10f9f704e1a6ea2e862478d003b8f9e640c898", renew},
    {"a734b726ca2acbca585f52257d35145351cfeb88", release},
    {"", NULL},
};
