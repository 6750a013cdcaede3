/* Keys as a whole: there or not, removed, renamed, listed. */
#include "store/verb.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/answer.h"
#include "store/glob.h"
#include "store/key.h"

static struct rc_key *find(const struct rc_call *call, uint32_t index)
{
    return rc_key_find(call->store, call->session->database, call->args[index]);
}

static void do_exists(struct rc_call *call)
{
    int64_t count = 0;
    for (uint32_t i = 1; i < call->count; i++)
        count += find(call, i) != NULL;
    rc_answer_int(call, count);
}

static void do_del(struct rc_call *call)
{
    int64_t count = 0;
    for (uint32_t i = 1; i < call->count; i++) {
        struct rc_key *key = find(call, i);
        if (key == NULL)
            continue;
        rc_key_remove(call->store, key);
        count++;
    }
    rc_answer_int(call, count);
}

static void do_type(struct rc_call *call)
{
    rc_answer_status(call, find(call, 1) == NULL ? "none" : "string");
}

/* ---- RENAME, COPY ---------------------------------------------------------------------------- */

/* The key at args[1]; NULL: the call is answered. */
static struct rc_key *find_source(struct rc_call *call)
{
    struct rc_key *key = find(call, 1);
    if (key == NULL)
        rc_answer_error(call, "ERR no such key");
    return key;
}

static bool rename_key(struct rc_call *call)
{
    if (rc_key_rename(call->store, find(call, 1), call->args[2]) == 0)
        return true;
    rc_answer_no_room(call);
    return false;
}

static void do_rename(struct rc_call *call)
{
    if (find_source(call) == NULL)
        return;
    bool same = rc_text_equal(call->args[1], call->args[2]);
    if (!same)
        (void)find(call, 2);
    if (same || rename_key(call))
        rc_answer_status(call, "OK");
}

static void do_renamenx(struct rc_call *call)
{
    if (find_source(call) == NULL)
        return;
    if (find(call, 2) != NULL)
        rc_answer_int(call, 0);
    else if (rename_key(call))
        rc_answer_int(call, 1);
}

struct copy_options {
    bool replace;
    uint32_t database;
};

static bool refuse_database(struct rc_call *call)
{
    rc_answer_error(call, "ERR DB index is out of range");
    return false;
}

static bool read_copy_options(struct rc_call *call, struct copy_options *options)
{
    *options = (struct copy_options){false, call->session->database};
    for (uint32_t i = 3; i < call->count; i++) {
        int64_t database;
        if (rc_text_is(call->args[i], "REPLACE")) {
            options->replace = true;
        } else if (rc_text_is(call->args[i], "DB") && i + 1 < call->count) {
            if (!rc_answer_take_int(call, ++i, &database))
                return false;
            if (database < 0 || database >= RC_STORE_DATABASES)
                return refuse_database(call);
            options->database = (uint32_t)database;
        } else {
            rc_answer_syntax_error(call);
            return false;
        }
    }
    return true;
}

static void do_copy(struct rc_call *call)
{
    struct rc_store *store = call->store;
    struct copy_options options;
    if (!read_copy_options(call, &options))
        return;
    if (options.database == call->session->database &&
        rc_text_equal(call->args[1], call->args[2])) {
        rc_answer_error(call, "ERR source and destination objects are the same");
        return;
    }
    const struct rc_key *key = find(call, 1);
    bool has_room = key == NULL ||
                    rc_key_make_room(store, key->value_len + call->args[2].len + rc_key_cost(0, 0));
    if (!has_room) {
        rc_answer_no_room(call);
        return;
    }
    key = find(call, 1); /* making room may have evicted it */
    if (key == NULL ||
        (rc_key_find(store, options.database, call->args[2]) != NULL && !options.replace)) {
        rc_answer_int(call, 0);
        return;
    }
    if (rc_key_write(store, options.database, call->args[2], rc_key_value(key), key->expires_ms) !=
        0)
        rc_answer_no_room(call);
    else
        rc_answer_int(call, 1);
}

/* ---- all keys -------------------------------------------------------------------------------- */

static void do_dbsize(struct rc_call *call)
{
    rc_answer_int(call, (int64_t)call->store->key_counts[call->session->database]);
}

/* Both are done at once, whatever is asked for. */
static void flush(struct rc_call *call, uint32_t database)
{
    bool known = call->count == 1 || (call->count == 2 && (rc_text_is(call->args[1], "SYNC") ||
                                                           rc_text_is(call->args[1], "ASYNC")));
    if (!known) {
        rc_answer_syntax_error(call);
        return;
    }
    rc_key_flush(call->store, database);
    rc_answer_status(call, "OK");
}

static void do_flushdb(struct rc_call *call)
{
    flush(call, call->session->database);
}

static void do_flushall(struct rc_call *call)
{
    flush(call, RC_STORE_DATABASES);
}

/* Names that were found, to be answered once they are counted. */
struct names {
    struct rc_call *call;
    struct rc_text pattern; /* bytes NULL: every name */
    bool expires;           /* what is over goes */
    bool none;              /* of another type */
    struct rc_buf found;    /* as bulk strings */
    size_t count;
    size_t seen;
    int error;
};

