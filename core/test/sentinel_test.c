/* A client of three scripted sentinels, and of masters that are embedded stores. */
#include "engine/sentinel.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/command.h"
#include "engine/script.h"
#include "store/store.h"
#include "test/bed.h"
#include "test/test.h"

enum {
    VOTERS = 3,
    NODES = 2,
    OPS = 4,
    CONNS = 16,
    VOTER_PORT = 26379,
    NODE_PORT = 7000,
    TIMEOUT_MS = 500
};

/* What a sentinel answers; a number from 0 on: the node of that number. */
enum { NULL_MASTER = -1, NO_RIGHT = -2 };

struct voter {
    int names;
    bool mute;         /* takes commands and does not answer them */
    bool refuses;      /* nobody can connect */
    const char *hello; /* what HELLO is answered */
    bool no_news;      /* SUBSCRIBE is not allowed */
    int questions, subscriptions;
};

struct node {
    struct rc_store *store;
    bool refuses, mute;
    int connects, commands;
};

struct conn {
    struct rc_store_conn *conn; /* of a node */
    int place;                  /* where it leads to, by port; 0: it is closed */
    struct rc_buf input, output;
};

static struct bed bed;
static struct voter voters[VOTERS];
static struct node nodes[NODES];
static struct conn conns[CONNS];
static struct rc_near *near;
static struct rc_op ops[OPS];
static struct rc_lent lent;

/* ---- servers --------------------------------------------------------------------------------- */

static void say(struct conn *conn, const char *text)
{
    bed_must(rc_buf_append(&conn->output, text, strlen(text)));
}

/* Of the first command there; it is whole, and has been encoded by us. */
static size_t command_len(const char *bytes)
{
    char *at;
    long count = strtol(bytes + 1, &at, 10);
    for (at += 2; count > 0; count--) {
        long len = strtol(at + 1, &at, 10);
        at += 2 + len + 2;
    }
    return (size_t)(at - bytes);
}

static bool has(const char *command, const char *word)
{
    return strstr(command, word) != NULL;
}

static void answer_as_sentinel(struct voter *voter, struct conn *conn, const char *command)
{
    char text[100];
    if (has(command, "HELLO")) {
        say(conn, voter->hello);
    } else if (has(command, "PING")) {
        say(conn, "+PONG\r\n");
    } else if (has(command, "SUBSCRIBE")) {
        voter->subscriptions++;
        say(conn, voter->no_news ? "-NOPERM no permissions to run 'subscribe'\r\n"
                                 : ">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n");
    } else if (has(command, "SENTINEL")) {
        voter->questions++;
        CHECK(has(command, "$8\r\nmymaster\r\n"));
        if (voter->names == NULL_MASTER) {
            say(conn, "_\r\n");
        } else if (voter->names == NO_RIGHT) {
            say(conn, "-NOPERM no permissions to run 'sentinel'\r\n");
        } else {
            snprintf(text, sizeof text, "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n%d\r\n",
                     NODE_PORT + voter->names);
            say(conn, text);
        }
    } else {
        CHECK(!"a sentinel is asked for nothing else");
    }
}

static void answer_as_node(struct node *node, struct conn *conn, const char *command, size_t len)
{
    node->commands += !has(command, "HELLO") && !has(command, "INFO") && !has(command, "PING") &&
                      !has(command, "SELECT") && !has(command, "TRACKING");
    bed_must(rc_store_feed(conn->conn, command, len));
}

static struct voter *voter_at(int place)
{
    return place >= VOTER_PORT ? &voters[place - VOTER_PORT] : NULL;
}

static struct node *node_at(int place)
{
    return place < VOTER_PORT ? &nodes[place - NODE_PORT] : NULL;
}

