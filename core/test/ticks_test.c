#include "near/ticks.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "test/test.h"

/* What the counter may be off: a few microseconds, and a reader that lost its processor between its
   two clocks knows nothing. So of many looks the best counts, and the bound is wide. */
static int64_t least_error_us(struct rc_ticks *ticks)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < 1000; i++) {
        int64_t before = rc_clock_us();
        int64_t told = rc_ticks_now_us(ticks);
        int64_t after = rc_clock_us();
        int64_t off = told < before ? before - told : told > after ? told - after : 0;
        least = off < least ? off : least;
    }
    return least;
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static void keeps_up_with_the_clock(void)
{
    struct rc_ticks ticks;
    rc_ticks_init(&ticks, NULL);
    for (int i = 0; i < 20; i++) {
        CHECK(least_error_us(&ticks) < 100);
        pause_ms(i < 10 ? 7 : 31); /* shorter and longer than a comparison holds */
    }
    int state = atomic_load(&ticks.state);
    CHECK(state == RC_TICKS_COUNTED || state == RC_TICKS_CLOCK);
    printf("     %s\n", state == RC_TICKS_COUNTED ? "by the counter" : "by the clock alone");
}

/* The coarse clock of the kernel does not: after a second in which the machine slept it is a second
   late, for up to a tick. */
static void is_right_at_once_when_a_process_goes_on(void)
{
    struct rc_ticks ticks;
    rc_ticks_init(&ticks, NULL);
    pause_ms(25);
    CHECK(least_error_us(&ticks) < 100);
    for (int i = 0; i < 10; i++) {
        int64_t before = rc_clock_us();
        pause_ms(60);
        CHECK(rc_ticks_now_us(&ticks) - before >= 59000); /* the very first look */
    }
}

static void goes_on_in_a_child(void)
{
    struct rc_ticks ticks;
    rc_ticks_init(&ticks, NULL);
    pause_ms(25);
    least_error_us(&ticks);
    pid_t child = fork();
    if (child == 0)
        _exit(least_error_us(&ticks) < 100 ? 0 : 1);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void reads_the_clock_where_the_counter_proves_unsteady(void)
{
    struct rc_ticks ticks;
    rc_ticks_init(&ticks, NULL);
    pause_ms(25);
    least_error_us(&ticks);
    if (atomic_load(&ticks.state) != RC_TICKS_COUNTED)
        return; /* it does anyway */
    least_error_us(&ticks);
    atomic_fetch_add(&ticks.offset_us, 50000); /* as if it had jumped */
    pause_ms(15);
    CHECK(least_error_us(&ticks) < 100);
    CHECK(atomic_load(&ticks.state) == RC_TICKS_CLOCK);
}

static void tells_the_time_it_is_given(void)
{
    struct rc_ticks ticks;
    _Atomic int64_t given = 1000;
    rc_ticks_init(&ticks, &given);
    CHECK(rc_ticks_now_us(&ticks) == 1000);
    pause_ms(30);
    CHECK(rc_ticks_now_us(&ticks) == 1000);
    atomic_store(&given, 5000000);
    CHECK(rc_ticks_now_us(&ticks) == 5000000);
}

int main(void)
{
    TEST(keeps_up_with_the_clock);
    TEST(is_right_at_once_when_a_process_goes_on);
    TEST(goes_on_in_a_child);
    TEST(reads_the_clock_where_the_counter_proves_unsteady);
    TEST(tells_the_time_it_is_given);
    return test_result();
}