static void tell_name(void *owner, struct rc_key *key)
{
    struct names *names = owner;
    struct rc_text name = rc_key_name(key);
    names->seen++;
    if (names->pattern.bytes != NULL && !rc_glob_matches(names->pattern, name))
        return;
    if (names->expires ? rc_key_expire(names->call->store, key)
                       : rc_key_is_over(names->call->store, key))
        return;
    if (names->none)
        return;
    names->error |= rc_answer_string(&names->found, name);
    names->count++;
}

static void answer_names(struct names *names)
{
    struct rc_call *call = names->call;
    if (names->error != 0) {
        rc_answer_take_back(call);
        rc_answer_no_room(call);
    } else {
        rc_answer_array(call, names->count);
        rc_answer_raw(call,
                      (struct rc_text){rc_buf_head(&names->found), rc_buf_len(&names->found)});
    }
    rc_buf_deinit(&names->found);
}

static void do_keys(struct rc_call *call)
{
    struct names names = {.call = call, .pattern = call->args[1]};
    uint64_t cursor = 0;
    do
        cursor = rc_key_scan(call->store, cursor, call->session->database, tell_name, &names);
    while (cursor != 0);
    answer_names(&names);
}

/* As strtoull reads it, "" and a minus included. */
static bool take_cursor(struct rc_call *call, uint64_t *cursor)
{
    char text[32], *end = NULL;
    struct rc_text word = call->args[1];
    if (word.len < sizeof text && (word.len == 0 || !isspace((unsigned char)word.bytes[0]))) {
        memcpy(text, word.bytes, word.len);
        text[word.len] = '\0';
        errno = 0;
        *cursor = strtoull(text, &end, 10);
    }
    if (end != NULL && *end == '\0' && errno == 0)
        return true;
    rc_answer_error(call, "ERR invalid cursor");
    return false;
}

/* MATCH, COUNT, TYPE; each with a value. */
static bool read_scan_options(struct rc_call *call, struct names *names, int64_t *count)
{
    for (uint32_t i = 2; i < call->count; i += 2) {
        struct rc_text word = call->args[i];
        bool has_value = i + 1 < call->count;
        if (rc_text_is(word, "COUNT") && has_value) {
            if (!rc_answer_take_int(call, i + 1, count))
                return false;
        } else if (rc_text_is(word, "MATCH") && has_value) {
            names->pattern = call->args[i + 1];
        } else if (rc_text_is(word, "TYPE") && has_value) {
            names->none = !rc_text_is(call->args[i + 1], "STRING");
        } else {
            *count = 0;
        }
        if (*count < 1) {
            rc_answer_syntax_error(call);
            return false;
        }
    }
    return true;
}

static void do_scan(struct rc_call *call)
{
    enum { LOOKS_PER_KEY = 10 }; /* empty buckets do not hold a call up */
    struct names names = {.call = call, .expires = true};
    uint64_t cursor;
    int64_t count = 10;
    char text[RC_TEXT_INT_MAX];
    if (!take_cursor(call, &cursor) || !read_scan_options(call, &names, &count))
        return;
    int64_t looks = count > INT64_MAX / LOOKS_PER_KEY ? INT64_MAX : count * LOOKS_PER_KEY;
    do
        cursor = rc_key_scan(call->store, cursor, call->session->database, tell_name, &names);
    while (cursor != 0 && names.seen < (uint64_t)count && --looks > 0);
    rc_answer_array(call, 2);
    rc_answer_bulk(call, (struct rc_text){text, rc_text_from_int(text, (int64_t)cursor)});
    answer_names(&names);
}

struct pick {
    struct rc_store *store;
    struct rc_key *key;
};

static void tell_pick(void *owner, struct rc_key *key)
{
    struct pick *pick = owner;
    if (!rc_key_expire(pick->store, key))
        pick->key = key;
}

/* The last key of the first bucket that has any, behind a random one. */
static void do_randomkey(struct rc_call *call)
{
    struct rc_store *store = call->store;
    struct pick pick = {.store = store};
    store->random = rc_siphash(&store->options.seed, &store->random, sizeof store->random);
    uint64_t cursor = store->keys.bucket_count > 0 ? store->random % store->keys.bucket_count : 0;
    for (int turns = 0; turns < 2 && pick.key == NULL; turns += cursor == 0)
        cursor = rc_key_scan(store, cursor, call->session->database, tell_pick, &pick);
    if (pick.key == NULL)
        rc_answer_null(call);
    else
        rc_answer_bulk(call, rc_key_name(pick.key));
}

const struct rc_verb rc_keyspace_verbs[] = {
    {"EXISTS", -2, RC_VERB_READS | RC_VERB_KEYS, do_exists},
    {"TOUCH", -2, RC_VERB_READS | RC_VERB_KEYS, do_exists},
    {"TYPE", 2, RC_VERB_READS | RC_VERB_KEY, do_type},
    {"DEL", -2, RC_VERB_WRITES, do_del},
    {"UNLINK", -2, RC_VERB_WRITES, do_del},
    {"RENAME", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_rename},
    {"RENAMENX", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_renamenx},
    {"COPY", -3, RC_VERB_WRITES, do_copy},
    {"DBSIZE", 1, 0, do_dbsize},
    {"RANDOMKEY", 1, 0, do_randomkey},
    {"KEYS", 2, 0, do_keys},
    {"SCAN", -2, 0, do_scan},
    {"FLUSHDB", -1, RC_VERB_WRITES, do_flushdb},
    {"FLUSHALL", -1, RC_VERB_WRITES, do_flushall},
    {"", 0, 0, NULL},
};
