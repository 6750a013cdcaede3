#include "driver/driver.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "redcache.h"
#include "test/test.h"

/* ---- a server thread: each value is "x"; when silent, nothing behind the handshake --------- */

enum { CONNS = 64, THREADS = 24 };

static struct {
    char directory[64];
    char path[96];
    char url[128];
    int listener;
    int stop[2];
    pthread_t thread;
    _Atomic bool silent;
} server;

static const char *answer_to(const char *name)
{
    if (strcmp(name, "HELLO") == 0)
        return "%0\r\n";
    if (strcmp(name, "INFO") == 0)
        return "$0\r\n\r\n";
    if (strcmp(name, "PING") == 0)
        return "+PONG\r\n";
    if (strcmp(name, "CLIENT") == 0 || strcmp(name, "SELECT") == 0)
        return "+OK\r\n";
    if (atomic_load(&server.silent))
        return "";
    if (strcmp(name, "GET") == 0)
        return "$1\r\nx\r\n";
    return strcmp(name, "SET") == 0 ? "_\r\n" : ":0\r\n"; /* SET NX GET: the lease is granted */
}

/* Takes the whole commands out of `bytes` and answers them; returns how many bytes they were. */
static size_t serve(int fd, const char *bytes, size_t len)
{
    size_t done = 0;
    for (;;) {
        const char *at = bytes + done, *end = bytes + len;
        char name[16] = "";
        long count = at < end ? strtol(at + 1, NULL, 10) : 0;
        for (long i = -1; i < count; i++) {
            const char *line = memchr(at, '\n', (size_t)(end - at));
            if (line == NULL)
                return done;
            size_t size = i < 0 ? 0 : (size_t)strtol(at + 1, NULL, 10) + 2;
            if ((size_t)(end - line - 1) < size)
                return done;
            if (i == 0)
                memcpy(name, line + 1, size - 2 < 15 ? size - 2 : 15);
            at = line + 1 + size;
        }
        const char *answer = answer_to(name);
        if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
            return done;
        done = (size_t)(at - bytes);
        if (done == len)
            return done;
    }
}

static void *run_server(void *argument)
{
    static char input[CONNS][65536];
    static size_t have[CONNS];
    struct pollfd fds[2 + CONNS];
    nfds_t count = 2;
    fds[0] = (struct pollfd){.fd = server.stop[0], .events = POLLIN};
    fds[1] = (struct pollfd){.fd = server.listener, .events = POLLIN};
    (void)argument;
    for (;;) {
        (void)poll(fds, count, -1);
        if (fds[0].revents != 0)
            break;
        for (nfds_t i = 2; i < count; i++) {
            size_t *len = &have[i - 2];
            if (fds[i].revents == 0)
                continue;
            ssize_t n = read(fds[i].fd, input[i - 2] + *len, sizeof input[0] - 1 - *len);
            if (n <= 0) {
                close(fds[i].fd);
                fds[i].fd = -1;
                continue;
            }
            *len += (size_t)n;
            input[i - 2][*len] = '\0';
            size_t used = serve(fds[i].fd, input[i - 2], *len);
            memmove(input[i - 2], input[i - 2] + used, *len - used);
            *len -= used;
        }
        if (fds[1].revents != 0) {
            nfds_t free_place = 2;
            while (free_place < count && fds[free_place].fd >= 0)
                free_place++;
            if (free_place == count && count < 2 + CONNS)
                count++;
            have[free_place - 2] = 0;
            fds[free_place] =
                (struct pollfd){.fd = accept(server.listener, NULL, NULL), .events = POLLIN};
        }
    }
    for (nfds_t i = 2; i < count; i++) {
        if (fds[i].fd >= 0)
            close(fds[i].fd);
    }
    return NULL;
}

