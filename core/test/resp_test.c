#include "engine/resp.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

enum { MAX_ELEMENTS = 1000, MAX_BULK = 100000 };

/* A parser does not move after init: the tests share this one's place. */
static struct rc_resp *open_resp(void)
{
    static struct rc_resp resp;
    if (!CHECK(rc_resp_init(&resp, MAX_ELEMENTS, MAX_BULK) == 0))
        exit(1);
    return &resp;
}

static int read_one(struct rc_resp *resp, const char *bytes, size_t len, enum rc_message *message)
{
    int error = rc_resp_feed(resp, bytes, len);
    return error != 0 ? error : rc_resp_next(resp, message);
}

/* Writes nodes as text: the type, then count, integer or string. */
static void print_nodes(const struct rc_reply *reply, struct rc_buf *out)
{
    char text[32];
    rc_buf_clear(out);
    for (uint32_t i = 0; i < reply->count; i++) {
        const rc_node *node = &reply->nodes[i];
        int len = snprintf(text, sizeof(text), "%c", (char)node->type);
        if (strchr("*%~>", node->type) != NULL)
            len = snprintf(text, sizeof(text), "%c%u", (char)node->type, node->count);
        else if (node->type == ':' || node->type == '#')
            len =
                snprintf(text, sizeof(text), "%c%lld", (char)node->type, (long long)node->integer);
        CHECK(rc_buf_append(out, text, (size_t)len) == 0);
        CHECK(rc_buf_append(out, node->str, node->len) == 0);
        CHECK(rc_buf_append(out, " ", 1) == 0);
    }
}

static bool reads_as(const char *bytes, size_t len, const char *expected)
{
    struct rc_resp *resp = open_resp();
    struct rc_buf text;
    enum rc_message message;
    rc_buf_init(&text);
    bool same = CHECK(read_one(resp, bytes, len, &message) == 0) && message == RC_MESSAGE_REPLY;
    rc_reply_resolve(&resp->reply);
    print_nodes(&resp->reply, &text);
    same = same && rc_buf_len(&text) == strlen(expected) &&
           memcmp(rc_buf_head(&text), expected, strlen(expected)) == 0;
    if (!same)
        fprintf(stderr, "read: %.*s\n", (int)rc_buf_len(&text), text.bytes);
    CHECK(rc_resp_next(resp, &message) == 0 && message == RC_MESSAGE_NONE);
    rc_buf_deinit(&text);
    rc_resp_deinit(resp);
    return same;
}

#define READS_AS(bytes, expected) CHECK(reads_as("" bytes, sizeof(bytes) - 1, expected))

static void reads_every_type(void)
{
    READS_AS("+OK\r\n", "+OK ");
    READS_AS("-ERR syntax error\r\n", "-ERR syntax error ");
    READS_AS("-OOM s3cret\r\n", "-OOM (its text is left out: it may repeat what was sent) ");
    READS_AS("*1\r\n-ERR user_script:1: s3cret\r\n", "*1 -ERR user_script:? ");
    READS_AS(":-42\r\n", ":-42 ");
    READS_AS(":-9223372036854775808\r\n", ":-9223372036854775808 ");
    READS_AS("$5\r\na\r\nbc\r\n", "$a\r\nbc ");
    READS_AS("$0\r\n\r\n", "$ ");
    READS_AS("+\r\n", "+ ");
    READS_AS("$-1\r\n", "_ ");
    READS_AS("*-1\r\n", "_ ");
    READS_AS("_\r\n", "_ ");
    READS_AS("#t\r\n", "#1 ");
    READS_AS("#f\r\n", "#0 ");
    READS_AS(",1.50\r\n", ",1.50 ");
    READS_AS(",-inf\r\n", ",-inf ");
    READS_AS("(-12345678901234567890123\r\n", "(-12345678901234567890123 ");
    READS_AS("=7\r\ntxt:abc\r\n", "=abc ");
    READS_AS("=4\r\nmkd:\r\n", "= ");
}

