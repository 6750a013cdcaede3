/* What is written while somebody listens is told, in order, once, and whole; or there is a gap. */
#include "near/ring.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "test/test.h"

enum { SMALL = 64 * 1024, ROOM = RC_RING_MAX_BYTES + 4096, SECOND = 1000000 };

static const struct rc_mix_seed seed = {{11, 22, 33, 44}};
static _Alignas(64) char memory[ROOM];
static struct rc_ring ring;
static rc_listener listener;
static char key[RC_RING_MAX_KEY];
static size_t len;

static void begin(size_t region_bytes)
{
    memset(memory, 0, sizeof memory);
    rc_ring_view(&ring, region_bytes, memory, &seed);
    rc_ring_listen(&ring, &listener, SECOND);
}

static void write_text(int told, const char *text)
{
    rc_ring_write(&ring, told, text, strlen(text), SECOND);
}

static int hear(int64_t now_us)
{
    memset(key, 'x', sizeof key);
    return rc_ring_hear(&ring, &listener, key, &len, now_us);
}

static bool heard(int told, const char *text)
{
    return hear(SECOND) == told && len == strlen(text) && memcmp(key, text, len) == 0;
}

static void writes_nothing_while_nobody_listens(void)
{
    memset(memory, 0, sizeof memory);
    rc_ring_view(&ring, SMALL, memory, &seed);
    CHECK(!rc_ring_is_heard(&ring));
    write_text(RC_TOLD_PUSH, "k");
    CHECK(atomic_load(&ring.head->end) == 0);
    rc_ring_listen(&ring, &listener, SECOND);
    CHECK(rc_ring_is_heard(&ring) && hear(SECOND) == RC_TOLD_NOTHING);
    CHECK(!rc_ring_has_news(&ring, &listener, SECOND));
}

static void tells_what_was_written_in_its_order(void)
{
    begin(SMALL);
    write_text(RC_TOLD_PUSH, "first");
    write_text(RC_TOLD_WRITE, "");
    write_text(RC_TOLD_WRITE, "eight by");
    write_text(RC_TOLD_FLUSH, "");
    CHECK(rc_ring_has_news(&ring, &listener, SECOND));
    CHECK(heard(RC_TOLD_PUSH, "first"));
    CHECK(heard(RC_TOLD_WRITE, ""));
    CHECK(heard(RC_TOLD_WRITE, "eight by"));
    CHECK(heard(RC_TOLD_FLUSH, ""));
    CHECK(hear(SECOND) == RC_TOLD_NOTHING && !rc_ring_has_news(&ring, &listener, SECOND));
}

static void tells_every_listener_once_as_often_as_it_goes_round(void)
{
    rc_listener other;
    begin(SMALL);
    rc_ring_listen(&ring, &other, SECOND);
    for (int i = 0; i < 1000; i++) {
        char text[200] = {0};
        memset(text, 'a' + i % 26, (size_t)(i * 7) % 180);
        write_text(RC_TOLD_PUSH, text);
        CHECK(heard(RC_TOLD_PUSH, text));
        CHECK(rc_ring_hear(&ring, &other, key, &len, SECOND) == RC_TOLD_PUSH);
        CHECK(len == strlen(text) && memcmp(key, text, len) == 0);
    }
    CHECK(atomic_load(&ring.head->end) > 20 * ring.size);
}

static void tells_a_gap_to_who_is_too_slow_and_goes_on(void)
{
    begin(SMALL);
    for (int i = 0; i < 100; i++)
        write_text(RC_TOLD_PUSH, "twenty bytes of a key");
    CHECK(hear(SECOND) == RC_TOLD_GAP && len == 0);
    CHECK(hear(SECOND) == RC_TOLD_NOTHING);
    write_text(RC_TOLD_PUSH, "next");
    CHECK(heard(RC_TOLD_PUSH, "next"));
}

static void tells_a_gap_of_a_key_that_is_too_long(void)
{
    char longest[RC_RING_MAX_KEY + 1];
    memset(longest, 'l', sizeof longest);
    begin(SMALL); /* a quarter of 1,024 bytes, less what stands before the key */
    rc_ring_write(&ring, RC_TOLD_PUSH, longest, 232, SECOND);
    rc_ring_write(&ring, RC_TOLD_PUSH, longest, 233, SECOND);
    CHECK(hear(SECOND) == RC_TOLD_PUSH && len == 232);
    CHECK(hear(SECOND) == RC_TOLD_GAP);
    begin((size_t)64 * 1024 * 1024);
    CHECK(ring.size == RC_RING_MAX_BYTES);
    rc_ring_write(&ring, RC_TOLD_PUSH, longest, RC_RING_MAX_KEY, SECOND);
    rc_ring_write(&ring, RC_TOLD_PUSH, longest, RC_RING_MAX_KEY + 1, SECOND);
    CHECK(hear(SECOND) == RC_TOLD_PUSH && len == RC_RING_MAX_KEY);
    CHECK(hear(SECOND) == RC_TOLD_GAP);
}

static void writes_no_more_for_who_does_not_come_back_and_says_so(void)
{
    int64_t late = SECOND + RC_RING_WINDOW_US + 1;
    begin(SMALL);
    rc_ring_write(&ring, RC_TOLD_PUSH, "k", 1, late);
    CHECK(atomic_load(&ring.head->end) == 0);
    CHECK(rc_ring_has_news(&ring, &listener, late));
    CHECK(hear(late) == RC_TOLD_GAP);
    rc_ring_write(&ring, RC_TOLD_PUSH, "k", 1, late);
    CHECK(hear(late) == RC_TOLD_PUSH);
    /* One that only looks is there, too. */
    for (int i = 0; i < 100; i++) {
        late += RC_RING_LAPSE_US / 2;
        CHECK(!rc_ring_has_news(&ring, &listener, late));
    }
    rc_ring_write(&ring, RC_TOLD_PUSH, "k", 1, late);
    CHECK(hear(late) == RC_TOLD_PUSH);
}

