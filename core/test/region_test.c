#include "near/region.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "near/near_own.h"
#include "test/test.h"

enum { SECOND = 1000000, SIZE = 1 << 20 };

/* A name of this process alone. */
static struct rc_near_options named(void)
{
    static char name[40];
    snprintf(name, sizeof(name), "region_test.%d", (int)getpid());
    return (struct rc_near_options){
        .bytes = SIZE, .name = name, .name_len = strlen(name), .server = 7};
}

/* Also where the set-up has failed: script/alloc-fail lets that happen, in processes of its own. */
static void leave_no_name(void)
{
    struct rc_near_options options = named();
    rc_near_unlink(options.name, options.name_len);
}

static struct rc_near *open_near(const struct rc_near_options *options)
{
    struct rc_near *near = NULL;
    const char *why = "";
    if (!CHECK(rc_near_open(&near, options, &why) == 0)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    return near;
}

static bool refuses(const struct rc_near_options *options, const char *part)
{
    struct rc_near *near = NULL;
    const char *why = "";
    if (rc_near_open(&near, options, &why) == 0) {
        rc_near_close(near);
        return false;
    }
    return strstr(why, part) != NULL;
}

static bool fill(struct rc_near *near, const struct rc_near_owner *owner, const char *key)
{
    struct rc_near_entry entry = {.key = key,
                                  .key_len = strlen(key),
                                  .value = key,
                                  .value_len = strlen(key),
                                  .kind = RC_KIND_VALUE,
                                  .deadline_us = INT64_MAX};
    entry.hash = rc_near_hash(near, entry.key, entry.key_len);
    return rc_near_fill(near, owner, &entry, rc_near_write_version(near, entry.hash));
}

static int look(struct rc_near *near, const char *key)
{
    char buffer[100];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    int outcome = rc_near_lookup(near, NULL, 0, key, strlen(key), 10 * SECOND, &value);
    if (outcome == RC_NEAR_HIT)
        CHECK(value.len == strlen(key) && memcmp(value.data, key, value.len) == 0);
    return outcome;
}

static bool ends_well(pid_t child)
{
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- names ----------------------------------------------------------------------------------- */

static void shares_entries_by_name(void)
{
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "from the parent"));
    pid_t child = fork();
    if (child == 0) {
        struct rc_near *other = open_near(&options); /* another mapping */
        CHECK(other != NULL && look(other, "from the parent") == RC_NEAR_HIT);
        struct rc_near_owner *its = rc_near_add_owner(other, NULL);
        rc_near_set_asof(its, rc_near_now_us());
        CHECK(fill(other, its, "from the child"));
        rc_near_drop(other, "from the parent", 15, RC_NEAR_WRITE);
        _exit(test_result());
    }
    CHECK(ends_well(child));
    CHECK(look(near, "from the child") == RC_NEAR_HIT);
    CHECK(look(near, "from the parent") == RC_NEAR_MISS);
    rc_near_close(near);
    CHECK(rc_near_unlink(options.name, options.name_len) == 0);
    CHECK(rc_near_unlink(options.name, options.name_len) == RC_ERR_ARGUMENT);
}

static void gives_a_name_anew_after_it_was_taken_away(void)
{
    struct rc_near_options options = named();
    struct rc_near *old = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(old, NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(old, owner, "key") && rc_near_unlink(options.name, options.name_len) == 0);
    struct rc_near *new = open_near(&options);
    CHECK(look(new, "key") == RC_NEAR_MISS && look(old, "key") == RC_NEAR_HIT);
    rc_near_close(old);
    rc_near_close(new);
    rc_near_unlink(options.name, options.name_len);
}

