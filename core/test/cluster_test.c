/* A client of a cluster whose nodes are embedded stores behind a few lines that know slots. */
#include "engine/cluster.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/slot.h"
#include "engine/command.h"
#include "engine/engine.h"
#include "engine/script.h"
#include "store/store.h"
#include "test/test.h"

enum { NODES = 3, CONNS = 32, OPS = 8, FIRST_PORT = 7000, TIMEOUT_MS = 2000 };

/* What a node answers to commands on a slot. */
enum answer { OWNS, MOVED, ASKS, IMPORTS, TRIES_AGAIN, IS_DOWN };

struct node {
    struct rc_store *store;
    bool refuses; /* no link can connect */
    bool mute;    /* does what it is told, and answers nothing */
    bool fails;   /* says that the cluster is down */
    bool denies;  /* our user may not ask it for the map */
    bool silent;  /* links connect for ever */
    bool alone;   /* it is no node of a cluster */
    bool is_replica;
    int opened;
    int epoch;
    int own_epoch;
    int map_questions;
    int commands; /* but for those of the handshake, and CLUSTER */
    int asking;
    uint8_t answers[RC_SLOT_COUNT]; /* enum answer */
    uint8_t target[RC_SLOT_COUNT];  /* MOVED and ASKS: to that node */
};

struct conn {
    struct rc_store_conn *conn;
    struct rc_buf input, output;
    bool is_asking;
};

static int64_t now_us;
static _Atomic int64_t near_clock;
static struct rc_near *near; /* NULL: a test without near copies */
static struct node nodes[NODES];
static struct conn conns[CONNS];
static struct rc_engine engine;
static struct rc_op ops[OPS];
static int finished;

static void must(int error)
{
    if (error < 0) {
        fprintf(stderr, "the bed has no memory\n");
        exit(1);
    }
}

/* ---- a node ---------------------------------------------------------------------------------- */

struct words {
    const char *bytes[16];
    size_t len[16];
    int count;
};

static void read_words(struct words *words, const char *at)
{
    words->count = (int)strtol(at + 1, NULL, 10);
    for (int i = 0; i < words->count && i < 16; i++) {
        at = strchr(at, '$');
        words->len[i] = strtoul(at + 1, NULL, 10);
        words->bytes[i] = strstr(at, "\r\n") + 2;
        at = words->bytes[i] + words->len[i];
    }
}

static bool is_word(const struct words *words, int i, const char *text)
{
    return i < words->count && words->len[i] == strlen(text) &&
           strncasecmp(words->bytes[i], text, words->len[i]) == 0;
}

static void say(struct conn *conn, const char *text)
{
    must(rc_buf_append(&conn->output, text, strlen(text)));
}

/* One range for each run of slots that this node takes for another's or its own. */
static void say_map(const struct node *node, struct conn *conn)
{
    struct rc_buf ranges;
    char text[128];
    int count = 0;
    rc_buf_init(&ranges);
    for (int first = 0, last; first < RC_SLOT_COUNT; first = last + 1) {
        int self = (int)(node - nodes);
        int owner = node->answers[first] == MOVED ? node->target[first] : self;
        for (last = first; last + 1 < RC_SLOT_COUNT; last++) {
            int next = node->answers[last + 1] == MOVED ? node->target[last + 1] : self;
            if (next != owner)
                break;
        }
        snprintf(text, sizeof text, "*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n", first,
                 last, FIRST_PORT + owner);
        must(rc_buf_append(&ranges, text, strlen(text)));
        count++;
    }
    snprintf(text, sizeof text, "*%d\r\n", count);
    say(conn, text);
    must(rc_buf_append(&conn->output, rc_buf_head(&ranges), rc_buf_len(&ranges)));
    rc_buf_deinit(&ranges);
}

static void say_info(const struct node *node, struct conn *conn)
{
    char info[160], text[200];
    snprintf(info, sizeof info,
             "cluster_state:%s\r\ncluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\n",
             node->fails ? "fail" : "ok", node->epoch, node->own_epoch);
    snprintf(text, sizeof text, "$%zu\r\n%s\r\n", strlen(info), info);
    say(conn, text);
}

/* The key of a command of this file; NULL: none. */
static const char *key_in(const struct words *words, size_t *len)
{
    int at = is_word(words, 0, "EVALSHA") || is_word(words, 0, "EVAL") ? 3 : 1;
    static const char *const KEYLESS[] = {"PING", "HELLO", "INFO", "SELECT", "CLIENT", "READONLY"};
    for (size_t i = 0; i < sizeof KEYLESS / sizeof *KEYLESS; i++) {
        if (is_word(words, 0, KEYLESS[i]))
            return NULL;
    }
    *len = at < words->count ? words->len[at] : 0;
    return at < words->count ? words->bytes[at] : NULL;
}

