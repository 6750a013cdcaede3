/* Calls over an engine of several servers, each an embedded store. */
#include "engine/call.h"

#include <stdlib.h>
#include <string.h>

#include "base/slot.h"
#include "engine/command.h"
#include "engine/script.h"
#include "store/store.h"
#include "test/bed.h"
#include "test/test.h"

enum { SERVERS = 3, CONNS = SERVERS * RC_NODE_LINKS, TIMEOUT_MS = 500 };

struct server {
    struct rc_store *store;
    bool refuses; /* no link can connect */
    bool mute;    /* reads nothing, like a stopped process */
    bool deaf;    /* does what it is told, but its answers do not arrive */
};

static struct bed bed;
static struct server servers[SERVERS];
static struct rc_store_conn *conns[CONNS];
static struct rc_op op;

/* ---- the bed --------------------------------------------------------------------------------- */

static struct server *server_of(const struct rc_link *link)
{
    return &servers[link->number / RC_NODE_LINKS];
}

static void hang_up(const struct rc_link *link)
{
    if (conns[link->number] != NULL)
        rc_store_disconnect(conns[link->number]);
    conns[link->number] = NULL;
}

static bool open_or_close(struct rc_link *link)
{
    struct server *server = server_of(link);
    if (link->wants_close) {
        link->wants_close = false;
        hang_up(link);
        return true;
    }
    if (!link->wants_open)
        return false;
    link->wants_open = false;
    hang_up(link);
    if (server->refuses) {
        rc_link_lost(link, "connection refused");
    } else {
        bed_must(rc_store_connect(server->store, &conns[link->number]));
        rc_link_opened(link);
    }
    return true;
}

