/* What a connection says about itself: HELLO, AUTH, SELECT, CLIENT and the like. */
#include "store/verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "store/answer.h"
#include "store/names.h"
#include "store/session.h"
#include "store/watch.h"

static void do_ping(struct rc_call *call)
{
    char name[32];
    if (call->count > 2)
        rc_answer_error(call, "ERR wrong number of arguments for '%s' command",
                        rc_verb_name(call->verb, name));
    else if (call->count == 2)
        rc_answer_bulk(call, call->args[1]);
    else
        rc_answer_status(call, "PONG");
}

static void do_echo(struct rc_call *call)
{
    rc_answer_bulk(call, call->args[1]);
}

static void do_quit(struct rc_call *call)
{
    rc_answer_status(call, "OK");
    call->session->conn.wants_close = true;
}

static void do_reset(struct rc_call *call)
{
    struct rc_session *session = call->session;
    session->tracks = false;
    session->database = 0;
    session->resp = call->resp = 2;
    rc_buf_clear(&session->name);
    rc_names_clear(&session->channels);
    rc_names_clear(&session->patterns);
    rc_verb_end_multi(session);
    rc_watch_forget(session);
    rc_answer_status(call, "RESET");
}

static void do_select(struct rc_call *call)
{
    int64_t database;
    if (!rc_answer_take_int(call, 1, &database))
        return;
    if (database < 0 || database >= RC_STORE_DATABASES) {
        rc_answer_error(call, "ERR DB index is out of range");
        return;
    }
    call->session->database = (uint32_t)database;
    rc_answer_status(call, "OK");
}

/* ---- HELLO, AUTH ----------------------------------------------------------------------------- */

/* There is one user, without a password: any will do. */
static bool is_user(struct rc_call *call, struct rc_text name)
{
    if (rc_text_equal(name, (struct rc_text){"default", 7}))
        return true;
    rc_answer_error(call, "WRONGPASS invalid username-password pair or user is disabled.");
    return false;
}

static void do_auth(struct rc_call *call)
{
    if (call->count > 3)
        rc_answer_syntax_error(call);
    else if (call->count == 2)
        rc_answer_error(call, "ERR AUTH <password> called without any password configured for the "
                              "default user. Are you sure your configuration is correct?");
    else if (is_user(call, call->args[1]))
        rc_answer_status(call, "OK");
}

static bool set_name(struct rc_call *call, struct rc_text name)
{
    struct rc_session *session = call->session;
    for (size_t i = 0; i < name.len; i++) {
        if (name.bytes[i] < '!' || name.bytes[i] > '~') {
            rc_answer_error(call, "ERR Client names cannot contain spaces, newlines or special "
                                  "characters.");
            return false;
        }
    }
    rc_buf_clear(&session->name);
    if (rc_buf_append(&session->name, name.bytes, name.len) == 0)
        return true;
    rc_answer_no_room(call);
    return false;
}

static bool read_hello_options(struct rc_call *call)
{
    struct rc_text name = {NULL, 0};
    for (uint32_t i = 2; i < call->count; i++) {
        uint32_t more = call->count - 1 - i;
        if (rc_text_is(call->args[i], "AUTH") && more >= 2) {
            if (!is_user(call, call->args[i + 1]))
                return false;
            i += 2;
        } else if (rc_text_is(call->args[i], "SETNAME") && more >= 1) {
            name = call->args[++i];
            if (!set_name(call, name))
                return false;
        } else {
            rc_answer_error(call, "ERR Syntax error in HELLO option '%.*s'", (int)call->args[i].len,
                            call->args[i].bytes);
            return false;
        }
    }
    return true;
}

