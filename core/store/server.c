/* What the store says about itself: TIME, INFO, CONFIG, COMMAND. */
#include "store/verb.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/answer.h"
#include "store/glob.h"
#include "store/key.h"

static void answer_number(struct rc_call *call, int64_t number)
{
    char text[RC_TEXT_INT_MAX];
    rc_answer_bulk(call, (struct rc_text){text, rc_text_from_int(text, number)});
}

static void do_time(struct rc_call *call)
{
    rc_answer_array(call, 2);
    answer_number(call, call->store->now_us / 1000000);
    answer_number(call, call->store->now_us % 1000000);
}

/* There are no replicas to wait for. */
static void do_wait(struct rc_call *call)
{
    int64_t count, timeout;
    if (!rc_answer_take_int(call, 1, &count))
        return;
    if (!rc_text_to_int(call->args[2], &timeout))
        rc_answer_error(call, "ERR timeout is not an integer or out of range");
    else if (timeout < 0)
        rc_answer_error(call, "ERR timeout is negative");
    else
        rc_answer_int(call, 0);
}

/* ---- INFO ------------------------------------------------------------------------------------ */

static void add_line(struct rc_buf *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What finds no memory is left out. */
static void add_line(struct rc_buf *out, const char *format, ...)
{
    char line[256];
    va_list values;
    va_start(values, format);
    int len = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    (void)rc_buf_append(out, line, (size_t)len);
    (void)rc_buf_append(out, "\r\n", 2);
}

/* An id of 40 hex digits, another one for each number and store. */
static void add_id(const struct rc_store *store, struct rc_buf *out, const char *name,
                   uint32_t number)
{
    uint64_t words[3];
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t of[2] = {number, i};
        words[i] = rc_siphash(&store->options.seed, of, sizeof of);
    }
    add_line(out, "%s:%016" PRIx64 "%016" PRIx64 "%08" PRIx32, name, words[0], words[1],
             (uint32_t)words[2]);
}

enum { RUN_ID, FIRST_HISTORY };

static void add_server(const struct rc_store *store, struct rc_buf *out)
{
    add_line(out, "redis_version:" RC_STORE_REDIS_VERSION);
    add_line(out, "redis_mode:standalone");
    add_line(out, "redcache_store:embedded");
    add_id(store, out, "run_id", RUN_ID);
    add_line(out, "server_time_usec:%" PRId64, store->now_us);
    add_line(out, "uptime_in_seconds:%" PRId64, (store->now_us - store->started_us) / 1000000);
}

static void add_clients(const struct rc_store *store, struct rc_buf *out)
{
    uint32_t tracking = 0;
    for (uint32_t i = 0; i < store->session_room; i++)
        tracking += store->sessions[i] != NULL && store->sessions[i]->tracks;
    add_line(out, "connected_clients:%" PRIu32, store->session_count);
    add_line(out, "tracking_clients:%" PRIu32, tracking);
}

static void add_memory(const struct rc_store *store, struct rc_buf *out)
{
    add_line(out, "used_memory:%zu", store->bytes);
    add_line(out, "maxmemory:%zu", store->max_bytes);
    add_line(out, "maxmemory_policy:allkeys-lru");
}

static void add_stats(const struct rc_store *store, struct rc_buf *out)
{
    add_line(out, "total_commands_processed:%" PRIu64, store->stats.commands);
    add_line(out, "expired_keys:%" PRIu64, store->stats.expirations);
    add_line(out, "evicted_keys:%" PRIu64, store->stats.evictions);
    add_line(out, "tracking_total_keys:%zu", store->tracked.count);
}

static void add_replication(const struct rc_store *store, struct rc_buf *out)
{
    add_line(out, "role:%s", store->role == RC_STORE_REPLICA ? "slave" : "master");
    add_line(out, "connected_slaves:0");
    add_id(store, out, "master_replid", FIRST_HISTORY + store->histories);
    if (store->histories > 0)
        add_id(store, out, "master_replid2", FIRST_HISTORY + store->histories - 1);
    else
        add_line(out, "master_replid2:%040d", 0);
}

static void count_expiring(void *owner, struct rc_key *key)
{
    *(size_t *)owner += key->expires_ms != RC_STORE_NEVER;
}

static void add_keyspace(const struct rc_store *store, struct rc_buf *out)
{
    for (uint32_t i = 0; i < RC_STORE_DATABASES; i++) {
        size_t expiring = 0;
        uint64_t cursor = 0;
        if (store->key_counts[i] == 0)
            continue;
        do
            cursor = rc_key_scan(store, cursor, i, count_expiring, &expiring);
        while (cursor != 0);
        add_line(out, "db%" PRIu32 ":keys=%zu,expires=%zu,avg_ttl=0", i, store->key_counts[i],
                 expiring);
    }
}

static const struct {
    const char *name; /* as it is printed */
    const char *word; /* as it is asked for */
    void (*add)(const struct rc_store *store, struct rc_buf *out);
} sections[] = {
    {"Server", "SERVER", add_server},
    {"Clients", "CLIENTS", add_clients},
    {"Memory", "MEMORY", add_memory},
    {"Stats", "STATS", add_stats},
    {"Replication", "REPLICATION", add_replication},
    {"Keyspace", "KEYSPACE", add_keyspace},
};

