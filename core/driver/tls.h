/*
 * tls - one connection's encryption, between the link's bytes and the socket's.
 *
 * What:    OpenSSL on memory: the driver moves the bytes. The server's certificate must be valid
 *          for the given name, or else the host of the URL, and signed by the given CA, or by one
 *          the system trusts. A server that asks for one gets ours.
 * Threads: the engine's owner.
 * Memory:  a context belongs to its driver and outlives its connections.
 * Errors:  RC_ERR_*; rc_tls_error tells why in words.
 * Not:     no sockets, no session resumption, no client that goes on without a certificate it
 *          trusts.
 * Source:  RFC 8446, RFC 6125 (host names); TLS 1.2 is the least that is accepted.
 */
#ifndef RC_TLS_H
#define RC_TLS_H

#include <stddef.h>

#include "base/buf.h"

struct rc_tls;
struct rc_tls_context;

/* Who is trusted, and who we are. Strings are NUL-ended; NULL is none. */
struct rc_tls_files {
    const char *ca;   /* NULL: the system's */
    const char *cert; /* of ours, and the chain behind it */
    const char *key;
    const char *name; /* that the server must have, and is told, in place of its host's */
};

/* Which of the files is at fault, or that OpenSSL is. */
enum rc_tls_fault {
    RC_TLS_NO_FAULT,
    RC_TLS_NO_LIBRARY,
    RC_TLS_BAD_CA,
    RC_TLS_BAD_CERT,
    RC_TLS_BAD_KEY
};

/* Loads OpenSSL where nothing has yet. RC_ERR_ARGUMENT: `fault` says which file, `why` (a static
   text) what is wrong with it. */
int rc_tls_context_new(struct rc_tls_context **context, const struct rc_tls_files *files,
                       enum rc_tls_fault *fault, const char **why);
void rc_tls_context_free(struct rc_tls_context *context); /* NULL: nothing */

/* NULL: no memory. `host` counts where the context has no name. */
struct rc_tls *rc_tls_new(struct rc_tls_context *context, const char *host);
void rc_tls_free(struct rc_tls *tls); /* NULL: nothing */

/* Encrypts; returns how many bytes were taken (0: the handshake is not over), or RC_ERR_*. */
long rc_tls_write(struct rc_tls *tls, const char *bytes, size_t len);
/* What is to be sent over the socket; the caller consumes it. */
struct rc_buf *rc_tls_output(struct rc_tls *tls);
/* Bytes from the socket, all of them taken. */
int rc_tls_feed(struct rc_tls *tls, const char *bytes, size_t len);
/* Decrypted bytes; 0: none for now; RC_ERR_*. */
long rc_tls_read(struct rc_tls *tls, char *bytes, size_t room);
const char *rc_tls_error(const struct rc_tls *tls);

#endif
