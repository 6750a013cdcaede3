#include "driver/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* What is lost on the way to a server that is well is noticed within half a minute: a caller that
   waits over a lent connection hears of it then, and nobody between forgets an idle connection. */
enum { IDLE_SECONDS = 15, PROBE_SECONDS = 5, PROBES = 3 };

static void keep_alive(int fd)
{
    int one = 1, idle = IDLE_SECONDS, interval = PROBE_SECONDS, count = PROBES;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static int open_nonblocking(int family)
{
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int start_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    if (connect(fd, address, len) == 0 || errno == EINPROGRESS)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

int rc_socket_connect(const struct sockaddr *address, socklen_t len)
{
    int one = 1;
    int fd = open_nonblocking(address->sa_family);
    if (fd < 0)
        return fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    keep_alive(fd);
    return start_connect(fd, address, len);
}

int rc_socket_connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = open_nonblocking(AF_UNIX);
    if (fd < 0)
        return fd;
    return start_connect(fd, (const struct sockaddr *)&address, sizeof address);
}

int rc_socket_result(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return -errno;
    return -error;
}

const char *rc_socket_error(long error, char *text, size_t size)
{
    if (error == RC_SOCKET_EOF)
        snprintf(text, size, "the server closed the connection");
    else if (strerror_r((int)-error, text, size) != 0)
        snprintf(text, size, "error %ld", -error);
    return text;
}
