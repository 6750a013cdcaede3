#include "engine/script.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/command.h"
#include "redcache.h"
#include "test/test.h"

static void each_script_has_its_sha(void)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        enum rc_script script = (enum rc_script)i;
        const char *source = rc_script_source(script);
        char sha[RC_SHA_LEN + 1];
        rc_sha1_hex(source, strlen(source), sha);
        CHECK(strlen(source) > 40);
        CHECK(strcmp(rc_script_sha(script), sha) == 0);
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

/* ---- scripts of callers ---------------------------------------------------------------------- */

static int add(const char *source)
{
    return rc_script_add(source, strlen(source));
}

/* What is added stays as long as the process: each of these tests has one of its own. */
static void apart(void (*test)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        test();
        _exit(test_result());
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
          WEXITSTATUS(status) == 0);
}

static void add_two(void)
{
    int one = add("return 1"), two = add("return 2");
    CHECK(one >= RC_SCRIPT_COUNT && two == one + 1 && add("return 1") == one);
    CHECK(strcmp(rc_script_source(two), "return 2") == 0);
    CHECK(rc_script_find(rc_script_sha(two)) == two && rc_script_is_known(two));
    CHECK(rc_script_find("0123456789012345678901234567890123456789") < 0);
    CHECK(!rc_script_is_known(-1) && !rc_script_is_known(two + 1) &&
          !rc_script_is_known(RC_SCRIPTS_MAX));
    CHECK(add(rc_script_source(RC_SCRIPT_LOCK)) == RC_SCRIPT_LOCK);
    CHECK(add("") >= 0);
}

static void gives_a_source_one_number(void)
{
    apart(add_two);
}

enum { THREADS = 4, SOURCES = 100 };

static void *define_all(void *numbers)
{
    char source[32];
    for (int i = 0; i < SOURCES; i++) {
        snprintf(source, sizeof source, "return 'source %d'", i);
        ((int *)numbers)[i] = add(source);
    }
    return NULL;
}

static void add_by_threads(void)
{
    static int numbers[THREADS][SOURCES];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        if (!CHECK(pthread_create(&threads[i], NULL, define_all, numbers[i]) == 0))
            exit(1);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SOURCES; i++) {
        char source[32];
        snprintf(source, sizeof source, "return 'source %d'", i);
        for (int thread = 0; thread < THREADS; thread++)
            CHECK(numbers[thread][i] == numbers[0][i]);
        CHECK(strcmp(rc_script_source(numbers[0][i]), source) == 0);
    }
}

static void threads_that_define_the_same_get_the_same(void)
{
    apart(add_by_threads);
}

static void add_too_many(void)
{
    char source[32];
    int number = add("return 1");
    for (int i = 0; number >= 0 && i <= RC_SCRIPTS_MAX; i++) {
        snprintf(source, sizeof source, "return %d", 1000 + i);
        number = add(source);
    }
    CHECK(number == RC_ERR_OVERLOAD);
    CHECK(add("return 1") >= 0); /* what is there stays */
    CHECK(rc_script_is_known(RC_SCRIPTS_MAX - 1) &&
          rc_script_find("0123456789012345678901234567890123456789") < 0);
}

static void refuses_more_than_there_is_room_for(void)
{
    apart(add_too_many);
}

int main(void)
{
    rc_scripts_init();
    TEST(each_script_has_its_sha);
    TEST(sources_hold_no_comments_and_no_new_lines);
    TEST(begins_with_the_sha);
    TEST(the_source_takes_the_place_of_the_sha);
    TEST(gives_a_source_one_number);
    TEST(threads_that_define_the_same_get_the_same);
    TEST(refuses_more_than_there_is_room_for);
    return test_result();
}
