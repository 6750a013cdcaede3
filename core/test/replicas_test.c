/* Reads that replicas answer: servers of a few lines, of which the first is the master. */
#include "engine/replicas.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/command.h"
#include "test/bed.h"
#include "test/test.h"

enum { SERVERS = 3, LINKS = 16, FIRST_PORT = 7000, TIMEOUT_MS = 500 };

struct server {
    bool is_named;    /* as a replica, by the master or the cluster */
    bool refuses;     /* no link can connect */
    bool mute;        /* reads nothing, like a stopped process */
    bool is_master;   /* it says so */
    bool is_cut_off;  /* it does not hear its master */
    bool no_readonly; /* READONLY is answered with an error */
    const char *read; /* what GET and MGET are answered */
    size_t read_len;  /* 0: it ends with a NUL */
    int reads;        /* such commands */
    int questions;    /* ROLE, CLUSTER SLOTS */
    int readonlys;
};

struct conn {
    bool is_open;
    struct rc_buf input, output;
};

static struct bed bed;
static struct server servers[SERVERS];
static struct conn conns[LINKS];
static struct rc_op op;
static bool is_cluster;

/* ---- the servers ----------------------------------------------------------------------------- */

static bool is_word(struct rc_command_word word, const char *text)
{
    return rc_command_is_word(word, text);
}

static void say(struct conn *conn, const char *text)
{
    bed_must(rc_buf_append(&conn->output, text, strlen(text)));
}

static void say_bulk(struct conn *conn, const char *text)
{
    char head[32];
    snprintf(head, sizeof head, "$%zu\r\n", strlen(text));
    say(conn, head);
    say(conn, text);
    say(conn, "\r\n");
}

static void say_hello(const struct server *server, struct conn *conn)
{
    say(conn,
        "%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$4\r\nrole\r\n");
    say_bulk(conn, server->is_master ? "master" : "replica");
    say(conn, "$4\r\nmode\r\n");
    say_bulk(conn, is_cluster ? "cluster" : "standalone");
}

static void say_info(const struct server *server, struct conn *conn)
{
    char text[200];
    snprintf(text, sizeof text, "role:%s\r\nrun_id:%040x\r\n%s",
             server->is_master ? "master" : "slave", (unsigned)(server - servers) + 1,
             server->is_master    ? ""
             : server->is_cut_off ? "master_link_status:down\r\n"
                                  : "master_link_status:up\r\n");
    say_bulk(conn, text);
}

static int count_named(void)
{
    int count = 0;
    for (int i = 1; i < SERVERS; i++)
        count += servers[i].is_named;
    return count;
}

static void say_role(struct conn *conn)
{
    char text[100];
    snprintf(text, sizeof text, "*3\r\n$6\r\nmaster\r\n:7\r\n*%d\r\n", count_named());
    say(conn, text);
    for (int i = 1; i < SERVERS; i++) {
        snprintf(text, sizeof text, "*3\r\n$9\r\n127.0.0.1\r\n$4\r\n%d\r\n$1\r\n7\r\n",
                 FIRST_PORT + i);
        say(conn, servers[i].is_named ? text : "");
    }
}

static void say_map(struct conn *conn)
{
    char text[100];
    snprintf(text, sizeof text, "*1\r\n*%d\r\n:0\r\n:16383\r\n", 3 + count_named());
    say(conn, text);
    for (int i = 0; i < SERVERS; i++) {
        snprintf(text, sizeof text, "*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n", FIRST_PORT + i);
        say(conn, i == 0 || servers[i].is_named ? text : "");
    }
}