static bool start_server(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(server.directory, "/tmp/redcache-test-XXXXXX");
    if (mkdtemp(server.directory) == NULL)
        return false;
    snprintf(server.path, sizeof server.path, "%s/sock", server.directory);
    snprintf(server.url, sizeof server.url, "unix://%s", server.path);
    memcpy(address.sun_path, server.path, strlen(server.path) + 1);
    server.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    return pipe(server.stop) == 0 &&
           bind(server.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(server.listener, CONNS) == 0 &&
           pthread_create(&server.thread, NULL, run_server, NULL) == 0;
}

static void stop_server(void)
{
    CHECK(write(server.stop[1], "", 1) == 1);
    pthread_join(server.thread, NULL);
    close(server.listener);
    close(server.stop[0]);
    close(server.stop[1]);
    unlink(server.path);
    rmdir(server.directory);
}

/* ---- callers --------------------------------------------------------------------------- */

static rc_client *open_client(const char *url)
{
    rc_client *client = NULL;
    rc_options options = {.url = url, .url_len = strlen(url), .command_timeout_ms = 20000};
    if (!CHECK(rc_open(&options, &client, NULL) == 0))
        exit(1);
    return client;
}

struct caller {
    pthread_t thread;
    rc_op *op;
    int rounds; /* 0: until it is closed */
    int hits;
    int last;
};

static void *call_again_and_again(void *argument)
{
    struct caller *caller = argument;
    rc_op *op = caller->op;
    for (int i = 0; caller->rounds == 0 || i < caller->rounds; i++) {
        caller->last = rc_get(op, "key", 3, 0);
        if (caller->last == 0)
            caller->last = rc_wait(op);
        if (caller->last != 0)
            break;
        caller->hits += rc_op_result(op)->outcome == RC_HIT;
    }
    rc_op_free(op);
    return NULL;
}

static void start_callers(struct caller *callers, rc_client *client, int rounds)
{
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.op = rc_op_new(client), .rounds = rounds};
        CHECK(pthread_create(&callers[i].thread, NULL, call_again_and_again, &callers[i]) == 0);
    }
}

static void join_callers(struct caller *callers)
{
    for (int i = 0; i < THREADS; i++)
        pthread_join(callers[i].thread, NULL);
}