static void flattens_aggregates_depth_first(void)
{
    READS_AS("*0\r\n", "*0 ");
    READS_AS("*2\r\n*1\r\n:1\r\n$1\r\na\r\n", "*2 *1 :1 $a ");
    READS_AS("%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n_\r\n", "%4 +a :1 +b ~1 _ ");
    READS_AS("*3\r\n*0\r\n*-1\r\n%0\r\n", "*3 *0 _ %0 ");
}

static void tells_the_type_of_a_node_without_text_by_null(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    CHECK(read_one(resp, "*2\r\n:1\r\n$0\r\n\r\n", 14, &message) == 0);
    rc_reply_resolve(&resp->reply);
    CHECK(resp->reply.count == 3 && resp->reply.nodes[0].str == NULL &&
          resp->reply.nodes[1].str == NULL && resp->reply.nodes[2].str != NULL &&
          resp->reply.nodes[2].len == 0);
    rc_resp_deinit(resp);
}

static void appends_answers_until_they_are_swapped_out(void)
{
    struct rc_resp *resp = open_resp();
    struct rc_reply taken;
    enum rc_message message;
    rc_reply_init(&taken);
    CHECK(read_one(resp, "$1\r\na\r\n*1\r\n$1\r\nb\r\n+c\r\n", 23, &message) == 0);
    CHECK(message == RC_MESSAGE_REPLY && resp->reply.count == 1);
    CHECK(rc_resp_next(resp, &message) == 0 && resp->reply.count == 3);
    rc_reply_resolve(&resp->reply);
    rc_reply_swap(&resp->reply, &taken);
    CHECK(rc_resp_next(resp, &message) == 0 && message == RC_MESSAGE_REPLY);
    CHECK(resp->reply.count == 1 && resp->reply.nodes[0].type == '+');
    CHECK(taken.count == 3 && *taken.nodes[0].str == 'a' && *taken.nodes[2].str == 'b');
    rc_reply_trim(&taken, 0);
    CHECK(taken.room == 0 && taken.nodes == NULL && taken.arena.room == 0);
    rc_reply_deinit(&taken);
    rc_resp_deinit(resp);
}

static void skips_whole_elements(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    static const char bytes[] = "*3\r\n*2\r\n:1\r\n%1\r\n:2\r\n*0\r\n:3\r\n*0\r\n:9\r\n";
    CHECK(read_one(resp, bytes, sizeof(bytes) - 1, &message) == 0);
    CHECK(rc_resp_next(resp, &message) == 0);
    CHECK(resp->reply.count == 9);
    CHECK(rc_reply_skip(&resp->reply, 0) == 8);
    CHECK(rc_reply_skip(&resp->reply, 1) == 6);
    CHECK(rc_reply_skip(&resp->reply, 3) == 6);
    CHECK(rc_reply_skip(&resp->reply, 7) == 8);
    CHECK(rc_reply_skip(&resp->reply, 8) == 9);
    CHECK(rc_reply_skip(&resp->reply, 9) == 9);
    rc_resp_deinit(resp);
}

static void keeps_pushes_apart_from_answers(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    static const char bytes[] = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n"
                                ">2\r\n$10\r\ninvalidate\r\n_\r\n";
    CHECK(read_one(resp, bytes, sizeof(bytes) - 1, &message) == 0 && message == RC_MESSAGE_PUSH);
    CHECK(resp->push.count == 4 && resp->push.nodes[0].type == '>' &&
          memcmp(resp->push.nodes[1].str, "invalidate", 10) == 0 &&
          *resp->push.nodes[3].str == 'k');
    CHECK(resp->reply.count == 0);
    CHECK(rc_resp_next(resp, &message) == 0 && message == RC_MESSAGE_REPLY);
    CHECK(resp->reply.count == 1 && resp->push.count == 4);
    CHECK(rc_resp_next(resp, &message) == 0 && message == RC_MESSAGE_PUSH);
    CHECK(resp->push.count == 3 && resp->push.nodes[2].type == '_');
    CHECK(resp->reply.count == 1);
    rc_resp_deinit(resp);
}