static void serve(struct conn *conn)
{
    struct voter *voter = voter_at(conn->place);
    if (voter != NULL ? voter->mute : node_at(conn->place)->mute)
        return;
    while (rc_buf_len(&conn->input) > 0) {
        size_t len = command_len(rc_buf_head(&conn->input));
        char *command = malloc(len + 1);
        if (command == NULL)
            exit(1);
        memcpy(command, rc_buf_head(&conn->input), len);
        command[len] = '\0';
        if (voter != NULL)
            answer_as_sentinel(voter, conn, command);
        else
            answer_as_node(node_at(conn->place), conn, command, len);
        free(command);
        rc_buf_consume(&conn->input, len);
    }
    if (voter != NULL)
        return;
    bed_must(rc_buf_append(&conn->output, rc_buf_head(&conn->conn->output),
                           rc_buf_len(&conn->conn->output)));
    rc_buf_clear(&conn->conn->output);
}

/* ---- the bed --------------------------------------------------------------------------------- */

static void hang_up(struct conn *conn)
{
    if (conn->conn != NULL)
        rc_store_disconnect(conn->conn);
    conn->conn = NULL;
    conn->place = 0;
    rc_buf_clear(&conn->input);
    rc_buf_clear(&conn->output);
}

static void connect_link(struct rc_link *link, struct conn *conn)
{
    int place = link->address->port;
    struct voter *voter = voter_at(place);
    if (voter != NULL ? voter->refuses : node_at(place)->refuses) {
        rc_link_lost(link, "connection refused");
        return;
    }
    conn->place = place;
    if (voter == NULL) {
        node_at(place)->connects++;
        bed_must(rc_store_connect(node_at(place)->store, &conn->conn));
    }
    rc_link_opened(link);
}

static bool move(struct rc_link *link)
{
    struct conn *conn = &conns[link->number];
    bool moved = link->wants_close || link->wants_open;
    if (link->wants_close) {
        link->wants_close = false;
        hang_up(conn);
    } else if (link->wants_open) {
        link->wants_open = false;
        hang_up(conn);
        connect_link(link, conn);
    }
    size_t len = rc_buf_len(&link->output);
    if (conn->place == 0)
        return moved;
    if (len > 0) {
        bed_must(rc_buf_append(&conn->input, rc_buf_head(&link->output), len));
        rc_link_sent(link, len);
        moved = true;
    }
    serve(conn);
    return bed_deliver(link, &conn->output) || moved;
}

static void name_all(int number)
{
    for (int i = 0; i < VOTERS; i++)
        voters[i].names = number;
}

static const char HELLO[] = "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n"
                            "$4\r\nmode\r\n$8\r\nsentinel\r\n";

static void begin(void)
{
    rc_options options = bed_options();
    struct rc_near_options near_options = {.bytes = 1 << 20, .clock = &bed.now_us};
    const char *why, url[] = "redis+sentinel://127.0.0.1:26381,127.0.0.1,127.0.0.1:26380/mymaster";
    options.command_timeout_ms = TIMEOUT_MS;
    options.max_lent = 2;
    memset(nodes, 0, sizeof nodes);
    memset(voters, 0, sizeof voters);
    memset(&lent, 0, sizeof lent);
    bed_must(rc_near_open(&near, &near_options, &why));
    for (int i = 0; i < VOTERS; i++)
        voters[i].hello = HELLO;
    for (int i = 0; i < NODES; i++) {
        const struct rc_store_options store_options = {.seed = {{1, (uint64_t)i}}};
        bed_must(rc_store_new(&nodes[i].store, &store_options));
    }
    rc_store_set_role(nodes[1].store, RC_STORE_REPLICA);
    bed_init(&bed, move, url, &options, near);
    for (int i = 0; i < OPS; i++)
        bed_must(rc_op_init(&ops[i]));
}

static void end(void)
{
    bed_close(&bed);
    for (int i = 0; i < CONNS; i++)
        hang_up(&conns[i]);
    bed_deinit(&bed);
    rc_near_close(near);
    for (int i = 0; i < CONNS; i++) {
        rc_buf_deinit(&conns[i].input);
        rc_buf_deinit(&conns[i].output);
    }
    for (int i = 0; i < OPS; i++)
        rc_op_deinit(&ops[i]);
    for (int i = 0; i < NODES; i++)
        rc_store_free(nodes[i].store);
}

