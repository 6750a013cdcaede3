/*
 * loop_handle - the public calls of loops and hosts.
 */
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "driver/lookup.h"
#include "driver/loop.h"
#include "driver/wire_host.h"

enum { CAUSE_SIZE = 128 };
/* A host that feeds so much has filled a buffer, the smallest that nginx has: there may be more. */
enum { FULL_BYTES = 4096 };

/* A host may have lost its loop or client while somebody else still knows them: every call here
   refuses NULL, and does nothing for a client that is closed. */

rc_loop *rc_loop_new(rc_client *client)
{
    struct rc_loop *loop = client != NULL ? calloc(1, sizeof *loop) : NULL;
    if (loop == NULL || rc_loop_init(loop, client) != 0) {
        free(loop);
        return NULL;
    }
    rc_client_count_user(client, 1);
    rc_client_count_loop(client, 1);
    return loop;
}

static void do_nothing(struct rc_engine *engine, void *argument)
{
    (void)engine;
    (void)argument;
}

static struct rc_driver *driver_of(const struct rc_loop *loop)
{
    return loop != NULL ? rc_client_running_driver(loop->client) : NULL;
}

/* The same, started now if need be. NULL: closed, or it cannot be started (`error`). */
static struct rc_driver *start_driver_of(const struct rc_loop *loop, int *error)
{
    return loop != NULL ? rc_client_driver(loop->client, error) : NULL;
}

void rc_loop_free(rc_loop *loop)
{
    if (loop == NULL)
        return;
    struct rc_driver *driver = driver_of(loop);
    struct rc_client *client = loop->client;
    if (!loop->is_leaving)
        rc_client_count_loop(client, -1);
    loop->is_leaving = true;
    if (loop->seats > 0)
        return;
    if (driver != NULL) /* its finisher has left the loop then */
        rc_driver_call(driver, do_nothing, NULL);
    rc_loop_deinit(loop);
    free(loop);
    rc_client_count_user(client, -1);
}

void rc_op_name(rc_op *op, rc_loop *loop, uint32_t name)
{
    struct rc_seat *seat = (struct rc_seat *)(void *)op;
    rc_loop_leave(seat);
    seat->loop = loop;
    seat->name = name;
    if (loop != NULL)
        loop->seats++;
}

void rc_loop_leave(struct rc_seat *seat)
{
    struct rc_loop *loop = seat->loop;
    if (loop == NULL)
        return;
    rc_loop_forget(loop, seat);
    seat->loop = NULL;
    if (--loop->seats == 0 && loop->is_leaving)
        rc_loop_free(loop);
}

/* ---- turns ----------------------------------------------------------------------------------- */

/* Whether credentials are wanted of this loop; told once. */
static bool take_claim(struct rc_driver *driver, struct rc_seat *seat)
{
    seat->may_answer = true;
    bool has_claim = rc_driver_asks(driver, seat);
    seat->has_claim = false;
    return has_claim;
}

void rc_loop_turn(rc_loop *loop, rc_turn *turn)
{
    struct rc_driver *driver = driver_of(loop);
    struct rc_seat *seat;
    turn->wait_us = -1;
    turn->count = turn->link_count = turn->auth = 0;
    if (loop == NULL)
        return;
    rc_loop_hush(loop);
    if (driver != NULL)
        driver->runner->turn(driver, loop);
    while (turn->count < RC_TURN_NAMES && (seat = rc_loop_take(loop)) != NULL)
        turn->names[turn->count++] = seat->name;
    if (driver != NULL && driver->runner->tell != NULL)
        driver->runner->tell(driver, turn);
    if (driver != NULL && loop->client->options.auth != 0)
        turn->auth = take_claim(driver, &loop->seat);
}

void rc_loop_wait(rc_loop *loop)
{
    struct rc_driver *driver = driver_of(loop);
    if (driver == NULL || driver->runner->is_host)
        return;
    loop->caller_turns = true;
    loop->seat.may_answer = loop->client->options.auth != 0;
    while (!rc_loop_has_done(loop) && !atomic_load(&driver->ended) && !loop->seat.has_claim) {
        atomic_store(&loop->seat.state, 0);
        if (!rc_loop_has_done(loop)) /* what is done behind this makes the seat done, too */
            rc_driver_wait(driver, &loop->seat);
    }
}

