#include "driver/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/fork.h"
#include "engine/script.h"
#include "test/test.h"

static struct rc_memory *memory;
static struct rc_memory_end one, two;
static int64_t now_us;

static void count_tell(void *owner)
{
    ++*(int *)owner;
}

static int told_one, told_two;

static void connect_end(struct rc_memory_end *end)
{
    if (!CHECK(rc_memory_connect(memory, end) == 0))
        exit(1);
}

static void begin(void)
{
    now_us = 5000000;
    told_one = told_two = 0;
    if (!CHECK(rc_memory_new(&memory, 1 << 20, now_us, INT64_C(1600000000) * 1000000) == 0))
        exit(1);
    one = (struct rc_memory_end){.owner = &told_one, .tell = count_tell};
    two = (struct rc_memory_end){.owner = &told_two, .tell = count_tell};
    connect_end(&one);
    connect_end(&two);
}

static void end(void)
{
    rc_memory_disconnect(memory, &one);
    rc_memory_disconnect(memory, &two);
    CHECK(rc_memory_unref(memory));
    rc_memory_free(memory);
}

/* Says a command, whose words stand between blanks. */
static void say(struct rc_memory_end *speaker, const char *words)
{
    char copy[256], bytes[512], *rest = copy;
    int count = 1, len;
    snprintf(copy, sizeof copy, "%s", words);
    for (const char *c = words; *c != '\0'; c++)
        count += *c == ' ';
    len = snprintf(bytes, sizeof bytes, "*%d\r\n", count);
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;)
        len +=
            snprintf(bytes + len, sizeof bytes - (size_t)len, "$%zu\r\n%s\r\n", strlen(word), word);
    CHECK(rc_memory_say(memory, speaker, bytes, (size_t)len, now_us) == 0);
}

/* What was taken out for it is this; takes it. */
static bool heard(struct rc_memory_end *listener, const char *expected)
{
    size_t len = rc_buf_len(&listener->answers);
    bool same = len == strlen(expected) &&
                (len == 0 || memcmp(rc_buf_head(&listener->answers), expected, len) == 0);
    if (!same)
        fprintf(stderr, "heard: %.*s\n", (int)len, len > 0 ? rc_buf_head(&listener->answers) : "");
    rc_buf_clear(&listener->answers);
    return same;
}

static void track(struct rc_memory_end *reader)
{
    say(reader, "HELLO 3");
    rc_buf_clear(&reader->answers);
    say(reader, "CLIENT TRACKING ON");
    CHECK(heard(reader, "+OK\r\n"));
}

#define PUSH_OF_K ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"

static void answers_within_the_call(void)
{
    begin();
    say(&one, "SET k v");
    CHECK(heard(&one, "+OK\r\n"));
    say(&two, "GET k");
    CHECK(heard(&two, "$1\r\nv\r\n"));
    CHECK(told_one == 0 && told_two == 0);
    end();
}

static void tells_an_end_what_another_one_has_changed(void)
{
    begin();
    track(&one);
    say(&one, "GET k");
    CHECK(heard(&one, "_\r\n"));
    say(&two, "SET k v");
    CHECK(told_one == 1 && told_two == 0);
    CHECK(heard(&one, ""));
    rc_memory_hear(memory, &one);
    CHECK(heard(&one, PUSH_OF_K));
    rc_memory_hear(memory, &one);
    CHECK(heard(&one, ""));
    end();
}

static void keeps_the_order_of_answers_that_were_not_consumed_yet(void)
{
    begin();
    track(&one);
    say(&one, "GET k");
    say(&two, "SET k v"); /* the push comes behind the answer that stands there */
    say(&one, "GET k");
    CHECK(heard(&one, "_\r\n"));
    rc_memory_hear(memory, &one);
    CHECK(heard(&one, PUSH_OF_K "$1\r\nv\r\n"));
    end();
}

static void says_nothing_to_who_has_left(void)
{
    begin();
    track(&one);
    say(&one, "GET k");
    rc_memory_disconnect(memory, &one);
    say(&two, "SET k v");
    CHECK(told_one == 0);
    connect_end(&one);
    rc_memory_hear(memory, &one);
    CHECK(heard(&one, ""));
    end();
}

static void goes_by_the_time_of_its_drivers(void)
{
    begin();
    say(&one, "SET k v PX 1000");
    CHECK(heard(&one, "+OK\r\n"));
    now_us += 999000;
    say(&one, "PTTL k");
    CHECK(heard(&one, ":1\r\n"));
    now_us -= 500000; /* another thread had read the clock before */
    say(&one, "PTTL k");
    CHECK(heard(&one, ":1\r\n"));
    now_us += 502000; /* Redis keeps a key for its last millisecond */
    say(&one, "GET k");
    CHECK(heard(&one, "$-1\r\n"));
    end();
}

static void expires_what_nobody_reads_any_more(void)
{
    begin();
    track(&one);
    say(&one, "GET k");
    rc_buf_clear(&one.answers);
    say(&two, "SET k v PX 10");
    rc_memory_hear(memory, &one);
    rc_buf_clear(&one.answers);
    say(&one, "GET k");
    rc_buf_clear(&one.answers);
    told_one = 0;
    now_us += 20000;
    rc_memory_sweep(memory, now_us);
    CHECK(told_one == 1);
    rc_memory_hear(memory, &one);
    CHECK(heard(&one, PUSH_OF_K));
    end();
}

static void sweeps_at_most_ten_times_a_second(void)
{
    begin();
    track(&one);
    rc_memory_sweep(memory, now_us); /* a while after it began: the first time counts from 0 */
    say(&one, "SET k v PX 10");
    say(&one, "GET k");
    told_one = 0;
    now_us += 50000;
    rc_memory_sweep(memory, now_us); /* another driver's round */
    CHECK(told_one == 0);
    now_us += 50000;
    rc_memory_sweep(memory, now_us);
    CHECK(told_one == 1);
    end();
}

/* ---- many threads ---------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 5000 };

static void *count_up(void *argument)
{
    int told = 0;
    struct rc_memory_end mine = {.owner = &told, .tell = count_tell};
    (void)argument;
    connect_end(&mine);
    for (int i = 0; i < ROUNDS; i++) {
        static const char command[] = "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
        CHECK(rc_memory_say(memory, &mine, command, sizeof command - 1, 5000000 + i) == 0);
        CHECK(rc_buf_len(&mine.answers) > 0);
        rc_buf_clear(&mine.answers);
    }
    rc_memory_disconnect(memory, &mine);
    return NULL;
}

static void serves_many_threads(void)
{
    pthread_t threads[THREADS];
    begin();
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count_up, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    say(&one, "GET n");
    CHECK(heard(&one, "$5\r\n20000\r\n"));
    end();
}

int main(void)
{
    rc_fork_init();
    rc_scripts_init();
    TEST(answers_within_the_call);
    TEST(tells_an_end_what_another_one_has_changed);
    TEST(keeps_the_order_of_answers_that_were_not_consumed_yet);
    TEST(says_nothing_to_who_has_left);
    TEST(goes_by_the_time_of_its_drivers);
    TEST(expires_what_nobody_reads_any_more);
    TEST(sweeps_at_most_ten_times_a_second);
    TEST(serves_many_threads);
    return test_result();
}
