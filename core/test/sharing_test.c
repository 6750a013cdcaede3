#include "engine/sharing.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "test/test.h"

static struct rc_sharing batch;

/* One command, its arguments parted by single spaces. */
static void write_command(const char *command)
{
    char copy[256], *end, *at = copy;
    uint32_t count = 1;
    snprintf(copy, sizeof copy, "%s", command);
    for (const char *c = copy; *c != '\0'; c++)
        count += *c == ' ';
    rc_sharing_begin(&batch, count);
    for (; (end = strchr(at, ' ')) != NULL; at = end + 1)
        rc_sharing_argument(&batch, at, (size_t)(end - at));
    rc_sharing_argument(&batch, at, strlen(at));
}

/* Up to three commands. */
static const char *judge(bool is_lent, const char *first, const char *second, const char *third)
{
    static char text[RC_SHARING_TEXT];
    rc_sharing_init(&batch, is_lent, false);
    write_command(first);
    if (second != NULL)
        write_command(second);
    if (third != NULL)
        write_command(third);
    return rc_sharing_objection(&batch, text);
}

static bool goes(bool is_lent, const char *command)
{
    char lower[256];
    size_t i = 0;
    for (; command[i] != '\0'; i++)
        lower[i] = (char)tolower((unsigned char)command[i]);
    lower[i] = '\0';
    bool is_free = judge(is_lent, command, NULL, NULL) == NULL;
    CHECK((judge(is_lent, lower, NULL, NULL) == NULL) == is_free);
    CHECK((judge(is_lent, "SET k v", command, "GET k") == NULL) == is_free);
    return is_free;
}

static const char *const WAIT_OR_KEEP[] = {
    "ASKING",
    "AUTH secret",
    "BLMOVE a b LEFT RIGHT 0",
    "BLMPOP 0 1 a LEFT",
    "BLPOP a 0",
    "BRPOP a 0",
    "BRPOPLPUSH a b 0",
    "BZMPOP 0 1 a MIN",
    "BZPOPMAX a 0",
    "BZPOPMIN a 0",
    "CLIENT CAPA redirect",
    "CLIENT IMPORT-SOURCE ON",
    "CLIENT NO-EVICT ON",
    "CLIENT NO-TOUCH ON",
    "CLIENT SETINFO lib-name x",
    "CLIENT SETNAME x",
    "READONLY",
    "READWRITE",
    "SELECT 1",
    "UNWATCH",
    "WAIT 1 0",
    "WAITAOF 1 0 0",
    "WATCH a",
    "XREAD BLOCK 0 STREAMS s $",
    "XREAD COUNT 1 BLOCK 0 STREAMS s $",
    "XREADGROUP GROUP g c COUNT 5 BLOCK 0 NOACK STREAMS s >",
    "XREADGROUP GROUP BLOCK COUNT BLOCK 0 STREAMS s >",
};

static const char *const LISTEN[] = {
    "PSUBSCRIBE a*",
    "PUNSUBSCRIBE a*",
    "SUBSCRIBE a",
    "UNSUBSCRIBE a",
};

static const char *const NEVER[] = {
    "CLIENT CACHING YES",
    "CLIENT REPLY OFF",
    "CLIENT TRACKING ON",
    "HELLO 2",
    "MONITOR",
    "PSUBSCRIBE a* b*",
    "PSYNC ? -1",
    "PUNSUBSCRIBE",
    "QUIT",
    "REPLCONF ACK 1",
    "RESET",
    "SCRIPT DEBUG YES",
    "SSUBSCRIBE a",
    "SUBSCRIBE a b",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
};

static const char *const ORDINARY[] = {
    "GET k",
    "SET BLPOP WATCH",
    "CLIENT ID",
    "CLIENT LIST ID 7",
    "CLIENT TRACKINGINFO",
    "CLIENT UNBLOCK 7",
    "SCRIPT LOAD x",
    "SCRIPT EXISTS debug",
    "XREAD COUNT 1 STREAMS BLOCK 0",
    "XREAD COUNT BLOCK STREAMS s $",
    "XREADGROUP GROUP BLOCK BLOCK STREAMS s >",
    "XADD s * f v",
    "XLEN s",
    "WATCHED",
    "BLPOPX a 0",
    "SUBSTR k 0 1",
    "PUBLISH a b",
    "PUBSUB CHANNELS",
    "EVAL x 0",
    "DISCARD",
    "EXEC",
    "",
    "{",
    "*",
};

