/*
 * near - the near cache: entries of Redis in this machine's memory, shared by its processes.
 *
 * What:    a hash table with S3-FIFO eviction in one mapping. Readers take no mutex: they copy
 *          under a bucket's version and look again (seqlock). Writers take the mutex of a stripe.
 *          An entry is served only while its owner, the tracked connection that read it, is
 *          known coherent:
 *
 *              stamp of the entry == stamp of the owner,  now < deadline,  now - asof <= max_stale
 *
 * Threads: every call from any thread of any process that maps the region, except where a group of
 *          functions says otherwise.
 * Memory:  a region outlives any single process; offsets instead of pointers inside it. A struct
 *          rc_near is one process's mapping of it, and is inherited by fork().
 * Errors:  RC_ERR_NOMEM, RC_ERR_ARGUMENT with a static text. A fill that finds no room is no error.
 * Not:     no I/O, and no knowledge of Redis but what an entry's header means.
 * Source:  Yang et al.: FIFO queues are all you need for cache eviction, SOSP 2023 (S3-FIFO);
 *          Boehm: Can seqlocks get along with programming language memory models?, MSPC 2012.
 */
#ifndef RC_NEAR_H
#define RC_NEAR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slot.h"
#include "redcache.h"

enum {
    RC_NEAR_MAX_KEY = 1024, /* longer keys are not kept near */
    RC_NEAR_OWNERS = 1024,  /* tracked connections per region */
    /* The stamp of what was written here while Redis was away. It has epoch 0, which no owner has
       once it was used: so nobody ever vouches for it. Its version begins with the count of
       returns. */
    RC_NEAR_LOCAL_STAMP = RC_NEAR_OWNERS - 1,
    RC_NEAR_GROUPS = 64, /* namespaces with bounds of their own, and 0 for all others */
    RC_NEAR_MIN_BYTES = 64 * 1024
};

struct rc_near;
struct rc_near_owner;
struct rc_mix_seed;

struct rc_near_options {
    size_t bytes;     /* of the whole region, everything included */
    const char *name; /* NULL: anonymous, shared by fork() alone */
    size_t name_len;  /* letters, digits and ._- only, at most 200 */
    uint64_t server;  /* names what the keys belong to (server and database) and */
    uint64_t user;    /* who reads them: a region by that name that was made for another server,
                         database or user of Redis is refused */
    uint32_t stripes; /* power of two; 0: one per 4 MiB, at most 64 */
    /* Of the hash: for who wants the same run again. NULL: random. */
    const struct rc_mix_seed *seed;
    /* In microseconds, outlives the near cache, and is the same for all who map the region. NULL:
       the machine's monotonic clock. */
    const _Atomic int64_t *clock;
};

/* Maps a region, made by the first. A named one of another version, size, server or user is refused
   (RC_ERR_ARGUMENT); `why` is a static text. */
int rc_near_open(struct rc_near **near, const struct rc_near_options *options, const char **why);
/* One more rc_near_close is wanted. */
void rc_near_ref(struct rc_near *near);
void rc_near_close(struct rc_near *near); /* owners of this process have been removed */
/* Around each fork() while the region is open: the child holds its slots by itself. */
void rc_near_before_fork(struct rc_near *near);
void rc_near_after_fork(struct rc_near *near);
void rc_near_after_fork_in_child(struct rc_near *near);
/* Removes the name of a shared region; processes that have it mapped keep it. */
int rc_near_unlink(const char *name, size_t name_len);

uint64_t rc_near_hash(const struct rc_near *near, const char *key, size_t len);
/* The machine's monotonic clock, in microseconds. */
int64_t rc_near_now_us(void);

/* ---- owners: tracked connections ------------------------------------------------------------- */

/* Takes a slot of this process; slots of processes that are gone are taken over. NULL: none is
   free, this process cannot have one (region.h), or others are at it for longer than is waited for:
   a second once, 5 ms from then on. `why` (NULL: not asked) is a static text then. Another time
   there may be one. */
struct rc_near_owner *rc_near_add_owner(struct rc_near *near, const char **why);
/* Nothing it filled is coherent any more; the slot is free. */
void rc_near_remove_owner(struct rc_near *near, struct rc_near_owner *owner);
/* A new epoch: nothing it filled up to now is coherent any more. */
void rc_near_renew_owner(struct rc_near_owner *owner);
/* Everything it filled was current at that time (monotonic, microseconds). Never goes back. */
void rc_near_set_asof(struct rc_near_owner *owner, int64_t asof_us);
int64_t rc_near_asof(const struct rc_near_owner *owner);
/* When something of this owner was last read, 0: never; and the smallest max_stale_us of those
   reads since rc_near_forget_need. Both within an eighth of that max_stale_us. */
