#include "driver/loop.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/client.h"
#include "redcache.h"
#include "test/test.h"

enum { PATIENCE_MS = 10000, NAME = 7, OTHER = 8 };

static rc_turn turn;

static rc_client *open_client(const char *url, int driver)
{
    rc_client *client = NULL;
    rc_options options = {.url = url,
                          .url_len = strlen(url),
                          .command_timeout_ms = PATIENCE_MS,
                          .connect_timeout_ms = PATIENCE_MS,
                          .driver = driver};
    if (!CHECK(rc_open(&options, &client, NULL) == 0))
        exit(1);
    return client;
}

static rc_loop *open_loop(rc_client *client)
{
    rc_loop *loop = rc_loop_new(client);
    if (!CHECK(loop != NULL))
        exit(1);
    return loop;
}

static rc_op *open_op(rc_client *client, rc_loop *loop, uint32_t name)
{
    rc_op *op = rc_op_new(client);
    if (!CHECK(op != NULL))
        exit(1);
    rc_op_name(op, loop, name);
    return op;
}

static void close_all(rc_client *client, rc_loop *loop, rc_op *op)
{
    rc_op_free(op);
    rc_loop_free(loop);
    rc_unref(client, 100);
}

static int set_key(rc_op *op)
{
    rc_entry entry = {.kind = RC_KIND_VALUE};
    return rc_set(op, "key", 3, &entry, "x", 1, -1, 0);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    return poll(&watched, 1, timeout_ms) == 1;
}

static bool tells(rc_loop *loop, uint32_t name)
{
    rc_loop_turn(loop, &turn);
    return turn.count == 1 && turn.names[0] == name;
}

/* ---- a store in memory --------------------------------------------------------------------- */

static void memory_tells_in_the_turn_that_sends(int driver)
{
    rc_client *client = open_client("memory://loop", driver);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    CHECK(set_key(op) == 0);
    CHECK(tells(loop, NAME) && rc_is_done(op) == 1 && rc_op_result(op)->status == 0);
    CHECK(rc_get(op, "key", 3, 0) == 0);
    CHECK(tells(loop, NAME) && rc_op_result(op)->outcome == RC_HIT);
    rc_loop_turn(loop, &turn);
    CHECK(turn.count == 0);
    close_all(client, loop, op);
}

static void a_polled_store_tells_in_the_turn_that_sends(void)
{
    memory_tells_in_the_turn_that_sends(RC_DRIVER_POLL);
}

static void a_hosted_store_tells_in_the_turn_that_sends(void)
{
    memory_tells_in_the_turn_that_sends(RC_DRIVER_HOST);
}

static int get_key(rc_op *op)
{
    return rc_get(op, "key", 3, 0);
}

/* What is asked before a turn goes out in it, but not across a write. */
static void equal_reads_before_a_turn_are_one_request(void)
{
    rc_client *client = open_client("memory://equal", RC_DRIVER_POLL);
    rc_loop *loop = open_loop(client);
    rc_op *ops[6];
    rc_stats before, after;
    for (uint32_t i = 0; i < 6; i++)
        ops[i] = open_op(client, loop, i);
    CHECK(set_key(ops[0]) == 0 && tells(loop, 0));
    rc_get_stats(client, &before);
    CHECK(get_key(ops[0]) == 0 && get_key(ops[1]) == 0 && get_key(ops[2]) == 0);
    CHECK(rc_delete(ops[3], "key", 3) == 0);
    CHECK(get_key(ops[4]) == 0 && get_key(ops[5]) == 0);
    rc_loop_turn(loop, &turn);
    rc_get_stats(client, &after);
    CHECK(turn.count == 6 && after.requests == before.requests + 3);
    CHECK(after.shared == before.shared + 3 && after.in_flight == 0);
    for (int i = 0; i < 3; i++)
        CHECK(rc_op_result(ops[i])->outcome == RC_HIT && rc_op_result(ops[i])->len == 1);
    for (int i = 4; i < 6; i++)
        CHECK(rc_op_result(ops[i])->outcome == RC_MISS);
    for (int i = 1; i < 6; i++)
        rc_op_free(ops[i]);
    close_all(client, loop, ops[0]);
}