/* Until so many threads wait; false after ten seconds. */
static bool wait_for_waiters(rc_client *client, uint64_t count)
{
    rc_stats stats = {0};
    int64_t until_us = rc_clock_us() + 10 * 1000000;
    while (stats.waiting < count && rc_clock_us() < until_us) {
        rc_get_stats(client, &stats);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return stats.waiting >= count;
}

static void serves_many_threads_over_one_client(void)
{
    struct caller callers[THREADS];
    rc_client *client = open_client(server.url);
    start_callers(callers, client, 300);
    join_callers(callers);
    for (int i = 0; i < THREADS; i++)
        CHECK(callers[i].last == 0 && callers[i].hits == 300);
    rc_unref(client, 100);
}

static void closing_ends_all_who_wait(void)
{
    struct caller callers[THREADS];
    for (int round = 0; round < 10; round++) {
        rc_client *client = open_client(server.url);
        atomic_store(&server.silent, true);
        start_callers(callers, client, 0);
        CHECK(wait_for_waiters(client, THREADS));
        int64_t before_us = rc_clock_us();
        CHECK(rc_close(client, 50) == 0);
        join_callers(callers);
        CHECK(rc_clock_us() - before_us < 5 * 1000000); /* their own deadline is 20 s */
        for (int i = 0; i < THREADS; i++)
            CHECK(callers[i].last == RC_ERR_CLOSED);
        atomic_store(&server.silent, false);
        rc_unref(client, 0);
    }
}

static void who_calls_while_it_closes_hears_of_it(void)
{
    struct caller callers[THREADS];
    for (int round = 0; round < 30; round++) {
        rc_client *client = open_client(server.url);
        start_callers(callers, client, 0);
        nanosleep(&(struct timespec){.tv_nsec = round * 300000}, NULL);
        rc_unref(client, 50); /* the slots are still there */
        join_callers(callers);
        for (int i = 0; i < THREADS; i++)
            CHECK(callers[i].last == RC_ERR_CLOSED);
    }
}

static void a_slot_may_be_freed_at_any_time(void)
{
    rc_client *client = open_client(server.url);
    rc_load_options load = {RC_SCRIPT_FIRST, 1000, 5000, 5000, ""};
    rc_stats stats;
    for (int round = 0; round < 300; round++) {
        rc_op *op = rc_op_new(client);
        if (round % 3 == 0)
            CHECK(rc_get(op, "key", 3, 0) == 0);
        else
            CHECK(rc_load(op, "key", 3, &load) == 0);
        for (int i = 0; round % 2 == 0 && i < 100000 && !rc_done(op); i++) {
        }
        rc_op_free(op); /* waited for or not, a lease in hand or not */
    }
    rc_get_stats(client, &stats);
    CHECK(stats.active_leases == 0 && stats.leases > 0);
    rc_unref(client, 100);
}

static void a_slot_outlives_the_close(void)
{
    rc_client *client = open_client(server.url);
    rc_load_options load = {RC_SCRIPT_FIRST, 1000, 5000, 5000, ""};
    rc_op *op = rc_op_new(client);
    CHECK(rc_load(op, "key", 3, &load) == 0 && rc_wait(op) == 0);
    CHECK(rc_op_result(op)->outcome == RC_LOAD);
    CHECK(rc_get(op, "key", 3, 0) == RC_ERR_ARGUMENT); /* it holds a lease */
    CHECK(rc_close(client, 100) == 0);
    CHECK(rc_release(op) == RC_ERR_CLOSED);
    CHECK(rc_get(op, "key", 3, 0) == RC_ERR_CLOSED);
    rc_op *other = rc_op_new(client);
    rc_unref(client, 100);
    rc_op_free(op);
    CHECK(rc_get(other, "key", 3, 0) == RC_ERR_CLOSED);
    rc_op_free(other);
}

static void fails_in_time_where_nobody_listens(void)
{
    char url[160];
    snprintf(url, sizeof url, "unix://%s/nobody", server.directory);
    rc_client *client = open_client(url);
    rc_op *op = rc_op_new(client);
    rc_op_timeout(op, 200);
    int64_t before_us = rc_clock_us();
    CHECK(rc_get(op, "key", 3, 0) == 0);
    CHECK(rc_wait(op) == RC_ERR_UNAVAILABLE);
    CHECK(rc_clock_us() - before_us < 2 * 1000000);
    CHECK(rc_op_result(op)->len > 0);
    rc_op_free(op);
    rc_unref(client, 100);
}

#ifndef __SANITIZE_THREAD__
static void a_child_process_starts_afresh(void)
{
    rc_client *client = open_client(server.url);
    rc_op *op = rc_op_new(client);
    CHECK(rc_get(op, "key", 3, 0) == 0 && rc_wait(op) == 0);
    CHECK(rc_get(op, "key", 3, 0) == 0); /* under way while we fork */
#ifdef __SANITIZE_ADDRESS__
    /* GCC 12's runtime does not free in a child the locks that other threads have: they sleep. */
    CHECK(rc_wait(op) == 0);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
#endif
    pid_t child = fork();
    if (child == 0) {
        bool good = rc_wait(op) == RC_ERR_FORKED || rc_op_result(op)->outcome == RC_HIT;
        good &= rc_get(op, "key", 3, 0) == 0 && rc_wait(op) == 0;
        good &= rc_op_result(op)->outcome == RC_HIT;
        rc_op_free(op);
        rc_unref(client, 100);
        _exit(good ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(rc_wait(op) == 0 && rc_op_result(op)->outcome == RC_HIT);
    rc_op_free(op);
    rc_unref(client, 100);
}
#endif

/* ---- the driver alone ---------------------------------------------------------------------- */

static struct rc_driver *start_driver(void)
{
    struct rc_driver *driver = NULL;
    struct rc_address address;
    const char *why;
    rc_options options = {.connect_timeout_ms = 1000, .command_timeout_ms = 500, .max_queue = 100};
    struct rc_driver_means means = {0};
    CHECK(rc_address_parse(&address, server.url, strlen(server.url), &why) == 0);
    if (!CHECK(rc_driver_start(&driver, &options, &address, &means) == 0))
        exit(1);
    return driver;
}

static void start_seat(struct rc_driver *driver, struct rc_seat *seat)
{
    CHECK(rc_seat_init(seat, NULL) == 0);
    rc_op_reset(&seat->op, RC_OP_LOCK_RELEASE); /* of a lock nobody holds: ends without Redis */
    seat->op.ask.lock = calloc(1, sizeof *seat->op.ask.lock);
    rc_driver_submit(driver, seat);
}

static void end_seat(struct rc_seat *seat)
{
    free(seat->op.ask.lock);
    rc_seat_deinit(seat);
}

/* The other half of the promise that who finds the engine owned need not wake anybody. */
static void looks_at_the_queue_behind_an_owner_that_left(void)
{
    for (int is_reactor = 0; is_reactor < 2; is_reactor++) {
        struct rc_seat seat;
        struct rc_driver *driver = start_driver();
        int64_t until_us = rc_clock_us() + 5 * 1000000;
        while (!rc_driver_try_own(driver) && rc_clock_us() < until_us)
            sched_yield();
        start_seat(driver, &seat);
        rc_driver_kick(driver); /* it is owned: nobody is woken */
        rc_driver_leave(driver, is_reactor);
        while (!rc_seat_is_done(&seat) && rc_clock_us() < until_us)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        CHECK(rc_seat_is_done(&seat) && seat.op.result.status == RC_ERR_NOTHELD);
        rc_driver_close(driver, 0);
        end_seat(&seat);
        rc_driver_free(driver);
    }
}

/* They had the driver in hand when it was closed by somebody else. */
static void late_callers_help_themselves(void)
{
    struct rc_seat seats[3];
    struct rc_driver *driver = start_driver();
    rc_driver_close(driver, 0);
    atomic_store(&driver->crowded, true); /* as if the reactor were to do it all */
    atomic_store(&driver->reactor_wants, true);
    start_seat(driver, &seats[0]);
    rc_driver_wait(driver, &seats[0]);
    start_seat(driver, &seats[1]);
    rc_driver_kick(driver); /* as by rc_done */
    CHECK(rc_seat_is_done(&seats[1]));
    start_seat(driver, &seats[2]);
    CHECK(rc_driver_try_own(driver));
    rc_driver_leave(driver, false); /* wakes a reactor that is not there any more */
    rc_driver_wait(driver, &seats[2]);
    for (int i = 0; i < 3; i++) {
        CHECK(seats[i].op.result.status == RC_ERR_CLOSED);
        end_seat(&seats[i]);
    }
    rc_driver_free(driver);
}

/* ---- links that come and go ------------------------------------------------------------ */

enum { GUESTS = 10 };

static struct {
    struct rc_link links[GUESTS];
    int ready, gone;
} guests;

static void count_ready(struct rc_link *link)
{
    (void)link;
    guests.ready++;
}

static void count_gone(struct rc_link *link)
{
    rc_link_deinit(link);
    guests.gone++;
}

static void ignore_down(struct rc_link *link)
{
    (void)link;
}

static void add_guests(struct rc_engine *engine, void *argument)
{
    struct rc_server_node *node = rc_topology_node(&engine->topology, RC_SLOT_ANY);
    (void)argument;
    guests.ready = guests.gone = 0;
    for (int i = 0; i < GUESTS; i++) {
        struct rc_link *link = &guests.links[i];
        CHECK(rc_link_init(link, &engine->context, &node->address, RC_LINK_W) == 0);
        link->node = node;
        link->on_ready = count_ready;
        link->on_down = ignore_down;
        link->on_gone = count_gone;
        CHECK(rc_topology_add(&engine->topology, link) == 0);
        rc_link_want(link);
    }
}

static void remove_guests(struct rc_engine *engine, void *argument)
{
    (void)argument;
    for (int i = 0; i < GUESTS; i++)
        rc_topology_remove(&engine->topology, &guests.links[i]);
}

static void read_guests(struct rc_engine *engine, void *counts)
{
    (void)engine;
    ((int *)counts)[0] = guests.ready;
    ((int *)counts)[1] = guests.gone;
}

static bool wait_for_guests(struct rc_driver *driver, int which)
{
    int counts[2] = {0};
    int64_t until_us = rc_clock_us() + 10 * 1000000;
    while (counts[which] < GUESTS && rc_clock_us() < until_us) {
        rc_driver_call(driver, read_guests, counts);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return counts[which] == GUESTS;
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (CHECK(directory != NULL) && readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void links_come_and_go(void)
{
    struct rc_driver *driver = start_driver();
    int before = count_descriptors();
    for (int round = 0; round < 3; round++) {
        rc_driver_call(driver, add_guests, NULL);
        CHECK(wait_for_guests(driver, 0) && driver->line_count == 2 + GUESTS);
        rc_driver_call(driver, remove_guests, NULL);
        CHECK(wait_for_guests(driver, 1) && driver->line_count == 2);
        /* libuv closes a moment later, and the server sees it later still. */
        int64_t until_us = rc_clock_us() + 10 * 1000000;
        while (count_descriptors() > before && rc_clock_us() < until_us)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        CHECK(count_descriptors() <= before);
    }
    CHECK(rc_topology_numbered(&driver->engine.topology, 2 + 3 * GUESTS - 1) == NULL);
    rc_driver_close(driver, 0);
    rc_driver_free(driver);
}

/* They are there when the driver ends. */
static void links_that_came_end_with_the_driver(void)
{
    struct rc_driver *driver = start_driver();
    rc_driver_call(driver, add_guests, NULL);
    CHECK(wait_for_guests(driver, 0));
    rc_driver_close(driver, 0);
    for (int i = 0; i < GUESTS; i++) {
        rc_driver_free_line(&guests.links[i]);
        rc_list_remove(&guests.links[i].place);
        rc_link_deinit(&guests.links[i]);
    }
    rc_driver_free(driver);
}

int main(void)
{
    if (!CHECK(start_server()))
        return test_result();
    TEST(looks_at_the_queue_behind_an_owner_that_left);
    TEST(late_callers_help_themselves);
    TEST(links_come_and_go);
    TEST(links_that_came_end_with_the_driver);
    TEST(serves_many_threads_over_one_client);
    TEST(closing_ends_all_who_wait);
    TEST(who_calls_while_it_closes_hears_of_it);
    TEST(a_slot_may_be_freed_at_any_time);
    TEST(a_slot_outlives_the_close);
    TEST(fails_in_time_where_nobody_listens);
#ifndef __SANITIZE_THREAD__ /* it stands no threads behind a fork */
    TEST(a_child_process_starts_afresh);
#endif
    stop_server();
    return test_result();
}
