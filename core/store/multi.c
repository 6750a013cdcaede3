/* MULTI, EXEC, DISCARD, WATCH, UNWATCH. Commands in between are queued by verb.c. */
#include "store/verb.h"

#include <stdlib.h>
#include <string.h>

#include "store/answer.h"
#include "store/key.h"
#include "store/names.h"
#include "store/watch.h"

static void do_multi(struct rc_call *call)
{
    if (call->session->in_multi) {
        rc_answer_error(call, "ERR MULTI calls can "
                              "not be nested");
        return;
    }
    call->session->in_multi = true;
    rc_answer_status(call, "OK");
}

static void do_discard(struct rc_call *call)
{
    if (!call->session->in_multi) {
        rc_answer_error(call, "ERR DISCARD without MULTI");
        return;
    }
    rc_verb_end_multi(call->session);
    rc_watch_forget(call->session);
    rc_answer_status(call, "OK");
}

/* A key whose time is over is gone before it is watched: its end is no change. */
static void do_watch(struct rc_call *call)
{
    struct rc_session *session = call->session;
    if (session->in_multi) {
        rc_answer_error(call, "ERR WATCH inside MULTI is not allowed");
        return;
    }
    for (uint32_t i = 1; i < call->count; i++) {
        (void)rc_key_find(call->store, session->database, call->args[i]);
        if (rc_watch_add(session, session->database, call->args[i]) != 0) {
            rc_answer_no_room(call);
            return;
        }
    }
    rc_answer_status(call, "OK");
}

static void do_unwatch(struct rc_call *call)
{
    rc_watch_forget(call->session);
    rc_answer_status(call, "OK");
}

/* The time of a watched key may be over although nobody has looked. */
static bool is_dirty(struct rc_session *session)
{
    struct rc_text name;
    uint32_t database;
    size_t at = 0;
    while (!session->is_dirty && rc_names_next(&session->watched, &at, &database, &name))
        (void)rc_key_find(session->store, database, name);
    return session->is_dirty;
}

/* One queued command: its arguments lie in `bytes` from `at` on. False: no memory. */
static bool do_queued(struct rc_call *exec, const char *bytes, size_t *at)
{
    uint32_t count;
    memcpy(&count, bytes + *at, sizeof count);
    *at += sizeof count;
    struct rc_text *args = malloc(count * sizeof *args);
    if (args == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(&args[i].len, bytes + *at, sizeof args[i].len);
        args[i].bytes = bytes + *at + sizeof args[i].len;
        *at += sizeof args[i].len + args[i].len;
    }
    struct rc_call call = *exec;
    call.args = args;
    call.count = count;
    call.resp = exec->session->resp;
    call.mark = rc_buf_len(call.out);
    rc_verb_do(&call);
    free(args);
    return true;
}

static void do_exec(struct rc_call *call)
{
    struct rc_session *session = call->session;
    struct rc_buf queued;
    size_t at = 0;
    if (!session->in_multi) {
        rc_answer_error(call, "ERR EXEC without MULTI");
        return;
    }
    bool is_refused = session->is_refused, is_lost = is_dirty(session);
    uint32_t count = session->queued_count;
    rc_buf_init(&queued);
    rc_buf_swap(&queued, &session->queued);
    rc_verb_end_multi(session);
    rc_watch_forget(session);
    if (is_refused) {
        rc_answer_error(call, "EXECABORT Transaction discarded because of previous errors.");
    } else if (is_lost) {
        if (session->resp > 2)
            rc_answer_null(call);
        else
            rc_answer_raw(call, (struct rc_text){"*-1\r\n", 5});
    } else {
        rc_answer_array(call, count);
        while (count-- > 0 && !session->conn.wants_close)
            session->conn.wants_close |= !do_queued(call, rc_buf_head(&queued), &at);
    }
    rc_buf_deinit(&queued);
}

const struct rc_verb rc_multi_verbs[] = {
    {"MULTI", 1, RC_VERB_LOADING | RC_VERB_AT_ONCE, do_multi},
    {"EXEC", 1, RC_VERB_LOADING | RC_VERB_AT_ONCE, do_exec},
    {"DISCARD", 1, RC_VERB_LOADING | RC_VERB_AT_ONCE, do_discard},
    {"WATCH", -2, RC_VERB_LOADING | RC_VERB_AT_ONCE, do_watch},
    {"UNWATCH", 1, RC_VERB_LOADING, do_unwatch},
    {"", 0, 0, NULL},
};