int rc_loop_fd(rc_loop *loop)
{
    int error = RC_ERR_CLOSED;
    struct rc_driver *driver = start_driver_of(loop, &error);
    if (driver == NULL)
        return error;
    if (driver->runner->is_host)
        return RC_ERR_ARGUMENT;
    loop->caller_turns = false;
    return driver->runner->fd != NULL ? driver->runner->fd(driver) : rc_loop_open_fd(loop);
}

int rc_loop_listen(rc_loop *loop, char *path, size_t size)
{
    if (loop == NULL || atomic_load(&loop->client->closed))
        return RC_ERR_CLOSED;
    int len = loop->client->options.driver == RC_DRIVER_REACTOR ? rc_loop_open_socket(loop)
                                                                : RC_ERR_ARGUMENT;
    if (len >= 0 && (size_t)len < size)
        memcpy(path, loop->path, (size_t)len + 1);
    return len;
}

int rc_loop_accept(rc_loop *loop)
{
    return loop != NULL ? rc_loop_accept_socket(loop) : RC_ERR_CLOSED;
}

/* ---- hosts ----------------------------------------------------------------------------------- */

/* The link of a host that owns its connections. NULL: there is none. */
static struct rc_link *link_of(struct rc_loop *loop, uint32_t which)
{
    struct rc_driver *driver = driver_of(loop);
    if (driver == NULL || driver->wire != &rc_wire_host)
        return NULL;
    return rc_topology_numbered(&driver->engine.topology, which);
}

/* The same for news of it: the engine learns the time first. */
static struct rc_link *enter(struct rc_loop *loop, uint32_t which)
{
    struct rc_link *link = link_of(loop, which);
    if (link != NULL) {
        struct rc_driver *driver = driver_of(loop);
        rc_engine_set_time(&driver->engine, rc_driver_now_us(driver));
    }
    return link;
}

void rc_host_opened(rc_loop *loop, uint32_t which)
{
    struct rc_link *link = enter(loop, which);
    if (link != NULL)
        rc_link_opened(link);
}

void rc_host_lost(rc_loop *loop, uint32_t which, const char *cause, size_t len)
{
    char text[CAUSE_SIZE];
    struct rc_link *link = enter(loop, which);
    len = len < sizeof text ? len : sizeof text - 1;
    memcpy(text, cause, len);
    text[len] = '\0';
    if (link == NULL)
        return;
    rc_host_line_unshare(rc_host_line_of(link->line));
    rc_link_lost(link, text);
}

void rc_host_feed(rc_loop *loop, uint32_t which, const char *bytes, size_t len)
{
    struct rc_link *link = enter(loop, which);
    if (link == NULL)
        return;
    rc_link_feed(link, bytes, len);
    if (len >= FULL_BYTES)
        rc_host_line_pull(rc_host_line_of(link->line));
}

const char *rc_host_output(rc_loop *loop, uint32_t which, size_t *len)
{
    struct rc_link *link = link_of(loop, which);
    *len = link != NULL ? rc_buf_len(&link->output) : 0;
    if (*len == 0)
        return NULL;
    rc_host_line_of(link->line)->is_given = true;
    rc_bundle_close(&link->bundle);
    return rc_buf_head(&link->output);
}

void rc_host_sent(rc_loop *loop, uint32_t which, size_t len)
{
    struct rc_link *link = enter(loop, which);
    if (link == NULL)
        return;
    rc_host_line_of(link->line)->is_given = false;
    if (len <= rc_buf_len(&link->output))
        rc_link_sent(link, len);
}

int rc_host_seek(rc_loop *loop, uint32_t which, int32_t step)
{
    const struct rc_link *link = link_of(loop, which);
    if (link == NULL)
        return RC_ERR_CLOSED;
    struct rc_host_line *line = rc_host_line_of(link->line);
    if (step == RC_SEEK_BEGIN)
        rc_descriptor_begin(&line->search);
    else
        rc_descriptor_follow(&line->search, step == RC_SEEK_ON);
    return 0;
}