static bool refuses(const char *bytes, size_t len, bool too_large)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    bool refused = read_one(resp, bytes, len, &message) == RC_ERR_PROTOCOL &&
                   resp->too_large == too_large && message == RC_MESSAGE_NONE;
    /* Useless from here on, and useful again after a reset. */
    CHECK(rc_resp_next(resp, &message) == RC_ERR_PROTOCOL && message == RC_MESSAGE_NONE);
    CHECK(rc_resp_feed(resp, "+OK\r\n", 5) == RC_ERR_PROTOCOL);
    CHECK(rc_resp_reset(resp) == 0);
    CHECK(read_one(resp, "+OK\r\n", 5, &message) == 0 && message == RC_MESSAGE_REPLY);
    CHECK(resp->reply.count == 1 && resp->reply.arena.end == 2 && !resp->too_large);
    rc_resp_deinit(resp);
    return refused;
}

#define REFUSES(bytes)      CHECK(refuses("" bytes, sizeof(bytes) - 1, false))
#define REFUSES_SIZE(bytes) CHECK(refuses("" bytes, sizeof(bytes) - 1, true))

static void refuses_what_is_no_resp3(void)
{
    REFUSES("x\r\n");
    REFUSES("\r\n");
    REFUSES(":12a\r\n");
    REFUSES(":\r\n");
    REFUSES(":9223372036854775808\r\n");
    REFUSES("$x\r\n");
    REFUSES("$-2\r\n");
    REFUSES("$1\r\nabc");
    REFUSES("#x\r\n");
    REFUSES(",1.5x\r\n");
    REFUSES("_x\r\n");
    REFUSES("(1x\r\n");
    REFUSES("=3\r\nabc\r\n");
    REFUSES("=5\r\nabcde\r\n");
    REFUSES("*-2\r\n");
    REFUSES("*2\r\n:1\r\nx");
    REFUSES("*1 \r\n");
}

static void refuses_the_types_hiredis_does_not_read(void)
{
    REFUSES("|1\r\n+a\r\n+b\r\n+c\r\n");
    REFUSES("*1\r\n|1\r\n+a\r\n+b\r\n+c\r\n");
    REFUSES("!3\r\nERR\r\n");
    REFUSES("$?\r\n;1\r\na\r\n;0\r\n");
    REFUSES("*?\r\n:1\r\n.\r\n");
    REFUSES("%?\r\n.\r\n");
}

static void refuses_a_push_that_is_inside_an_answer_or_nothing(void)
{
    REFUSES("*2\r\n:1\r\n>2\r\n+invalidate\r\n_\r\n");
    REFUSES("*2\r\n:1\r\n>0\r\n");
    REFUSES(">-1\r\n");
}

static void refuses_hostile_counts_before_allocating(void)
{
    REFUSES("*1000000000\r\n");
    REFUSES("*1001\r\n");
    REFUSES("%501\r\n");
    REFUSES("~9223372036854775807\r\n");
    REFUSES("%4611686018427387904\r\n");
    REFUSES("%9223372036854775807\r\n");
    REFUSES("*-9223372036854775808\r\n");
    /* The limit counts the whole message. */
    REFUSES("*600\r\n*401\r\n");
    REFUSES("*600\r\n*399\r\n*2\r\n");
}

static void refuses_hostile_lengths_before_the_bytes_come(void)
{
    REFUSES_SIZE("$100001\r\n");
    REFUSES_SIZE("=100001\r\n");
    REFUSES_SIZE("*2\r\n:1\r\n$100001\r\n");
    REFUSES_SIZE("$922337203685477580\r\n");
    REFUSES_SIZE("$9223372036854775807\r\n");
    REFUSES("$-9223372036854775808\r\n");
    REFUSES("$1000000000000000000000000000000\r\n");
}