int64_t rc_near_read_us(const struct rc_near_owner *owner);
int64_t rc_near_need_us(const struct rc_near_owner *owner); /* INT64_MAX: nobody has read */
void rc_near_forget_need(struct rc_near_owner *owner);

/* Of several servers' owners in one region: which of them it reads. The same number in every
   process; 0: there is but one. */
void rc_near_name_owner(struct rc_near_owner *owner, uint64_t server);
/* What processes that read the same server tell each other about it, so that each need not ask: a
   number that stands for what was so at that time (microseconds). Only the last is kept. */
void rc_near_note(struct rc_near_owner *owner, uint64_t note, int64_t at_us);
/* The latest time for which any process has noted that of the server; 0: none. */
int64_t rc_near_noted_us(const struct rc_near *near, uint64_t server, uint64_t note);

/* Handing over: a connection that is about to end offers what it has read to those that stay. One
   of them takes the offer, confirms each entry over its own connection (below), and ends the
   offer. */
void rc_near_offer(struct rc_near *near, struct rc_near_owner *owner);
/* How many were ever made: whether it is worth looking for one. */
uint32_t rc_near_offers(const struct rc_near *near);
/* Of somebody else who still lives and reads the same server; NULL: none that nobody has taken. */
struct rc_near_owner *rc_near_take_offer(struct rc_near *near, const struct rc_near_owner *taker);
/* The taker cannot go on: somebody else may take it. */
void rc_near_return_offer(struct rc_near *near, struct rc_near_owner *owner);
void rc_near_end_offer(struct rc_near_owner *owner);
bool rc_near_is_offer_ended(const struct rc_near_owner *owner);

/* ---- writing --------------------------------------------------------------------------------- */

enum rc_near_cause {
    RC_NEAR_PUSH,  /* Redis says it changed */
    RC_NEAR_WRITE, /* this machine writes it: fills that are under way are void, too */
    RC_NEAR_UNKEPT /* an answer was handed out and not kept: the same, but nobody has written */
};

/* How often keys like this one were dropped but by RC_NEAR_PUSH, or had an answer offered by
   rc_near_fill. Read before a request is sent. */
uint32_t rc_near_write_version(const struct rc_near *near, uint64_t hash);

/* What a fill stores. Everything is copied. */
struct rc_near_entry {
    uint64_t hash;
    const char *key;
    size_t key_len;
    const char *value; /* the payload */
    size_t value_len;
    uint8_t kind; /* RC_KIND_VALUE, RC_KIND_NEGATIVE, RC_KIND_PLAIN */
    uint8_t codec;
    uint8_t entry_flags;
    uint8_t group;       /* of rc_near_group */
    char version[8];     /* of the value; any for RC_KIND_PLAIN: the region gives it one */
    int64_t deadline_us; /* not served from then on; INT64_MAX: no end */
};

/* Stores what the owner has just read, in the place of what stood there, under the owner's stamp of
   this moment. Returns whether it did. It does not where a write of this machine has moved the
   key's version since `write_version` was read (a doom: what stands there goes, too, unless it is
   the same), where the value is over already, or where there is no room (a refusal). */
bool rc_near_fill(struct rc_near *near, const struct rc_near_owner *owner,
                  const struct rc_near_entry *entry, uint32_t write_version);
/* Whether the key of that hash is to be left out for now, because it has changed more often than
   its copies were read (avoid.h). Counts and notes that it is. */
bool rc_near_avoids(struct rc_near *near, uint64_t hash);
/* Counts an answer that was not stored because the engine saw the key of that hash change. */
void rc_near_count_doom(struct rc_near *near, uint64_t hash);
/* The key's entry is gone when this returns, and remembered by the ghost queue. */
void rc_near_drop(struct rc_near *near, const char *key, size_t len, enum rc_near_cause cause);
/* The same by RC_NEAR_WRITE. True: a copy with a version stood there, and `version` is that. */
bool rc_near_drop_known(struct rc_near *near, const char *key, size_t len, char version[8]);

/* ---- while Redis is away (near_local.c) ------------------------------------------------------ */

/* What was written while Redis could not be reached: an entry that no owner vouches for, found as
   RC_NEAR_LOCAL until Redis is there again, and the promise that the key is deleted in Redis before
   anything else is asked of it. What stands in an entry's `version` is overwritten. 0;
   1: it is promised, and no copy stands here, for there was no room; RC_ERR_OVERLOAD, nothing has
   changed: there is no room for one more promise; RC_ERR_UNAVAILABLE, as well: the server is a
   cluster, or nobody has reached it yet, or the key is too long. An entry of RC_KIND_NONE says that
   the key was deleted. */