/* False: the store does it. */
static bool answer(struct node *node, struct conn *conn, const struct words *words)
{
    size_t len;
    char text[100];
    if (is_word(words, 0, "CLUSTER")) {
        node->map_questions += is_word(words, 1, "SLOTS");
        if (node->denies)
            say(conn, "-NOPERM no permission to run 'cluster'\r\n");
        else if (is_word(words, 1, "SLOTS"))
            say_map(node, conn);
        else
            say_info(node, conn);
        return true;
    }
    if (is_word(words, 0, "HELLO")) {
        static const char RESP3[] = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
        must(rc_store_feed(conn->conn, RESP3, sizeof RESP3 - 1));
        rc_buf_clear(&conn->conn->output);
        say(conn, "%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n"
                  "$4\r\nrole\r\n");
        say(conn, node->is_replica ? "$7\r\nreplica\r\n" : "$6\r\nmaster\r\n");
        say(conn, "$4\r\nmode\r\n");
        say(conn, node->alone ? "$10\r\nstandalone\r\n" : "$7\r\ncluster\r\n");
        return true;
    }
    if (is_word(words, 0, "ASKING")) {
        node->asking++;
        conn->is_asking = true;
        say(conn, "+OK\r\n");
        return true;
    }
    bool is_asking = conn->is_asking;
    conn->is_asking = false;
    const char *key = key_in(words, &len);
    if (key == NULL)
        return false;
    node->commands++;
    uint16_t slot = rc_slot(key, len);
    int port = FIRST_PORT + node->target[slot];
    switch ((enum answer)node->answers[slot]) {
    case OWNS: return false;
    case IMPORTS:
        if (is_asking)
            return false;
        snprintf(text, sizeof text, "-MOVED %d 127.0.0.1:%d\r\n", slot, port);
        break;
    case MOVED: snprintf(text, sizeof text, "-MOVED %d 127.0.0.1:%d\r\n", slot, port); break;
    case ASKS: snprintf(text, sizeof text, "-ASK %d 127.0.0.1:%d\r\n", slot, port); break;
    case TRIES_AGAIN:
        snprintf(text, sizeof text, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
        break;
    case IS_DOWN: snprintf(text, sizeof text, "-CLUSTERDOWN The cluster is down\r\n"); break;
    }
    say(conn, text);
    return true;
}

static void serve(struct node *node, struct conn *conn)
{
    for (;;) {
        const char *head = rc_buf_head(&conn->input);
        struct rc_command_reader reader = {head, head + rc_buf_len(&conn->input)};
        struct rc_command next;
        if (reader.at == reader.end || !rc_command_next(&reader, &next))
            return;
        size_t len = next.len;
        struct words words = {0};
        char *command = malloc(len + 1);
        if (command == NULL)
            exit(1);
        memcpy(command, rc_buf_head(&conn->input), len);
        command[len] = '\0';
        read_words(&words, command);
        if (!answer(node, conn, &words)) {
            must(rc_store_feed(conn->conn, command, len));
            must(rc_buf_append(&conn->output, rc_buf_head(&conn->conn->output),
                               rc_buf_len(&conn->conn->output)));
            rc_buf_clear(&conn->conn->output);
        }
        free(command);
        rc_buf_consume(&conn->input, len);
    }
}

/* ---- the bed --------------------------------------------------------------------------------- */

/* At addresses that a test has made up there is nobody. */
static struct node *node_of(const struct rc_link *link)
{
    static struct node nobody = {.refuses = true};
    int number = link->address->port - FIRST_PORT;
    return number >= 0 && number < NODES ? &nodes[number] : &nobody;
}

static void hang_up(const struct rc_link *link)
{
    if (link->number >= CONNS)
        return;
    struct conn *conn = &conns[link->number];
    if (conn->conn != NULL)
        rc_store_disconnect(conn->conn);
    conn->conn = NULL;
    conn->is_asking = false;
    rc_buf_clear(&conn->input);
    rc_buf_clear(&conn->output);
}

static bool open_or_close(struct rc_link *link)
{
    struct node *node = node_of(link);
    if (link->wants_close) {
        link->wants_close = false;
        hang_up(link);
        return true;
    }
    if (!link->wants_open)
        return false;
    link->wants_open = false;
    hang_up(link);
    node->opened++;
    if (node->silent)
        return true;
    if (node->refuses) {
        rc_link_lost(link, "connection refused");
    } else {
        must(rc_store_connect(node->store, &conns[link->number].conn));
        rc_link_opened(link);
    }
    return true;
}

static bool move(struct rc_link *link)
{
    struct node *node = node_of(link);
    struct conn *conn = &conns[link->number];
    bool moved = open_or_close(link);
    size_t len = rc_buf_len(&link->output);
    if (conn->conn == NULL)
        return moved;
    if (len > 0) {
        must(rc_buf_append(&conn->input, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        serve(node, conn);
        moved = true;
    }
    if (rc_buf_len(&conn->conn->output) > 0) { /* pushes */
        must(rc_buf_append(&conn->output, rc_buf_head(&conn->conn->output),
                           rc_buf_len(&conn->conn->output)));
        rc_buf_clear(&conn->conn->output);
    }
    if (rc_buf_len(&conn->output) > 0 && !node->mute) {
        struct rc_buf output = conn->output;
        rc_buf_init(&conn->output);
        rc_link_feed(link, rc_buf_head(&output), rc_buf_len(&output));
        rc_buf_deinit(&output);
        moved = true;
    }
    return moved;
}

static void run(void)
{
    bool moved = true;
    for (int i = 0; moved && CHECK(i < 1000); i++) {
        rc_engine_set_time(&engine, now_us);
        moved = rc_engine_deadline(&engine) <= now_us;
        rc_engine_run(&engine);
        while (rc_engine_take_finished(&engine) != NULL) {
            finished++;
            moved = true;
        }
        RC_TOPOLOGY_EACH(link, &engine.topology) {
            moved |= link->number < CONNS && move(link); /* those behind are never opened */
        }
    }
}

static void pass(int64_t ms)
{
    for (int64_t i = 0; i < ms; i++) {
        now_us += 1000;
        near_clock = now_us;
        run();
    }
}

static void give(int first, int last, int owner)
{
    for (int slot = first; slot <= last; slot++) {
        for (int i = 0; i < NODES; i++) {
            nodes[i].answers[slot] = i == owner ? OWNS : MOVED;
            nodes[i].target[slot] = (uint8_t)owner;
        }
    }
}

/* Three nodes with a third of the slots each; nobody may connect to those of `lost`. */
static void begin_at(const char *url, uint64_t chance, unsigned lost)
{
    const rc_options options = {.connect_timeout_ms = 1000,
                                .command_timeout_ms = TIMEOUT_MS,
                                .max_value_bytes = 1 << 20,
                                .max_key_bytes = 65536,
                                .max_queue = 1000,
                                .max_lent = 4,
                                .degraded_ttl_ms = 1000};
    const struct rc_seed seed = {{3, chance}};
    struct rc_address address;
    const char *why;
    now_us = INT64_C(1000) * 1000 * 1000;
    finished = 0;
    rc_scripts_init();
    memset(nodes, 0, sizeof nodes);
    must(rc_address_parse(&address, url, strlen(url), &why));
    must(rc_engine_init(&engine, &options, &address, near, &seed, now_us));
    for (int i = 0; i < NODES; i++) {
        const struct rc_store_options store_options = {.seed = {{1, (uint64_t)i}}};
        must(rc_store_new(&nodes[i].store, &store_options));
        nodes[i].epoch = 1;
        nodes[i].own_epoch = i + 1;
        nodes[i].refuses = lost >> i & 1;
        give(i * RC_SLOT_COUNT / NODES, (i + 1) * RC_SLOT_COUNT / NODES - 1, i);
    }
    for (int i = 0; i < OPS; i++)
        must(rc_op_init(&ops[i]));
}

/* The url is the first one's. */
static void begin(void)
{
    begin_at("redis://127.0.0.1:7000", 4, 0);
}

static void end(void)
{
    rc_engine_close(&engine);
    run();
    rc_engine_end(&engine);
    run();
    RC_TOPOLOGY_EACH(link, &engine.topology) {
        hang_up(link);
    }
    rc_engine_deinit(&engine);
    for (int i = 0; i < CONNS; i++) {
        rc_buf_deinit(&conns[i].input);
        rc_buf_deinit(&conns[i].output);
    }
    for (int i = 0; i < OPS; i++)
        rc_op_deinit(&ops[i]);
    for (int i = 0; i < NODES; i++)
        rc_store_free(nodes[i].store);
    if (near != NULL)
        rc_near_close(near);
    near = NULL;
}

/* A key of that node, as begin() has given the slots. */
static const char *key_of(int node, int number)
{
    static char names[8][16];
    static int at;
    char *name = names[at++ % 8];
    for (int i = 0, found = 0;; i++) {
        snprintf(name, sizeof names[0], "k%d", i);
        if (rc_slot(name, strlen(name)) / (RC_SLOT_COUNT / NODES + 1) == node && found++ == number)
            return name;
    }
}

static uint16_t slot_of(const char *key)
{
    return rc_slot(key, strlen(key));
}

#define ASK(op, ...) ask(op, (const char *const[]){__VA_ARGS__, NULL})
static void ask(struct rc_op *op, const char *const *words)
{
    uint32_t count = 0;
    while (words[count] != NULL)
        count++;
    op->ask.expect++;
    must(rc_command_head(&op->ask.request, count));
    for (uint32_t i = 0; i < count; i++)
        must(rc_command_text(&op->ask.request, words[i]));
}

static struct rc_op *begin_call(int number, uint32_t flags)
{
    struct rc_op *op = &ops[number];
    if (op->run.is_running) /* no memory: it waits for another connection */
        exit(1);
    rc_op_reset(op, RC_OP_COMMAND);
    op->ask.flags = flags;
    op->ask.script = -1;
    return op;
}

static void submit(struct rc_op *op)
{
    rc_engine_set_time(&engine, now_us);
    rc_engine_submit(&engine, op);
    run();
}

static void write_at(int node, const char *key);
static void lose(int node);

static struct rc_op *start(int number, uint32_t flags, const char *verb, const char *key)
{
    struct rc_op *op = begin_call(number, flags);
    ASK(op, verb, key);
    submit(op);
    return op;
}

static bool is_number(const struct rc_op *op, int64_t number)
{
    return !op->run.is_running && op->result.status == 0 && op->result.number == number;
}

/* Without memory there may be no text. */
static bool says(const struct rc_op *op, const char *text)
{
    return op->result.data != NULL && strstr(op->result.data, text) != NULL;
}

static int questions(void)
{
    return nodes[0].map_questions + nodes[1].map_questions + nodes[2].map_questions;
}

/* ---- the map --------------------------------------------------------------------------------- */

static void learns_the_map_with_its_first_connection(void)
{
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(2, 0)), 1)); /* by a MOVED */
    CHECK(questions() == 1 && engine.context.stats.redirections == 1);
    for (int i = 0; i < NODES; i++)
        CHECK(is_number(start(0, 0, "INCR", key_of(i, 1)), 1));
    CHECK(engine.context.stats.redirections == 1 && questions() == 1);
    CHECK(engine.topology.other_count == 2);
    end();
}

