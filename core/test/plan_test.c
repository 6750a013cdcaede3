#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/slot.h"
#include "engine/command.h"
#include "engine/script.h"
#include "test/test.h"

/* Three servers; the keys a, b, c are of 0, 1, 2. Each has a fourth of them by its first letter. */
static uint16_t owners[RC_SLOT_COUNT];
static struct rc_buf asked;
static struct rc_plan plan;

static void must(int error)
{
    if (error != 0)
        exit(1);
}

static void own(const char *key, uint16_t owner)
{
    owners[rc_slot(key, strlen(key))] = owner;
}

static void end(void)
{
    rc_buf_deinit(&asked);
    rc_plan_deinit(&plan);
}

static void begin(void)
{
    end();
    memset(owners, 0, sizeof owners);
    own("a", 0);
    own("a2", 0);
    own("b", 1);
    own("b2", 1);
    own("c", 2);
}

/* Encodes a command that is written with blanks. */
static void ask(const char *line)
{
    char copy[256], *word, *rest = copy;
    uint32_t count = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (const char *at = line; *at != '\0'; at++)
        count += *at == ' ';
    must(rc_command_head(&asked, count));
    while ((word = strtok_r(rest, " ", &rest)) != NULL)
        must(rc_command_text(&asked, word));
}

static bool is_whole(int32_t *slot)
{
    return rc_plan_is_whole(rc_buf_head(&asked), rc_buf_len(&asked), owners, slot);
}

static bool split(void)
{
    int32_t slot;
    if (is_whole(&slot))
        return false;
    must(rc_plan_split(&plan, rc_buf_head(&asked), rc_buf_len(&asked), owners));
    return true;
}

/* What the part of that server is asked: "MGET a a2|PING". */
static bool asks(uint16_t owner, const char *expected, uint32_t expect)
{
    char text[2048] = "";
    for (uint32_t i = 0; i < plan.part_count; i++) {
        struct rc_plan_part *part = &plan.parts[i];
        if (part->owner != owner)
            continue;
        char copy[2048];
        size_t len = rc_buf_len(&part->bytes);
        memcpy(copy, rc_buf_head(&part->bytes), len);
        copy[len] = '\0';
        char *line, *rest = copy;
        while ((line = strtok_r(rest, "\r\n", &rest)) != NULL) {
            size_t end = strlen(text);
            if (*line == '*')
                snprintf(text + end, sizeof text - end, "%s", end > 0 ? "|" : "");
            else if (*line != '$')
                snprintf(text + end, sizeof text - end, "%s%s",
                         end > 0 && text[end - 1] != '|' ? " " : "", line);
        }
        if (strcmp(text, expected) != 0)
            fprintf(stderr, "server %u is asked: %s\n", owner, text);
        return strcmp(text, expected) == 0 && part->expect == expect;
    }
    return false;
}

/* The server's answers, in RESP. */
static void answer(uint16_t owner, const char *bytes)
{
    struct rc_resp resp;
    enum rc_message message = RC_MESSAGE_REPLY;
    must(rc_resp_init(&resp, 1000, 100000));
    must(rc_resp_feed(&resp, bytes, strlen(bytes)));
    while (message == RC_MESSAGE_REPLY)
        must(rc_resp_next(&resp, &message));
    rc_reply_resolve(&resp.reply);
    struct rc_plan_part *part = NULL;
    for (uint32_t i = 0; i < plan.part_count; i++) {
        if (plan.parts[i].owner == owner)
            part = &plan.parts[i];
    }
    if (CHECK(part != NULL))
        rc_reply_swap(&part->reply, &resp.reply);
    rc_resp_deinit(&resp);
}

static void fail(uint16_t owner, int status, const char *text)
{
    for (uint32_t i = 0; i < plan.part_count; i++) {
        if (plan.parts[i].owner == owner)
            rc_plan_fail(&plan.parts[i], status, text);
    }
}

/* The answer in words: "+OK *2 $1 _ :3 -ERR x(-5)". */
static bool joins(const char *expected)
{
    struct rc_reply out;
    char text[1024] = "";
    rc_reply_init(&out);
    must(rc_plan_join(&plan, &out));
    for (uint32_t i = 0; i < out.count; i++) {
        const rc_node *node = &out.nodes[i];
        size_t end = strlen(text);
        char *at = text + end;
        size_t room = sizeof text - end;
        const char *gap = end > 0 ? " " : "";
        if (node->type == '*')
            snprintf(at, room, "%s*%u", gap, node->count);
        else if (node->type == ':')
            snprintf(at, room, "%s:%lld", gap, (long long)node->integer);
        else
            snprintf(at, room, "%s%c%.*s", gap, (char)node->type, (int)node->len,
                     node->str != NULL ? node->str : "");
        end = strlen(text);
        if (node->type == '-' && node->integer != 0)
            snprintf(text + end, sizeof text - end, "(%lld)", (long long)node->integer);
    }
    if (strcmp(text, expected) != 0)
        fprintf(stderr, "joined: %s\n", text);
    rc_reply_deinit(&out);
    return strcmp(text, expected) == 0;
}

