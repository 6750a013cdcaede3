/* Bursts over an engine with an embedded store. */
#include "engine/burst.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "store/store.h"
#include "test/bed.h"
#include "test/test.h"

enum { OPS = 2000, TIMEOUT_MS = 500 };

static struct bed bed;
static struct rc_store *store;
static struct rc_store_conn *conns[RC_NODE_LINKS];
static struct rc_op ops[OPS];
static bool is_mute;      /* the server reads nothing, like a stopped process */
static bool is_mute_soon; /* from its next answer on */
static const char *says;  /* instead of its next answer; NULL: that */

/* ---- the bed --------------------------------------------------------------------------------- */

static void hang_up(const struct rc_link *link)
{
    if (conns[link->number] != NULL)
        rc_store_disconnect(conns[link->number]);
    conns[link->number] = NULL;
}

static bool open_or_close(struct rc_link *link)
{
    if (!link->wants_close && !link->wants_open)
        return false;
    hang_up(link);
    if (!link->wants_close) {
        bed_must(rc_store_connect(store, &conns[link->number]));
        rc_link_opened(link);
    }
    link->wants_close = link->wants_open = false;
    return true;
}

static bool move(struct rc_link *link)
{
    bool moved = open_or_close(link);
    struct rc_store_conn *conn = conns[link->number];
    size_t len = rc_buf_len(&link->output);
    if (conn == NULL || is_mute)
        return moved;
    if (len > 0) {
        bed_must(rc_store_feed(conn, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    if (says != NULL && rc_buf_len(&conn->output) > 0) {
        rc_buf_clear(&conn->output);
        bed_must(rc_buf_append(&conn->output, says, strlen(says)));
        says = NULL;
    }
    if (is_mute_soon && rc_buf_len(&conn->output) > 0) {
        is_mute = true;
        is_mute_soon = false;
    }
    return bed_deliver(link, &conn->output) || moved;
}

static void submit(int at)
{
    bed_submit(&bed, &ops[at]);
}

static void name(int at, enum rc_op_kind kind, const char *key)
{
    struct rc_op *op = &ops[at];
    if (op->run.is_running) /* for want of memory the last one waits still */
        exit(1);
    rc_op_reset(op, kind);
    op->ask.expect = 1;
    op->ask.timeout_ms = 0;
    op->ask.tag = (uint64_t)at + 1;
    rc_buf_clear(&op->ask.key);
    bed_must(rc_buf_append(&op->ask.key, key, strlen(key)));
}

static void get(int at, const char *key)
{
    name(at, RC_OP_GET, key);
    submit(at);
}

static void write_request(int at, const char *verb, const char *key, const char *value)
{
    struct rc_buf *out = &ops[at].ask.request;
    bed_must(rc_command_head(out, value != NULL ? 3 : 2));
    bed_must(rc_command_text(out, verb));
    bed_must(rc_command_text(out, key));
    if (value != NULL)
        bed_must(rc_command_text(out, value));
}

static void set(int at, const char *key, const char *value)
{
    name(at, RC_OP_SET, key);
    ops[at].ask.is_plain = true;
    write_request(at, "SET", key, value);
    submit(at);
}

static void delete (int at, const char *key)
{
    name(at, RC_OP_DELETE, key);
    write_request(at, "UNLINK", key, NULL);
    submit(at);
}

static void command(int at, const char *key, const char *value)
{
    name(at, RC_OP_COMMAND, "");
    write_request(at, "SET", key, value);
    submit(at);
}

static void open_burst(void)
{
    bed.finished = 0;
    rc_engine_open_burst(&bed.engine);
}

/* And what it has sent is answered, if the server hears it. */
static void end_burst(void)
{
    rc_engine_close_burst(&bed.engine);
    bed_run(&bed);
}

static uint64_t commands(void)
{
    struct rc_store_stats stats;
    rc_store_read_stats(store, &stats);
    return stats.commands;
}

static const rc_stats *stats(void)
{
    return &bed.engine.context.stats;
}

static bool has(int at, const char *value)
{
    const rc_result *result = &ops[at].result;
    return !ops[at].run.is_running && result->status == 0 && result->outcome == RC_HIT &&
           result->len == strlen(value) && memcmp(result->data, value, result->len) == 0;
}

static bool ended(int at, int status)
{
    return !ops[at].run.is_running && ops[at].result.status == status;
}

static void begin(void)
{
    rc_options options = bed_options();
    const struct rc_store_options store_options = {.seed = {{1, 2}}};
    options.command_timeout_ms = TIMEOUT_MS;
    is_mute = is_mute_soon = false;
    says = NULL;
    bed_must(rc_store_new(&store, &store_options));
    bed_init(&bed, move, "redis://127.0.0.1:6379", &options, NULL);
    for (int i = 0; i < OPS; i++)
        bed_must(rc_op_init(&ops[i]));
    set(0, "key", "old");
    set(1, "other", "one");
    bed_run(&bed);
}

static void end(void)
{
    is_mute = false;
    bed_close(&bed);
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        hang_up(link);
    }
    bed_deinit(&bed);
    for (int i = 0; i < OPS; i++)
        rc_op_deinit(&ops[i]);
    rc_store_free(store);
}

/* ---- what is one request --------------------------------------------------------------------- */

static void equal_reads_are_one_request(void)
{
    begin();
    uint64_t before = commands(), requests = stats()->requests, shared = stats()->shared;
    open_burst();
    get(0, "key");
    get(1, "other");
    get(2, "key");
    get(3, "key");
    get(4, "nothing");
    get(5, "nothing");
    CHECK(stats()->in_flight == 3);
    end_burst();
    CHECK(has(0, "old") && has(1, "one") && has(2, "old") && has(3, "old"));
    CHECK(ended(4, 0) && ops[4].result.outcome == RC_MISS);
    CHECK(ended(5, 0) && ops[5].result.outcome == RC_MISS);
    CHECK(ops[0].result.data != ops[2].result.data && ops[2].result.data != ops[3].result.data);
    CHECK(bed.finished == 6 && commands() == before + 3 && stats()->requests == requests + 3);
    CHECK(stats()->shared == shared + 3 && stats()->in_flight == 0);
    end();
}

static void what_asks_something_else_goes_by_itself(void)
{
    begin();
    open_burst();
    get(0, "key");
    name(1, RC_OP_GET, "key");
    ops[1].ask.expect = 2; /* with its time to live */
    submit(1);
    name(2, RC_OP_GET, "key");
    ops[2].ask.timeout_ms = 20;
    submit(2);
    name(3, RC_OP_GET, "key");
    ops[3].ask.flags = RC_REPLICA;
    submit(3);
    name(4, RC_OP_GET, "key");
    ops[4].ask.flags = RC_FRESH;
    submit(4);
    name(5, RC_OP_GET, "key");
    ops[5].ask.near = true;
    submit(5);
    end_burst();
    for (int i = 0; i < 6; i++)
        CHECK(has(i, "old"));
    CHECK(ops[0].result.ttl_ms == -2 && ops[1].result.ttl_ms == -1);
    CHECK(stats()->shared == 0);
    end();
}

static void nothing_is_shared_between_bursts(void)
{
    begin();
    uint64_t before = commands();
    get(0, "key");
    get(1, "key");
    bed_run(&bed);
    CHECK(has(0, "old") && has(1, "old") && commands() == before + 2);
    is_mute = true;
    open_burst();
    get(0, "key");
    end_burst();
    open_burst();
    get(1, "key");
    end_burst();
    is_mute = false;
    bed_run(&bed);
    CHECK(has(0, "old") && has(1, "old") && commands() == before + 4);
    end();
}

static void all_of_a_large_burst_get_their_own_values(void)
{
    static char keys[OPS][24];
    begin();
    for (int i = 0; i < OPS; i += 2) {
        snprintf(keys[i], sizeof keys[i], "one:%d:of:them", i);
        snprintf(keys[i + 1], sizeof keys[i + 1], "%d", i);
        set(i, keys[i], keys[i]);
        set(i + 1, keys[i + 1], keys[i + 1]);
    }
    bed_run(&bed);
    uint64_t before = commands(), shared = stats()->shared;
    open_burst();
    for (int i = 0; i < OPS; i++)
        get(i, keys[i % (OPS / 4)]);
    end_burst();
    for (int i = 0; i < OPS; i++)
        CHECK(has(i, keys[i % (OPS / 4)]));
    /* Of 500 keys in 1,024 places few find no room. */
    CHECK(commands() - before + stats()->shared - shared == OPS);
    CHECK(commands() - before < OPS / 2);
    end();
}

/* Two equal reads at once: how many commands that took. */
static uint64_t commands_of_a_pair(void)
{
    uint64_t before = commands();
    open_burst();
    get(0, "key");
    get(1, "key");
    end_burst();
    CHECK(has(0, "old") && has(1, "old"));
    return commands() - before;
}

static void hardly_looks_where_hardly_any_are_equal(void)
{
    char key[16];
    begin();
    open_burst();
    for (int i = 0; i < RC_BURST_JUDGED; i++) {
        snprintf(key, sizeof key, "%d", i);
        get(i, key);
    }
    end_burst();
    for (int i = 0; i < RC_BURST_REST; i++)
        CHECK(commands_of_a_pair() == 2);
    for (int i = 0; i < RC_BURST_JUDGED; i++) /* and never rests while they are */
        CHECK(commands_of_a_pair() == 1);
    end();
}

static void the_number_of_a_burst_may_begin_anew(void)
{
    begin();
    bed.engine.calls.burst.part = UINT32_MAX - 1;
    for (int i = 0; i < 4; i++) {
        uint64_t before = commands();
        open_burst();
        get(0, "key");
        get(1, "key");
        end_burst();
        CHECK(has(0, "old") && has(1, "old") && commands() == before + 1);
    }
    end();
}

/* ---- the order with writes ------------------------------------------------------------------- */

static void a_read_behind_a_write_sees_it(void)
{
    begin();
    uint64_t before = commands();
    open_burst();
    get(0, "key");
    get(1, "other");
    set(2, "key", "new");
    get(3, "key");
    get(4, "key");
    get(5, "other"); /* nobody has written that one */
    end_burst();
    CHECK(has(0, "old") && ended(2, 0) && has(3, "new") && has(4, "new"));
    CHECK(has(1, "one") && has(5, "one") && commands() == before + 4);
    end();
}

static void a_read_behind_a_delete_misses(void)
{
    begin();
    open_burst();
    get(0, "key");
    delete (1, "key");
    get(2, "key");
    set(3, "key", "new");
    get(4, "key");
    end_burst();
    CHECK(has(0, "old") && ended(2, 0) && ops[2].result.outcome == RC_MISS && has(4, "new"));
    end();
}

static void a_read_behind_any_command_goes_by_itself(void)
{
    begin();
    uint64_t before = commands();
    open_burst();
    get(0, "key");
    get(1, "other");
    command(2, "key", "new");
    get(3, "key");
    get(4, "other");
    end_burst();
    CHECK(has(0, "old") && has(3, "new") && has(1, "one") && has(4, "one"));
    CHECK(commands() == before + 5);
    end();
}

/* ---- those who go, and those who stay -------------------------------------------------------- */

static void they_time_out_together(void)
{
    begin();
    is_mute = true;
    open_burst();
    get(0, "key");
    get(1, "key");
    name(2, RC_OP_GET, "key");
    ops[2].ask.timeout_ms = 20;
    submit(2);
    name(3, RC_OP_GET, "key");
    ops[3].ask.timeout_ms = 2 * TIMEOUT_MS;
    submit(3);
    end_burst();
    bed_pass(&bed, 21);
    CHECK(bed.finished == 1 && ended(2, RC_ERR_TIMEOUT));
    bed_pass(&bed, TIMEOUT_MS);
    CHECK(bed.finished == 3 && ended(0, RC_ERR_TIMEOUT) && ended(1, RC_ERR_TIMEOUT));
    CHECK(ops[3].run.is_running);
    is_mute = false;
    bed_run(&bed);
    CHECK(has(3, "old"));
    end();
}

/* The one that leads, one in the middle, and the last. */
static void others_go_on_where_one_is_cancelled(void)
{
    for (int who = 0; who < 3; who++) {
        begin();
        uint64_t before = commands();
        is_mute = true;
        open_burst();
        for (int i = 0; i < 3; i++)
            get(i, "key");
        end_burst();
        CHECK(rc_engine_cancel(&bed.engine, (uint64_t)who + 1) == 1);
        bed_run(&bed);
        CHECK(bed.finished == 1 && ended(who, RC_ERR_CANCELLED) && stats()->in_flight == 1);
        get(who, "other"); /* its key is another one by now */
        is_mute = false;
        bed_run(&bed);
        for (int i = 0; i < 3; i++)
            CHECK(has(i, i == who ? "one" : "old"));
        CHECK(commands() == before + 2);
        end();
    }
}

/* Its request is not written yet, and its key is read when it is. */
static void others_go_on_where_one_goes_before_it_is_sent(void)
{
    for (int who = 0; who < 2; who++) {
        begin();
        RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
            hang_up(link);
            rc_link_lost(link, "reset");
        }
        open_burst();
        get(0, "key");
        get(1, "key");
        rc_engine_close_burst(&bed.engine);
        rc_engine_drop(&bed.engine, &ops[who]);
        name(who, RC_OP_GET, "another key, and a longer one");
        bed_pass(&bed, TIMEOUT_MS);
        CHECK(has(1 - who, "old"));
        end();
    }
}

static void a_read_is_forgotten_with_the_last_that_waits(void)
{
    begin();
    is_mute = true;
    open_burst();
    get(0, "key");
    get(1, "key");
    end_burst();
    CHECK(rc_engine_cancel(&bed.engine, 1) == 1 && rc_engine_cancel(&bed.engine, 2) == 1);
    bed_run(&bed);
    CHECK(ended(0, RC_ERR_CANCELLED) && ended(1, RC_ERR_CANCELLED));
    is_mute = false;
    bed_run(&bed); /* its answer belongs to nobody */
    CHECK(stats()->in_flight == 0);
    get(0, "other");
    bed_run(&bed);
    CHECK(has(0, "one"));
    end();
}

/* A slot that is freed is no place to join at any more. */
static void what_leaves_within_a_burst_is_not_joined(void)
{
    struct rc_op *gone = malloc(sizeof *gone);
    begin();
    bed_must(gone != NULL ? rc_op_init(gone) : -1);
    rc_op_reset(gone, RC_OP_GET);
    gone->ask.expect = 1;
    bed_must(rc_buf_append(&gone->ask.key, "key", 3));
    open_burst();
    bed_submit(&bed, gone);
    rc_engine_drop(&bed.engine, gone);
    rc_op_deinit(gone);
    free(gone);
    get(1, "key");
    end_burst();
    CHECK(has(1, "old"));
    end();
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void an_error_is_told_to_all(void)
{
    begin();
    says = "-WRONGTYPE it is a list\r\n";
    open_burst();
    for (int i = 0; i < 3; i++)
        get(i, "key");
    end_burst();
    for (int i = 0; i < 3; i++) {
        const rc_result *result = &ops[i].result;
        CHECK(ended(i, RC_ERR_REDIS) && result->len > 9 &&
              memcmp(result->data, "WRONGTYPE", 9) == 0);
    }
    end();
}

static void a_connection_that_breaks_keeps_them_together(void)
{
    begin();
    is_mute = true;
    open_burst();
    get(0, "key");
    get(1, "key");
    end_burst();
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        hang_up(link);
        rc_link_lost(link, "reset");
    }
    uint64_t retries = stats()->retries;
    is_mute = false;
    bed_pass(&bed, TIMEOUT_MS);
    CHECK(has(0, "old") && has(1, "old") && retries == 1 && stats()->in_flight == 0);
    end();
}

static void a_client_that_is_closed_ends_them_all(void)
{
    begin();
    is_mute = true;
    open_burst();
    for (int i = 0; i < 3; i++)
        get(i, "key");
    end_burst();
    end();
    for (int i = 0; i < 3; i++)
        CHECK(ops[i].result.status == RC_ERR_CLOSED);
}

/* ---- large answers --------------------------------------------------------------------------- */

enum { LARGE = 16 * 1024 };

static void set_large(size_t len)
{
    char *value = malloc(len + 1);
    if (value == NULL)
        exit(1);
    memset(value, 'v', len);
    value[len] = '\0';
    set(0, "key", value);
    bed_run(&bed);
    free(value);
}

static bool is_large(int at, size_t len)
{
    const rc_result *result = &ops[at].result;
    return ended(at, 0) && result->outcome == RC_HIT && result->len == len &&
           result->data[0] == 'v' && result->data[len - 1] == 'v';
}

static void a_large_answer_is_not_copied(void)
{
    for (size_t len = LARGE; len <= LARGE + 1; len++) {
        begin();
        set_large(len);
        uint64_t before = commands(), others = len > LARGE ? 2 : 0;
        open_burst();
        for (int i = 1; i < 4; i++)
            get(i, "key");
        CHECK(stats()->in_flight == 1);
        end_burst();
        for (int i = 1; i < 4; i++)
            CHECK(is_large(i, len));
        CHECK(commands() == before + 1 + others && stats()->shared == 2 - others);
        CHECK(stats()->in_flight == 0);
        end();
    }
}

/* Four that share; the server has answered the one request, and hears no other. */
static void leave_them_alone(void)
{
    set_large(LARGE + 1);
    is_mute = true;
    open_burst();
    for (int i = 1; i < 5; i++)
        get(i, "key");
    end_burst();
    bed_pass(&bed, TIMEOUT_MS - 100);
    is_mute = false;
    is_mute_soon = true;
    bed_run(&bed);
    CHECK(is_large(1, LARGE + 1) && stats()->in_flight == 3);
}

static void who_asks_for_itself_has_the_time_that_is_left(void)
{
    begin();
    leave_them_alone();
    CHECK(ops[2].run.is_running && ops[3].run.is_running && ops[4].run.is_running);
    CHECK(rc_engine_cancel(&bed.engine, 3 + 1) == 1 && ended(3, RC_ERR_CANCELLED));
    bed_pass(&bed, 99);
    CHECK(ops[2].run.is_running && ops[4].run.is_running);
    bed_pass(&bed, 1);
    CHECK(ended(2, RC_ERR_TIMEOUT) && ended(4, RC_ERR_TIMEOUT));
    end();
}

int main(void)
{
    TEST(equal_reads_are_one_request);
    TEST(what_asks_something_else_goes_by_itself);
    TEST(nothing_is_shared_between_bursts);
    TEST(all_of_a_large_burst_get_their_own_values);
    TEST(hardly_looks_where_hardly_any_are_equal);
    TEST(the_number_of_a_burst_may_begin_anew);
    TEST(a_read_behind_a_write_sees_it);
    TEST(a_read_behind_a_delete_misses);
    TEST(a_read_behind_any_command_goes_by_itself);
    TEST(they_time_out_together);
    TEST(others_go_on_where_one_is_cancelled);
    TEST(others_go_on_where_one_goes_before_it_is_sent);
    TEST(a_read_is_forgotten_with_the_last_that_waits);
    TEST(what_leaves_within_a_burst_is_not_joined);
    TEST(an_error_is_told_to_all);
    TEST(a_connection_that_breaks_keeps_them_together);
    TEST(a_client_that_is_closed_ends_them_all);
    TEST(a_large_answer_is_not_copied);
    TEST(who_asks_for_itself_has_the_time_that_is_left);
    return test_result();
}