static void a_moved_corrects_its_slot_at_once_and_refreshes_once(void)
{
    begin();
    const char *one = key_of(0, 0), *two = key_of(0, 1);
    start(0, 0, "INCR", one);
    pass(1000);
    int before = questions();
    give(slot_of(one), slot_of(one), 1);
    give(slot_of(two), slot_of(two), 1);
    nodes[0].epoch = nodes[1].epoch = nodes[2].epoch = 2;
    int commands = nodes[0].commands;
    for (int i = 0; i < 20; i++)
        start(0, 0, "INCR", one);
    CHECK(nodes[0].commands == commands + 1); /* the first alone was sent elsewhere */
    pass(900);
    CHECK(questions() == before + 1);
    commands = nodes[0].commands;
    CHECK(is_number(start(0, 0, "INCR", two), 1));
    CHECK(nodes[0].commands == commands); /* the map has told of the other one */
    end();
}

static void many_that_are_sent_elsewhere_are_no_storm(void)
{
    begin();
    start(0, 0, "INCR", key_of(0, 0));
    pass(1000);
    int before = questions();
    for (int round = 0; round < 50; round++) {
        const char *key = key_of(0, round);
        give(slot_of(key), slot_of(key), 1 + round % 2);
        start(0, 0, "INCR", key);
        pass(100);
    }
    CHECK(questions() - before >= 6 && questions() - before <= 11); /* within five seconds */
    end();
}

static void asks_another_one_than_who_sees_no_majority(void)
{
    begin();
    const char *key = key_of(0, 0);
    start(0, 0, "INCR", key);
    pass(1000); /* nobody else is connected */
    give(slot_of(key), slot_of(key), 1);
    nodes[1].epoch = nodes[2].epoch = 2;
    nodes[0].answers[slot_of(key)] = IS_DOWN;
    nodes[0].fails = true;
    struct rc_op *op = start(0, 0, "INCR", key);
    pass(TIMEOUT_MS - 100);
    CHECK(is_number(op, 1) && nodes[0].map_questions <= 3);
    end();
}

static void who_may_not_see_the_map_is_told_so(void)
{
    rc_health health;
    begin();
    nodes[0].denies = nodes[1].denies = nodes[2].denies = true;
    CHECK(is_number(start(0, 0, "INCR", key_of(2, 0)), 1)); /* by a MOVED */
    pass(5000);
    CHECK(questions() <= 2);
    rc_engine_get_health(&engine, &health);
    CHECK(!health.ready && strncmp(health.cause, "NOPERM", 6) == 0);
    nodes[0].denies = nodes[1].denies = nodes[2].denies = false;
    start(0, 0, "INCR", key_of(1, 0)); /* a MOVED asks again */
    pass(1000);
    rc_engine_get_health(&engine, &health);
    CHECK(health.ready && health.cause[0] == '\0');
    end();
}

static void takes_no_map_that_is_older_or_of_a_minority(void)
{
    begin();
    const char *key = key_of(0, 0);
    start(0, 0, "INCR", key);
    pass(1000);
    give(slot_of(key), slot_of(key), 1);
    nodes[1].epoch = 5;
    nodes[0].refuses = nodes[2].refuses = true;
    for (int i = 0; i < NODES; i += 2) {
        RC_TOPOLOGY_EACH(link, &engine.topology) {
            if (node_of(link) == &nodes[i] && conns[link->number].conn != NULL) {
                hang_up(link);
                rc_link_lost(link, "gone");
            }
        }
    }
    pass(2000);
    CHECK(is_number(start(0, 0, "INCR", key), 1) && engine.cluster.epoch == 5);
    /* The others come back with what they knew. */
    nodes[0].refuses = nodes[2].refuses = false;
    nodes[1].refuses = true;
    nodes[0].answers[slot_of(key)] = OWNS;
    nodes[2].answers[slot_of(key)] = MOVED;
    nodes[2].target[slot_of(key)] = 0;
    nodes[2].fails = true;
    nodes[2].epoch = 6;
    RC_TOPOLOGY_EACH(link, &engine.topology) {
        if (node_of(link) == &nodes[1] && conns[link->number].conn != NULL) {
            hang_up(link);
            rc_link_lost(link, "gone");
        }
    }
    pass(3000);
    CHECK(rc_topology_owner(&engine.topology, slot_of(key)) ==
          rc_topology_find(&engine.topology, "127.0.0.1", FIRST_PORT + 1));
    end();
}

/* ---- slots on their way ---------------------------------------------------------------------- */

/* ---- several addresses ----------------------------------------------------------------------- */

static const char ALL[] = "redis://127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002";

static void begins_at_a_listed_node_by_chance(void)
{
    int firsts[NODES] = {0};
    for (int i = 0; i < 60; i++) {
        begin_at(ALL, (uint64_t)i, 0);
        firsts[engine.topology.node.address.port - FIRST_PORT]++;
        for (int j = 0; j < NODES; j++)
            CHECK(is_number(start(0, 0, "INCR", key_of(j, 0)), 1));
        CHECK(questions() == 1 && engine.topology.other_count == 2);
        end();
    }
    for (int i = 0; i < NODES; i++)
        CHECK(firsts[i] > 5);
}

static void passes_over_those_that_refuse_at_once(void)
{
    rc_health health;
    for (uint64_t chance = 0; chance < 20; chance++) {
        begin_at(ALL, chance, 3);
        CHECK(is_number(start(0, 0, "INCR", key_of(2, 0)), 1)); /* no time has passed */
        rc_engine_get_health(&engine, &health);
        CHECK(engine.topology.node.address.port == FIRST_PORT + 2);
        CHECK(engine.topology.node.links[RC_LINK_W].connect_ms == 0);
        end();
    }
}

static void those_that_are_silent_share_the_time(void)
{
    for (uint64_t chance = 0; chance < 10; chance++) {
        begin_at(ALL, chance, 0);
        nodes[0].silent = nodes[1].silent = true;
        struct rc_op *op = start(0, 0, "INCR", key_of(2, 0));
        pass(700); /* of 1,000 a third for each */
        CHECK(is_number(op, 1));
        end();
    }
}

static void tells_which_address_fails_and_does_not_hurry_round(void)
{
    rc_health health;
    begin_at(ALL, 1, 7);
    struct rc_op *op = start(0, 0, "INCR", "k");
    pass(TIMEOUT_MS + 10);
    CHECK(op->result.status == RC_ERR_UNAVAILABLE);
    CHECK(says(op, "of the url: connection refused"));
    rc_engine_get_health(&engine, &health);
    CHECK(!health.ready && strncmp(health.address, "127.0.0.1:700", 13) == 0);
    int opened = nodes[0].opened + nodes[1].opened + nodes[2].opened;
    pass(10 * 1000);
    opened = nodes[0].opened + nodes[1].opened + nodes[2].opened - opened;
    CHECK(opened >= 3 * 20 && opened <= 3 * 41); /* a round in 250 to 500 ms */
    nodes[1].refuses = false;
    pass(600);
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1));
    end();
}

static void refuses_a_listed_server_that_is_alone(void)
{
    begin_at(ALL, 1, 6);
    nodes[0].alone = true;
    struct rc_op *op = start(0, 0, "INCR", "k");
    pass(10);
    CHECK(op->result.status == RC_ERR_REDIS);
    CHECK(says(op, "'127.0.0.1:7000/0' of the url: this is no node of a cluster"));
    nodes[1].refuses = false;
    pass(600);
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1));
    end();
    begin(); /* who is named alone may be */
    nodes[0].alone = true;
    CHECK(is_number(start(0, 0, "INCR", key_of(0, 0)), 1));
    end();
}

static void asks_the_listed_once_all_that_it_knows_are_lost(void)
{
    begin_at("redis://127.0.0.1:7000,127.0.0.1:7001", 2, 0);
    give(0, RC_SLOT_COUNT - 1, 0);
    CHECK(is_number(start(0, 0, "INCR", "k"), 1));
    pass(1000);
    /* All moves to the second and third while we do not look. */
    give(0, RC_SLOT_COUNT - 1, 2);
    nodes[0].epoch = nodes[1].epoch = nodes[2].epoch = 5;
    nodes[0].refuses = true;
    RC_TOPOLOGY_EACH(link, &engine.topology) {
        if (link->address->port == FIRST_PORT && rc_link_is_ready(link)) {
            hang_up(link);
            rc_link_lost(link, "gone");
        }
    }
    struct rc_op *op = start(0, 0, "INCR", "k");
    pass(900);
    CHECK(is_number(op, 1));
    end();
}

