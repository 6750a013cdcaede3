#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/slot.h"
#include "engine/command.h"
#include "engine/redirect.h"
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
        if (part->place.owner != owner)
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
    uint32_t part = plan.part_count;
    for (uint32_t i = 0; i < plan.part_count; i++) {
        if (plan.parts[i].place.owner == owner)
            part = i;
    }
    if (CHECK(part < plan.part_count))
        rc_plan_answer(&plan, part, &resp.reply);
    rc_resp_deinit(&resp);
}

static void fail(uint16_t owner, int status, const char *text)
{
    for (uint32_t i = 0; i < plan.part_count; i++) {
        if (plan.parts[i].place.owner == owner)
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
    ask("MGET b {b}2");
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

static void a_key_may_stand_behind_other_words(void)
{
    static const char *const commands[] = {
        "OBJECT ENCODING b",
        "xinfo stream b",
        "XGROUP CREATE b g $",
        "BITOP AND b {b}1 {b}2",
        "ZUNION 2 b {b}1",
        "SINTERCARD 1 b",
        "LMPOP 2 b {b}1 LEFT",
        "EVAL_RO x 1 b",
        "FCALL f 1 b",
        "XREAD COUNT 1 STREAMS b 0",
        "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS b >",
    };
    int32_t slot;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        begin();
        ask(commands[i]);
        if (!CHECK(is_whole(&slot) && slot == rc_slot("b", 1)))
            printf("%s\n", commands[i]);
        end();
    }
    begin();
    ask("FCALL f 0 b");
    CHECK(is_whole(&slot) && slot == RC_PLAN_ANY);
    begin();
    ask("XREAD COUNT"); /* is refused wherever it goes */
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
    CHECK(split() && asks(0, "mget a|mget a2", 2) && asks(1, "mget b", 1) &&
          asks(2, "mget c|mget c", 2));
    answer(0, "*1\r\n$1\r\n1\r\n*1\r\n_\r\n");
    answer(1, "*1\r\n$0\r\n\r\n");
    answer(2, "*1\r\n$1\r\n3\r\n*1\r\n$1\r\n3\r\n");
    CHECK(joins("*5 $3 $1 $ _ $3"));
    end();
}

static void the_next_call_gets_the_room_and_nothing_else_of_the_last_one(void)
{
    begin();
    ask("MGET a b c");
    CHECK(split());
    answer(0, "*1\r\n$3\r\nold\r\n");
    fail(1, RC_ERR_TIMEOUT, "old");
    answer(2, "*1\r\n$3\r\nold\r\n");
    size_t room = rc_plan_room(&plan);
    for (int round = 0; round < 3; round++) {
        rc_plan_clear(&plan);
        rc_buf_clear(&asked);
        ask("MGET b c");
        CHECK(split() && plan.part_count == 2 && plan.step_count == 2);
        CHECK(asks(1, "MGET b", 1) && asks(2, "MGET c", 1));
        answer(1, "*1\r\n$1\r\n1\r\n");
        answer(2, "*1\r\n_\r\n");
        CHECK(joins("*2 $1 _"));
        CHECK(rc_plan_room(&plan) <= room);
    }
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
    CHECK(split() && asks(0, "UNLINK a|UNLINK a2|EXISTS a", 3) && asks(1, "UNLINK b|EXISTS b", 2) &&
          asks(2, "UNLINK c", 1));
    answer(0, ":1\r\n:1\r\n:1\r\n");
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

/* One part was never sent; the other was, and nobody knows what became of it. */
static void what_may_have_been_done_is_told_before_what_was_not(void)
{
    const char *text = NULL;
    begin();
    ask("SET a 1");
    ask("UNLINK a b");
    CHECK(split());
    fail(0, RC_ERR_UNAVAILABLE, "it is away");
    fail(1, RC_ERR_TIMEOUT, NULL);
    CHECK(rc_plan_status(&plan, &text) == RC_ERR_TIMEOUT && strcmp(text, "") == 0);
    CHECK(joins("-it is away(-4) -(-2)"));
    end();
}

static void what_a_server_refuses_is_told_for_its_key(void)
{
    begin();
    ask("MGET a b b2");
    ask("DEL a b");
    CHECK(split() && asks(1, "MGET b|MGET b2|DEL b", 3));
    answer(0, "*1\r\n_\r\n:1\r\n");
    answer(1, "-ERR syntax error\r\n*1\r\n_\r\n-ERR syntax error\r\n");
    CHECK(joins("*3 _ -ERR syntax error _ -ERR syntax error"));
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
    answer(1, "*1\r\n$1\r\n2\r\n*2\r\n:1\r\n:2\r\n:1\r\n"); /* and none to GET */
    CHECK(joins("*3 -(-9) $2 -(-9) -(-9) -(-9)"));
    end();
}

static void keys_of_two_slots_go_in_two_commands_to_one_server(void)
{
    int32_t slot;
    begin();
    ask("MGET a a2");
    CHECK(!is_whole(&slot));
    begin();
    ask("MGET {a}1 {a}2 a");
    CHECK(is_whole(&slot) && slot == rc_slot("a", 1));
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

/* Keys of a call that is split are read but once: what is wrong with them is seen then. */
static void words_of_a_command_that_is_split_must_all_be_there(void)
{
    int32_t slot;
    begin();
    ask("MGET a b c");
    size_t whole = rc_buf_len(&asked);
    for (size_t len = 1; len < whole; len++) {
        rc_plan_clear(&plan);
        if (!rc_plan_is_whole(rc_buf_head(&asked), len, owners, &slot))
            CHECK(rc_plan_split(&plan, rc_buf_head(&asked), len, owners) == RC_ERR_ARGUMENT);
    }
    CHECK(!rc_plan_is_whole(rc_buf_head(&asked), whole, owners, &slot));
    end();
}

/* More servers than a sorter remembers the parts of. */
static void keys_of_many_servers_go_to_each_its_own(void)
{
    enum { SERVERS = 200, KEYS = 1000 };
    uint32_t expected[SERVERS] = {0}, split_to = 0;
    int32_t slot;
    begin();
    for (uint32_t i = 0; i < RC_SLOT_COUNT; i++)
        owners[i] = (uint16_t)(i % SERVERS);
    must(rc_command_head(&asked, KEYS + 1));
    must(rc_command_text(&asked, "unlink"));
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key:%u", i);
        must(rc_command_text(&asked, key));
        expected[owners[rc_slot(key, strlen(key))]]++;
    }
    CHECK(!rc_plan_is_whole(rc_buf_head(&asked), rc_buf_len(&asked), owners, &slot));
    must(rc_plan_split(&plan, rc_buf_head(&asked), rc_buf_len(&asked), owners));
    for (uint32_t i = 0; i < plan.part_count; i++) {
        uint16_t owner = plan.parts[i].place.owner;
        CHECK(plan.parts[i].expect == expected[owner]);
        expected[owner] = 0; /* one part each */
        split_to += plan.parts[i].expect;
    }
    CHECK(split_to == KEYS && plan.step_count == KEYS && plan.steps[KEYS - 1].is_last);
    end();
}

/* ---- what was not run ------------------------------------------------------------------------ */

static const char FORGOTTEN[] = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
static char sha_line[128];

static const char *evalsha(int script, const char *rest)
{
    snprintf(sha_line, sizeof sha_line, "EVALSHA %s %s", rc_script_sha(script), rest);
    return sha_line;
}

/* Two that we know, for they are our own. */
enum { ONE = RC_SCRIPT_LOCK_RENEW, TWO = RC_SCRIPT_LOCK_RELEASE };

/* "MOVED 1 h:7002": the port says which server. */
static bool follow(void *owner, const rc_node *error, struct rc_plan_place *place)
{
    struct rc_redirect redirect;
    (void)owner;
    rc_redirect_read(&redirect, error);
    if (redirect.port == 7009)
        return false;
    place->is_asking = redirect.kind == RC_REDIRECT_ASK;
    if (redirect.kind == RC_REDIRECT_WAIT)
        return true;
    place->owner = (uint16_t)(redirect.port - 7000);
    place->slot = redirect.slot;
    return true;
}

/* What was sent to that part, once more. */
static uint32_t repeat(uint32_t part, struct rc_buf *sent)
{
    const struct rc_plan_guide guide = {owners, NULL, follow};
    return rc_plan_repeat(&plan, part, rc_buf_head(sent), rc_buf_len(sent), &guide);
}

/* The same of a plan whose parts still have their bytes: takes them. */
static uint32_t repeat_part(uint32_t part)
{
    struct rc_buf sent;
    rc_buf_init(&sent);
    rc_buf_swap(&sent, &plan.parts[part].bytes);
    uint32_t first = repeat(part, &sent);
    rc_buf_deinit(&sent);
    return first;
}

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
    CHECK(rc_plan_has_undone(&plan.parts[0].reply));
    if (!CHECK(repeat(0, &asked) == 1 && plan.part_count == 2))
        exit(1);
    CHECK(plan.parts[1].place.slot == 7);
    plan.parts[1].place.owner = 1; /* for the bed */
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
    if (!CHECK(repeat(0, &asked) == 0))
        exit(1);
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
    if (!CHECK(repeat(0, &asked) == 1))
        exit(1);
    rc_plan_fail(&plan.parts[1], RC_ERR_UNKNOWN, NULL);
    CHECK(rc_plan_status(&plan, &text) == 0);
    CHECK(joins("$v -(-5)"));
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
    CHECK(split() && plan.part_count == 2 && plan.parts[1].place.owner == 1);
    answer(0, "*1\r\n$1\r\n1\r\n+one\r\n");
    snprintf(bytes, sizeof bytes, "*1\r\n$1\r\n2\r\n%s$1\r\n2\r\n", FORGOTTEN);
    answer(1, bytes);
    CHECK(!rc_plan_has_undone(&plan.parts[0].reply));
    if (!CHECK(repeat_part(1) == 2))
        exit(1);
    plan.parts[2].place.owner = 2; /* for the bed */
    char expected[1024];
    snprintf(expected, sizeof expected, "EVAL %s 1 b", rc_script_source(ONE));
    CHECK(asks(2, expected, 1));
    answer(2, "+ONE\r\n");
    CHECK(joins("*2 $1 $2 +one +ONE $2"));
    end();
}

static void what_a_server_sends_elsewhere_goes_there_and_nothing_else(void)
{
    begin();
    ask("SET a 1");
    ask("GET a2");
    ask("MGET a a2");
    ask("INCR a");
    CHECK(split() && plan.part_count == 1);
    answer(0, "+OK\r\n-MOVED 1 h:7002\r\n*1\r\n$1\r\n1\r\n-ASK 1 h:7003\r\n"
              "-TRYAGAIN Multiple keys\r\n");
    if (!CHECK(repeat_part(0) == 1 && plan.part_count == 4))
        exit(1);
    CHECK(asks(2, "GET a2", 1) && plan.parts[1].place.owner == 2 && !plan.parts[1].place.is_asking);
    CHECK(asks(3, "MGET a2", 1) && plan.parts[2].place.is_asking && plan.parts[2].place.slot == 1);
    CHECK(plan.parts[3].place.owner == 0 && plan.parts[3].expect == 1);
    plan.parts[3].place.owner = 1; /* for the bed */
    answer(2, "$1\r\n2\r\n");
    answer(3, "*1\r\n$1\r\n3\r\n");
    answer(1, ":4\r\n");
    CHECK(joins("+OK $2 *2 $1 $3 :4"));
    end();
}

static void it_may_be_sent_on_again(void)
{
    begin();
    ask("SET a 1");
    ask("GET a");
    must(rc_plan_take_whole(&plan, 7, 2));
    answer(0, "+OK\r\n-MOVED 1 h:7001\r\n");
    if (!CHECK(repeat(0, &asked) == 1))
        exit(1);
    answer(1, "-MOVED 1 h:7002\r\n");
    if (!CHECK(repeat_part(1) == 2))
        exit(1);
    answer(2, "-MOVED 1 h:7009\r\n"); /* where nobody follows */
    if (!CHECK(repeat_part(2) == 0))
        exit(1);
    CHECK(joins("+OK -MOVED 1 h:7009"));
    end();
}

static void keys_that_one_server_refuses_together_are_asked_one_by_one(void)
{
    begin();
    ask("SET a 1");
    ask("MGET a b c");
    ask("EVAL x 2 a b");
    must(rc_plan_take_whole(&plan, 7, 3));
    static const char CROSSES[] = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    char bytes[256];
    snprintf(bytes, sizeof bytes, "+OK\r\n%s%s", CROSSES, CROSSES);
    answer(0, bytes);
    if (!CHECK(repeat(0, &asked) == 1 && plan.part_count == 4))
        exit(1);
    plan.parts[1].place.owner = 9; /* for the bed: part 0 has that name, too */
    CHECK(asks(9, "MGET a", 1) && asks(1, "MGET b", 1) && asks(2, "MGET c", 1));
    answer(9, "*1\r\n$1\r\n1\r\n");
    answer(1, "*1\r\n$1\r\n2\r\n");
    answer(2, "*1\r\n$1\r\n3\r\n");
    CHECK(joins("+OK *3 $1 $2 $3 -CROSSSLOT Keys in request don't hash to the same slot"));
    end();
}

static void a_transaction_that_was_not_run_goes_as_a_whole(void)
{
    begin();
    ask("SET a 1");
    ask("MULTI");
    ask("SET a 2");
    ask("PING");
    ask("EXEC");
    ask("GET a");
    must(rc_plan_take_whole(&plan, 7, 6));
    answer(0, "+OK\r\n+OK\r\n-MOVED 1 h:7001\r\n+QUEUED\r\n-EXECABORT Transaction\r\n"
              "$1\r\n1\r\n");
    if (!CHECK(repeat(0, &asked) == 1 && asks(1, "MULTI|SET a 2|PING|EXEC", 4)))
        exit(1);
    answer(1, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+PONG\r\n");
    CHECK(joins("+OK +OK +QUEUED +QUEUED *2 +OK +PONG $1"));
    end();
}

static void a_transaction_that_has_to_wait_stays_with_its_server(void)
{
    begin();
    ask("MULTI");
    ask("SET a 2");
    ask("EXEC");
    must(rc_plan_take_whole(&plan, 7, 3));
    answer(0, "+OK\r\n-CLUSTERDOWN The cluster is down\r\n-EXECABORT Transaction\r\n");
    if (!CHECK(repeat(0, &asked) == 1 && plan.parts[1].expect == 3))
        exit(1);
    CHECK(plan.parts[1].place.slot == 7);
    end();
}

static void a_transaction_whose_end_is_sent_elsewhere_was_not_run(void)
{
    begin();
    ask("MULTI");
    ask("SET a 2");
    ask("EXEC");
    must(rc_plan_take_whole(&plan, 7, 3));
    answer(0, "+OK\r\n+QUEUED\r\n-MOVED 1 h:7001\r\n"); /* the slot has left in between */
    if (!CHECK(repeat(0, &asked) == 1 && asks(1, "MULTI|SET a 2|EXEC", 3)))
        exit(1);
    answer(1, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    CHECK(joins("+OK +QUEUED *1 +OK"));
    end();
}

static void a_transaction_that_was_run_is_not_repeated(void)
{
    begin();
    ask("MULTI");
    ask("SET a 2");
    ask("EXEC");
    must(rc_plan_take_whole(&plan, 7, 3));
    answer(0, "+OK\r\n+QUEUED\r\n*1\r\n-MOVED 1 h:7001\r\n");
    if (!CHECK(repeat(0, &asked) == 0))
        exit(1);
    begin();
    ask("MULTI");
    ask("SET a 2");
    ask("EXEC");
    must(rc_plan_take_whole(&plan, 7, 3));
    answer(0, "+OK\r\n-ASK 1 h:7001\r\n-EXECABORT Transaction\r\n");
    if (!CHECK(repeat(0, &asked) == 0))
        exit(1); /* ASKING holds for one command */
    end();
}

int main(void)
{
    rc_scripts_init();
    TEST(commands_of_one_server_stay_in_one_piece);
    TEST(a_key_may_stand_behind_other_words);
    TEST(each_server_gets_its_commands_in_their_order);
    TEST(a_list_of_keys_comes_back_in_its_order);
    TEST(the_next_call_gets_the_room_and_nothing_else_of_the_last_one);
    TEST(two_lists_in_one_call_are_read_one_after_the_other);
    TEST(counts_are_added_up);
    TEST(a_part_that_failed_fails_its_own_commands_alone);
    TEST(a_call_fails_where_every_part_does);
    TEST(what_may_have_been_done_is_told_before_what_was_not);
    TEST(what_a_server_refuses_is_told_for_its_key);
    TEST(keys_of_two_slots_go_in_two_commands_to_one_server);
    TEST(an_answer_of_another_form_is_no_answer);
    TEST(a_transaction_stays_together);
    TEST(what_cannot_be_read_is_left_to_a_server);
    TEST(words_of_a_command_that_is_split_must_all_be_there);
    TEST(keys_of_many_servers_go_to_each_its_own);
    TEST(a_script_that_was_not_run_is_sent_with_its_source);
    TEST(a_script_nobody_has_defined_stays_forgotten);
    TEST(a_repetition_that_fails_fails_its_scripts_alone);
    TEST(scripts_of_several_servers_are_mended_where_they_are_missing);
    TEST(what_a_server_sends_elsewhere_goes_there_and_nothing_else);
    TEST(it_may_be_sent_on_again);
    TEST(keys_that_one_server_refuses_together_are_asked_one_by_one);
    TEST(a_transaction_that_was_not_run_goes_as_a_whole);
    TEST(a_transaction_that_has_to_wait_stays_with_its_server);
    TEST(a_transaction_whose_end_is_sent_elsewhere_was_not_run);
    TEST(a_transaction_that_was_run_is_not_repeated);
    return test_result();
}
