#include "store/store.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "engine/script.h"
#include "engine/entry.h"
#include "redcache.h"
#include "store/key.h"
#include "test/test.h"

enum { START_S = 1700000000, CONNS = 100 };

/* A store, connections, and what it has told. */
struct bed {
    struct rc_store *store;
    struct rc_store_conn *conns[CONNS];
    uint64_t random;
    int64_t now_us;
    int pushes;              /* on_push */
    struct rc_buf changes;   /* names that on_change told, a blank behind each */
    struct rc_store *mirror; /* applies every change, unless NULL */
};

/* ---- support --------------------------------------------------------------------------------- */

static void on_push(void *owner, struct rc_store_conn *conn)
{
    struct bed *bed = owner;
    (void)conn;
    bed->pushes++;
}

static void on_change(void *owner, const struct rc_store_change *change)
{
    struct bed *bed = owner;
    if (change->key == NULL)
        rc_buf_append(&bed->changes, "*", 1);
    rc_buf_append(&bed->changes, change->key, change->key_len);
    rc_buf_append(&bed->changes, " ", 1);
    if (bed->mirror != NULL)
        rc_store_apply(bed->mirror, change);
}

static void pass(struct bed *bed, int64_t ms)
{
    bed->now_us += ms * 1000;
    rc_store_set_time(bed->store, bed->now_us);
}

/* false: no memory. end() in any case. */
static bool begin(struct bed *bed, size_t max_bytes, int conns)
{
    struct rc_store_options options = {
        .max_bytes = max_bytes,
        .seed = {{1, 2}},
        .owner = bed,
        .on_push = on_push,
        .on_change = on_change,
    };
    memset(bed, 0, sizeof *bed);
    bed->now_us = (int64_t)START_S * 1000000;
    rc_scripts_init();
    if (rc_store_new(&bed->store, &options) != 0)
        return false;
    pass(bed, 0);
    for (int i = 0; i < conns; i++) {
        if (rc_store_connect(bed->store, &bed->conns[i]) != 0)
            return false;
    }
    return true;
}

static void end(struct bed *bed)
{
    if (bed->store != NULL)
        rc_store_free(bed->store);
    rc_buf_deinit(&bed->changes);
}

/* Adds a command of NUL-ended words, up to a NULL, to `out`. */
static void add_words(struct rc_buf *out, va_list words)
{
    va_list again;
    uint32_t count = 0;
    va_copy(again, words);
    while (va_arg(again, const char *) != NULL)
        count++;
    va_end(again);
    rc_command_head(out, count);
    for (uint32_t i = 0; i < count; i++)
        rc_command_text(out, va_arg(words, const char *));
}

static void add(struct rc_buf *out, ...)
{
    va_list words;
    va_start(words, out);
    add_words(out, words);
    va_end(words);
}

static void feed(struct bed *bed, int conn, struct rc_buf *bytes)
{
    rc_store_feed(bed->conns[conn], rc_buf_head(bytes), rc_buf_len(bytes));
    rc_buf_deinit(bytes);
}

static void say(struct bed *bed, int conn, ...)
{
    struct rc_buf bytes;
    va_list words;
    rc_buf_init(&bytes);
    va_start(words, conn);
    add_words(&bytes, words);
    va_end(words);
    feed(bed, conn, &bytes);
}

/* The connection's output is `text`; takes it. */
static bool heard(struct bed *bed, int conn, const char *text)
{
    struct rc_buf *output = &bed->conns[conn]->output;
    size_t len = strlen(text);
    bool same =
        rc_buf_len(output) == len && (len == 0 || memcmp(rc_buf_head(output), text, len) == 0);
    if (!same)
        fprintf(stderr, "heard: %.*s\n", (int)rc_buf_len(output), rc_buf_head(output));
    rc_buf_clear(output);
    return same;
}

static bool begins_with(struct bed *bed, int conn, const char *text)
{
    struct rc_buf *output = &bed->conns[conn]->output;
    size_t len = strlen(text);
    bool same = rc_buf_len(output) >= len && memcmp(rc_buf_head(output), text, len) == 0;
    rc_buf_clear(output);
    return same;
}

static bool is_there(struct bed *bed, const char *key)
{
    return rc_key_peek(bed->store, 0, (struct rc_text){key, strlen(key)}) != NULL;
}

static void track(struct bed *bed, int conn)
{
    say(bed, conn, "HELLO", "3", NULL);
    say(bed, conn, "CLIENT", "TRACKING", "ON", NULL);
    rc_buf_clear(&bed->conns[conn]->output);
}

static struct rc_store_stats stats_of(const struct bed *bed)
{
    struct rc_store_stats stats;
    rc_store_read_stats(bed->store, &stats);
    return stats;
}

