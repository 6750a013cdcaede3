#include "driver/dial.h"

#include <errno.h>
#include <unistd.h>

#include "driver/lookup.h"
#include "driver/socket.h"
#include "driver/turn.h"

void rc_dial_init(struct rc_dial *dial, uv_loop_t *loop)
{
    dial->loop = loop;
    dial->fd = -1;
}

bool rc_dial_take_line(struct rc_dial *dial, struct rc_socket_line *line)
{
    if (dial->line != NULL || dial->has_poll)
        return false;
    dial->line = line;
    line->dial = dial;
    return true;
}

void rc_dial_leave_line(struct rc_dial *dial)
{
    rc_dial_shut(dial);
    dial->line->dial = NULL;
    dial->line = NULL;
}

static struct rc_link *link_of(struct rc_dial *dial)
{
    return dial->line->line.link;
}

/* ---- watching -------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct rc_dial *dial = handle->data;
    (void)status; /* reading tells */
    (void)events;
    dial->answered = dial->connecting;
    dial->on_ready(dial);
}

bool rc_dial_watch(struct rc_dial *dial, int events)
{
    if (!dial->has_poll || dial->poll_events == events ||
        uv_is_closing((const uv_handle_t *)&dial->poll))
        return false;
    dial->poll_events = events;
    if (events == 0)
        uv_poll_stop(&dial->poll);
    else
        uv_poll_start(&dial->poll, events, on_poll);
    return true;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void on_poll_closed(uv_handle_t *handle)
{
    struct rc_dial *dial = handle->data;
    int fd = dial->fd;
    dial->has_poll = false;
    dial->fd = -1; /* first: a child of fork() closes what stands here */
    close(fd);
    dial->on_closed(dial);
}

static void free_addresses(struct rc_dial *dial)
{
    if (dial->addresses != NULL)
        uv_freeaddrinfo(dial->addresses);
    dial->addresses = dial->next = NULL;
}

void rc_dial_shut(struct rc_dial *dial)
{
    if (dial->line != NULL) {
        dial->line->fd = -1;
        rc_tls_free(dial->line->tls);
        dial->line->tls = NULL;
    }
    dial->connecting = dial->answered = false;
    if (dial->lookup != NULL)
        rc_lookup_abandon(dial->lookup);
    dial->lookup = NULL;
    free_addresses(dial);
    if (dial->has_poll && !uv_is_closing((uv_handle_t *)&dial->poll))
        uv_close((uv_handle_t *)&dial->poll, on_poll_closed);
}

static void give_up(struct rc_dial *dial, const char *cause)
{
    rc_dial_shut(dial);
    rc_link_lost(link_of(dial), cause);
}

static void give_up_errno(struct rc_dial *dial, long error)
{
    char text[128];
    give_up(dial, rc_socket_error(error, text, sizeof text));
}

static bool poll_new_fd(struct rc_dial *dial, int fd)
{
    dial->fd = fd;
    if (uv_poll_init(dial->loop, &dial->poll, fd) != 0) {
        close(fd);
        dial->fd = -1;
        return false;
    }
    dial->poll.data = dial;
    dial->has_poll = true;
    dial->connecting = true;
    dial->answered = false;
    dial->poll_events = 0;
    return true;
}

/* Goes through the addresses until one connect is under way. */
static void connect_next(struct rc_dial *dial)
{
    int error = -ENOENT;
    while (dial->next != NULL) {
        struct addrinfo *address = dial->next;
        dial->next = address->ai_next;
        int fd = rc_socket_connect(address->ai_addr, (socklen_t)address->ai_addrlen);
        if (fd >= 0 && poll_new_fd(dial, fd))
            return;
        error = fd < 0 ? fd : -ENOMEM;
    }
    give_up_errno(dial, error);
}

static void on_lookup(void *argument)
{
    struct rc_driver *driver = argument;
    driver->runner->wake(driver);
}

static void open_line(struct rc_dial *dial)
{
    const struct rc_address *address = link_of(dial)->address;
    if (address->is_unix) {
        int fd = rc_socket_connect_unix(address->host);
        if (fd < 0 || !poll_new_fd(dial, fd))
            give_up_errno(dial, fd < 0 ? fd : -ENOMEM);
        return;
    }
    dial->addresses = dial->next = rc_lookup_digits(address->host, address->port);
    if (dial->next != NULL)
        connect_next(dial);
    else if (rc_lookup_start(&dial->lookup, address->host, address->port, on_lookup,
                             dial->line->line.driver) != 0)
        give_up_errno(dial, -ENOMEM);
}

static bool start_tls(struct rc_dial *dial)
{
    struct rc_tls_context *context = dial->line->line.driver->tls_context;
    if (context == NULL)
        return true;
    dial->line->tls = rc_tls_new(context, link_of(dial)->address->host);
    return dial->line->tls != NULL;
}

static void on_connected(struct rc_dial *dial)
{
    int error = rc_socket_result(dial->fd);
    dial->connecting = dial->answered = false;
    if (error == 0 && !start_tls(dial)) {
        give_up_errno(dial, -ENOMEM);
    } else if (error == 0) {
        free_addresses(dial);
        dial->line->fd = dial->fd;
        rc_link_opened(link_of(dial));
    } else if (dial->next == NULL) {
        give_up_errno(dial, error);
    } else { /* another address, once libuv has let go of this descriptor */
        uv_close((uv_handle_t *)&dial->poll, on_poll_closed);
    }
}

static void take_addresses(struct rc_dial *dial)
{
    const char *why;
    dial->addresses = dial->next = rc_lookup_take(dial->lookup, &why);
    dial->lookup = NULL;
    if (dial->next != NULL)
        connect_next(dial);
    else
        give_up(dial, why);
}

void rc_dial_open_or_close(struct rc_dial *dial)
{
    struct rc_link *link = link_of(dial);
    if (link->wants_close) {
        link->wants_close = false;
        rc_dial_shut(dial);
    }
    if (dial->lookup != NULL && !rc_lookup_is_done(dial->lookup))
        return;
    if (dial->answered) {
        on_connected(dial);
    } else if (dial->lookup != NULL) {
        take_addresses(dial);
    } else if (dial->next != NULL && !dial->has_poll) {
        connect_next(dial);
    } else if (link->wants_open && !dial->has_poll) {
        link->wants_open = false;
        open_line(dial);
    }
}

bool rc_dial_has_work(const struct rc_dial *dial)
{
    bool found = dial->lookup != NULL && rc_lookup_is_done(dial->lookup);
    return dial->answered || found || (dial->next != NULL && !dial->has_poll);
}
