/*
 * socket - one nonblocking stream socket.
 *
 * What:    connects; errors as texts for the link.
 * Threads: the owner of the descriptor.
 * Memory:  a file descriptor.
 * Errors:  -errno; rc_socket_error has words for it.
 * Not:     no DNS: addresses come resolved. Moves no bytes: wire_socket does.
 */
#ifndef RC_SOCKET_H
#define RC_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* A descriptor that is connecting or connected, or -errno. */
int rc_socket_connect(const struct sockaddr *address, socklen_t len);
int rc_socket_connect_unix(const char *path);
/* 0 when connected, or -errno: how a connect that was under way ended. */
int rc_socket_result(int fd);
enum { RC_SOCKET_EOF = -100000 }; /* in place of -errno: the peer has closed */
const char *rc_socket_error(long error, char *text, size_t size); /* for a link's cause */

#endif
