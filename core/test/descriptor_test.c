#include "driver/descriptor.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/test.h"

static struct rc_descriptor_search search;

static void keep_alive(int fd, int is_on)
{
    CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &is_on, sizeof is_on) == 0);
}

static void make_pair(int fds[2])
{
    if (!CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0))
        exit(1);
}

static void close_pair(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

/* What a host does: on, off, on. */
static void show(int fd)
{
    rc_descriptor_begin(&search);
    for (int step = 0; step < 3; step++) {
        keep_alive(fd, step % 2 == 0);
        rc_descriptor_follow(&search, step % 2 == 0);
    }
}

static void finds_the_one_that_follows(void)
{
    int pair[2], others[2];
    make_pair(pair);
    make_pair(others);
    keep_alive(others[0], 1);
    for (int i = 0; i < 2; i++) {
        show(pair[i]);
        CHECK(rc_descriptor_found(&search) == pair[i]);
        keep_alive(pair[i], 0);
    }
    close_pair(pair);
    close_pair(others);
}

static void finds_none_where_none_follows(void)
{
    int pair[2];
    make_pair(pair);
    rc_descriptor_begin(&search);
    CHECK(rc_descriptor_found(&search) == -1); /* both may be it */
    rc_descriptor_follow(&search, true);
    CHECK(rc_descriptor_found(&search) == -1);
    keep_alive(pair[0], 1); /* too late */
    rc_descriptor_follow(&search, true);
    CHECK(rc_descriptor_found(&search) == -1);
    close_pair(pair);
}

static void finds_none_where_two_follow(void)
{
    int pair[2];
    make_pair(pair);
    rc_descriptor_begin(&search);
    keep_alive(pair[0], 1);
    keep_alive(pair[1], 1);
    rc_descriptor_follow(&search, true);
    CHECK(rc_descriptor_found(&search) == -1);
    keep_alive(pair[1], 0);
    rc_descriptor_follow(&search, true);
    CHECK(rc_descriptor_found(&search) == pair[0]);
    close_pair(pair);
}

static void leaves_out_what_was_closed_and_what_is_no_stream(void)
{
    int pair[2], datagrams[2];
    make_pair(pair);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
    show(datagrams[0]);
    CHECK(rc_descriptor_found(&search) == -1);
    rc_descriptor_begin(&search);
    keep_alive(pair[0], 1);
    close_pair(pair);
    rc_descriptor_follow(&search, true);
    CHECK(rc_descriptor_found(&search) == -1);
    close_pair(datagrams);
}

int main(void)
{
    TEST(finds_the_one_that_follows);
    TEST(finds_none_where_none_follows);
    TEST(finds_none_where_two_follow);
    TEST(leaves_out_what_was_closed_and_what_is_no_stream);
    return test_result();
}