/* A lease as it stands in a key. */
static struct rc_text lease(char bytes[RC_ENTRY_SIZE])
{
    rc_entry_write_kind(bytes, RC_KIND_LEASE, 0, "01234567");
    return (struct rc_text){bytes, RC_ENTRY_SIZE};
}

/* ---- the stream of bytes --------------------------------------------------------------------- */

static void add_conversation(struct rc_buf *out)
{
    static char large[3000];
    memset(large, 'x', sizeof large - 1);
    add(out, "HELLO", "3", NULL);
    add(out, "CLIENT", "TRACKING", "ON", NULL);
    add(out, "SET", "k", "value", NULL);
    rc_buf_append(out, "*0\r\n", 4);
    add(out, "GET", "k", NULL);
    add(out, "SET", "k", large, "PX", "1000", NULL);
    add(out, "MGET", "k", "other", "", NULL);
    add(out, "SET", "k", NULL);
    add(out, "NOSUCH", "a", "b", NULL);
    add(out, "PING", NULL);
}

static void does_commands_that_are_cut_anywhere(void)
{
    struct bed whole, bed;
    struct rc_buf bytes;
    rc_buf_init(&bytes);
    add_conversation(&bytes);
    size_t len = rc_buf_len(&bytes);
    if (begin(&whole, 0, 1)) {
        struct rc_buf *expected = &whole.conns[0]->output;
        rc_store_feed(whole.conns[0], rc_buf_head(&bytes), len);
        CHECK(rc_buf_len(expected) > 3000);
        for (size_t cut = 0; cut <= len; cut++) {
            if (begin(&bed, 0, 1)) {
                struct rc_buf *output = &bed.conns[0]->output;
                rc_store_feed(bed.conns[0], rc_buf_head(&bytes), cut);
                rc_store_feed(bed.conns[0], rc_buf_head(&bytes) + cut, len - cut);
                CHECK(rc_buf_len(output) == rc_buf_len(expected) &&
                      memcmp(rc_buf_head(output), rc_buf_head(expected), rc_buf_len(output)) == 0);
            }
            end(&bed);
        }
    }
    end(&whole);
    rc_buf_deinit(&bytes);
}

static void does_commands_that_come_byte_by_byte(void)
{
    struct bed bed;
    struct rc_buf bytes;
    rc_buf_init(&bytes);
    add(&bytes, "SET", "k", "value", NULL);
    add(&bytes, "GET", "k", NULL);
    if (begin(&bed, 0, 1)) {
        for (size_t i = 0; i < rc_buf_len(&bytes); i++)
            rc_store_feed(bed.conns[0], rc_buf_head(&bytes) + i, 1);
        CHECK(heard(&bed, 0, "+OK\r\n$5\r\nvalue\r\n"));
    }
    end(&bed);
    rc_buf_deinit(&bytes);
}

