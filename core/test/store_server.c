/*
 * store_server - one embedded store behind a TCP port, for the specs that compare it with Redis.
 *
 *     store_server PORT [MAX_BYTES]      PORT 0: any. Prints the port, serves 127.0.0.1 by the real
 *                                        clock, ends on SIGTERM or when stdin does.
 *     store_server scripts               Prints the sources of the scripts it knows, a line each.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "engine/script.h"
#include "store/store.h"

enum { STDIN, LISTENER, FIRST_PEER, PEERS_MAX = 512, READ_BYTES = 64 * 1024 };

static struct rc_store *store;
static struct pollfd polled[FIRST_PEER + PEERS_MAX];
static struct rc_store_conn *conns[FIRST_PEER + PEERS_MAX];
static nfds_t count = FIRST_PEER;
static volatile sig_atomic_t ended;

static void end(int signal_number)
{
    (void)signal_number;
    ended = 1;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int listen_at(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof addr;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, PEERS_MAX) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        die("could not listen");
    printf("%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_peer(void)
{
    int on = 1, fd = accept(polled[LISTENER].fd, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (count == FIRST_PEER + PEERS_MAX || rc_store_connect(store, &conns[count]) != 0) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    polled[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void drop_peer(nfds_t i)
{
    close(polled[i].fd);
    rc_store_disconnect(conns[i]);
    polled[i] = polled[--count];
    conns[i] = conns[count];
}

/* false: the peer is gone. */
static bool read_peer(nfds_t i)
{
    static char bytes[READ_BYTES];
    ssize_t len = recv(polled[i].fd, bytes, sizeof bytes, 0);
    if (len > 0)
        return rc_store_feed(conns[i], bytes, (size_t)len) == 0;
    return len < 0 && (errno == EAGAIN || errno == EINTR);
}

static bool write_peer(nfds_t i)
{
    struct rc_buf *output = &conns[i]->output;
    while (rc_buf_len(output) > 0) {
        ssize_t len = send(polled[i].fd, rc_buf_head(output), rc_buf_len(output), MSG_NOSIGNAL);
        if (len < 0)
            break;
        rc_buf_consume(output, (size_t)len);
    }
    polled[i].events = rc_buf_len(output) > 0 ? POLLIN | POLLOUT : POLLIN;
    bool is_blocked = errno == EAGAIN || errno == EINTR;
    return rc_buf_len(output) == 0 ? !conns[i]->wants_close : is_blocked;
}

/* Reads first, for a command of one peer is a push for another, then writes to all. */
static void serve(void)
{
    nfds_t known = count;
    rc_store_set_time(store, now_us());
    if (polled[LISTENER].revents != 0)
        accept_peer();
    for (nfds_t i = known; i-- > FIRST_PEER;) {
        if (polled[i].revents != 0 && !read_peer(i))
            drop_peer(i);
    }
    for (nfds_t i = count; i-- > FIRST_PEER;) {
        if (!write_peer(i))
            drop_peer(i);
    }
}

static int print_scripts(void)
{
    rc_scripts_init();
    for (int i = 0; i < RC_SCRIPT_COUNT; i++)
        puts(rc_script_source(i));
    return 0;
}

int main(int argc, char **argv)
{
    struct rc_store_options options = {.seed = {{1, (uint64_t)getpid()}}};
    if (argc < 2) {
        fprintf(stderr, "usage: store_server PORT [MAX_BYTES]\n");
        return 2;
    }
    if (strcmp(argv[1], "scripts") == 0)
        return print_scripts();
    if (argc > 2)
        options.max_bytes = strtoull(argv[2], NULL, 10);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    rc_scripts_init();
    if (rc_store_new(&store, &options) != 0)
        return 1;
    polled[STDIN] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    polled[LISTENER] = (struct pollfd){.fd = listen_at(atoi(argv[1])), .events = POLLIN};
    while (!ended && (polled[STDIN].revents == 0)) {
        if (poll(polled, count, -1) >= 0)
            serve();
    }
    rc_store_free(store);
    return 0;
}
