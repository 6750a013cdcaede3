#include "engine/ifeq.h"

#include <assert.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/script.h"

void rc_ifeq_greet(struct rc_ifeq *ifeq, const struct rc_server *server)
{
    bool is_valkey = rc_server_is(server, "valkey", 0, 0);
    bool is_redis = rc_server_is(server, "redis", 8, 4);
    bool knows[RC_IFEQ_KINDS] = {
        [RC_IFEQ_SET] = is_redis || (is_valkey && rc_server_is(server, "valkey", 8, 1)),
        [RC_IFEQ_DELETE] = is_redis || (is_valkey && rc_server_is(server, "valkey", 9, 0))};
    for (int i = 0; i < RC_IFEQ_KINDS; i++) {
        bool is_suspect = ifeq->states[i] == RC_IFEQ_TRIED;
        ifeq->states[i] = knows[i] && !is_suspect ? RC_IFEQ_UNTRIED : RC_IFEQ_OFF;
    }
    ifeq->is_delex = is_redis;
}

/* The command that can do what the script does. RC_IFEQ_KINDS: none. */
static enum rc_ifeq_kind kind_of(int script)
{
    switch (script) {
    case RC_SCRIPT_PUBLISH:
    case RC_SCRIPT_HEARTBEAT: return RC_IFEQ_SET;
    case RC_SCRIPT_RELEASE: return RC_IFEQ_DELETE;
    default: return RC_IFEQ_KINDS;
    }
}

/* An EVALSHA of one key: its arguments. */
struct request {
    struct rc_command_word key, lease, value, ttl;
    bool has_ttl; /* false: it is stored for ever */
};

/* False: it is about more keys than one. */
static bool read_request(struct request *request, int script, const char *bytes, size_t len)
{
    struct rc_command_reader reader = {bytes, bytes + len};
    struct rc_command command;
    struct rc_command_word sha, keys;
    bool is_ours =
        rc_command_next(&reader, &command) && rc_command_is_word(command.name, "EVALSHA") &&
        rc_command_next_word(&command.rest, &sha) && rc_command_next_word(&command.rest, &keys);
    assert(is_ours); /* we have encoded it */
    if (!is_ours || !rc_command_is_word(keys, "1"))
        return false;
    bool is_whole = rc_command_next_word(&command.rest, &request->key) &&
                    rc_command_next_word(&command.rest, &request->lease);
    request->value = request->lease;
    if (script == RC_SCRIPT_PUBLISH)
        is_whole = is_whole && rc_command_next_word(&command.rest, &request->value);
    if (script != RC_SCRIPT_RELEASE)
        is_whole = is_whole && rc_command_next_word(&command.rest, &request->ttl);
    request->has_ttl = script != RC_SCRIPT_RELEASE && !rc_command_is_word(request->ttl, "-1");
    return is_whole;
}

static int put(struct rc_buf *out, struct rc_command_word word)
{
    return rc_command_bytes(out, word.bytes, word.len);
}

static int write_set(struct rc_buf *out, const struct request *request)
{
    int error = rc_command_head(out, request->has_ttl ? 7 : 5);
    error |= rc_command_text(out, "SET");
    error |= put(out, request->key);
    error |= put(out, request->value);
    error |= rc_command_text(out, "IFEQ");
    error |= put(out, request->lease);
    if (!request->has_ttl)
        return error;
    error |= rc_command_text(out, "PX");
    return error | put(out, request->ttl);
}

static int write_delete(struct rc_buf *out, const struct request *request, bool is_delex)
{
    int error = rc_command_head(out, is_delex ? 4 : 3);
    error |= rc_command_text(out, is_delex ? "DELEX" : "DELIFEQ");
    error |= put(out, request->key);
    if (is_delex)
        error |= rc_command_text(out, "IFEQ");
    return error | put(out, request->lease);
}

int rc_ifeq_write(struct rc_ifeq *ifeq, struct rc_buf *out, int script, const char *bytes,
                  size_t len, bool *is_written)
{
    enum rc_ifeq_kind kind = kind_of(script);
    struct request request;
    *is_written = false;
    if (kind == RC_IFEQ_KINDS || ifeq->states[kind] == RC_IFEQ_OFF ||
        ifeq->states[kind] == RC_IFEQ_TRIED || !read_request(&request, script, bytes, len))
        return 0;
    size_t before = rc_buf_len(out);
    int error = kind == RC_IFEQ_SET ? write_set(out, &request)
                                    : write_delete(out, &request, ifeq->is_delex);
    if (error != 0) {
        out->end = out->start + before; /* the half of a request must not go out */
        return RC_ERR_NOMEM;
    }
    if (ifeq->states[kind] == RC_IFEQ_UNTRIED)
        ifeq->states[kind] = RC_IFEQ_TRIED;
    *is_written = true;
    return 0;
}

/* They say nothing of the command, and the script would be told the same. */
static bool is_state(const rc_node *error)
{
    static const char *const codes[] = {"LOADING ", "BUSY ", "MASTERDOWN ", "READONLY "};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (rc_reply_is_error(error, codes[i]))
            return true;
    }
    return false;
}

static void become_number(rc_node *answer, int64_t number)
{
    *answer = (rc_node){.type = ':', .integer = number};
}

bool rc_ifeq_read(struct rc_ifeq *ifeq, int script, rc_node *answer)
{
    enum rc_ifeq_kind kind = kind_of(script);
    assert(kind != RC_IFEQ_KINDS); /* we have written it */
    enum rc_ifeq_state *state = &ifeq->states[kind % RC_IFEQ_KINDS];
    if (answer->type == '-') {
        bool is_unknown = rc_reply_is_error(answer, "ERR ") || rc_reply_is_error(answer, "NOPERM ");
        if (is_unknown)
            *state = RC_IFEQ_OFF;
        else if (*state == RC_IFEQ_TRIED)
            *state = RC_IFEQ_UNTRIED;
        return is_state(answer);
    }
    if (*state == RC_IFEQ_TRIED)
        *state = RC_IFEQ_PROVEN;
    if (kind == RC_IFEQ_DELETE)
        return answer->type == ':';
    bool is_done = answer->type == '+';
    if (is_done || script == RC_SCRIPT_HEARTBEAT || RC_MUTANT(IFEQ_NEVER_LOST))
        become_number(answer, is_done || RC_MUTANT(IFEQ_NEVER_LOST) ? 1 : 0);
    return answer->type == ':';
}
