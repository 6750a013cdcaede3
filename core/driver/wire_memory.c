#include "driver/memory.h"
#include "driver/turn.h"
#include "driver/wire.h"

enum { KEEP_BYTES = 1024 * 1024 }; /* room the empty answers keep */

struct memory_line {
    struct rc_line line; /* first: rc_line * is the address of it */
    struct rc_memory_end end;
};

static struct rc_memory_end *end_of(struct rc_line *line)
{
    return &((struct memory_line *)(void *)line)->end;
}

static void tell(void *driver)
{
    rc_driver_tell(driver);
}

static void init(struct rc_line *line)
{
    end_of(line)->owner = line->driver;
    end_of(line)->tell = tell;
}

static void open_or_close(struct rc_line *line)
{
    struct rc_link *link = line->link;
    struct rc_memory *memory = line->driver->memory;
    if (link->wants_close || link->ended) {
        link->wants_close = false;
        rc_memory_disconnect(memory, end_of(line));
    }
    if (!link->wants_open)
        return;
    link->wants_open = false;
    if (rc_memory_connect(memory, end_of(line)) == 0)
        rc_link_opened(link);
    else
        rc_link_lost(link, "no memory");
}

/* A link that is lost by itself does not ask for its end to be closed. */
static void lose(struct rc_line *line, const char *cause)
{
    rc_memory_disconnect(line->driver->memory, end_of(line));
    rc_link_lost(line->link, cause);
}

static void send_output(struct rc_line *line)
{
    struct rc_link *link = line->link;
    struct rc_driver *driver = line->driver;
    size_t len = rc_buf_len(&link->output);
    if (len == 0 || link->wants_close || end_of(line)->conn == NULL)
        return;
    int error = rc_memory_say(driver->memory, end_of(line), rc_buf_head(&link->output), len,
                              driver->engine.context.now_us);
    if (error == 0)
        rc_link_sent(link, len);
    else
        lose(line, "no memory");
}

static bool receive_input(struct rc_line *line)
{
    struct rc_link *link = line->link;
    struct rc_memory_end *end = end_of(line);
    if (link->wants_close || end->conn == NULL)
        return false;
    if (rc_buf_len(&end->answers) == 0)
        rc_memory_hear(line->driver->memory, end);
    size_t len = rc_buf_len(&end->answers);
    if (len > 0)
        rc_link_feed(link, rc_buf_head(&end->answers), len);
    rc_buf_clear(&end->answers);
    rc_buf_trim(&end->answers, KEEP_BYTES);
    if (end->wants_close && !link->wants_close)
        lose(line, "the store closed the connection");
    return len > 0;
}

static void sweep(struct rc_driver *driver, int64_t now_us)
{
    rc_memory_sweep(driver->memory, now_us);
}

const struct rc_wire rc_wire_memory = {
    .is_instant = true,
    .line_size = sizeof(struct memory_line),
    .init = init,
    .open_or_close = open_or_close,
    .send = send_output,
    .receive = receive_input,
    .sweep = sweep,
};
