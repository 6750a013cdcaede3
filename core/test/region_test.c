#include "near/region.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
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
    return rc_near_fill(near, owner, &entry, rc_near_writes(near, entry.hash));
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
    struct rc_near_owner *owner = rc_near_add_owner(near);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "from the parent"));
    pid_t child = fork();
    if (child == 0) {
        struct rc_near *other = open_near(&options); /* another mapping */
        CHECK(other != NULL && look(other, "from the parent") == RC_NEAR_HIT);
        struct rc_near_owner *its = rc_near_add_owner(other);
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
    struct rc_near_owner *owner = rc_near_add_owner(old);
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
    near->region.head->layout++;
    CHECK(refuses(&options, "another version"));
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
    struct rc_near_owner *owner = rc_near_add_owner(near);
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
    struct rc_near_owner *owner = rc_near_add_owner(near);
    rc_near_set_asof(owner, rc_near_now_us());
    CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
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
            struct rc_near_owner *owner = rc_near_add_owner(near);
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
        struct rc_near_owner *owner = rc_near_add_owner(near);
        rc_near_set_asof(owner, rc_near_now_us());
        CHECK(fill(near, owner, "key"));
        _exit(test_result());
    }
    CHECK(ends_well(child));
    CHECK(look(near, "key") == RC_NEAR_HIT); /* until the horizon, although its owner is gone */
    CHECK(rc_near_add_owner(near) != NULL);  /* which is found out now, */
    CHECK(look(near, "key") == RC_NEAR_STALE);
    rc_near_close(near);
}

static void has_a_slot_for_each_owner_alive(void)
{
    struct rc_near_options options = {.bytes = RC_NEAR_MIN_BYTES};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owners[16];
    for (int i = 0; i < 15; i++)
        CHECK((owners[i] = rc_near_add_owner(near)) != NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(rc_near_add_owner(near) != NULL && rc_near_add_owner(near) == NULL ? 0 : 1);
    CHECK(ends_well(child));
    CHECK((owners[15] = rc_near_add_owner(near)) != NULL); /* the dead child's */
    CHECK(rc_near_add_owner(near) == NULL);
    rc_near_remove_owner(near, owners[3]);
    CHECK(rc_near_add_owner(near) == owners[3]);
    rc_near_close(near);
}

static void empties_a_stripe_whose_writer_was_killed(void)
{
    struct rc_near_options options = {.bytes = SIZE, .stripes = 2};
    struct rc_near *near = open_near(&options);
    struct rc_near_owner *owner = rc_near_add_owner(near);
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
    struct rc_near_owner *owner = rc_near_add_owner(near);
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

/* Whoever makes a region holds its file's lock, and goes on within a moment. */
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
    struct rc_near_owner *owner = rc_near_add_owner(near);
    if (CHECK(owner != NULL)) {
        rc_near_set_asof(owner, rc_near_now_us());
        CHECK(fill(near, owner, "key") && look(near, "key") == RC_NEAR_HIT);
    }
    rc_near_close(near);
}

int main(void)
{
    TEST(shares_entries_by_name);
    TEST(gives_a_name_anew_after_it_was_taken_away);
    TEST(refuses_a_region_made_for_something_else);
    TEST(refuses_names_and_sizes_that_cannot_be);
    TEST(lets_nobody_else_read_it);
    TEST(makes_anew_what_its_maker_left_half_done);
    TEST(is_made_once_by_many_at_once);
    TEST(is_inherited_by_a_child);
    TEST(has_a_slot_for_each_owner_alive);
    TEST(empties_a_stripe_whose_writer_was_killed);
    TEST(keeps_a_stripe_whose_writer_was_killed_between_changes);
    TEST(gives_up_where_there_is_no_memory);
    TEST(leaves_no_name_behind_where_it_could_not_be_made);
    TEST(waits_for_who_makes_it_but_not_for_ever);
    TEST(takes_owners_after_one_was_killed_while_it_became_one);
    return test_result();
}