static void refuses_a_region_made_for_something_else(void)
{
    struct rc_near_options options = named(), other = options;
    struct rc_near *near = open_near(&options);
    other.bytes = 2 * SIZE;
    CHECK(refuses(&other, "another size"));
    other = options;
    other.server = 8;
    CHECK(refuses(&other, "another server"));
    other = options;
    other.user = 1;
    CHECK(refuses(&other, "another user of Redis"));
    near->region.head->layout++;
    CHECK(refuses(&options, "another version"));
    near->region.head->layout--;
    near->region.head->birth_us ^= 1;
    CHECK(refuses(&options, "is damaged"));
    near->region.head->birth_us ^= 1;
    near->region.head->user ^= 1;
    CHECK(refuses(&options, "is damaged"));
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void refuses_names_and_sizes_that_cannot_be(void)
{
    struct rc_near_options options = named();
    options.name_len = 0;
    CHECK(refuses(&options, "letters"));
    options.name = "a/b";
    options.name_len = 3;
    CHECK(refuses(&options, "letters"));
    CHECK(rc_near_unlink("a/b", 3) == RC_ERR_ARGUMENT);
    options = (struct rc_near_options){.bytes = RC_NEAR_MIN_BYTES - 1};
    CHECK(refuses(&options, "64 KiB"));
    options = (struct rc_near_options){.bytes = SIZE, .stripes = 3};
    CHECK(refuses(&options, "stripes"));
    options.stripes = 64;
    CHECK(refuses(&options, "stripes"));
    options = (struct rc_near_options){.bytes = RC_NEAR_MIN_BYTES};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    rc_near_close(near);
}

static void lets_nobody_else_read_it(void)
{
    struct rc_near_options options = named();
    char path[300];
    struct stat status;
    struct rc_near *near = open_near(&options);
    snprintf(path, sizeof(path), "/redcache-%s", options.name);
    int fd = shm_open(path, O_RDWR, 0);
    CHECK(fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & 0777) == 0600);
    CHECK((size_t)status.st_blocks * 512 >= SIZE); /* it cannot run out of memory later */
    CHECK(fchmod(fd, 0660) == 0 && refuses(&options, "others may open"));
    close(fd);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void makes_anew_what_its_maker_left_half_done(void)
{
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    atomic_store(&near->region.head->is_ready, 0);
    near->region.head->stripe_count = 0;
    rc_near_close(near);
    near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void leaves_its_memory_to_those_who_use_it_when_it_is_made_anew(void)
{
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "key"));
    atomic_store(&near->region.head->is_ready, 0); /* damaged */
    struct rc_near *other = open_near(&options);
    CHECK(look(near, "key") == RC_NEAR_HIT); /* no SIGBUS */
    CHECK(look(other, "key") == RC_NEAR_MISS);
    rc_near_close(other);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void is_made_once_by_many_at_once(void)
{
    enum { CHILDREN = 8 };
    struct rc_near_options options = named();
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++)
        if ((children[i] = fork()) == 0) {
            char key[32];
            struct rc_near *near = open_near(&options);
            struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
            rc_near_set_asof(owner, rc_near_now_us());
            snprintf(key, sizeof(key), "key:%d", i);
            CHECK(fill(near, owner, key));
            _exit(test_result());
        }
    for (int i = 0; i < CHILDREN; i++)
        CHECK(ends_well(children[i]));
    struct rc_near *near = open_near(&options);
    rc_near_stats stats;
    rc_near_read_stats(near, &stats);
    CHECK(stats.entries == CHILDREN);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

/* ---- processes ------------------------------------------------------------------------------- */

static void is_inherited_by_a_child(void)
{
    struct rc_near_options options = {.bytes = SIZE};
    struct rc_near *near = open_near(&options);
    pid_t child = fork();
    if (child == 0) {
        struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
        rc_near_set_asof(owner, rc_near_now_us());
        CHECK(fill(near, owner, "key"));
        _exit(test_result());
    }
    CHECK(ends_well(child));
    CHECK(look(near, "key") == RC_NEAR_HIT); /* until the horizon, although its owner is gone */
    CHECK(rc_near_add_owner(near, NULL) != NULL); /* which is found out now, */
    CHECK(look(near, "key") == RC_NEAR_STALE);
    rc_near_close(near);
}

static void has_a_slot_for_each_owner_alive(void)
{
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owners[16];
    for (int i = 0; i < 15; i++)
        CHECK((owners[i] = rc_near_add_owner(near, NULL)) != NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(rc_near_add_owner(near, NULL) != NULL && rc_near_add_owner(near, NULL) == NULL ? 0
                                                                                             : 1);
    CHECK(ends_well(child));
    CHECK((owners[15] = rc_near_add_owner(near, NULL)) != NULL); /* the dead child's */
    CHECK(rc_near_add_owner(near, NULL) == NULL);
    rc_near_remove_owner(near, owners[3]);
    CHECK(rc_near_add_owner(near, NULL) == owners[3]);
    rc_near_close(near);
}

/* As the client does it around each fork. */
static pid_t fork_with(struct rc_near *near)
{
    rc_near_before_fork(near);
    pid_t child = fork();
    if (child == 0)
        rc_near_after_fork_in_child(near);
    else
        rc_near_after_fork(near);
    return child;
}

static bool has_owner(const struct rc_near *near, uint32_t slot)
{
    return atomic_load(&near->region.owners[slot].pid) != 0;
}

/* The slots that the call finds, to the one process, from the other. */
static void tell(int fd, uint32_t slot)
{
    CHECK(write(fd, &slot, sizeof(slot)) == (ssize_t)sizeof(slot));
}

static uint32_t hear(int fd)
{
    uint32_t slot = UINT32_MAX;
    CHECK(read(fd, &slot, sizeof(slot)) == (ssize_t)sizeof(slot));
    return slot;
}

static uint32_t add_owner(struct rc_near *near)
{
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    return owner != NULL ? (uint32_t)(owner - near->region.owners) : UINT32_MAX;
}

/* In namespaces of its own: 0, 1 where something was wrong, 2 where that is not allowed. */
static int run_apart(int namespaces, void (*run)(void *context), void *context)
{
    int status = 0;
    pid_t outer = fork();
    if (outer == 0) {
        if (unshare(namespaces) != 0 && unshare(CLONE_NEWUSER | namespaces) != 0)
            _exit(2);
        pid_t inner = fork();
        if (inner == 0) {
            run(context);
            _exit(test_result());
        }
        _exit(ends_well(inner) ? 0 : 1);
    }
    CHECK(waitpid(outer, &status, 0) == outer && WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        printf("pending: no namespaces for this process (%s)\n", strerror(EPERM));
    return WEXITSTATUS(status);
}

struct container {
    struct rc_near_options options;
    struct rc_near *near; /* inherited */
    uint32_t taken;       /* the slot of the process outside */
};

static void own_in_another_pid_namespace(void *context)
{
    struct container *container = context;
    struct rc_near *near = open_near(&container->options);
    uint32_t slot = add_owner(near);
    CHECK(slot != UINT32_MAX && slot != container->taken);
    CHECK(has_owner(near, container->taken));                /* whose number means nothing here */
    CHECK(rc_near_add_owner(container->near, NULL) == NULL); /* anonymous: told by numbers */
}

static void tells_who_lives_over_pid_namespaces(void)
{
    struct rc_near_options anonymous = {.bytes = SIZE};
    struct container container = {.options = named()};
    struct rc_near *near = open_near(&container.options);
    container.near = open_near(&anonymous);
    container.taken = add_owner(near);
    int status = run_apart(CLONE_NEWPID, own_in_another_pid_namespace, &container);
    CHECK(status == 0 || status == 2);
    uint32_t next = add_owner(near); /* the other one's, who is gone */
    CHECK(next == container.taken + 1 && !has_owner(near, next + 1));
    rc_near_close(near);
    rc_near_close(container.near);
    rc_near_unlink(container.options.name, container.options.name_len);
}

static void open_in_another_time_namespace(void *context)
{
    CHECK(refuses(context, "time namespace"));
}

static void is_refused_where_the_clock_is_another_one(void)
{
#ifdef CLONE_NEWTIME
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    int status = run_apart(CLONE_NEWTIME, open_in_another_time_namespace, &options);
    CHECK(status == 0 || status == 2);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
#endif
}

static uint32_t count_owners(const struct rc_near *near)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < near->region.owner_count; slot++)
        count += has_owner(near, slot);
    return count;
}

/* To ask who lives takes long where many have slots, and others wait for that. */
static void looks_after_some_of_the_owners_at_a_time(void)
{
    enum { CHILDREN = 40, AT_ONCE = 32 };
    struct rc_near_options options = {.bytes = SIZE};
    struct rc_near *near = open_near(&options);
    pid_t children[CHILDREN];
    int says[2];
    CHECK(pipe(says) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        if ((children[i] = fork()) == 0) {
            tell(says[1], add_owner(near));
            pause();
        }
        CHECK(hear(says[0]) == (uint32_t)i);
    }
    for (int i = 0; i < CHILDREN; i++) {
        kill(children[i], SIGKILL);
        CHECK(waitpid(children[i], NULL, 0) == children[i]);
    }
    CHECK(add_owner(near) == 0 && count_owners(near) == CHILDREN - AT_ONCE + 1);
    CHECK(add_owner(near) == 1 && count_owners(near) == 2);
    close(says[0]);
    close(says[1]);
    rc_near_close(near);
}

/* How often this thread has slept. */
static long naps(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_nvcsw;
}

/* By a process that was stopped with it. */
static void waits_long_for_the_list_of_owners_but_once(void)
{
    enum { TRIES = 20, MANY_NAPS = 30 };
    struct rc_near_options options = {.bytes = SIZE};
    struct rc_near *near = open_near(&options);
    const char *why = NULL;
    int says[2];
    CHECK(pipe(says) == 0);
    pid_t holder = fork();
    if (holder == 0) {
        pthread_mutex_lock(&near->region.head->mutex);
        tell(says[1], 0);
        pause();
    }
    CHECK(hear(says[0]) == 0);
    int64_t begun_us = rc_near_now_us();
    CHECK(rc_near_add_owner(near, &why) == NULL && strstr(why, "too long") != NULL);
    CHECK(rc_near_now_us() - begun_us >= RC_STRIPE_PATIENCE_US);
    /* Who is patient takes a thousand naps, or as many as a busy machine leaves time for. 5 ms have
       room for a dozen, however long each of them is, and the way there. */
    for (int i = 0; i < TRIES; i++) {
        long before = naps();
        CHECK(rc_near_add_owner(near, NULL) == NULL);
        CHECK(naps() - before < MANY_NAPS);
    }
    kill(holder, SIGKILL);
    CHECK(waitpid(holder, NULL, 0) == holder);
    CHECK(rc_near_add_owner(near, NULL) != NULL && !near->region.is_lost);
    close(says[0]);
    close(says[1]);
    rc_near_close(near);
}

static void frees_the_slot_of_who_was_killed_while_its_child_lives(void)
{
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    int says[2], ends[2];
    CHECK(pipe(says) == 0 && pipe(ends) == 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct rc_near *its = open_near(&options);
        tell(says[1], add_owner(its));
        close(ends[1]);
        if (fork_with(its) == 0) {
            tell(says[1], add_owner(its));
            _exit((int)read(ends[0], &parent, 1)); /* until the test is over */
        }
        pause();
    }
    uint32_t killed = hear(says[0]), living = hear(says[0]);
    CHECK(killed != living && killed != UINT32_MAX && living != UINT32_MAX);
    kill(parent, SIGKILL);
    CHECK(waitpid(parent, NULL, 0) == parent);
    CHECK(add_owner(near) == killed && has_owner(near, living));
    close(ends[1]);
    for (int i = 0; i < 2; i++)
        close(says[i]);
    close(ends[0]);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

/* nginx: the master is root, the workers are not, and the region is the master's. */
static void gives_a_slot_to_a_child_that_may_not_open_the_file(void)
{
    enum { NOBODY = 65534 };
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    uint32_t mine = add_owner(near);
    pid_t child = fork_with(near);
    if (child == 0) {
        if (geteuid() == 0)
            CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
        uint32_t slot = add_owner(near);
        CHECK(slot != mine && slot != UINT32_MAX && has_owner(near, mine));
        _exit(test_result());
    }
    CHECK(ends_well(child));
    CHECK(add_owner(near) == mine + 1);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void takes_no_slot_with_locks_that_are_its_parents(void)
{
    struct rc_near_options options = named();
    struct rc_near *near = open_near(&options);
    uint32_t mine = add_owner(near);
    pid_t child = fork(); /* nobody was told */
    if (child == 0) {
        uint32_t slot = add_owner(near);
        CHECK(slot != mine && slot != UINT32_MAX && has_owner(near, mine));
        _exit(test_result());
    }
    CHECK(ends_well(child));
    CHECK(rc_lifeline_is_held(&near->region.lifeline, mine));
    rc_near_remove_owner(near, &near->region.owners[mine]);
    CHECK(!rc_lifeline_is_held(&near->region.lifeline, mine));
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void empties_a_stripe_whose_writer_was_killed(void)
{
    struct rc_near_options options = {.bytes = SIZE, .stripes = 2};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_stats stats;
    char key[32];
    rc_near_set_asof(owner, rc_near_now_us());
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "key:%d", i);
        CHECK(fill(near, owner, key));
    }
    uint64_t kept = atomic_load(&near->region.stripes[1].head->counters[RC_STRIPE_ENTRIES]);
    pid_t child = fork();
    if (child == 0) {
        struct rc_stripe *stripe = &near->region.stripes[0];
        rc_stripe_lock(stripe);
        rc_index_begin(&stripe->buckets[3]);
        memset(&stripe->head->arena, 0x55, sizeof(stripe->head->arena));
        raise(SIGKILL);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "new:%d", i);
        CHECK(fill(near, owner, key) && look(near, key) == RC_NEAR_HIT);
    }
    rc_near_read_stats(near, &stats);
    CHECK(stats.repairs == 1 && stats.entries == kept + 200 && kept > 10 && kept < 90);
    CHECK(rc_index_read(&near->region.stripes[0].buckets[3]) % 2 == 0);
    rc_near_close(near);
}

static void keeps_a_stripe_whose_writer_was_killed_between_changes(void)
{
    struct rc_near_options options = {.bytes = SIZE, .stripes = 1};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    rc_near_stats stats;
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "key"));
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&near->region.stripes[0].head->mutex);
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    CHECK(fill(near, owner, "new") && look(near, "key") == RC_NEAR_HIT);
    rc_near_read_stats(near, &stats);
    CHECK(stats.repairs == 0 && stats.entries == 2);
    rc_near_close(near);
}