/* Each loop hears of its own, in the order in which they were done. */
static void what_is_done_at_once_is_told_in_order(void)
{
    static const uint32_t owners[] = {0, 0, 1, 0, 1, 1, 0, 1}; /* whose loop */
    enum { OPS = sizeof owners / sizeof *owners };
    rc_client *client = open_client("memory://order", RC_DRIVER_POLL);
    rc_loop *loops[] = {open_loop(client), open_loop(client)};
    rc_op *ops[OPS];
    for (uint32_t i = 0; i < OPS; i++)
        ops[i] = open_op(client, loops[owners[i]], i);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < OPS; i++) {
            char key = (char)('a' + i);
            CHECK(rc_get(ops[i], &key, 1, 0) == 0);
        }
        for (uint32_t which = 0; which < 2; which++) {
            uint32_t told = 0;
            rc_loop_turn(loops[which], &turn);
            for (uint32_t i = 0; i < OPS; i++) {
                if (owners[i] == which)
                    CHECK(told < turn.count && turn.names[told++] == i);
            }
            CHECK(turn.count == told);
        }
    }
    for (int i = 0; i < OPS; i++)
        rc_op_free(ops[i]);
    rc_loop_free(loops[0]);
    rc_loop_free(loops[1]);
    rc_unref(client, 100);
}

/* As tells(), or after a wait: where the reactor is turning at this moment, it takes the op. */
static bool tells_soon(rc_loop *loop, uint32_t name)
{
    if (tells(loop, name))
        return true;
    if (turn.count != 0)
        return false;
    rc_loop_wait(loop);
    return tells(loop, name);
}

static void a_store_with_a_thread_tells_mostly_in_the_turn_that_sends(void)
{
    int at_once = 0;
    rc_client *client = open_client("memory://loop", RC_DRIVER_REACTOR);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    CHECK(set_key(op) == 0 && tells_soon(loop, NAME) && rc_op_result(op)->status == 0);
    for (int i = 0; i < 100; i++) {
        if (!CHECK(rc_get(op, "key", 3, 0) == 0))
            break;
        bool told = tells(loop, NAME);
        at_once += told;
        if (!CHECK((told || tells_soon(loop, NAME)) && rc_op_result(op)->outcome == RC_HIT))
            break;
    }
    CHECK(at_once > 50);
    rc_loop_turn(loop, &turn);
    CHECK(turn.count == 0);
    close_all(client, loop, op);
}

static void a_slot_that_is_used_again_untold_is_told_once(void)
{
    rc_client *client = open_client("memory://loop", RC_DRIVER_REACTOR);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    for (int i = 0; i < 3; i++)
        CHECK(set_key(op) == 0 && rc_wait(op) == 0);
    CHECK(rc_get(op, "key", 3, 0) == 0);
    CHECK(tells_soon(loop, NAME) && rc_op_result(op)->outcome == RC_HIT);
    close_all(client, loop, op);
}

static void sleeps_until_something_is_done(void)
{
    rc_client *client = open_client("memory://loop", RC_DRIVER_REACTOR);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    for (int i = 0; i < 3; i++) {
        if (!CHECK(set_key(op) == 0))
            break; /* there is nothing to wait for */
        rc_loop_wait(loop);
        CHECK(rc_is_done(op) == 1 && tells(loop, NAME));
    }
    close_all(client, loop, op);
}

static void a_slot_that_is_freed_untold_is_not_told(void)
{
    rc_client *client = open_client("memory://loop", RC_DRIVER_POLL);
    rc_loop *loop = open_loop(client);
    rc_op *gone = open_op(client, loop, NAME), *op = open_op(client, loop, OTHER);
    CHECK(set_key(gone) == 0 && rc_wait(gone) == 0);
    CHECK(set_key(op) == 0 && rc_wait(op) == 0);
    rc_op_free(gone);
    CHECK(tells(loop, OTHER));
    close_all(client, loop, op);
}

static void a_loop_may_be_freed_before_its_slots(void)
{
    rc_client *client = open_client("memory://loop", RC_DRIVER_POLL);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    CHECK(set_key(op) == 0);
    rc_loop_free(loop);
    CHECK(rc_wait(op) == 0);
    rc_op_free(op);
    rc_unref(client, 100);
}

/* ---- a server on a socket, answered by the test itself -------------------------------------- */

enum { CONNS = 4 };

static struct {
    char directory[64];
    char path[96];
    char url[128];
    int listener;
    int conns[CONNS];
    int count;
} server;

