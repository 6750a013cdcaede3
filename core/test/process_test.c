#include "near/process.h"

#include <sys/wait.h>
#include <unistd.h>

#include "test/test.h"

static void knows_itself(void)
{
    int32_t self = (int32_t)getpid();
    CHECK(rc_process_started(self) > 0);
    CHECK(rc_process_started(self) == rc_process_started(self));
    CHECK(rc_process_is_alive(self, rc_process_started(self)));
}

static void a_pid_that_was_given_anew_is_another_process(void)
{
    int32_t self = (int32_t)getpid();
    CHECK(!rc_process_is_alive(self, rc_process_started(self) + 1));
}

static void nobody_is_alive_behind_a_pid_that_is_free(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(rc_process_started((int32_t)child) == 0);
    CHECK(!rc_process_is_alive((int32_t)child, 0));
}

/* A false alarm would take a living process's slot away. */
static void is_taken_for_alive_where_nobody_can_tell_when_it_started(void)
{
    CHECK(rc_process_is_alive((int32_t)getpid(), 0));
}

int main(void)
{
    TEST(knows_itself);
    TEST(a_pid_that_was_given_anew_is_another_process);
    TEST(nobody_is_alive_behind_a_pid_that_is_free);
    TEST(is_taken_for_alive_where_nobody_can_tell_when_it_started);
    return test_result();
}