static void takes_the_largest_bulk_and_refuses_one_byte_more(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    static char bytes[MAX_BULK + 64];
    int head = snprintf(bytes, sizeof(bytes), "$%d\r\n", MAX_BULK);
    memset(bytes + head, 'x', MAX_BULK);
    memcpy(bytes + head + MAX_BULK, "\r\n", 2);
    CHECK(read_one(resp, bytes, (size_t)head + MAX_BULK + 2, &message) == 0);
    CHECK(message == RC_MESSAGE_REPLY && resp->reply.nodes[0].len == MAX_BULK);
    rc_resp_deinit(resp);
    head = snprintf(bytes, sizeof(bytes), "$%d\r\n", MAX_BULK + 1);
    memset(bytes + head, 'x', MAX_BULK + 1);
    memcpy(bytes + head + MAX_BULK + 1, "\r\n", 2);
    CHECK(refuses(bytes, (size_t)head + MAX_BULK + 3, true));
}

static void refuses_lines_that_never_end(void)
{
    static char bytes[200000];
    static const char types[] = "+-(:,#_*%~>$=";
    for (size_t i = 0; i < sizeof(types) - 1; i++) {
        memset(bytes, types[i] == '(' ? '1' : '0', sizeof(bytes));
        bytes[0] = types[i];
        CHECK(refuses(bytes, sizeof(bytes), i < 3));
    }
}

static void takes_32_levels_and_refuses_33(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    char bytes[33 * 4 + 4];
    for (int i = 0; i < 33; i++)
        memcpy(bytes + 4 * i, "*1\r\n", 4);
    memcpy(bytes + 32 * 4, ":1\r\n", 4);
    CHECK(read_one(resp, bytes, 33 * 4, &message) == 0 && message == RC_MESSAGE_REPLY);
    CHECK(resp->reply.count == 33);
    rc_resp_deinit(resp);
    memcpy(bytes + 32 * 4, "*1\r\n:1\r\n", 8);
    CHECK(refuses(bytes, 34 * 4, false));
    memcpy(bytes + 32 * 4, "*0\r\n", 4);
    CHECK(refuses(bytes, 33 * 4, false));
}

static void takes_nothing_at_all(void)
{
    struct rc_resp *resp = open_resp();
    enum rc_message message;
    CHECK(rc_resp_feed(resp, NULL, 0) == 0);
    CHECK(rc_resp_next(resp, &message) == 0 && message == RC_MESSAGE_NONE);
    rc_reply_resolve(&resp->reply);
    rc_reply_clear(&resp->reply);
    CHECK(rc_reply_skip(&resp->reply, 0) == 0);
    rc_resp_deinit(resp);
}

/* The fuzz: valid messages, mutated or not, must read the same at once and in pieces. */

static void write_line(struct rc_buf *out, char type, long long number)
{
    char line[32];
    int len = snprintf(line, sizeof(line), "%c%lld\r\n", type, number);
    CHECK(rc_buf_append(out, line, (size_t)len) == 0);
}

static void write_bulk(struct rc_buf *out, uint64_t *random, char type)
{
    static const char filler[] =
        "txt:the quick brown fox\r\n jumps \0 over *3\r\n$1\r\nthe lazy dogs";
    uint32_t len = test_below(random, 50) + (type == '=' ? 4 : 0);
    /* Now and then one that is longer than what the reader takes at once. */
    uint32_t repeat = type == '$' && test_below(random, 200) == 0 ? 1 + test_below(random, 400) : 1;
    write_line(out, type, (long long)len * repeat);
    while (repeat-- > 0)
        CHECK(rc_buf_append(out, filler, len) == 0);
    CHECK(rc_buf_append(out, "\r\n", 2) == 0);
}

static void write_scalar(struct rc_buf *out, uint64_t *random)
{
    static const char *lines[] = {
        "+OK\r\n", "-ERR x y\r\n", "_\r\n",    "#t\r\n",
        "#f\r\n",  ",-1.25e3\r\n", ",inf\r\n", "(123456789012345678901\r\n",
        "$-1\r\n", "*-1\r\n"};
    uint32_t pick = test_below(random, 20);
    if (pick < 10)
        CHECK(rc_buf_append(out, lines[pick], strlen(lines[pick])) == 0);
    else if (pick < 13)
        write_line(out, ':', (long long)test_random(random) >> test_below(random, 63));
    else
        write_bulk(out, random, pick == 13 ? '=' : '$');
}

