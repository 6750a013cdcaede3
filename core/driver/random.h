/*
 * random - secret bytes from the system, for seeds.
 *
 * Threads: any.
 * Errors:  RC_ERR_UNAVAILABLE when the system gives none.
 */
#ifndef RC_RANDOM_H
#define RC_RANDOM_H

#include <stddef.h>

int rc_random_bytes(void *bytes, size_t len);

#endif
