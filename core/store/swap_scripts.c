/* The script of writes that look first, done natively: lua/redcache/swap.lua has it. */
#include "store/present.h"

#include "store/answer.h"

/* Arguments of the script. */
enum { WHAT = 1, VALUE, TTL, VERSION };

static bool is_what(const struct rc_run *run, const char *what)
{
    return rc_text_equal(rc_run_arg(run, WHAT), (struct rc_text){what, 1});
}

static struct rc_text identity_of(struct rc_text value, char identity[RC_IDENTITY_SIZE])
{
    size_t len = rc_entry_identity(identity, value.bytes, value.len);
    return (struct rc_text){identity, len};
}

static bool has_version(const struct rc_run *run, struct rc_text value)
{
    char own[RC_IDENTITY_SIZE];
    return rc_text_equal(identity_of(value, own), rc_run_arg(run, VERSION));
}

/* {1 there was a value | 2 there was none, its version where it is asked for, left, what stood
   there} */
static void answer_old(struct rc_run *run, struct rc_value v, bool is_none, int64_t left)
{
    char own[RC_IDENTITY_SIZE];
    struct rc_text text = rc_run_text(run, v), version = {"", 0};
    if (!is_none && is_what(run, "G"))
        version = identity_of(text, own);
    rc_run_answer_list(run, 4, is_none ? 2 : 1);
    rc_run_answer_text(run, version);
    rc_run_answer_int(run, left);
    if (v.type == '$')
        rc_run_answer_text(run, text);
    else if (!run->failed)
        rc_answer_null(run->call);
}

/* left: what PTTL has said of what stands there. */
static void store(struct rc_run *run, int64_t left)
{
    char digits[RC_TEXT_INT_MAX];
    struct rc_text key = rc_run_key(run, 1), value = rc_run_arg(run, VALUE);
    struct rc_text ms = rc_run_arg(run, TTL);
    if (rc_text_equal(ms, RC_WORD("k")))
        ms = (struct rc_text){digits, rc_text_from_int(digits, left == 0 ? 1 : left)};
    if (rc_text_equal(ms, RC_WORD("-1")))
        RC_RUN_CALL(run, RC_WORD("SET"), key, value);
    else
        RC_RUN_CALL(run, RC_WORD("SET"), key, value, RC_WORD("PX"), ms);
}

static bool is_refused(const struct rc_run *run, struct rc_value v, bool is_none)
{
    if (is_what(run, "A"))
        return !is_none;
    if (is_what(run, "R"))
        return is_none;
    return is_what(run, "C") && (is_none || !has_version(run, rc_run_text(run, v)));
}

static void swap(struct rc_run *run)
{
    char own[RC_IDENTITY_SIZE];
    struct rc_value v = RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, 1));
    bool is_none = rc_present_is_nothing(run, 1, rc_run_text(run, v));
    if (is_refused(run, v, is_none)) {
        rc_run_answer_code(run, 0);
        return;
    }
    int64_t left = RC_RUN_CALL(run, RC_WORD("PTTL"), rc_run_key(run, 1)).number;
    if (is_what(run, "D"))
        RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
    else if (!is_what(run, "G"))
        store(run, left);
    if (is_what(run, "D") || is_what(run, "G") || is_what(run, "S")) {
        answer_old(run, v, is_none, left);
        return;
    }
    rc_run_answer_list(run, 2, 1);
    rc_run_answer_text(run, identity_of(rc_run_arg(run, VALUE), own));
}

const struct rc_twin rc_swap_twins[] = {
    {"f4f6641de82076e71f50d9a07090bc707e801d95", swap},
    {"", NULL},
};