static void answer(struct server *server, struct conn *conn, const struct rc_command *asked)
{
    struct rc_command_reader rest = asked->rest;
    struct rc_command_word second = {NULL, 0};
    (void)rc_command_next_word(&rest, &second);
    if (is_word(asked->name, "HELLO")) {
        say_hello(server, conn);
    } else if (is_word(asked->name, "INFO")) {
        say_info(server, conn);
    } else if (is_word(asked->name, "PING")) {
        say(conn, "+PONG\r\n");
    } else if (is_word(asked->name, "READONLY")) {
        server->readonlys++;
        say(conn, server->no_readonly
                      ? "-NOPERM this user has no permissions to run the 'readonly' command\r\n"
                  : is_cluster ? "+OK\r\n"
                               : "-ERR This instance has cluster support disabled\r\n");
    } else if (is_word(asked->name, "ROLE")) {
        server->questions++;
        say_role(conn);
    } else if (is_word(asked->name, "CLUSTER") && is_word(second, "SLOTS")) {
        server->questions++;
        say_map(conn);
    } else if (is_word(asked->name, "CLUSTER")) {
        say_bulk(conn, "cluster_state:ok\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n");
    } else if (is_word(asked->name, "GET") || is_word(asked->name, "MGET")) {
        server->reads++;
        bed_must(rc_buf_append(&conn->output, server->read,
                               server->read_len > 0 ? server->read_len : strlen(server->read)));
    } else if (is_word(asked->name, "PTTL")) {
        say(conn, ":60000\r\n");
    } else if (is_word(asked->name, "EVALSHA")) { /* a lease */
        say(conn, "-ERR scripts are not for this test\r\n");
    } else {
        say(conn, "+OK\r\n");
    }
}

static struct server *server_of(const struct rc_link *link)
{
    return &servers[link->address->port - FIRST_PORT];
}

static void hang_up(const struct rc_link *link)
{
    struct conn *conn = &conns[link->number];
    conn->is_open = false;
    rc_buf_clear(&conn->input);
    rc_buf_clear(&conn->output);
}

static bool open_or_close(struct rc_link *link)
{
    if (link->wants_close) {
        link->wants_close = false;
        hang_up(link);
        return true;
    }
    if (!link->wants_open)
        return false;
    link->wants_open = false;
    hang_up(link);
    if (server_of(link)->refuses) {
        rc_link_lost(link, "connection refused");
    } else {
        conns[link->number].is_open = true;
        rc_link_opened(link);
    }
    return true;
}