/* One message; `open` holds how many elements each level still wants. */
static void write_message(struct rc_buf *out, uint64_t *random)
{
    uint32_t open[8] = {1};
    int depth = 0;
    if (test_below(random, 4) == 0) {
        open[0] = 1 + test_below(random, 3);
        write_line(out, '>', open[0]);
    }
    while (depth >= 0) {
        if (open[depth] == 0) {
            depth--;
            continue;
        }
        open[depth]--;
        if (depth < 7 && test_below(random, 4) == 0) {
            char type = "*%~"[test_below(random, 3)];
            uint32_t count = test_below(random, 4);
            write_line(out, type, count);
            open[++depth] = type == '%' ? 2 * count : count;
        } else {
            write_scalar(out, random);
        }
    }
}

static void mutate(struct rc_buf *bytes, uint64_t *random)
{
    static const char likely[] = "+-:$*%~>,_#(=|!?\r\n019\0";
    for (uint32_t times = 1 + test_below(random, 3); times > 0 && rc_buf_len(bytes) > 1; times--) {
        uint32_t at = test_below(random, (uint32_t)rc_buf_len(bytes));
        size_t behind = bytes->end - at - 1;
        switch (test_below(random, 4)) {
        case 0: bytes->bytes[at] = (char)test_below(random, 256); break;
        case 1: bytes->bytes[at] = likely[test_below(random, sizeof(likely) - 1)]; break;
        case 2:
            memmove(bytes->bytes + at, bytes->bytes + at + 1, behind);
            bytes->end--;
            break;
        default:
            CHECK(rc_buf_reserve(bytes, 1) == 0);
            memmove(bytes->bytes + at + 1, bytes->bytes + at, behind + 1);
            bytes->bytes[at] = likely[test_below(random, sizeof(likely) - 1)];
            bytes->end++;
        }
    }
}

/* What a parser made of a stream: the texts of its messages and how it ended. */
struct outcome {
    struct rc_buf text;
    uint32_t messages;
    int error;
    bool too_large;
};

static void note_message(struct rc_resp *resp, enum rc_message message, struct outcome *outcome)
{
    struct rc_reply *reply = message == RC_MESSAGE_PUSH ? &resp->push : &resp->reply;
    if (message == RC_MESSAGE_REPLY)
        rc_reply_resolve(reply);
    for (uint32_t i = 0; i < reply->count; i++) {
        rc_node node = reply->nodes[i];
        const char *text = node.str;
        node.str = NULL;
        CHECK(rc_buf_append(&outcome->text, &node, sizeof(node)) == 0);
        CHECK(rc_buf_append(&outcome->text, text, node.len) == 0);
    }
    CHECK(rc_reply_skip(reply, 0) == reply->count);
    outcome->messages++;
    if (message == RC_MESSAGE_REPLY)
        rc_reply_clear(reply);
}

/* At once, or in pieces of up to `most` bytes. */
static void read_stream(struct rc_resp *resp, const struct rc_buf *bytes, uint64_t *random,
                        uint32_t most, struct outcome *outcome)
{
    size_t at = 0, len = rc_buf_len(bytes);
    enum rc_message message;
    outcome->messages = 0;
    outcome->error = rc_resp_reset(resp);
    rc_buf_clear(&outcome->text);
    while (at < len && outcome->error == 0) {
        size_t chunk = random == NULL ? len : 1 + test_below(random, most);
        chunk = chunk < len - at ? chunk : len - at;
        outcome->error = rc_resp_feed(resp, bytes->bytes + at, chunk);
        at += chunk;
        while (outcome->error == 0) {
            outcome->error = rc_resp_next(resp, &message);
            if (outcome->error != 0 || message == RC_MESSAGE_NONE)
                break;
            note_message(resp, message, outcome);
        }
    }
    outcome->too_large = resp->too_large;
}

static bool is_same(const struct outcome *a, const struct outcome *b)
{
    return a->messages == b->messages && a->error == b->error && a->too_large == b->too_large &&
           rc_buf_len(&a->text) == rc_buf_len(&b->text) &&
           (rc_buf_len(&a->text) == 0 ||
            memcmp(rc_buf_head(&a->text), rc_buf_head(&b->text), rc_buf_len(&a->text)) == 0);
}