static void start_server(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(server.directory, "/tmp/redcache-test-XXXXXX");
    if (!CHECK(mkdtemp(server.directory) != NULL))
        exit(1);
    snprintf(server.path, sizeof server.path, "%s/sock", server.directory);
    snprintf(server.url, sizeof server.url, "unix://%s", server.path);
    memcpy(address.sun_path, server.path, strlen(server.path) + 1);
    server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    server.count = 0;
    if (!CHECK(bind(server.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
               listen(server.listener, CONNS) == 0))
        exit(1);
}

static void stop_server(void)
{
    for (int i = 0; i < server.count; i++)
        close(server.conns[i]);
    close(server.listener);
    unlink(server.path);
    rmdir(server.directory);
}

/* Commands are short here: each comes as a whole. */
static void answer(int fd)
{
    char bytes[4096];
    ssize_t len = read(fd, bytes, sizeof bytes - 1);
    bytes[len > 0 ? len : 0] = '\0';
    for (const char *at = bytes; (at = strchr(at, '*')) != NULL; at++) {
        const char *name = strchr(at, '$');
        name = name != NULL ? strchr(name, '\n') : NULL;
        const char *text = name == NULL                         ? ""
                           : strncmp(name + 1, "HELLO", 5) == 0 ? "%0\r\n"
                           : strncmp(name + 1, "INFO", 4) == 0  ? "$0\r\n\r\n"
                           : strncmp(name + 1, "PING", 4) == 0  ? "+PONG\r\n"
                           : strncmp(name + 1, "GET", 3) == 0   ? "$1\r\nx\r\n"
                                                                : "+OK\r\n";
        CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    }
}

/* Answers what has come, until `fd` is readable; false after ten seconds. */
static bool serve_until_readable(int fd)
{
    for (int64_t until_us = rc_clock_us() + PATIENCE_MS * 1000; rc_clock_us() < until_us;) {
        struct pollfd fds[2 + CONNS] = {{.fd = fd, .events = POLLIN},
                                        {.fd = server.listener, .events = POLLIN}};
        for (int i = 0; i < server.count; i++)
            fds[2 + i] = (struct pollfd){.fd = server.conns[i], .events = POLLIN};
        int count = server.count;
        (void)poll(fds, (nfds_t)(2 + count), 100);
        if (fds[0].revents != 0)
            return true;
        for (int i = 0; i < count; i++) {
            if (fds[2 + i].revents != 0)
                answer(server.conns[i]);
        }
        if (fds[1].revents != 0 && server.count < CONNS)
            server.conns[server.count++] = accept(server.listener, NULL, NULL);
    }
    return false;
}

/* Turns whenever there is reason to, until that name is told. */
static bool told_by_fd(rc_loop *loop, int fd, uint32_t name)
{
    for (int i = 0; i < 1000 && serve_until_readable(fd); i++) {
        rc_loop_turn(loop, &turn);
        if (turn.count > 0)
            return turn.count == 1 && turn.names[0] == name;
    }
    return false;
}

static void get_by_fd(int driver)
{
    start_server();
    rc_client *client = open_client(server.url, driver);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    int fd = rc_loop_fd(loop);
    CHECK(fd >= 0 && rc_loop_fd(loop) == fd);
    for (int i = 0; i < 50; i++) {
        CHECK(rc_get(op, "key", 3, 0) == 0);
        rc_loop_turn(loop, &turn);
        /* The thread may have been fast. */
        bool is_told = turn.count == 1 || told_by_fd(loop, fd, NAME);
        if (!CHECK(is_told && rc_is_done(op) == 1 && rc_op_result(op)->outcome == RC_HIT))
            break;
    }
    /* Then there is no reason for a turn; one that came just before may be there. */
    for (int i = 0; i < 3 && is_readable(fd, 0); i++)
        rc_loop_turn(loop, &turn);
    CHECK(!is_readable(fd, 20));
    close_all(client, loop, op);
    stop_server();
}

static void a_polled_client_needs_its_descriptor_alone(void)
{
    get_by_fd(RC_DRIVER_POLL);
}

static void a_thread_tells_by_a_descriptor(void)
{
    get_by_fd(RC_DRIVER_REACTOR);
}

/* A deadline is a reason, too. */
static void a_polled_client_wakes_for_what_is_overdue(void)
{
    start_server();
    rc_client *client = open_client(server.url, RC_DRIVER_POLL);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    rc_op_timeout(op, 30);
    int fd = rc_loop_fd(loop);
    CHECK(rc_get(op, "key", 3, 0) == 0);
    rc_loop_turn(loop, &turn);
    for (int i = 0; i < 100 && turn.count == 0 && CHECK(is_readable(fd, PATIENCE_MS)); i++)
        rc_loop_turn(loop, &turn);
    CHECK(turn.count == 1 && rc_op_result(op)->status < 0);
    close_all(client, loop, op);
    stop_server();
}

/* What a blocking call finds done of others is told, too. */
static void a_blocking_call_leaves_a_reason_for_a_turn(void)
{
    rc_client *client = open_client("memory://loop", RC_DRIVER_POLL);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME), *blocking = open_op(client, NULL, 0);
    int fd = rc_loop_fd(loop);
    CHECK(set_key(op) == 0 && set_key(blocking) == 0);
    CHECK(rc_wait(blocking) == 0 && rc_is_done(op) == 1);
    CHECK(is_readable(fd, PATIENCE_MS) && tells(loop, NAME));
    rc_op_free(blocking);
    close_all(client, loop, op);
}

/* ---- a host that owns the connections ------------------------------------------------------ */

static const char GREETING[] = "%0\r\n+OK\r\n$0\r\n\r\n+PONG\r\n", VALUE[] = "$1\r\nx\r\n";

