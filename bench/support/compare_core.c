/*
 * compare_core.c - paths of the core, for those who count instructions: no Lua, no server.
 *
 * What:    compare_core QUESTION CALLS runs a question that often on a store in memory, by one
 *          thread. compare_count.lua builds it with each build's header and library, and takes the
 *          difference of two runs.
 * Threads: one of ours; a client on memory:// has none.
 * Memory:  everything is freed before the end.
 * Errors:  exit status 1 and a line where a call did not do what the question wants.
 * Not:     time: that is the Lua side's, which goes through the same calls.
 */
#include "redcache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 1000, VALUE_BYTES = 100, TTL_MS = 600000, MAX_STALE_US = 2000000000 };

struct subject {
    rc_client *client;
    rc_op *op;
    rc_view *view;
    rc_lock *lock;
    rc_near_handle *handles;
    char keys[KEYS][17];
    char value[VALUE_BYTES];
    char buffer[1024];
    uint64_t made; /* keys that nobody has asked for */
};

static void expect(int is_right, const char *what)
{
    if (!is_right) {
        fprintf(stderr, "compare_core: %s\n", what);
        exit(1);
    }
}

static void set(struct subject *s, const char *key)
{
    rc_entry entry = {.kind = RC_KIND_VALUE};
    expect(rc_set(s->op, key, 16, &entry, s->value, VALUE_BYTES, TTL_MS, 0) == 0 &&
               rc_wait(s->op) == 0,
           "could not set");
}

static void ask_set(struct subject *s, int i)
{
    set(s, s->keys[i % KEYS]);
}

static void ask_get(struct subject *s, int i)
{
    expect(rc_get(s->op, s->keys[i % KEYS], 16, 0) == 0 && rc_wait(s->op) == 0 &&
               rc_op_result(s->op)->outcome == RC_HIT,
           "a hit was expected");
}

static void ask_remember(struct subject *s, int i)
{
    rc_load_options options = {
        .lease_ttl_ms = 10000, .max_load_ms = 60000, .wait_timeout_ms = 5000};
    expect(rc_load(s->op, s->keys[i % KEYS], 16, &options) == 0 && rc_wait(s->op) == 0 &&
               rc_op_result(s->op)->outcome == RC_HIT,
           "a hit was expected");
}

static void ask_miss(struct subject *s, int i)
{
    char key[17];
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_load_options options = {.flags = RC_SCRIPT_FIRST,
                               .lease_ttl_ms = 10000,
                               .max_load_ms = 60000,
                               .wait_timeout_ms = 5000};
    (void)i;
    snprintf(key, sizeof key, "%016llx", (unsigned long long)++s->made);
    expect(rc_load(s->op, key, 16, &options) == 0 && rc_wait(s->op) == 0 &&
               rc_op_result(s->op)->outcome == RC_LOAD,
           "a lease was expected");
    expect(rc_publish(s->op, &entry, s->value, VALUE_BYTES, TTL_MS, 0) == 0 &&
               rc_wait(s->op) == 0 && rc_op_result(s->op)->outcome == RC_STORED,
           "a stored load was expected");
}

static void ask_near(struct subject *s, int i)
{
    rc_near_value value = {.buffer = s->buffer, .capacity = sizeof s->buffer};
    expect(rc_view_get(s->view, s->keys[i % KEYS], 16, MAX_STALE_US, &value) == RC_NEAR_HIT,
           "a near hit was expected");
}

static void ask_check(struct subject *s, int i)
{
    expect(rc_view_check(s->view, s->handles, (uint32_t)(i % KEYS), MAX_STALE_US) == 1,
           "the copy was expected to stand");
}

static void ask_lock(struct subject *s, int i)
{
    rc_lock_options options = {.ttl_ms = 10000};
    (void)i;
    expect(rc_lock_acquire(s->lock, s->op, &options) == 0 && rc_wait(s->op) == 0 &&
               rc_lock_release(s->lock, s->op) == 0 && rc_wait(s->op) == 0,
           "could not lock");
}

static const struct question {
    const char *name;
    void (*ask)(struct subject *s, int i);
} QUESTIONS[] = {
    {"check", ask_check},       {"near", ask_near}, {"get", ask_get},   {"set", ask_set},
    {"remember", ask_remember}, {"miss", ask_miss}, {"lock", ask_lock},
};

static void keep_near(struct subject *s, int i)
{
    rc_near_value value = {.buffer = s->buffer, .capacity = sizeof s->buffer};
    set(s, s->keys[i]);
    expect(rc_view_read(s->view, s->op, s->keys[i], 16, RC_WANT_TTL) == 0 && rc_wait(s->op) == 0 &&
               rc_view_get(s->view, s->keys[i], 16, MAX_STALE_US, &value) == RC_NEAR_HIT,
           "could not keep a key near");
    s->handles[i] = value.handle;
}

static void open_subject(struct subject *s)
{
    rc_options options = {.url = "memory://", .url_len = 9, .near = 1};
    expect(rc_open(&options, &s->client, NULL) == 0, "could not open memory://");
    s->op = rc_op_new(s->client);
    s->view = rc_view_new(s->client, "", 0, "", 0, 0, 0, 0);
    s->lock = rc_lock_new(s->client, "lock", 4);
    s->handles = aligned_alloc(64, sizeof *s->handles * KEYS);
    expect(s->op && s->view && s->lock && s->handles, "no memory");
    memset(s->value, 'v', sizeof s->value);
    for (int i = 0; i < KEYS; i++) {
        snprintf(s->keys[i], sizeof s->keys[i], "k%015x", (unsigned)i * 2654435761u);
        keep_near(s, i);
    }
}

static void close_subject(struct subject *s)
{
    free(s->handles);
    rc_lock_free(s->lock);
    rc_view_free(s->view);
    rc_op_free(s->op);
    rc_unref(s->client, 1000);
}

int main(int argc, char **argv)
{
    static struct subject subject;
    expect(argc == 3, "usage: compare_core QUESTION CALLS");
    for (size_t q = 0; q < sizeof QUESTIONS / sizeof *QUESTIONS; q++) {
        if (strcmp(QUESTIONS[q].name, argv[1]) == 0) {
            open_subject(&subject);
            for (int i = 0, calls = atoi(argv[2]); i < calls; i++) {
                QUESTIONS[q].ask(&subject, i);
            }
            close_subject(&subject);
            return 0;
        }
    }
    expect(0, "there is no such question");
}