static struct rc_op *begin_op(int number, enum rc_op_kind kind)
{
    struct rc_op *op = &ops[number];
    if (op->run.is_running) /* no memory: it waits for another connection */
        exit(1);
    rc_op_reset(op, kind);
    op->ask.script = -1;
    rc_buf_clear(&op->ask.key);
    rc_buf_clear(&op->ask.request);
    return op;
}

static struct rc_op *submit(struct rc_op *op)
{
    bed_submit(&bed, op);
    bed_run(&bed);
    return op;
}

static struct rc_op *command(int number, const char *verb, const char *key, const char *value)
{
    struct rc_op *op = begin_op(number, RC_OP_COMMAND);
    bed_must(rc_command_head(&op->ask.request, value != NULL ? 3 : 2));
    bed_must(rc_command_text(&op->ask.request, verb));
    bed_must(rc_command_text(&op->ask.request, key));
    if (value != NULL)
        bed_must(rc_command_text(&op->ask.request, value));
    op->ask.expect = 1;
    return submit(op);
}

static struct rc_op *set(int number, const char *value)
{
    return command(number, "SET", "k", value);
}

/* Over T, and kept. */
static struct rc_op *read_near(int number)
{
    struct rc_op *op = begin_op(number, RC_OP_GET);
    bed_must(rc_buf_append(&op->ask.key, "k", 1));
    op->ask.expect = 2;
    op->ask.near = true;
    return submit(op);
}

static bool is_good(const struct rc_op *op)
{
    return !op->run.is_running && op->result.status == 0;
}

static bool has_failed(const struct rc_op *op, int status, const char *why)
{
    char text[300];
    if (op->run.is_running || op->result.status != status)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)(op->result.len < 299 ? op->result.len : 299),
             op->result.data != NULL ? op->result.data : "");
    return strstr(text, why) != NULL;
}

static const char *cause(void)
{
    static rc_health health;
    rc_engine_get_health(&bed.engine, &health);
    return health.cause;
}

static int questions(void)
{
    return voters[0].questions + voters[1].questions + voters[2].questions;
}

/* ---- who is the master ----------------------------------------------------------------------- */

static void asks_nobody_until_somebody_needs_it(void)
{
    begin();
    bed_pass(&bed, 2000);
    CHECK(questions() == 0 && nodes[0].connects == 0 && cause()[0] == '\0');
    CHECK(is_good(set(0, "one")) && questions() == 3 && nodes[0].connects > 0);
    CHECK(nodes[1].connects == 0 && cause()[0] == '\0');
    end();
}

static void goes_where_a_majority_says(void)
{
    begin();
    rc_store_set_role(nodes[1].store, RC_STORE_MASTER);
    name_all(1);
    voters[0].names = 0;
    CHECK(is_good(set(0, "one")) && nodes[0].connects == 0 && nodes[1].commands == 1);
    end();
}

static void needs_a_majority_of_all_that_the_url_names(void)
{
    begin();
    voters[1].refuses = voters[2].refuses = true;
    struct rc_op *op = set(0, "one");
    bed_pass(&bed, TIMEOUT_MS - 10);
    CHECK(op->run.is_running && nodes[0].connects == 0);
    bed_pass(&bed, 20);
    CHECK(has_failed(op, RC_ERR_UNAVAILABLE,
                     "1 of 3 sentinels answer, and 2 have to; "
                     "'127.0.0.1:2638"));
    CHECK(strstr(cause(), "connection refused") != NULL);
    /* Away for longer than the next one would wait. */
    CHECK(has_failed(set(1, "two"), RC_ERR_UNAVAILABLE, "1 of 3"));
    voters[1].refuses = false;
    bed_pass(&bed, 1000);
    CHECK(is_good(set(2, "three")) && cause()[0] == '\0');
    end();
}

static void says_that_they_do_not_agree(void)
{
    begin();
    voters[1].names = 1;
    voters[2].mute = true;
    struct rc_op *op = set(0, "one");
    bed_pass(&bed, TIMEOUT_MS + 10);
    CHECK(has_failed(op, RC_ERR_UNAVAILABLE, "do not agree on the master 'mymaster'"));
    CHECK(nodes[0].connects == 0 && nodes[1].connects == 0);
    end();
}