static void commands_of_one_server_stay_in_one_piece(void)
{
    int32_t slot;
    begin();
    ask("SET b 1");
    ask("MGET b b2");
    ask("PING");
    ask("EVALSHA 0123456789012345678901234567890123456789 1 b x");
    CHECK(is_whole(&slot) && slot == rc_slot("b", 1));
    begin();
    ask("PING");
    CHECK(is_whole(&slot) && slot == RC_PLAN_ANY);
    begin();
    ask("EVAL x 0 b"); /* has no key */
    CHECK(is_whole(&slot) && slot == RC_PLAN_ANY);
    end();
}

static void each_server_gets_its_commands_in_their_order(void)
{
    begin();
    ask("SET a 1");
    ask("SET b 2");
    ask("GET a");
    ask("EVAL x 1 c y");
    ask("PING");
    ask("GET b");
    CHECK(split() && plan.part_count == 3);
    CHECK(asks(0, "SET a 1|GET a", 2));
    CHECK(asks(1, "SET b 2|GET b", 2));
    CHECK(asks(2, "EVAL x 1 c y|PING", 2)); /* where the one before it went */
    answer(0, "+OK\r\n$1\r\n1\r\n");
    answer(1, "+OK\r\n$1\r\n2\r\n");
    answer(2, "*2\r\n:1\r\n*1\r\n$1\r\ny\r\n+PONG\r\n");
    CHECK(joins("+OK +OK $1 *2 :1 *1 $y +PONG $2"));
    end();
}

static void a_list_of_keys_comes_back_in_its_order(void)
{
    begin();
    ask("mget c a b a2 c");
    CHECK(split() && asks(0, "mget a a2", 1) && asks(1, "mget b", 1) && asks(2, "mget c c", 1));
    answer(0, "*2\r\n$1\r\n1\r\n_\r\n");
    answer(1, "*1\r\n$0\r\n\r\n");
    answer(2, "*2\r\n$1\r\n3\r\n$1\r\n3\r\n");
    CHECK(joins("*5 $3 $1 $ _ $3"));
    end();
}

static void two_lists_in_one_call_are_read_one_after_the_other(void)
{
    begin();
    ask("MGET a b");
    ask("MGET b a2");
    CHECK(split() && asks(0, "MGET a|MGET a2", 2) && asks(1, "MGET b|MGET b", 2));
    answer(0, "*1\r\n$1\r\n1\r\n*1\r\n$1\r\n4\r\n");
    answer(1, "*1\r\n$1\r\n2\r\n*1\r\n$1\r\n3\r\n");
    CHECK(joins("*2 $1 $2 *2 $3 $4"));
    end();
}

static void counts_are_added_up(void)
{
    begin();
    ask("UNLINK a b a2 c");
    ask("EXISTS a b");
    CHECK(split() && asks(0, "UNLINK a a2|EXISTS a", 2) && asks(1, "UNLINK b|EXISTS b", 2) &&
          asks(2, "UNLINK c", 1));
    answer(0, ":2\r\n:1\r\n");
    answer(1, ":1\r\n:0\r\n");
    answer(2, ":1\r\n");
    CHECK(joins(":4 :1"));
    end();
}

static void a_part_that_failed_fails_its_own_commands_alone(void)
{
    const char *text;
    begin();
    ask("SET a 1");
    ask("SET b 2");
    ask("MGET a b");
    ask("UNLINK a b c");
    CHECK(split());
    answer(0, "+OK\r\n*1\r\n$1\r\n1\r\n:1\r\n");
    fail(1, RC_ERR_UNAVAILABLE, "it is away");
    fail(2, RC_ERR_UNKNOWN, NULL);
    CHECK(rc_plan_status(&plan, &text) == 0);
    CHECK(joins("+OK -it is away(-4) *2 $1 -it is away(-4) -(-5)"));
    end();
}