static bool output_has(rc_loop *loop, int link, const char *text)
{
    size_t size, len = strlen(text);
    const char *output = rc_host_output(loop, (uint32_t)link, &size);
    for (size_t i = 0; output != NULL && i + len <= size; i++) {
        if (memcmp(output + i, text, len) == 0)
            return true;
    }
    return false;
}

/* What the last turn has told of it. */
static rc_host_link news_of(uint32_t link)
{
    for (uint32_t i = 0; i < turn.link_count; i++) {
        if (turn.links[i].number == link)
            return turn.links[i];
    }
    return (rc_host_link){.number = link};
}

static void send_all(rc_loop *loop, uint32_t link)
{
    rc_host_sent(loop, link, news_of(link).len);
    rc_loop_turn(loop, &turn);
    CHECK(news_of(link).len == 0);
}

static void feed(rc_loop *loop, int link, const char *bytes)
{
    rc_host_feed(loop, (uint32_t)link, bytes, strlen(bytes));
    rc_loop_turn(loop, &turn);
}

/* The first connection, up to where it is ready. */
static void connect_link(rc_loop *loop)
{
    rc_host_opened(loop, 0);
    rc_loop_turn(loop, &turn);
    CHECK(output_has(loop, 0, "HELLO") && output_has(loop, 0, "PING"));
    send_all(loop, 0);
    feed(loop, 0, GREETING);
}

struct host {
    rc_client *client;
    rc_loop *loop;
    rc_op *op;
};

/* A host with a request under way. */
static struct host open_host(void)
{
    struct host host = {.client = open_client("redis://127.0.0.1:6379", RC_DRIVER_HOST)};
    host.loop = open_loop(host.client);
    host.op = open_op(host.client, host.loop, NAME);
    CHECK(rc_get(host.op, "key", 3, 0) == 0);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.count == 0 && news_of(0).wants == RC_HOST_OPEN && turn.wait_us > 0);
    return host;
}

static void close_host(struct host *host)
{
    for (int i = 0; i < 3 && rc_host_leave(host->loop) == 0; i++)
        rc_loop_turn(host->loop, &turn);
    close_all(host->client, host->loop, host->op);
}

static void a_host_moves_the_bytes(void)
{
    char text[64];
    int32_t port, is_tls;
    struct host host = open_host();
    CHECK(rc_host_address(host.loop, 0, text, sizeof text, &port, &is_tls) == 9 &&
          strcmp(text, "127.0.0.1") == 0 && port == 6379 && is_tls == 0);
    CHECK(rc_host_lookup(host.loop, 0, text, sizeof text) == 9);
    CHECK(rc_wait(host.op) == RC_ERR_ARGUMENT && rc_loop_fd(host.loop) == RC_ERR_ARGUMENT);
    connect_link(host.loop);
    CHECK(output_has(host.loop, 0, "GET"));
    send_all(host.loop, 0);
    feed(host.loop, 0, "$1\r\n"); /* in pieces */
    CHECK(turn.count == 0);
    feed(host.loop, 0, "x\r\n");
    CHECK(turn.count == 1 && turn.names[0] == NAME);
    CHECK(rc_op_result(host.op)->outcome == RC_HIT && rc_op_result(host.op)->len == 1);
    close_host(&host);
}

static void a_host_opens_again_what_was_lost(void)
{
    struct host host = open_host();
    connect_link(host.loop);
    send_all(host.loop, 0);
    rc_host_lost(host.loop, 0, "gone", 4);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.count == 0); /* a read is sent again */
    for (int i = 0; i < 1000 && news_of(0).wants == 0; i++) {
        CHECK(turn.wait_us >= 0);
        (void)poll(NULL, 0, (int)(turn.wait_us / 1000) + 1);
        rc_loop_turn(host.loop, &turn);
    }
    CHECK(news_of(0).wants == RC_HOST_OPEN);
    connect_link(host.loop);
    CHECK(output_has(host.loop, 0, "GET"));
    send_all(host.loop, 0);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 1 && rc_op_result(host.op)->outcome == RC_HIT);
    close_host(&host);
}

static void a_host_may_rest_where_nobody_needs_it(void)
{
    struct host host = open_host();
    CHECK(rc_host_rest(host.loop) == 0);
    connect_link(host.loop);
    send_all(host.loop, 0);
    feed(host.loop, 0, VALUE);
    CHECK(rc_host_rest(host.loop) == 1);
    rc_loop_turn(host.loop, &turn);
    CHECK(news_of(0).wants == RC_HOST_CLOSE);
    CHECK(rc_get(host.op, "key", 3, 0) == 0);
    rc_loop_turn(host.loop, &turn);
    CHECK(news_of(0).wants == RC_HOST_OPEN);
    connect_link(host.loop);
    send_all(host.loop, 0);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 1 && rc_op_result(host.op)->outcome == RC_HIT);
    close_host(&host);
}