static bool move(struct rc_link *link)
{
    if (link->number >= LINKS)
        exit(1);
    struct server *server = server_of(link);
    struct conn *conn = &conns[link->number];
    bool moved = open_or_close(link);
    size_t len = rc_buf_len(&link->output);
    if (!conn->is_open)
        return moved;
    if (len > 0) {
        bed_must(rc_buf_append(&conn->input, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    if (server->mute)
        return moved;
    const char *head = rc_buf_head(&conn->input);
    struct rc_command_reader reader = {head, head + rc_buf_len(&conn->input)};
    struct rc_command asked;
    while (reader.at < reader.end && rc_command_next(&reader, &asked))
        answer(server, conn, &asked);
    rc_buf_clear(&conn->input);
    return bed_deliver(link, &conn->output) || moved;
}

static void lose(int server)
{
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        if (link->address->port == FIRST_PORT + server && conns[link->number].is_open) {
            hang_up(link);
            rc_link_lost(link, "connection reset");
        }
    }
}

/* ---- the bed --------------------------------------------------------------------------------- */

static void begin_with(const char *zone)
{
    static const char *const READS[] = {"$1\r\n0\r\n", "$1\r\n1\r\n", "$1\r\n2\r\n"};
    rc_options options = bed_options();
    options.command_timeout_ms = TIMEOUT_MS;
    options.zone = zone;
    options.zone_len = strlen(zone);
    memset(servers, 0, sizeof servers);
    for (int i = 0; i < SERVERS; i++)
        servers[i] = (struct server){.is_named = i > 0, .is_master = i == 0, .read = READS[i]};
    bed_init(&bed, move, "redis://127.0.0.1:7000", &options, NULL);
    bed_must(rc_op_init(&op));
}

static void begin(void)
{
    begin_with("");
}

static void end(void)
{
    bed_close(&bed);
    bed_deinit(&bed);
    rc_op_deinit(&op);
    for (int i = 0; i < LINKS; i++) {
        rc_buf_deinit(&conns[i].input);
        rc_buf_deinit(&conns[i].output);
        conns[i] = (struct conn){0};
    }
    is_cluster = false;
}

static void submit(enum rc_op_kind kind, uint32_t flags)
{
    if (op.run.is_running)
        exit(1);
    rc_op_reset(&op, kind);
    bed.finished = 0;
    op.ask.flags = flags;
    rc_buf_clear(&op.ask.key);
    bed_must(rc_buf_append(&op.ask.key, "k", 1));
    op.ask.expect = 1;
    if (kind == RC_OP_COMMAND) {
        static const char MGET[] = "*2\r\n$4\r\nMGET\r\n$1\r\nk\r\n";
        bed_must(rc_buf_append(&op.ask.request, MGET, sizeof MGET - 1));
    }
    if (kind == RC_OP_LOAD)
        op.ask.load = (rc_load_options){.flags = flags | RC_STRICT,
                                        .lease_ttl_ms = 5000,
                                        .max_load_ms = 5000,
                                        .wait_timeout_ms = 5000};
    bed_submit(&bed, &op);
    bed_run(&bed);
}

/* The number of the server that has answered a GET; -1: there is no answer. */
static int ask(void)
{
    submit(RC_OP_GET, RC_REPLICA);
    if (bed.finished == 0 || op.result.status != 0 || op.result.len != 1)
        return -1;
    return op.result.data[0] - '0';
}

static void reset_reads(void)
{
    for (int i = 0; i < SERVERS; i++)
        servers[i].reads = 0;
}

/* The replicas are known and connected. */
static void warm_up(void)
{
    for (int i = 0; i < 8; i++) {
        (void)ask();
        bed_pass(&bed, 30);
    }
    reset_reads();
}

static const char *health_of(int server)
{
    static rc_health health;
    char address[32];
    bed_run(&bed);
    rc_engine_get_health(&bed.engine, &health);
    snprintf(address, sizeof address, "127.0.0.1:%d/0", FIRST_PORT + server);
    const char *at = strstr(health.replicas, address);
    char *end_of_line = at != NULL ? strchr(at, '\n') : NULL;
    if (end_of_line == NULL)
        return NULL;
    *end_of_line = '\0';
    at += strlen(address);
    return *at == '\t' ? at + 1 : at;
}

static bool is_told_of(int server, const char *why)
{
    const char *told = health_of(server);
    return told != NULL && strcmp(told, why) == 0;
}

static uint64_t fallbacks(void)
{
    return bed.engine.context.stats.replica_fallbacks;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void asks_replicas_in_turns_and_the_master_until_it_knows_them(void)
{
    begin();
    CHECK(ask() == 0);
    warm_up();
    for (int i = 0; i < 10; i++)
        CHECK(ask() > 0);
    CHECK(servers[0].reads == 0 && servers[1].reads == 5 && servers[2].reads == 5);
    CHECK(servers[1].readonlys == 1 && servers[0].readonlys == 0);
    submit(RC_OP_GET, 0);
    CHECK(servers[0].reads == 1);
    CHECK(fallbacks() == 0 && bed.engine.context.stats.replica_reads >= 10);
    end();
}

static void sends_batches_to_replicas_too(void)
{
    begin();
    warm_up();
    submit(RC_OP_COMMAND, RC_REPLICA | RC_RETRY);
    CHECK(servers[0].reads == 0 && servers[1].reads + servers[2].reads == 1);
    servers[1].read = servers[2].read = "-LOADING Redis is loading the dataset in memory\r\n";
    submit(RC_OP_COMMAND, RC_REPLICA | RC_RETRY);
    CHECK(op.result.status == 0 && op.result.data[0] == '0' && fallbacks() == 1);
    end();
}

static void costs_nobody_a_link_who_does_not_ask_for_it(void)
{
    begin();
    for (int i = 0; i < 5; i++) {
        submit(RC_OP_GET, 0);
        bed_pass(&bed, 500);
    }
    CHECK(servers[0].reads == 5 && servers[0].questions == 0);
    CHECK(servers[1].readonlys == 0 && bed.engine.topology.numbers == 2);
    CHECK(health_of(1) == NULL);
    end();
}

static void takes_an_error_for_no_answer(void)
{
    static const char *const ERRORS[] = {
        "-MOVED 7629 127.0.0.1:7000\r\n",
        "-ASK 7629 127.0.0.1:7000\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        "-NOPERM no permissions to run the 'get' command\r\n"};
    for (int mode = 0; mode < 2; mode++) {
        is_cluster = mode == 1;
        begin();
        warm_up();
        for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
            servers[1].read = servers[2].read = ERRORS[i];
            reset_reads();
            CHECK(ask() == 0);
            CHECK(servers[1].reads + servers[2].reads == 1 && servers[0].reads == 1);
            CHECK(fallbacks() == i + 1);
            bed_pass(&bed, 10);
        }
        CHECK(bed.engine.context.stats.redirections == 0);
        end();
    }
}

static void waits_half_of_the_time_for_one_that_is_silent_and_once(void)
{
    begin();
    servers[2].is_named = false;
    warm_up();
    servers[1].mute = true;
    CHECK(ask() == -1 && bed.finished == 0);
    bed_pass(&bed, TIMEOUT_MS / 2 - 1);
    CHECK(bed.finished == 0);
    bed_pass(&bed, 1);
    CHECK(bed.finished == 1 && op.result.status == 0 && op.result.data[0] == '0');
    CHECK(is_told_of(1, "it does not answer"));
    for (int i = 0; i < 5; i++)
        CHECK(ask() == 0);
    CHECK(fallbacks() == 1);
    servers[1].mute = false;
    bed_pass(&bed, 1);
    CHECK(ask() == 1 && is_told_of(1, ""));
    end();
}

static void asks_the_master_at_once_where_the_link_breaks(void)
{
    begin();
    servers[2].is_named = false;
    warm_up();
    servers[1].mute = true;
    CHECK(ask() == -1);
    servers[1].refuses = true;
    lose(1);
    bed_run(&bed);
    CHECK(bed.finished == 1 && op.result.status == 0 && op.result.data[0] == '0');
    for (int i = 0; i < 5; i++)
        CHECK(ask() == 0);
    CHECK(fallbacks() == 1);
    bed_pass(&bed, 100);
    CHECK(ask() == 0 && is_told_of(1, "connection refused"));
    servers[1].mute = servers[1].refuses = false;
    bed_pass(&bed, 1000);
    CHECK(ask() == 1);
    end();
}

static void leaves_the_word_to_the_master_where_a_replica_does_not_hear_it(void)
{
    begin();
    warm_up();
    servers[1].is_cut_off = true;
    for (int i = 0; i < 100; i++) { /* it is asked every second */
        (void)ask();
        bed_pass(&bed, 20);
    }
    reset_reads();
    for (int i = 0; i < 10; i++)
        CHECK(ask() == 2);
    CHECK(is_told_of(1, "it does not hear its master"));
    servers[2].is_cut_off = true;
    for (int i = 0; i < 100; i++) {
        (void)ask();
        bed_pass(&bed, 20);
    }
    CHECK(ask() == 0);
    servers[0].refuses = true; /* the master cannot be reached: better an old answer than none */
    lose(0);
    bed_pass(&bed, 100);
    CHECK(ask() > 0);
    end();
}

static void lets_go_of_one_that_is_told_of_no_longer(void)
{
    for (int mode = 0; mode < 2; mode++) {
        is_cluster = mode == 1;
        begin();
        warm_up();
        uint32_t known = 0;
        servers[1].is_named = false;
        for (int i = 0; i < 400; i++) {
            (void)ask();
            bed_pass(&bed, 20);
        }
        reset_reads();
        for (int i = 0; i < 10; i++)
            CHECK(ask() == 2);
        RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
            known += link->role == RC_LINK_R;
        }
        CHECK(known == 1 && health_of(1) == NULL && bed.engine.topology.leaving == 0);
        servers[1].is_named = true;
        for (int i = 0; i < 400; i++) {
            (void)ask();
            bed_pass(&bed, 20);
        }
        reset_reads();
        for (int i = 0; i < 10; i++)
            CHECK(ask() > 0);
        CHECK(servers[1].reads == 5);
        end();
    }
}

static void asks_no_server_that_has_become_a_master(void)
{
    begin();
    servers[2].is_named = false;
    warm_up();
    servers[1].is_master = true;
    for (int i = 0; i < 100; i++) {
        (void)ask();
        bed_pass(&bed, 20);
    }
    CHECK(ask() == 0);
    CHECK(is_told_of(1, "the server is no replica any more"));
    end();
}

static void needs_readonly_in_a_cluster_alone(void)
{
    for (int mode = 0; mode < 2; mode++) {
        is_cluster = mode == 1;
        begin();
        servers[1].no_readonly = servers[2].no_readonly = true;
        warm_up();
        CHECK(is_cluster ? ask() == 0 : ask() > 0);
        const char *why = health_of(1);
        CHECK(why != NULL && (strstr(why, "'readonly'") != NULL) == is_cluster);
        end();
    }
}

static void prefers_those_of_the_zone(void)
{
    static const char *const ZONES[] = {"127.0.0.1:7002", "10.*,127.0.0.1:7002", "127.0.0.1:7002*"};
    for (int i = 0; i < 3; i++) {
        begin_with(ZONES[i]);
        warm_up();
        for (int j = 0; j < 6; j++)
            CHECK(ask() == 2);
        CHECK(is_told_of(1, "not needed yet"));
        servers[2].refuses = true;
        lose(2);
        for (int j = 0; j < 10; j++) {
            (void)ask();
            bed_pass(&bed, 10);
        }
        CHECK(ask() == 1);
        end();
    }
    begin_with("127.0.0.1");
    warm_up();
    CHECK(ask() + ask() == 3);
    end();
    begin_with("127.0.0.1:700,7001,*.1");
    warm_up();
    CHECK(ask() + ask() == 3);
    end();
}

static void takes_a_value_for_a_load_from_a_replica_and_nothing_else(void)
{
    static const char *const OTHERS[] = {"_\r\n", "-LOADING Redis is loading\r\n", "*1\r\n_\r\n"};
    begin();
    warm_up();
    servers[1].read = servers[2].read = "$5\r\nvalue\r\n";
    submit(RC_OP_LOAD, RC_REPLICA);
    CHECK(bed.finished == 1 && op.result.status == 0 && op.result.outcome == RC_HIT);
    CHECK(op.result.len == 5 && servers[0].reads == 0);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        servers[1].read = servers[2].read = OTHERS[i];
        reset_reads();
        submit(RC_OP_LOAD, RC_REPLICA);
        CHECK(bed.finished == 1 && op.result.outcome == RC_HIT && op.result.len == 1);
        CHECK(servers[0].reads == 1 && servers[1].reads + servers[2].reads == 1);
    }
    end();
}

static void takes_no_lease_for_a_value(void)
{
    char lease[64] = "$24\r\n";
    rc_entry marker = {.kind = RC_KIND_LEASE};
    begin();
    warm_up();
    rc_entry_write(lease + 5, &marker, "12345678");
    memcpy(lease + 5 + RC_ENTRY_SIZE, "\r\n", 3);
    servers[1].read = servers[2].read = lease;
    servers[1].read_len = servers[2].read_len = 5 + RC_ENTRY_SIZE + 2;
    submit(RC_OP_GET, RC_REPLICA);
    CHECK(bed.finished == 1 && op.result.status == 0 && op.result.outcome == RC_MISS);
    reset_reads();
    submit(RC_OP_LOAD, RC_REPLICA);
    CHECK(op.result.outcome == RC_HIT && op.result.data[0] == '0' && servers[0].reads == 1);
    end();
}

static void ends_with_questions_under_way(void)
{
    for (int kind = 0; kind < 3; kind++) {
        static const enum rc_op_kind KINDS[] = {RC_OP_GET, RC_OP_COMMAND, RC_OP_LOAD};
        begin();
        warm_up();
        servers[1].mute = servers[2].mute = true;
        submit(KINDS[kind], RC_REPLICA);
        CHECK(bed.finished == 0);
        if (kind == 1) { /* given up by its caller: what comes later is nobody's */
            op.ask.tag = op.run.tag = 7;
            CHECK(rc_engine_cancel(&bed.engine, 7) == 1);
            bed_run(&bed);
            servers[1].mute = servers[2].mute = false;
            bed_run(&bed);
            CHECK(bed.finished == 1 && op.result.status == RC_ERR_CANCELLED);
        }
        end();
        CHECK(bed.finished == 1);
    }
}

int main(void)
{
    TEST(asks_replicas_in_turns_and_the_master_until_it_knows_them);
    TEST(sends_batches_to_replicas_too);
    TEST(costs_nobody_a_link_who_does_not_ask_for_it);
    TEST(takes_an_error_for_no_answer);
    TEST(waits_half_of_the_time_for_one_that_is_silent_and_once);
    TEST(asks_the_master_at_once_where_the_link_breaks);
    TEST(leaves_the_word_to_the_master_where_a_replica_does_not_hear_it);
    TEST(lets_go_of_one_that_is_told_of_no_longer);
    TEST(asks_no_server_that_has_become_a_master);
    TEST(needs_readonly_in_a_cluster_alone);
    TEST(prefers_those_of_the_zone);
    TEST(takes_a_value_for_a_load_from_a_replica_and_nothing_else);
    TEST(takes_no_lease_for_a_value);
    TEST(ends_with_questions_under_way);
    return test_result();
}