static void asks_the_listed_where_one_knows_no_good_map(void)
{
    for (uint64_t chance = 0; chance < 10; chance++) {
        begin_at(ALL, chance, 0);
        nodes[0].fails = true; /* it was made a cluster of its own, without slots */
        for (int slot = 0; slot < RC_SLOT_COUNT; slot++)
            nodes[0].answers[slot] = IS_DOWN;
        give(0, 0, 1);
        nodes[0].answers[0] = IS_DOWN;
        struct rc_op *op = start(0, 0, "INCR", key_of(2, 0));
        pass(1900);
        CHECK(is_number(op, 1));
        end();
    }
}

static void a_borrowed_connection_looks_for_a_node_too(void)
{
    struct rc_lent lent = {0};
    for (uint64_t chance = 0; chance < 10; chance++) {
        begin_at(ALL, chance, 3);
        struct rc_op *op = &ops[0];
        rc_op_reset(op, RC_OP_BORROW);
        op->ask.lent = &lent;
        submit(op);
        pass(100);
        CHECK(!op->run.is_running && op->result.status == 0);
        rc_engine_take_back(&engine, &lent);
        end();
    }
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void asks_where_it_is_told_to_and_the_owner_stays(void)
{
    begin();
    const char *key = key_of(0, 0);
    CHECK(is_number(start(0, 0, "INCR", key), 1));
    uint16_t slot = slot_of(key);
    nodes[0].answers[slot] = ASKS;
    nodes[0].target[slot] = 1;
    nodes[1].answers[slot] = IMPORTS;
    for (int i = 1; i <= 3; i++)
        CHECK(is_number(start(0, 0, "INCR", key), i)); /* the other store counts for itself */
    CHECK(nodes[1].asking == 3 && nodes[0].commands == 4);
    struct rc_op *op = begin_call(0, 0);
    rc_op_reset(op, RC_OP_GET);
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
    op->ask.expect = 2; /* with its TTL: ASKING holds for one command */
    submit(op);
    CHECK(op->result.status == 0 && op->result.outcome == RC_HIT && op->result.ttl_ms == -1);
    CHECK(nodes[1].asking == 5);
    rc_buf_clear(&op->ask.key);
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1)); /* the answers are in their places */
    end();
}

static void sends_of_a_batch_what_was_not_done(void)
{
    begin();
    const char *key = key_of(0, 0), *other = key_of(0, 1), *third = key_of(2, 0);
    start(0, 0, "INCR", key);
    give(slot_of(key), slot_of(key), 2);
    struct rc_op *op = begin_call(0, 0);
    ASK(op, "INCR", other);
    ASK(op, "INCR", key);
    ASK(op, "INCR", other);
    ASK(op, "INCR", third);
    submit(op);
    CHECK(op->result.status == 0 && op->result.nodes == 4);
    if (op->reply.count != 4)
        exit(1);
    CHECK(op->reply.nodes[0].integer == 1 && op->reply.nodes[1].integer == 1 &&
          op->reply.nodes[2].integer == 2 && op->reply.nodes[3].integer == 1);
    end();
}

static struct rc_op *ask_size(int number, int node)
{
    struct rc_op *op = begin_call(number, 0);
    op->ask.at_slot = slot_of(key_of(node, 0));
    ASK(op, "DBSIZE");
    submit(op);
    return op;
}

static void asks_the_master_of_a_slot_about_itself(void)
{
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1));
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 1)), 1));
    CHECK(is_number(start(0, 0, "INCR", key_of(2, 0)), 1));
    CHECK(is_number(ask_size(0, 0), 0) && is_number(ask_size(1, 1), 2) &&
          is_number(ask_size(2, 2), 1));
    uint64_t first = ops[1].result.connection;
    CHECK(first != 0 && first != ops[0].result.connection && first != ops[2].result.connection);
    CHECK(is_number(ask_size(3, 1), 2) && ops[3].result.connection == first);
    lose(1);
    CHECK(ask_size(3, 1)->result.connection != first);
    end();
}

static void pauses_for_as_long_as_it_is_told(void)
{
    begin();
    struct rc_op *op = begin_call(0, 0);
    rc_op_reset(op, RC_OP_PAUSE);
    op->ask.ttl_ms = 100;
    submit(op);
    pass(95);
    CHECK(op->run.is_running);
    pass(10);
    CHECK(!op->run.is_running && op->result.status == 0);
    end();
}

static void waits_where_a_slot_is_not_whole(void)
{
    begin();
    const char *key = key_of(0, 0);
    nodes[0].answers[slot_of(key)] = TRIES_AGAIN;
    struct rc_op *op = start(0, 0, "INCR", key);
    CHECK(op->run.is_running);
    pass(300);
    CHECK(op->run.is_running && nodes[0].commands > 2 && nodes[0].commands < 12);
    nodes[0].answers[slot_of(key)] = OWNS;
    pass(250);
    CHECK(is_number(op, 1));
    nodes[0].answers[slot_of(key)] = IS_DOWN;
    op = start(0, 0, "INCR", key);
    pass(TIMEOUT_MS + 50);
    CHECK(!op->run.is_running && op->result.status == RC_ERR_UNAVAILABLE);
    CHECK(op->result.len >= 11 && memcmp(op->result.data, "CLUSTERDOWN", 11) == 0);
    end();
}

static void does_not_go_round_for_ever(void)
{
    begin();
    const char *key = key_of(0, 0);
    start(0, 0, "INCR", key);
    nodes[0].answers[slot_of(key)] = MOVED;
    nodes[0].target[slot_of(key)] = 1;
    nodes[1].target[slot_of(key)] = 0;
    struct rc_op *op = start(0, 0, "INCR", key);
    CHECK(!op->run.is_running && op->result.status == 0);
    if (op->reply.count == 0)
        exit(1);
    CHECK(op->reply.nodes[0].type == '-' && memcmp(op->reply.nodes[0].str, "MOVED", 5) == 0);
    CHECK(nodes[0].commands + nodes[1].commands <= RC_HOPS_MAX + 4);
    end();
}

/* ---- nodes that are lost --------------------------------------------------------------------- */

static void lose(int node)
{
    nodes[node].refuses = true;
    RC_TOPOLOGY_EACH(link, &engine.topology) {
        if (node_of(link) != &nodes[node] || conns[link->number].conn == NULL)
            continue;
        hang_up(link);
        rc_link_lost(link, "gone");
    }
}

static void what_waits_for_a_lost_master_goes_to_its_heir(void)
{
    begin();
    for (int i = 0; i < NODES; i++)
        start(0, 0, "INCR", key_of(i, 0));
    pass(1000);
    lose(1);
    struct rc_op *op = start(1, 0, "INCR", key_of(1, 0));
    CHECK(op->run.is_running);
    CHECK(is_number(start(0, 0, "INCR", key_of(0, 0)), 2)); /* the others go on */
    give(RC_SLOT_COUNT / NODES, 2 * RC_SLOT_COUNT / NODES - 1, 2);
    nodes[0].epoch = nodes[2].epoch = 2;
    pass(1500);
    CHECK(is_number(op, 1));
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 2));
    end();
}

static void a_master_that_was_never_reached_has_an_heir_too(void)
{
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(0, 0)), 1)); /* connects to this one alone */
    pass(1000);
    lose(1);
    give(RC_SLOT_COUNT / NODES, 2 * RC_SLOT_COUNT / NODES - 1, 2);
    nodes[0].epoch = nodes[2].epoch = 2;
    struct rc_op *op = start(1, 0, "INCR", key_of(1, 0));
    pass(1500);
    CHECK(is_number(op, 1));
    end();
}

