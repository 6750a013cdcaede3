/* A region as a large cluster makes it: 16 processes, each with an owner for each of 60 masters. No
   server is there: the test says when an owner was answered.
   usage: near_owners_test [KILLS] */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "near/near.h"
#include "test/test.h"

enum {
    PROCESSES = 16,
    MASTERS = 60,
    KEYS = 50, /* of each master */
    BYTES = 8 << 20,
    MAX_STALE_US = 100 * 1000,
    VALUE = 200,
    WAIT_MS = 20000,
    AGAIN_MS = 20
};

/* Who has filled an entry, and for which master: each value tells. */
struct mark {
    uint32_t process, master, life;
};

/* Shared by all processes. */
struct board {
    _Atomic uint64_t reads, hits, wrong, late;
    atomic_int ready, refused, is_over;
    /* Of each owner: who it is now, and up to when it is known coherent; told before the region is.
       0: it was renewed, and nothing it filled before is. */
    _Atomic uint32_t lives[PROCESSES][MASTERS];
    _Atomic int64_t asof_us[PROCESSES][MASTERS];
};

static struct rc_near *near;
static struct board *board;

static size_t key_of(uint32_t master, uint32_t number, char key[32])
{
    return (size_t)snprintf(key, 32, "m%u:%u", master, number);
}

static void fill(const struct rc_near_owner *owner, struct mark mark, uint32_t number)
{
    char key[32], value[VALUE] = {0};
    memcpy(value, &mark, sizeof mark);
    struct rc_near_entry entry = {.key = key,
                                  .key_len = key_of(mark.master, number, key),
                                  .value = value,
                                  .value_len = sizeof value,
                                  .kind = RC_KIND_PLAIN,
                                  .deadline_us = INT64_MAX};
    entry.hash = rc_near_hash(near, key, entry.key_len);
    (void)rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash));
}

static void read_one(uint32_t master, uint32_t number)
{
    char key[32], buffer[VALUE];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    int64_t now_us = rc_near_now_us();
    size_t len = key_of(master, number, key);
    int outcome = rc_near_lookup(near, NULL, 0, key, len, MAX_STALE_US, &value);
    atomic_fetch_add(&board->reads, 1);
    if (outcome != RC_NEAR_HIT)
        return;
    struct mark mark;
    atomic_fetch_add(&board->hits, 1);
    memcpy(&mark, value.data, sizeof mark);
    if (value.len != VALUE || mark.master != master || mark.process >= PROCESSES) {
        atomic_fetch_add(&board->wrong, 1);
        return;
    }
    /* Read behind the lookup: the owner may have moved on since, but never back. */
    int64_t asof_us = atomic_load(&board->asof_us[mark.process][mark.master]);
    bool is_older = mark.life > atomic_load(&board->lives[mark.process][mark.master]);
    if (now_us - asof_us > MAX_STALE_US || is_older)
        atomic_fetch_add(&board->late, 1);
}

static void answer(struct rc_near_owner *owner, uint32_t process, uint32_t master)
{
    int64_t now_us = rc_near_now_us();
    atomic_store(&board->asof_us[process][master], now_us);
    rc_near_set_asof(owner, now_us);
}

static void pause_us(long us)
{
    const struct timespec pause = {.tv_nsec = us * 1000};
    nanosleep(&pause, NULL);
}

/* On a machine that is busy enough 15 others may be in front for longer than a process waits: then
   it asks again a moment later, as the engine does. Any other refusal is one. */
static struct rc_near_owner *add_owner(void)
{
    const char *why = "";
    struct rc_near_owner *owner = rc_near_add_owner(near, &why);
    for (int ms = 0; owner == NULL && strstr(why, "too long") != NULL && ms < WAIT_MS;
         ms += AGAIN_MS) {
        pause_us(AGAIN_MS * 1000);
        owner = rc_near_add_owner(near, &why);
    }
    if (owner == NULL)
        fprintf(stderr, "no owner: %s\n", why);
    return owner;
}

