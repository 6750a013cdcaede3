#include "store/run.h"

#include <assert.h>
#include <string.h>

#include "store/answer.h"
#include "store/key.h"
#include "store/verb.h"

struct rc_text rc_run_key(const struct rc_run *run, uint32_t i)
{
    return i <= run->key_count ? run->keys[i - 1] : (struct rc_text){NULL, 0};
}

struct rc_text rc_run_arg(const struct rc_run *run, uint32_t i)
{
    return i <= run->arg_count ? run->args[i - 1] : (struct rc_text){NULL, 0};
}

struct rc_value rc_run_get(struct rc_run *run, uint32_t i)
{
    return RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, i));
}

void rc_run_pin(const struct rc_run *run, uint32_t i)
{
    const struct rc_call *call = run->call;
    struct rc_key *key =
        run->failed ? NULL : rc_key_peek(call->store, call->session->database, rc_run_key(run, i));
    if (key != NULL)
        rc_key_pin(call->store, key, true);
}

struct rc_text rc_run_text(const struct rc_run *run, struct rc_value value)
{
    if (value.type != '$')
        return (struct rc_text){NULL, 0};
    return (struct rc_text){run->call->store->script_out.bytes + value.start, value.len};
}

bool rc_run_is(const struct rc_run *run, struct rc_value value, struct rc_text text)
{
    return value.type == '$' && rc_text_equal(rc_run_text(run, value), text);
}

/* ---- commands -------------------------------------------------------------------------------- */

void rc_run_fail(struct rc_run *run, struct rc_text error)
{
    if (run->failed)
        return;
    run->failed = true;
    rc_answer_take_back(run->call);
    rc_answer_error(run->call, "%.*s script: %s, on @user_script:1.", (int)error.len, error.bytes,
                    run->twin->sha);
}

static bool has_all(struct rc_run *run, const struct rc_text *words, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (words[i].bytes == NULL) {
            rc_run_fail(run, RC_WORD("ERR Lua redis lib command arguments must be strings or "
                                     "integers"));
            return false;
        }
    }
    return true;
}

/* One element that a command has answered: what a script calls answers at most that, but TIME,
   which it does not call. */
static struct rc_value read_value(struct rc_run *run, size_t start)
{
    const struct rc_buf *out = &run->call->store->script_out;
    const char *line = out->bytes != NULL ? out->bytes + start : NULL;
    const char *end = line != NULL ? memchr(line, '\r', out->end - start) : NULL;
    struct rc_value value = {.type = '_'};
    if (end == NULL) { /* no memory: the session is closed */
        run->failed = true;
        return value;
    }
    struct rc_text text = {line + 1, (size_t)(end - line - 1)};
    if (line[0] == '-') {
        rc_run_fail(run, text);
        return value;
    }
    bool is_null = line[0] == '$' && text.bytes[0] == '-';
    if (is_null)
        return value;
    value.type = line[0];
    if (value.type != '+')
        (void)rc_text_to_int(text, &value.number);
    if (value.type == '$') {
        value.start = start + text.len + 3;
        value.len = (size_t)value.number;
    }
    return value;
}

static bool lies_in(const struct rc_buf *buf, struct rc_text text)
{
    uintptr_t at = (uintptr_t)text.bytes, first = (uintptr_t)buf->bytes;
    return at >= first && at < first + buf->end;
}

struct rc_value rc_run_call(struct rc_run *run, const struct rc_text *words, uint32_t count)
{
    struct rc_store *store = run->call->store;
    struct rc_session *session = run->call->session;
    size_t start = store->script_out.end;
    if (run->failed || !has_all(run, words, count))
        return (struct rc_value){.type = '_'};
    for (uint32_t i = 0; i < count; i++)
        assert(!lies_in(&store->script_out, words[i])); /* which may move while it is written to */
    struct rc_call call = {
        .store = store,
        .session = session,
        .verb = rc_verb_find(store, words[0]),
        .args = words,
        .count = count,
        .resp = 2,
        .out = &store->script_out,
        .mark = start,
    };
    assert(call.verb != NULL && store->script_out.start == 0);
    store->found = NULL;
    call.verb->run(&call);
    if ((call.verb->flags & RC_VERB_READS) != 0 && session->tracks) {
        for (uint32_t i = 0; i < run->key_count; i++)
            rc_key_track(store, session, run->keys[i]);
    }
    return read_value(run, start);
}

/* ---- answers --------------------------------------------------------------------------------- */

void rc_run_answer_int(struct rc_run *run, int64_t number)
{
    if (!run->failed)
        rc_answer_int(run->call, number);
}

void rc_run_answer_list(struct rc_run *run, size_t count, int64_t code)
{
    if (run->failed)
        return;
    rc_answer_array(run->call, count);
    rc_answer_int(run->call, code);
}

void rc_run_answer_code(struct rc_run *run, int64_t code)
{
    rc_run_answer_list(run, 1, code);
}

void rc_run_answer_text(struct rc_run *run, struct rc_text text)
{
    if (!run->failed)
        rc_answer_bulk(run->call, text);
}
