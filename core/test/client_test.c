#include "client/client.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

/* Nobody listens there: calls end by themselves, soon, and what they say is known. */
static const char URL[] = "unix:///nowhere/redcache-test.sock";

enum { COMMAND_MS = 30, WAIT_MS = 60 };

static rc_client *open_client(int32_t near)
{
    rc_client *client = NULL;
    rc_refusal refusal = {0};
    rc_options options = {.url = URL,
                          .url_len = strlen(URL),
                          .command_timeout_ms = COMMAND_MS,
                          .near = near,
                          .near_bytes = 1 << 20};
    int error = rc_open(&options, &client, &refusal);
    CHECK(error == 0 || refusal.text != NULL);
    return error == 0 ? client : NULL;
}

/* A client and a slot of it, both or none. */
static rc_op *open_op(rc_client **client, int32_t near)
{
    *client = open_client(near);
    rc_op *op = CHECK(*client != NULL) ? rc_op_new(*client) : NULL;
    if (*client != NULL && !CHECK(op != NULL))
        rc_unref(*client, 0);
    return op;
}

static void close_op(rc_client *client, rc_op *op)
{
    rc_op_free(op);
    rc_unref(client, WAIT_MS);
}

static int status_of(rc_op *op, int error)
{
    return error != 0 ? error : rc_wait(op);
}

static void opens_one_client_for_equal_options(void)
{
    rc_client *first = open_client(0), *second = open_client(0), *other = open_client(1);
    CHECK(first != NULL && first == second && other != NULL && other != first);
    if (other != NULL)
        rc_unref(other, 0);
    if (second != NULL)
        rc_unref(second, 0);
    if (first != NULL)
        rc_unref(first, 0);
}

static void says_that_nobody_listens(void)
{
    rc_client *client;
    rc_health health;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_op *op = open_op(&client, 0);
    if (op == NULL)
        return;
    CHECK(status_of(op, rc_get(op, "k", 1, 0)) == RC_ERR_UNAVAILABLE);
    CHECK(status_of(op, rc_set(op, "k", 1, &entry, "v", 1, -1, 0)) == RC_ERR_UNAVAILABLE);
    CHECK(status_of(op, rc_delete(op, "k", 1)) == RC_ERR_UNAVAILABLE);
    rc_get_health(client, &health);
    CHECK(health.ready == 0 && health.cause[0] != '\0');
    close_op(client, op);
}

/* A slot of a store in memory, and its client, both or none. */
static rc_op *open_memory(rc_client **client)
{
    static const char url[] = "memory://client-test";
    rc_refusal refusal = {0};
    rc_options options = {.url = url, .url_len = strlen(url), .near = 1};
    if (!CHECK(rc_open(&options, client, &refusal) == 0))
        return NULL;
    rc_op *op = rc_op_new(*client);
    if (!CHECK(op != NULL))
        rc_unref(*client, 0);
    return op;
}

enum { LARGE = 1 << 20, LARGE_BITS = 20, KEEP = 1 << 14, KEEP_BITS = 14 };
static const char large[LARGE];

static void gives_back_what_an_idle_slot_keeps(void)
{
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_op *op = open_memory(&client);
    if (op == NULL)
        return;
    const rc_result *result = rc_op_result(op);
    CHECK(rc_op_trim(op, KEEP) == 0 && result->room_bits == 0); /* never used */
    CHECK(status_of(op, rc_set(op, "k", 1, &entry, large, LARGE, -1, 0)) == 0);
    CHECK(status_of(op, rc_get(op, "k", 1, 0)) == 0);
    CHECK(result->len == LARGE && result->room_bits > LARGE_BITS);
    CHECK(rc_op_trim(op, 4 * LARGE) == 0 && result->room_bits > LARGE_BITS);
    CHECK(rc_op_trim(op, KEEP) == 0 && result->room_bits <= KEEP_BITS);
    CHECK(result->len == 0 && result->data == NULL);
    /* It is as good as new. */
    CHECK(status_of(op, rc_set(op, "k", 1, &entry, "v", 1, -1, 0)) == 0);
    CHECK(status_of(op, rc_get(op, "k", 1, 0)) == 0);
    CHECK(result->len == 1 && result->data[0] == 'v' && result->room_bits <= KEEP_BITS);
    close_op(client, op);
}