static void closes_behind_bytes_that_are_no_resp(void)
{
    static const char *const pairs[][2] = {
        {"GET k\r\n", "the embedded store takes no inline commands"},
        {"*x\r\n", "invalid multibulk length"},
        {"*99999999999\r\n", "invalid multibulk length"},
        {"*1\r\nx\r\n", "expected '$', got 'x'"},
        {"*1\r\n$-1\r\n", "invalid bulk length"},
        {"*1\r\n$536870913\r\n", "invalid bulk length"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct bed bed;
        char expected[128];
        if (begin(&bed, 0, 1)) {
            rc_store_feed(bed.conns[0], pairs[i][0], strlen(pairs[i][0]));
            snprintf(expected, sizeof expected, "-ERR Protocol error: %s\r\n", pairs[i][1]);
            CHECK(heard(&bed, 0, expected));
            CHECK(bed.conns[0]->wants_close);
            say(&bed, 0, "PING", NULL);
            CHECK(heard(&bed, 0, ""));
        }
        end(&bed);
    }
}

static void closes_who_quits_and_who_is_killed(void)
{
    struct bed bed;
    if (begin(&bed, 0, 3)) {
        say(&bed, 0, "CLIENT", "KILL", "ID", "2", NULL);
        CHECK(heard(&bed, 0, ":1\r\n") && bed.conns[1]->wants_close && bed.pushes == 1);
        say(&bed, 0, "CLIENT", "KILL", "ID", "1", NULL);
        CHECK(heard(&bed, 0, ":0\r\n") && !bed.conns[0]->wants_close);
        say(&bed, 2, "QUIT", NULL);
        CHECK(heard(&bed, 2, "+OK\r\n") && bed.conns[2]->wants_close);
    }
    end(&bed);
}

/* ---- random commands ------------------------------------------------------------------------- */

static const char *some(struct bed *bed, const char *const *words, uint32_t count)
{
    return words[test_below(&bed->random, count)];
}

/* SET key lease PX 60000, with one more word, or two. */
static void say_lease(struct bed *bed, int conn, const char *key, const char *more,
                      const char *more_still)
{
    char bytes[RC_ENTRY_SIZE];
    struct rc_text value = lease(bytes);
    struct rc_buf set;
    rc_buf_init(&set);
    rc_command_head(&set, more_still != NULL ? 7 : 6);
    rc_command_text(&set, "SET");
    rc_command_text(&set, key);
    rc_command_bytes(&set, value.bytes, value.len);
    rc_command_text(&set, "PX");
    rc_command_text(&set, "60000");
    rc_command_text(&set, more);
    if (more_still != NULL)
        rc_command_text(&set, more_still);
    feed(bed, conn, &set);
}

/* A write or read, over two databases and a few keys. */
static void say_anything(struct bed *bed, int conn)
{
    static const char *const keys[] = {"a", "b", "c", "d", "a longer name of a key"};
    static const char *const values[] = {"", "1", "value",
                                         "a value that is much longer than others"};
    const char *key = some(bed, keys, 5), *other = some(bed, keys, 5),
               *value = some(bed, values, 4);
    switch (test_below(&bed->random, 19)) {
    case 0: say(bed, conn, "SET", key, value, NULL); break;
    case 1: say(bed, conn, "SET", key, value, "PX", "5", "GET", NULL); break;
    case 2: say(bed, conn, "APPEND", key, value, NULL); break;
    case 3: say(bed, conn, "SETRANGE", key, "7", value, NULL); break;
    case 4: say(bed, conn, "DEL", key, other, NULL); break;
    case 5: say(bed, conn, "RENAME", key, other, NULL); break;
    case 6: say(bed, conn, "COPY", key, other, "REPLACE", "DB", "1", NULL); break;
    case 7: say(bed, conn, "PEXPIRE", key, "3", NULL); break;
    case 8: say(bed, conn, "PERSIST", key, NULL); break;
    case 9: say(bed, conn, "INCR", key, NULL); break;
    case 10: say(bed, conn, "MSET", key, value, other, "2", NULL); break;
    case 11: say(bed, conn, "GETDEL", key, NULL); break;
    case 12: say(bed, conn, "SELECT", test_below(&bed->random, 2) ? "1" : "0", NULL); break;
    case 13: say(bed, conn, "GETEX", key, "PXAT", "1", NULL); break;
    case 14: pass(bed, test_below(&bed->random, 4)); break;
    case 15: rc_store_sweep(bed->store, 3); break;
    case 16:
        if (test_below(&bed->random, 20) == 0)
            say(bed, conn, "FLUSHDB", NULL);
        break;
    case 17: say_lease(bed, conn, key, "GET", NULL); break;
    default: say(bed, conn, "MGET", key, other, "missing", NULL); break;
    }
}

/* ---- bytes and eviction ---------------------------------------------------------------------- */

static void add_cost(void *owner, const struct rc_store_change *change)
{
    *(size_t *)owner += rc_key_cost(change->key_len, change->value_len);
}

static void counts_its_bytes_as_it_goes(void)
{
    struct bed bed;
    if (begin(&bed, 0, 1)) {
        for (int i = 0; i < 20000; i++) {
            size_t bytes = 0;
            say_anything(&bed, 0);
            rc_store_each(bed.store, add_cost, &bytes);
            if (!CHECK(stats_of(&bed).bytes == bytes))
                break;
            rc_buf_clear(&bed.conns[0]->output);
            rc_buf_clear(&bed.changes);
        }
        track(&bed, 0);
        say(&bed, 0, "MGET", "a", "missing", NULL);
        say(&bed, 0, "FLUSHALL", NULL);
        CHECK(stats_of(&bed).bytes == 0 && stats_of(&bed).keys == 0);
        CHECK(bed.store->pinned_bytes == 0);
    }
    end(&bed);
}

static void never_holds_more_than_max_bytes(void)
{
    struct bed bed;
    if (begin(&bed, 1500, 3)) {
        track(&bed, 0);
        track(&bed, 1);
        for (int i = 0; i < 20000; i++) {
            int conn = (int)test_below(&bed.random, 3);
            say_anything(&bed, conn);
            if (!CHECK(stats_of(&bed).bytes <= 1500))
                break;
            for (conn = 0; conn < 3; conn++)
                rc_buf_clear(&bed.conns[conn]->output);
            rc_buf_clear(&bed.changes);
        }
        CHECK(stats_of(&bed).evictions > 100);
    }
    end(&bed);
}

static void evicts_what_was_used_longest_ago(void)
{
    struct bed bed;
    /* Room for four keys and for the most that the fifth may need. */
    size_t max = 5 * rc_key_cost(2, 100) + 100;
    char value[101] = "";
    memset(value, 'v', 100);
    if (begin(&bed, max, 2)) {
        track(&bed, 1);
        say(&bed, 0, "SET", "k1", value, NULL);
        say(&bed, 0, "SET", "k2", value, NULL);
        say(&bed, 0, "SET", "k3", value, NULL);
        say(&bed, 0, "SET", "k4", value, NULL);
        CHECK(stats_of(&bed).evictions == 0);
        say(&bed, 0, "GET", "k1", NULL);
        say(&bed, 1, "GET", "k3", NULL);
        say(&bed, 0, "GET", "k3", NULL);
        rc_buf_clear(&bed.changes);
        say(&bed, 0, "SET", "k5", value, NULL);
        say(&bed, 0, "SET", "k6", value, NULL);
        CHECK(!is_there(&bed, "k2") && !is_there(&bed, "k4"));
        CHECK(is_there(&bed, "k1") && is_there(&bed, "k3") && is_there(&bed, "k5"));
        CHECK(rc_buf_len(&bed.changes) > 6 && memcmp(bed.changes.bytes, "k2 ", 3) == 0);
    }
    end(&bed);
}

static void tells_who_tracks_an_evicted_key(void)
{
    struct bed bed;
    char value[400] = "";
    memset(value, 'v', sizeof value - 1);
    if (begin(&bed, 1000, 2)) {
        track(&bed, 1);
        say(&bed, 0, "SET", "k", "small", NULL);
        say(&bed, 1, "GET", "k", NULL);
        CHECK(heard(&bed, 1, "$5\r\nsmall\r\n"));
        say(&bed, 0, "SET", "a", value, NULL);
        say(&bed, 0, "SET", "b", value, NULL);
        CHECK(!is_there(&bed, "k"));
        CHECK(heard(&bed, 1, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"));
    }
    end(&bed);
}

/* Names nobody has a key for would else fill the memory. */
static void evicts_what_it_knows_of_readers(void)
{
    struct bed bed;
    char key[32];
    if (begin(&bed, 2000, 1)) {
        track(&bed, 0);
        for (int i = 0; i < 1000; i++) {
            snprintf(key, sizeof key, "missing %d", i);
            say(&bed, 0, "GET", key, NULL);
            CHECK(stats_of(&bed).bytes <= 2000);
        }
        /* A push for each that was forgotten: 1000 nulls are 3000 bytes. */
        CHECK(rc_buf_len(&bed.conns[0]->output) > 30000);
    }
    end(&bed);
}

static void say_script(struct bed *bed, enum rc_script script, const char *const *keys,
                       uint32_t key_count, const struct rc_text *args, uint32_t arg_count)
{
    struct rc_buf bytes;
    rc_buf_init(&bytes);
    rc_command_head(&bytes, 3 + key_count + arg_count);
    rc_command_text(&bytes, "EVAL");
    rc_command_text(&bytes, rc_script_source(script));
    rc_command_int(&bytes, key_count);
    for (uint32_t i = 0; i < key_count; i++)
        rc_command_text(&bytes, keys[i]);
    for (uint32_t i = 0; i < arg_count; i++)
        rc_command_bytes(&bytes, args[i].bytes, args[i].len);
    feed(bed, 0, &bytes);
}

/* The source of one of our own that is changed here is to be changed there, too. */
static void has_a_twin_of_each_script_of_the_engine(void)
{
    struct bed bed;
    if (CHECK(begin(&bed, 0, 1))) {
        for (int script = 0; script < RC_SCRIPT_COUNT; script++) {
            char expected[64];
            snprintf(expected, sizeof expected, "$40\r\n%s\r\n", rc_script_sha(script));
            say(&bed, 0, "SCRIPT", "LOAD", rc_script_source(script), NULL);
            CHECK(heard(&bed, 0, expected));
            say(&bed, 0, "SCRIPT", "EXISTS", rc_script_sha(script), NULL);
            CHECK(heard(&bed, 0, "*1\r\n:1\r\n"));
        }
        say(&bed, 0, "SCRIPT", "FLUSH", NULL);
        CHECK(heard(&bed, 0, "+OK\r\n"));
        say(&bed, 0, "EVALSHA", rc_script_sha(0), "0", NULL);
        CHECK(begins_with(&bed, 0, "-NOSCRIPT"));
        say(&bed, 0, "EVAL", "return 1", "0", NULL);
        CHECK(begins_with(&bed, 0, "-ERR memory:// runs no scripts"));
    }
    end(&bed);
}

static void fill(struct bed *bed)
{
    char key[32], value[200] = "";
    memset(value, 'v', sizeof value - 1);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "filler %d", i);
        say(bed, 0, "SET", key, value, NULL);
    }
    rc_buf_clear(&bed->conns[0]->output);
}

static void does_not_evict_leases_and_locks(void)
{
    static const char *const lock_keys[] = {"lock", "fence", "mark"}, *const key[] = {"lease"};
    static const char *const release_keys[] = {"lock", "mark"};
    struct bed bed;
    char bytes[RC_ENTRY_SIZE];
    if (begin(&bed, 4000, 1)) {
        struct rc_text ttl = {"60000", 5}, token = {"token", 5}, no = {"0", 1};
        struct rc_text acquire[] = {lease(bytes), ttl, no}, lock[] = {token, ttl, no, ttl};
        say_lease(&bed, 0, "lease by SET", "NX", "GET");
        say_script(&bed, RC_SCRIPT_ACQUIRE, key, 1, acquire, 3);
        say_script(&bed, RC_SCRIPT_LOCK, lock_keys, 3, lock, 4);
        fill(&bed);
        CHECK(stats_of(&bed).evictions > 50);
        CHECK(is_there(&bed, "lease") && is_there(&bed, "lease by SET"));
        CHECK(is_there(&bed, "lock") && is_there(&bed, "fence"));
        say_script(&bed, RC_SCRIPT_LOCK_RELEASE, release_keys, 2, &token, 1);
        fill(&bed);
        CHECK(!is_there(&bed, "lock") && is_there(&bed, "mark"));
        /* A value in their place is like any other. */
        struct rc_text publish[] = {acquire[0], {"value", 5}, ttl};
        say_script(&bed, RC_SCRIPT_PUBLISH, key, 1, publish, 3);
        say(&bed, 0, "SET", "fence", "a string", NULL);
        fill(&bed);
        CHECK(!is_there(&bed, "lease") && !is_there(&bed, "fence"));
    }
    end(&bed);
}

#define OOM "-OOM command not allowed when used memory > 'maxmemory'."

static void refuses_what_can_never_fit_and_evicts_nothing_for_it(void)
{
    struct bed bed;
    char large[3000] = "";
    memset(large, 'v', sizeof large - 1);
    if (begin(&bed, 2000, 1)) {
        say(&bed, 0, "SET", "k", "v", NULL);
        CHECK(heard(&bed, 0, "+OK\r\n"));
        say(&bed, 0, "SET", "large", large, NULL);
        CHECK(heard(&bed, 0, OOM "\r\n"));
        say(&bed, 0, "SETRANGE", "k", "100000", "x", NULL);
        CHECK(heard(&bed, 0, OOM "\r\n"));
        say(&bed, 0, "GET", "k", NULL);
        CHECK(heard(&bed, 0, "$1\r\nv\r\n") && stats_of(&bed).evictions == 0);
    }
    end(&bed);
}

static void refuses_writes_when_leases_fill_everything(void)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    struct bed bed;
    char bytes[RC_ENTRY_SIZE], large[500] = "";
    memset(large, 'v', sizeof large - 1);
    if (begin(&bed, 1500, 1)) {
        struct rc_text acquire[] = {lease(bytes), {"60000", 5}, {"0", 1}};
        for (int i = 0; i < 12; i++)
            say_script(&bed, RC_SCRIPT_ACQUIRE, &names[i], 1, acquire, 3);
        rc_buf_clear(&bed.conns[0]->output);
        say_script(&bed, RC_SCRIPT_ACQUIRE, &names[11], 1, acquire, 3);
        CHECK(begins_with(&bed, 0, OOM " script: "));
        say(&bed, 0, "SET", "value", large, NULL);
        CHECK(heard(&bed, 0, OOM "\r\n") && is_there(&bed, "a"));
        pass(&bed, 60001);
        rc_store_sweep(bed.store, 100);
        say(&bed, 0, "SET", "value", large, NULL);
        CHECK(heard(&bed, 0, "+OK\r\n"));
    }
    end(&bed);
}

