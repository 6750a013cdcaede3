#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_OFD_SETLK */
#endif
#include "near/lifeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void rc_lifeline_init(struct rc_lifeline *line)
{
    memset(line, 0, sizeof(*line));
    line->fd = line->spare = -1;
}

/* The same file once more, with a description of its own. By its name only where there is no /proc:
   the name may have been taken away, and given to another file. */
static int open_again(int file, const char *path)
{
    char link[32];
    struct stat wanted, found;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    int fd = open(link, O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    fd = shm_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (fstat(file, &wanted) == 0 && fstat(fd, &found) == 0 && wanted.st_dev == found.st_dev &&
        wanted.st_ino == found.st_ino)
        return fd;
    close(fd);
    return -1;
}

/* F_OFD_*: 0, or -1 with errno. */
static int ask(int fd, int command, short type, uint32_t slot, short *found)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
    int error;
    do {
        error = fcntl(fd, command, &lock);
    } while (error != 0 && errno == EINTR);
    if (found != NULL)
        *found = lock.l_type;
    return error;
}

static void set_mine(struct rc_lifeline *line, uint32_t slot, bool is_mine)
{
    uint64_t bit = UINT64_C(1) << slot % 64;
    line->mine[slot / 64] = is_mine ? line->mine[slot / 64] | bit : line->mine[slot / 64] & ~bit;
}

static bool is_mine(const struct rc_lifeline *line, uint32_t slot)
{
    return (line->mine[slot / 64] >> slot % 64 & 1) != 0;
}

bool rc_lifeline_open(struct rc_lifeline *line, int file, const char *path)
{
    short found;
    rc_lifeline_init(line);
    snprintf(line->path, sizeof(line->path), "%s", path);
    line->fd = open_again(file, path);
    line->pid = (int32_t)getpid();
    if (line->fd >= 0 && ask(line->fd, F_OFD_GETLK, F_WRLCK, 0, &found) == 0)
        return true;
    rc_lifeline_close(line);
    return false;
}

void rc_lifeline_close(struct rc_lifeline *line)
{
    if (line->fd >= 0)
        close(line->fd);
    rc_lifeline_init(line);
}

/* The parent keeps its locks: it has a descriptor of them, too. */
static void replace(struct rc_lifeline *line, int fd)
{
    close(line->fd);
    line->fd = fd;
    line->pid = (int32_t)getpid();
    memset(line->mine, 0, sizeof(line->mine));
}

bool rc_lifeline_renew(struct rc_lifeline *line)
{
    if (line->fd < 0)
        return false;
    if (line->pid == (int32_t)getpid())
        return true;
    int fd = open_again(line->fd, line->path);
    if (fd < 0)
        return false;
    replace(line, fd);
    return true;
}

bool rc_lifeline_take(struct rc_lifeline *line, uint32_t slot)
{
    if (is_mine(line, slot) || ask(line->fd, F_OFD_SETLK, F_WRLCK, slot, NULL) != 0)
        return false;
    set_mine(line, slot, true);
    return true;
}

void rc_lifeline_give(struct rc_lifeline *line, uint32_t slot)
{
    if (!is_mine(line, slot))
        return;
    (void)ask(line->fd, F_OFD_SETLK, F_UNLCK, slot, NULL);
    set_mine(line, slot, false);
}

bool rc_lifeline_is_held(const struct rc_lifeline *line, uint32_t slot)
{
    short found;
    return is_mine(line, slot) || ask(line->fd, F_OFD_GETLK, F_WRLCK, slot, &found) != 0 ||
           found != F_UNLCK;
}

/* ---- fork ------------------------------------------------------------------------------------ */

void rc_lifeline_before_fork(struct rc_lifeline *line)
{
    if (line->fd >= 0 && line->spare < 0)
        line->spare = open_again(line->fd, line->path);
}

void rc_lifeline_after_fork(struct rc_lifeline *line)
{
    if (line->spare >= 0)
        close(line->spare);
    line->spare = -1;
}

void rc_lifeline_after_fork_in_child(struct rc_lifeline *line)
{
    if (line->spare < 0)
        return; /* rc_lifeline_renew tries again */
    replace(line, line->spare);
    line->spare = -1;
}