static void says_at_once_that_they_know_no_such_master(void)
{
    begin();
    name_all(NULL_MASTER);
    CHECK(has_failed(set(0, "one"), RC_ERR_REDIS, "the sentinels know no master 'mymaster'"));
    CHECK(strstr(cause(), "know no master") != NULL);
    name_all(0);
    bed_pass(&bed, 300);
    CHECK(is_good(set(1, "two")));
    end();
}

static void says_within_a_period_that_they_refuse_us(void)
{
    begin();
    for (int i = 0; i < VOTERS; i++)
        voters[i].hello = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    (void)set(0, "one");
    bed_pass(&bed, 251);
    CHECK(has_failed(&ops[0], RC_ERR_REDIS, "3 of 3 sentinels refuse us, as '127.0.0.1:"));
    CHECK(has_failed(&ops[0], RC_ERR_REDIS, "WRONGPASS"));
    for (int i = 0; i < VOTERS; i++)
        voters[i].hello = HELLO;
    name_all(NO_RIGHT);
    bed_pass(&bed, 3000);
    CHECK(has_failed(set(1, "two"), RC_ERR_REDIS, "NOPERM"));
    end();
}

static void says_that_one_is_no_sentinel(void)
{
    begin();
    for (int i = 0; i < VOTERS; i++)
        voters[i].hello = "%1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n";
    (void)set(0, "one");
    bed_pass(&bed, 251);
    CHECK(has_failed(&ops[0], RC_ERR_REDIS, "this is no sentinel"));
    end();
}

static void does_without_news_where_it_may_not_subscribe(void)
{
    begin();
    for (int i = 0; i < VOTERS; i++)
        voters[i].no_news = true;
    struct rc_op *op = set(0, "one");
    bed_pass(&bed, 100);
    CHECK(is_good(op) && voters[0].subscriptions == 1);
    bed_pass(&bed, 3000);
    CHECK(voters[0].subscriptions == 1 && voters[0].questions > 10);
    end();
}

static void takes_no_replica_for_the_master(void)
{
    begin();
    name_all(1);
    struct rc_op *op = set(0, "one");
    bed_pass(&bed, 200);
    CHECK(op->run.is_running && nodes[1].connects > 1 && nodes[1].commands == 0);
    rc_store_set_role(nodes[1].store, RC_STORE_MASTER);
    bed_pass(&bed, 300);
    CHECK(is_good(op));
    end();
}

/* ---- another master -------------------------------------------------------------------------- */

static void promote(void)
{
    rc_store_set_role(nodes[1].store, RC_STORE_MASTER);
    name_all(1);
}

static void moves_within_a_period(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    bed_pass(&bed, 10);
    promote();
    bed_pass(&bed, 251);
    int before = nodes[0].commands;
    CHECK(is_good(set(1, "two")) && nodes[0].commands == before && nodes[1].commands == 1);
    end();
}

static void moves_at_once_with_news(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    bed_pass(&bed, 10);
    promote();
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        if (link->role == RC_LINK_S && link->address->port == VOTER_PORT)
            say(&conns[link->number], ">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n"
                                      "$40\r\nmymaster 127.0.0.1 7000 127.0.0.1 7001 .\r\n");
    }
    bed_run(&bed);
    CHECK(is_good(set(1, "two")) && nodes[1].commands == 1);
    end();
}

static void does_not_move_for_one_of_three(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    rc_store_set_role(nodes[1].store, RC_STORE_MASTER);
    voters[0].names = 1;
    voters[1].mute = true;
    bed_pass(&bed, 5000);
    CHECK(is_good(set(1, "two")) && nodes[1].connects == 0);
    end();
}

