/*
 * script - the Lua scripts that run inside Redis: each one step of the lease or lock protocol, and
 * those that callers have defined.
 *
 * What:    sources and SHAs by number; writes EVALSHA requests and rewrites one as EVAL when Redis
 *          has forgotten the script.
 * Threads: rc_scripts_init once before everything else; the rest from any thread.
 * Memory:  a source stays for the life of the process, for a request may need it at any time;
 *          there are at most RC_SCRIPTS_MAX. Requests are appended to the given buf.
 * Errors:  RC_ERR_NOMEM; RC_ERR_OVERLOAD: there are too many scripts.
 * Not:     each of our own but PUBLISH_MANY has one value key, declares every key, and reads the
 *          value key first. Comments stay here: what is sent is only the source.
 */
#ifndef RC_SCRIPT_H
#define RC_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/sha1.h"

enum rc_script {
    /* K; lease, ttl, token of the lease waited for[, identity of a value that may be replaced]
       -> {1} acquired | {0, pttl, token} busy | {2,
       value, pttl} | {3, marker} the load waited for failed */
    RC_SCRIPT_ACQUIRE,
    /* K; lease, value, ttl or -1 -> 1 stored (a number alone is cheaper) | {0} lost | {2, value,
       pttl} lost, a newer value stands there */
    RC_SCRIPT_PUBLISH,
    /* keys...; lease -> how many keys held the lease (and are deleted now) */
    RC_SCRIPT_RELEASE,
    /* keys...; lease, ttl -> how many keys held the lease (and live ttl from now) */
    RC_SCRIPT_HEARTBEAT,
    /* K, R; nonce of the value seen, lease, ttl, margin -> {1, left} the refresh is ours | {0,
       pttl} somebody else's | {0} another value stands there. left: how long the value still lives,
       -1 for ever, or K holds the lease now: that of a value whose life ends within the margin
       does. */
    RC_SCRIPT_REFRESH,
    /* K, R; nonce of the value seen, lease, value, ttl or -1 -> as PUBLISH */
    RC_SCRIPT_REFRESH_PUBLISH,
    /* K, W; lease, ttl, margin -> {1, identity of what stands in K, left (as REFRESH)}
       | {0, pttl, token} busy. With a third key the old value is put aside there. */
    RC_SCRIPT_PUT,
    /* K, W; lease, value, ttl or -1, identity -> {1} | {0} lost. A third key is deleted. */
    RC_SCRIPT_PUT_PUBLISH,
    /* W, K, old; lease -> as RELEASE; a value put aside is back in K, unless K was written or
       deleted meanwhile */
    RC_SCRIPT_PUT_RESTORE,
    /* K; nonce -> 1 the value of that nonce stood there, and is deleted | 0 nothing stood there |
       -1 something else stands there */
    RC_SCRIPT_UNLINK_VERSION,
    /* K, helper; lease, ttl, identity of the value seen, margin, renew 0/1 -> {how many of the keys
       hold the lease, left (as REFRESH)}. The heartbeat of a refresh or put: where K's value is
       still the one seen and its life ends within the margin, the lease takes its place. */
    RC_SCRIPT_COVER,
    /* K, R; lease, error marker, its life, life of the helper key -> how many keys held the lease.
       R keeps the next refresh away, K tells those who wait, if it holds the lease. */
    RC_SCRIPT_REFRESH_FAIL,
    /* lock, fence, mark; token, ttl, force 0/1, life of the fence -> {1, fence} | {0} */
    RC_SCRIPT_LOCK,
    /* lock; token, ttl -> 1 | 0 */
    RC_SCRIPT_LOCK_RENEW,
    /* lock, mark; token -> 1 | 0 */
    RC_SCRIPT_LOCK_RELEASE,
    /* hold, fence, mark, queue, alone; token, ttl, 'w' or 'r', life of the fence, may wait 0/1
       -> {1, fence; 1 of a shared hold} | {0, how long what is in the way still lives}. Who may
       wait and has to stands in the queue, in its old place if it was there. */
    RC_SCRIPT_QUEUE_LOCK,
    /* hold, queue; token, ttl -> 1 | 0. Of a shared hold; who is alone renews as LOCK_RENEW. */
    RC_SCRIPT_QUEUE_RENEW,
    /* hold, mark, queue; token -> 1 | 0; the token's place in the queue is free */
    RC_SCRIPT_QUEUE_RELEASE,
    /* K...; lease, value, ttl or -1 of each -> for each '1' its lease stood there, and is the value
       now | '0' it did not: PUBLISH tells more. The one script of more value keys than one. */
    RC_SCRIPT_PUBLISH_MANY,
    RC_SCRIPT_COUNT
};

enum { RC_SCRIPTS_MAX = 1024 };

void rc_scripts_init(void);
/* The number of a source: the same for the same. Negative: an error. */
int rc_script_add(const char *source, size_t len);
/* Negative: there is none with this SHA, of RC_SHA_LEN digits in lower case. */
int rc_script_find(const char *sha);
bool rc_script_is_known(int script);
const char *rc_script_source(int script); /* NUL-ended */
const char *rc_script_sha(int script);    /* RC_SHA_LEN hex digits */

/* Starts a request; `key_count` keys and then `argument_count` arguments must follow. */
int rc_script_begin(struct rc_buf *out, int script, uint32_t key_count, uint32_t argument_count);
/* Appends to `out` the EVALSHA request `bytes` as EVAL with the source. */
int rc_script_as_eval(struct rc_buf *out, int script, const char *bytes, size_t len);

#endif
