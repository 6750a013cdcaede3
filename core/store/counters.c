/* Numbers in strings. */
#include "store/verb.h"

#include <math.h>

#include "store/answer.h"
#include "store/key.h"

static struct rc_key *find(const struct rc_call *call)
{
    return rc_key_find(call->store, call->session->database, call->args[1]);
}

static bool write(struct rc_call *call, const struct rc_key *old, const char *text, size_t len)
{
    int64_t expires_ms = old == NULL ? RC_STORE_NEVER : old->expires_ms;
    if (rc_key_write(call->store, call->session->database, call->args[1],
                     (struct rc_text){text, len}, expires_ms) == 0)
        return true;
    rc_answer_no_room(call);
    return false;
}

static void add(struct rc_call *call, int64_t more)
{
    char text[RC_TEXT_INT_MAX];
    const struct rc_key *old = find(call);
    int64_t number = 0;
    if (old != NULL && !rc_text_to_int(rc_key_value(old), &number)) {
        rc_answer_error(call, "ERR value is not an integer or out of range");
        return;
    }
    if (more < 0 ? number < INT64_MIN - more : number > INT64_MAX - more) {
        rc_answer_error(call, "ERR increment or decrement would overflow");
        return;
    }
    number += more;
    if (write(call, old, text, rc_text_from_int(text, number)))
        rc_answer_int(call, number);
}

static void do_incr(struct rc_call *call)
{
    add(call, 1);
}

static void do_decr(struct rc_call *call)
{
    add(call, -1);
}

static void do_incrby(struct rc_call *call)
{
    int64_t more;
    if (rc_answer_take_int(call, 2, &more))
        add(call, more);
}

static void do_decrby(struct rc_call *call)
{
    int64_t less;
    if (!rc_answer_take_int(call, 2, &less))
        return;
    if (less == INT64_MIN)
        rc_answer_error(call, "ERR decrement would overflow");
    else
        add(call, -less);
}

static void do_incrbyfloat(struct rc_call *call)
{
    char text[RC_TEXT_FLOAT_MAX];
    const struct rc_key *old = find(call);
    long double number = 0, more;
    if ((old != NULL && !rc_text_to_float(rc_key_value(old), &number)) ||
        !rc_text_to_float(call->args[2], &more)) {
        rc_answer_error(call, "ERR value is not a valid float");
        return;
    }
    number += more;
    if (isnan(number) || isinf(number)) {
        rc_answer_error(call, "ERR increment would produce NaN or Infinity");
        return;
    }
    size_t len = rc_text_from_float(text, number);
    if (write(call, old, text, len))
        rc_answer_bulk(call, (struct rc_text){text, len});
}

const struct rc_verb rc_counter_verbs[] = {
    {"INCR", 2, RC_VERB_WRITES | RC_VERB_GROWS, do_incr},
    {"DECR", 2, RC_VERB_WRITES | RC_VERB_GROWS, do_decr},
    {"INCRBY", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_incrby},
    {"DECRBY", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_decrby},
    {"INCRBYFLOAT", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_incrbyfloat},
    {"", 0, 0, NULL},
};