/* All of it by hiredis, which goes on with what it has once it has begun. */
static void read_by_hiredis(struct rc_resp *resp, const struct rc_buf *bytes,
                            struct outcome *outcome)
{
    static const char begin[] = "*0\r\n"; /* not plain */
    struct rc_buf all = {0};
    CHECK(rc_buf_append(&all, begin, strlen(begin)) == 0);
    CHECK(rc_buf_append(&all, rc_buf_head(bytes), rc_buf_len(bytes)) == 0);
    read_stream(resp, &all, NULL, 0, outcome);
    rc_buf_deinit(&all);
    if (!CHECK(outcome->messages > 0))
        return;
    outcome->messages--;
    rc_buf_consume(&outcome->text, sizeof(rc_node));
}

/* What is plain goes the short way, at once or byte by byte. */
static void takes_what_is_plain_as_hiredis_does(void)
{
    static const char *const messages[] = {
        ":0\r\n",
        ":-0\r\n",
        ":00\r\n",
        ":01\r\n",
        ":-01\r\n",
        ":7\r\n",
        ":-7\r\n",
        ":+7\r\n",
        ":\r\n",
        ":-\r\n",
        ": 7\r\n",
        ":7 \r\n",
        ":--7\r\n",
        ":7",
        ":7\r",
        ":7\n",
        ":7\r7\r\n",
        ":-2\r\n:-1\r\n",
        ":123456789012345678\r\n",
        ":-123456789012345678\r\n",
        ":1234567890123456789\r\n",
        ":9223372036854775807\r\n",
        ":-9223372036854775808\r\n",
        ":9223372036854775808\r\n",
        ":18446744073709551617\r\n",
        "$0\r\n\r\n",
        "$00\r\n\r\n",
        "$01\r\na\r\n",
        "$1\r\na\r\n",
        "$1\r\nab\r\n",
        "$2\r\na\r\n",
        "$2\r\na\r\n\r\n",
        "$1\r\na\r\r",
        "$1\r\na\n\n",
        "$1\r\na\r",
        "$1\r\n",
        "$-1\r\n",
        "$-0\r\n\r\n",
        "$+1\r\na\r\n",
        "$\r\n\r\n",
        "$1\na\r\n",
        "$1\r\na\r\n:1\r\n$1\r\nb\r\n_\r\n",
        "$1\r\na\r\n>1\r\n+x\r\n$1\r\nb\r\n",
        "$65\r\n",
        "$123456789012345678\r\na\r\n",
        "$99999999999999999999\r\na\r\n",
        ">1\r\n:1\r\n:2\r\n",
        "*1\r\n:1\r\n:2\r\n",
        "_\r\n",
        "_",
        "_\r",
        "_\n\r\n",
        "_x\r\n",
        "_\r\n_\r\n",
        "+OK\r\n",
        "+OK\r",
        "+O",
        "+OKAY\r\n",
        "+ok\r\n",
        "+\r\n",
        "+OK\n\r\n",
        "*1\r\n$1\r\na\r\n",
        "*1\r\n_\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n-ERR x\r\n",
        "*1\r\n+OK\r\n",
        "*1\r\n*1\r\n_\r\n",
        "*1\r\n>1\r\n_\r\n",
        "*1\r\n",
        "*1\r",
        "*1\n_\r\n",
        "*01\r\n_\r\n",
        "*12\r\n_\r\n",
        "*0\r\n_\r\n",
        "*1\r\n$1\r\n",
        "*1\r\n$65\r\n",
        "*1\r\n$2\r\na\r\n\r\n",
        "*1\r\n$1\r\nab\r\n:1\r\n",
        "*2\r\n$1\r\na\r\n_\r\n_\r\n",
    };
    struct rc_resp whole, pieces, other;
    struct outcome at_once = {0}, in_pieces = {0}, by_hiredis = {0};
    uint64_t random = 7;
    CHECK(rc_resp_init(&other, MAX_ELEMENTS, MAX_BULK) == 0);
    CHECK(rc_resp_init(&whole, MAX_ELEMENTS, MAX_BULK) == 0);
    CHECK(rc_resp_init(&pieces, MAX_ELEMENTS, MAX_BULK) == 0);
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        struct rc_buf bytes = {0};
        CHECK(rc_buf_append(&bytes, messages[i], strlen(messages[i])) == 0);
        read_stream(&whole, &bytes, NULL, 0, &at_once);
        read_stream(&pieces, &bytes, &random, 1, &in_pieces);
        read_by_hiredis(&other, &bytes, &by_hiredis);
        if (!CHECK(is_same(&at_once, &in_pieces) && is_same(&by_hiredis, &at_once)))
            fprintf(stderr, "message %zu: %s\n", i, messages[i]);
        rc_buf_deinit(&bytes);
    }
    rc_resp_deinit(&whole);
    rc_resp_deinit(&pieces);
    rc_resp_deinit(&other);
    rc_buf_deinit(&at_once.text);
    rc_buf_deinit(&in_pieces.text);
    rc_buf_deinit(&by_hiredis.text);
}

