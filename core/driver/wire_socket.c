#include "driver/driver.h"
#include "driver/socket.h"
#include "driver/wire.h"

static void lose(struct rc_driver *driver, int which, const char *cause)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    rc_link_lost(link, cause);
    link->wants_close = true; /* only the reactor closes: it may be polling the descriptor */
}

static void lose_errno(struct rc_driver *driver, int which, long error)
{
    char text[128];
    lose(driver, which, rc_socket_error(error, text, sizeof text));
}

static bool is_open(const struct rc_driver *driver, int which)
{
    return driver->fds[which] >= 0 && !driver->engine.topology.links[which].wants_close;
}

/* Encrypts what the link has to say, as far as there is room. */
static void encrypt_output(struct rc_driver *driver, int which)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    long n = 1;
    while (n > 0 && rc_buf_len(&link->output) > 0) {
        n = rc_tls_write(driver->tls[which], rc_buf_head(&link->output), rc_buf_len(&link->output));
        if (n > 0)
            rc_link_sent(link, (size_t)n);
    }
    if (n < 0)
        lose(driver, which, rc_tls_error(driver->tls[which]));
}

static void send_output(struct rc_driver *driver, int which)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    struct rc_tls *tls = driver->tls[which];
    struct rc_buf *output = tls != NULL ? rc_tls_output(tls) : &link->output;
    driver->unwritten[which] = false;
    while (is_open(driver, which)) {
        if (tls != NULL)
            encrypt_output(driver, which);
        if (!is_open(driver, which) || rc_buf_len(output) == 0)
            return;
        long n = rc_socket_send(driver->fds[which], rc_buf_head(output), rc_buf_len(output));
        if (n < 0)
            lose_errno(driver, which, n);
        else if (n == 0)
            driver->unwritten[which] = true;
        else if (tls != NULL)
            rc_buf_consume(output, (size_t)n);
        else
            rc_link_sent(link, (size_t)n);
        if (n <= 0)
            return;
    }
}

static void decrypt_input(struct rc_driver *driver, int which, size_t len)
{
    struct rc_link *link = &driver->engine.topology.links[which];
    struct rc_tls *tls = driver->tls[which];
    long n = rc_tls_feed(tls, driver->receive_buffer, len);
    while (n >= 0 && is_open(driver, which)) {
        n = rc_tls_read(tls, driver->receive_buffer, sizeof driver->receive_buffer);
        if (n <= 0)
            break;
        rc_link_feed(link, driver->receive_buffer, (size_t)n);
    }
    if (n < 0)
        lose(driver, which, rc_tls_error(tls));
}

static bool receive_input(struct rc_driver *driver, int which)
{
    bool any = false;
    /* Bounded: a flood on one link must not starve the other and the timers. */
    for (int i = 0; i < 16 && is_open(driver, which); i++) {
        long n = rc_socket_receive(driver->fds[which], driver->receive_buffer,
                                   sizeof driver->receive_buffer);
        if (n == 0)
            break;
        any = true;
        if (n < 0)
            lose_errno(driver, which, n);
        else if (driver->tls[which] != NULL)
            decrypt_input(driver, which, (size_t)n);
        else
            rc_link_feed(&driver->engine.topology.links[which], driver->receive_buffer, (size_t)n);
        if (n < (long)sizeof driver->receive_buffer)
            break;
    }
    return any;
}

const struct rc_wire rc_wire_socket = {
    .send = send_output,
    .receive = receive_input,
};
