#include "test/alloc_fail.h"

#include <hiredis/alloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/refuse.h"

enum {
    FIRST_RUNS = 500, /* of many allocations the first are all refused, the others evenly spread */
    BUDGET_ALLOCATIONS = 200 * 1000, /* of all runs of a test; most need far fewer */
    FEWEST_RUNS = 4,                 /* of one with more */
    HANGS_SECONDS = 60, /* the slowest test takes two, ten times that on a busy machine */
    TOLD_BYTES = 4000,  /* of what a run said before it went wrong */
    SANITIZER_STATUS = 99
};

/* A test that cannot go on leaves by exit(1), which is what a sanitizer would do as well. Their
   libraries look for these two among the symbols that can be seen. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__ubsan_default_options(void);
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);

/* LeakSanitizer looks through all memory at the end of a process, which takes more than most runs.
   Blocks of the core and hiredis are counted in each run; other leaks are those of a run in which
   nothing is refused, and it looks there. */
static bool counts_blocks_only;

int __lsan_is_turned_off(void)
{
    return counts_blocks_only;
}

const char *__asan_default_options(void)
{
    return "exitcode=99";
}

const char *__ubsan_default_options(void)
{
    return "exitcode=99:print_stacktrace=1";
}

/* What a run tells about itself. */
struct news {
    long allocations;
    long alive;
    bool failed; /* a CHECK did not hold */
    bool ended;  /* it has told */
};

static struct news *news;
static FILE *said;
static long given_up;

static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *made = refuse_malloc(size);
    return made != NULL ? memcpy(made, text, size) : NULL;
}

static void set_up(void)
{
    hiredisAllocFuncs functions = {refuse_malloc, refuse_calloc, refuse_realloc, copy, refuse_free};
    hiredisSetAllocators(&functions);
    said = tmpfile();
    news = mmap(NULL, sizeof *news, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (said == NULL || news == MAP_FAILED)
        abort();
}

static void tell(const atomic_int *failures)
{
    *news = (struct news){refuse_count(), refuse_alive(), atomic_load(failures) != 0, true};
}

static void run_here(void (*function)(void), atomic_int *failures, long nth)
{
    atomic_store(failures, 0);
    dup2(fileno(said), STDOUT_FILENO);
    dup2(fileno(said), STDERR_FILENO);
    alarm(HANGS_SECONDS);
    counts_blocks_only = nth != 0;
    refuse_nth(nth);
    function();
    tell(failures);
    exit(0);
}

/* How the run ended; the status as of waitpid. */
static int run(void (*function)(void), atomic_int *failures, long nth)
{
    int status = 0;
    *news = (struct news){0};
    rewind(said);
    if (ftruncate(fileno(said), 0) != 0)
        abort();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        run_here(function, failures, nth);
    if (child < 0 || waitpid(child, &status, 0) != child)
        abort();
    return status;
}

static const char *what_is_wrong(int status)
{
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status));
    if (WEXITSTATUS(status) == SANITIZER_STATUS || (news->ended && status != 0))
        return "a sanitizer has something to say";
    given_up += !news->ended;
    return news->alive != 0 ? "it leaves memory behind" : NULL;
}

static void tell_wrong(const char *name, long nth, const char *why)
{
    char text[TOLD_BYTES + 1];
    long end = fseek(said, 0, SEEK_END) == 0 ? ftell(said) : 0;
    fseek(said, end > TOLD_BYTES ? end - TOLD_BYTES : 0, SEEK_SET);
    text[fread(text, 1, TOLD_BYTES, said)] = '\0';
    printf("WRONG %s %ld: %s\n%s", name, nth, why, text);
}

/* By counts and not by time: a run that goes wrong here does so on any machine, each time. */
static long runs_for(long allocations, long most)
{
    long runs = BUDGET_ALLOCATIONS / (allocations + 1);
    if (runs < FEWEST_RUNS)
        runs = FEWEST_RUNS;
    if (runs > most)
        runs = most;
    return allocations < runs ? allocations : runs;
}

/* The allocation that the run with that index refuses. */
static long nth_of(long index, long runs, long allocations)
{
    long first = runs < 2 * FIRST_RUNS ? runs / 2 : FIRST_RUNS;
    if (runs == allocations || index < first)
        return index + 1;
    return first + 1 + (index - first) * (allocations - first - 1) / (runs - first);
}

/* As ALLOC_FAIL wishes, if it means this test. */
static void run_alone(const char *name, void (*function)(void), const char *wish)
{
    size_t len = strlen(name);
    if (strncmp(wish, name, len) != 0 || wish[len] != ' ')
        return;
    refuse_nth(strtol(wish + len, NULL, 10));
    function();
    printf("%ld blocks alive\n", refuse_alive());
}

static bool goes_wrong(const char *name, void (*function)(void), atomic_int *failures, long nth)
{
    const char *why = what_is_wrong(run(function, failures, nth));
    if (why == NULL && nth == 0 && news->failed)
        why = "it fails although nothing is refused";
    if (why != NULL) {
        tell_wrong(name, nth, why);
        atomic_fetch_add(failures, 1);
    }
    return why != NULL;
}

void alloc_fail_run(const char *name, void (*function)(void), long most, atomic_int *failures)
{
    const char *wish = getenv("ALLOC_FAIL");
    if (news == NULL)
        set_up();
    if (wish != NULL) {
        run_alone(name, function, wish);
        return;
    }
    given_up = 0;
    if (goes_wrong(name, function, failures, 0))
        return;
    long allocations = news->allocations;
    long runs = runs_for(allocations, most);
    for (long i = 0; i < runs; i++)
        goes_wrong(name, function, failures, nth_of(i, runs, allocations));
    printf("%5ld of %7ld refused, %4ld given up  %s\n", runs, allocations, given_up, name);
}