static void must(int error)
{
    if (error != 0)
        exit(1);
}

/* Hiredis has no part in what is plain: once it had begun, all that comes behind were its own. */
static void waits_for_the_rest_of_what_is_plain(void)
{
    static const char *const messages[] = {"$5\r\nhello\r\n", ":-17\r\n",          "_\r\n",
                                           "+OK\r\n",         "*1\r\n$1\r\na\r\n", "*1\r\n_\r\n"};
    struct rc_resp resp;
    enum rc_message message;
    must(rc_resp_init(&resp, MAX_ELEMENTS, MAX_BULK));
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        size_t len = strlen(messages[i]);
        for (size_t cut = 1; cut < len; cut++) {
            rc_reply_clear(&resp.reply);
            must(rc_resp_feed(&resp, messages[i], cut));
            must(rc_resp_next(&resp, &message));
            CHECK(message == RC_MESSAGE_NONE);
            CHECK(rc_buf_len(&resp.input) == cut && resp.reply.count == 0);
            must(rc_resp_feed(&resp, messages[i] + cut, len - cut));
            must(rc_resp_next(&resp, &message));
            CHECK(message == RC_MESSAGE_REPLY);
            CHECK(rc_reply_skip(&resp.reply, 0) == resp.reply.count && !resp.reply.has_error);
        }
    }
    rc_resp_deinit(&resp);
}

static void knows_whether_there_may_be_an_error(void)
{
    struct rc_resp resp;
    struct rc_reply copy = {0};
    enum rc_message message;
    must(rc_resp_init(&resp, MAX_ELEMENTS, MAX_BULK));
    must(rc_resp_feed(&resp, "*2\r\n+x\r\n-ERR y\r\n", 17));
    must(rc_resp_next(&resp, &message));
    CHECK(message == RC_MESSAGE_REPLY);
    rc_reply_resolve(&resp.reply);
    CHECK(resp.reply.has_error);
    must(rc_reply_copy(&copy, &resp.reply));
    CHECK(copy.has_error);
    rc_reply_clear(&copy);
    CHECK(!copy.has_error);
    must(rc_reply_append(&copy, &resp.reply, 1, 2));
    CHECK(!copy.has_error);
    must(rc_reply_append(&copy, &resp.reply, 2, 3));
    CHECK(copy.has_error);
    rc_reply_clear(&copy);
    must(rc_reply_add_error(&copy, RC_ERR_TIMEOUT, NULL));
    CHECK(copy.has_error);
    rc_reply_deinit(&copy);
    rc_resp_deinit(&resp);
}