/* It says where its slots are now. T, which nobody uses, does not know that its server is gone. */
static void a_node_that_comes_back_as_a_replica_is_asked(void)
{
    const struct rc_store_options other = {.seed = {{5, 6}}};
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1));
    struct rc_server_node *node = rc_topology_node(&engine.topology, slot_of(key_of(1, 0)));
    struct rc_link *w = rc_node_link(node, RC_LINK_W), *t = rc_node_link(node, RC_LINK_T);
    rc_link_want(t);
    pass(10);
    CHECK(rc_link_is_ready(w) && rc_link_is_ready(t));
    RC_TOPOLOGY_EACH(link, &engine.topology) { /* without memory w and t may be another node's */
        if (node_of(link) == &nodes[1])
            hang_up(link);
    }
    rc_store_free(nodes[1].store);
    must(rc_store_new(&nodes[1].store, &other));
    rc_store_set_role(nodes[1].store, RC_STORE_REPLICA);
    rc_link_lost(w, "gone");
    pass(1000);
    CHECK(rc_link_is_ready(w) && rc_link_is_ready(t));
    end();
}

static void what_is_under_way_outlives_a_change_of_role(void)
{
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(1, 0)), 1));
    struct rc_server_node *node = rc_topology_node(&engine.topology, slot_of(key_of(1, 0)));
    struct rc_link *w = rc_node_link(node, RC_LINK_W);
    struct rc_identity now = w->identity;
    nodes[1].mute = true;
    struct rc_op *op = start(1, 0, "INCR", key_of(1, 0));
    now.role = RC_SERVER_REPLICA;
    CHECK(rc_link_hear_change(w, &now, "another role") && w->identity.role == now.role);
    nodes[1].mute = false;
    run();
    CHECK(is_number(op, 2));
    now.run_id[0] = now.run_id[0] == '0' ? '1' : '0';
    now.role = RC_SERVER_MASTER;
    CHECK(!rc_link_hear_change(w, &now, "another server") && !rc_link_is_ready(w));
    end();
}

/* ---- deletes that a failover has lost -------------------------------------------------------- */

/* Somebody else puts an entry with that version there. */
static void put(int node, const char *key, char version)
{
    char value[RC_ENTRY_SIZE + 1], nonce[RC_NONCE_SIZE];
    const rc_entry entry = {.kind = RC_KIND_VALUE};
    memset(nonce, version, sizeof nonce);
    rc_entry_write(value, &entry, nonce);
    value[RC_ENTRY_SIZE] = 'v';
    const struct rc_store_change change = {.key = key,
                                           .key_len = strlen(key),
                                           .value = value,
                                           .value_len = sizeof value,
                                           .expires_ms = RC_STORE_NEVER};
    must(rc_store_apply(nodes[node].store, &change));
}

struct search {
    const char *key;
    bool is_there;
};

static void compare_key(void *owner, const struct rc_store_change *change)
{
    struct search *search = owner;
    search->is_there |= change->key_len == strlen(search->key) &&
                        memcmp(change->key, search->key, change->key_len) == 0;
}

static bool has(int node, const char *key)
{
    struct search search = {key, false};
    rc_store_each(nodes[node].store, compare_key, &search);
    return search.is_there;
}

static struct rc_op *start_of(int number, enum rc_op_kind kind, const char *verb, const char *key)
{
    struct rc_op *op = &ops[number];
    if (op->run.is_running)
        exit(1);
    rc_op_reset(op, kind);
    op->ask.near = false;
    rc_buf_clear(&op->ask.key);
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
    if (verb != NULL)
        ASK(op, verb, key);
    else
        op->ask.expect = 1;
    submit(op);
    return op;
}

static bool reads(const char *key)
{
    const struct rc_op *op = start_of(0, RC_OP_GET, NULL, key);
    pass(5);
    return !op->run.is_running && op->result.status == 0 && op->result.outcome == RC_HIT;
}

static bool deletes(const char *key)
{
    const struct rc_op *op = start_of(0, RC_OP_DELETE, "UNLINK", key);
    pass(5);
    return is_number(op, 1);
}

static uint64_t lost(void)
{
    return engine.context.stats.deletes_lost;
}

/* The node's slots are that one's from now on, as all say who are left. */
static void take_over(int node, int heir)
{
    for (int slot = 0; slot < RC_SLOT_COUNT; slot++)
        if (nodes[heir].target[slot] == node || (nodes[node].answers[slot] == OWNS))
            give(slot, slot, heir);
    for (int i = 0; i < NODES; i++)
        nodes[i].epoch++;
}

static void a_lost_delete_is_done_again_at_the_heir(void)
{
    begin();
    const char *key = key_of(1, 0), *other = key_of(0, 0);
    put(1, key, 'a');
    put(0, other, 'b');
    CHECK(reads(key) && reads(other));
    pass(1000);
    CHECK(deletes(key) && deletes(other));
    put(2, key, 'a');   /* the replica of node 1 had it, and not heard of the delete */
    put(0, other, 'b'); /* nothing has happened to this one: somebody has put it back */
    lose(1);
    take_over(1, 2);
    pass(1500);
    CHECK(!has(2, key) && has(0, other) && lost() == 0);
    put(2, key, 'a');
    pass(1000);
    CHECK(has(2, key)); /* it is done once */
    end();
}

/* Nobody calls the new owner for anything else. */
static void connects_to_the_heir_for_it(void)
{
    begin();
    const char *key = key_of(1, 0);
    put(1, key, 'a');
    CHECK(reads(key) && deletes(key));
    pass(1000);
    put(2, key, 'a');
    lose(1);
    give(slot_of(key), slot_of(key), 2);
    nodes[0].epoch = nodes[2].epoch = 2;
    pass(1500);
    CHECK(!has(2, key) && lost() == 0);
    end();
}

static void a_newer_value_at_the_heir_stays(void)
{
    begin();
    const char *key = key_of(1, 0), *plain = key_of(1, 1);
    put(1, key, 'a');
    write_at(1, plain);
    CHECK(reads(key) && reads(plain));
    CHECK(deletes(key) && deletes(plain));
    pass(1000);
    put(2, key, 'c');
    write_at(2, plain);
    lose(1);
    take_over(1, 2);
    pass(1500);
    CHECK(has(2, key) && has(2, plain));
    CHECK(lost() == 0); /* the heir was no replica of the other one: nothing says they are lost */
    end();
}

/* The delete is under way when its slot goes. Which node has done it is not known: it is done at
   the heir again. */
static void a_delete_whose_slot_moves_meanwhile_is_done_at_both(void)
{
    begin();
    const char *key = key_of(1, 0);
    put(1, key, 'a');
    CHECK(reads(key));
    pass(1000);
    nodes[1].mute = true;
    struct rc_op *op = start_of(0, RC_OP_DELETE, "UNLINK", key);
    CHECK(op->run.is_running && !has(1, key));
    put(2, key, 'a');
    give(slot_of(key), slot_of(key), 2);
    if (!engine.cluster.is_on) /* no memory */
        exit(1);
    rc_cluster_want(&engine.cluster);
    pass(1000);
    CHECK(op->run.is_running && has(2, key));
    nodes[1].mute = false;
    pass(200);
    CHECK(is_number(op, 1) && !has(2, key) && lost() == 0);
    end();
}

/* It goes there and back, and each time it has another server. */
static void notes_follow_a_slot_that_moves_on(void)
{
    begin();
    const char *key = key_of(1, 0);
    put(1, key, 'a');
    CHECK(reads(key) && deletes(key));
    for (int heir = 2; heir >= 0; heir--) {
        pass(1000);
        put(heir, key, 'a');
        give(slot_of(key), slot_of(key), heir);
        (void)reads(key); /* is sent elsewhere, and may be faster */
        pass(100);
        CHECK(!has(heir, key));
    }
    CHECK(lost() == 0);
    end();
}

