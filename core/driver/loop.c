#include "driver/loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "driver/fork.h"

int rc_loop_init(struct rc_loop *loop, struct rc_client *client)
{
    memset(loop, 0, sizeof *loop);
    loop->client = client;
    loop->listener = -1;
    atomic_init(&loop->fd, -1);
    return rc_seat_init(&loop->seat, NULL);
}

static void close_listener(struct rc_loop *loop)
{
    if (loop->listener >= 0)
        close(loop->listener);
    loop->listener = -1;
    if (loop->generation !=
        rc_fork_generation()) /* the parent's caller is still to connect to it */
        loop->path[0] = '\0';
    if (loop->path[0] == '\0')
        return;
    unlink(loop->path);
    *strrchr(loop->path, '/') = '\0';
    rmdir(loop->path);
    loop->path[0] = '\0';
}

void rc_loop_deinit(struct rc_loop *loop)
{
    int fd = atomic_load(&loop->fd);
    close_listener(loop);
    if (fd >= 0)
        close(fd);
    rc_seat_deinit(&loop->seat);
}

/* ---- what is done ---------------------------------------------------------------------------- */

/* A chain of seats by `next_done`. */
static void push(struct rc_loop *loop, struct rc_seat *newest, struct rc_seat *oldest)
{
    oldest->next_done = atomic_load_explicit(&loop->done, memory_order_relaxed);
    /* Release pairs with the exchange in sort. Sequentially consistent because wake then looks at
       `is_signalled`, while the loop clears it, then looks here. */
    while (!atomic_compare_exchange_weak(&loop->done, &oldest->next_done, newest)) {
    }
}

static void wake(struct rc_loop *loop)
{
    uint64_t one = 1;
    /* A read first: most of a burst find it done. Pairs with rc_loop_wait: see push. */
    if (!(atomic_load(&loop->seat.state) & RC_SEAT_DONE))
        rc_seat_finish(&loop->seat);
    int fd = atomic_load(&loop->fd);
    if (fd < 0 || atomic_exchange(&loop->is_signalled, true))
        return;
    /* An eventfd wants eight bytes, and a socket takes them as well. Full: it is readable. */
    ssize_t written = write(fd, &one, sizeof one);
    (void)written;
}

void rc_loop_report(struct rc_seat *seat)
{
    struct rc_loop *loop = seat->loop;
    assert(!seat->is_unreported); /* it stands in the list once */
    seat->is_unreported = true;
    push(loop, seat, seat); /* before it is done: what is done and freed must be found in there */
    rc_seat_finish(seat);
    wake(loop);
}

static struct rc_seat *seat_of(struct rc_list *active)
{
    return RC_CONTAINER(active, struct rc_seat, op.run.active);
}

/* Those at the beginning that have the same loop. */
static void report_some(struct rc_list *finished)
{
    struct rc_seat *oldest = seat_of(finished->next), *newest = NULL;
    struct rc_loop *loop = oldest->loop;
    size_t count = 0;
    RC_LIST_EACH(active, following, finished) {
        struct rc_seat *seat = seat_of(active);
        if (seat->loop != loop)
            break;
        assert(!seat->is_unreported);
        seat->is_unreported = true;
        seat->next_done = newest;
        newest = seat;
        count++;
    }
    push(loop, newest, oldest);
    while (count-- > 0) { /* the loop puts `next_done` in another order, and may free who is done */
        struct rc_seat *seat = seat_of(finished->next);
        rc_list_remove(&seat->op.run.active);
        rc_seat_finish(seat);
    }
    wake(loop);
}

void rc_loop_report_all(struct rc_list *finished)
{
    while (!rc_list_is_empty(finished))
        report_some(finished);
}

