/*
 * socket - one nonblocking stream socket.
 *
 * What:    connect, send, receive, with errors as texts for the link.
 * Threads: the owner of the descriptor.
 * Memory:  a file descriptor.
 * Errors:  -errno, or RC_SOCKET_EOF where the peer has closed; rc_socket_error has words for both.
 * Not:     no DNS: addresses come resolved. SIGPIPE is never raised.
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
/* Bytes moved; 0: would block; negative: -errno, or RC_SOCKET_EOF. */
enum { RC_SOCKET_EOF = -100000 };
long rc_socket_send(int fd, const char *bytes, size_t len);
long rc_socket_receive(int fd, char *bytes, size_t room);
const char *rc_socket_error(long error, char *text, size_t size); /* for a link's cause */

#endif
