#include "driver/descriptor.h"

#include <string.h>
#include <sys/socket.h>

/* -1: there is no such option here. */
static int option_of(int fd, int option)
{
    int value = 0;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

static uint64_t bit_of(int fd)
{
    return (uint64_t)1 << (fd % 64);
}

void rc_descriptor_begin(struct rc_descriptor_search *search)
{
    memset(search, 0, sizeof *search);
    for (int fd = 0; fd < RC_DESCRIPTORS_MAX; fd++) {
        if (option_of(fd, SO_TYPE) == SOCK_STREAM && option_of(fd, SO_KEEPALIVE) == 0)
            search->left[fd / 64] |= bit_of(fd);
    }
}

void rc_descriptor_follow(struct rc_descriptor_search *search, bool is_on)
{
    for (int fd = 0; fd < RC_DESCRIPTORS_MAX; fd++) {
        if (!(search->left[fd / 64] & bit_of(fd)))
            continue;
        int value = option_of(fd, SO_KEEPALIVE);
        if (value < 0 || (value != 0) != is_on)
            search->left[fd / 64] &= ~bit_of(fd);
    }
}

int rc_descriptor_found(const struct rc_descriptor_search *search)
{
    int found = -1;
    for (int fd = 0; fd < RC_DESCRIPTORS_MAX; fd++) {
        if (!(search->left[fd / 64] & bit_of(fd)))
            continue;
        if (found >= 0)
            return -1;
        found = fd;
    }
    return found;
}