int rc_host_share(rc_loop *loop, uint32_t which)
{
    const struct rc_link *link = link_of(loop, which);
    return link != NULL ? rc_host_line_share(rc_host_line_of(link->line)) : RC_ERR_CLOSED;
}

void rc_host_unshare(rc_loop *loop, uint32_t which)
{
    const struct rc_link *link = link_of(loop, which);
    if (link != NULL)
        rc_host_line_unshare(rc_host_line_of(link->line));
}

int rc_host_address(rc_loop *loop, uint32_t which, char *text, size_t size, int32_t *port,
                    int32_t *is_tls)
{
    const struct rc_link *link = link_of(loop, which);
    if (link == NULL)
        return RC_ERR_CLOSED;
    const struct rc_address *address = link->address;
    size_t len = strlen(address->host);
    *port = address->is_unix ? 0 : address->port;
    *is_tls = address->is_tls;
    if (len >= size)
        return RC_ERR_TOOLARGE;
    memcpy(text, address->host, len + 1);
    return (int)len;
}

static void notice_nothing(void *argument)
{
    (void)argument; /* the host asks again */
}

static int write_digits(const struct addrinfo *address, char *text, size_t size)
{
    if (address == NULL || getnameinfo(address->ai_addr, address->ai_addrlen, text, (socklen_t)size,
                                       NULL, 0, NI_NUMERICHOST) != 0)
        return RC_ERR_UNAVAILABLE;
    return (int)strlen(text);
}

int rc_host_lookup(rc_loop *loop, uint32_t which, char *text, size_t size)
{
    const struct rc_link *link = link_of(loop, which);
    if (link == NULL)
        return RC_ERR_CLOSED;
    const struct rc_address *address = link->address;
    struct rc_host_line *line = rc_host_line_of(link->line);
    const char *why;
    struct addrinfo *found = NULL;
    if (line->lookup == NULL) {
        found = rc_lookup_digits(address->host, address->port);
        if (found == NULL)
            return rc_lookup_start(&line->lookup, address->host, address->port, notice_nothing,
                                   NULL);
    } else if (!rc_lookup_is_done(line->lookup)) {
        return 0;
    } else {
        found = rc_lookup_take(line->lookup, &why);
        line->lookup = NULL;
    }
    int len = write_digits(found, text, size);
    if (found != NULL)
        freeaddrinfo(found);
    return len;
}

static void begin(struct rc_engine *engine, void *argument)
{
    (void)argument;
    rc_engine_warm(engine);
}

void rc_host_begin(rc_loop *loop)
{
    int error;
    struct rc_driver *driver = start_driver_of(loop, &error);
    if (driver != NULL)
        rc_driver_call(driver, begin, NULL);
}

static void offer(struct rc_engine *engine, void *offered)
{
    *(bool *)offered = rc_engine_offer(engine);
}

int rc_host_hand_over(rc_loop *loop)
{
    struct rc_driver *driver = driver_of(loop);
    if (driver == NULL)
        return 1;
    if (!loop->has_offered) {
        rc_driver_call(driver, offer, &loop->has_offered);
        return !loop->has_offered;
    }
    return rc_engine_is_offer_ended(&driver->engine);
}

static void rest(struct rc_engine *engine, void *rested)
{
    *(int *)rested = rc_engine_rest(engine);
}

int rc_host_rest(rc_loop *loop)
{
    int rested = 1;
    struct rc_driver *driver = driver_of(loop);
    if (driver != NULL)
        rc_driver_call(driver, rest, &rested);
    return rested;
}

static void leave(struct rc_engine *engine, void *drained)
{
    if (!engine->context.closing)
        rc_engine_close(engine);
    *(int *)drained = rc_engine_is_drained(engine);
}

int rc_host_leave(rc_loop *loop)
{
    int drained = 1;
    struct rc_driver *driver = driver_of(loop);
    if (driver != NULL && rc_client_leave(loop->client))
        rc_driver_call(driver, leave, &drained);
    return drained;
}