static void reads_the_key_that_prefix_and_key_are_together(void)
{
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_op *op = open_memory(&client);
    if (op == NULL)
        return;
    const rc_result *result = rc_op_result(op);
    CHECK(status_of(op, rc_set(op, "a:k", 3, &entry, "v", 1, -1, 0)) == 0);
    CHECK(status_of(op, rc_get_under(op, "a:", 2, "k", 1, 0)) == 0 && result->outcome == RC_HIT);
    CHECK(status_of(op, rc_get_under(op, "a:k", 3, NULL, 0, 0)) == 0 && result->outcome == RC_HIT);
    CHECK(status_of(op, rc_get_under(op, NULL, 0, "a:k", 3, 0)) == 0 && result->outcome == RC_HIT);
    CHECK(status_of(op, rc_get_under(op, "b:", 2, "k", 1, 0)) == 0 && result->outcome == RC_MISS);
    CHECK(rc_get_under(op, large, LARGE, "k", 1, 0) == RC_ERR_TOOLARGE);
    CHECK(rc_get_under(op, "a:", 2, large, LARGE, 0) == RC_ERR_TOOLARGE);
    close_op(client, op);
}

static void measures_a_batch_that_breaks_off(void)
{
    rc_client *client;
    rc_op *op = open_memory(&client);
    if (op == NULL)
        return;
    if (CHECK(rc_begin(op, 0) == 0 && rc_command_begin(op, 2) == 0 &&
              rc_argument(op, "ECHO", 4) == 0 && rc_argument(op, large, LARGE) == 0 &&
              rc_command_begin(op, 1) == 0)) {
        CHECK(rc_op_result(op)->room_bits >= LARGE_BITS);
        CHECK(rc_op_trim(op, KEEP) == 0 && rc_op_result(op)->room_bits <= KEEP_BITS);
        CHECK(rc_submit(op) == RC_ERR_ARGUMENT);
    }
    close_op(client, op);
}

static void starts_together_what_was_held(void)
{
    enum { HELD = 3 };
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_op *held[HELD], *op = open_memory(&client);
    if (op == NULL)
        return;
    for (int i = 0; i < HELD; i++) {
        held[i] = rc_op_new(client);
        if (!CHECK(held[i] != NULL))
            exit(1);
        rc_op_hold(held[i], 1);
    }
    CHECK(rc_set(held[0], "held", 4, &entry, "0", 1, -1, 0) == 0);
    CHECK(rc_set(held[1], "held", 4, &entry, "1", 1, -1, 0) == 0);
    CHECK(!rc_done(held[0]) && !rc_done(held[1]));
    CHECK(status_of(op, rc_get(op, "held", 4, 0)) == 0 && rc_op_result(op)->outcome == RC_MISS);
    rc_start_held(held, HELD); /* the third has nothing to do */
    CHECK(rc_wait(held[0]) == 0 && rc_wait(held[1]) == 0);
    CHECK(status_of(op, rc_get(op, "held", 4, 0)) == 0 && rc_op_result(op)->data[0] == '1');
    CHECK(status_of(held[0], rc_set(held[0], "held", 4, &entry, "2", 1, -1, 0)) == 0);
    CHECK(status_of(held[2], rc_delete(held[2], "held", 4)) == 0); /* held: its wait starts it */
    rc_op_hold(held[0], 1);
    rc_op_hold(held[0], 0);
    CHECK(rc_set(held[0], "held", 4, &entry, "3", 1, -1, 0) == 0 && rc_wait(held[0]) == 0);
    for (int i = 0; i < HELD; i++)
        rc_op_free(held[i]);
    close_op(client, op);
}

