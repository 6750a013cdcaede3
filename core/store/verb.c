#include "store/verb.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "store/answer.h"
#include "store/key.h"
#include "store/unknown.h"
#include "store/watch.h"

enum { NUMBER_ROOM = 64 /* what INCR and its like make of nothing */ };

/* ---- by name --------------------------------------------------------------------------------- */

static uint32_t slot_of(const char *name, size_t len)
{
    uint32_t hash = (uint32_t)len;
    for (size_t i = 0; i < len; i++)
        hash = hash * 33 + (unsigned char)name[i];
    return (hash ^ hash >> 9) % RC_VERB_SLOTS;
}

void rc_verb_add(struct rc_store *store, const struct rc_verb *verbs)
{
    for (const struct rc_verb *verb = verbs; verb->run != NULL; verb++) {
        uint32_t slot = slot_of(verb->name, strlen(verb->name));
        uint32_t last = (slot + RC_VERB_SLOTS - 1) % RC_VERB_SLOTS;
        for (; store->verbs[slot] != NULL; slot = (slot + 1) % RC_VERB_SLOTS)
            assert(slot != last); /* else it is full */
        store->verbs[slot] = verb;
    }
}

const struct rc_verb *rc_verb_find(const struct rc_store *store, struct rc_text name)
{
    char upper[RC_VERB_NAME] = "";
    if (name.len >= sizeof upper)
        return NULL;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.bytes[i];
        upper[i] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    for (uint32_t slot = slot_of(upper, name.len); store->verbs[slot] != NULL;
         slot = (slot + 1) % RC_VERB_SLOTS) {
        if (memcmp(store->verbs[slot]->name, upper, sizeof upper) == 0)
            return store->verbs[slot];
    }
    return NULL;
}

const char *rc_verb_name(const struct rc_verb *verb, char name[32])
{
    size_t len = strlen(verb->name);
    assert(len < 32);
    for (size_t i = 0; i <= len; i++)
        name[i] = (char)tolower((unsigned char)verb->name[i]);
    return name;
}

/* ---- one call -------------------------------------------------------------------------------- */

static bool has_arity(const struct rc_verb *verb, uint32_t count)
{
    if ((verb->flags & RC_VERB_ANY_COUNT) != 0)
        return true;
    return verb->arity < 0 ? count >= (uint32_t)-verb->arity : count == (uint32_t)verb->arity;
}

static void refuse_arity(struct rc_call *call, const char *name)
{
    rc_answer_error(call, "ERR wrong number of arguments for '%s' command", name);
}

/* The most it can add to what is stored. */
static size_t room_for(const struct rc_call *call)
{
    size_t bytes = NUMBER_ROOM;
    uint32_t keys = (call->verb->flags & RC_VERB_KEYS) != 0 ? call->count : 1;
    for (uint32_t i = 1; i < call->count; i++)
        bytes += call->args[i].len;
    return bytes + keys * rc_key_cost(0, 0);
}

static bool is_refused(struct rc_call *call)
{
    const struct rc_store *store = call->store;
    unsigned flags = call->verb->flags;
    if (store->role == RC_STORE_REPLICA && (flags & RC_VERB_WRITES) != 0)
        rc_answer_error(call, "READONLY You can't write against a read only replica.");
    else if (store->role == RC_STORE_LOADING && (flags & RC_VERB_LOADING) == 0)
        rc_answer_error(call, "LOADING Redis is loading the dataset in memory");
    else if (store->max_bytes > 0 && (flags & RC_VERB_GROWS) != 0 &&
             !rc_key_make_room(call->store, room_for(call)))
        rc_answer_no_room(call);
    else
        return false;
    return true;
}

static void remember_keys(const struct rc_call *call)
{
    uint32_t end = (call->verb->flags & RC_VERB_KEYS) != 0 ? call->count : 2;
    if ((call->verb->flags & (RC_VERB_KEY | RC_VERB_KEYS)) == 0)
        return;
    for (uint32_t i = 1; i < end; i++)
        rc_key_track(call->store, call->session, call->args[i]);
}

/* ---- MULTI ----------------------------------------------------------------------------------- */

void rc_verb_end_multi(struct rc_session *session)
{
    session->in_multi = session->is_refused = false;
    session->queued_count = 0;
    rc_buf_deinit(&session->queued);
    rc_buf_init(&session->queued);
}

static void queue(struct rc_call *call)
{
    struct rc_session *session = call->session;
    struct rc_buf *queued = &session->queued;
    int error = rc_buf_append(queued, &call->count, sizeof call->count);
    for (uint32_t i = 0; i < call->count; i++) {
        struct rc_text arg = call->args[i];
        error |= rc_buf_append(queued, &arg.len, sizeof arg.len);
        error |= rc_buf_append(queued, arg.bytes, arg.len);
    }
    session->conn.wants_close |= error != 0;
    session->queued_count++;
    rc_answer_status(call, "QUEUED");
}

/* ---- doing ----------------------------------------------------------------------------------- */

/* Redis 7.0 takes an EXEC with arguments for the end of the transaction, MULTI or not. */
static void abort_multi(struct rc_call *call)
{
    rc_verb_end_multi(call->session);
    rc_watch_forget(call->session);
    rc_answer_error(call, "EXECABORT Transaction discarded because of: wrong number of arguments "
                          "for 'exec' command");
}

/* False: it is not to be run now. */
static bool is_ready(struct rc_call *call)
{
    char name[32];
    const struct rc_verb *verb = call->verb;
    if (verb == NULL)
        rc_unknown_refuse(call);
    else if (!has_arity(verb, call->count) && strcmp(verb->name, "EXEC") == 0)
        abort_multi(call);
    else if (!has_arity(verb, call->count))
        refuse_arity(call, rc_verb_name(verb, name));
    else if (!is_refused(call))
        return true;
    call->session->is_refused |= call->session->in_multi;
    return false;
}

void rc_verb_do(struct rc_call *call)
{
    const struct rc_verb *verb = rc_verb_find(call->store, call->args[0]);
    call->verb = verb;
    if (!is_ready(call))
        return;
    if (call->session->in_multi && (verb->flags & RC_VERB_AT_ONCE) == 0) {
        queue(call);
        return;
    }
    call->store->found = NULL;
    verb->run(call);
    if ((verb->flags & RC_VERB_READS) != 0 && call->session->tracks)
        remember_keys(call);
}

/* ---- two words ------------------------------------------------------------------------------- */

void rc_verb_do_second(struct rc_call *call, const struct rc_verb *verbs, const char *others)
{
    char first[32], second[32], name[65];
    struct rc_text word = call->args[1];
    const struct rc_verb *verb = verbs;
    rc_verb_name(call->verb, first);
    while (verb->run != NULL && !rc_text_is(word, verb->name))
        verb++;
    if (verb->run == NULL) {
        if (rc_text_is_among(others, word))
            rc_answer_error(call, RC_UNKNOWN_LACKED);
        else
            rc_answer_error(call, "ERR unknown subcommand '%.*s'. Try %s HELP.",
                            (int)(word.len < 128 ? word.len : 128), word.bytes, call->verb->name);
        return;
    }
    snprintf(name, sizeof name, "%s|%s", first, rc_verb_name(verb, second));
    if (has_arity(verb, call->count))
        verb->run(call);
    else
        refuse_arity(call, name);
}