static void answer_hello(struct rc_call *call)
{
    bool is_valkey = call->store->options.compares;
    rc_answer_map(call, 7);
    rc_answer_text(call, "server");
    rc_answer_text(call, is_valkey ? "valkey" : "redis");
    rc_answer_text(call, "version");
    rc_answer_text(call, is_valkey ? RC_STORE_VALKEY_VERSION : RC_STORE_REDIS_VERSION);
    rc_answer_text(call, "proto");
    rc_answer_int(call, call->resp);
    rc_answer_text(call, "id");
    rc_answer_int(call, (int64_t)call->session->id);
    rc_answer_text(call, "mode");
    rc_answer_text(call, "standalone");
    rc_answer_text(call, "role");
    rc_answer_text(call, call->store->role == RC_STORE_REPLICA ? "replica" : "master");
    rc_answer_text(call, "modules");
    rc_answer_array(call, 0);
}

static void do_hello(struct rc_call *call)
{
    int64_t version = call->resp;
    if (call->count > 1 && !rc_text_to_int(call->args[1], &version)) {
        rc_answer_error(call, "ERR Protocol version is not an integer or out of range");
        return;
    }
    if (version < 2 || version > 3) {
        rc_answer_error(call, "NOPROTO unsupported protocol version");
        return;
    }
    if (!read_hello_options(call))
        return;
    call->session->resp = call->resp = (int)version;
    answer_hello(call);
}

/* ---- CLIENT ---------------------------------------------------------------------------------- */

static void do_id(struct rc_call *call)
{
    rc_answer_int(call, (int64_t)call->session->id);
}

static void do_getname(struct rc_call *call)
{
    const struct rc_buf *name = &call->session->name;
    if (rc_buf_len(name) == 0)
        rc_answer_null(call);
    else
        rc_answer_bulk(call, (struct rc_text){rc_buf_head(name), rc_buf_len(name)});
}

static void do_setname(struct rc_call *call)
{
    if (set_name(call, call->args[2]))
        rc_answer_status(call, "OK");
}

static void do_ok(struct rc_call *call)
{
    rc_answer_status(call, "OK");
}

static void do_no_evict(struct rc_call *call)
{
    if (rc_text_is(call->args[2], "ON") || rc_text_is(call->args[2], "OFF"))
        rc_answer_status(call, "OK");
    else
        rc_answer_syntax_error(call);
}

static void do_getredir(struct rc_call *call)
{
    rc_answer_int(call, call->session->tracks ? 0 : -1);
}

static void do_trackinginfo(struct rc_call *call)
{
    bool tracks = call->session->tracks;
    rc_answer_map(call, 3);
    rc_answer_text(call, "flags");
    rc_answer_set(call, 1);
    rc_answer_text(call, tracks ? "on" : "off");
    rc_answer_text(call, "redirect");
    rc_answer_int(call, tracks ? 0 : -1);
    rc_answer_text(call, "prefixes");
    rc_answer_array(call, 0);
}

static void refuse_mode(struct rc_call *call)
{
    static const char *const modes[] = {"BCAST", "NOLOOP", "OPTIN", "OPTOUT", "PREFIX", "REDIRECT"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (rc_text_is(call->args[3], modes[i])) {
            rc_answer_error(call, "ERR the embedded store tracks in default mode only, without %s",
                            modes[i]);
            return;
        }
    }
    rc_answer_syntax_error(call);
}

static void do_tracking(struct rc_call *call)
{
    bool on = rc_text_is(call->args[2], "ON");
    if (!on && !rc_text_is(call->args[2], "OFF")) {
        rc_answer_syntax_error(call);
        return;
    }
    if (call->count > 3 && !RC_MUTANT(NOLOOP)) {
        refuse_mode(call);
        return;
    }
    call->session->tracks = on;
    call->session->has_tracked |= on;
    rc_answer_status(call, "OK");
}

/* Neither of the modes it is good for can be on. */
static void do_caching(struct rc_call *call)
{
    if (!call->session->tracks)
        rc_answer_error(call, "ERR CLIENT CACHING can be called only when the client is in "
                              "tracking mode with OPTIN or OPTOUT mode enabled");
    else if (rc_text_is(call->args[2], "YES"))
        rc_answer_error(call, "ERR CLIENT CACHING YES is only valid when tracking is enabled in "
                              "OPTIN mode.");
    else if (rc_text_is(call->args[2], "NO"))
        rc_answer_error(call, "ERR CLIENT CACHING NO is only valid when tracking is enabled in "
                              "OPTOUT mode.");
    else
        rc_answer_syntax_error(call);
}

