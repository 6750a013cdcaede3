/*
 * entry - what redcache stores under a key: a header of 24 bytes, then the payload.
 *
 * What:    writes headers; reads any string from Redis as an entry.
 *
 *          0      1        2     3      4      5  6      8       16        20
 *          magic  version  kind  codec  flags  -  schema nonce   stale_ms  load_ms   payload ...
 *
 *          Numbers are little-endian. The magic is no valid first byte of UTF-8, so text is never
 *          taken for an entry. The nonce is random per store and so the value's version. A lease is
 *          a header alone; its nonce is the token. An error marker carries the token of the lease
 *          that failed and the error's text.
 * Threads: pure.
 * Memory:  reads in place: a result points into the string.
 * Errors:  none: a string that is no entry is a plain value of somebody else.
 * Not:     does not decode payloads: a serializer does.
 */
#ifndef RC_ENTRY_H
#define RC_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "redcache.h"

enum {
    RC_ENTRY_SIZE = RC_HEADER_SIZE,
    RC_NONCE_SIZE = 8,
    RC_ENTRY_MAGIC = RC_HEADER_BYTE,
    RC_ENTRY_VERSION = 1,
    RC_ENTRY_STICKY = 0x80 /* flag of an error marker that anybody takes for an error (errorTtl) */
};

/* Where the version, the nonce, stands in a header. */
static inline const char *rc_entry_version(const char header[RC_ENTRY_SIZE])
{
    return header + 8;
}

void rc_entry_write(char header[RC_ENTRY_SIZE], const rc_entry *entry, const char *nonce);
void rc_entry_write_kind(char header[RC_ENTRY_SIZE], uint8_t kind, uint8_t flags,
                         const char *nonce);

/* Kinds that callers see as "nothing there": no entry, a load under way, a load that failed. */
static inline bool rc_entry_is_absent(uint8_t kind)
{
    return kind == RC_KIND_NONE || kind == RC_KIND_LEASE || kind == RC_KIND_ERROR;
}

/* A stored string whose payload is over the limit: the client was told not to handle such. */
static inline bool rc_entry_is_too_large(size_t len, int64_t max_value_bytes)
{
    return len > (size_t)max_value_bytes + RC_ENTRY_SIZE;
}

/* Until when a copy of an entry may be kept that was asked for at `sent_us`, together with its
   PTTL: not after its soft expiry; one with RC_ENTRY_EXTRA to its end, for its readers judge it.
   0: not at all; INT64_MAX: it has no end. */
int64_t rc_entry_deadline(const rc_result *entry, int64_t sent_us);

/* RC_KIND_* as the header says it, or 0 for what is no entry of this version. A lease and an error
   marker count only in the exact form that rc_entry_write_kind gives them: a foreign string that
   merely begins like one must not make a reader wait or lose its value. */
uint8_t rc_entry_form(const char *bytes, size_t len);

/* Fills kind, codec, entry_flags, schema, stale_ms, load_ms, version, data and len of `result`.
   `bytes` NULL: no entry. data points into `bytes`. */
void rc_entry_read(rc_result *result, const char *bytes, size_t len);
/* The same and ttl_ms, where a script has asked for both in one step (-1 none, -2 not known):
   leases and markers always expire, so what has their form and does not is somebody's plain value.
   GET and PTTL in one write are two steps: the -1 may be about the value that came behind the
   lease. */
void rc_entry_read_with_ttl(rc_result *result, const char *bytes, size_t len, int64_t ttl_ms);

enum { RC_IDENTITY_SIZE = 40 };
/* What tells one stored string from another: its nonce, or the SHA-1 of the whole where it has
   none. The scripts reckon it in the same way. Returns its length, RC_IDENTITY_SIZE at most. */
size_t rc_entry_identity(char identity[RC_IDENTITY_SIZE], const char *bytes, size_t len);

#endif