static bool move(struct rc_link *link)
{
    const struct server *server = server_of(link);
    bool moved = open_or_close(link);
    struct rc_store_conn *conn = conns[link->number];
    size_t len = rc_buf_len(&link->output);
    if (conn == NULL || server->mute)
        return moved;
    if (len > 0) {
        bed_must(rc_store_feed(conn, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    return (!server->deaf && bed_deliver(link, &conn->output)) || moved;
}

/* The slots of one server are every third: a key's server is its slot's remainder. */
static void begin(int count)
{
    rc_options options = bed_options();
    const struct rc_store_options store_options = {.seed = {{1, 2}}};
    options.command_timeout_ms = TIMEOUT_MS;
    memset(servers, 0, sizeof servers);
    bed_init(&bed, move, "redis://127.0.0.1:6379", &options, NULL);
    const struct rc_address *address = &bed.engine.topology.node.address;
    for (int i = 0; i < count; i++) {
        bed_must(rc_store_new(&servers[i].store, &store_options));
        if (i > 0)
            bed_must(rc_topology_add_node(&bed.engine.topology, address));
    }
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT && count > 1; slot++)
        rc_topology_assign(&bed.engine.topology, (uint16_t)slot, (uint16_t)slot, (int)slot % count);
    bed_must(rc_op_init(&op));
}

static void end(void)
{
    bed_close(&bed);
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        hang_up(link);
    }
    bed_deinit(&bed);
    rc_op_deinit(&op);
    for (int i = 0; i < SERVERS && servers[i].store != NULL; i++)
        rc_store_free(servers[i].store);
}

static int server_number(const char *key)
{
    return rc_slot(key, strlen(key)) % SERVERS;
}

/* A key of that server: there are others, by their number. */
static const char *key_of(int server, int number)
{
    static char names[8][16];
    static int at;
    char *name = names[at++ % 8];
    for (int i = 0, found = 0;; i++) {
        snprintf(name, sizeof names[0], "k%d", i);
        if (server_number(name) == server && found++ == number)
            return name;
    }
}

static void begin_op(enum rc_op_kind kind)
{
    if (op.run.is_running) /* for want of memory the last one waits still */
        exit(1);
    rc_op_reset(&op, kind);
    bed.finished = 0;
}

static void begin_call(uint32_t flags)
{
    begin_op(RC_OP_COMMAND);
    op.ask.flags = flags;
}

/* One more command. */
#define ASK(...) ask((const char *const[]){__VA_ARGS__, NULL})
static void ask(const char *const *words)
{
    uint32_t count = 0;
    while (words[count] != NULL)
        count++;
    op.ask.expect++;
    bed_must(rc_command_head(&op.ask.request, count));
    for (uint32_t i = 0; i < count; i++)
        bed_must(rc_command_text(&op.ask.request, words[i]));
}

static void ask_script(int script, const char *key, const char *argument)
{
    op.ask.expect++;
    op.ask.script = (int16_t)script;
    bed_must(rc_script_begin(&op.ask.request, script, 1, 1));
    bed_must(rc_command_text(&op.ask.request, key));
    bed_must(rc_command_text(&op.ask.request, argument));
}

static void submit(void)
{
    bed_submit(&bed, &op);
}

static void call(void)
{
    submit();
    bed_run(&bed);
}

static bool ended(int status)
{
    if (bed.finished != 1 || op.result.status != status)
        fprintf(stderr, "finished %d times, status %d\n", bed.finished, op.result.status);
    return bed.finished == 1 && op.result.status == status;
}

/* Of the answer; one without a type where there is none. */
static const rc_node *node(uint32_t at)
{
    static const rc_node none;
    return at < op.reply.count ? &op.reply.nodes[at] : &none;
}

static bool node_is(uint32_t at, char type, const char *text)
{
    return node(at)->type == type && node(at)->len == strlen(text) &&
           (node(at)->len == 0 || memcmp(node(at)->str, text, node(at)->len) == 0);
}

static bool node_counts(uint32_t at, int64_t number)
{
    return node(at)->type == ':' && node(at)->integer == number;
}

static bool node_failed(uint32_t at, int status)
{
    return node(at)->type == '-' && node(at)->integer == status;
}

static uint64_t commands_of(int server)
{
    struct rc_store_stats stats;
    rc_store_read_stats(servers[server].store, &stats);
    return stats.commands;
}

static void write_three(void)
{
    begin_call(0);
    ASK("SET", key_of(0, 0), "zero");
    ASK("SET", key_of(1, 0), "one");
    ASK("SET", key_of(2, 0), "two");
    call();
    CHECK(ended(0) && op.result.nodes == 3);
}

/* ---- several servers ------------------------------------------------------------------------- */

static void a_call_goes_to_the_servers_of_its_keys(void)
{
    begin(3);
    write_three();
    uint64_t before[] = {commands_of(0), commands_of(1), commands_of(2)};
    uint64_t requests = bed.engine.context.stats.requests;
    begin_call(RC_RETRY);
    ASK("MGET", key_of(2, 0), key_of(0, 0), key_of(2, 1), key_of(1, 0));
    ASK("EXISTS", key_of(0, 0), key_of(1, 0), key_of(1, 1));
    call();
    CHECK(ended(0) && op.result.nodes == 6);
    CHECK(node(0)->type == '*' && node(0)->count == 4);
    CHECK(node_is(1, '$', "two") && node_is(2, '$', "zero") && node(3)->type == '_' &&
          node_is(4, '$', "one"));
    CHECK(node_counts(5, 2));
    /* Keys of one server are of many slots: a command each, in one write. */
    CHECK(commands_of(0) == before[0] + 2 && commands_of(1) == before[1] + 3 &&
          commands_of(2) == before[2] + 2);
    CHECK(bed.engine.context.stats.requests == requests + 7);
    end();
}

static void keep_key(const char *key)
{
    rc_buf_clear(&op.ask.key);
    bed_must(rc_buf_append(&op.ask.key, key, strlen(key)));
}

static void reads_writes_and_deletes_go_to_the_server_of_their_key(void)
{
    begin(3);
    write_three();
    for (int server = 0; server < 3; server++) {
        uint64_t before = commands_of(server);
        begin_op(RC_OP_GET);
        keep_key(key_of(server, 0));
        op.ask.expect = 2;
        call();
        CHECK(ended(0) && op.result.outcome == RC_HIT && op.result.ttl_ms == -1);
        begin_op(RC_OP_SET);
        keep_key(key_of(server, 1));
        ASK("SET", key_of(server, 1), "v");
        call();
        CHECK(ended(0));
        begin_op(RC_OP_DELETE);
        keep_key(key_of(server, 1));
        ASK("UNLINK", key_of(server, 1));
        call();
        CHECK(ended(0) && op.result.number == 1 && commands_of(server) == before + 4);
    }
    end();
}

static void a_delete_of_many_keys_counts_those_of_all_servers(void)
{
    begin(3);
    write_three();
    begin_op(RC_OP_DELETE);
    ASK("UNLINK", key_of(0, 0), key_of(1, 0), key_of(1, 1), key_of(2, 0));
    call();
    CHECK(ended(0) && op.result.number == 3 && op.result.nodes == 1);
    write_three();
    servers[1].refuses = true;
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        if (server_of(link) == &servers[1] && conns[link->number] != NULL) {
            hang_up(link);
            rc_link_lost(link, "reset");
        }
    }
    begin_op(RC_OP_DELETE);
    ASK("UNLINK", key_of(0, 0), key_of(1, 0), key_of(2, 0));
    call();
    bed_pass(&bed, TIMEOUT_MS + 1);
    CHECK(ended(RC_ERR_UNAVAILABLE) && op.result.len > 0);
    end();
}

