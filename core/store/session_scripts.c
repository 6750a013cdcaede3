/* The script that gives a session a new id, done natively: lua/redcache/session.lua has it. */
#include "store/run.h"

static void move(struct rc_run *run)
{
    struct rc_text old = rc_run_key(run, 1), new = rc_run_key(run, 2), ms = rc_run_arg(run, 1);
    if (RC_RUN_CALL(run, RC_WORD("EXISTS"), old).number == 0) {
        rc_run_answer_int(run, 0);
        return;
    }
    RC_RUN_CALL(run, RC_WORD("RENAME"), old, new);
    if (rc_text_equal(ms, RC_WORD("-1")))
        RC_RUN_CALL(run, RC_WORD("PERSIST"), new);
    else
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), new, ms);
    rc_run_answer_int(run, 1);
}

const struct rc_twin rc_session_twins[] = {
    {"1af5e0633a5547ece76b7a875e969f072e180a99", move},
    {"", NULL},
};
