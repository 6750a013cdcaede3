/* The script of counters, done natively, as lua/redcache/count.lua has it. */
#include "store/present.h"

#include <math.h>
#include <string.h>

#include "base/mutant.h"

/* Arguments of the script. */
enum { COMMAND = 1, BY, INIT, TTL, MIN, MAX };

static const long double EXACT = 9007199254740992.0L; /* 2^53 */

static bool number_of(struct rc_text text, double *number)
{
    long double wide;
    if (text.bytes == NULL || !rc_text_to_float(text, &wide))
        return false;
    *number = (double)wide;
    return true;
}

/* As the script finds out what both it and Redis take for a number. */
static bool is_decimal(struct rc_text text)
{
    size_t at = text.len > 0 && text.bytes[0] == '-';
    if (at == text.len || memchr("0123456789.", text.bytes[at], 11) == NULL)
        return false;
    while (++at < text.len) {
        if (memchr("0123456789e.+-", text.bytes[at], 14) == NULL)
            return false;
    }
    return true;
}

static bool is_outside(const struct rc_run *run, double number)
{
    double bound;
    return (number_of(rc_run_arg(run, MIN), &bound) && number < bound) ||
           (number_of(rc_run_arg(run, MAX), &bound) && number > bound);
}

static void answer(struct rc_run *run, int64_t code, struct rc_text text)
{
    rc_run_answer_list(run, 2, code);
    rc_run_answer_text(run, text);
}

static void begin(struct rc_run *run)
{
    if (rc_text_equal(rc_run_arg(run, TTL), RC_WORD("-1")) || RC_MUTANT(COUNT_WITHOUT_TTL))
        RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), rc_run_arg(run, INIT));
    else
        RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), rc_run_arg(run, INIT), RC_WORD("PX"),
                    rc_run_arg(run, TTL));
}

/* An integer that was added to, and is out of its bounds, becomes again what it was. */
static void take_back(struct rc_run *run, bool is_new, const char *before, size_t len)
{
    if (is_new) {
        RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
        answer(run, 0, RC_WORD(""));
        return;
    }
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), (struct rc_text){before, len},
                RC_WORD("KEEPTTL"));
    answer(run, 0, (struct rc_text){before, len});
}

static void add(struct rc_run *run)
{
    struct rc_value v = RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, 1));
    bool is_new = rc_present_is_nothing(run, 1, rc_run_text(run, v)), is_whole;
    struct rc_text old = is_new ? rc_run_arg(run, INIT) : rc_run_text(run, v);
    double base = 0, by = 0;
    /* The texts of the script move while it runs. Longer ones are no numbers. */
    char before[RC_TEXT_FLOAT_MAX];
    size_t before_len = old.len < sizeof before ? old.len : 0;
    if (before_len > 0)
        memcpy(before, old.bytes, before_len);
    bool has_base = is_decimal(old) && number_of(old, &base);
    (void)number_of(rc_run_arg(run, BY), &by);
    is_whole = rc_text_equal(rc_run_arg(run, COMMAND), RC_WORD("INCRBY"));
    bool is_exact = has_base && (!is_whole || (fabs(base) < EXACT && fabs(by) < EXACT));
    if (is_exact && is_outside(run, RC_MUTANT(BOUND_BEFORE) ? base : base + by)) {
        if (is_new && RC_MUTANT(BOUND_BEGINS))
            begin(run);
        if (!is_new && RC_MUTANT(BOUND_KEPT))
            RC_RUN_CALL(run, rc_run_arg(run, COMMAND), rc_run_key(run, 1), rc_run_arg(run, BY));
        struct rc_text was = {before, is_new ? 0 : before_len};
        answer(run, 0, RC_MUTANT(BOUND_TOLD) ? rc_run_arg(run, BY) : was);
        return;
    }
    if (is_new)
        begin(run);
    RC_RUN_CALL(run, rc_run_arg(run, COMMAND), rc_run_key(run, 1), rc_run_arg(run, BY));
    struct rc_value sum = RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, 1));
    double total = 0;
    if (is_exact || !number_of(rc_run_text(run, sum), &total) || !is_outside(run, total))
        answer(run, 1, rc_run_text(run, sum));
    else
        take_back(run, is_new, before, before_len);
}

const struct rc_twin rc_count_twins[] = {
    {"38c698f75f1d3cb30c4a98400e2a2f22725c54cb", add},
    {"", NULL},
};