int rc_near_write_local(struct rc_near *near, struct rc_near_entry *entry);
/* What a load made without Redis: Redis is owed nothing for it. `mark`: of before the load; where
   the key was written here since, or Redis was there again, nothing is kept. Whether it is. */
uint64_t rc_near_local_mark(struct rc_near *near, uint64_t hash);
bool rc_near_keep_local(struct rc_near *near, struct rc_near_entry *entry, uint64_t mark);

/* Whether such an entry of the key stands here. */
bool rc_near_has_local(struct rc_near *near, const char *key, size_t len);

/* The server was reached, and is a single one, or one of a cluster. */
void rc_near_set_single(struct rc_near *near, bool is_single);
/* Redis can be reached again: local entries of before are void. */
void rc_near_count_return(struct rc_near *near);
/* Moves whenever a key is promised; nothing else in it means anything. */
const _Atomic uint64_t *rc_near_owed(const struct rc_near *near);
/* Copies promised keys from *at on into `into`, each behind its length (uint32_t); moves *at behind
   them. Returns how many bytes; 0: that was all. `room` is enough for one. */
size_t rc_near_read_owed(struct rc_near *near, uint64_t *at, char *into, size_t room);
/* Redis has deleted all that were promised up to there. */
void rc_near_pay(struct rc_near *near, uint64_t to);
bool rc_near_is_owed(const struct rc_near *near);

/* Tells those who listen, in any process, what has changed: behind the drop. A key with
   RC_TOLD_PUSH or RC_TOLD_WRITE; NULL with RC_TOLD_FLUSH or RC_TOLD_GAP (some of what changed was
   not heard). One load while nobody listens. */
void rc_near_tell(struct rc_near *near, int told, const char *key, size_t len);
/* Hears of what is told from now on; see ring.h. */
void rc_near_listen(struct rc_near *near, rc_listener *listener);
/* Comes by: whether rc_near_hear may have something to tell. */
bool rc_near_has_news(struct rc_near *near, rc_listener *listener);
/* The next that is told of a key with the prefix, which is left out, or of all: RC_TOLD_*. `key`
   has room for RC_NEAR_MAX_KEY bytes. */
int rc_near_hear(struct rc_near *near, rc_listener *listener, const char *prefix, size_t prefix_len,
                 char *key, size_t *len);

/* A namespace with bounds of its own: finds or makes the group of that prefix. min_bytes are kept
   for it while others press, max_bytes it never exceeds (0: none). Returns 0 where both are 0 or
   all groups are taken. */
uint8_t rc_near_group(struct rc_near *near, const char *prefix, size_t len, size_t min_bytes,
                      size_t max_bytes);

/* Removes entries whose time is over, from `cursor` on, looking at up to `buckets` of them. Returns
   where to go on; 0 after the end. */
uint32_t rc_near_sweep(struct rc_near *near, uint32_t cursor, uint32_t buckets);

/* Drops the entries of those slots, whichever owner has filled them, from `cursor` on, looking at
   up to `buckets` buckets. Returns where to go on; 0 after the end. */
uint32_t rc_near_drop_slots(struct rc_near *near, const struct rc_slot_set *slots, uint32_t cursor,
                            uint32_t buckets);

/* ---- revalidation after a reconnect, and handing over ---------------------------------------- */

/* One entry to be confirmed: of this owner, filled in an earlier epoch; or, with a `source`, filled
   by that other owner in its epoch of this moment. */
enum {
    RC_NEAR_CLAIMS = 128, /* room of an array of claims */
    RC_NEAR_ANY_HEAT = 4
};
struct rc_near_claim {
    uint32_t key_at; /* in the buffer of keys */
    uint32_t key_len;
    char version[8];
};

/* Tells up to RC_NEAR_CLAIMS such entries with a frequency of exactly `heat` (3, the hottest, to 0;
   RC_NEAR_ANY_HEAT), from
   `cursor` on and looking at up to `buckets` buckets; their keys are appended to `keys`. Plain
   values cannot be confirmed: nothing tells whether they changed. Those of the owner itself, and
   entries whose time is over, are dropped. Returns how many; `cursor` is 0 after the end. */
size_t rc_near_claims(struct rc_near *near, const struct rc_near_owner *owner,
                      const struct rc_near_owner *source, int heat, uint32_t *cursor,
                      uint32_t buckets, struct rc_near_claim *claims, struct rc_buf *keys);
/* The same value still stands in Redis: serves it as this owner's, until deadline_us, if it can
   still be claimed and has this version. */
bool rc_near_confirm(struct rc_near *near, const struct rc_near_owner *owner,
                     const struct rc_near_owner *source, const char *key, size_t len,
                     const char version[8], int64_t deadline_us);
