/*
 * lookup - a host name's addresses, looked up in a thread of its own.
 *
 * What:    getaddrinfo() blocks, for many seconds where a name server is away. libuv's thread pool
 *          is no place for it: it is shared with the host program, and once there is one, exit()
 *          crashes in a child of fork() that does not use libuv (libuv 1.44.2).
 * Threads: one starts, asks and takes or abandons; the lookup's own thread ends by itself,
 *          whenever.
 * Memory:  the taker frees the lookup, or its thread does where it was abandoned.
 * Errors:  RC_ERR_NOMEM when the thread cannot be made; a name without addresses is told by take.
 * Not:     caches nothing, and cannot be hurried: an abandoned lookup goes on until the resolver
 *          gives up.
 */
#ifndef RC_LOOKUP_H
#define RC_LOOKUP_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

struct rc_lookup;

/* An address written in digits: no thread needed. NULL: it is a name. For freeaddrinfo. */
struct addrinfo *rc_lookup_digits(const char *host, uint16_t port);

/* `wake` is called once, from the lookup's thread, unless it is abandoned first; it must not block
   and must not call back (it runs under the lookup's mutex, so that abandoning it is final). */
int rc_lookup_start(struct rc_lookup **lookup, const char *host, uint16_t port,
                    void (*wake)(void *argument), void *argument);
bool rc_lookup_is_done(struct rc_lookup *lookup);
/* Of a lookup that is done: its addresses (for freeaddrinfo), or NULL and the reason as static
   text. Frees the lookup. */
struct addrinfo *rc_lookup_take(struct rc_lookup *lookup, const char **why);
void rc_lookup_abandon(struct rc_lookup *lookup);

#endif