static void a_call_fails_where_every_part_does(void)
{
    const char *text = NULL;
    begin();
    ask("SET a 1");
    ask("SET b 2");
    CHECK(split());
    fail(0, RC_ERR_TIMEOUT, NULL);
    fail(1, RC_ERR_UNAVAILABLE, "it is away");
    CHECK(rc_plan_status(&plan, &text) == RC_ERR_TIMEOUT && strcmp(text, "") == 0);
    fail(1, RC_ERR_UNKNOWN, "cut off");
    CHECK(rc_plan_status(&plan, &text) == RC_ERR_UNKNOWN && strcmp(text, "cut off") == 0);
    end();
}

static void what_a_server_refuses_is_told_for_each_of_its_keys(void)
{
    begin();
    ask("MGET a b b2");
    ask("DEL a b");
    CHECK(split());
    static const char SYNTAX[] = "-ERR syntax error\r\n-ERR syntax error\r\n";
    answer(0, "*1\r\n_\r\n:1\r\n");
    answer(1, SYNTAX);
    CHECK(joins("*3 _ -ERR syntax error -ERR syntax error -ERR syntax error"));
    end();
}

static void an_answer_of_another_form_is_no_answer(void)
{
    begin();
    ask("MGET a b b2");
    ask("DEL a b");
    ask("GET b");
    CHECK(split());
    answer(0, ":7\r\n+OK\r\n");
    answer(1, "*1\r\n$1\r\n2\r\n:1\r\n");
    CHECK(joins("*3 -(-9) $2 -(-9) -(-9) -(-9)"));
    end();
}

static void a_transaction_stays_together(void)
{
    int32_t slot;
    begin();
    ask("SET a 1");
    ask("MULTI");
    ask("SET b 1");
    ask("DEL a b"); /* the server says what it thinks of that */
    ask("EXEC");
    ask("GET c");
    CHECK(split() && asks(0, "SET a 1", 1) && asks(1, "MULTI|SET b 1|DEL a b|EXEC", 4) &&
          asks(2, "GET c", 1));
    begin();
    ask("MULTI");
    ask("PING");
    ask("EXEC");
    CHECK(is_whole(&slot) && slot == RC_PLAN_ANY);
    end();
}

static void what_cannot_be_read_is_left_to_a_server(void)
{
    static const char *const BROKEN[] = {"*2\r\n$3\r\nGET\r\n",
                                         "*1\r\n$9\r\nGET\r\n",
                                         "GET a\r\n",
                                         "*1\r\n$99999999999999999999\r\nx\r\n",
                                         "*0\r\n",
                                         "*"};
    int32_t slot;
    for (size_t i = 0; i < sizeof BROKEN / sizeof *BROKEN; i++) {
        begin();
        CHECK(rc_buf_append(&asked, BROKEN[i], strlen(BROKEN[i])) == 0);
        CHECK(is_whole(&slot));
        begin();
        ask("SET a 1");
        ask("SET b 1");
        CHECK(rc_buf_append(&asked, BROKEN[i], strlen(BROKEN[i])) == 0);
        CHECK(rc_plan_split(&plan, rc_buf_head(&asked), rc_buf_len(&asked), owners) ==
              RC_ERR_ARGUMENT);
    }
    end();
}

/* ---- forgotten scripts ----------------------------------------------------------------------- */

static const char FORGOTTEN[] = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
static char sha_line[128];

static const char *evalsha(int script, const char *rest)
{
    snprintf(sha_line, sizeof sha_line, "EVALSHA %s %s", rc_script_sha(script), rest);
    return sha_line;
}

/* Two that we know, for they are our own. */
enum { ONE = RC_SCRIPT_LOCK_RENEW, TWO = RC_SCRIPT_LOCK_RELEASE };

static void a_script_that_was_not_run_is_sent_with_its_source(void)
{
    char bytes[256];
    begin();
    ask(evalsha(ONE, "1 a x"));
    ask("GET a");
    ask(evalsha(TWO, "1 a y"));
    ask(evalsha(ONE, "0"));
    must(rc_plan_take_whole(&plan, 7, 4));
    snprintf(bytes, sizeof bytes, "%s$1\r\nv\r\n%s+one\r\n", FORGOTTEN, FORGOTTEN);
    answer(0, bytes);
    CHECK(rc_plan_has_forgotten(&plan.parts[0].reply));
    uint32_t again = rc_plan_mend(&plan, 0, rc_buf_head(&asked), rc_buf_len(&asked));
    if (!CHECK(again == 1 && plan.part_count == 2))
        exit(1);
    CHECK(plan.parts[1].slot == 7);
    plan.parts[1].owner = 1; /* for the bed */
    char expected[1024];
    snprintf(expected, sizeof expected, "EVAL %s 1 a x|EVAL %s 1 a y", rc_script_source(ONE),
             rc_script_source(TWO));
    CHECK(asks(1, expected, 2));
    answer(1, "+one\r\n*2\r\n:1\r\n:2\r\n");
    CHECK(joins("+one $v *2 :1 :2 +one"));
    end();
}