static void what_was_dropped_is_not_told(void)
{
    struct host host = open_host();
    connect_link(host.loop);
    send_all(host.loop, 0);
    rc_op_drop(host.op);
    CHECK(rc_is_done(host.op) == 1 && rc_op_result(host.op)->status == RC_ERR_CANCELLED);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 0);
    close_host(&host);
}

/* Between the turn and the sending others may have added to the output, and moved it. */
static void the_output_is_what_there_is_when_it_is_asked_for(void)
{
    static char value[200 * 1024];
    size_t len;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    struct host host = open_host();
    rc_op *other = open_op(host.client, host.loop, OTHER);
    connect_link(host.loop);
    CHECK(news_of(0).len > 0 && output_has(host.loop, 0, "GET"));
    CHECK(rc_set(other, "key", 3, &entry, value, sizeof value, -1, 0) == 0);
    CHECK(rc_done(other) == 0); /* a pass of its own */
    CHECK(rc_host_output(host.loop, 0, &len) != NULL && len > news_of(0).len + sizeof value);
    CHECK(output_has(host.loop, 0, "GET") && output_has(host.loop, 0, "SET"));
    rc_host_sent(host.loop, 0, len);
    CHECK(rc_host_output(host.loop, 0, &len) == NULL && len == 0);
    CHECK(rc_host_output(host.loop, 2, &len) == NULL && len == 0);
    rc_op_free(other);
    close_host(&host);
}

/* ---- a connection that the host shares ------------------------------------------------------- */

/* A connection whose first end is the host's. */
static void make_connection(int fds[2])
{
    if (!CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0))
        exit(1);
}

static void keep_alive(int fd, int is_on)
{
    CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &is_on, sizeof is_on) == 0);
}

/* Shows the first connection, as a host does. */
static int share(rc_loop *loop, int fd)
{
    keep_alive(fd, 0);
    CHECK(rc_host_seek(loop, 0, RC_SEEK_BEGIN) == 0);
    for (int step = 0; step < 3; step++) {
        keep_alive(fd, step % 2 == 0);
        CHECK(rc_host_seek(loop, 0, step % 2 == 0 ? RC_SEEK_ON : RC_SEEK_OFF) == 0);
    }
    return rc_host_share(loop, 0);
}

/* What has come over it, in all; 0: nothing, or it was closed. */
static size_t receive(int fd, char *bytes, size_t room)
{
    size_t len = 0;
    ssize_t n;
    while (len < room && (n = recv(fd, bytes + len, room - len, 0)) > 0)
        len += (size_t)n;
    return len;
}

static bool has(const char *bytes, size_t size, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= size; i++) {
        if (memcmp(bytes + i, text, len) == 0)
            return true;
    }
    return false;
}

static char received[400 * 1024];

/* The first connection is made, and shared. */
static void connect_shared(struct host *host, const int fds[2])
{
    CHECK(share(host->loop, fds[0]) == 0);
    rc_host_opened(host->loop, 0);
    rc_loop_turn(host->loop, &turn);
    CHECK(news_of(0).len == 0); /* it was sent by the turn */
    CHECK(has(received, receive(fds[1], received, sizeof received), "HELLO"));
    feed(host->loop, 0, GREETING);
    CHECK(has(received, receive(fds[1], received, sizeof received), "GET"));
}

static void turns_send_over_a_connection_that_is_shared(void)
{
    int fds[2];
    struct host host = open_host();
    make_connection(fds);
    connect_shared(&host, fds);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 1 && rc_op_result(host.op)->outcome == RC_HIT);
    CHECK(rc_get(host.op, "key", 3, 0) == 0);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.link_count == 0 && receive(fds[1], received, sizeof received) > 0);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 1);
    close(fds[0]);
    close_host(&host);
    CHECK(recv(fds[1], received, 1, 0) == 0); /* ours is closed, too */
    close(fds[1]);
}

