#include "driver/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "test/test.h"

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

/* A lent connection may be silent for as long as its caller waits: the kernel asks meanwhile. */
static void notices_within_half_a_minute_that_the_other_end_is_gone(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    int fd = rc_socket_connect((const struct sockaddr *)&address, len);
    if (CHECK(fd >= 0)) {
        int probes = option(fd, IPPROTO_TCP, TCP_KEEPCNT);
        CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
        CHECK(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
                  probes * option(fd, IPPROTO_TCP, TCP_KEEPINTVL) <=
              30);
        close(fd);
    }
    close(listener);
}

int main(void)
{
    TEST(notices_within_half_a_minute_that_the_other_end_is_gone);
    return test_result();
}
