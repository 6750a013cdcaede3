/* SET and its kin: whole values, with an expiry and conditions; and DELIFEQ. */
#include "store/verb.h"

#include "store/answer.h"
#include "store/expiry.h"
#include "store/key.h"

struct set_options {
    bool only_new;
    bool only_old;
    bool get;
    bool keep_ttl;
    bool persist;
    bool has_expiry;
    struct rc_expiry_unit unit;
    uint32_t expiry_at; /* argument */
    uint32_t ifeq_at;   /* argument; 0: whatever stands there */
};

static struct rc_key *find(const struct rc_call *call, uint32_t index)
{
    return rc_key_find(call->store, call->session->database, call->args[index]);
}

/* Stores the argument, or says why not instead of all that was said. */
static bool write_arg(struct rc_call *call, uint32_t key_at, uint32_t value_at, int64_t expires_ms)
{
    if (rc_key_write(call->store, call->session->database, call->args[key_at], call->args[value_at],
                     expires_ms) == 0)
        return true;
    rc_answer_take_back(call);
    rc_answer_no_room(call);
    return false;
}

/* EX, PX, EXAT and PXAT exclude each other, but each may be said twice. */
static bool take_expiry(const struct rc_call *call, uint32_t at, struct set_options *options)
{
    struct rc_expiry_unit unit;
    if (!rc_expiry_read_unit(call->args[at], &unit) || at + 1 == call->count)
        return false;
    bool is_other = options->has_expiry && (unit.scale_ms != options->unit.scale_ms ||
                                            unit.is_absolute != options->unit.is_absolute);
    if (is_other || options->keep_ttl || options->persist)
        return false;
    options->has_expiry = true;
    options->unit = unit;
    options->expiry_at = at + 1;
    return true;
}

static bool take_set_option(const struct rc_call *call, uint32_t at, struct set_options *options)
{
    struct rc_text word = call->args[at];
    if (rc_text_is(word, "NX") && !options->only_old && options->ifeq_at == 0)
        options->only_new = true;
    else if (rc_text_is(word, "XX") && !options->only_new && options->ifeq_at == 0)
        options->only_old = true;
    else if (rc_text_is(word, "GET"))
        options->get = true;
    else if (rc_text_is(word, "KEEPTTL") && !options->has_expiry)
        options->keep_ttl = true;
    else
        return false;
    return true;
}

static bool take_getex_option(const struct rc_call *call, uint32_t at, struct set_options *options)
{
    if (!rc_text_is(call->args[at], "PERSIST") || options->has_expiry)
        return false;
    options->persist = true;
    return true;
}

/* IFEQ and NX exclude each other, as IFEQ and XX do. */
static bool take_ifeq(const struct rc_call *call, uint32_t at, struct set_options *options)
{
    if (!call->store->options.compares || !rc_text_is(call->args[at], "IFEQ") ||
        at + 1 == call->count || options->only_new || options->only_old || options->ifeq_at != 0)
        return false;
    options->ifeq_at = at + 1;
    return true;
}

static bool read_options(struct rc_call *call, uint32_t at, struct set_options *options,
                         bool (*take)(const struct rc_call *, uint32_t, struct set_options *))
{
    for (; at < call->count; at++) {
        if (take(call, at, options))
            continue;
        bool is_set = take == take_set_option;
        if (!(is_set && take_ifeq(call, at, options)) && !take_expiry(call, at, options)) {
            rc_answer_syntax_error(call);
            return false;
        }
        at++;
    }
    return true;
}

/* When the key is to expire by the options. */
static bool take_end(struct rc_call *call, const struct set_options *options, int64_t *expires_ms)
{
    *expires_ms = RC_STORE_NEVER;
    return !options->has_expiry ||
           rc_expiry_take(call, options->expiry_at, options->unit, true, expires_ms);
}

static void do_set(struct rc_call *call)
{
    struct set_options options = {0};
    int64_t expires_ms;
    if (!read_options(call, 3, &options, take_set_option) || !take_end(call, &options, &expires_ms))
        return;
    const struct rc_key *old = find(call, 1);
    bool is_refused = old == NULL ? options.only_old : options.only_new;
    if (options.ifeq_at != 0)
        is_refused = old == NULL || !rc_text_equal(rc_key_value(old), call->args[options.ifeq_at]);
    if (options.keep_ttl && old != NULL)
        expires_ms = old->expires_ms;
    if (options.get && old != NULL)
        rc_answer_bulk(call, rc_key_value(old));
    else if (options.get || is_refused)
        rc_answer_null(call);
    if (is_refused)
        return;
    if (write_arg(call, 1, 2, expires_ms) && !options.get)
        rc_answer_status(call, "OK");
}