/* The host sends what did not go, and nothing goes past that. */
static void nothing_overtakes_what_the_host_sends(void)
{
    static char value[300 * 1024];
    int fds[2], small = 4096;
    size_t len = 0, first, sent, rest;
    rc_entry entry = {.kind = RC_KIND_VALUE};
    struct host host = open_host();
    rc_op *other = open_op(host.client, host.loop, OTHER);
    make_connection(fds);
    CHECK(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    connect_shared(&host, fds);
    CHECK(rc_set(other, "key", 3, &entry, value, sizeof value, -1, 0) == 0);
    rc_loop_turn(host.loop, &turn);
    rest = news_of(0).len;
    CHECK(rest > 0);
    first = receive(fds[1], received, sizeof received); /* there is room again */
    CHECK(first > 0 && first + rest > sizeof value);
    CHECK(rc_host_output(host.loop, 0, &len) != NULL && len == rest);
    feed(host.loop, 0, VALUE);
    CHECK(turn.count == 1 && rc_get(host.op, "key", 3, 0) == 0);
    rc_loop_turn(host.loop, &turn);
    CHECK(news_of(0).len > rest && receive(fds[1], received, sizeof received) == 0);
    rc_host_sent(host.loop, 0, rest);
    rc_loop_turn(host.loop, &turn);
    sent = receive(fds[1], received, sizeof received);
    CHECK(sent > 0 && has(received, sent, "GET") && news_of(0).len == 0);
    rc_op_free(other);
    close_host(&host);
    close(fds[0]);
    close(fds[1]);
}

/* A piece as long as the smallest buffer of a host: the rest is read with it. */
static void what_comes_behind_a_long_piece_is_read_with_it(void)
{
    enum { BYTES = 40000 };
    static char answer[BYTES + 20];
    int fds[2];
    struct host host = open_host();
    make_connection(fds);
    connect_shared(&host, fds);
    int len = snprintf(answer, sizeof answer, "$%d\r\n", BYTES);
    memset(answer + len, 'x', BYTES);
    memcpy(answer + len + BYTES, "\r\n", 2);
    CHECK(send(fds[1], answer + 4095, (size_t)len + BYTES + 2 - 4095, 0) > 0);
    rc_host_feed(host.loop, 0, answer, 4095);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.count == 0); /* too short a piece for a look at what follows it */
    char one;
    CHECK(recv(fds[0], &one, 1, 0) == 1);
    rc_host_feed(host.loop, 0, &one, 1);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.count == 0);
    CHECK(recv(fds[0], received, 4096, 0) == 4096);
    rc_host_feed(host.loop, 0, received, 4096);
    rc_loop_turn(host.loop, &turn);
    CHECK(turn.count == 1 && rc_op_result(host.op)->len == BYTES);
    close_host(&host);
    close(fds[0]);
    close(fds[1]);
}

/* Ours keeps a connection open that the host has closed. */
static void is_closed(struct host *host, const int fds[2])
{
    close(fds[0]);
    (void)receive(fds[1], received, sizeof received);
    CHECK(recv(fds[1], received, 1, 0) == 0);
    close(fds[1]);
    close_host(host);
}

static void what_was_shared_is_let_go_of(void)
{
    for (int way = 0; way < 3; way++) {
        int fds[2];
        struct host host = open_host();
        make_connection(fds);
        connect_shared(&host, fds);
        if (way == 0) {
            rc_host_unshare(host.loop, 0);
        } else if (way == 1) {
            rc_host_lost(host.loop, 0, "gone", 4);
        } else {
            feed(host.loop, 0, "?\r\n"); /* no answer at all */
            CHECK(news_of(0).wants & RC_HOST_CLOSE);
        }
        is_closed(&host, fds);
    }
}

static void a_connection_that_is_not_shown_is_not_shared(void)
{
    int fds[2];
    struct host host = open_host();
    make_connection(fds);
    CHECK(rc_host_seek(host.loop, 0, RC_SEEK_BEGIN) == 0);
    CHECK(rc_host_share(host.loop, 0) == RC_ERR_UNAVAILABLE);
    CHECK(rc_host_seek(host.loop, 9, RC_SEEK_BEGIN) == RC_ERR_CLOSED);
    CHECK(rc_host_share(host.loop, 9) == RC_ERR_CLOSED);
    connect_link(host.loop);
    CHECK(news_of(0).len > 0); /* the host sends it */
    rc_host_unshare(host.loop, 0);
    rc_host_unshare(host.loop, 9);
    close_host(&host);
    close(fds[0]);
    close(fds[1]);
}

/* ---- links that come and go ---------------------------------------------------------------- */

enum { GUESTS = 3 * RC_TURN_LINKS / 2 };

static struct rc_link guests[GUESTS];
static int gone;

static void ignore(struct rc_link *link)
{
    (void)link;
}

static void count_gone(struct rc_link *link)
{
    rc_link_deinit(link);
    gone++;
}

static void add_guests(struct rc_engine *engine, void *address)
{
    for (int i = 0; i < GUESTS; i++) {
        CHECK(rc_link_init(&guests[i], &engine->context, address, RC_LINK_W) == 0);
        guests[i].on_ready = guests[i].on_down = ignore;
        guests[i].on_gone = count_gone;
        CHECK(rc_topology_add(&engine->topology, &guests[i]) == 0);
        rc_link_want(&guests[i]);
    }
}

static void remove_guests(struct rc_engine *engine, void *argument)
{
    (void)argument;
    for (int i = 0; i < GUESTS; i++)
        rc_topology_remove(&engine->topology, &guests[i]);
}