static void appends_texts_once_and_elements_in_any_order(void)
{
    static const char bytes[] = "$1\r\na\r\n$0\r\n\r\n:7\r\n*1\r\n$2\r\nbc\r\n";
    struct rc_resp resp;
    struct rc_reply joined = {0};
    enum rc_message message = RC_MESSAGE_REPLY;
    size_t base = 0;
    must(rc_resp_init(&resp, MAX_ELEMENTS, MAX_BULK));
    must(rc_resp_feed(&resp, bytes, strlen(bytes)));
    while (message == RC_MESSAGE_REPLY)
        must(rc_resp_next(&resp, &message));
    rc_reply_resolve(&resp.reply);
    must(rc_reply_add_error(&joined, RC_ERR_TIMEOUT, "late"));
    must(rc_reply_append_texts(&joined, &resp.reply, &base));
    CHECK(base == 4);
    must(rc_reply_append_bare(&joined, &resp.reply, base, 3, 5));
    must(rc_reply_append_bare(&joined, &resp.reply, base, 0, 3));
    rc_resp_deinit(&resp);
    rc_reply_resolve(&joined);
    CHECK(joined.count == 6 && rc_reply_is_text(&joined.nodes[0], "late"));
    CHECK(joined.nodes[1].type == '*' && joined.nodes[1].count == 1);
    CHECK(rc_reply_is_text(&joined.nodes[2], "bc") && rc_reply_is_text(&joined.nodes[3], "a"));
    CHECK(rc_reply_is_text(&joined.nodes[4], "") && joined.nodes[5].integer == 7);
    rc_reply_deinit(&joined);
}

static void reads_streams(uint32_t rounds, uint64_t random, bool mutated)
{
    struct rc_resp whole, pieces;
    struct outcome at_once = {0}, in_pieces = {0};
    struct rc_buf bytes;
    uint32_t refused = 0;
    rc_buf_init(&bytes);
    CHECK(rc_resp_init(&whole, MAX_ELEMENTS, MAX_BULK) == 0);
    CHECK(rc_resp_init(&pieces, MAX_ELEMENTS, MAX_BULK) == 0);
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t messages = 1 + test_below(&random, mutated ? 3 : 300);
        uint64_t seed = random;
        rc_buf_clear(&bytes);
        for (uint32_t i = 0; i < messages; i++)
            write_message(&bytes, &random);
        if (mutated)
            mutate(&bytes, &random);
        read_stream(&whole, &bytes, NULL, 0, &at_once);
        read_stream(&pieces, &bytes, &random, 40, &in_pieces);
        refused += at_once.error != 0;
        bool fine = mutated || (at_once.error == 0 && at_once.messages == messages);
        if (!CHECK(fine && is_same(&at_once, &in_pieces))) {
            fprintf(stderr, "round %u, random state %llu\n", round, (unsigned long long)seed);
            break;
        }
    }
    CHECK(mutated ? refused > rounds / 4 && refused < rounds : refused == 0);
    rc_resp_deinit(&whole);
    rc_resp_deinit(&pieces);
    rc_buf_deinit(&bytes);
    rc_buf_deinit(&at_once.text);
    rc_buf_deinit(&in_pieces.text);
}

static void reads_valid_streams_in_any_pieces(void)
{
    reads_streams(300, 5, false);
}

static void survives_200000_mutated_streams(void)
{
    reads_streams(200000, 6, true);
}

int main(void)
{
    TEST(reads_every_type);
    TEST(flattens_aggregates_depth_first);
    TEST(tells_the_type_of_a_node_without_text_by_null);
    TEST(appends_answers_until_they_are_swapped_out);
    TEST(skips_whole_elements);
    TEST(keeps_pushes_apart_from_answers);
    TEST(refuses_what_is_no_resp3);
    TEST(refuses_the_types_hiredis_does_not_read);
    TEST(refuses_a_push_that_is_inside_an_answer_or_nothing);
    TEST(refuses_hostile_counts_before_allocating);
    TEST(refuses_hostile_lengths_before_the_bytes_come);
    TEST(takes_the_largest_bulk_and_refuses_one_byte_more);
    TEST(refuses_lines_that_never_end);
    TEST(takes_32_levels_and_refuses_33);
    TEST(takes_nothing_at_all);
    TEST(takes_what_is_plain_as_hiredis_does);
    TEST(waits_for_the_rest_of_what_is_plain);
    TEST(knows_whether_there_may_be_an_error);
    TEST(appends_texts_once_and_elements_in_any_order);
    TEST(reads_valid_streams_in_any_pieces);
    TEST(survives_200000_mutated_streams);
    return test_result();
}