/* The entry's place in the index; a bucket of NULL: none. */
static struct rc_index_spot spot_of(struct rc_near *near, const char *key)
{
    uint64_t hash = rc_near_hash(near, key, strlen(key));
    return rc_stripe_find(rc_near_stripe(near, hash), hash, key, strlen(key));
}

static uint64_t damaged(struct rc_near *near)
{
    rc_near_stats stats;
    rc_near_read_stats(near, &stats);
    return stats.damaged;
}

static struct rc_near *open_with_entries(struct rc_near_owner **owner)
{
    struct rc_near_options options = {.bytes = SIZE, .stripes = 1};
    struct rc_near *near = open_near(&options);
    *owner = rc_near_add_owner(near, NULL);
    rc_near_set_asof(*owner, rc_near_now_us());
    CHECK(fill(near, *owner, "key") && fill(near, *owner, "other"));
    return near;
}

static void empties_a_stripe_that_contradicts_itself(void)
{
    struct rc_near_owner *owner;
    struct rc_near *near = open_with_entries(&owner);
    struct rc_stripe *stripe = &near->region.stripes[0];
    rc_stripe_block(stripe, spot_of(near, "key"))->newer = 0x3fffffff;
    rc_near_drop(near, "key", 3, RC_NEAR_PUSH);
    CHECK(damaged(near) == 1 && look(near, "other") == RC_NEAR_MISS);
    CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    rc_stripe_block(stripe, spot_of(near, "key"))->word = 0;
    CHECK(look(near, "key") == RC_NEAR_MISS && damaged(near) == 1);
    CHECK(!fill(near, owner, "key") && damaged(near) == 2);
    CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    stripe->head->arena.top = UINT32_MAX;
    CHECK(fill(near, owner, "other") && damaged(near) == 3);
    CHECK(look(near, "key") == RC_NEAR_MISS && look(near, "other") == RC_NEAR_HIT);
    rc_near_close(near);
}

