/* EVAL, EVALSHA and SCRIPT: which script it is, and whether it may run. No Lua runs here: the store
   has twins of some scripts, and does each natively once it was loaded. */
#include "store/verb.h"

#include <assert.h>
#include <string.h>

#include "store/answer.h"
#include "store/key.h"
#include "store/run.h"

static const struct rc_twin *const tables[] = {RC_TWIN_TABLES};

static bool is_sha(struct rc_text word, const char *sha)
{
    for (size_t i = 0; i < RC_SHA_LEN; i++) {
        char c = word.bytes[i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != sha[i])
            return false;
    }
    return true;
}

/* The twin of that SHA, and its number among all of them. NULL: there is none. */
static const struct rc_twin *find(struct rc_text sha, uint32_t *number)
{
    *number = 0;
    if (sha.len != RC_SHA_LEN)
        return NULL;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        for (const struct rc_twin *twin = tables[i]; twin->run != NULL; twin++, ++*number) {
            if (is_sha(sha, twin->sha))
                return twin;
        }
    }
    return NULL;
}

/* NULL: none that was loaded. */
static const struct rc_twin *find_loaded(const struct rc_store *store, struct rc_text sha)
{
    uint32_t number;
    const struct rc_twin *twin = find(sha, &number);
    return twin != NULL && store->twin_known[number] ? twin : NULL;
}

/* Loads a source. NULL: it has no twin. */
static const struct rc_twin *load(struct rc_store *store, struct rc_text source)
{
    char sha[RC_SHA_LEN + 1];
    uint32_t number;
    rc_sha1_hex(source.bytes, source.len, sha);
    const struct rc_twin *twin = find((struct rc_text){sha, RC_SHA_LEN}, &number);
    assert(number < RC_TWINS_MAX);
    if (twin != NULL)
        store->twin_known[number] = true;
    return twin;
}

static void refuse_source(struct rc_call *call)
{
    rc_answer_error(call, "ERR memory:// runs no scripts but redcache's own: give redcache.new the "
                          "url of a server");
}

static void refuse_sha(struct rc_call *call)
{
    rc_answer_error(call, "NOSCRIPT No matching script. Please use EVAL.");
}

/* ---- running --------------------------------------------------------------------------------- */

/* Number of keys at args[2]. */
static bool take_key_count(struct rc_call *call, int64_t *count)
{
    if (!rc_answer_take_int(call, 2, count))
        return false;
    if (*count > (int64_t)call->count - 3)
        rc_answer_error(call, "ERR Number of keys can't be greater than number of args");
    else if (*count < 0)
        rc_answer_error(call, "ERR Number of keys can't be negative");
    else
        return true;
    return false;
}

/* The most that a script can write: every argument under every key, or under one. */
static size_t room_for(const struct rc_run *run)
{
    enum { NUMBER_ROOM = 64 };
    size_t bytes = NUMBER_ROOM;
    for (uint32_t i = 0; i < run->arg_count; i++)
        bytes += run->args[i].len;
    if (!rc_lease_twin_is_by_key(run->twin))
        bytes *= run->key_count;
    for (uint32_t i = 0; i < run->key_count; i++)
        bytes += rc_key_cost(run->keys[i].len, 0);
    return bytes;
}

static void run_script(struct rc_call *call, const struct rc_twin *twin, uint32_t key_count)
{
    struct rc_store *store = call->store;
    struct rc_run run = {
        .call = call,
        .twin = twin,
        .keys = call->args + 3,
        .key_count = key_count,
        .args = call->args + 3 + key_count,
        .arg_count = call->count - 3 - key_count,
    };
    if (store->role == RC_STORE_REPLICA) {
        rc_run_fail(&run, RC_WORD("READONLY You can't write against a read only replica."));
    } else if (!rc_key_make_room(store, room_for(&run))) {
        rc_run_fail(&run, RC_WORD("OOM command not allowed when used memory > 'maxmemory'."));
    } else {
        twin->run(&run);
    }
    rc_buf_clear(&store->script_out);
}

static void do_evalsha(struct rc_call *call)
{
    int64_t key_count;
    if (call->args[1].len != RC_SHA_LEN) {
        refuse_sha(call);
        return;
    }
    if (!take_key_count(call, &key_count))
        return;
    const struct rc_twin *twin = find_loaded(call->store, call->args[1]);
    if (twin == NULL)
        refuse_sha(call);
    else
        run_script(call, twin, (uint32_t)key_count);
}

static void do_eval(struct rc_call *call)
{
    int64_t key_count;
    if (!take_key_count(call, &key_count))
        return;
    const struct rc_twin *twin = load(call->store, call->args[1]);
    if (twin == NULL)
        refuse_source(call);
    else
        run_script(call, twin, (uint32_t)key_count);
}

/* ---- SCRIPT ---------------------------------------------------------------------------------- */

static void do_load(struct rc_call *call)
{
    const struct rc_twin *twin = load(call->store, call->args[2]);
    if (twin == NULL)
        refuse_source(call);
    else
        rc_answer_text(call, twin->sha);
}

static void do_exists(struct rc_call *call)
{
    rc_answer_array(call, call->count - 2);
    for (uint32_t i = 2; i < call->count; i++)
        rc_answer_int(call, find_loaded(call->store, call->args[i]) != NULL);
}

static void do_flush(struct rc_call *call)
{
    bool known = call->count == 2 || (call->count == 3 && (rc_text_is(call->args[2], "SYNC") ||
                                                           rc_text_is(call->args[2], "ASYNC")));
    if (!known) {
        rc_answer_error(call, "ERR SCRIPT FLUSH only support SYNC|ASYNC option");
        return;
    }
    memset(call->store->twin_known, 0, sizeof call->store->twin_known);
    rc_answer_status(call, "OK");
}

static const struct rc_verb words[] = {
    {"LOAD", 3, 0, do_load},
    {"EXISTS", -3, 0, do_exists},
    {"FLUSH", -2, 0, do_flush},
    {"", 0, 0, NULL},
};

static void do_script(struct rc_call *call)
{
    rc_verb_do_second(call, words, " debug help kill ");
}

const struct rc_verb rc_script_verbs[] = {
    {"EVAL", -3, 0, do_eval},
    {"EVALSHA", -3, 0, do_evalsha},
    {"SCRIPT", -2, 0, do_script},
    {"", 0, 0, NULL},
};