/* Puts what was done since the last time behind what is in order. */
static void sort(struct rc_loop *loop)
{
    struct rc_seat *newest = NULL, *oldest = NULL, *last;
    /* Relaxed: what comes a moment later is found by the next turn. */
    if (atomic_load_explicit(&loop->done, memory_order_relaxed) != NULL)
        newest = atomic_exchange(&loop->done, NULL);
    last = newest;
    while (newest != NULL) {
        struct rc_seat *earlier = newest->next_done;
        newest->next_done = oldest;
        oldest = newest;
        newest = earlier;
    }
    if (oldest == NULL)
        return;
    if (loop->first == NULL)
        loop->first = oldest;
    else
        loop->last->next_done = oldest;
    loop->last = last;
}

struct rc_seat *rc_loop_take(struct rc_loop *loop)
{
    if (loop->first == NULL)
        sort(loop);
    struct rc_seat *seat = loop->first;
    if (seat == NULL)
        return NULL;
    loop->first = seat->next_done;
    seat->is_unreported = false;
    while (!rc_seat_is_done(seat)) /* its finisher is between push and done */
        sched_yield();
    return seat;
}

void rc_loop_forget(struct rc_loop *loop, struct rc_seat *seat)
{
    struct rc_seat *before = NULL;
    if (!seat->is_unreported)
        return;
    seat->is_unreported = false;
    sort(loop);
    for (struct rc_seat *each = loop->first; each != NULL; before = each, each = each->next_done) {
        if (each != seat)
            continue;
        if (before == NULL)
            loop->first = each->next_done;
        else
            before->next_done = each->next_done;
        if (loop->last == each)
            loop->last = before;
        return;
    }
}

bool rc_loop_has_done(const struct rc_loop *loop)
{
    return loop->first != NULL || atomic_load(&loop->done) != NULL;
}

/* ---- what wakes the caller ------------------------------------------------------------------- */

int rc_loop_open_fd(struct rc_loop *loop)
{
    int fd = atomic_load(&loop->fd);
    if (fd >= 0)
        return fd;
    fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return RC_ERR_NOMEM;
    loop->has_event = true;
    atomic_store(&loop->fd, fd);
    wake(loop); /* what was done while nobody could be told */
    return fd;
}

/* In a directory of its own, which nobody else may enter. */
int rc_loop_open_socket(struct rc_loop *loop)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *parent = getenv("TMPDIR");
    close_listener(loop);
    loop->generation = rc_fork_generation();
    if (parent == NULL || strlen(parent) > sizeof loop->path - 24)
        parent = "/tmp";
    snprintf(loop->path, sizeof loop->path, "%s/redcache-XXXXXX", parent);
    if (mkdtemp(loop->path) == NULL) {
        loop->path[0] = '\0'; /* there is nothing to remove */
        return RC_ERR_UNAVAILABLE;
    }
    strcat(loop->path, "/wake");
    strcpy(address.sun_path, loop->path);
    loop->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (loop->listener >= 0 &&
        bind(loop->listener, (const struct sockaddr *)&address, sizeof address) == 0 &&
        listen(loop->listener, 1) == 0)
        return (int)strlen(loop->path);
    close_listener(loop);
    return RC_ERR_UNAVAILABLE;
}

int rc_loop_accept_socket(struct rc_loop *loop)
{
    int fd = loop->listener >= 0 ? accept(loop->listener, NULL, NULL) : -1;
    if (fd < 0)
        return RC_ERR_UNAVAILABLE;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    close_listener(loop);
    loop->has_event = false;
    int earlier = atomic_exchange(&loop->fd, fd);
    if (earlier >= 0)
        close(earlier);
    atomic_store(&loop->is_signalled, false);
    wake(loop); /* what was done while nobody could be told */
    return 0;
}

void rc_loop_hush(struct rc_loop *loop)
{
    uint64_t count;
    if (loop->has_event && atomic_load(&loop->is_signalled)) {
        ssize_t n = read(atomic_load(&loop->fd), &count, sizeof count);
        (void)n;
    }
    /* Pairs with wake: see push. After the read: nothing is written while it is set. */
    atomic_store(&loop->is_signalled, false);
}