/* What was sent may have been done; what was not goes to the new one. */
static void tells_what_it_does_not_know(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    nodes[0].mute = true;
    struct rc_op *sent = set(0, "two");
    CHECK(sent->run.is_running);
    promote();
    bed_pass(&bed, 251);
    CHECK(has_failed(sent, RC_ERR_UNKNOWN, "") && nodes[1].commands == 0);
    CHECK(is_good(set(1, "three")));
    end();
}

static void what_waits_goes_to_the_new_one(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    nodes[0].refuses = true;
    RC_TOPOLOGY_EACH(link, &bed.engine.topology) {
        if (link->role != RC_LINK_S) {
            hang_up(&conns[link->number]);
            rc_link_lost(link, "connection reset");
        }
    }
    struct rc_op *op = set(0, "two");
    bed_pass(&bed, 100);
    CHECK(op->run.is_running);
    promote();
    bed_pass(&bed, 251);
    CHECK(is_good(op) && nodes[1].commands == 1);
    end();
}

static void a_lent_connection_does_not_move(void)
{
    begin();
    struct rc_op *op = begin_op(0, RC_OP_BORROW);
    op->ask.lent = &lent;
    CHECK(is_good(submit(op)) && lent.spare != NULL);
    promote();
    bed_pass(&bed, 300);
    CHECK(lent.spare == NULL && strstr(lent.cause, "another master") != NULL);
    rc_engine_take_back(&bed.engine, &lent);
    op = begin_op(1, RC_OP_BORROW);
    op->ask.lent = &lent;
    CHECK(is_good(submit(op)) && lent.spare != NULL);
    rc_engine_take_back(&bed.engine, &lent);
    CHECK(nodes[1].connects > 0);
    end();
}

static void a_rested_client_asks_before_it_connects(void)
{
    begin();
    CHECK(is_good(set(0, "one")));
    bed_pass(&bed, 10);
    CHECK(rc_engine_rest(&bed.engine));
    int asked = questions();
    bed_pass(&bed, 5000);
    CHECK(questions() == asked);
    promote();
    int before = nodes[0].connects;
    CHECK(is_good(set(1, "two")) && nodes[0].connects == before && nodes[1].commands == 1);
    end();
}

/* ---- near copies ----------------------------------------------------------------------------- */

static int64_t age_ms(void)
{
    return (bed.now_us - rc_engine_asof_us(&bed.engine)) / 1000;
}

static int look(void)
{
    char buffer[64];
    rc_near_value found = {.buffer = buffer, .capacity = sizeof buffer};
    return rc_near_lookup(near, "", 0, "k", 1, 1000 * 1000, &found);
}

/* As a reader does who looks at the copy all the time, and reads where there is none. */
static void read_for(int64_t ms)
{
    for (int64_t i = 0; i < ms; i += 10) {
        if (look() != RC_NEAR_HIT)
            (void)read_near(3);
        bed_pass(&bed, 10);
    }
}

static void copies_are_coherent_as_long_as_a_majority_says_so(void)
{
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    read_for(3000);
    CHECK(age_ms() <= 300);
    voters[0].mute = true;
    read_for(3000);
    CHECK(age_ms() <= 300);
    voters[1].mute = true;
    read_for(3000);
    CHECK(look() == RC_NEAR_STALE && age_ms() >= 3000); /* T answers all the while, and so does W */
    CHECK(is_good(set(0, "two")) && is_good(read_near(1)));
    CHECK(strstr(cause(), "1 of 3 sentinels answer") != NULL);
    voters[1].mute = false;
    read_for(3000);
    CHECK(age_ms() <= 300 && cause()[0] == '\0');
    end();
}

static void one_that_turns_away_knows_more(void)
{
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    read_for(1000);
    voters[2].names = 1;
    read_for(2000);
    CHECK(age_ms() >= 1700 && nodes[1].connects == 0);
    voters[2].names = 0; /* the failover was given up */
    read_for(500);
    CHECK(age_ms() <= 300);
    voters[2].names = 1; /* it is lost in the past, and stays there */
    read_for(12000);
    CHECK(age_ms() <= 300);
    end();
}

