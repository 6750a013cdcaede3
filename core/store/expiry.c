#include "store/expiry.h"

#include "store/answer.h"
#include "store/key.h"
#include "store/verb.h"

enum condition { ONLY_WITHOUT = 1, ONLY_WITH = 2, ONLY_LATER = 4, ONLY_SOONER = 8 };

bool rc_expiry_read_unit(struct rc_text word, struct rc_expiry_unit *unit)
{
    static const struct {
        char name[5];
        struct rc_expiry_unit unit;
    } units[] = {
        {"EX", {1000, false}}, {"PX", {1, false}}, {"EXAT", {1000, true}}, {"PXAT", {1, true}}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (rc_text_is(word, units[i].name)) {
            *unit = units[i].unit;
            return true;
        }
    }
    return false;
}

static bool refuse_time(struct rc_call *call)
{
    char name[32];
    rc_answer_error(call, "ERR invalid expire time in '%s' command",
                    rc_verb_name(call->verb, name));
    return false;
}

bool rc_expiry_take(struct rc_call *call, uint32_t index, struct rc_expiry_unit unit,
                    bool must_be_positive, int64_t *expires_ms)
{
    int64_t number, base = unit.is_absolute ? 0 : rc_store_now_ms(call->store);
    if (!rc_answer_take_int(call, index, &number))
        return false;
    if (must_be_positive && number <= 0)
        return refuse_time(call);
    if (number > INT64_MAX / unit.scale_ms || number < INT64_MIN / unit.scale_ms)
        return refuse_time(call);
    number *= unit.scale_ms;
    if (number > INT64_MAX - base)
        return refuse_time(call);
    number += base;
    *expires_ms = number < RC_STORE_NEVER ? number : RC_STORE_NEVER - 1;
    return true;
}

bool rc_expiry_is_past(const struct rc_call *call, int64_t expires_ms)
{
    return expires_ms <= rc_store_now_ms(call->store);
}

static struct rc_key *find(const struct rc_call *call)
{
    return rc_key_find(call->store, call->session->database, call->args[1]);
}

/* ---- EXPIRE and its kin ---------------------------------------------------------------------- */

static bool read_conditions(struct rc_call *call, unsigned *conditions)
{
    static const char names[4][3] = {"NX", "XX", "GT", "LT"};
    *conditions = 0;
    for (uint32_t i = 3; i < call->count; i++) {
        unsigned which = 0;
        while (which < 4 && !rc_text_is(call->args[i], names[which]))
            which++;
        if (which == 4) {
            rc_answer_error(call, "ERR Unsupported option %.*s", (int)call->args[i].len,
                            call->args[i].bytes);
            return false;
        }
        *conditions |= 1u << which;
    }
    if ((*conditions & ONLY_WITHOUT) != 0 && *conditions != ONLY_WITHOUT) {
        rc_answer_error(call,
                        "ERR NX and XX, GT or LT options at the same time are not compatible");
        return false;
    }
    if ((*conditions & ONLY_LATER) != 0 && (*conditions & ONLY_SOONER) != 0) {
        rc_answer_error(call, "ERR GT and LT options at the same time are not compatible");
        return false;
    }
    return true;
}

/* A key without an end ends later than any other. */
static bool holds(unsigned conditions, int64_t old_ms, int64_t new_ms)
{
    bool has_end = old_ms != RC_STORE_NEVER;
    if ((conditions & ONLY_WITHOUT) != 0 && has_end)
        return false;
    if ((conditions & ONLY_WITH) != 0 && !has_end)
        return false;
    if ((conditions & ONLY_LATER) != 0 && new_ms <= old_ms)
        return false;
    return (conditions & ONLY_SOONER) == 0 || !has_end || new_ms < old_ms;
}

static void expire(struct rc_call *call, struct rc_expiry_unit unit)
{
    unsigned conditions;
    int64_t expires_ms;
    if (!read_conditions(call, &conditions) || !rc_expiry_take(call, 2, unit, false, &expires_ms))
        return;
    struct rc_key *key = find(call);
    if (key == NULL || !holds(conditions, key->expires_ms, expires_ms)) {
        rc_answer_int(call, 0);
        return;
    }
    if (rc_expiry_is_past(call, expires_ms))
        rc_key_remove(call->store, key);
    else
        rc_key_set_expiry(call->store, key, expires_ms);
    rc_answer_int(call, 1);
}

static void do_expire(struct rc_call *call)
{
    expire(call, (struct rc_expiry_unit){1000, false});
}

static void do_pexpire(struct rc_call *call)
{
    expire(call, (struct rc_expiry_unit){1, false});
}

static void do_expireat(struct rc_call *call)
{
    expire(call, (struct rc_expiry_unit){1000, true});
}

static void do_pexpireat(struct rc_call *call)
{
    expire(call, (struct rc_expiry_unit){1, true});
}

static void do_persist(struct rc_call *call)
{
    struct rc_key *key = find(call);
    bool has_end = key != NULL && key->expires_ms != RC_STORE_NEVER;
    if (has_end)
        rc_key_set_expiry(call->store, key, RC_STORE_NEVER);
    rc_answer_int(call, has_end);
}

/* ---- TTL and its kin ------------------------------------------------------------------------- */

/* -2: no key, -1: no end, or the milliseconds since `base_ms`. */
static int64_t left(const struct rc_call *call, int64_t base_ms)
{
    const struct rc_key *key = find(call);
    if (key == NULL)
        return -2;
    if (key->expires_ms == RC_STORE_NEVER)
        return -1;
    return key->expires_ms < base_ms ? 0 : key->expires_ms - base_ms;
}

static int64_t in_seconds(int64_t ms)
{
    return ms < 0 ? ms : ms / 1000 + (ms % 1000 >= 500);
}

static void do_ttl(struct rc_call *call)
{
    rc_answer_int(call, in_seconds(left(call, rc_store_now_ms(call->store))));
}

static void do_pttl(struct rc_call *call)
{
    rc_answer_int(call, left(call, rc_store_now_ms(call->store)));
}

static void do_expiretime(struct rc_call *call)
{
    rc_answer_int(call, in_seconds(left(call, 0)));
}

static void do_pexpiretime(struct rc_call *call)
{
    rc_answer_int(call, left(call, 0));
}

const struct rc_verb rc_expiry_verbs[] = {
    {"EXPIRE", -3, RC_VERB_WRITES, do_expire},
    {"PEXPIRE", -3, RC_VERB_WRITES, do_pexpire},
    {"EXPIREAT", -3, RC_VERB_WRITES, do_expireat},
    {"PEXPIREAT", -3, RC_VERB_WRITES, do_pexpireat},
    {"PERSIST", 2, RC_VERB_WRITES, do_persist},
    {"TTL", 2, RC_VERB_READS | RC_VERB_KEY, do_ttl},
    {"PTTL", 2, RC_VERB_READS | RC_VERB_KEY, do_pttl},
    {"EXPIRETIME", 2, RC_VERB_READS | RC_VERB_KEY, do_expiretime},
    {"PEXPIRETIME", 2, RC_VERB_READS | RC_VERB_KEY, do_pexpiretime},
    {"", 0, 0, NULL},
};
