#include "engine/redirect.h"

#include <string.h>

#include "engine/command.h"
#include "test/test.h"

static struct rc_redirect read_error(const char *text)
{
    struct rc_redirect redirect;
    const rc_node node = {.type = '-', .str = text, .len = strlen(text)};
    rc_redirect_read(&redirect, &node);
    CHECK(rc_redirect_is(&node) || redirect.kind == RC_REDIRECT_NONE);
    return redirect;
}

static bool leads(const char *text, enum rc_redirect_kind kind, int32_t slot, const char *host,
                  uint16_t port)
{
    struct rc_redirect redirect = read_error(text);
    return redirect.kind == kind && redirect.slot == slot && strcmp(redirect.host, host) == 0 &&
           redirect.port == port;
}

static void reads_where_a_slot_has_gone(void)
{
    CHECK(leads("MOVED 3999 127.0.0.1:6381", RC_REDIRECT_MOVED, 3999, "127.0.0.1", 6381));
    CHECK(leads("ASK 0 node-3.example:6379", RC_REDIRECT_ASK, 0, "node-3.example", 6379));
    CHECK(leads("MOVED 16383 2001:db8::1:7000", RC_REDIRECT_MOVED, 16383, "2001:db8::1", 7000));
}

static void takes_a_missing_host_for_the_one_that_was_asked(void)
{
    CHECK(leads("MOVED 8943 :7000", RC_REDIRECT_MOVED, 8943, "", 7000));
    CHECK(leads("MOVED 8943 ?:7000", RC_REDIRECT_MOVED, 8943, "", 7000));
}

static void waits_where_a_server_is_not_ready(void)
{
    CHECK(leads("TRYAGAIN Multiple keys request during rehashing of slot", RC_REDIRECT_WAIT, -1, "",
                0));
    CHECK(leads("CLUSTERDOWN The cluster is down", RC_REDIRECT_WAIT, -1, "", 0));
    CHECK(leads("LOADING Redis is loading the dataset in memory", RC_REDIRECT_WAIT, -1, "", 0));
    CHECK(leads("MASTERDOWN Link with MASTER is down", RC_REDIRECT_WAIT, -1, "", 0));
}

static void follows_nothing_else(void)
{
    static const char *const OTHERS[] = {
        "",
        "ERR wrong",
        "MOVED",
        "MOVED ",
        "MOVED 1",
        "MOVED 1 ",
        "MOVED 16384 a:1",
        "MOVED -1 a:1",
        "MOVED 1 a",
        "MOVED 1 a:",
        "MOVED 1 a:0",
        "MOVED 1 a:65536",
        "MOVED 1 a:12x",
        "MOVED 99999999999999999999 a:1",
        "MOVEDX 1 a:1",
        "ASK 1",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "READONLY You can't write against a read only replica.",
    };
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        CHECK(read_error(OTHERS[i]).kind == RC_REDIRECT_NONE);
    char text[400];
    memset(text, 'a', sizeof text);
    memcpy(text, "MOVED 1 ", 8);
    memcpy(text + sizeof text - 4, ":1", 3);
    CHECK(read_error(text).kind == RC_REDIRECT_NONE);
    const rc_node value = {.type = '$', .str = "MOVED 1 a:1", .len = 11};
    CHECK(!rc_redirect_is(&value));
}

static void puts_asking_before_each_command(void)
{
    static const char ASKED[] = "*1\r\n$6\r\nASKING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
                                "*1\r\n$6\r\nASKING\r\n*2\r\n$4\r\nPTTL\r\n$1\r\nk\r\n";
    struct rc_buf plain, out;
    rc_buf_init(&plain);
    rc_buf_init(&out);
    CHECK(rc_command_read(&plain, "k", 1, true) == 0);
    CHECK(rc_redirect_ask(&out, rc_buf_head(&plain), rc_buf_len(&plain)) == 0);
    CHECK(rc_buf_is(&out, ASKED, sizeof ASKED - 1));
    rc_buf_deinit(&plain);
    rc_buf_deinit(&out);
}

static void drops_the_answers_to_asking(void)
{
    rc_node nodes[] = {{.type = '+', .str = "OK", .len = 2}, {.type = '*', .count = 2},
                       {.type = ':', .integer = 1},          {.type = ':', .integer = 2},
                       {.type = '+', .str = "OK", .len = 2}, {.type = ':', .integer = 3}};
    struct rc_reply reply = {.nodes = nodes, .count = 6};
    rc_redirect_drop_asking(&reply);
    CHECK(reply.count == 4 && nodes[0].type == '*' && nodes[2].integer == 2 &&
          nodes[3].integer == 3);
}

static void tells_that_asking_was_refused(void)
{
    rc_node nodes[] = {{.type = '-', .str = "NOPERM", .len = 6},
                       {.type = '-', .str = "MOVED 1 :2"},
                       {.type = '-', .str = "NOPERM", .len = 6},
                       {.type = '*', .count = 1},
                       {.type = ':', .integer = 1},
                       {.type = '+', .str = "OK"},
                       {.type = '-', .str = "ERR", .len = 3}};
    struct rc_reply reply = {.nodes = nodes, .count = 7};
    rc_redirect_drop_asking(&reply);
    CHECK(reply.count == 4 && nodes[0].len == 6 && nodes[1].type == '*' && nodes[2].integer == 1);
    CHECK(nodes[3].type == '-' && nodes[3].len == 3);
}

int main(void)
{
    TEST(reads_where_a_slot_has_gone);
    TEST(takes_a_missing_host_for_the_one_that_was_asked);
    TEST(waits_where_a_server_is_not_ready);
    TEST(follows_nothing_else);
    TEST(puts_asking_before_each_command);
    TEST(drops_the_answers_to_asking);
    TEST(tells_that_asking_was_refused);
    return test_result();
}