/* The end of a load that is never started: its lease is given back all the same. */
static void forgets_what_was_held_and_never_started(void)
{
    rc_client *client;
    rc_stats stats;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_load_options options = {0, 5000, 5000, 1000, ""};
    rc_op *op = open_memory(&client), *held = op != NULL ? rc_op_new(client) : NULL;
    if (!CHECK(held != NULL))
        exit(1);
    CHECK(status_of(held, rc_load(held, "never", 5, &options)) == 0);
    CHECK(rc_op_result(held)->outcome == RC_LOAD);
    rc_op_hold(held, 1);
    CHECK(rc_publish(held, &entry, "v", 1, -1, 0) == 0);
    rc_op_free(held);
    CHECK(status_of(op, rc_get(op, "never", 5, 0)) == 0 && rc_op_result(op)->outcome == RC_MISS);
    rc_get_stats(client, &stats);
    CHECK(stats.active_leases == 0);
    close_op(client, op);
}

static void keeps_what_a_running_slot_needs(void)
{
    rc_client *client = NULL;
    rc_refusal refusal = {0};
    rc_options options = {.url = URL, .url_len = strlen(URL), .driver = RC_DRIVER_HOST};
    if (!CHECK(rc_open(&options, &client, &refusal) == 0))
        return;
    rc_op *op = rc_op_new(client);
    if (CHECK(op != NULL)) {
        CHECK(rc_get(op, "k", 1, 0) == 0); /* nobody turns for it */
        CHECK(!rc_is_done(op) && rc_op_trim(op, 0) == RC_ERR_ARGUMENT);
        rc_op_free(op);
    }
    rc_unref(client, 0);
}

static void keeps_what_the_end_of_a_load_needs(void)
{
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_load_options load = {.lease_ttl_ms = 1000, .max_load_ms = 1000, .wait_timeout_ms = 1000};
    rc_op *op = open_memory(&client);
    if (op == NULL)
        return;
    const rc_result *result = rc_op_result(op);
    CHECK(status_of(op, rc_load(op, "load", 4, &load)) == 0 && result->outcome == RC_LOAD);
    CHECK(rc_op_trim(op, 0) == RC_ERR_ARGUMENT);
    CHECK(status_of(op, rc_publish(op, &entry, "v", 1, -1, 0)) == 0);
    CHECK(result->outcome == RC_STORED && rc_op_trim(op, 0) == 0);
    close_op(client, op);
}

static void a_batch_is_one_operation(void)
{
    rc_client *client;
    rc_op *op = open_op(&client, 0);
    if (op == NULL)
        return;
    int error = rc_begin(op, RC_RETRY);
    for (int i = 0; error == 0 && i < 100; i++) {
        error = rc_command_begin(op, 2);
        error = error != 0 ? error : rc_argument(op, "INCR", 4);
        error = error != 0 ? error : rc_argument_written(op, "counter", 7);
    }
    CHECK(status_of(op, error != 0 ? error : rc_submit(op)) == RC_ERR_UNAVAILABLE);
    close_op(client, op);
}

static void loads_without_redis_and_shares_it_here(void)
{
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    rc_load_options load = {RC_WANT_TTL, 1000, 5000, WAIT_MS, ""};
    rc_op *op = open_op(&client, 0);
    if (op == NULL)
        return;
    const rc_result *result = rc_op_result(op);
    CHECK(status_of(op, rc_load(op, "k", 1, &load)) == 0 && result->outcome == RC_LOAD &&
          result->flags == RC_DEGRADED);
    if (result->status == 0 && result->outcome == RC_LOAD)
        CHECK(status_of(op, rc_publish(op, &entry, "made", 4, 1000, 0)) == 0 &&
              result->outcome == RC_UNSTORED);
    CHECK(status_of(op, rc_load(op, "k", 1, &load)) == 0 && result->outcome == RC_HIT &&
          result->len == 4 && memcmp(result->data, "made", 4) == 0);
    close_op(client, op);
}

