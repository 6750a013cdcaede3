#include "engine/server.h"

#include <string.h>

#include "test/test.h"

static struct rc_server server;

/* What HELLO is answered, as bytes. */
static void greet(const char *hello)
{
    struct rc_resp resp;
    enum rc_message message = RC_MESSAGE_NONE;
    if (!CHECK(rc_resp_init(&resp, 100, 1000) == 0))
        return;
    CHECK(rc_resp_feed(&resp, hello, strlen(hello)) == 0);
    CHECK(rc_resp_next(&resp, &message) == 0 && message == RC_MESSAGE_REPLY);
    rc_reply_resolve(&resp.reply);
    rc_server_read_hello(&server, &resp.reply);
    rc_resp_deinit(&resp);
}

static void greet_as(const char *name, const char *version)
{
    char hello[200];
    snprintf(hello, sizeof hello,
             "%%2\r\n$6\r\nserver\r\n$%zu\r\n%s\r\n$7\r\nversion\r\n$%zu\r\n%s\r\n", strlen(name),
             name, strlen(version), version);
    greet(hello);
}

static bool is_labelled(const char *expected)
{
    char label[RC_SERVER_LABEL];
    rc_server_label(&server, label, sizeof label);
    return strcmp(label, expected) == 0;
}

static bool is_off(const char *expected)
{
    static const struct rc_server none;
    char off[512];
    rc_server_tell_off(&none, &server, off, sizeof off);
    bool is_so = strcmp(off, expected) == 0;
    rc_server_tell_off(&server, &none, off, sizeof off);
    return is_so && strcmp(off, expected) == 0;
}

static bool can(enum rc_server_ability ability)
{
    return rc_server_lacks(&server, ability) == NULL;
}

static void answer(enum rc_server_ability ability, const char *text)
{
    const rc_node node = {.type = text[0], .str = text + 1, .len = strlen(text + 1)};
    rc_server_read_answer(&server, ability, &node);
}

static void reads_who_it_is(void)
{
    memset(&server, 0, sizeof server);
    CHECK(!server.is_known && is_labelled(""));
    greet_as("valkey", "9.1.2");
    CHECK(server.is_known && is_labelled("valkey 9.1.2"));
    /* A module's "version" is not the server's. */
    greet("%3\r\n$7\r\nmodules\r\n*1\r\n%1\r\n$7\r\nversion\r\n$1\r\n1\r\n"
          "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n");
    CHECK(is_labelled("redis 7.0.15"));
    greet("%1\r\n$5\r\nproto\r\n:3\r\n");
    CHECK(server.is_known && is_labelled("")); /* not the one before */
    greet_as("a name that is far too long for anybody to read it", "1.2.3");
    CHECK(strlen(server.name) < RC_SERVER_NAME);
}

static void knows_since_which_version(void)
{
    greet_as("redis", "6.2.14");
    CHECK(!can(RC_SERVER_SERVES) && !can(RC_SERVER_TRACKS) && can(RC_SERVER_SELECTS));
    greet_as("redis", "7.0.0");
    CHECK(can(RC_SERVER_SERVES) && !can(RC_SERVER_TRACKS));
    greet_as("redis", "7.0.4");
    CHECK(can(RC_SERVER_SERVES) && !can(RC_SERVER_TRACKS));
    CHECK(is_off("tracking: client tracking needs Redis 7.0.5 or newer\n"));
    greet_as("redis", "7.0.5");
    CHECK(can(RC_SERVER_TRACKS) && is_off(""));
    greet_as("valkey", "8.0.1");
    CHECK(can(RC_SERVER_SERVES) && can(RC_SERVER_TRACKS));
}

static void takes_an_unknown_version_for_a_new_one(void)
{
    greet_as("redis", "unstable");
    CHECK(can(RC_SERVER_SERVES) && can(RC_SERVER_TRACKS) && is_off(""));
    greet("%0\r\n");
    CHECK(can(RC_SERVER_SERVES) && can(RC_SERVER_TRACKS));
}

static void keeps_what_it_refuses(void)
{
    char longest[400];
    greet_as("redis", "7.0.15");
    answer(RC_SERVER_TRACKS, "+OK");
    answer(RC_SERVER_IDENTIFIES, "-NOPERM no permissions to run 'info'");
    CHECK(can(RC_SERVER_TRACKS) && !can(RC_SERVER_IDENTIFIES));
    CHECK(is_off("identity: NOPERM no permissions to run 'info'\n"));
    answer(RC_SERVER_SELECTS, "-ERR SELECT is not allowed in cluster mode");
    CHECK(is_off("identity: NOPERM no permissions to run 'info'\n"
                 "databases: ERR SELECT is not allowed in cluster mode\n"));
    answer(RC_SERVER_IDENTIFIES, "$redis_version:7");
    CHECK(is_off("databases: ERR SELECT is not allowed in cluster mode\n"));
    memset(longest, 'x', sizeof longest);
    longest[0] = '-';
    longest[sizeof longest - 1] = '\0';
    answer(RC_SERVER_SELECTS, longest);
    CHECK(strlen(rc_server_lacks(&server, RC_SERVER_SELECTS)) < RC_SERVER_WHY);
    greet_as("redis", "7.0.15"); /* of another connection */
    CHECK(is_off(""));
}

static void tells_whole_lines_only(void)
{
    static const struct rc_server none;
    char off[40];
    greet_as("redis", "7.0.15");
    answer(RC_SERVER_TRACKS, "-NOPERM first");
    answer(RC_SERVER_IDENTIFIES, "-NOPERM second");
    rc_server_tell_off(&server, &none, off, sizeof off);
    CHECK(strcmp(off, "tracking: NOPERM first\n") == 0);
}

int main(void)
{
    TEST(reads_who_it_is);
    TEST(knows_since_which_version);
    TEST(takes_an_unknown_version_for_a_new_one);
    TEST(keeps_what_it_refuses);
    TEST(tells_whole_lines_only);
    return test_result();
}