/* ---- tracking -------------------------------------------------------------------------------- */

#define PUSH(key_len, key) ">2\r\n$10\r\ninvalidate\r\n*1\r\n$" #key_len "\r\n" key "\r\n"

static void tells_that_a_push_waits_but_not_to_who_writes(void)
{
    struct bed bed;
    if (begin(&bed, 0, 2)) {
        track(&bed, 0);
        track(&bed, 1);
        say(&bed, 0, "GET", "k", NULL);
        say(&bed, 1, "GET", "k", NULL);
        CHECK(bed.pushes == 0 && heard(&bed, 0, "_\r\n") && heard(&bed, 1, "_\r\n"));
        say(&bed, 0, "SET", "k", "v", NULL);
        CHECK(bed.pushes == 1);
        CHECK(heard(&bed, 0, "+OK\r\n" PUSH(1, "k")) && heard(&bed, 1, PUSH(1, "k")));
        say(&bed, 0, "SET", "k", "w", NULL);
        CHECK(bed.pushes == 1 && heard(&bed, 0, "+OK\r\n") && heard(&bed, 1, ""));
    }
    end(&bed);
}

static void tracks_for_more_than_64_connections(void)
{
    struct bed bed;
    if (begin(&bed, 0, CONNS)) {
        for (int i = 0; i < CONNS; i++) {
            track(&bed, i);
            say(&bed, i, "GET", "k", NULL);
            say(&bed, i, "GET", "k", NULL);
            CHECK(heard(&bed, i, "_\r\n_\r\n"));
        }
        say(&bed, 70, "SET", "k", "v", NULL);
        CHECK(heard(&bed, 70, "+OK\r\n" PUSH(1, "k")));
        for (int i = 0; i < CONNS; i++)
            CHECK(heard(&bed, i, i == 70 ? "" : PUSH(1, "k")));
    }
    end(&bed);
}