static void a_server_that_is_away_fails_its_own_keys_alone(void)
{
    begin(3);
    servers[1].refuses = true;
    begin_call(RC_RETRY);
    ASK("SET", key_of(0, 0), "zero");
    ASK("SET", key_of(1, 0), "one");
    ASK("MGET", key_of(1, 0), key_of(0, 0));
    call();
    bed_pass(&bed, TIMEOUT_MS + 1);
    CHECK(ended(0) && op.result.nodes == 5);
    CHECK(node_is(0, '+', "OK") && node_failed(1, RC_ERR_UNAVAILABLE) &&
          node_is(1, '-', "connection refused"));
    CHECK(node(2)->count == 2 && node_failed(3, RC_ERR_UNAVAILABLE) && node_is(4, '$', "zero"));
    end();
}

static void what_may_have_been_done_is_said_of_its_part_alone(void)
{
    begin(3);
    write_three();
    servers[2].deaf = true;
    begin_call(0);
    ASK("INCR", key_of(0, 1));
    ASK("INCR", key_of(2, 1));
    call();
    CHECK(bed.finished == 0);
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        if (server_of(link) == &servers[2] && conns[link->number] != NULL) {
            hang_up(link);
            rc_link_lost(link, "reset");
        }
    }
    bed_run(&bed);
    CHECK(ended(0) && node_failed(1, RC_ERR_UNKNOWN));
    CHECK(node_counts(0, 1));
    end();
}

static void a_call_fails_where_all_its_servers_do(void)
{
    begin(3);
    write_three();
    servers[0].mute = servers[1].mute = true;
    begin_call(RC_RETRY);
    ASK("GET", key_of(0, 0));
    ASK("GET", key_of(1, 0));
    call();
    bed_pass(&bed, TIMEOUT_MS + 1);
    CHECK(ended(RC_ERR_TIMEOUT) && op.result.nodes == 0);
    end();
}

static void a_call_that_is_cancelled_takes_none_of_its_answers(void)
{
    begin(3);
    write_three();
    servers[1].mute = true;
    begin_call(RC_RETRY);
    op.ask.tag = 7;
    ASK("GET", key_of(0, 0));
    ASK("GET", key_of(1, 0));
    call();
    CHECK(bed.finished == 0 && rc_engine_cancel(&bed.engine, 7) == 1);
    bed_run(&bed);
    CHECK(ended(RC_ERR_CANCELLED));
    servers[1].mute = false;
    bed_run(&bed);
    op.ask.tag = 0;
    begin_call(RC_RETRY);
    ASK("GET", key_of(1, 0));
    ASK("GET", key_of(0, 0));
    call();
    CHECK(ended(0) && node_is(0, '$', "one") && node_is(1, '$', "zero"));
    end();
}

static void a_client_that_is_closed_ends_its_calls(void)
{
    begin(3);
    write_three();
    servers[0].mute = servers[1].mute = true;
    begin_call(0);
    ASK("GET", key_of(0, 0));
    ASK("GET", key_of(1, 0));
    call();
    CHECK(bed.finished == 0);
    end();
    CHECK(ended(RC_ERR_CLOSED));
}

