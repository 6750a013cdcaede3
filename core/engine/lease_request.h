/*
 * lease_request - what the lease protocol writes.
 *
 * What:    encodes the requests of flights and of the ops that end a load; lease.c decides when.
 * Threads: rc_lease_encode_end in the caller's thread, the rest as the engine's owner.
 * Memory:  appends to the given buf.
 * Errors:  RC_ERR_NOMEM; the buf must be cleared then.
 * Not:     sends nothing.
 */
#ifndef RC_LEASE_REQUEST_H
#define RC_LEASE_REQUEST_H

#include "engine/flight.h"
#include "engine/script.h"

/* The string that stands in a leased key. */
void rc_lease_write(char lease[RC_ENTRY_SIZE], const char *token);
/* Refresh, put: the second key, in the slot of the first. */
int rc_lease_helper_key(struct rc_buf *out, enum rc_purpose purpose, const char *key, size_t len);

/* Value or lease for the oldest waiting op, by the script of the flight's purpose. */
int rc_lease_encode_acquire(struct rc_flight *flight, struct rc_buf *out);
/* The same by SET NX GET: cheap, but it tells nothing of a running load. */
int rc_lease_encode_set(struct rc_flight *flight, struct rc_buf *out);

/* How near its end a value is whose place the lease of its refresh or put takes. */
int64_t rc_lease_margin_ms(const struct rc_flight *flight);
/* The heartbeat of a refresh or put that has a leader: RC_SCRIPT_COVER. */
int rc_lease_encode_cover(struct rc_flight *flight, struct rc_buf *out);

/* RELEASE, PUT_RESTORE or, with a ttl_ms, HEARTBEAT for every key that can hold the lease: the
   value key of a load, the helper key and the value key of a refresh or put. */
int rc_lease_encode_keys(struct rc_buf *out, enum rc_script script, enum rc_purpose purpose,
                         const struct rc_buf *helper, const char *key, size_t len,
                         const char *token, int64_t ttl_ms);
enum rc_script rc_lease_release_script(enum rc_purpose purpose, uint32_t flags);

/* How the load that `op` leads is ended. */
enum rc_script rc_lease_end_script(const struct rc_op *op);
/* Encodes the request that ends it, by op->kind, into op->request. The stored string is `head` and
   `tail` joined. ttl_ms as for rc_publish; RC_OP_FAIL: life of the marker; RC_OP_RELEASE: not
   used. Where no value goes to Redis, op->request holds the bytes that waiting ops share, and
   rc_lease_encode_release makes the request. */
int rc_lease_encode_end(struct rc_op *op, const char *head, size_t head_len, const char *tail,
                        size_t tail_len, int64_t ttl_ms);
int rc_lease_encode_release(struct rc_op *op, struct rc_buf *out);

#endif
