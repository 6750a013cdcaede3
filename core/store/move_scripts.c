/* The script that renames and copies values, done natively: lua/redcache/move.lua has it. */
#include "store/present.h"

/* Keys and arguments of the script. */
enum { FROM = 1, TO };
enum { COMMAND = 1, NX };

static bool is_nothing(struct rc_run *run, uint32_t key)
{
    char bytes[RC_PRESENT_HEAD];
    return rc_present_is_nothing(run, key, rc_present_head(run, key, bytes));
}

static void move(struct rc_run *run)
{
    int64_t done = 1;
    struct rc_text from = rc_run_key(run, FROM), to = rc_run_key(run, TO);
    if (is_nothing(run, FROM))
        done = 0;
    else if (rc_text_equal(rc_run_arg(run, NX), RC_WORD("NX")) && !is_nothing(run, TO))
        done = 2;
    else if (rc_text_equal(from, to))
        done = 1;
    else if (rc_text_equal(rc_run_arg(run, COMMAND), RC_WORD("COPY")))
        done = RC_RUN_CALL(run, RC_WORD("COPY"), from, to, RC_WORD("REPLACE")).number;
    else
        RC_RUN_CALL(run, RC_WORD("RENAME"), from, to);
    rc_run_answer_int(run, done);
}

const struct rc_twin rc_move_twins[] = {
    {"7dfcd410a44f61c3d4f4653df89abdfe697f6a97", move},
    {"", NULL},
};