/* ---- scripts --------------------------------------------------------------------------------- */

/* Deletes keys that hold its argument, and counts them: the store knows it. */
static const int SCRIPT = RC_SCRIPT_RELEASE;

static void forget_scripts(void)
{
    begin_call(0);
    ASK("SCRIPT", "FLUSH");
    call();
    CHECK(ended(0) && node_is(0, '+', "OK"));
}

static void a_script_is_one_command_of_a_batch(void)
{
    begin(1);
    for (int round = 0; round < 2; round++) {
        uint64_t noscript = bed.engine.context.stats.noscript;
        begin_call(0);
        ASK("SET", "a", "x");
        ask_script(SCRIPT, "a", "x");
        ASK("INCR", "n");
        ask_script(SCRIPT, "a", "x");
        call();
        CHECK(ended(0) && op.result.nodes == 4 && node_is(0, '+', "OK"));
        CHECK(node_counts(1, 1) && node_counts(3, 0));
        CHECK(node_counts(2, round + 1));
        CHECK(bed.engine.context.stats.noscript == noscript + (round == 0 ? 2 : 0));
    }
    end();
}

static void a_forgotten_script_runs_behind_its_batch(void)
{
    begin(1);
    begin_call(0);
    ASK("SET", "a", "x");
    ask_script(SCRIPT, "a", "x");
    ASK("EXISTS", "a");
    call();
    CHECK(ended(0) && node_counts(1, 1) && node_counts(2, 1));
    begin_call(0);
    ASK("SET", "a", "x");
    ask_script(SCRIPT, "a", "x");
    ASK("EXISTS", "a");
    call();
    CHECK(ended(0) && node_counts(1, 1) && node_counts(2, 0));
    forget_scripts();
    begin_call(0);
    ask_script(SCRIPT, "a", "x"); /* alone */
    call();
    CHECK(ended(0) && op.result.number == 0 && op.result.nodes == 1);
    end();
}

static void scripts_are_mended_at_each_server(void)
{
    begin(3);
    write_three();
    begin_call(0);
    ask_script(SCRIPT, key_of(0, 0), "zero");
    ask_script(SCRIPT, key_of(1, 0), "one");
    ASK("EXISTS", key_of(0, 0), key_of(1, 0), key_of(2, 0));
    ask_script(SCRIPT, key_of(1, 0), "other");
    call();
    CHECK(ended(0) && op.result.nodes == 4 && bed.engine.context.stats.noscript == 3);
    CHECK(node_counts(0, 1) && node_counts(1, 1) && node_counts(2, 3) && node_counts(3, 0));
    end();
}

static void a_repetition_that_gets_no_answer_ends_by_the_deadline(void)
{
    begin(1);
    servers[0].deaf = false;
    begin_call(0);
    ASK("SET", "a", "x");
    call();
    begin_call(0);
    ASK("GET", "a");
    ask_script(SCRIPT, "a", "x");
    submit();
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        move(link); /* one answer, and not the next */
    }
    servers[0].mute = true;
    bed_run(&bed);
    CHECK(bed.finished == 0);
    bed_pass(&bed, TIMEOUT_MS + 1);
    CHECK(ended(0) && node_is(0, '$', "x") && node_failed(1, RC_ERR_TIMEOUT));
    end();
}

int main(void)
{
    TEST(a_call_goes_to_the_servers_of_its_keys);
    TEST(reads_writes_and_deletes_go_to_the_server_of_their_key);
    TEST(a_delete_of_many_keys_counts_those_of_all_servers);
    TEST(a_server_that_is_away_fails_its_own_keys_alone);
    TEST(what_may_have_been_done_is_said_of_its_part_alone);
    TEST(a_call_fails_where_all_its_servers_do);
    TEST(a_call_that_is_cancelled_takes_none_of_its_answers);
    TEST(a_client_that_is_closed_ends_its_calls);
    TEST(a_script_is_one_command_of_a_batch);
    TEST(a_forgotten_script_runs_behind_its_batch);
    TEST(scripts_are_mended_at_each_server);
    TEST(a_repetition_that_gets_no_answer_ends_by_the_deadline);
    return test_result();
}