static void grants_no_lock_without_redis(void)
{
    rc_client *client;
    rc_lock_options options = {0, 1000, WAIT_MS, 0};
    rc_op *op = open_op(&client, 0);
    if (op == NULL)
        return;
    rc_lock *lock = rc_lock_new(client, "job", 3);
    if (CHECK(lock != NULL)) {
        CHECK(status_of(op, rc_lock_acquire(lock, op, &options)) < 0);
        CHECK(rc_lock_state(lock) == RC_LOCK_FREE && rc_lock_remaining(lock) == 0);
        rc_lock_free(lock);
    }
    close_op(client, op);
}

static void a_view_has_nothing_that_was_not_read(void)
{
    rc_client *client;
    char bytes[64];
    rc_near_value value = {.buffer = bytes, .capacity = sizeof bytes};
    rc_op *op = open_op(&client, 1);
    if (op == NULL)
        return;
    rc_view *view = rc_view_new(client, "app:", 4, "group", 5, 0, 0, 0);
    if (CHECK(view != NULL)) {
        CHECK(rc_view_get(view, "k", 1, 1000000, &value) == RC_NEAR_MISS);
        CHECK(status_of(op, rc_view_read(view, op, "k", 1, 0)) == RC_ERR_UNAVAILABLE);
        CHECK(status_of(op, rc_barrier(op)) == RC_ERR_UNAVAILABLE);
        CHECK(rc_view_get(view, "k", 1, 1000000, &value) == RC_NEAR_MISS);
        rc_view_free(view);
    }
    close_op(client, op);
}

static void put_near(rc_view *view, rc_op *op, const char *key, const char *value, size_t len)
{
    rc_entry entry = {.kind = RC_KIND_VALUE, .codec = 3};
    char name[32];
    snprintf(name, sizeof name, "app:%s", key);
    CHECK(status_of(op, rc_set(op, name, strlen(name), &entry, value, len, -1, 0)) == 0);
    CHECK(status_of(op, rc_view_read(view, op, key, strlen(key), 0)) == 0);
}

static bool found(const rc_near_many *many, int i, const char *value, size_t len)
{
    return many->found[i].what == (RC_NEAR_HIT | RC_KIND_VALUE << 8 | 3 << 16) &&
           many->found[i].len == (int32_t)len &&
           memcmp(many->bytes + many->found[i].at, value, len) == 0;
}

