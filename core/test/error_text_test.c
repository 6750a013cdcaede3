#include "engine/error_text.h"

#include <string.h>

#include "test/test.h"

static bool tells(const char *text, const char *expected)
{
    char out[RC_ERROR_TEXT_SIZE];
    size_t len = rc_error_text(out, text, strlen(text));
    return len == strlen(expected) && memcmp(out, expected, len) == 0;
}

#define ONLY(code) code " (its text is left out: it may repeat what was sent)"

static void tells_known_texts_as_they_are(void)
{
    CHECK(tells("OOM command not allowed when used memory > 'maxmemory'.",
                "OOM command not allowed when used memory > 'maxmemory'."));
    CHECK(tells("WRONGTYPE Operation against a key holding the wrong kind of value",
                "WRONGTYPE Operation against a key holding the wrong kind of value"));
    CHECK(tells("ERR wrong number of arguments for 'get' command",
                "ERR wrong number of arguments for 'get' command"));
    CHECK(tells("ERR max number of clients reached", "ERR max number of clients reached"));
}

static void leaves_out_where_a_known_text_varies(void)
{
    CHECK(tells("ERR unknown command 'FOO', with args beginning with: 'k' 's3cret' ",
                "ERR unknown command '?', with args beginning with: ?"));
    CHECK(tells("ERR unknown command 'GET', with args beginning with: 's3cret' ",
                "ERR unknown command 'get', with args beginning with: ?"));
    CHECK(tells("ERR unknown command `FOO`, with args beginning with: `s3cret`, ",
                "ERR unknown command `?`, with args beginning with: ?"));
    CHECK(tells("NOPERM User ann has no permissions to run the 'evalsha' command",
                "NOPERM User ? has no permissions to run the 'evalsha' command"));
    CHECK(tells("NOPERM User ann has no permissions to run the 's3cret' command",
                "NOPERM User ? has no permissions to run the '?' command"));
    CHECK(tells("ERR user_script:1: s3cret script: 0123456789012345678901234567890123456789, "
                "on @user_script:1.",
                "ERR user_script:? (in a script)"));
    CHECK(tells("READONLY You can't write against a read only replica. script: "
                "0123456789012345678901234567890123456789, on @user_script:1.",
                "READONLY You can't write against a read only replica. (in a script)"));
    CHECK(
        tells("ERR ACL failure in script: User s3cret has no permissions to run the 'set' command "
              "script: on @user_script:1.",
              "ERR ACL failure in script: User ? has no permissions to run the 'set' command "
              "(in a script)"));
    CHECK(tells("READONLY You can't write against a read only replica. script: 01234567, on @user",
                "READONLY (its text is left out: it may repeat what was sent)"));
}

static void names_the_rights_that_scripts_need(void)
{
    CHECK(tells("NOPERM User ann has no permissions to run the 'scan' command",
                "NOPERM User ? has no permissions to run the 'scan' command"));
    CHECK(tells("NOPERM this user has no permissions to run the 'get' command",
                "NOPERM this user has no permissions to run the 'get' command"));
    CHECK(tells("ERR The user executing the script can't run this command or subcommand script: "
                "0123456789012345678901234567890123456789, on @user_script:1.",
                "ERR The user executing the script can't run this command or subcommand (in a "
                "script; redcache's need get, set, unlink, pttl, pexpire, psetex, exists, rename, "
                "getrange, incr, incrby, incrbyfloat, persist, pexpireat, copy, setrange, "
                "time)"));
}

static void tells_of_other_texts_the_code_word_alone(void)
{
    CHECK(tells("ERR s3cret", ONLY("ERR")));
    CHECK(tells("OOM s3cret", ONLY("OOM")));
    CHECK(tells("OOM command not allowed when used memory > 'maxmemory'. s3cret", ONLY("OOM")));
    CHECK(tells("S3CRET", ONLY("ERR")));
    CHECK(tells("SECRET word", ONLY("ERR")));
    CHECK(tells("s3cret", ONLY("ERR")));
    CHECK(tells("", ONLY("ERR")));
    CHECK(tells(" ", ONLY("ERR")));
    CHECK(tells("ERR", "ERR"));
    CHECK(tells("MISCONF", "MISCONF"));
}

static void tells_where_a_slot_has_gone(void)
{
    CHECK(tells("MOVED 3999 127.0.0.1:6381", "MOVED 3999 127.0.0.1:6381"));
    CHECK(tells("ASK 1 node-3.example:6381", "ASK 1 node-3.example:6381"));
    CHECK(tells("MOVED 8943 :6381", "MOVED 8943 :6381"));
    CHECK(tells("MOVED 3999 s3cret word", ONLY("MOVED")));
    CHECK(tells("MOVED s3cret", ONLY("MOVED")));
}

/* Whatever is put into whichever place of whichever text: no 4 bytes of it come out. */
static void never_repeats_what_was_sent(void)
{
    static const char *const TEXTS[] = {
        "ERR unknown command '@', with args beginning with: '@' '@' ",
        "ERR unknown subcommand '@'. Try @ HELP.",
        "NOPERM User @ has no permissions to access the '@' key",
        "WRONGTYPE Operation against a key holding the wrong kind of value @",
        "ERR Error running script (call to f_@): @user_script:1: @",
        "@",
        "@ @",
        "ERR @",
        "LOADING @ is loading the dataset in memory",
    };
    static const char *const SECRETS[] = {
        "hunter22",  "x' y",  "0123456789abcdef0123456789abcdef", "a\tb\xff\x01-cd", "**@@**@@",
        "' command", "' key",
    };
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        for (size_t j = 0; j < sizeof SECRETS / sizeof *SECRETS; j++) {
            char text[512], out[RC_ERROR_TEXT_SIZE + 1];
            size_t at = 0;
            for (const char *c = TEXTS[i]; *c != '\0'; c++) {
                size_t len = *c == '@' ? strlen(SECRETS[j]) : 1;
                memcpy(text + at, *c == '@' ? SECRETS[j] : c, len);
                at += len;
            }
            size_t len = rc_error_text(out, text, at);
            out[len] = '\0';
            if (SECRETS[j][0] != '\'')
                CHECK(strstr(out, SECRETS[j]) == NULL);
            CHECK(strstr(out, "hunter") == NULL && strstr(out, "0123456789") == NULL);
        }
    }
}

static void bounds_what_it_tells(void)
{
    static char text[100000];
    char out[RC_ERROR_TEXT_SIZE];
    memset(text, 'a', sizeof text);
    CHECK(rc_error_text(out, text, sizeof text) <= RC_ERROR_TEXT_SIZE);
    memcpy(text, "ERR unknown command '", 21);
    CHECK(rc_error_text(out, text, sizeof text) <= RC_ERROR_TEXT_SIZE);
}

int main(void)
{
    TEST(tells_known_texts_as_they_are);
    TEST(leaves_out_where_a_known_text_varies);
    TEST(names_the_rights_that_scripts_need);
    TEST(tells_of_other_texts_the_code_word_alone);
    TEST(tells_where_a_slot_has_gone);
    TEST(never_repeats_what_was_sent);
    TEST(bounds_what_it_tells);
    return test_result();
}
