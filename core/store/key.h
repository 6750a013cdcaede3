/*
 * key - the keys of all databases: found, written, expired, evicted.
 *
 * What:    every change tells whom it concerns: who tracks the name, and options.on_change.
 * Threads: the store's.
 * Memory:  owns names and values; copies what it is given. Room is made before a command runs
 *          (rc_key_make_room), never while it holds a key.
 * Errors:  RC_ERR_NOMEM, and then nothing was changed or told.
 * Not:     does not know who asks, nor for roles but in this: a replica expires nothing by itself.
 */
#ifndef RC_KEY_H
#define RC_KEY_H

#include "store/store_own.h"

/* The key, for a reader or writer: expires it when its time is over, and counts as a use of it.
   NULL: there is none. */
struct rc_key *rc_key_find(struct rc_store *store, uint32_t database, struct rc_text name);
/* Whatever its expiry, and it is no use of it. */
struct rc_key *rc_key_peek(const struct rc_store *store, uint32_t database, struct rc_text name);
bool rc_key_is_over(const struct rc_store *store, const struct rc_key *key);
/* Removes the key if its time is over, unless a replica has to wait for its master to say so. true:
   it is gone for all who ask. */
bool rc_key_expire(struct rc_store *store, struct rc_key *key);

/* Makes the key, or gives it another value and expiry. */
int rc_key_write(struct rc_store *store, uint32_t database, struct rc_text name,
                 struct rc_text value, int64_t expires_ms);
/* Puts bytes at an offset; zeros stand before it where there was nothing. */
int rc_key_splice(struct rc_store *store, struct rc_key *key, size_t offset, struct rc_text bytes);
void rc_key_set_expiry(struct rc_store *store, struct rc_key *key, int64_t expires_ms);
/* Value and expiry go to another name, whose key is gone. */
int rc_key_rename(struct rc_store *store, struct rc_key *key, struct rc_text name);
void rc_key_remove(struct rc_store *store, struct rc_key *key);
/* The session has read `name`, and tracks it: is told when it changes. */
void rc_key_track(struct rc_store *store, struct rc_session *session, struct rc_text name);
/* A key that is pinned is not evicted. Leases are pinned as they are written. */
void rc_key_pin(struct rc_store *store, struct rc_key *key, bool pinned);

/* Removes all keys of a database, of all with RC_STORE_DATABASES. */
void rc_key_flush(struct rc_store *store, uint32_t database);

/* Evicts until `more` bytes have room. false: they can never have it; nothing was evicted then. */
bool rc_key_make_room(struct rc_store *store, size_t more);
/* What a key costs, whatever the allocator says. */
size_t rc_key_cost(size_t name_len, size_t value_len);

/* The keys of a database one bucket after the other, as SCAN wants it: every key that is there from
   the first cursor 0 to the next is told, however the table grows. Keys whose time is over as well.
   Returns the next cursor. `tell` must not add keys; it may remove the one it is told. */
uint64_t rc_key_scan(const struct rc_store *store, uint64_t cursor, uint32_t database,
                     void (*tell)(void *owner, struct rc_key *key), void *owner);

#endif
