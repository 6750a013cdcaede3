#include "engine/track.h"

#include <stdlib.h>
#include <string.h>

#include "test/test.h"

static struct rc_seed seed = {{1, 2}};
static struct rc_track track;
static struct rc_watch watches[4];
static int fired[4];
static int order[8], order_count;

static void on_fire(struct rc_watch *watch)
{
    CHECK(!watch->is_set);
    fired[watch - watches]++;
    if (order_count < 8)
        order[order_count++] = (int)(watch - watches);
}

static void set_up(void)
{
    rc_track_init(&track, &seed);
    memset(watches, 0, sizeof watches);
    memset(fired, 0, sizeof fired);
    order_count = 0;
    for (int i = 0; i < 4; i++)
        watches[i].fire = on_fire;
}

static void watch(int i, const char *key)
{
    CHECK(rc_track_watch(&track, &watches[i], key, strlen(key)) == 0);
}

static char told[256]; /* the keys `tell` heard of, each with a space behind it */

static void tell(void *owner, const char *key, size_t len)
{
    size_t used = strlen(told);
    CHECK(owner == &track);
    snprintf(told + used, sizeof told - used, "%.*s ", key != NULL ? (int)len : 3,
             key != NULL ? key : "all");
}

static void push(const char *bytes)
{
    struct rc_resp resp;
    enum rc_message message;
    if (!CHECK(rc_resp_init(&resp, 100, 1000) == 0))
        exit(1);
    CHECK(rc_resp_feed(&resp, bytes, strlen(bytes)) == 0);
    CHECK(rc_resp_next(&resp, &message) == 0 && message == RC_MESSAGE_PUSH);
    told[0] = '\0';
    rc_track_push(&track, &resp.push, tell, &track);
    rc_resp_deinit(&resp);
}

static void fires_the_watches_of_the_keys_that_changed(void)
{
    set_up();
    watch(0, "a");
    watch(1, "b");
    watch(2, "a");
    watch(3, "c");
    push(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n");
    CHECK(fired[0] == 1 && fired[1] == 0 && fired[2] == 1 && fired[3] == 1);
    push(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
    CHECK(fired[0] == 1 && fired[2] == 1); /* once: the server forgets, too */
    CHECK(strcmp(told, "a ") == 0);        /* but a keeper of copies hears it every time */
    rc_track_unwatch(&track, &watches[1]);
    rc_track_deinit(&track);
}

static void fires_all_on_a_flush(void)
{
    set_up();
    for (int i = 0; i < 4; i++)
        watch(i, i % 2 == 0 ? "a" : "b");
    push(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    CHECK(strcmp(told, "all ") == 0);
    for (int i = 0; i < 4; i++)
        CHECK(fired[i] == 1);
    CHECK(track.watches.count == 0);
    rc_track_deinit(&track);
}

static void does_not_fire_what_was_taken_back(void)
{
    set_up();
    watch(0, "a");
    watch(0, "b"); /* moves */
    push(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
    CHECK(fired[0] == 0);
    rc_track_unwatch(&track, &watches[0]);
    rc_track_unwatch(&track, &watches[0]);
    push(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nb\r\n");
    CHECK(fired[0] == 0);
    rc_track_deinit(&track);
}

/* Firing one may end the owner of another. */
static void on_fire_unwatch(struct rc_watch *watch)
{
    fired[watch - watches]++;
    for (int i = 0; i < 4; i++)
        rc_track_unwatch(&track, &watches[i]);
}

static void stands_watches_that_vanish_while_it_fires(void)
{
    set_up();
    for (int i = 0; i < 4; i++) {
        watches[i].fire = on_fire_unwatch;
        watch(i, "a");
    }
    push(">2\r\n$10\r\ninvalidate\r\n*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\nb\r\n");
    CHECK(fired[0] + fired[1] + fired[2] + fired[3] == 1);
    for (int i = 0; i < 4; i++)
        watch(i, "a");
    rc_track_fire_all(&track);
    CHECK(fired[0] + fired[1] + fired[2] + fired[3] == 2);
    rc_track_deinit(&track);
}

static void ignores_other_pushes(void)
{
    static const char *const others[] = {">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\na\r\n",
                                         ">0\r\n",
                                         ">1\r\n$10\r\ninvalidate\r\n",
                                         ">2\r\n$10\r\ninvalidate\r\n*0\r\n",
                                         ">2\r\n$10\r\ninvalidate\r\n:1\r\n",
                                         ">2\r\n:1\r\n*1\r\n$1\r\na\r\n",
                                         ">2\r\n$10\r\ninvalidate\r\n*2\r\n:1\r\n*1\r\n:7\r\n"};
    set_up();
    watch(0, "a");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        push(others[i]);
    CHECK(fired[0] == 0);
    push(">2\r\n$10\r\ninvalidate\r\n*2\r\n:1\r\n$1\r\na\r\n");
    CHECK(fired[0] == 1);
    rc_track_deinit(&track);
}

int main(void)
{
    TEST(fires_the_watches_of_the_keys_that_changed);
    TEST(fires_all_on_a_flush);
    TEST(does_not_fire_what_was_taken_back);
    TEST(stands_watches_that_vanish_while_it_fires);
    TEST(ignores_other_pushes);
    return test_result();
}
