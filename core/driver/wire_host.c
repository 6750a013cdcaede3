#include "driver/wire_host.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "driver/lookup.h"
#include "driver/turn.h"
#include "driver/wire.h"

static void init(struct rc_line *line)
{
    rc_host_line_of(line)->fd = -1;
}

static void deinit(struct rc_line *line)
{
    struct rc_host_line *at = rc_host_line_of(line);
    rc_host_line_unshare(at);
    if (at->lookup != NULL)
        rc_lookup_abandon(at->lookup);
}

int rc_host_line_share(struct rc_host_line *at)
{
    int fd = rc_descriptor_found(&at->search);
    rc_host_line_unshare(at);
    if (fd < 0)
        return RC_ERR_UNAVAILABLE;
    /* A duplicate, so that no number that was used again ever gets what was meant for Redis. */
    at->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return at->fd >= 0 ? 0 : RC_ERR_DESCRIPTORS;
}

void rc_host_line_unshare(struct rc_host_line *at)
{
    if (at->fd >= 0)
        close(at->fd);
    at->fd = -1;
    at->is_given = false;
}

static bool is_shared(const struct rc_host_line *at)
{
    return at->fd >= 0 && !at->line.link->wants_close;
}

static void send_output(struct rc_line *line)
{
    struct rc_host_line *at = rc_host_line_of(line);
    struct rc_buf *output = &line->link->output;
    if (!is_shared(at) || at->is_given || rc_buf_len(output) == 0)
        return;
    ssize_t n = send(at->fd, rc_buf_head(output), rc_buf_len(output), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) /* else the host tries, and hears why not */
        rc_link_sent(line->link, (size_t)n);
}

void rc_host_line_pull(struct rc_host_line *at)
{
    struct rc_driver *driver = at->line.driver;
    ssize_t n = sizeof driver->receive_buffer;
    /* Bounded, as in wire_socket. That it has ended, or failed, the host hears. */
    for (int i = 0; i < 16 && n == (ssize_t)sizeof driver->receive_buffer && is_shared(at); i++) {
        n = recv(at->fd, driver->receive_buffer, sizeof driver->receive_buffer, MSG_DONTWAIT);
        if (n > 0)
            rc_link_feed(at->line.link, driver->receive_buffer, (size_t)n);
    }
}

/* The host feeds what comes. */
static bool receive_nothing(struct rc_line *line)
{
    (void)line;
    return false;
}

const struct rc_wire rc_wire_host = {
    .line_size = sizeof(struct rc_host_line),
    .init = init,
    .deinit = deinit,
    .send = send_output,
    .receive = receive_nothing,
};
