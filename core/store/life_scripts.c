/* The script that changes how long a value lives, done natively: lua/redcache/life.lua has it. */
#include "store/present.h"

/* Arguments of the script. */
enum { HOW = 1, MILLISECONDS };

static bool is_how(const struct rc_run *run, const char *how)
{
    return rc_text_equal(rc_run_arg(run, HOW), (struct rc_text){how, 1});
}

static int64_t pttl(struct rc_run *run)
{
    return RC_RUN_CALL(run, RC_WORD("PTTL"), rc_run_key(run, 1)).number;
}

static void set_life(struct rc_run *run, int64_t ms)
{
    char digits[RC_TEXT_INT_MAX];
    struct rc_text text = {digits, rc_text_from_int(digits, ms)};
    RC_RUN_CALL(run, is_how(run, "A") ? RC_WORD("PEXPIREAT") : RC_WORD("PEXPIRE"),
                rc_run_key(run, 1), text);
}

static void change(struct rc_run *run)
{
    char bytes[RC_PRESENT_HEAD];
    struct rc_text head = rc_present_head(run, 1, bytes);
    int64_t ms = 0;
    if (rc_present_is_nothing(run, 1, head)) {
        rc_run_answer_int(run, 0);
        return;
    }
    (void)rc_text_to_int(rc_run_arg(run, MILLISECONDS), &ms);
    ms += rc_present_grace_ms(head);
    int64_t left = is_how(run, "T") ? pttl(run) : 0;
    if (is_how(run, "P"))
        RC_RUN_CALL(run, RC_WORD("PERSIST"), rc_run_key(run, 1));
    else if (!is_how(run, "T") || (left >= 0 && left < ms))
        set_life(run, ms);
    rc_run_answer_int(run, 1);
}

const struct rc_twin rc_life_twins[] = {
    {"0b398eacef317393d8a0c29b23a9635a98693075", change},
    {"", NULL},
};