/* Two entries of "key", both in the index. */
static void double_key(struct rc_near *near, const struct rc_near_owner *owner)
{
    struct rc_index_spot first = spot_of(near, "key");
    uint32_t ref = rc_index_ref(first.bucket, first.slot);
    uint64_t hash = rc_near_hash(near, "key", 3);
    rc_index_clear(first);
    CHECK(fill(near, owner, "key"));
    struct rc_index_spot room = rc_index_find_room(
        near->region.stripes[0].buckets, near->region.stripes[0].shape->bucket_count, hash);
    rc_index_put(room, rc_index_tag(hash), ref, 0);
}

static void serves_no_second_entry_of_a_key_that_went(void)
{
    struct rc_near_owner *owner;
    struct rc_near *near = open_with_entries(&owner);
    double_key(near, owner);
    rc_near_drop(near, "key", 3, RC_NEAR_PUSH);
    CHECK(look(near, "key") == RC_NEAR_MISS && damaged(near) == 1);
    CHECK(fill(near, owner, "key") && fill(near, owner, "other"));
    double_key(near, owner);
    fill(near, owner, "key"); /* kept or not: the older one is gone */
    rc_near_drop(near, "key", 3, RC_NEAR_PUSH);
    CHECK(look(near, "key") == RC_NEAR_MISS && damaged(near) == 2);
    rc_near_close(near);
}

