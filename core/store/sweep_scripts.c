/* The script that deletes keys and counts values, done natively: lua/redcache/sweep.lua has it. */
#include "store/present.h"

static bool is_value(struct rc_run *run, uint32_t key)
{
    char bytes[RC_PRESENT_HEAD];
    return !rc_present_is_nothing(run, key, rc_present_bytes(run, key, bytes));
}

static void clear(struct rc_run *run)
{
    int64_t count = 0;
    for (uint32_t key = 1; key <= run->key_count && !run->failed; key++) {
        bool counts = is_value(run, key);
        count += RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, key)).number == 1 && counts;
    }
    rc_run_answer_int(run, count);
}

const struct rc_twin rc_sweep_twins[] = {
    {"588d3083b6bd683248985414106342b46b7f4aec", clear},
    {"", NULL},
};
