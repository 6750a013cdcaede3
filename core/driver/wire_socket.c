#include "driver/wire_socket.h"

#include <errno.h>
#include <sys/socket.h>

#include "driver/socket.h"
#include "driver/turn.h"
#include "driver/wire.h"

static void init(struct rc_line *line)
{
    rc_socket_line_of(line)->fd = -1;
}

static void lose(struct rc_socket_line *at, const char *cause)
{
    struct rc_link *link = at->line.link;
    rc_link_lost(link, cause);
    link->wants_close = true; /* only the reactor closes: it may be polling the descriptor */
}

static void lose_errno(struct rc_socket_line *at, long error)
{
    char text[128];
    lose(at, rc_socket_error(error, text, sizeof text));
}

/* 0 where the call would have blocked, else -errno. */
static long read_errno(void)
{
    int error = errno;
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR ? 0 : -(long)error;
}

/* Bytes moved; 0: would block; negative: -errno, or RC_SOCKET_EOF. */
static long push(int fd, const char *bytes, size_t len)
{
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
        return (long)n;
    return read_errno();
}

static long pull(int fd, char *bytes, size_t room)
{
    ssize_t n = recv(fd, bytes, room, MSG_DONTWAIT);
    if (n > 0)
        return (long)n;
    if (n == 0)
        return RC_SOCKET_EOF;
    return read_errno();
}

static bool is_open(const struct rc_socket_line *at)
{
    return at->fd >= 0 && !at->line.link->wants_close;
}

/* Encrypts what the link has to say, as far as there is room. */
static void encrypt_output(struct rc_socket_line *at)
{
    struct rc_link *link = at->line.link;
    long n = 1;
    while (n > 0 && rc_buf_len(&link->output) > 0) {
        n = rc_tls_write(at->tls, rc_buf_head(&link->output), rc_buf_len(&link->output));
        if (n > 0)
            rc_link_sent(link, (size_t)n);
    }
    if (n < 0)
        lose(at, rc_tls_error(at->tls));
}

static void send_output(struct rc_line *line)
{
    struct rc_socket_line *at = rc_socket_line_of(line);
    struct rc_buf *output = at->tls != NULL ? rc_tls_output(at->tls) : &line->link->output;
    line->has_unsent = false;
    while (is_open(at)) {
        if (at->tls != NULL)
            encrypt_output(at);
        if (!is_open(at) || rc_buf_len(output) == 0)
            return;
        long n = push(at->fd, rc_buf_head(output), rc_buf_len(output));
        if (n < 0)
            lose_errno(at, n);
        else if (n == 0)
            line->has_unsent = true;
        else if (at->tls != NULL)
            rc_buf_consume(output, (size_t)n);
        else
            rc_link_sent(line->link, (size_t)n);
        if (n <= 0)
            return;
    }
}

static void decrypt_input(struct rc_socket_line *at, size_t len)
{
    struct rc_driver *driver = at->line.driver;
    long n = rc_tls_feed(at->tls, driver->receive_buffer, len);
    at->line.has_unsent = true; /* TLS may have an answer of its own */
    while (n >= 0 && is_open(at)) {
        n = rc_tls_read(at->tls, driver->receive_buffer, sizeof driver->receive_buffer);
        if (n <= 0)
            break;
        rc_link_feed(at->line.link, driver->receive_buffer, (size_t)n);
    }
    if (n < 0)
        lose(at, rc_tls_error(at->tls));
}

static bool receive_input(struct rc_line *line)
{
    struct rc_socket_line *at = rc_socket_line_of(line);
    struct rc_driver *driver = line->driver;
    bool any = false;
    /* Bounded: a flood on one link must not starve the others and the timers. */
    for (int i = 0; i < 16 && is_open(at); i++) {
        long n = pull(at->fd, driver->receive_buffer, sizeof driver->receive_buffer);
        if (n == 0)
            break;
        if (!any) /* the owner may have looked for it for a while */
            rc_engine_set_time(&driver->engine, rc_driver_now_us(driver));
        any = true;
        if (n < 0)
            lose_errno(at, n);
        else if (at->tls != NULL)
            decrypt_input(at, (size_t)n);
        else
            rc_link_feed(line->link, driver->receive_buffer, (size_t)n);
        if (n < (long)sizeof driver->receive_buffer)
            break;
    }
    return any;
}

const struct rc_wire rc_wire_socket = {
    .line_size = sizeof(struct rc_socket_line),
    .init = init,
    .send = send_output,
    .receive = receive_input,
};