static void gives_a_stripe_up_whose_mutex_is_damaged(void)
{
    struct rc_near_owner *owner;
    struct rc_near *near = open_with_entries(&owner);
    memset(&near->region.stripes[0].head->mutex, 0xff, sizeof(pthread_mutex_t));
    CHECK(look(near, "key") == RC_NEAR_HIT); /* nobody has found out */
    rc_near_drop(near, "key", 3, RC_NEAR_WRITE);
    CHECK(look(near, "key") == RC_NEAR_MISS && damaged(near) == 1);
    CHECK(!fill(near, owner, "key") && look(near, "other") == RC_NEAR_MISS);
    rc_near_close(near);
}

static void does_not_wait_for_ever_for_a_writer_that_stands_still(void)
{
    struct rc_near_owner *owner;
    struct rc_near *near = open_with_entries(&owner);
    struct rc_stripe *stripe = &near->region.stripes[0];
    pid_t child = fork();
    if (child == 0) {
        struct rc_index_spot spot = spot_of(near, "key");
        uint32_t ref = rc_index_ref(spot.bucket, spot.slot);
        rc_stripe_lock(stripe);
        raise(SIGSTOP);
        rc_index_begin(spot.bucket); /* it had found the key current before it was stopped */
        atomic_store(&spot.bucket->refs[spot.slot], ref);
        rc_index_end(spot.bucket);
        rc_stripe_unlock(stripe);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    rc_near_drop(near, "key", 3, RC_NEAR_WRITE);
    CHECK(look(near, "key") == RC_NEAR_MISS && look(near, "other") == RC_NEAR_MISS);
    CHECK(!fill(near, owner, "key") && damaged(near) >= 1);
    kill(child, SIGCONT);
    CHECK(ends_well(child));
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(look(near, "key") == RC_NEAR_STALE); /* it is there again, and nobody vouches for it */
    CHECK(fill(near, owner, "new") && look(near, "new") == RC_NEAR_HIT); /* the mutex is back */
    rc_near_close(near);
}

static void believes_no_owner_that_speaks_of_the_future(void)
{
    struct rc_near_owner *owner;
    struct rc_near *near = open_with_entries(&owner);
    atomic_store(&owner->asof_us, INT64_MAX);
    CHECK(look(near, "key") == RC_NEAR_STALE);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(look(near, "key") == RC_NEAR_HIT);
    rc_near_close(near);
}

static void gives_up_where_there_is_no_memory(void)
{
    struct rc_near_options options = {.bytes = (size_t)1 << 47}; /* all addresses a process has */
    CHECK(refuses(&options, "no memory"));
}

static void leaves_no_name_behind_where_it_could_not_be_made(void)
{
    struct rc_near_options options = named();
    options.stripes = 3;
    CHECK(refuses(&options, "stripes"));
    CHECK(rc_near_unlink(options.name, options.name_len) == RC_ERR_ARGUMENT); /* it is gone */
}

/* The process that makes a region holds its file's lock, and goes on within a moment. */
static void waits_for_who_makes_it_but_not_for_ever(void)
{
    struct rc_near_options options = named();
    char path[300];
    struct rc_near *near = open_near(&options);
    snprintf(path, sizeof(path), "/redcache-%s", options.name);
    int fd = shm_open(path, O_RDWR, 0);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK(refuses(&options, "does not get ready"));
    close(fd);
    struct rc_near *other = open_near(&options);
    rc_near_close(other);
    rc_near_close(near);
    rc_near_unlink(options.name, options.name_len);
}

static void takes_owners_after_one_was_killed_while_it_became_one(void)
{
    struct rc_near_options options = {.bytes = SIZE};
    struct rc_near *near = open_near(&options);
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&near->region.head->mutex);
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    struct rc_near_owner *owner = rc_near_add_owner(near, NULL);
    if (CHECK(owner != NULL)) {
        rc_near_set_asof(owner, rc_near_now_us());
        CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    }
    rc_near_close(near);
}