static void do_delifeq(struct rc_call *call)
{
    struct rc_key *key = rc_key_find(call->store, call->session->database, call->args[1]);
    bool is_equal = key != NULL && rc_text_equal(rc_key_value(key), call->args[2]);
    if (is_equal)
        rc_key_remove(call->store, key);
    rc_answer_int(call, is_equal);
}

static void do_setnx(struct rc_call *call)
{
    if (find(call, 1) != NULL)
        rc_answer_int(call, 0);
    else if (write_arg(call, 1, 2, RC_STORE_NEVER))
        rc_answer_int(call, 1);
}

static void set_with_expiry(struct rc_call *call, struct rc_expiry_unit unit)
{
    int64_t expires_ms;
    if (!rc_expiry_take(call, 2, unit, true, &expires_ms))
        return;
    (void)find(call, 1);
    if (write_arg(call, 1, 3, expires_ms))
        rc_answer_status(call, "OK");
}

static void do_setex(struct rc_call *call)
{
    set_with_expiry(call, (struct rc_expiry_unit){1000, false});
}

static void do_psetex(struct rc_call *call)
{
    set_with_expiry(call, (struct rc_expiry_unit){1, false});
}

static void do_getset(struct rc_call *call)
{
    const struct rc_key *old = find(call, 1);
    if (old == NULL)
        rc_answer_null(call);
    else
        rc_answer_bulk(call, rc_key_value(old));
    (void)write_arg(call, 1, 2, RC_STORE_NEVER);
}

static void do_getex(struct rc_call *call)
{
    struct set_options options = {0};
    int64_t expires_ms;
    if (!read_options(call, 2, &options, take_getex_option))
        return;
    struct rc_key *key = find(call, 1);
    if (key == NULL) {
        rc_answer_null(call);
        return;
    }
    if (!take_end(call, &options, &expires_ms))
        return;
    rc_answer_bulk(call, rc_key_value(key));
    if (options.has_expiry && options.unit.is_absolute && rc_expiry_is_past(call, expires_ms))
        rc_key_remove(call->store, key);
    else if (options.has_expiry || (options.persist && key->expires_ms != RC_STORE_NEVER))
        rc_key_set_expiry(call->store, key, expires_ms);
}

/* When memory ends in the middle, the first pairs stay. */
static bool set_pairs(struct rc_call *call)
{
    for (uint32_t i = 1; i < call->count; i += 2) {
        (void)find(call, i);
        if (!write_arg(call, i, i + 1, RC_STORE_NEVER))
            return false;
    }
    return true;
}

static bool has_pairs(struct rc_call *call)
{
    char name[32];
    if (call->count % 2 == 1)
        return true;
    rc_answer_error(call, "ERR wrong number of arguments for '%s' command",
                    rc_verb_name(call->verb, name));
    return false;
}

static void do_mset(struct rc_call *call)
{
    if (has_pairs(call) && set_pairs(call))
        rc_answer_status(call, "OK");
}

static void do_msetnx(struct rc_call *call)
{
    if (!has_pairs(call))
        return;
    for (uint32_t i = 1; i < call->count; i += 2) {
        if (find(call, i) != NULL) {
            rc_answer_int(call, 0);
            return;
        }
    }
    if (set_pairs(call))
        rc_answer_int(call, 1);
}

const struct rc_verb rc_set_verbs[] = {
    {"SET", -3, RC_VERB_WRITES | RC_VERB_GROWS, do_set},
    {"SETNX", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_setnx},
    {"SETEX", 4, RC_VERB_WRITES | RC_VERB_GROWS, do_setex},
    {"PSETEX", 4, RC_VERB_WRITES | RC_VERB_GROWS, do_psetex},
    {"GETSET", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_getset},
    {"GETEX", -2, RC_VERB_WRITES, do_getex},
    {"MSET", -3, RC_VERB_WRITES | RC_VERB_GROWS | RC_VERB_KEYS, do_mset},
    {"MSETNX", -3, RC_VERB_WRITES | RC_VERB_GROWS | RC_VERB_KEYS, do_msetnx},
    {"", 0, 0, NULL},
};

const struct rc_verb rc_compare_verbs[] = {
    {"DELIFEQ", 3, RC_VERB_WRITES, do_delifeq},
    {"", 0, 0, NULL},
};
