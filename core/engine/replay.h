/*
 * replay - deletes of the last seconds, sent again after the server has lost them.
 *
 * What:    a failover may lose a delete that was acknowledged, and the old value would be back. The
 *          delete is sent again only where the server that has its key now is known not to be the
 *          one that acknowledged it, or has taken over other data (identity.h), and removes only a
 *          version that this engine saw before it asked for the delete: whatever else stands there
 *          was written since, and wins. What cannot be sent again is counted: `deletes_lost`. That
 *          is a key of which no version was seen; plain values, counters and locks have none. A
 *          mere end of the connection sends nothing.
 *          Each node has a replay. What is noted of a key lies with the node that has its slot,
 *          and is carried along when the slot goes to another one, where it is done again. That a
 *          slot has moved is no proof of a loss: only where the new owner was the old one's replica
 *          is what cannot be done again counted.
 * Threads: the engine's owner.
 * Memory:  a bounded number of copied keys, the oldest makes room; a table of versions seen, in
 *          which a newer key takes the place of an older one.
 * Errors:  none: without memory a delete is simply not noted.
 * Not:     promises nothing: it is a second attempt, within seconds. Does not know which node has a
 *          slot: the topology does, and the caller looks it up for each call here.
 */
#ifndef RC_REPLAY_H
#define RC_REPLAY_H

#include "base/hash.h"
#include "engine/identity.h"
#include "engine/link.h"

enum { RC_REPLAY_ENTRIES = 1024, RC_REPLAY_BYTES = 1024 * 1024, RC_REPLAY_SEEN = 4096 };

struct rc_replay_entry {
    struct rc_table_node node;
    struct rc_list place; /* in `noted`, oldest first; or `idle` */
    struct rc_buf key;
    char version[RC_NONCE_SIZE];
    bool is_known; /* version is what was seen before the acknowledged delete */
    char next[RC_NONCE_SIZE];
    bool has_next;        /* next is what was seen before those without an answer */
    bool is_acknowledged; /* at acked_us, by `server` */
    bool is_overruled; /* a write of ours was acknowledged since: what else stands there is right */
    bool is_unproven;  /* what had the key since `server` may have all that this one had */
    int32_t slot;      /* negative: not known yet, for there was but one node */
    uint32_t pending;  /* deletes of this key without an answer */
    struct rc_identity_mark server;
    struct rc_identity_mark asked; /* had the key when the first of those was asked for */
    int64_t acked_us;
    int64_t asked_us; /* the newest delete */
};

struct rc_replay_seen {
    uint64_t tag; /* of the key: a hash, and its slot in the last 16 bits; 0: none */
    char version[RC_NONCE_SIZE];
};

struct rc_replay {
    struct rc_context *context;
    struct rc_replay_entry *entries; /* RC_REPLAY_ENTRIES of them, made with the first delete */
    struct rc_replay_seen *seen;     /* RC_REPLAY_SEEN of them, made with the first version */
    struct rc_table by_key;
    struct rc_list noted;
    struct rc_list idle;
    size_t bytes;
    struct rc_identity server; /* of the last master that W was connected to */
    bool has_come;             /* notes have been carried here, and were not looked at since */
    /* Made room for others before their time was over: how many, and of the last when, and what an
       entry would say of it. */
    uint64_t squeezed;
    int64_t squeezed_us;
    struct rc_identity_mark squeezed_server;
    bool is_squeezed_unproven;
};

void rc_replay_init(struct rc_replay *replay, struct rc_context *context);
void rc_replay_deinit(struct rc_replay *replay);
/* The node stands for another server from now on. */
void rc_replay_forget(struct rc_replay *replay);

/* This version of the key stood in Redis just now: it was read, or written by us. */
void rc_replay_saw(struct rc_replay *replay, int32_t slot, const char *key, size_t len,
                   const char version[RC_NONCE_SIZE]);
/* A delete is about to be sent. `version`: of a copy of the key; NULL: there was none. */
void rc_replay_begin(struct rc_replay *replay, int32_t slot, const char *key, size_t len,
                     const char version[RC_NONCE_SIZE]);
/* It was acknowledged, or it failed. Once per begin. True: another server than this one may have
   acknowledged it, and rc_replay_send is to be called. */
bool rc_replay_end(struct rc_replay *replay, const char *key, size_t len, bool is_acknowledged);
/* A write of the key was acknowledged. An earlier delete stays noted, for a failover may lose both
   and bring back what was deleted; but it is no longer lost where anything else stands in the key.
   */
void rc_replay_overrule(struct rc_replay *replay, const char *key, size_t len);

/* W is ready, and link->identity known: what this server may have lost is done again. */
void rc_replay_send(struct rc_replay *replay, struct rc_link *link);

/* Whose a slot is. */
struct rc_replay_homes {
    void *owner;
    struct rc_replay *(*find)(void *owner, uint16_t slot);
};
/* Slots have left the node: what is noted and known of their keys goes where those are now. Marks
   each that gets notes with `has_come`. */
void rc_replay_carry(struct rc_replay *replay, const struct rc_replay_homes *homes);

/* The version that an acknowledged delete of the key was about; NULL: not known. */
const char *rc_replay_known(const struct rc_replay *replay, const char *key, size_t len);

#endif
