/* The script that changes how long a value lives, done natively: lua/redcache/life.lua has it. */
#include "store/run.h"

#include <stdio.h>
#include <string.h>

#include "engine/entry.h"

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

/* No key, a remembered "no such thing", a load or its end. `head`: of the value, a byte more than a
   header. */
static bool is_nothing(struct rc_run *run, struct rc_text head)
{
    if (head.len == 0)
        return RC_RUN_CALL(run, RC_WORD("EXISTS"), rc_run_key(run, 1)).number == 0;
    uint8_t kind = rc_entry_form(head.bytes, head.len);
    return kind == RC_KIND_NEGATIVE ||
           ((kind == RC_KIND_LEASE || kind == RC_KIND_ERROR) && pttl(run) >= 0);
}

/* What the header tells of the grace window. */
static int64_t grace_ms(struct rc_text head)
{
    const uint8_t *at = (const uint8_t *)head.bytes + 16;
    if (rc_entry_form(head.bytes, head.len) != RC_KIND_VALUE)
        return 0;
    return (int64_t)at[0] | (int64_t)at[1] << 8 | (int64_t)at[2] << 16 | (int64_t)at[3] << 24;
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
    struct rc_value value =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, 1), RC_WORD("0"), RC_WORD("24"));
    struct rc_text found = rc_run_text(run, value);
    char bytes[RC_ENTRY_SIZE + 1]; /* the texts of the script move while it runs */
    struct rc_text head = {bytes, found.len < sizeof bytes ? found.len : sizeof bytes};
    int64_t ms = 0;
    if (head.len > 0)
        memcpy(bytes, found.bytes, head.len);
    if (is_nothing(run, head)) {
        rc_run_answer_int(run, 0);
        return;
    }
    (void)rc_text_to_int(rc_run_arg(run, MILLISECONDS), &ms);
    ms += grace_ms(head);
    int64_t left = is_how(run, "T") ? pttl(run) : 0;
    if (is_how(run, "P"))
        RC_RUN_CALL(run, RC_WORD("PERSIST"), rc_run_key(run, 1));
    else if (!is_how(run, "T") || (left >= 0 && left < ms))
        set_life(run, ms);
    rc_run_answer_int(run, 1);
}

const struct rc_twin rc_life_twins[] = {
    {"57ff071aa7f8ed283a2982d4ab31249f52d56b46", change},
    {"", NULL},
};