static void copies_of_the_old_master_are_void(void)
{
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    read_for(1000);
    CHECK(look() == RC_NEAR_HIT);
    const struct rc_link *t = rc_node_tracked_link(&bed.engine.topology.node);
    uint64_t epoch = t->epoch;
    promote();
    read_for(300);
    CHECK(t->epoch > epoch && t->address->port == NODE_PORT + 1);
    CHECK(is_good(read_near(1)) && ops[1].result.outcome == RC_MISS && look() == RC_NEAR_MISS);
    read_for(500);
    CHECK(age_ms() <= 300);
    end();
}

/* ---- leases and locks ------------------------------------------------------------------------ */

enum { LOCK_TTL_MS = 3000 };

static struct rc_op *acquire(int number, struct rc_lock *lock)
{
    struct rc_op *op = begin_op(number, RC_OP_LOCK_ACQUIRE);
    op->ask.lock = lock;
    op->ask.lock_options = (rc_lock_options){.ttl_ms = LOCK_TTL_MS};
    return submit(op);
}

static struct rc_op *load(int number, uint32_t flags)
{
    struct rc_op *op = begin_op(number, RC_OP_LOAD);
    bed_must(rc_buf_append(&op->ask.key, "loaded", 6));
    op->ask.load = (rc_load_options){flags, 1000, 1000, 1000, ""};
    op->ask.purpose = RC_FLIGHT_LOAD;
    op->ask.expect = 1;
    return submit(op);
}

static void mute_two(bool mute)
{
    voters[0].mute = voters[1].mute = mute;
}

/* Both connections of the client stand, and for so long only one sentinel answers. */
static void begin_with_one_for(int64_t ms)
{
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    mute_two(true);
    bed_pass(&bed, ms);
}

static void a_lock_waits_for_the_word_within_its_deadline(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin_with_one_for(900);
    CHECK(is_good(acquire(1, &lock)));
    rc_engine_drop_lock(&bed.engine, &lock);
    bed_pass(&bed, 350);
    int before = nodes[0].commands;
    CHECK(acquire(1, &lock)->run.is_running);
    bed_pass(&bed, TIMEOUT_MS - 10);
    CHECK(ops[1].run.is_running && nodes[0].commands == before);
    CHECK(is_good(set(0, "two"))); /* what is no lock goes on */
    bed_pass(&bed, 20);
    CHECK(has_failed(&ops[1], RC_ERR_UNAVAILABLE, "1 of 3 sentinels answer, and 2 have to"));
    CHECK(has_failed(acquire(1, &lock), RC_ERR_UNAVAILABLE, "1 of 3")); /* for longer than that */
    CHECK(nodes[0].commands == before + 1);
    mute_two(false);
    bed_pass(&bed, 251);
    CHECK(is_good(acquire(1, &lock)) && nodes[0].commands > before + 1);
    end();
    rc_lock_deinit(&lock);
}

static void a_lock_is_granted_with_the_word(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin_with_one_for(1250);
    CHECK(acquire(1, &lock)->run.is_running);
    voters[1].mute = false;
    bed_pass(&bed, 251);
    CHECK(is_good(&ops[1]) && nodes[1].commands == 0);
    end();
    rc_lock_deinit(&lock);
}

static void a_lock_that_waits_is_the_new_masters(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin_with_one_for(1250);
    int before = nodes[0].commands;
    CHECK(acquire(1, &lock)->run.is_running);
    promote();
    mute_two(false);
    bed_pass(&bed, 251);
    CHECK(is_good(&ops[1]) && nodes[0].commands == before && nodes[1].commands > 0);
    end();
    rc_lock_deinit(&lock);
}

/* One that is cut off from all but its server would hold it for ever. */
static void a_lock_is_not_renewed_without_the_word(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin();
    CHECK(is_good(acquire(1, &lock)));
    bed_pass(&bed, LOCK_TTL_MS);
    CHECK(atomic_load(&lock.state) == RC_LOCK_HELD);
    mute_two(true);
    bed_pass(&bed, 1300);
    int before = nodes[0].commands;
    bed_pass(&bed, LOCK_TTL_MS);
    CHECK(atomic_load(&lock.state) == RC_LOCK_LOST && nodes[0].commands == before);
    end();
    rc_lock_deinit(&lock);
}