static void run(uint32_t process, uint64_t seed)
{
    static struct rc_near_owner *owners[MASTERS];
    for (uint32_t i = 0; i < MASTERS; i++) {
        owners[i] = add_owner();
        if (owners[i] == NULL) {
            atomic_fetch_add(&board->refused, 1);
            return;
        }
        rc_near_name_owner(owners[i], i + 1);
        atomic_fetch_add(&board->lives[process][i], 1);
    }
    atomic_fetch_add(&board->ready, 1);
    while (!atomic_load(&board->is_over)) {
        uint32_t master = test_below(&seed, MASTERS), number = test_below(&seed, KEYS);
        uint32_t dice = test_below(&seed, 100);
        if (dice == 0)
            pause_us(500); /* others have the processor, too */
        if (dice < 10) {
            answer(owners[master], process, master);
        } else if (dice < 11) { /* its connection broke */
            rc_near_renew_owner(owners[master]);
        } else if (dice < 30) {
            uint32_t life = atomic_load(&board->lives[process][master]);
            answer(owners[master], process, master);
            fill(owners[master], (struct mark){process, master, life}, number);
        } else {
            read_one(master, number);
        }
    }
    for (uint32_t i = 0; i < MASTERS; i++)
        rc_near_remove_owner(near, owners[i]);
}

static pid_t start(uint32_t process, uint64_t seed)
{
    pid_t child = fork();
    if (child == 0) {
        run(process, seed);
        _exit(0);
    }
    return child;
}

/* False at once where one was refused: it never will be. */
static bool become_ready(int count)
{
    for (int ms = 0; atomic_load(&board->ready) < count && ms < WAIT_MS; ms += 5) {
        if (atomic_load(&board->refused) > 0)
            return false;
        pause_us(5000);
    }
    return atomic_load(&board->ready) >= count;
}

static int kills = 12;

static void sixty_masters_and_sixteen_processes_fit_a_region(void)
{
    struct rc_near_options options = {.bytes = BYTES};
    const char *why;
    pid_t processes[PROCESSES];
    uint64_t seed = 1;
    int expected = PROCESSES;
    rc_near_stats stats;
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(board != MAP_FAILED && rc_near_open(&near, &options, &why) == 0))
        return;
    for (uint32_t i = 0; i < PROCESSES; i++)
        processes[i] = start(i, test_random(&seed));
    bool is_ready = CHECK(become_ready(expected));
    for (int i = 0; i < kills && is_ready; i++) {
        uint32_t victim = test_below(&seed, PROCESSES);
        pause_us(20000);
        CHECK(kill(processes[victim], SIGKILL) == 0 && waitpid(processes[victim], NULL, 0) > 0);
        processes[victim] = start(victim, test_random(&seed)); /* takes over its owners' places */
        is_ready = CHECK(become_ready(++expected));
    }
    uint64_t before = atomic_load(&board->hits);
    for (int ms = 0; is_ready && atomic_load(&board->hits) < before + 1000 && ms < WAIT_MS;
         ms += 20)
        pause_us(20000);
    CHECK(!is_ready || atomic_load(&board->hits) >= before + 1000); /* it goes on to the end */
    atomic_store(&board->is_over, 1);
    for (uint32_t i = 0; i < PROCESSES; i++)
        CHECK(waitpid(processes[i], NULL, 0) > 0);
    rc_near_read_stats(near, &stats);
    printf("     %d owners, %d kills, %llu reads, %llu hits: %llu of another master, %llu late\n",
           PROCESSES * MASTERS, kills, (unsigned long long)atomic_load(&board->reads),
           (unsigned long long)atomic_load(&board->hits),
           (unsigned long long)atomic_load(&board->wrong),
           (unsigned long long)atomic_load(&board->late));
    CHECK(atomic_load(&board->refused) == 0);
    CHECK(atomic_load(&board->wrong) == 0 && atomic_load(&board->late) == 0);
    CHECK(stats.bytes <= BYTES && stats.entries <= MASTERS * KEYS);
    rc_near_close(near);
    munmap(board, sizeof(*board));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        kills = atoi(argv[1]);
    TEST(sixty_masters_and_sixteen_processes_fit_a_region);
    return test_result();
}
