#include "driver/driver.h"
#include "driver/wire.h"

enum { KEEP_BYTES = 1024 * 1024 }; /* room the empty answers keep */

static struct rc_link *link_of(struct rc_driver *driver, int which)
{
    return &driver->engine.topology.links[which];
}

static void tell(void *driver)
{
    rc_driver_tell(driver);
}

static void connect_link(struct rc_driver *driver, int which)
{
    struct rc_memory_end *end = &driver->ends[which];
    end->owner = driver;
    end->tell = tell;
    if (rc_memory_connect(driver->memory, end) == 0)
        rc_link_opened(link_of(driver, which));
    else
        rc_link_lost(link_of(driver, which), "no memory");
}

static void tend(struct rc_driver *driver, int which)
{
    struct rc_link *link = link_of(driver, which);
    if (link->wants_close || link->ended) {
        link->wants_close = false;
        rc_memory_disconnect(driver->memory, &driver->ends[which]);
    }
    if (link->wants_open) {
        link->wants_open = false;
        connect_link(driver, which);
    }
}

/* A link that is lost by itself does not ask for its end to be closed. */
static void lose(struct rc_driver *driver, int which, const char *cause)
{
    rc_memory_disconnect(driver->memory, &driver->ends[which]);
    rc_link_lost(link_of(driver, which), cause);
}

static void send_output(struct rc_driver *driver, int which)
{
    struct rc_link *link = link_of(driver, which);
    size_t len = rc_buf_len(&link->output);
    if (len == 0 || link->wants_close || driver->ends[which].conn == NULL)
        return;
    int error = rc_memory_say(driver->memory, &driver->ends[which], rc_buf_head(&link->output), len,
                              driver->engine.context.now_us);
    if (error == 0)
        rc_link_sent(link, len);
    else
        lose(driver, which, "no memory");
}

static bool receive_input(struct rc_driver *driver, int which)
{
    struct rc_link *link = link_of(driver, which);
    struct rc_memory_end *end = &driver->ends[which];
    if (link->wants_close || end->conn == NULL)
        return false;
    if (rc_buf_len(&end->answers) == 0)
        rc_memory_hear(driver->memory, end);
    size_t len = rc_buf_len(&end->answers);
    if (len > 0)
        rc_link_feed(link, rc_buf_head(&end->answers), len);
    rc_buf_clear(&end->answers);
    rc_buf_trim(&end->answers, KEEP_BYTES);
    if (end->wants_close && !link->wants_close)
        lose(driver, which, "the store closed the connection");
    return len > 0;
}

static void upkeep(struct rc_driver *driver, int64_t now_us)
{
    rc_memory_sweep(driver->memory, now_us);
}

const struct rc_wire rc_wire_memory = {
    .is_instant = true,
    .tend = tend,
    .send = send_output,
    .receive = receive_input,
    .upkeep = upkeep,
};