static void a_lease_waits_for_the_word_as_well(void)
{
    begin_with_one_for(1250);
    int before = nodes[0].commands;
    CHECK(load(1, RC_STRICT)->run.is_running && nodes[0].commands == before + 1); /* GET */
    voters[0].mute = false;
    bed_pass(&bed, 251);
    CHECK(is_good(&ops[1]) && ops[1].result.outcome == RC_LOAD);
    CHECK((ops[1].result.flags & RC_DEGRADED) == 0);
    end();
}

static void without_a_lease_the_value_is_loaded_all_the_same(void)
{
    begin_with_one_for(1250);
    int before = nodes[0].commands;
    (void)load(1, 0);
    bed_pass(&bed, TIMEOUT_MS + 10);
    CHECK(is_good(&ops[1]) && ops[1].result.outcome == RC_LOAD);
    CHECK((ops[1].result.flags & RC_DEGRADED) != 0 && nodes[0].commands == before + 1);
    end();
}

/* It has turned to a server that will be the master: what the old one grants is lost. */
static void one_that_turns_away_keeps_locks_from_the_old_master(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    bed_pass(&bed, 500);
    rc_store_set_role(nodes[1].store, RC_STORE_MASTER);
    voters[2].names = 1;
    bed_pass(&bed, 1300);
    int before = nodes[0].commands;
    CHECK(acquire(1, &lock)->run.is_running && nodes[0].commands == before);
    voters[1].names = 1;
    bed_pass(&bed, 251);
    CHECK(is_good(&ops[1]) && nodes[0].commands == before && nodes[1].commands > 0);
    end();
    rc_lock_deinit(&lock);
}

/* The process stood still, and nobody was asked: that is no reason to give up at once. */
static void a_pause_of_our_own_is_no_silence(void)
{
    struct rc_lock lock;
    bed_must(rc_lock_init(&lock, "job", 3));
    begin();
    CHECK(is_good(set(0, "one")) && is_good(read_near(1)));
    mute_two(true);
    bed.now_us += INT64_C(10) * 1000 * 1000;
    CHECK(acquire(1, &lock)->run.is_running);
    mute_two(false);
    bed_pass(&bed, 1);
    CHECK(is_good(&ops[1]));
    end();
    rc_lock_deinit(&lock);
}

int main(void)
{
    TEST(asks_nobody_until_somebody_needs_it);
    TEST(goes_where_a_majority_says);
    TEST(needs_a_majority_of_all_that_the_url_names);
    TEST(says_that_they_do_not_agree);
    TEST(says_at_once_that_they_know_no_such_master);
    TEST(says_within_a_period_that_they_refuse_us);
    TEST(says_that_one_is_no_sentinel);
    TEST(does_without_news_where_it_may_not_subscribe);
    TEST(takes_no_replica_for_the_master);
    TEST(moves_within_a_period);
    TEST(moves_at_once_with_news);
    TEST(does_not_move_for_one_of_three);
    TEST(tells_what_it_does_not_know);
    TEST(what_waits_goes_to_the_new_one);
    TEST(a_lent_connection_does_not_move);
    TEST(a_rested_client_asks_before_it_connects);
    TEST(copies_are_coherent_as_long_as_a_majority_says_so);
    TEST(one_that_turns_away_knows_more);
    TEST(copies_of_the_old_master_are_void);
    TEST(a_lock_waits_for_the_word_within_its_deadline);
    TEST(a_lock_is_granted_with_the_word);
    TEST(a_lock_that_waits_is_the_new_masters);
    TEST(a_lock_is_not_renewed_without_the_word);
    TEST(a_lease_waits_for_the_word_as_well);
    TEST(without_a_lease_the_value_is_loaded_all_the_same);
    TEST(one_that_turns_away_keeps_locks_from_the_old_master);
    TEST(a_pause_of_our_own_is_no_silence);
    return test_result();
}