static void a_script_nobody_has_defined_stays_forgotten(void)
{
    begin();
    ask("EVALSHA 0123456789012345678901234567890123456789 0");
    ask("GET a");
    must(rc_plan_take_whole(&plan, 7, 2));
    char bytes[128];
    snprintf(bytes, sizeof bytes, "%s$1\r\nv\r\n", FORGOTTEN);
    answer(0, bytes);
    CHECK(rc_plan_mend(&plan, 0, rc_buf_head(&asked), rc_buf_len(&asked)) == 0);
    CHECK(joins("-NOSCRIPT No matching script. Please use EVAL. $v"));
    end();
}

static void a_repetition_that_fails_fails_its_scripts_alone(void)
{
    char bytes[128];
    const char *text;
    begin();
    ask("GET a");
    ask(evalsha(ONE, "1 a"));
    must(rc_plan_take_whole(&plan, 7, 2));
    snprintf(bytes, sizeof bytes, "$1\r\nv\r\n%s", FORGOTTEN);
    answer(0, bytes);
    if (!CHECK(rc_plan_mend(&plan, 0, rc_buf_head(&asked), rc_buf_len(&asked)) == 1))
        exit(1);
    rc_plan_fail(&plan.parts[1], RC_ERR_UNKNOWN, NULL);
    CHECK(rc_plan_status(&plan, &text) == 0);
    CHECK(joins("$v -(-5)"));
    plan.parts[0].at = 0;
    rc_plan_unmend(&plan, 1);
    CHECK(joins("$v -NOSCRIPT No matching script. Please use EVAL."));
    end();
}

static void scripts_of_several_servers_are_mended_where_they_are_missing(void)
{
    char bytes[256];
    begin();
    ask("MGET a b");
    ask(evalsha(ONE, "1 a"));
    ask(evalsha(ONE, "1 b"));
    ask("GET b");
    CHECK(split() && plan.part_count == 2 && plan.parts[1].owner == 1);
    answer(0, "*1\r\n$1\r\n1\r\n+one\r\n");
    snprintf(bytes, sizeof bytes, "*1\r\n$1\r\n2\r\n%s$1\r\n2\r\n", FORGOTTEN);
    answer(1, bytes);
    CHECK(!rc_plan_has_forgotten(&plan.parts[0].reply));
    struct rc_buf sent;
    rc_buf_init(&sent);
    rc_buf_swap(&sent, &plan.parts[1].bytes);
    if (rc_plan_mend(&plan, 1, rc_buf_head(&sent), rc_buf_len(&sent)) != 2)
        exit(1);
    rc_buf_deinit(&sent);
    plan.parts[2].owner = 2; /* for the bed */
    char expected[1024];
    snprintf(expected, sizeof expected, "EVAL %s 1 b", rc_script_source(ONE));
    CHECK(asks(2, expected, 1));
    answer(2, "+ONE\r\n");
    CHECK(joins("*2 $1 $2 +one +ONE $2"));
    end();
}

int main(void)
{
    rc_scripts_init();
    rc_buf_init(&asked);
    rc_plan_init(&plan);
    TEST(commands_of_one_server_stay_in_one_piece);
    TEST(each_server_gets_its_commands_in_their_order);
    TEST(a_list_of_keys_comes_back_in_its_order);
    TEST(two_lists_in_one_call_are_read_one_after_the_other);
    TEST(counts_are_added_up);
    TEST(a_part_that_failed_fails_its_own_commands_alone);
    TEST(a_call_fails_where_every_part_does);
    TEST(what_a_server_refuses_is_told_for_each_of_its_keys);
    TEST(an_answer_of_another_form_is_no_answer);
    TEST(a_transaction_stays_together);
    TEST(what_cannot_be_read_is_left_to_a_server);
    TEST(a_script_that_was_not_run_is_sent_with_its_source);
    TEST(a_script_nobody_has_defined_stays_forgotten);
    TEST(a_repetition_that_fails_fails_its_scripts_alone);
    TEST(scripts_of_several_servers_are_mended_where_they_are_missing);
    return test_result();
}