/* What was seen of a key before its slot has moved is known behind it. */
static void versions_go_along(void)
{
    begin();
    const char *key = key_of(1, 0);
    put(1, key, 'a');
    CHECK(reads(key));
    pass(1000);
    put(2, key, 'a');
    give(slot_of(key), slot_of(key), 2);
    CHECK(deletes(key));
    put(0, key, 'a');
    give(slot_of(key), slot_of(key), 0);
    (void)reads(key); /* is sent elsewhere, and may be faster */
    pass(100);
    CHECK(!has(0, key));
    end();
}

/* A replica that we were connected to is a master now, and is asked first whether it is. */
static void an_heir_that_was_connected_as_a_replica_is_asked(void)
{
    begin();
    const char *key = key_of(1, 0);
    put(1, key, 'a');
    rc_store_set_role(nodes[2].store, RC_STORE_REPLICA);
    nodes[2].is_replica = true;
    CHECK(!reads(key_of(2, 0)));
    CHECK(reads(key) && deletes(key));
    pass(1000);
    put(2, key, 'a');
    rc_store_set_role(nodes[2].store, RC_STORE_MASTER);
    nodes[2].is_replica = false;
    lose(1);
    take_over(1, 2);
    pass(1500);
    CHECK(!has(2, key));
    end();
}

static void nobody_calls_a_node_that_left(void)
{
    begin();
    for (int i = 0; i < NODES; i++)
        start(0, 0, "INCR", key_of(i, 0));
    pass(1000);
    lose(0); /* the url's */
    give(0, RC_SLOT_COUNT / NODES - 1, 1);
    nodes[1].epoch = nodes[2].epoch = 2;
    pass(2000);
    int before = questions();
    pass(5000);
    CHECK(questions() == before);
    RC_TOPOLOGY_EACH(link, &engine.topology) {
        CHECK(node_of(link) != &nodes[0] || link->state == RC_LINK_IDLE);
    }
    struct rc_op *op = begin_call(0, 0);
    ASK(op, "PING"); /* of no slot */
    submit(op);
    CHECK(!op->run.is_running && op->result.status == 0);
    end();
}

static void addresses_that_change_do_not_pile_up(void)
{
    begin();
    CHECK(is_number(start(0, 0, "INCR", key_of(0, 0)), 1));
    struct rc_topology *topology = &engine.topology;
    uint16_t count = topology->other_count;
    for (uint16_t i = 0; i < 100; i++) {
        int number = rc_topology_find(topology, "127.0.0.2", 8000 + i);
        if (number < 0)
            exit(1);
        CHECK(number > 0 && rc_topology_at(topology, (uint16_t)number)->address.port == 8000 + i);
        uint16_t slot = (uint16_t)(i % 2);
        rc_topology_assign(topology, slot, slot, number); /* until the next but one */
    }
    CHECK(topology->other_count <= count + 3);
    end();
}

static void there_is_a_bound_to_addresses(void)
{
    begin();
    struct rc_topology *topology = &engine.topology;
    int refused = 0;
    for (uint16_t i = 0; i < 2 * RC_NODES_MAX; i++) {
        int number = rc_topology_find(topology, "127.0.0.2", 8000 + i);
        refused += number < 0;
        if (number >= 0)
            rc_topology_assign(topology, i, i, number);
    }
    CHECK(refused == RC_NODES_MAX + 1 && topology->other_count == RC_NODES_MAX - 1);
    end();
}

static void a_cluster_that_was_made_new_is_believed_in_the_end(void)
{
    begin();
    const char *key = key_of(0, 0);
    for (int i = 0; i < NODES; i++)
        nodes[i].epoch = 9;
    start(0, 0, "INCR", key);
    pass(1000);
    CHECK(engine.cluster.epoch == 9);
    for (int i = 0; i < NODES; i++)
        nodes[i].epoch = 3;
    give(slot_of(key), slot_of(key), 1);
    start(0, 0, "INCR", key);
    pass(15000);
    CHECK(engine.cluster.epoch == 9);
    pass(10000);
    CHECK(engine.cluster.epoch == 3);
    int before = questions();
    pass(5000);
    CHECK(questions() == before);
    end();
}

static void a_lent_connection_stays_where_it_is_while_slots_move(void)
{
    begin();
    struct rc_lent lent = {0};
    const char *key = key_of(0, 0);
    CHECK(is_number(start(0, 0, "INCR", key), 1));
    pass(1000);
    struct rc_op *op = &ops[1];
    rc_op_reset(op, RC_OP_BORROW);
    op->ask.lent = &lent;
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
    rc_engine_set_time(&engine, now_us);
    rc_engine_submit(&engine, op); /* its connection is not ready yet */
    give(0, RC_SLOT_COUNT / NODES - 1, 1);
    nodes[0].epoch = nodes[1].epoch = nodes[2].epoch = 2;
    rc_topology_assign(&engine.topology, 0, RC_SLOT_COUNT / NODES - 1,
                       rc_topology_find(&engine.topology, "127.0.0.1", FIRST_PORT + 1));
    rc_topology_reroute(&engine.topology);
    run();
    CHECK(!op->run.is_running && op->result.status == 0 && lent.spare != NULL);
    rc_engine_take_back(&engine, &lent);
    rc_buf_clear(&op->ask.key);
    end();
}

/* ---- locks ----------------------------------------------------------------------------------- */

enum { LOCK_TTL_MS = 3000 };

static struct rc_lock lock; /* one at a time */

static int lock_state(void)
{
    return atomic_load_explicit(&lock.state, memory_order_relaxed);
}

/* Where an allocation is refused (alloc_fail.h) it may go on for a while. */
static void pass_to_end(const struct rc_op *op)
{
    for (int i = 0; op->run.is_running && CHECK(i < LOCK_TTL_MS); i++)
        pass(1);
}

static void do_lock_for(enum rc_op_kind kind, int64_t ttl_ms)
{
    struct rc_op *op = &ops[1];
    rc_op_reset(op, kind);
    op->ask.lock = &lock;
    op->ask.lock_options.ttl_ms = ttl_ms;
    submit(op);
    CHECK(!op->run.is_running && op->result.status == 0);
    pass_to_end(op);
}

static void do_lock(enum rc_op_kind kind)
{
    do_lock_for(kind, LOCK_TTL_MS);
}

/* The map is known, and a lock is held at the first node. */
static const char *begin_held(void)
{
    begin();
    const char *key = key_of(0, 0);
    start(0, 0, "INCR", key_of(0, 1));
    pass(1000);
    must(rc_lock_init(&lock, key, strlen(key)));
    do_lock(RC_OP_LOCK_ACQUIRE);
    CHECK(lock_state() == RC_LOCK_HELD);
    return key;
}

static void end_held(void)
{
    rc_engine_drop_lock(&engine, &lock);
    end();
    rc_lock_deinit(&lock);
}

/* The other two give the slot to the second one, and the first one does not hear of it. */
static void give_behind_its_back(const char *key)
{
    uint16_t slot = slot_of(key);
    nodes[1].answers[slot] = OWNS;
    nodes[2].target[slot] = 1;
    nodes[1].epoch = nodes[2].epoch = 2;
}

static void a_lock_is_lost_though_a_master_that_is_cut_off_renews_it(void)
{
    const char *key = begin_held();
    give_behind_its_back(key);
    pass(LOCK_TTL_MS / 2);
    CHECK(lock_state() == RC_LOCK_LOST);
    CHECK(nodes[0].map_questions <= 1); /* the first of all */
    end_held();
}

static void a_lock_that_the_heir_has_is_kept_there(void)
{
    const char *key = begin_held();
    const struct rc_store_change change = {.key = key,
                                           .key_len = strlen(key),
                                           .value = lock.token,
                                           .value_len = RC_TOKEN_SIZE,
                                           .expires_ms = RC_STORE_NEVER};
    must(rc_store_apply(nodes[1].store, &change));
    give_behind_its_back(key);
    pass(LOCK_TTL_MS / 2);
    int commands = nodes[0].commands;
    CHECK(lock_state() == RC_LOCK_HELD);
    pass(2 * LOCK_TTL_MS);
    CHECK(lock_state() == RC_LOCK_HELD && nodes[0].commands == commands);
    end_held();
}

