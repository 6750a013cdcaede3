#include "engine/script.h"

#include <string.h>

#include "engine/command.h"
#include "test/test.h"

static void each_script_has_its_sha(void)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        enum rc_script script = (enum rc_script)i;
        CHECK(strlen(rc_script_sha(script)) == 40);
        CHECK(strspn(rc_script_sha(script), "0123456789abcdef") == 40);
        CHECK(strlen(rc_script_source(script)) > 40);
        for (int other = 0; other < i; other++)
            CHECK(strcmp(rc_script_sha(script), rc_script_sha((enum rc_script)other)) != 0);
    }
}

/* What is sent is compiled by Redis once more for each different text, and kept. */
static void sources_hold_no_comments_and_no_new_lines(void)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        const char *source = rc_script_source((enum rc_script)i);
        CHECK(strstr(source, "--") == NULL && strchr(source, '\n') == NULL);
        CHECK(strstr(source, "KEYS[") != NULL); /* every key is declared */
    }
}

static bool begin(struct rc_buf *out)
{
    rc_buf_init(out);
    return rc_script_begin(out, RC_SCRIPT_PUBLISH, 1, 3) == 0 &&
           rc_command_bytes(out, "k\r\n$", 4) == 0 && rc_command_text(out, "lease") == 0 &&
           rc_command_bytes(out, "", 0) == 0 && rc_command_int(out, -1) == 0;
}

static const char TAIL[] = "$1\r\n1\r\n$4\r\nk\r\n$\r\n$5\r\nlease\r\n$0\r\n\r\n$2\r\n-1\r\n";

static void begins_with_the_sha(void)
{
    struct rc_buf out;
    char expected[300];
    CHECK(begin(&out));
    int len = snprintf(expected, sizeof expected, "*7\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n%s",
                       rc_script_sha(RC_SCRIPT_PUBLISH), TAIL);
    CHECK(rc_buf_len(&out) == (size_t)len && memcmp(rc_buf_head(&out), expected, (size_t)len) == 0);
    rc_buf_deinit(&out);
}

static void the_source_takes_the_place_of_the_sha(void)
{
    struct rc_buf out, full;
    char expected[2000];
    const char *source = rc_script_source(RC_SCRIPT_PUBLISH);
    rc_buf_init(&full);
    CHECK(begin(&out) &&
          rc_script_as_eval(&full, RC_SCRIPT_PUBLISH, rc_buf_head(&out), rc_buf_len(&out)) == 0);
    int len = snprintf(expected, sizeof expected, "*7\r\n$4\r\nEVAL\r\n$%zu\r\n%s\r\n%s",
                       strlen(source), source, TAIL);
    CHECK(rc_buf_len(&full) == (size_t)len &&
          memcmp(rc_buf_head(&full), expected, (size_t)len) == 0);
    rc_buf_deinit(&full);
    rc_buf_deinit(&out);
}

int main(void)
{
    rc_scripts_init();
    TEST(each_script_has_its_sha);
    TEST(sources_hold_no_comments_and_no_new_lines);
    TEST(begins_with_the_sha);
    TEST(the_source_takes_the_place_of_the_sha);
    return test_result();
}
