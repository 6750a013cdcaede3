#include "driver/lookup.h"

#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "driver/fork.h"
#include "test/test.h"

enum { PATIENCE_US = 10000000, CHILD_SECONDS = 10 };

static sem_t entered, leave;

/* Stays in the lookup's mutex: wake is called there. */
static void stay(void *argument)
{
    (void)argument;
    sem_post(&entered);
    sem_wait(&leave);
}

static void note(void *argument)
{
    sem_post(argument);
}

static struct rc_lookup *start(void (*wake)(void *argument), void *argument)
{
    struct rc_lookup *lookup = NULL;
    if (rc_lookup_start(&lookup, "localhost", 6379, wake, argument) != 0)
        exit(1);
    return lookup;
}

static void finds_an_address_and_wakes(void)
{
    sem_t woken;
    const char *why = NULL;
    sem_init(&woken, 0, 0);
    struct rc_lookup *lookup = start(note, &woken);
    sem_wait(&woken);
    CHECK(rc_lookup_is_done(lookup));
    struct addrinfo *found = rc_lookup_take(lookup, &why);
    if (CHECK(found != NULL))
        freeaddrinfo(found);
    sem_destroy(&woken);
}

static void run_in_child(struct rc_lookup *lookup, int what)
{
    const char *why = NULL;
    alarm(CHILD_SECONDS); /* a mutex that nobody unlocks */
    if (what == 0) {
        rc_lookup_abandon(lookup);
        _exit(0);
    }
    _exit(rc_lookup_is_done(lookup) && rc_lookup_take(lookup, &why) == NULL && why != NULL ? 0 : 1);
}

/* The child has the mutex as it was, and no thread that would unlock it. */
static void a_child_does_not_wait_for_its_parents_thread(void)
{
    struct rc_lookup *lookup = start(stay, NULL);
    sem_wait(&entered);
    for (int what = 0; what < 2; what++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            run_in_child(lookup, what);
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    sem_post(&leave);
    rc_lookup_abandon(lookup);
}

int main(void)
{
    rc_fork_init();
    sem_init(&entered, 0, 0);
    sem_init(&leave, 0, 0);
    TEST(finds_an_address_and_wakes);
    TEST(a_child_does_not_wait_for_its_parents_thread);
    return test_result();
}