/* Turns until nothing is left to tell: each guest wants that, and once. */
static void tells_of_each_guest(rc_loop *loop, uint32_t wants)
{
    bool was_told[2 + GUESTS] = {false};
    int count = 0;
    for (int i = 0; i < 3; i++) {
        rc_loop_turn(loop, &turn);
        for (uint32_t j = 0; j < turn.link_count; j++) {
            uint32_t number = turn.links[j].number;
            CHECK(number >= 2 && number < 2 + GUESTS && turn.links[j].wants == wants);
            CHECK(!was_told[number]);
            was_told[number] = true;
            count++;
        }
        CHECK(turn.wait_us == 0 || i > 0); /* there is more to tell */
    }
    CHECK(count == GUESTS);
}

static void a_host_is_told_of_links_that_come_and_go(void)
{
    char text[64];
    int32_t port, is_tls;
    struct rc_address address;
    const char *why, url[] = "redis://127.0.0.2:6380";
    rc_client *client = open_client("redis://127.0.0.1:6379", RC_DRIVER_HOST);
    rc_loop *loop = open_loop(client);
    int error;
    struct rc_driver *driver = rc_client_driver(client, &error);
    CHECK(rc_address_parse(&address, url, strlen(url), &why) == 0);
    rc_driver_call(driver, add_guests, &address);
    tells_of_each_guest(loop, RC_HOST_OPEN);
    CHECK(rc_host_address(loop, 5, text, sizeof text, &port, &is_tls) == 9);
    CHECK(strcmp(text, "127.0.0.2") == 0 && port == 6380); /* its own, not the client's */
    rc_host_opened(loop, 5);
    rc_loop_turn(loop, &turn);
    CHECK(turn.link_count == 1 && news_of(5).len > 0 && output_has(loop, 5, "HELLO"));
    gone = 0;
    rc_driver_call(driver, remove_guests, NULL);
    tells_of_each_guest(loop, RC_HOST_CLOSE | RC_HOST_GONE);
    CHECK(gone == GUESTS && driver->line_count == 2);
    CHECK(rc_host_address(loop, 5, text, sizeof text, &port, &is_tls) == RC_ERR_CLOSED);
    rc_host_lost(loop, 5, "late", 4); /* the host has not heard of it yet */
    rc_loop_free(loop);
    rc_unref(client, 100);
}

/* ---- the end -------------------------------------------------------------------------------- */

/* A store in memory is gone with its last client; its loop may be turned all the same. */
static void a_turn_after_the_end(const char *url, int driver)
{
    rc_client *client = open_client(url, driver);
    rc_loop *loop = open_loop(client);
    rc_op *op = open_op(client, loop, NAME);
    CHECK(rc_get(op, "key", 3, 0) == 0);
    CHECK(rc_close(client, 0) == 0);
    rc_loop_turn(loop, &turn);
    CHECK(turn.count == 1 && rc_op_result(op)->status == RC_ERR_CLOSED);
    (void)poll(NULL, 0, 110); /* behind the next sweep */
    rc_loop_turn(loop, &turn);
    CHECK(turn.count == 0);
    rc_loop_wait(loop); /* nothing can come any more */
    CHECK(rc_get(op, "key", 3, 0) == RC_ERR_CLOSED);
    CHECK(rc_loop_fd(loop) == RC_ERR_CLOSED);
    CHECK(rc_host_leave(loop) == 1 && rc_host_rest(loop) == 1);
    close_all(client, loop, op);
}

static void a_turn_after_the_end_finds_no_store(void)
{
    for (int driver = RC_DRIVER_REACTOR; driver <= RC_DRIVER_HOST; driver++)
        a_turn_after_the_end("memory://end", driver);
}

static void a_turn_after_the_end_finds_no_server(void)
{
    for (int driver = RC_DRIVER_REACTOR; driver <= RC_DRIVER_HOST; driver++)
        a_turn_after_the_end("redis://127.0.0.1:1", driver);
}