static void do_kill(struct rc_call *call)
{
    int64_t id = 0;
    if (call->count == 3) {
        rc_answer_error(call, "ERR No such client");
        return;
    }
    if (call->count != 4 || !rc_text_is(call->args[2], "ID")) {
        rc_answer_error(call, "ERR the embedded store kills by ID only");
        return;
    }
    if (!rc_text_to_int(call->args[3], &id) || id < 1)
        rc_answer_error(call, "ERR client-id should be greater than 0");
    else
        rc_answer_int(call, rc_session_kill(call->store, (uint64_t)id, call->session));
}

/* What finds no memory is left out. */
static void write_client(struct rc_buf *out, const struct rc_session *session)
{
    char line[128];
    int len = snprintf(line, sizeof line, "id=%" PRIu64 " addr=embedded:0 name=", session->id);
    (void)rc_buf_append(out, line, (size_t)len);
    (void)rc_buf_append(out, rc_buf_head(&session->name), rc_buf_len(&session->name));
    len = snprintf(line, sizeof line, " db=%" PRIu32 " flags=%s resp=%d\n", session->database,
                   session->tracks ? "t" : "N", session->resp);
    (void)rc_buf_append(out, line, (size_t)len);
}

static void answer_lines(struct rc_call *call, struct rc_buf *lines)
{
    rc_answer_verbatim(call, (struct rc_text){rc_buf_head(lines), rc_buf_len(lines)});
    rc_buf_deinit(lines);
}

static void do_info(struct rc_call *call)
{
    struct rc_buf lines;
    rc_buf_init(&lines);
    write_client(&lines, call->session);
    answer_lines(call, &lines);
}

static void do_list(struct rc_call *call)
{
    const struct rc_store *store = call->store;
    struct rc_buf lines;
    rc_buf_init(&lines);
    if (call->count > 2) {
        rc_answer_error(call, "ERR the embedded store lists all connections only");
        return;
    }
    for (uint32_t i = 0; i < store->session_room; i++) {
        if (store->sessions[i] != NULL)
            write_client(&lines, store->sessions[i]);
    }
    answer_lines(call, &lines);
}

static const struct rc_verb client_verbs[] = {
    {"ID", 2, 0, do_id},
    {"GETNAME", 2, 0, do_getname},
    {"SETNAME", 3, 0, do_setname},
    {"SETINFO", 4, 0, do_ok}, /* since Redis 7.2; clients say it unasked */
    {"NO-EVICT", 3, 0, do_no_evict},
    {"GETREDIR", 2, 0, do_getredir},
    {"TRACKING", -3, 0, do_tracking},
    {"TRACKINGINFO", 2, 0, do_trackinginfo},
    {"CACHING", 3, 0, do_caching},
    {"KILL", -3, 0, do_kill},
    {"INFO", 2, 0, do_info},
    {"LIST", -2, 0, do_list},
    {"", 0, 0, NULL},
};

static void do_client(struct rc_call *call)
{
    rc_verb_do_second(call, client_verbs, " help pause reply unblock unpause ");
}

const struct rc_verb rc_connection_verbs[] = {
    {"PING", -1, 0, do_ping},
    {"ECHO", 2, RC_VERB_LOADING, do_echo},
    {"QUIT", -1, RC_VERB_LOADING | RC_VERB_ANY_COUNT | RC_VERB_AT_ONCE, do_quit},
    {"RESET", 1, RC_VERB_LOADING | RC_VERB_AT_ONCE, do_reset},
    {"SELECT", 2, RC_VERB_LOADING, do_select},
    {"AUTH", -2, RC_VERB_LOADING, do_auth},
    {"HELLO", -1, RC_VERB_LOADING, do_hello},
    {"CLIENT", -2, RC_VERB_LOADING, do_client},
    {"", 0, 0, NULL},
};
