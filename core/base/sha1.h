/*
 * sha1 - the name EVALSHA knows a script by.
 *
 * What:    SHA-1 of a byte string as 40 lower-case hex digits.
 * Threads: pure.
 * Memory:  writes to the caller's 41 bytes.
 * Errors:  none.
 * Not:     not for anything that needs a secure hash.
 * Source:  FIPS 180-4.
 */
#ifndef RC_SHA1_H
#define RC_SHA1_H

#include <stddef.h>

enum { RC_SHA_LEN = 40 }; /* hex digits */

void rc_sha1_hex(const void *bytes, size_t len, char hex[RC_SHA_LEN + 1]); /* NUL-ended */

#endif