static void no_loop_and_no_client_are_refused(void)
{
    char text[8];
    int32_t port, is_tls;
    size_t len = 1;
    memset(&turn, 0xff, sizeof turn);
    rc_loop_turn(NULL, &turn);
    CHECK(turn.count == 0 && turn.link_count == 0 && turn.wait_us == -1);
    rc_loop_wait(NULL);
    rc_loop_free(NULL);
    CHECK(rc_loop_fd(NULL) == RC_ERR_CLOSED && rc_loop_accept(NULL) == RC_ERR_CLOSED);
    CHECK(rc_loop_listen(NULL, text, sizeof text) == RC_ERR_CLOSED);
    rc_host_opened(NULL, 0);
    rc_host_lost(NULL, 0, "gone", 4);
    rc_host_feed(NULL, 0, "x", 1);
    rc_host_sent(NULL, 0, 1);
    rc_host_begin(NULL);
    rc_host_unshare(NULL, 0);
    CHECK(rc_host_seek(NULL, 0, RC_SEEK_BEGIN) == RC_ERR_CLOSED);
    CHECK(rc_host_share(NULL, 0) == RC_ERR_CLOSED);
    CHECK(rc_host_output(NULL, 0, &len) == NULL && len == 0);
    CHECK(rc_host_hand_over(NULL) == 1 && rc_host_rest(NULL) == 1 && rc_host_leave(NULL) == 1);
    CHECK(rc_host_address(NULL, 0, text, sizeof text, &port, &is_tls) == RC_ERR_CLOSED);
    CHECK(rc_host_lookup(NULL, 0, text, sizeof text) == RC_ERR_CLOSED);
    CHECK(rc_loop_new(NULL) == NULL && rc_op_new(NULL) == NULL);
    CHECK(rc_lock_new(NULL, "key", 3) == NULL);
    CHECK(rc_view_new(NULL, "", 0, "", 0, 0, 0, 0) == NULL);
}

static int count_entries(const char *path)
{
    int count = -2; /* . and .. */
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -1;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* The directory for the socket can be made, the socket cannot. */
static void leaves_no_directory_where_there_is_no_descriptor(void)
{
    char parent[] = "/tmp/loop-test-XXXXXX", path[200], *before = getenv("TMPDIR");
    struct rlimit limit, none;
    rc_client *client = open_client("memory://", RC_DRIVER_REACTOR);
    rc_loop *loop = open_loop(client);
    if (!CHECK(mkdtemp(parent) != NULL && getrlimit(RLIMIT_NOFILE, &limit) == 0))
        exit(1);
    char *kept = before != NULL ? strdup(before) : NULL;
    setenv("TMPDIR", parent, 1);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(rc_loop_listen(loop, path, sizeof path) == RC_ERR_UNAVAILABLE);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(count_entries(parent) == 0);
    CHECK(rc_loop_listen(loop, path, sizeof path) > 0 && count_entries(parent) == 1);
    rc_loop_free(loop);
    CHECK(count_entries(parent) == 0);
    if (kept != NULL)
        setenv("TMPDIR", kept, 1);
    else
        unsetenv("TMPDIR");
    free(kept);
    rmdir(parent);
    rc_unref(client, 100);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, path);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static void a_child_leaves_its_parent_what_it_waits_at(void)
{
    char path[128] = "";
    int status = -1;
    rc_client *client = open_client("memory://child", RC_DRIVER_REACTOR);
    rc_loop *loop = open_loop(client);
    CHECK(rc_loop_listen(loop, path, sizeof path) > 0);
    pid_t child = fork();
    if (child == 0) {
        rc_loop_free(loop);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    int fd = connect_to(path);
    CHECK(rc_loop_accept(loop) == 0);
    rc_loop_free(loop);
    close(fd);
    CHECK(access(path, F_OK) != 0);
    rc_unref(client, 0);
}

int main(void)
{
    TEST(a_polled_store_tells_in_the_turn_that_sends);
    TEST(a_hosted_store_tells_in_the_turn_that_sends);
    TEST(equal_reads_before_a_turn_are_one_request);
    TEST(what_is_done_at_once_is_told_in_order);
    TEST(a_store_with_a_thread_tells_mostly_in_the_turn_that_sends);
    TEST(a_slot_that_is_used_again_untold_is_told_once);
    TEST(sleeps_until_something_is_done);
    TEST(a_slot_that_is_freed_untold_is_not_told);
    TEST(a_loop_may_be_freed_before_its_slots);
    TEST(a_polled_client_needs_its_descriptor_alone);
    TEST(a_thread_tells_by_a_descriptor);
    TEST(a_polled_client_wakes_for_what_is_overdue);
    TEST(a_blocking_call_leaves_a_reason_for_a_turn);
    TEST(leaves_no_directory_where_there_is_no_descriptor);
    TEST(a_host_moves_the_bytes);
    TEST(a_host_opens_again_what_was_lost);
    TEST(a_host_may_rest_where_nobody_needs_it);
    TEST(what_was_dropped_is_not_told);
    TEST(the_output_is_what_there_is_when_it_is_asked_for);
    TEST(turns_send_over_a_connection_that_is_shared);
    TEST(nothing_overtakes_what_the_host_sends);
    TEST(what_comes_behind_a_long_piece_is_read_with_it);
    TEST(what_was_shared_is_let_go_of);
    TEST(a_connection_that_is_not_shown_is_not_shared);
    TEST(a_host_is_told_of_links_that_come_and_go);
    TEST(a_turn_after_the_end_finds_no_store);
    TEST(a_turn_after_the_end_finds_no_server);
    TEST(a_child_leaves_its_parent_what_it_waits_at);
    TEST(no_loop_and_no_client_are_refused);
    return test_result();
}