static bool is_asked_for(const struct rc_call *call, const char *word)
{
    for (uint32_t i = 1; i < call->count; i++) {
        struct rc_text arg = call->args[i];
        if (rc_text_is(arg, word) || rc_text_is(arg, "ALL") || rc_text_is(arg, "DEFAULT") ||
            rc_text_is(arg, "EVERYTHING"))
            return true;
    }
    return call->count == 1;
}

static void do_info(struct rc_call *call)
{
    struct rc_buf text;
    rc_buf_init(&text);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (!is_asked_for(call, sections[i].word))
            continue;
        add_line(&text, "%s# %s", rc_buf_len(&text) == 0 ? "" : "\r\n", sections[i].name);
        sections[i].add(call->store, &text);
    }
    rc_answer_verbatim(call, (struct rc_text){rc_buf_head(&text), rc_buf_len(&text)});
    rc_buf_deinit(&text);
}

/* ---- CONFIG ---------------------------------------------------------------------------------- */

static const char *const settings[] = {"maxmemory-policy", "maxmemory"};

static bool is_wanted(const struct rc_call *call, const char *setting)
{
    for (uint32_t i = 2; i < call->count; i++) {
        if (rc_glob_matches(call->args[i], (struct rc_text){setting, strlen(setting)}))
            return true;
    }
    return false;
}

static void do_config_get(struct rc_call *call)
{
    bool policy = is_wanted(call, settings[0]), bytes = is_wanted(call, settings[1]);
    rc_answer_map(call, (size_t)policy + bytes);
    if (policy) {
        rc_answer_text(call, settings[0]);
        rc_answer_text(call, "allkeys-lru");
    }
    if (bytes) {
        rc_answer_text(call, settings[1]);
        answer_number(call, (int64_t)call->store->max_bytes);
    }
}

static void refuse_setting(struct rc_call *call, const char *setting, const char *why)
{
    rc_answer_error(call, "ERR CONFIG SET failed (possibly related to argument '%s') - %s", setting,
                    why);
}

static void do_config_set(struct rc_call *call)
{
    int64_t bytes;
    if (call->count == 4 && rc_text_is(call->args[2], "MAXMEMORY-POLICY")) {
        if (rc_text_is(call->args[3], "ALLKEYS-LRU"))
            rc_answer_status(call, "OK");
        else
            refuse_setting(call, settings[0], "the embedded store has allkeys-lru only");
    } else if (call->count == 4 && rc_text_is(call->args[2], "MAXMEMORY")) {
        if (!rc_text_to_int(call->args[3], &bytes) || bytes < 0) {
            refuse_setting(call, settings[1], "argument must be a memory value");
            return;
        }
        call->store->max_bytes = (size_t)bytes;
        (void)rc_key_make_room(call->store, 0);
        rc_answer_status(call, "OK");
    } else {
        rc_answer_error(call, "ERR Unknown option or number of arguments for CONFIG SET - '%.*s'",
                        (int)call->args[2].len, call->args[2].bytes);
    }
}

static void do_resetstat(struct rc_call *call)
{
    struct rc_store_stats *stats = &call->store->stats;
    stats->commands = stats->evictions = stats->expirations = 0;
    rc_answer_status(call, "OK");
}

static const struct rc_verb config_verbs[] = {
    {"GET", -3, 0, do_config_get},
    {"SET", -4, 0, do_config_set},
    {"RESETSTAT", 2, 0, do_resetstat},
    {"", 0, 0, NULL},
};

static void do_config(struct rc_call *call)
{
    rc_verb_do_second(call, config_verbs, " help rewrite ");
}

/* ---- COMMAND --------------------------------------------------------------------------------- */

static void do_command_count(struct rc_call *call)
{
    int64_t count = 0;
    for (int i = 0; i < RC_VERB_SLOTS; i++)
        count += call->store->verbs[i] != NULL;
    rc_answer_int(call, count);
}

/* No documentation. Clients that look for it go on without. */
static void do_command_docs(struct rc_call *call)
{
    rc_answer_map(call, 0);
}

static const struct rc_verb command_verbs[] = {
    {"COUNT", 2, 0, do_command_count},
    {"DOCS", -2, 0, do_command_docs},
    {"", 0, 0, NULL},
};

static void do_command(struct rc_call *call)
{
    if (call->count == 1)
        rc_answer_array(call, 0);
    else
        rc_verb_do_second(call, command_verbs, " getkeys getkeysandflags help info list ");
}

const struct rc_verb rc_server_verbs[] = {
    {"TIME", 1, RC_VERB_LOADING, do_time},        {"WAIT", 3, 0, do_wait},
    {"INFO", -1, RC_VERB_LOADING, do_info},       {"CONFIG", -2, RC_VERB_LOADING, do_config},
    {"COMMAND", -1, RC_VERB_LOADING, do_command}, {"", 0, 0, NULL},
};