static void knows_a_new_connection_from_one_that_went(void)
{
    struct bed bed;
    if (begin(&bed, 0, 2)) {
        track(&bed, 1);
        say(&bed, 0, "SET", "k", "v", NULL);
        say(&bed, 1, "MGET", "k", "other", NULL);
        rc_store_disconnect(bed.conns[1]);
        if (rc_store_connect(bed.store, &bed.conns[1]) == 0) {
            track(&bed, 1);
            say(&bed, 0, "SET", "k", "w", NULL);
            CHECK(heard(&bed, 1, ""));
            say(&bed, 1, "GET", "k", NULL);
            say(&bed, 0, "SET", "k", "x", NULL);
            CHECK(heard(&bed, 1, "$1\r\nw\r\n" PUSH(1, "k")));
        }
    }
    end(&bed);
}

static void tracks_one_name_for_all_databases(void)
{
    struct bed bed;
    if (begin(&bed, 0, 2)) {
        track(&bed, 1);
        say(&bed, 0, "SET", "k", "v", NULL);
        say(&bed, 1, "GET", "k", NULL);
        say(&bed, 0, "SELECT", "3", NULL);
        say(&bed, 0, "SET", "k", "w", NULL);
        CHECK(heard(&bed, 1, "$1\r\nv\r\n" PUSH(1, "k")));
        say(&bed, 1, "GET", "k", NULL);
        say(&bed, 0, "DEL", "k", NULL);
        CHECK(heard(&bed, 1, "$1\r\nv\r\n" PUSH(1, "k")));
    }
    end(&bed);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void expires_when_somebody_looks_or_sweeps(void)
{
    struct bed bed;
    if (begin(&bed, 0, 2)) {
        track(&bed, 1);
        say(&bed, 0, "SET", "a", "v", "PX", "10", NULL);
        say(&bed, 0, "SET", "b", "v", "PX", "10", NULL);
        say(&bed, 1, "MGET", "a", "b", NULL);
        rc_buf_clear(&bed.conns[1]->output);
        pass(&bed, 10);
        CHECK(rc_store_sweep(bed.store, 100) == 0); /* its last millisecond */
        pass(&bed, 1);
        CHECK(stats_of(&bed).keys == 2 && heard(&bed, 1, ""));
        say(&bed, 0, "GET", "a", NULL);
        CHECK(stats_of(&bed).keys == 1 && heard(&bed, 1, PUSH(1, "a")));
        CHECK(rc_store_sweep(bed.store, 100) == 1);
        CHECK(stats_of(&bed).keys == 0 && heard(&bed, 1, PUSH(1, "b")));
        CHECK(stats_of(&bed).expirations == 2);
    }
    end(&bed);
}

static void sweeps_all_keys_a_few_at_a_time(void)
{
    enum { COUNT = 1000, STEP = 16 };
    struct bed bed;
    char key[16];
    if (begin(&bed, 0, 1)) {
        for (int i = 0; i < COUNT; i++) {
            snprintf(key, sizeof key, "%d", i);
            say(&bed, 0, "SET", key, "v", "PX", i % 2 == 0 ? "10" : "1000", NULL);
        }
        size_t expected = stats_of(&bed).keys / 2, swept = 0;
        pass(&bed, 100);
        for (int i = 0; i < 3 * COUNT / STEP; i++) {
            size_t now = rc_store_sweep(bed.store, STEP);
            CHECK(now <= STEP + 8); /* it ends with a bucket */
            swept += now;
        }
        CHECK(swept == expected && stats_of(&bed).keys == expected);
    }
    end(&bed);
}

/* ---- roles ----------------------------------------------------------------------------------- */

static void as_a_replica_refuses_writes_and_expires_nothing(void)
{
    static const char *const keys[] = {"k"};
    struct bed bed;
    struct rc_text nothing[] = {{"lease", 5}};
    size_t told = 0;
    if (begin(&bed, 0, 1)) {
        say(&bed, 0, "SET", "k", "v", "PX", "10", NULL);
        rc_buf_clear(&bed.conns[0]->output);
        rc_store_set_role(bed.store, RC_STORE_REPLICA);
        say(&bed, 0, "SET", "k", "w", NULL);
        CHECK(heard(&bed, 0, "-READONLY You can't write against a read only replica.\r\n"));
        say_script(&bed, RC_SCRIPT_RELEASE, keys, 1, nothing, 1);
        CHECK(
            begins_with(&bed, 0, "-READONLY You can't write against a read only replica. script"));
        pass(&bed, 11);
        say(&bed, 0, "GET", "k", NULL);
        CHECK(heard(&bed, 0, "$-1\r\n") && is_there(&bed, "k"));
        CHECK(rc_store_sweep(bed.store, 100) == 0);
        rc_store_each(bed.store, add_cost, &told);
        CHECK(told == rc_key_cost(1, 1));
        rc_store_set_role(bed.store, RC_STORE_MASTER);
        say(&bed, 0, "GET", "k", NULL);
        CHECK(heard(&bed, 0, "$-1\r\n") && !is_there(&bed, "k"));
    }
    end(&bed);
}

static void applies_what_its_master_did_and_tells_who_tracks(void)
{
    struct bed bed;
    struct rc_store_change set = {0, "k", 1, "v", 1, RC_STORE_NEVER},
                           del = {.key = "k", .key_len = 1};
    struct rc_store_change flush = {.database = RC_STORE_DATABASES};
    if (begin(&bed, 0, 1)) {
        track(&bed, 0);
        rc_store_set_role(bed.store, RC_STORE_REPLICA);
        say(&bed, 0, "GET", "k", NULL);
        CHECK(rc_store_apply(bed.store, &set) == 0);
        say(&bed, 0, "GET", "k", NULL);
        CHECK(rc_store_apply(bed.store, &del) == 0);
        CHECK(rc_store_apply(bed.store, &del) == 0);
        CHECK(rc_store_apply(bed.store, &flush) == 0);
        CHECK(heard(
            &bed, 0,
            "_\r\n" PUSH(1, "k") "$1\r\nv\r\n" PUSH(1, "k") ">2\r\n$10\r\ninvalidate\r\n_\r\n"));
        CHECK(bed.pushes == 3);
    }
    end(&bed);
}

static void while_loading_does_handshakes_only(void)
{
    struct bed bed;
    if (begin(&bed, 0, 1)) {
        rc_store_set_role(bed.store, RC_STORE_LOADING);
        say(&bed, 0, "SELECT", "1", NULL);
        say(&bed, 0, "CLIENT", "TRACKING", "ON", NULL);
        CHECK(heard(&bed, 0, "+OK\r\n+OK\r\n"));
        say(&bed, 0, "PING", NULL);
        CHECK(heard(&bed, 0, "-LOADING Redis is loading the dataset in memory\r\n"));
        say(&bed, 0, "GET", "k", NULL);
        CHECK(heard(&bed, 0, "-LOADING Redis is loading the dataset in memory\r\n"));
        say(&bed, 0, "HELLO", "3", NULL);
        CHECK(begins_with(&bed, 0, "%7\r\n"));
    }
    end(&bed);
}

/* Each key's content, whatever the order. */
static void add_fingerprint(void *owner, const struct rc_store_change *change)
{
    struct rc_seed seed = {{change->database, (uint64_t)change->expires_ms}};
    struct rc_seed next = {{rc_siphash(&seed, change->key, change->key_len), 0}};
    *(uint64_t *)owner += rc_siphash(&next, change->value, change->value_len);
}

static uint64_t fingerprint(const struct rc_store *store)
{
    uint64_t sum = 0;
    rc_store_each(store, add_fingerprint, &sum);
    return sum;
}

static void tells_every_change_so_that_a_replica_is_the_same(void)
{
    struct bed bed;
    struct rc_store_options options = {.seed = {{3, 4}}};
    if (begin(&bed, 3000, 2) && rc_store_new(&bed.mirror, &options) == 0) {
        rc_store_set_role(bed.mirror, RC_STORE_REPLICA);
        for (int i = 0; i < 20000; i++) {
            say_anything(&bed, (int)test_below(&bed.random, 2));
            if (!CHECK(fingerprint(bed.store) == fingerprint(bed.mirror)))
                break;
            rc_buf_clear(&bed.conns[0]->output);
            rc_buf_clear(&bed.conns[1]->output);
            rc_buf_clear(&bed.changes);
        }
    }
    struct rc_store *mirror = bed.mirror;
    end(&bed);
    if (mirror != NULL)
        rc_store_free(mirror);
}

/* ---- SCAN, RANDOMKEY ------------------------------------------------------------------------- */

/* Marks the keys "0" to "99" of a SCAN answer, and returns its cursor. */
static uint64_t read_scan(struct bed *bed, bool seen[100])
{
    struct rc_buf *output = &bed->conns[0]->output;
    rc_buf_append(output, "", 1);
    char *at = output->bytes + output->start, *end = NULL;
    if (!CHECK(output->bytes[output->start] == '*'))
        exit(1);
    at = strchr(strchr(at, '\n') + 1, '\n') + 1;
    uint64_t cursor = strtoull(at, &at, 10);
    while ((at = strchr(at, '$')) != NULL) {
        at = strchr(at, '\n') + 1;
        long key = strtol(at, &end, 10);
        if (key < 100 && end != at)
            seen[key] = true;
        at = end;
    }
    rc_buf_clear(output);
    return cursor;
}

static void scans_every_key_that_stays_while_others_come(void)
{
    struct bed bed;
    char text[32];
    bool seen[100] = {false};
    if (begin(&bed, 0, 1)) {
        for (int i = 0; i < 100; i++) {
            snprintf(text, sizeof text, "%d", i);
            say(&bed, 0, "SET", text, "v", NULL);
        }
        uint64_t cursor = 0;
        int calls = 0, next = 100;
        do {
            rc_buf_clear(&bed.conns[0]->output);
            snprintf(text, sizeof text, "%llu", (unsigned long long)cursor);
            say(&bed, 0, "SCAN", text, "COUNT", "4", NULL);
            if (rc_buf_len(&bed.conns[0]->output) == 0)
                break; /* no memory */
            cursor = read_scan(&bed, seen);
            for (int i = 0; i < 40 && calls < 50; i++) { /* the table doubles again and again */
                snprintf(text, sizeof text, "%d", next++);
                say(&bed, 0, "SET", text, "v", NULL);
            }
        } while (cursor != 0 && ++calls < 10000);
        CHECK(cursor == 0 && calls > 10);
        for (int i = 0; i < 100; i++)
            CHECK(seen[i]);
    }
    end(&bed);
}

static void picks_a_random_key_of_its_database(void)
{
    struct bed bed;
    if (begin(&bed, 0, 1)) {
        say(&bed, 0, "SET", "elsewhere", "v", NULL);
        say(&bed, 0, "SELECT", "2", NULL);
        say(&bed, 0, "RANDOMKEY", NULL);
        CHECK(heard(&bed, 0, "+OK\r\n+OK\r\n$-1\r\n"));
        say(&bed, 0, "MSET", "a", "1", "b", "2", NULL);
        CHECK(heard(&bed, 0, "+OK\r\n"));
        int heard_of[2] = {0};
        for (int i = 0; i < 200; i++) {
            say(&bed, 0, "RANDOMKEY", NULL);
            bool is_a = rc_buf_len(&bed.conns[0]->output) > 4 &&
                        rc_buf_head(&bed.conns[0]->output)[4] == 'a';
            heard_of[is_a]++;
            CHECK(heard(&bed, 0, is_a ? "$1\r\na\r\n" : "$1\r\nb\r\n"));
        }
        CHECK(heard_of[0] > 0 && heard_of[1] > 0);
    }
    end(&bed);
}

int main(void)
{
    TEST(has_a_twin_of_each_script_of_the_engine);
    TEST(does_commands_that_are_cut_anywhere);
    TEST(does_commands_that_come_byte_by_byte);
    TEST(closes_behind_bytes_that_are_no_resp);
    TEST(closes_who_quits_and_who_is_killed);
    TEST(counts_its_bytes_as_it_goes);
    TEST(never_holds_more_than_max_bytes);
    TEST(evicts_what_was_used_longest_ago);
    TEST(tells_who_tracks_an_evicted_key);
    TEST(evicts_what_it_knows_of_readers);
    TEST(does_not_evict_leases_and_locks);
    TEST(refuses_what_can_never_fit_and_evicts_nothing_for_it);
    TEST(refuses_writes_when_leases_fill_everything);
    TEST(tells_that_a_push_waits_but_not_to_who_writes);
    TEST(tracks_for_more_than_64_connections);
    TEST(knows_a_new_connection_from_one_that_went);
    TEST(tracks_one_name_for_all_databases);
    TEST(expires_when_somebody_looks_or_sweeps);
    TEST(sweeps_all_keys_a_few_at_a_time);
    TEST(as_a_replica_refuses_writes_and_expires_nothing);
    TEST(applies_what_its_master_did_and_tells_who_tracks);
    TEST(while_loading_does_handshakes_only);
    TEST(tells_every_change_so_that_a_replica_is_the_same);
    TEST(scans_every_key_that_stays_while_others_come);
    TEST(picks_a_random_key_of_its_database);
    return test_result();
}