int main(void)
{
    atexit(leave_no_name);
    TEST(shares_entries_by_name);
    TEST(gives_a_name_anew_after_it_was_taken_away);
    TEST(refuses_a_region_made_for_something_else);
    TEST(refuses_names_and_sizes_that_cannot_be);
    TEST(lets_nobody_else_read_it);
    TEST(makes_anew_what_its_maker_left_half_done);
    TEST(leaves_its_memory_to_those_who_use_it_when_it_is_made_anew);
    TEST(is_made_once_by_many_at_once);
    TEST(is_inherited_by_a_child);
    TEST(has_a_slot_for_each_owner_alive);
    TEST(tells_who_lives_over_pid_namespaces);
    TEST(is_refused_where_the_clock_is_another_one);
    TEST(looks_after_some_of_the_owners_at_a_time);
    TEST(waits_long_for_the_list_of_owners_but_once);
    TEST(frees_the_slot_of_who_was_killed_while_its_child_lives);
    TEST(gives_a_slot_to_a_child_that_may_not_open_the_file);
    TEST(takes_no_slot_with_locks_that_are_its_parents);
    TEST(empties_a_stripe_whose_writer_was_killed);
    TEST(keeps_a_stripe_whose_writer_was_killed_between_changes);
    TEST(empties_a_stripe_that_contradicts_itself);
    TEST(serves_no_second_entry_of_a_key_that_went);
    TEST(gives_a_stripe_up_whose_mutex_is_damaged);
    TEST(does_not_wait_for_ever_for_a_writer_that_stands_still);
    TEST(believes_no_owner_that_speaks_of_the_future);
    TEST(gives_up_where_there_is_no_memory);
    TEST(leaves_no_name_behind_where_it_could_not_be_made);
    TEST(waits_for_who_makes_it_but_not_for_ever);
    TEST(takes_owners_after_one_was_killed_while_it_became_one);
    return test_result();
}