static void who_takes_locks_all_the_time_asks_the_others_once_a_second(void)
{
    begin_held();
    int before = questions(), own = nodes[0].map_questions;
    for (int i = 0; i < 500; i++) {
        do_lock(RC_OP_LOCK_RELEASE);
        do_lock(RC_OP_LOCK_ACQUIRE);
        pass(10);
    }
    CHECK(questions() - before >= 4 && questions() - before <= 5);
    CHECK(nodes[0].map_questions == own);
    CHECK(nodes[1].map_questions >= 2 && nodes[2].map_questions >= 2);
    end_held();
}

/* One that cannot be reached keeps nobody from asking the other one. */
static void a_lock_is_confirmed_by_a_master_that_can_be_reached(void)
{
    const char *key = begin_held();
    nodes[1].refuses = true;
    pass(LOCK_TTL_MS);
    CHECK(lock_state() == RC_LOCK_HELD);
    give_behind_its_back(key);
    nodes[1].refuses = false;
    pass(LOCK_TTL_MS);
    CHECK(lock_state() == RC_LOCK_LOST);
    end_held();
}

/* Of two masters the one that is asked to confirm the other one's lock sees no majority, and was
   replaced: what it says is no map. */
static void a_lock_keeps_nobody_from_learning_the_map(void)
{
    begin_held();
    const char *key = key_of(1, 0);
    give(2 * RC_SLOT_COUNT / NODES, RC_SLOT_COUNT - 1, 0);
    nodes[0].epoch = nodes[1].epoch = nodes[2].epoch = 2;
    pass(LOCK_TTL_MS);
    do_lock(RC_OP_LOCK_RELEASE);
    do_lock_for(RC_OP_LOCK_ACQUIRE, 600); /* its every renewal asks the others */
    CHECK(is_number(start(0, 0, "INCR", key), 1));
    give(RC_SLOT_COUNT / NODES, 2 * RC_SLOT_COUNT / NODES - 1, 2);
    nodes[0].epoch = nodes[2].epoch = 3;
    nodes[1].answers[slot_of(key)] = IS_DOWN;
    nodes[1].fails = true;
    struct rc_op *op = start(0, 0, "INCR", key);
    pass(TIMEOUT_MS - 100);
    CHECK(is_number(op, 1) && lock_state() == RC_LOCK_HELD);
    end_held();
}

static void what_may_have_been_done_is_not_repeated(void)
{
    begin();
    for (int i = 0; i < NODES; i++)
        start(0, 0, "INCR", key_of(i, 0));
    pass(1000);
    nodes[1].mute = true;
    struct rc_op *once = start(1, 0, "INCR", key_of(1, 0));
    struct rc_op *again = start(2, RC_RETRY, "GET", key_of(1, 0));
    CHECK(once->run.is_running && again->run.is_running);
    lose(1);
    give(RC_SLOT_COUNT / NODES, 2 * RC_SLOT_COUNT / NODES - 1, 2);
    nodes[0].epoch = nodes[2].epoch = 2;
    pass(1500);
    CHECK(!once->run.is_running && once->result.status == RC_ERR_UNKNOWN);
    CHECK(!again->run.is_running && again->result.status == 0);
    end();
}

static void what_waits_ends_with_the_client(void)
{
    begin();
    const char *key = key_of(0, 0);
    nodes[0].answers[slot_of(key)] = TRIES_AGAIN;
    struct rc_op *op = start(0, 0, "INCR", key);
    CHECK(op->run.is_running);
    end();
    CHECK(op->result.status == RC_ERR_CLOSED);
}

static void a_caller_that_leaves_takes_back_what_waits(void)
{
    begin();
    const char *key = key_of(0, 0);
    nodes[0].answers[slot_of(key)] = TRIES_AGAIN;
    struct rc_op *op = start(0, 0, "INCR", key);
    pass(10);
    rc_engine_drop(&engine, op);
    int commands = nodes[0].commands;
    nodes[0].answers[slot_of(key)] = OWNS;
    pass(500);
    CHECK(nodes[0].commands == commands);
    CHECK(is_number(start(0, 0, "INCR", key), 1));
    end();
}

/* ---- near copies ----------------------------------------------------------------------------- */

enum { STALE_US = 200 * 1000 };

static void begin_near(void)
{
    const struct rc_near_options options = {
        .bytes = 1 << 20, .server = 1, .stripes = 1, .clock = &near_clock};
    const char *why;
    near_clock = INT64_C(1000) * 1000 * 1000;
    if (!CHECK(rc_near_open(&near, &options, &why) == 0))
        exit(1);
    begin();
}

static bool is_near(const char *key)
{
    static char buffer[100];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    return rc_near_lookup(near, "", 0, key, strlen(key), STALE_US, &value) == RC_NEAR_HIT;
}

static struct rc_op *get(int number, const char *key)
{
    struct rc_op *op = &ops[number];
    if (op->run.is_running)
        exit(1);
    rc_op_reset(op, RC_OP_GET);
    op->ask.near = true;
    op->ask.expect = 2;
    rc_buf_clear(&op->ask.key);
    must(rc_buf_append(&op->ask.key, key, strlen(key)));
    submit(op);
    return op;
}

/* Somebody else writes at that node, whatever the client thinks of it. */
static void write_at(int node, const char *key)
{
    struct rc_store_conn *conn;
    struct rc_buf request;
    rc_buf_init(&request);
    must(rc_store_connect(nodes[node].store, &conn));
    must(rc_command_head(&request, 3));
    must(rc_command_text(&request, "SET"));
    must(rc_command_text(&request, key));
    must(rc_command_text(&request, "value"));
    must(rc_store_feed(conn, rc_buf_head(&request), rc_buf_len(&request)));
    rc_store_disconnect(conn);
    rc_buf_deinit(&request);
}

/* Reads the key, at its node, until its copy is served. */
static bool becomes_near(int node, const char *key)
{
    write_at(node, key);
    for (int i = 0; i < 100 && !is_near(key); i++) {
        get(0, key);
        pass(5);
    }
    return is_near(key);
}

/* Reads it as somebody does who wants it near. */
static bool stays_near(const char *key, int64_t ms)
{
    bool stays = true;
    for (int64_t i = 0; i < ms; i++) {
        stays &= is_near(key);
        pass(1);
    }
    return stays;
}

static void is_kept_near_once_the_masters_agree(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    write_at(0, key);
    get(0, key);
    CHECK(!is_near(key)); /* nobody was asked yet */
    CHECK(becomes_near(0, key) && becomes_near(1, key_of(1, 0)) && becomes_near(2, key_of(2, 0)));
    CHECK(stays_near(key, 1000));
    write_at(0, key); /* a push */
    pass(1);
    CHECK(!is_near(key));
    end();
}

/* A client that knows the node of the url alone cannot tell what a majority is. */
static void nothing_is_kept_near_before_the_map_is_known(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    write_at(0, key);
    nodes[0].denies = true;
    get(0, key); /* asks for the map, and is denied it */
    nodes[0].denies = false;
    nodes[1].answers[slot_of(key)] = OWNS;
    nodes[2].target[slot_of(key)] = 1;
    nodes[1].epoch = nodes[2].epoch = 2;
    int hits = 0;
    for (int i = 0; i < 200; i++) {
        get(0, key);
        pass(5);
        hits += is_near(key);
    }
    CHECK(hits == 0);
    give(slot_of(key), slot_of(key), 1); /* the first one hears of it at last */
    CHECK(becomes_near(1, key));
    end();
}

static void a_slot_that_another_node_claims_is_not_served(void)
{
    begin_near();
    const char *lost = key_of(0, 0), *other = key_of(0, 1);
    CHECK(becomes_near(0, lost) && becomes_near(0, other));
    /* The old owner knows nothing of it, and answers what it is asked. */
    nodes[1].answers[slot_of(lost)] = OWNS;
    int64_t since_us = now_us;
    while (is_near(lost) && now_us - since_us < 1000000) {
        (void)is_near(other);
        pass(1);
    }
    CHECK(now_us - since_us <= STALE_US / 2);
    CHECK(is_near(other));
    get(0, lost);
    CHECK(!is_near(lost));
    CHECK(is_near(other) && stays_near(other, 1000));
    CHECK(engine.context.stats.map_refreshes >= 2);
    /* All agree again. */
    give(slot_of(lost), slot_of(lost), 0);
    pass(500);
    CHECK(becomes_near(0, lost));
    end();
}