static void waits_for_a_record_that_is_being_written_but_not_for_ever(void)
{
    begin(SMALL);
    atomic_fetch_add(&ring.head->end, 32); /* somebody has taken the room, and died */
    write_text(RC_TOLD_PUSH, "behind");
    CHECK(hear(SECOND) == RC_TOLD_NOTHING);
    CHECK(hear(SECOND + RC_RING_PATIENCE_US) == RC_TOLD_NOTHING);
    CHECK(hear(SECOND + RC_RING_PATIENCE_US + 1) == RC_TOLD_GAP);
    write_text(RC_TOLD_PUSH, "next");
    CHECK(heard(RC_TOLD_PUSH, "next"));
}

static void takes_damaged_bytes_for_a_gap(void)
{
    uint64_t state = 1;
    for (int round = 0; round < 20000; round++) {
        begin(SMALL);
        write_text(RC_TOLD_PUSH, "the first one");
        write_text(RC_TOLD_WRITE, "another");
        size_t at = test_below(&state, sizeof(struct rc_ring_head) + 96);
        memory[at] ^= (char)(1 << test_below(&state, 8));
        for (int i = 0; i < 2; i++) {
            int told = hear(SECOND);
            if (told == RC_TOLD_GAP || told == RC_TOLD_NOTHING)
                break;
            const char *text = i == 0 ? "the first one" : "another";
            CHECK(told == (i == 0 ? RC_TOLD_PUSH : RC_TOLD_WRITE));
            CHECK(len == strlen(text) && memcmp(key, text, len) == 0);
        }
    }
}

/* ---- at the same time ------------------------------------------------------------------------ */

enum { WRITERS = 3, RECORDS = 60000, MOST_RECORDS = 20 * RECORDS };

static atomic_int writers_left;
static atomic_int deaf; /* listeners that were told nothing yet */

/* Its number and the record's, again and again. */
static size_t text_of(int writer, int record, char *text)
{
    size_t bytes = 8 + (size_t)(record * 13) % 90;
    for (size_t at = 0; at < bytes; at += 8)
        memcpy(text + at, (int[2]){writer, record}, 8);
    return bytes;
}

static void *write_many(void *argument)
{
    int writer = *(int *)argument;
    char text[128];
    /* More of them where a busy machine has had no time for a listener. */
    for (int record = 0; record < RECORDS || (atomic_load(&deaf) > 0 && record < MOST_RECORDS);
         record++) {
        rc_ring_write(&ring, RC_TOLD_PUSH, text, text_of(writer, record, text), SECOND);
        if (record % 8 == 0)
            sched_yield(); /* on two processors, too, somebody listens meanwhile */
    }
    atomic_fetch_sub(&writers_left, 1);
    return NULL;
}

struct figures {
    int gaps, told;
};

/* Of each writer, what is told comes in order and is whole. */
static void *listen_to_all(void *argument)
{
    struct figures *figures = argument;
    int last[WRITERS] = {-1, -1, -1};
    rc_listener own;
    char found[RC_RING_MAX_KEY], text[128];
    size_t found_len;
    rc_ring_listen(&ring, &own, SECOND);
    for (;;) {
        int is_over = atomic_load(&writers_left) == 0;
        int told = rc_ring_hear(&ring, &own, found, &found_len, SECOND);
        if (told == RC_TOLD_NOTHING && is_over)
            return NULL;
        figures->gaps += told == RC_TOLD_GAP;
        if (told != RC_TOLD_PUSH)
            continue;
        if (figures->told++ == 0)
            atomic_fetch_sub(&deaf, 1);
        int who[2];
        memcpy(who, found, sizeof who);
        if (!CHECK(who[0] >= 0 && who[0] < WRITERS && who[1] > last[who[0]]))
            return NULL;
        last[who[0]] = who[1];
        CHECK(found_len == text_of(who[0], who[1], text) && memcmp(found, text, found_len) == 0);
    }
}

static void many_write_and_listen_at_once(void)
{
    pthread_t threads[WRITERS + 2];
    int numbers[WRITERS];
    struct figures figures[2] = {{0, 0}, {0, 0}};
    begin(SMALL); /* goes round every 15 records: listeners are overtaken all the time */
    atomic_store(&writers_left, WRITERS);
    atomic_store(&deaf, 2);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[WRITERS + i], NULL, listen_to_all, &figures[i]);
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, write_many, &numbers[i]);
    }
    for (int i = 0; i < WRITERS + 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        printf("     %d told, %d gaps\n", figures[i].told, figures[i].gaps);
        CHECK(figures[i].told > 0);
    }
}

int main(void)
{
    TEST(writes_nothing_while_nobody_listens);
    TEST(tells_what_was_written_in_its_order);
    TEST(tells_every_listener_once_as_often_as_it_goes_round);
    TEST(tells_a_gap_to_who_is_too_slow_and_goes_on);
    TEST(tells_a_gap_of_a_key_that_is_too_long);
    TEST(writes_no_more_for_who_does_not_come_back_and_says_so);
    TEST(waits_for_a_record_that_is_being_written_but_not_for_ever);
    TEST(takes_damaged_bytes_for_a_gap);
    TEST(many_write_and_listen_at_once);
    return test_result();
}