/* As many answers as have room at once; what never has is told apart, and what is not there. */
static void a_view_looks_many_keys_up(void)
{
    enum { HALF = RC_NEAR_MANY_BYTES / 2 + 1 };
    static const char *const some[] = {"a", "half1", "none", "half2", "b", "large", "a", "empty"};
    static rc_near_many many;
    char longest[2000] = "", names[RC_NEAR_MANY][8];
    rc_client *client;
    rc_op *op = open_memory(&client);
    rc_view *view = op != NULL ? rc_view_new(client, "app:", 4, "", 0, 0, 0, 0) : NULL;
    if (!CHECK(view != NULL))
        exit(1);
    put_near(view, op, "a", "A", 1);
    put_near(view, op, "b", "BB", 2);
    put_near(view, op, "empty", "", 0);
    put_near(view, op, "half1", large, HALF);
    put_near(view, op, "half2", large + 1, HALF);
    put_near(view, op, "large", large, RC_NEAR_MANY_BYTES + 1);
    for (uint32_t i = 0; i < 8; i++)
        many.keys[i] = some[i], many.key_lens[i] = (uint32_t)strlen(some[i]);
    many.keys[8] = longest, many.key_lens[8] = sizeof longest;
    CHECK(rc_view_get_many(view, &many, 0, 0, 60000000) == 0);
    CHECK(rc_view_get_many(view, &many, 0, 9, 60000000) == 3);
    CHECK(found(&many, 0, "A", 1) && found(&many, 1, large, HALF));
    CHECK(many.found[2].what == RC_NEAR_MISS);
    CHECK(rc_view_get_many(view, &many, 3, 9, 60000000) == 5);
    CHECK(found(&many, 3, large, HALF) && found(&many, 4, "BB", 2));
    CHECK(rc_view_get_many(view, &many, 5, 9, 60000000) == 9);
    CHECK(many.found[5].what == RC_NEAR_GROW && found(&many, 6, "A", 1));
    CHECK(found(&many, 7, "", 0) && many.found[8].what == RC_NEAR_MISS);
    CHECK(rc_view_get_many(view, &many, 6, 8, 0) == 8); /* nothing is that coherent */
    CHECK(many.found[6].what == RC_NEAR_STALE && many.found[7].what == RC_NEAR_STALE);
    /* As many as there can be, each its own. */
    for (int i = 0; i < RC_NEAR_MANY; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i);
        if (i % 3 != 0)
            put_near(view, op, names[i], names[i], strlen(names[i]));
        many.keys[i] = names[i], many.key_lens[i] = (uint32_t)strlen(names[i]);
    }
    CHECK(rc_view_get_many(view, &many, 0, RC_NEAR_MANY, 60000000) == RC_NEAR_MANY);
    for (int i = 0; i < RC_NEAR_MANY; i++)
        CHECK(i % 3 == 0 ? many.found[i].what == RC_NEAR_MISS
                         : found(&many, i, names[i], strlen(names[i])));
    rc_view_free(view);
    close_op(client, op);
}

/* One hit of 128 is counted once somebody has asked. Of a reader who comes round after 128 reads it
   is not always the same. */
static void a_view_tells_the_keys_that_are_hit_most(void)
{
    enum { KEYS = 64, ROUNDS = 8000 };
    static rc_hot_key hot[RC_HOT_KEYS];
    static rc_near_handle handles[KEYS + 1];
    rc_client *client;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    char bytes[64], name[8];
    rc_near_value value = {.buffer = bytes, .capacity = sizeof bytes};
    rc_op *op = open_memory(&client);
    rc_view *view = op != NULL ? rc_view_new(client, "app:", 4, "", 0, 0, 0, 0) : NULL;
    if (!CHECK(view != NULL))
        exit(1);
    CHECK(rc_view_hot(view, hot, RC_HOT_KEYS) == 0);
    for (int i = 1; i <= KEYS; i++) {
        size_t len = (size_t)snprintf(name, sizeof name, "app:k%d", i);
        if (!CHECK(status_of(op, rc_set(op, name, len, &entry, "v", 1, -1, 0)) == 0) ||
            !CHECK(status_of(op, rc_view_read(view, op, name + 4, len - 4, 0)) == 0) ||
            !CHECK(rc_view_get(view, name + 4, len - 4, 60000000, &value) == RC_NEAR_HIT))
            exit(1);
        handles[i] = value.handle;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 1; i <= KEYS; i++)
            CHECK(rc_view_check(view, handles, i, 60000000) == RC_VIEW_SOUND);
    }
    uint32_t count = rc_view_hot(view, hot, RC_HOT_KEYS), told = 0;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < count; i++) {
        hits += hot[i].hits;
        told += hot[i].key_len >= 2 && hot[i].key[0] == 'k' && hot[i].hits < 4 * ROUNDS;
        CHECK(i == 0 || hot[i].hits <= hot[i - 1].hits);
    }
    CHECK(count > KEYS / 2 && told == count);
    CHECK(hits > KEYS * ROUNDS / 4 && hits < KEYS * ROUNDS * 5 / 4); /* a minute may have ended */
    CHECK(rc_view_hot(view, hot, 3) == 3);
    rc_view_free(view);
    close_op(client, op);
}