static void a_slot_that_we_are_sent_elsewhere_for_is_dropped(void)
{
    begin_near();
    const char *key = key_of(0, 0), *neighbour = key_of(0, 1);
    CHECK(becomes_near(0, key) && becomes_near(0, neighbour));
    give(slot_of(key), slot_of(key), 1);
    CHECK(is_number(start(1, 0, "EXISTS", key), 0)); /* a MOVED */
    int64_t since_us = now_us;
    while (is_near(key) && now_us - since_us < 1000000) {
        (void)is_near(neighbour);
        pass(1);
    }
    CHECK(now_us - since_us <= STALE_US / 2 && is_near(neighbour));
    CHECK(becomes_near(1, key));
    end();
}

static void a_majority_must_agree(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    CHECK(becomes_near(0, key) && stays_near(key, 300));
    nodes[2].mute = true; /* one of three may be silent */
    CHECK(stays_near(key, 1000));
    nodes[1].mute = true;
    int64_t since_us = now_us;
    while (is_near(key) && now_us - since_us < 1000000)
        pass(1);
    CHECK(now_us - since_us <= STALE_US + 1000);
    end();
}

static void a_node_that_sees_no_majority_is_no_voice(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    CHECK(becomes_near(0, key) && stays_near(key, 300));
    nodes[1].fails = nodes[2].fails = true;
    int64_t since_us = now_us;
    while (is_near(key) && now_us - since_us < 1000000)
        pass(1);
    CHECK(now_us - since_us <= STALE_US + 1000);
    end();
}

static void a_node_that_took_slots_over_is_read_again(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    CHECK(becomes_near(0, key) && stays_near(key, 300));
    /* A slot has left and come back between two questions. */
    nodes[0].own_epoch = 9;
    int64_t since_us = now_us;
    while (is_near(key) && now_us - since_us < 1000000)
        pass(1);
    CHECK(now_us - since_us <= STALE_US / 2);
    CHECK(becomes_near(0, key));
    end();
}

/* Passes time until the node has been asked for the map once more. */
static void pass_to_question(int node)
{
    int before = nodes[node].map_questions;
    for (int i = 0; i < STALE_US / 1000 && nodes[node].map_questions == before; i++)
        pass(1);
    CHECK(nodes[node].map_questions > before);
}

/* All of the answers name the same owner, but the slot was away between them. */
static void a_slot_that_was_away_between_the_answers_is_read_again(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    CHECK(becomes_near(0, key) && stays_near(key, 300));
    nodes[1].mute = nodes[2].mute = true;
    pass_to_question(0);
    CHECK(is_near(key));
    nodes[0].own_epoch = 9;
    nodes[1].mute = nodes[2].mute = false;
    run();
    CHECK(!is_near(key));
    CHECK(becomes_near(0, key) && stays_near(key, 300));
    end();
}

/* It may know what the others do not: so it is heard, unless it is away for longer. */
static void a_master_that_is_being_connected_to_is_waited_for(void)
{
    begin_near();
    const char *key = key_of(0, 0);
    nodes[2].silent = true;
    int64_t since_us = now_us;
    while (!becomes_near(0, key) && now_us - since_us < INT64_C(5000) * 1000)
        continue;
    CHECK(now_us - since_us >= INT64_C(1000) * 1000 && now_us - since_us < INT64_C(2000) * 1000);
    (void)stays_near(key, 300); /* rounds become as frequent as its readers want them */
    CHECK(stays_near(key, 300));
    end();
}

/* The slot may have left behind the read, and come back before the node answers for the map. */
static void what_was_read_before_the_epoch_is_not_kept(void)
{
    begin_near();
    const char *near_by = key_of(0, 0), *key = key_of(0, 1);
    CHECK(becomes_near(0, near_by) && stays_near(near_by, 300));
    write_at(0, key);
    nodes[0].mute = true;
    nodes[0].own_epoch = 9;
    get(1, key);
    (void)is_near(near_by);
    pass_to_question(0);
    nodes[0].mute = false;
    run();
    CHECK(!ops[1].run.is_running && ops[1].result.kind == RC_KIND_PLAIN);
    CHECK(!is_near(key));
    CHECK(becomes_near(1, key));
    end();
}

int main(void)
{
    TEST(is_kept_near_once_the_masters_agree);
    TEST(nothing_is_kept_near_before_the_map_is_known);
    TEST(a_slot_that_another_node_claims_is_not_served);
    TEST(a_slot_that_we_are_sent_elsewhere_for_is_dropped);
    TEST(a_majority_must_agree);
    TEST(a_node_that_sees_no_majority_is_no_voice);
    TEST(a_node_that_took_slots_over_is_read_again);
    TEST(a_slot_that_was_away_between_the_answers_is_read_again);
    TEST(a_master_that_is_being_connected_to_is_waited_for);
    TEST(what_was_read_before_the_epoch_is_not_kept);
    TEST(learns_the_map_with_its_first_connection);
    TEST(a_moved_corrects_its_slot_at_once_and_refreshes_once);
    TEST(many_that_are_sent_elsewhere_are_no_storm);
    TEST(asks_another_one_than_who_sees_no_majority);
    TEST(who_may_not_see_the_map_is_told_so);
    TEST(takes_no_map_that_is_older_or_of_a_minority);
    TEST(begins_at_a_listed_node_by_chance);
    TEST(passes_over_those_that_refuse_at_once);
    TEST(those_that_are_silent_share_the_time);
    TEST(tells_which_address_fails_and_does_not_hurry_round);
    TEST(refuses_a_listed_server_that_is_alone);
    TEST(asks_the_listed_once_all_that_it_knows_are_lost);
    TEST(asks_the_listed_where_one_knows_no_good_map);
    TEST(a_borrowed_connection_looks_for_a_node_too);
    TEST(asks_where_it_is_told_to_and_the_owner_stays);
    TEST(sends_of_a_batch_what_was_not_done);
    TEST(asks_the_master_of_a_slot_about_itself);
    TEST(pauses_for_as_long_as_it_is_told);
    TEST(waits_where_a_slot_is_not_whole);
    TEST(does_not_go_round_for_ever);
    TEST(what_waits_for_a_lost_master_goes_to_its_heir);
    TEST(a_master_that_was_never_reached_has_an_heir_too);
    TEST(a_node_that_comes_back_as_a_replica_is_asked);
    TEST(what_is_under_way_outlives_a_change_of_role);
    TEST(a_lost_delete_is_done_again_at_the_heir);
    TEST(connects_to_the_heir_for_it);
    TEST(a_newer_value_at_the_heir_stays);
    TEST(a_delete_whose_slot_moves_meanwhile_is_done_at_both);
    TEST(notes_follow_a_slot_that_moves_on);
    TEST(versions_go_along);
    TEST(an_heir_that_was_connected_as_a_replica_is_asked);
    TEST(nobody_calls_a_node_that_left);
    TEST(addresses_that_change_do_not_pile_up);
    TEST(there_is_a_bound_to_addresses);
    TEST(a_cluster_that_was_made_new_is_believed_in_the_end);
    TEST(a_lent_connection_stays_where_it_is_while_slots_move);
    TEST(a_lock_is_lost_though_a_master_that_is_cut_off_renews_it);
    TEST(a_lock_that_the_heir_has_is_kept_there);
    TEST(who_takes_locks_all_the_time_asks_the_others_once_a_second);
    TEST(a_lock_is_confirmed_by_a_master_that_can_be_reached);
    TEST(a_lock_keeps_nobody_from_learning_the_map);
    TEST(what_may_have_been_done_is_not_repeated);
    TEST(what_waits_ends_with_the_client);
    TEST(a_caller_that_leaves_takes_back_what_waits);
    return test_result();
}