/* Drops the key's entry if it can still be claimed. */
void rc_near_drop_claim(struct rc_near *near, const struct rc_near_owner *owner,
                        const struct rc_near_owner *source, const char *key, size_t len);

/* ---- reading --------------------------------------------------------------------------------- */

/* Looks the key up, whose prefix and rest are given apart, and copies it into value->buffer.
   Returns RC_NEAR_MISS, RC_NEAR_HIT, RC_NEAR_STALE (there, in time, but not known coherent within
   max_stale_us: the value is filled in all the same) or RC_NEAR_GROW: value->len bytes of room are
   needed. A hit fills value->handle. */
int rc_near_lookup(struct rc_near *near, const char *prefix, size_t prefix_len, const char *key,
                   size_t key_len, int64_t max_stale_us, rc_near_value *value);
/* rc_near_lookup as of a moment that rc_near_reader_us has told: one for many keys. */
int rc_near_lookup_at(struct rc_near *near, const char *prefix, size_t prefix_len, const char *key,
                      size_t key_len, int64_t now_us, int64_t max_stale_us, rc_near_value *value);
int64_t rc_near_reader_us(struct rc_near *near);

/* A key with its prefix, filled up with zeroes as it is in a block. */
struct rc_near_probe {
    uint64_t hash;
    size_t len;
    char bytes[RC_NEAR_MAX_KEY + 24];
};

/* What the keys of a namespace begin with. Lookups put the rest of each behind it: of one thread at
   a time. */
struct rc_near_prefix {
    /* Fixed after init. */
    size_t room; /* keys that are as long as that, or longer, are not kept near */
    size_t len;
    size_t whole; /* the length of its whole words, with which the probe begins; the rest of it: */
    uint64_t part;

    struct rc_near_probe probe;
};
void rc_near_prefix_init(struct rc_near_prefix *prefix, const char *bytes, size_t len);
/* rc_near_lookup and rc_near_lookup_at of a key with that prefix. */
int rc_near_get(struct rc_near *near, struct rc_near_prefix *prefix, const char *key,
                size_t key_len, int64_t max_stale_us, rc_near_value *value);
int rc_near_get_at(struct rc_near *near, struct rc_near_prefix *prefix, const char *key,
                   size_t key_len, int64_t now_us, int64_t max_stale_us, rc_near_value *value);

/* Where a key can be. Most keys are in the first bucket (index.h). */
struct rc_near_pair {
    struct rc_stripe *stripe; /* NULL: such a key is not kept near */
    struct rc_index_bucket *first;
};

/* rc_near_get_at in three steps, each of which asks memory for what the next one looks at: who
   takes each step for some keys before the next waits for all of them at once. */
struct rc_near_seek {
    struct rc_near_probe probe;
    struct rc_near_pair pair;
};
void rc_near_seek(struct rc_near *near, const struct rc_near_prefix *prefix, const char *key,
                  size_t key_len, struct rc_near_seek *seek);
void rc_near_seek_block(struct rc_near_seek *seek);
int rc_near_lookup_sought(struct rc_near *near, struct rc_near_seek *seek, int64_t now_us,
                          int64_t max_stale_us, rc_near_value *value);
/* Whether what the handle was filled for may still be served: same entry, coherent, in time. */
int rc_near_is_valid(struct rc_near *near, rc_near_handle *handle, int64_t max_stale_us);
/* The same as of a moment that rc_near_reader_us has told. */
int rc_near_is_valid_at(struct rc_near *near, rc_near_handle *handle, int64_t now_us,
                        int64_t max_stale_us);

/* What is known of the key, for people: the entry as it stands, and why it went last. */
void rc_near_explain(struct rc_near *near, const char *key, size_t len, rc_near_report *report);

/* How many hits a reader counts one of: RC_HOT_SAMPLE while rc_near_is_hot_asked. */
enum { RC_HOT_SELDOM = 8192 };
/* A hit of the key of that hash, which stands for so many, a multiple of RC_HOT_SAMPLE. */
void rc_near_count_hits(struct rc_near *near, uint64_t hash, uint32_t hits);
/* Whether anybody of any process has asked rc_near_hot in the last minute. */
bool rc_near_is_hot_asked(struct rc_near *near);
/* The keys with that prefix, which is left out, that are hit most and are here now, at most `max`,
   the hottest first. How many. */
uint32_t rc_near_hot(struct rc_near *near, const char *prefix, size_t prefix_len, rc_hot_key *keys,
                     uint32_t max);

/* For benches: whether a dropped key is remembered by the ghost queue. On. */
void rc_near_set_ghosts(struct rc_near *near, bool has_ghosts);

void rc_near_read_stats(struct rc_near *near, rc_near_stats *stats);

#endif
