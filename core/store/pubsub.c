/* SUBSCRIBE, PSUBSCRIBE and their opposites, PUBLISH. */
#include "store/verb.h"

#include <string.h>

#include "store/answer.h"
#include "store/glob.h"
#include "store/names.h"

static int write_string(struct rc_buf *out, const char *text)
{
    return rc_answer_string(out, (struct rc_text){text, strlen(text)});
}

/* ---- subscribing ----------------------------------------------------------------------------- */

/* `name` without bytes: there was none. */
static void confirm(struct rc_call *call, const char *kind, struct rc_text name)
{
    struct rc_session *session = call->session;
    if (rc_answer_head(call->out, call->resp > 2 ? '>' : '*', 3) != 0)
        session->conn.wants_close = true;
    rc_answer_text(call, kind);
    if (name.bytes == NULL)
        rc_answer_null(call);
    else
        rc_answer_bulk(call, name);
    rc_answer_int(call, (int64_t)session->channels.count + session->patterns.count);
}

static void subscribe(struct rc_call *call, struct rc_names *names, const char *kind)
{
    for (uint32_t i = 1; i < call->count; i++) {
        if (rc_names_add(names, 0, call->args[i]) != 0) {
            call->session->conn.wants_close = true;
            return;
        }
        confirm(call, kind, call->args[i]);
    }
}

static void unsubscribe(struct rc_call *call, struct rc_names *names, const char *kind)
{
    struct rc_text name;
    uint32_t mark;
    size_t at = 0;
    for (uint32_t i = 1; i < call->count; i++) {
        rc_names_remove(names, 0, call->args[i]);
        confirm(call, kind, call->args[i]);
    }
    if (call->count == 1 && names->count == 0)
        confirm(call, kind, (struct rc_text){NULL, 0});
    while (call->count == 1 && rc_names_next(names, &at, &mark, &name)) {
        names->count--; /* it is told so, and they all go */
        confirm(call, kind, name);
    }
    if (call->count == 1)
        rc_names_clear(names);
}

static void do_subscribe(struct rc_call *call)
{
    subscribe(call, &call->session->channels, "subscribe");
}

static void do_psubscribe(struct rc_call *call)
{
    subscribe(call, &call->session->patterns, "psubscribe");
}

static void do_unsubscribe(struct rc_call *call)
{
    unsubscribe(call, &call->session->channels, "unsubscribe");
}

static void do_punsubscribe(struct rc_call *call)
{
    unsubscribe(call, &call->session->patterns, "punsubscribe");
}

/* ---- publishing ------------------------------------------------------------------------------ */

/* `pattern` NULL: of a channel. */
static int write_message(struct rc_session *session, const struct rc_text *pattern,
                         struct rc_text channel, struct rc_text message)
{
    struct rc_buf *out = &session->conn.output;
    int error = rc_answer_head(out, session->resp > 2 ? '>' : '*', pattern != NULL ? 4 : 3);
    if (error == 0)
        error = write_string(out, pattern != NULL ? "pmessage" : "message");
    if (error == 0 && pattern != NULL)
        error = rc_answer_string(out, *pattern);
    if (error == 0)
        error = rc_answer_string(out, channel);
    return error == 0 ? rc_answer_string(out, message) : error;
}

/* How often the session gets it. */
static uint32_t send(struct rc_session *session, struct rc_text channel, struct rc_text message)
{
    const struct rc_store *store = session->store;
    struct rc_text pattern;
    uint32_t mark, count = 0;
    size_t at = 0;
    int error = 0;
    if (rc_names_has(&session->channels, 0, channel)) {
        error = write_message(session, NULL, channel, message);
        count++;
    }
    while (error == 0 && rc_names_next(&session->patterns, &at, &mark, &pattern)) {
        if (!rc_glob_matches(pattern, channel))
            continue;
        error = write_message(session, &pattern, channel, message);
        count++;
    }
    session->conn.wants_close |= error != 0;
    if (count > 0 && session != store->current && store->options.on_push != NULL)
        store->options.on_push(store->options.owner, &session->conn);
    return count;
}

static void do_publish(struct rc_call *call)
{
    const struct rc_store *store = call->store;
    int64_t count = 0;
    for (uint32_t i = 0; i < store->session_room; i++) {
        if (store->sessions[i] != NULL && !store->sessions[i]->conn.wants_close)
            count += send(store->sessions[i], call->args[1], call->args[2]);
    }
    rc_answer_int(call, count);
}

const struct rc_verb rc_pubsub_verbs[] = {
    {"SUBSCRIBE", -2, RC_VERB_LOADING, do_subscribe},
    {"PSUBSCRIBE", -2, RC_VERB_LOADING, do_psubscribe},
    {"UNSUBSCRIBE", -1, RC_VERB_LOADING, do_unsubscribe},
    {"PUNSUBSCRIBE", -1, RC_VERB_LOADING, do_punsubscribe},
    {"PUBLISH", 3, RC_VERB_LOADING, do_publish},
    {"", 0, 0, NULL},
};