static rc_near_handle handle_of(rc_view *view, rc_op *op, const char *key)
{
    char bytes[8];
    rc_near_value value = {.buffer = bytes, .capacity = sizeof bytes};
    put_near(view, op, key, "v", 1);
    if (!CHECK(rc_view_get(view, key, strlen(key), 60000000, &value) == RC_NEAR_HIT))
        exit(1);
    return value.handle;
}

static void hit_often(rc_view *view, rc_near_handle *handle, int hits)
{
    for (int i = 0; i < hits; i++)
        CHECK(rc_view_check(view, handle, 0, 60000000) == RC_VIEW_SOUND);
}

static uint64_t hits_told(rc_view *view, char key)
{
    static rc_hot_key hot[RC_HOT_KEYS];
    for (uint32_t i = 0, count = rc_view_hot(view, hot, RC_HOT_KEYS); i < count; i++)
        if (hot[i].key_len == 1 && hot[i].key[0] == key)
            return hot[i].hits;
    return 0;
}

/* Of one in 8192 it is known what was hit before anybody asked; the asker's own are counted well at
   once, those of others when their next one is due. Half may be gone where a minute ends. */
static void hits_are_counted_well_once_somebody_asks(void)
{
    enum { SELDOM = 8192, EARLY = 25 * SELDOM, LATE = 10 * RC_HOT_SAMPLE };
    rc_client *client;
    rc_op *op = open_memory(&client);
    rc_view *view = op != NULL ? rc_view_new(client, "app:", 4, "", 0, 0, 0, 0) : NULL;
    rc_view *other = op != NULL ? rc_view_new(client, "app:", 4, "", 0, 0, 0, 0) : NULL;
    if (!CHECK(view != NULL && other != NULL))
        exit(1);
    rc_near_handle early = handle_of(view, op, "a");
    rc_near_handle late = handle_of(view, op, "b");
    rc_near_handle others = handle_of(view, op, "c");
    hit_often(view, &early, EARLY);
    uint64_t told = hits_told(view, 'a');
    CHECK(told >= EARLY / 4 && told <= EARLY + SELDOM);
    hit_often(view, &late, LATE);
    told = hits_told(view, 'b');
    CHECK(told >= LATE / 8 && told <= LATE + RC_HOT_SAMPLE);
    hit_often(other, &early, SELDOM);
    hit_often(other, &others, LATE);
    told = hits_told(view, 'c');
    CHECK(told >= LATE / 8 && told <= LATE + RC_HOT_SAMPLE);
    rc_view_free(other);
    rc_view_free(view);
    close_op(client, op);
}

static void closing_ends_what_waits(void)
{
    rc_client *client;
    rc_op *op = open_op(&client, 0);
    if (op == NULL)
        return;
    rc_op_timeout(op, 10000);
    int error = rc_get(op, "k", 1, 0);
    CHECK(rc_close(client, 0) == 0);
    CHECK(status_of(op, error) == RC_ERR_CLOSED);
    CHECK(rc_get(op, "k", 1, 0) == RC_ERR_CLOSED);
    close_op(client, op);
}

int main(void)
{
    TEST(opens_one_client_for_equal_options);
    TEST(says_that_nobody_listens);
    TEST(gives_back_what_an_idle_slot_keeps);
    TEST(reads_the_key_that_prefix_and_key_are_together);
    TEST(measures_a_batch_that_breaks_off);
    TEST(starts_together_what_was_held);
    TEST(forgets_what_was_held_and_never_started);
    TEST(keeps_what_a_running_slot_needs);
    TEST(keeps_what_the_end_of_a_load_needs);
    TEST(a_batch_is_one_operation);
    TEST(loads_without_redis_and_shares_it_here);
    TEST(grants_no_lock_without_redis);
    TEST(a_view_has_nothing_that_was_not_read);
    TEST(a_view_looks_many_keys_up);
    TEST(a_view_tells_the_keys_that_are_hit_most);
    TEST(hits_are_counted_well_once_somebody_asks);
    TEST(closing_ends_what_waits);
    return test_result();
}