static void what_waits_or_changes_the_connection_goes_over_a_lent_one(void)
{
    for (size_t i = 0; i < sizeof WAIT_OR_KEEP / sizeof *WAIT_OR_KEEP; i++) {
        if (!CHECK(!goes(false, WAIT_OR_KEEP[i]) && goes(true, WAIT_OR_KEEP[i])))
            printf("%s\n", WAIT_OR_KEEP[i]);
    }
}

static void subscriptions_go_one_by_one_over_a_lent_one(void)
{
    for (size_t i = 0; i < sizeof LISTEN / sizeof *LISTEN; i++) {
        if (!CHECK(!goes(false, LISTEN[i]) && goes(true, LISTEN[i])))
            printf("%s\n", LISTEN[i]);
    }
    CHECK(judge(true, "SUBSCRIBE a", "SUBSCRIBE b", NULL) == NULL);
    CHECK(judge(true, "MULTI", "SUBSCRIBE b", "EXEC") != NULL);
}

static void what_is_not_answered_like_others_goes_over_none(void)
{
    for (size_t i = 0; i < sizeof NEVER / sizeof *NEVER; i++) {
        if (!CHECK(!goes(false, NEVER[i]) && !goes(true, NEVER[i])))
            printf("%s\n", NEVER[i]);
    }
}

static void what_does_neither_goes_over_each(void)
{
    for (size_t i = 0; i < sizeof ORDINARY / sizeof *ORDINARY; i++) {
        if (!CHECK(goes(false, ORDINARY[i]) && goes(true, ORDINARY[i])))
            printf("%s\n", ORDINARY[i]);
    }
}

static void a_transaction_is_whole_or_lent(void)
{
    CHECK(judge(false, "MULTI", "INCR k", "EXEC") == NULL);
    CHECK(judge(false, "multi", "INCR k", "discard") == NULL);
    CHECK(judge(false, "MULTI", "INCR k", NULL) != NULL);
    CHECK(judge(false, "MULTI", "EXEC", "MULTI") != NULL);
    CHECK(judge(false, "MULTI", "EXEC now", NULL) != NULL); /* is refused, and ends nothing */
    CHECK(judge(true, "MULTI", "INCR k", NULL) == NULL && batch.in_multi);
    rc_sharing_init(&batch, true, true);
    write_command("EXEC");
    CHECK(!batch.in_multi);
}

static void names_the_command_the_reason_and_the_way(void)
{
    CHECK(strcmp(judge(false, "GET k", "blpop a 0", NULL),
                 "BLPOP waits, and would hold up all who share the connection: "
                 "it goes over a lent one (rc_lent_begin)") == 0);
    CHECK(strcmp(judge(true, "SSUBSCRIBE a", NULL, NULL),
                 "SSUBSCRIBE is answered by messages, which no connection passes on") == 0);
    CHECK(strstr(judge(false, "MULTI", NULL, NULL), "MULTI without EXEC") != NULL);
    CHECK(strstr(judge(false, "AUTH secret", NULL, NULL), "secret") == NULL);
}

/* Else the next command's bytes would be taken for this one's. */
static void arguments_are_as_many_as_were_announced(void)
{
    char text[RC_SHARING_TEXT];
    for (uint32_t announced = 0; announced < 4; announced++) {
        rc_sharing_init(&batch, false, false);
        rc_sharing_begin(&batch, announced);
        rc_sharing_argument(&batch, "GET", 3);
        rc_sharing_argument(&batch, "k", 1);
        CHECK((rc_sharing_objection(&batch, text) == NULL) == (announced == 2));
        rc_sharing_begin(&batch, 1);
        rc_sharing_argument(&batch, "PING", 4);
        CHECK((rc_sharing_objection(&batch, text) == NULL) == (announced == 2));
    }
}

int main(void)
{
    TEST(what_waits_or_changes_the_connection_goes_over_a_lent_one);
    TEST(subscriptions_go_one_by_one_over_a_lent_one);
    TEST(what_is_not_answered_like_others_goes_over_none);
    TEST(what_does_neither_goes_over_each);
    TEST(a_transaction_is_whole_or_lent);
    TEST(names_the_command_the_reason_and_the_way);
    TEST(arguments_are_as_many_as_were_announced);
    return test_result();
}
