/*
 * redcache.h - the public C interface of redcache, and its manual.
 *
 * What:    a client is one engine: connections to one Redis, or to a store in this process, its
 *          operations, leases and locks. Any number of threads and Lua states may share a client.
 *          An operation slot (`rc_op`) is used by one caller at a time, again and again: fill and
 *          submit it with one of the rc_* calls, wait for it, read its result, use it for the next
 *          call.
 * Threads: every function may be called from any thread, but one `rc_op` or `rc_lock` only by one
 *          thread at a time (rc_lock_state, rc_lock_remaining and rc_cancel may be called by any
 *          thread at any time).
 * Memory:  keys and values are copied in. Results are read in place and stay valid until the slot
 *          is used again.
 * Errors:  functions return 0 or a negative RC_ERR_*; a call that fails at once changes nothing.
 *          What happens later is told by the result's status.
 * Not:     never calls the program back, prints, exits or sets errno.
 * Time:    milliseconds in int32_t or int64_t; rc_op_timeout sets the deadline of a slot's
 *          operations.
 */
#ifndef REDCACHE_H
#define REDCACHE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every incompatible change of the part below; lua/redcache/core/ffi.lua refuses
   any other number. */
#define RC_ABI 32

/* What is declared here is public; every other name of the library is hidden. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
/* clang-format off */
/* FFI begin: lua/redcache/core/cdef.lua repeats what stands between the marks; a spec compares. */
typedef struct rc_client rc_client;
typedef struct rc_op rc_op;
typedef struct rc_lock rc_lock;
typedef struct rc_lent rc_lent;
typedef struct rc_view rc_view;
typedef struct rc_met rc_met;
typedef struct rc_tags rc_tags;
typedef struct rc_clock rc_clock;
typedef struct rc_loop rc_loop;

/* Errors. A status of 0 is success. */
enum {
    RC_ERR_NOMEM = -1,       /* no memory */
    RC_ERR_TIMEOUT = -2,     /* the deadline passed first */
    RC_ERR_CANCELLED = -3,   /* rc_cancel() */
    RC_ERR_UNAVAILABLE = -4, /* no usable connection to Redis; data holds the cause */
    /* the connection broke after the request was sent: Redis may or may not have done it */
    RC_ERR_UNKNOWN = -5,
    RC_ERR_OVERLOAD = -6,    /* a bounded queue is full */
    RC_ERR_CLOSED = -7,      /* the client is closed */
    RC_ERR_REDIS = -8,       /* Redis answered with an error; data holds its text, with "?" for what
                                it may repeat of what was sent; of unknown texts the code word */
    RC_ERR_PROTOCOL = -9,    /* the answer was no RESP3, or not of the expected form */
    RC_ERR_TOOLARGE = -10,   /* key or value over its limit */
    RC_ERR_LOST = -11,       /* the lease, lock or lent connection was lost */
    RC_ERR_NOTHELD = -12,    /* the lock is not held by this handle */
    RC_ERR_BUSY = -13,       /* held by somebody else (a lock that did not come within its wait) */
    RC_ERR_ARGUMENT = -14,   /* the call's arguments or the slot's state do not fit */
    RC_ERR_FORKED = -15,     /* what it is about belongs to the parent process */
    RC_ERR_DESCRIPTORS = -16, /* this process may not open another descriptor (ulimit -n) */
    /* the command may not go over this connection: see rc_submit; data holds the reason */
    RC_ERR_REFUSED = -17
};

/* What an operation that succeeded (status 0) found or did. */
enum {
    RC_DONE = 0,    /* a command was answered: number, data or nodes */
    RC_HIT = 1,     /* data is the value's payload */
    RC_MISS = 2,    /* nothing there */
    /* rc_load: the caller holds the lease and must end it: rc_publish, rc_fail or rc_release */
    RC_LOAD = 3,
    /* rc_load: the load this caller waited for failed; data is the loader's error text */
    RC_FAILED = 4,
    RC_STORED = 5,  /* rc_publish: the value is in Redis */
    /* rc_publish: the lease was void or Redis away; nothing was stored. If `kind` is not
       RC_KIND_NONE, data is the newer value that stands in the key */
    RC_UNSTORED = 6,
    /* rc_load with RC_NO_WAIT: another caller loads the key */
    RC_BUSY = 7
};

/* What kind of entry a key holds. */
enum {
    RC_KIND_NONE = 0,     /* no entry */
    RC_KIND_VALUE = 1,
    RC_KIND_NEGATIVE = 2, /* "there is no such thing", remembered */
    RC_KIND_ERROR = 3,    /* marker of a failed load */
    RC_KIND_LEASE = 4,    /* somebody is loading */
    RC_KIND_PLAIN = 5,    /* a string without redcache's header */
    /* a header of a newer version, or a broken one: data is the whole string */
    RC_KIND_UNKNOWN = 6
};

enum {
    RC_HEADER_BYTE = 251, /* the first one of every entry with a header; no text begins so */
    RC_HEADER_SIZE = 24
};

/* rc_entry.codec: what wrote the payload. For Lua an id that it has no codec for is a miss, and it
   leaves the entry alone; only remember and writers replace it. */
enum {
    RC_CODEC_NONE = 0,    /* no payload (RC_KIND_NEGATIVE); a value of this id is a miss for Lua */
    RC_CODEC_RAW = 1,     /* "raw": the bytes are the value */
    RC_CODEC_JSON = 2,    /* "json" */
    RC_CODEC_MSGPACK = 3, /* "msgpack", Lua's default */
    RC_CODEC_CUSTOM = 64  /* to 255: the user's own */
};

/* Flags of a result. */
enum {
    RC_STALE = 1,     /* past its soft expiry; somebody else is loading a newer one */
    /* Redis is away or refused the lease: not stored, shared inside this process only */
    RC_DEGRADED = 2,
    RC_SHARED = 4,    /* loaded by another caller of this process while this one waited */
    /* with RC_LOAD: data is the stale value. Others read it, too, until just before its end: then
       the lease takes its place */
    RC_REFRESH = 8,
    /* rc_load, with RC_ERR_TIMEOUT: Redis has answered, and somebody else's load is not over */
    RC_WAITED = 16
};

/* Flags of requests. */
enum {
    /* rc_get, rc_load: read the remaining time to live too (one more command, same round trip) */
    RC_WANT_TTL = 1,
    RC_SCRIPT_FIRST = 2, /* rc_load: a miss is likely: ask for value or lease in one round trip */
    RC_RETRY = 4,        /* rc_command: safe to repeat after a broken connection */
    RC_STRICT = 8,       /* rc_load: RC_ERR_* instead of RC_LOAD | RC_DEGRADED when Redis is away */
    /* rc_load: take the write lease: waits for readers' loads, never hits, always RC_LOAD */
    RC_PUT = 16,
    RC_FORCE = 32,       /* rc_lock_acquire: take the lock over from its holder */
    RC_NO_RENEW = 64,    /* rc_load, rc_lock_acquire: no renewal */
    /* rc_load with RC_PUT: readers wait for the new value; the old one comes back if there is
       none */
    RC_HIDE_OLD = 256,
    /* rc_set, rc_publish: store the payload without a header, unless its first byte is
       RC_HEADER_BYTE: then it has one, and comes back as it went in (entry NULL: codec raw) */
    RC_PLAIN = 128,
    /* rc_view_read, rc_view_load: shares no answer to a request that was sent before this call */
    RC_FRESH = 512,
    /* rc_load, rc_view_load: the caller cannot read what this slot's last result has found, and
       wants it loaded again. The lease takes its place if it still stands there; anything else that
       stands there is a hit */
    RC_REPLACE = 1024,
    /* rc_get, rc_get_under, rc_begin (every command of the batch only reads): a replica may answer.
       Its answer is older than the master's by its replication lag, which has no bound. Where none
       answers within half of the time that is left, or with an error, the master is asked. rc_load:
       a value that a replica has is a hit; anything else it says is left to the master */
    RC_REPLICA = 2048,
    /* rc_load, rc_view_load: does not wait for another caller's load, but ends with RC_BUSY. The
       next rc_load in the same slot still hears how that very load has failed */
    RC_NO_WAIT = 4096,
    /* rc_load, rc_view_load: a value past its soft expiry is a hit with RC_STALE: this caller does
       not load it */
    RC_SERVE = 8192,
    /* rc_load, rc_view_load: the value of early_version is to be loaded again although it is not
       past its soft expiry: RC_LOAD with RC_REFRESH, as behind it. A hit where another value stands
       there by now, or where somebody else is loading it (RC_STALE) */
    RC_EARLY = 16384
};

/* Flags of an entry. What has one that a program does not know is a miss for it, which it leaves
   alone. */
enum {
    /* the payload begins with a block that tells more of the entry (lua/redcache/extra.lua); the
       near cache keeps such an entry past its soft expiry: its readers judge by the block */
    RC_ENTRY_EXTRA = 1,
    /* near copies alone, with RC_ENTRY_EXTRA: the copy ends with the view's ttl, in time; its
       deadline does not tell how long the entry lives */
    RC_ENTRY_CAPPED = 64
};

/* States of a lock handle. */
enum { RC_LOCK_FREE = 0, RC_LOCK_HELD = 1, RC_LOCK_LOST = 2 };

/* One element of an answer, depth first; an aggregate is followed by its `count` elements (a map
   has 2 per pair). */
typedef struct rc_node {
    int32_t type;    /* the RESP3 type byte: '+' '-' ':' '$' '*' '%' '~' '>' ',' '_' '#' '(' '=' */
    uint32_t count;  /* aggregates: number of elements */
    /* ':' and '#'; '-': 0 where Redis says so, else the RC_ERR_* of a command that has no answer
       although others of its batch have */
    int64_t integer;
    const char *str; /* strings, errors, doubles as text; NULL for others */
    size_t len;
} rc_node;

/* Client owned, valid until the slot's next use. */
typedef struct rc_result {
    int32_t status;    /* 0 or RC_ERR_* */
    int32_t outcome;   /* RC_HIT, RC_MISS, ... */
    uint32_t flags;    /* RC_STALE, ... */
    uint32_t nodes;    /* RC_DONE: number of elements of the flat answer */
    /* RC_DONE with an integer answer; rc_lock_acquire: the fence; rc_load with RC_EARLY that is
       RC_STALE: ms that the lease of who loads it lives unless it is renewed, 0: not known */
    int64_t number;
    int64_t ttl_ms;    /* remaining time to live; -1 none, -2 not known */
    const char *data;  /* payload or error text; not NUL-ended */
    size_t len;
    uint8_t kind;      /* RC_KIND_* of the entry in data */
    uint8_t codec;     /* entry header: id of the serializer */
    uint8_t entry_flags;
    uint8_t room_bits; /* the largest of the slot's buffers has at most 2^room_bits bytes of room */
    uint16_t schema;
    uint16_t reserved2;
    uint32_t stale_ms; /* entry header: stale while less than this is left to live */
    uint32_t load_ms;  /* entry header: how long the load took */
    char version[8];   /* entry header: the value's nonce */
    /* RC_DONE: the connection that has answered; the same number is the same connection, of this
       client. 0: it is not told (several have answered, or one that was lent) */
    uint64_t connection;
} rc_result;

/* The caller's part of an entry's header. */
typedef struct rc_entry {
    uint8_t kind;      /* RC_KIND_VALUE or RC_KIND_NEGATIVE */
    uint8_t codec;
    uint8_t entry_flags;
    uint8_t reserved;
    uint16_t schema;
    uint16_t reserved2;
    uint32_t stale_ms;
    uint32_t load_ms;
} rc_entry;

/* How to reach Redis. Strings are (pointer, length) so that they may hold any byte; NULL or 0 takes
   the default. */
typedef struct rc_options {
    /* redis://[[user]:password@]host[:port][/db], the same with rediss:// for TLS,
       unix://[[user]:password@]/path[?db=n];
       redis://[[user]:password@]host[:port],host,...[/db], up to 15 nodes of one cluster, of which
       one that answers is enough (rediss:// as well);
       redis+sentinel://[[user]:password@]host[:26379],host,.../master[/db], the master of that name
       as more than half of these sentinels (at most 15) tell where it is, rediss+sentinel:// with
       TLS to the sentinels and the master, each certificate valid for the host that is connected
       to; or memory://[name], the default: a store in this
       process, one per name (letters, digits, "._-", at most 100) and clock. It is shared by all
       clients that open it, and gone when the last of them is closed. A child of fork() begins with
       empty stores, and without the near caches of its parent's clients of memory:// */
    const char *url;
    size_t url_len;
    const char *group;           /* clients of equal url, group and numbers are one client; "" */
    size_t group_len;
    const char *tls_ca;          /* file with the CA certificates for rediss://; the system's */
    size_t tls_ca_len;
    int32_t connect_timeout_ms;  /* 1000: until the answer to the first PING */
    int32_t command_timeout_ms;  /* 500: default of rc_op_timeout */
    int64_t max_value_bytes;     /* 8 MiB: larger values are refused in both directions */
    int32_t max_key_bytes;       /* 65536 */
    int32_t max_queue;           /* 65536 requests waiting per connection, then RC_ERR_OVERLOAD */
    /* 1000: how long a value loaded while Redis is away is shared in this process */
    int32_t degraded_ttl_ms;
    /* 1 blocking callers may poll the socket for a moment before they sleep; -1 never */
    int32_t spin;
    /* 1: with a near cache of near_bytes (67108864; 65536 to 2^36), shared by fork(), or by all
       processes of this user that open one of this name (letters, digits, "._-", at most 200), in
       whatever container. A name is for one server, database and user of Redis: rc_open refuses
       another one. Who truncates its file, /dev/shm/redcache-NAME, kills all who have it open
       (SIGBUS); removing it harms nobody. The server keeps ttls by its wall clock, copies go by the
       monotonic clock of this machine: if the server's steps forward, a copy stays until Redis
       says that the key is gone, or for the rest of the ttl that it was read with; if it steps
       back, copies end first, and are read again. */
    int32_t near;
    int64_t near_bytes;
    const char *near_name;
    size_t near_name_len;
    /* memory:// only: bytes of all keys and values with what goes with them, then what was used
       longest ago is evicted. 67108864, or what the store's first client has asked for; anything
       else than that is refused */
    int64_t max_bytes;
    rc_clock *clock;             /* memory:// only: rc_clock_new's; the machine's */
    int32_t driver;              /* RC_DRIVER_*; a client with a host is never shared by rc_open */
    int32_t max_lent;            /* 16 lent connections at the same time: see rc_lent_borrow */
    const char *user;            /* as in the url, where it has none; without one "default" */
    size_t user_len;
    const char *password;
    size_t password_len;
    /* rediss:// only: files with our certificate (and those it needs, up to the CA's) and its key,
       without a passphrase, for servers that ask for one; and the name that the server's
       certificate must carry, and that the server is told (SNI), in place of the url's host */
    const char *tls_cert;
    size_t tls_cert_len;
    const char *tls_key;
    size_t tls_key_len;
    const char *tls_name;
    size_t tls_name_len;
    /* redis+sentinel:// only: who we are to the sentinels, which know nothing of the url's user. At
       most 127 and 511 bytes; a user needs a password; without a user it is the default one */
    const char *sentinel_user;
    size_t sentinel_user_len;
    const char *sentinel_password;
    size_t sentinel_password_len;
    int32_t auth;                /* 1: who we are is asked for, and changes: see rc_authenticate */
    int32_t tls;                 /* RC_TLS_BY_URL; RC_TLS_OFF: credentials may go in the clear */
    /* "host,host:port,10.0.1.*", at most 4096 bytes: replicas at these addresses (a "*" ends a
       beginning) are asked before others. As the cluster, the sentinels or the master name them */
    const char *zone;
    size_t zone_len;
    /* A circuit breaker per server; -1: none. It opens where `breaker_errors` per 1000 (500) of the
       last `breaker_window` (20; at most 200) requests failed, where half of them took longer than
       breaker_latency_ms (100; with 0 here 60000, so that none is slow), or where a request was not
       answered within command_timeout_ms and nothing else was either; then calls fail at once with
       RC_ERR_UNAVAILABLE. PINGs, one at a time, look after the server from breaker_wait_ms (250)
       on; breaker_probes (3) that are answered well close it */
    int32_t breaker;
    int32_t breaker_window;
    int32_t breaker_errors;
    int32_t breaker_latency_ms;
    int32_t breaker_wait_ms;
    int32_t breaker_probes;
} rc_options;

/* Where credentials change, they go to a host that is not this machine over TLS alone, unless
   options.tls says that they need not. */
enum { RC_TLS_BY_URL = 0, RC_TLS_OFF = 1 };

/* Who moves the bytes of a client. With a host all of its calls are for one thread, and rc_wait is
   not for RC_DRIVER_HOST. */
enum {
    RC_DRIVER_REACTOR = 0, /* the callers that wait, and a thread of the client */
    RC_DRIVER_POLL = 1,    /* a host's loop, which watches one descriptor: rc_loop_fd */
    RC_DRIVER_HOST = 2     /* a host's loop, which owns the connections: rc_host_* */
};

/* What rc_open may refuse. */
enum {
    RC_OPTION_NONE = 0, /* no option's fault: memory has run out */
    RC_OPTION_URL = 1,
    RC_OPTION_TLS_CA = 2,
    RC_OPTION_CONNECT_TIMEOUT = 3,
    RC_OPTION_COMMAND_TIMEOUT = 4,
    RC_OPTION_MAX_VALUE = 5,
    RC_OPTION_MAX_KEY = 6,
    RC_OPTION_MAX_QUEUE = 7,
    RC_OPTION_DEGRADED_TTL = 8,
    RC_OPTION_SPIN = 9,
    RC_OPTION_NEAR_BYTES = 10, /* and whatever hinders a near cache of that size and name */
    RC_OPTION_NEAR_NAME = 11,
    RC_OPTION_MAX_BYTES = 12,
    RC_OPTION_CLOCK = 13,
    RC_OPTION_DRIVER = 14,
    RC_OPTION_MAX_LENT = 15,
    RC_OPTION_USER = 16,
    RC_OPTION_PASSWORD = 17,
    RC_OPTION_TLS_CERT = 18,
    RC_OPTION_TLS_KEY = 19,
    RC_OPTION_TLS_NAME = 20,
    RC_OPTION_SENTINEL_USER = 21,
    RC_OPTION_SENTINEL_PASSWORD = 22,
    RC_OPTION_AUTH = 23,
    RC_OPTION_TLS = 24,
    RC_OPTION_ZONE = 25,
    RC_OPTION_BREAKER = 26,
    RC_OPTION_BREAKER_WINDOW = 27,
    RC_OPTION_BREAKER_ERRORS = 28,
    RC_OPTION_BREAKER_LATENCY = 29,
    RC_OPTION_BREAKER_WAIT = 30,
    RC_OPTION_BREAKER_PROBES = 31
};
typedef struct rc_refusal {
    int32_t option;    /* RC_OPTION_* */
    const char *text;  /* static: what is wrong with it, as in "it is out of range" */
} rc_refusal;

/* rc_load's numbers. */
typedef struct rc_load_options {
    uint32_t flags;
    int32_t lease_ttl_ms;    /* life of the lease without a heartbeat */
    int32_t max_load_ms;     /* heartbeats end after this */
    int32_t wait_timeout_ms; /* until the result; includes waiting for somebody else's load */
    char early_version[4];   /* RC_EARLY: how the version of the value begins */
} rc_load_options;

/* rc_lock_acquire's numbers. */
typedef struct rc_lock_options {
    uint32_t flags;
    int32_t ttl_ms;      /* life of the lock without renewal */
    int32_t wait_ms;     /* 0: one try */
    int32_t max_hold_ms; /* renewals end after this; 0: never */
} rc_lock_options;

/* The near cache: entries in this machine's memory, kept coherent by client tracking. */
enum {
    RC_NEAR_MISS = 0,
    RC_NEAR_HIT = 1,
    RC_NEAR_STALE = 2, /* there, in time, but not known coherent within the asked max_stale_us */
    RC_NEAR_GROW = 3,  /* the buffer is too small: len bytes are needed */
    /* There, in time, and written on this machine while Redis was away (rc_view_write). Kind
       RC_KIND_NONE: deleted then */
    RC_NEAR_LOCAL = 4
};

/* Names one version of an entry; opaque but for `used`, and for what a caller puts into a handle
   that it keeps (block and is_capped; NULL and 0 in one that was just filled). Valid as long as the
   view it came from. 64 bytes, of which a check mostly needs the first 24. */
typedef struct rc_near_handle {
    const void *changes;
    int64_t deadline_us;
    uint32_t seen_changes;
    uint32_t stamp;
    void *bucket;
    uint64_t hash;
    uint32_t version;
    uint32_t bucket_version;
    uint32_t ref;
    uint8_t slot;
    uint8_t generation;
    uint8_t used; /* set by every rc_view_check that said yes; the caller may clear it */
    uint8_t is_capped; /* of what has a block: entry_flags had RC_ENTRY_CAPPED */
    const char *block; /* the caller's copy of the block of an entry with one, kept with the handle;
                          NULL: rc_view_check does not look at it */
} rc_near_handle;

/* L0: where a caller that keeps decoded values finds the handle of each: by the address of its
   key's string. Equal strings at two addresses are two keys. Opaque but for `hits`: how often
   rc_l0_find has said RC_VIEW_SOUND; the caller may clear it. Of one thread. */
typedef struct rc_l0 {
    rc_view *view;
    rc_near_handle *const *handles;
    struct rc_l0_place *places;
    const char *changes;
    size_t stride;
    uint32_t shift;
    uint32_t room;
    uint32_t count;
    uint32_t reserved;
    uint64_t hits;
} rc_l0;

/* buffer and capacity are the caller's; data points into it: to the payload. Where rc_view_get has
   found the block of an entry sound (rc_view_judge), that is taken off: data points behind it,
   entry_flags is 0, and flags_taken is what it was; else block_len is 0. */
typedef struct rc_near_value {
    char *buffer;
    size_t capacity;
    const char *data;
    size_t len;
    uint8_t kind;     /* RC_KIND_VALUE, RC_KIND_NEGATIVE or RC_KIND_PLAIN */
    uint8_t codec;
    uint8_t entry_flags;
    uint8_t flags_taken;
    uint32_t block_len;
    int64_t asof_us;  /* up to when the connection that read it was known coherent */
    int64_t left_us;  /* until it ends, at the moment that the lookup went by */
    rc_near_handle handle;
} rc_near_value;

/* What rc_view_get_many goes by and gives: of one thread, and opaque to nobody. found[i].what:
   outcome | kind << 8 | codec << 16 | entry_flags << 24, the last three of RC_NEAR_HIT alone. Its
   payload, `len` bytes at bytes[at], has no block in front of it where rc_view_get takes that
   off. */
enum { RC_NEAR_MANY = 128, RC_NEAR_MANY_BYTES = 32768 };
typedef struct rc_near_many {
    const char *keys[RC_NEAR_MANY];
    uint32_t key_lens[RC_NEAR_MANY];
    struct {
        int32_t what;
        int32_t at;
        int32_t len;
    } found[RC_NEAR_MANY];
    char bytes[RC_NEAR_MANY_BYTES];
} rc_near_many;

/* What has changed, as far as it was heard: rc_view_listen. Nobody else's business. */
typedef struct rc_listener {
    uint64_t cursor;
    int64_t heard_us;
    int64_t stuck_us;
} rc_listener;
/* rc_near_report.cause: why a key was near last and is not, or was not kept. */
enum {
    RC_GONE_UNKNOWN = 0,   /* nothing is known of it, or no longer */
    RC_GONE_CHANGED = 1,   /* Redis said so: it was written, deleted, expired or evicted there */
    RC_GONE_WRITTEN = 2,   /* this machine has written or deleted it */
    RC_GONE_EVICTED = 3,   /* for room */
    RC_GONE_EXPIRED = 4,   /* its time was over */
    RC_GONE_REFUSED = 5,   /* it was not kept: too large, or no room */
    RC_GONE_RACED = 6,     /* it was not kept: it changed while it was read */
    RC_GONE_MOVED = 7,     /* its slot has left the master that it was read from */
    RC_GONE_DOUBTFUL = 8,  /* the connection was lost, and it could not be confirmed behind that */
    RC_GONE_AVOIDED = 9,   /* it was left out: it changed more often than its copies were read */
    RC_GONE_CAUSES = 10
};

/* What the near cache knows of a key. */
typedef struct rc_near_report {
    int32_t is_there; /* 1: a copy, which may be over or not known coherent */
    int32_t cause;    /* RC_GONE_*, of the last time at which it went */
    int64_t gone_us;  /* how long ago that was, within a 16th of a second; -1 not known */
    int64_t age_us;   /* a copy: how long ago it was known coherent; -1 it is not, any more */
    int64_t left_us;  /* a copy: how long it may be served yet; INT64_MAX no end */
    uint64_t len;     /* a copy: of its payload */
    uint8_t kind;     /* a copy: RC_KIND_* */
    uint8_t codec;
    uint8_t reserved[6];
} rc_near_report;

/* A key that is hit much, of rc_view_hot. One hit of RC_HOT_SAMPLE is counted while anybody asks,
   and one of 8192 where nobody has for a minute. */
enum { RC_HOT_SAMPLE = 128, RC_HOT_KEYS = 100 };
typedef struct rc_hot_key {
    uint64_t hits; /* estimated; what was counted is halved every minute */
    uint32_t key_len;
    char key[1024];
} rc_hot_key;

typedef struct rc_near_stats {
    uint64_t fills;         /* entries stored */
    uint64_t dooms;         /* answers not stored: the key changed while they were under way */
    uint64_t invalidations; /* entries dropped because Redis said so */
    uint64_t writes;        /* entries dropped by own writes */
    uint64_t evictions;     /* entries dropped for room */
    uint64_t expirations;   /* entries dropped because their time was over */
    uint64_t ghosts;        /* fills of keys that the ghost queue remembered */
    uint64_t refusals;      /* fills that found no room */
    uint64_t avoided;       /* answers left out: keys that change more often than they are read */
    uint64_t revalidations; /* entries kept over a reconnect */
    uint64_t repairs;       /* stripes emptied because a process died while it wrote in them */
    uint64_t damaged;       /* stripes emptied because their bytes contradict each other */
    uint64_t entries;       /* now */
    uint64_t bytes;         /* now: of entries, headers included */
    uint64_t capacity;      /* bytes there is room for */
    int64_t horizon_age_us; /* how long ago this client was last known coherent; -1 never */
} rc_near_stats;

typedef struct rc_stats {
    uint64_t requests;       /* commands sent */
    uint64_t bytes_out;
    uint64_t bytes_in;
    uint64_t pushes;         /* invalidation messages received */
    uint64_t connects;       /* connections that became ready */
    uint64_t disconnects;
    uint64_t retries;        /* requests sent again after a broken connection */
    uint64_t noscript;       /* scripts Redis had forgotten */
    uint64_t redirections;   /* MOVED and ASK of a cluster, that were followed */
    uint64_t map_refreshes;  /* questions for a cluster's slot map */
    uint64_t replica_reads;  /* requests that a replica has answered */
    uint64_t replica_fallbacks; /* requests that one was asked, and then the master */
    uint64_t timeouts;
    uint64_t breaker_trips;    /* times a server's breaker has opened */
    uint64_t breaker_refusals; /* requests that were not sent because one was open */
    uint64_t breaker_probes;   /* PINGs that asked whether it may close */
    uint64_t leases;         /* leases acquired */
    uint64_t lease_waits;    /* times a load was found running elsewhere */
    uint64_t leases_lost;
    uint64_t heartbeats;
    uint64_t shared;         /* callers served by another's load or read in this process */
    uint64_t degraded;       /* loads run without Redis */
    uint64_t locks;          /* locks acquired */
    uint64_t locks_lost;
    uint64_t lock_renewals;
    /* acknowledged deletes that the server has lost, as far as that is known, and that could not be
       sent again because no version of the value was known, or something else stands there now */
    uint64_t deletes_lost;
    uint64_t inline_turns;   /* times a blocking caller moved the bytes itself */
    uint64_t reactor_turns;  /* times the reactor thread did */
    uint64_t late_wakes;     /* sleeps of callers that only time ended although there was news */
    uint64_t in_flight;      /* now: requests without an answer; one that callers share is one */
    uint64_t waiting;        /* now: callers that wait */
    uint64_t active_leases;  /* now */
    uint64_t active_locks;   /* now */
    uint64_t breakers_open;  /* now: servers that callers do not reach */
} rc_stats;

typedef struct rc_health {
    int32_t ready;           /* 1: a read and a write would work now */
    int32_t tracking;        /* 1 on; 0 not connected yet, not allowed, or no sentinels' word */
    int64_t down_ms;         /* since when not ready; 0 when ready */
    char server[64];         /* "redis 7.0.15", "" when not known yet */
    char mode[16];           /* "standalone", "cluster", "" when not known yet */
    char address[128];       /* without user and password */
    char cause[256];         /* why not ready or not tracking; "" when all is well or unknown */
    /* what this server, or our user there, cannot do, a line each: "tracking: why\n", "identity"
       (another server at the same address is told by its role alone), "databases"; and "near": the
       near cache has no place for our connection for now. "" nothing */
    char off[512];
    /* replicas that reads were meant for, a line each: "127.0.0.1:7003\n" is connected, else why it
       is not asked behind a tab; as many as there is room for. "" none, or nobody has asked for
       one */
    char replicas[2048];
    /* circuit breakers by server, a line each: "address\tclosed|open|half-open\tcause\n" */
    char breaker[2048];
} rc_health;

int rc_abi(void);
const char *rc_strerror(int error); /* static text */
int64_t rc_now_us(void);            /* monotonic clock of this machine, microseconds */
/* The hash slot of a Redis key in a cluster, 0 to 16383: of its hash tag "{...}" where it has one.
   Source: the Redis Cluster specification. */
int32_t rc_key_slot(const char *key, size_t key_len);
/* Secret bytes from the system, at most 256; RC_ERR_UNAVAILABLE where it gives none. */
int rc_random_bytes(void *bytes, size_t len);
/* SHA-1 as 40 lower-case hex digits and a NUL. */
void rc_sha1(const char *bytes, size_t len, char *hex_41_bytes);

/* A set of byte strings, of which 64 bits of a keyed hash are kept: 24 bytes each at most. For one
   thread at a time. rc_met_new: NULL without memory. rc_met_add: 1, it is new; 0, it was added
   before; RC_ERR_NOMEM, and it was not added. */
rc_met *rc_met_new(void);
void rc_met_free(rc_met *met);
int rc_met_add(rc_met *met, const char *bytes, size_t len);

/* A clock for tests that stands still until rc_clock_advance moves it; its time begins at 0.
   Clients that are opened with it go by it in everything, have stores of their own, and no thread:
   their renewals, waits and expiries happen while the clock is advanced, each at its time. A call
   that waits for what only time can bring moves the clock itself, to the next time that something
   is due; rc_done never does. A clock and its clients are for one thread at a time. rc_clock_new:
   NULL without memory; rc_clock_free: clients that still go by it keep it. */
rc_clock *rc_clock_new(void);
void rc_clock_free(rc_clock *clock);
void rc_clock_advance(rc_clock *clock, int64_t us); /* us >= 0 */
int64_t rc_clock_now(const rc_clock *clock);

/* Clients. rc_open returns the process's client for these options, opened by the first caller;
   every rc_open wants one rc_unref. Nothing is connected until the first operation. The last
   rc_unref, or rc_close by anybody, ends what is waiting with RC_ERR_CLOSED, gives leases and locks
   back, waits up to timeout_ms for that and joins the reactor thread. rc_open fails with
   RC_ERR_ARGUMENT where an option is bad; *refusal (NULL: nobody asks) then says which, and why. */
int rc_open(const rc_options *options, rc_client **client, rc_refusal *refusal);
/* The range of a number of rc_options, in its own unit. RC_ERR_ARGUMENT: it is no number. */
int rc_option_range(int32_t option, int64_t *min, int64_t *max);
void rc_unref(rc_client *client, int32_t timeout_ms);
int rc_close(rc_client *client, int32_t timeout_ms);
void rc_get_stats(rc_client *client, rc_stats *stats);
void rc_get_health(rc_client *client, rc_health *health);
/* ends every operation that carries tag; returns how many */
int rc_cancel(rc_client *client, uint64_t tag);
enum { RC_HOLD_AUTO, RC_HOLD_OPEN, RC_HOLD_CLOSED };
/* Holds the circuit breaker of the server at `address` open or closed (RC_HOLD_*), or has it open
   and close by itself again; NULL: of all servers, and of those that come. Returns how many there
   were; RC_ERR_ARGUMENT where options.breaker is -1. */
int rc_breaker(rc_client *client, int32_t hold, const char *address);

/* Credentials that change. rc_authenticate gives newer ones, at any time and from any thread; user
   of 0 bytes: the default one; they hold for ttl_ms (0: for ever). Every connection is made with
   the newest, and those that are open say who they are again (AUTH), in line with what runs over
   them: nothing is lost, and what is tracked stays tracked. A lent connection does so when it comes
   back. With options.auth the url has none, and they are asked for: before the first connection,
   when 7 of 10 parts of their time are over, and when a server refuses them. Who is asked
   answers with rc_authenticate, or rc_auth_fail, whose text is told on as the cause; then, or when
   nothing comes for 5 seconds, it is asked again after a pause that grows from 0.1 to 3.2 s.
   Operations wait for that until their own deadlines. Asked is one of those that call rc_wait,
   which returns RC_WAIT_AUTH (answer, then wait again), rc_loop_turn (rc_turn.auth is 1), or
   rc_auth_wanted, which returns 1. All users that are given in turn must have the same rights: what
   one has read is kept near for the next. Without options.auth the user must stay the one of the
   url. RC_ERR_ARGUMENT: it does not, or user or password are longer than 65536 bytes, or the
   password is empty; RC_ERR_REFUSED: neither TLS nor RC_TLS_OFF (see there). */
enum { RC_WAIT_AUTH = 1 };
int rc_authenticate(rc_client *client, const char *user, size_t user_len, const char *password,
                    size_t password_len, int64_t ttl_ms);
int rc_auth_fail(rc_client *client, const char *text, size_t len);
int rc_auth_wanted(rc_client *client);

/* Operation slots. rc_op_free may be called at any time: a running operation is cancelled, a lease
   is given back. */
rc_op *rc_op_new(rc_client *client);
void rc_op_free(rc_op *op);
/* The same without the end of the slot: its caller is gone, or so it seems. What it does with it
   after this ends with RC_ERR_CANCELLED, or RC_ERR_ARGUMENT. */
void rc_op_drop(rc_op *op);
/* A slot keeps its buffers for its next use, so it holds what its largest operation needed until
   then. A caller that keeps many idle slots calls this where result->room_bits is large: each
   buffer with more room than keep_bytes is freed. The result is void after it. RC_ERR_ARGUMENT, and
   nothing is freed: the operation is running, or holds a lease. */
int rc_op_trim(rc_op *op, size_t keep_bytes);
/* Operations that begin together: what they have to say to one server goes in one write. After
   rc_op_hold(op, 1) the slot's next operation waits for rc_start_held, which starts those of its
   list that wait; rc_op_hold(op, 0) takes it back where the operation could not begin. All slots
   are one client's. */
void rc_op_hold(rc_op *op, int held);
void rc_start_held(rc_op *const *ops, uint32_t count);
const rc_result *rc_op_result(rc_op *op);     /* the same address for the slot's whole life */
/* result->nodes elements of the last rc_command or rc_submit */
const rc_node *rc_op_nodes(rc_op *op);
/* reads that element as an entry into the result: outcome RC_HIT or RC_MISS, kind, data ...;
   RC_ERR_REDIS and its text for an error */
int rc_op_entry(rc_op *op, uint32_t node);
void rc_op_tag(rc_op *op, uint64_t tag);      /* for rc_cancel; 0 none. Stays until set again */
/* of the next operations in this slot; 0: the client's default. rc_load and rc_lock_acquire bring
   their own; there this is how long Redis may be silent about the key or lock */
void rc_op_timeout(rc_op *op, int32_t timeout_ms);
int rc_done(rc_op *op);                       /* 1 when the result is there */
int rc_is_done(const rc_op *op);              /* the same, and moves nothing */
/* blocks until it is; every operation ends by its own deadline. Returns the result's status, or
   RC_WAIT_AUTH: see rc_authenticate. RC_ERR_ARGUMENT with RC_DRIVER_HOST where it is not done */
int rc_wait(rc_op *op);

/* Reading and writing entries. */
int rc_get(rc_op *op, const char *key, size_t key_len, uint32_t flags);
/* The same, of prefix and key together. */
int rc_get_under(rc_op *op, const char *prefix, size_t prefix_len, const char *key, size_t key_len,
                 uint32_t flags);
/* ttl_ms -1: no expiry; flags: RC_PLAIN */
int rc_set(rc_op *op, const char *key, size_t key_len, const rc_entry *entry, const char *value,
           size_t value_len, int64_t ttl_ms, uint32_t flags);
int rc_delete(rc_op *op, const char *key, size_t key_len); /* number: 1 found, 0 not */

/* Any commands, in one write: rc_begin, then per command rc_command_begin and its arguments, then
   rc_submit. The answers follow each other in the flat nodes. RC_RETRY: every command may be
   repeated. A broken connection, timeout and so on fail the whole batch; an error answer is one
   node of type '-'. The batch goes over a connection that all callers share: rc_submit refuses
   what waits there, or changes it for the next one (RC_ERR_REFUSED, the result's data says which
   command and why); MULTI and EXEC must stand in the same batch. See rc_lent_begin. */
int rc_begin(rc_op *op, uint32_t flags);
int rc_command_begin(rc_op *op, uint32_t argument_count);
int rc_argument(rc_op *op, const char *bytes, size_t len);
int rc_argument_int(rc_op *op, int64_t number);
/* NULL entry: plain, as with RC_PLAIN */
int rc_argument_entry(rc_op *op, const rc_entry *entry, const char *value, size_t value_len);
/* as rc_argument; the command changes that key, and with it the near cache */
int rc_argument_written(rc_op *op, const char *key, size_t key_len);
/* Behind rc_begin: in a cluster the whole batch goes to the master of that slot, whatever its keys
   are: for commands that are about a server, as SCAN. Elsewhere it says nothing. */
int rc_at_slot(rc_op *op, int32_t slot);
/* Ends by itself behind that time, with status 0: a caller sleeps as it waits for anything else. */
int rc_pause(rc_op *op, int32_t ms);
/* A key that prefix and key are together: nobody has to join them. is_written: as the one above. */
int rc_argument_under(rc_op *op, const char *prefix, size_t prefix_len, const char *key,
                      size_t key_len, int is_written);
int rc_submit(rc_op *op);
int rc_delete_submit(rc_op *op); /* as rc_submit for one UNLINK with many keys (see rc_delete) */

/* Scripts, in Lua, which Redis runs. A source has a number, the same for all threads and for the
   life of the process, which keeps a copy; negative: RC_ERR_NOMEM, or RC_ERR_OVERLOAD for more than
   some thousand. rc_command_script begins a command of a batch, as rc_command_begin does: its keys
   follow (rc_argument; rc_argument_written for those that it changes), then its arguments. What is
   sent is the script's SHA; Redis is told the source when it does not know it. It has not run the
   script then, so that goes out once more, alone or with others of the kind in their order, but
   behind the other commands of its batch: what has to come after a script belongs into it. Between
   MULTI and EXEC the answer is NOSCRIPT. RC_ERR_ARGUMENT: there is no script of that number.
   memory:// runs no scripts but those that it has been taught. */
int rc_script_define(const char *source, size_t len);
int rc_command_script(rc_op *op, int script, uint32_t key_count, uint32_t argument_count);

/* Lent connections: for WATCH and transactions of several batches, for commands that wait (BLPOP,
   XREAD with BLOCK, WAIT) and those that change their connection (SELECT, READONLY). A handle has a
   connection from rc_lent_borrow to rc_lent_return; nobody else's commands go over it meanwhile.
   rc_lent_borrow: the op ends with 0 when it has one, to the server of that key (NULL: any). At
   most max_lent are lent; beyond that it waits for one to come back, until the op's timeout, then
   RC_ERR_OVERLOAD. rc_lent_begin is as rc_begin, and rc_submit sends the batch over the handle's
   connection; nothing is repeated, but a script by itself that Redis did not know. The timeout of a
   slot whose command waits must be longer than that wait: where an op on a lent connection times
   out or is cancelled, or the connection breaks, it is closed, and all that follows in the handle
   ends with RC_ERR_LOST until the next borrow. rc_lent_return cancels what runs in the handle. The
   connection is reset before anybody gets it again, and closed where its state is not certain, or
   where nobody wants it for 30 seconds. HELLO, RESET, QUIT, MONITOR, SSUBSCRIBE, CLIENT REPLY and
   CLIENT TRACKING are refused here, too. SUBSCRIBE, PSUBSCRIBE and their opposites go with one name
   each, so that each has one answer. rc_lent_listen: the op ends with the messages that have come
   since the last one, each an array as Redis sends it, or with the next; number: so many more that
   nobody has asked for in time found no room in 8 MiB. Its timeout ends nothing but itself.
   RC_ERR_LOST: the connection is gone, and no message is left. rc_lent_new:
   NULL without memory. A handle is for one thread at a time, and outlives the ops that run in it.
   RC_ERR_FORKED: a parent process has borrowed. */
rc_lent *rc_lent_new(rc_client *client);
void rc_lent_free(rc_lent *lent); /* as rc_lent_return before */
int rc_lent_borrow(rc_lent *lent, rc_op *op, const char *key, size_t key_len);
int rc_lent_begin(rc_lent *lent, rc_op *op);
int rc_lent_listen(rc_lent *lent, rc_op *op);
void rc_lent_return(rc_lent *lent);

/* remember: rc_load ends with RC_HIT, RC_FAILED, RC_LOAD, RC_BUSY or an error. After RC_LOAD the
   caller runs its loader and then ends the load in the same slot, once. ttl_ms of rc_publish: -1 no
   expiry, 0 share with the callers that wait in this process but do not store. rc_fail tells
   everybody who waited for this load; error_ttl_ms > 0: and anybody who asks within that time. */
int rc_load(rc_op *op, const char *key, size_t key_len, const rc_load_options *options);
int rc_publish(rc_op *op, const rc_entry *entry, const char *value, size_t value_len,
               int64_t ttl_ms, uint32_t flags);
int rc_fail(rc_op *op, const char *text, size_t text_len, int32_t error_ttl_ms);
int rc_release(rc_op *op);

/* Views: a key prefix and how its entries are kept near. rc_view_new: a view of the client's near
   cache, NULL without one or without memory. min_bytes are kept for all views of this group's name
   while others press, max_bytes they never exceed together (0: no such bound). ttl_us is the
   longest time a copy is kept (0: as long as Redis keeps the key). A view keeps its client's near
   cache mapped. */
rc_view *rc_view_new(rc_client *client, const char *prefix, size_t prefix_len, const char *group,
                     size_t group_len, int64_t min_bytes, int64_t max_bytes, int64_t ttl_us);
void rc_view_free(rc_view *view);
/* RC_NEAR_*. Nothing that was not known coherent within max_stale_us is a hit. No system call. */
int rc_view_get(rc_view *view, const char *key, size_t key_len, int32_t max_stale_us,
                rc_near_value *value);
/* For many keys in one: the clock is read once, and rc_view_get_at goes by that. now_us is a moment
   within the caller's call, so that "within max_stale_us" is told as of then. */
int64_t rc_view_now_us(rc_view *view);
int rc_view_get_at(rc_view *view, const char *key, size_t key_len, int64_t now_us,
                   int32_t max_stale_us, rc_near_value *value);
/* While Redis cannot be reached: writes the key for the processes of this near cache alone, who
   find it as RC_NEAR_LOCAL for ttl_us, or until Redis is there again. Redis is told then to delete
   the key, before anything else is asked of it. entry->kind may be RC_KIND_PLAIN; RC_KIND_NONE: the
   key is deleted, and they find that. 0; 1: the value found no room, and the delete is sent all the
   same; RC_ERR_OVERLOAD: Redis is owed as many deletes as can be remembered, and nothing has
   changed; RC_ERR_UNAVAILABLE, as well: the server is a cluster, or no process of this near cache
   has ever reached it, or the key is over 1024 bytes. */
int rc_view_write(rc_view *view, const char *key, size_t key_len, const rc_entry *entry,
                  const char *value, size_t value_len, int64_t ttl_us);
/* The same for what a load has made, but that Redis is told nothing. `mark` of rc_view_mark, called
   before the load; a write of the key since then wins. 1 where it is kept; 0. */
uint64_t rc_view_mark(rc_view *view, const char *key, size_t key_len);
int rc_view_keep(rc_view *view, const char *key, size_t key_len, const rc_entry *entry,
                 const char *value, size_t value_len, int64_t ttl_us, uint64_t mark);
/* rc_view_get of many->keys[from] to keys[to - 1], at one reading of the clock; to <= RC_NEAR_MANY.
   While the processor waits for the line of one key, those of others are on their way. Returns up
   to which key there is an answer: less than `to` where the payloads have filled `bytes`. A payload
   that is larger than all of that is RC_NEAR_GROW. The answers before `from` are lost. */
uint32_t rc_view_get_many(rc_view *view, rc_near_many *many, uint32_t from, uint32_t to,
                          int32_t max_stale_us);
/* What handles[index] was made for, by a view of the same client: may it still be served? */
enum {
    RC_VIEW_GONE = 0,  /* no */
    RC_VIEW_SOUND = 1, /* yes; and if it has a block, that is sound */
    RC_VIEW_TOLD = 2   /* yes, if the reader finds it good by its block */
};
int rc_view_check(rc_view *view, rc_near_handle *handles, uint32_t index, int32_t max_stale_us);
/* L0 of a view, without a key. handles: where the caller tells its array of handles, which it may
   move. memory: rc_l0_bytes(room) bytes of the caller's, zeroed; room: a power of two, 4 or more.
   The view, and both of these, stay for as long as a key stands in it. */
void rc_l0_init(rc_l0 *l0, rc_view *view, rc_near_handle *const *handles, void *memory,
                uint32_t room);
size_t rc_l0_bytes(uint32_t room);
/* Takes everything over into other memory, and leaves the old one to the caller. */
void rc_l0_move(rc_l0 *l0, void *memory, uint32_t room);
/* The key stands for handles[index] from now on, which was just filled; index: 1 or more. The
   string stays where it is until rc_l0_drop. RC_L0_FULL: nothing was done, more room is wanted;
   RC_L0_NONE: nothing was done, and such a key is to be asked about by rc_view_check. */
enum { RC_L0_FULL = 0, RC_L0_PUT = 1, RC_L0_NONE = 2 };
int rc_l0_put(rc_l0 *l0, const char *key, uint32_t index);
void rc_l0_drop(rc_l0 *l0, const char *key);
/* Whether rc_l0_find has found the key since this was asked last. */
int rc_l0_was_used(rc_l0 *l0, const char *key);
/* rc_view_check of what the key stands for: its index where that is RC_VIEW_SOUND, -index where it
   is RC_VIEW_TOLD; 0: it is RC_VIEW_GONE, or no such key stands here. */
int32_t rc_l0_find(rc_l0 *l0, const char *key, int32_t max_stale_us);
/* rc_l0_find of `count` keys, at one reading of the clock; NULL is no key. found: the answers.
   Returns how many are RC_VIEW_SOUND; `hits` stays as it is. */
uint32_t rc_l0_find_many(rc_l0 *l0, const char *const *keys, int32_t *found, uint32_t count,
                         int32_t max_stale_us);
/* Listening: which keys under the view's prefix have changed, of those that any process of this
   near cache has read. It begins with rc_view_listen. The caller comes by: rc_view_has_news, which
   costs two loads, at least every 50 s, and rc_view_hear until it says RC_TOLD_NOTHING. `key` has
   room for 1024 bytes, and gets the key without the prefix. One thread at a time. */
enum {
    RC_TOLD_NOTHING = 0,
    RC_TOLD_PUSH = 1,  /* Redis says that it changed */
    RC_TOLD_WRITE = 2, /* a process of this near cache has written it */
    RC_TOLD_FLUSH = 3, /* no key: Redis was emptied */
    RC_TOLD_GAP = 4    /* no key: some changes were not heard */
};
void rc_view_listen(rc_view *view, rc_listener *listener);
int rc_view_has_news(rc_view *view, rc_listener *listener);
int rc_view_hear(rc_view *view, rc_listener *listener, char *key, size_t *key_len);
/* What is known near of a key: for people. Counts as no use of a copy; takes the mutex of a part of
   the near cache for a moment. */
void rc_view_explain(rc_view *view, const char *key, size_t key_len, rc_near_report *report);
/* 1: answers of keys that change more often than their copies are read are neither kept nor tracked
   for a while. 0: the default. */
void rc_view_avoid(rc_view *view, int is_avoiding);
/* The keys with the view's prefix, which is left out, that are hit most, by all who share the near
   cache, and are in it now; at most `max` (RC_HOT_KEYS are known for sure), the hottest first. How
   many. Hits are those of rc_view_get and rc_view_check and their forms for many keys. */
uint32_t rc_view_hot(rc_view *view, rc_hot_key *keys, uint32_t max);
/* As rc_get and rc_load, of the prefix and key together; the answer is kept near. */
int rc_view_read(rc_view *view, rc_op *op, const char *key, size_t key_len, uint32_t flags);
int rc_view_load(rc_view *view, rc_op *op, const char *key, size_t key_len,
                 const rc_load_options *options);
/* Tags: whether an entry's tags have been invalidated since it was stored, as their generations say
   that are kept near, under prefix and the tag's name. rc_tags_new: NULL without a near cache or
   without memory; for one thread at a time, and it keeps the client's near cache mapped.
   rc_tags_check reads the block of tags at the front of those len bytes (near/tags.h has its form;
   any bytes are harmless) and tells the gravest verdict. A generation that was not known coherent
   within max_stale_us is not near. No system call. */
enum {
    RC_TAGS_VALID = 0,   /* all as they were */
    RC_TAGS_SOFT = 1,    /* a soft generation is another one: the entry is stale */
    RC_TAGS_UNKNOWN = 2, /* a generation is not near: Redis knows */
    RC_TAGS_VOID = 3,    /* a hard generation is another one: the entry counts as gone */
    RC_TAGS_DAMAGED = 4, /* this is no such block, or one of a newer version */
    RC_TAGS_MAX = 17     /* tags of an entry: 16, and its namespace's */
};
rc_tags *rc_tags_new(rc_client *client, const char *prefix, size_t prefix_len);
void rc_tags_free(rc_tags *tags);
int rc_tags_check(rc_tags *tags, const char *block, size_t len, int32_t max_stale_us);
/* From now on the view's calls look at the blocks of entries, too: one is sound that has not
   outlived its life, the grace window not counted, and whose tags are RC_TAGS_VALID. For readers to
   whom such an entry is fresh however old it is. tags: NULL (an entry with tags is not found sound)
   or of the same client and thread as the view, which keeps it until rc_view_free. */
void rc_view_judge(rc_view *view, rc_tags *tags);
/* A PING over the tracked connection. When it is answered, an entry with asof_us >= number is no
   older than any write acknowledged before this call. RC_ERR_ARGUMENT without a near cache. */
int rc_barrier(rc_op *op);
void rc_get_near_stats(rc_client *client, rc_near_stats *stats); /* all 0 without a near cache */

/* Locks. A handle is for one lock name and may be acquired again after it was released or lost. */
rc_lock *rc_lock_new(rc_client *client, const char *key, size_t key_len);
/* The same, with a queue in Redis: who waits gets it in the order of coming, over all processes.
   own NULL: its holder is alone, also beside handles without a queue. Else those that have an `own`
   key, each another one in the slot of `key`, hold it together. Without RC_FORCE. */
rc_lock *rc_lock_new_queued(rc_client *client, const char *key, size_t key_len, const char *own,
                            size_t own_len);
void rc_lock_free(rc_lock *lock); /* gives a held lock back */
/* number: fence; RC_ERR_BUSY */
int rc_lock_acquire(rc_lock *lock, rc_op *op, const rc_lock_options *options);
int rc_lock_release(rc_lock *lock, rc_op *op);             /* RC_ERR_NOTHELD when lost */
int rc_lock_extend(rc_lock *lock, rc_op *op, int32_t ttl_ms);
/* RC_LOCK_*, against the local deadline, without a round trip */
int rc_lock_state(rc_lock *lock);
/* milliseconds this handle may still trust the lock; 0 when not held */
int64_t rc_lock_remaining(rc_lock *lock);
int rc_lock_token(rc_lock *lock, char *token_32_bytes); /* 32 hex digits */

/* Loops: for callers that have other things to do than to sleep in rc_wait. An operation in a slot
   that has a name is told as done by rc_loop_turn, once. A loop, its slots and its turns are for
   one thread; the client of RC_DRIVER_REACTOR may have many loops. rc_loop_new: NULL without
   memory. rc_loop_free: its memory stays until the last of its slots is freed, too. Where the loop
   is NULL, or its client closed, the calls below do nothing, and return RC_ERR_CLOSED where they
   return an error; what ended with the client is still told. */
enum { RC_TURN_NAMES = 256, RC_TURN_LINKS = 32 };
enum {
    RC_HOST_CLOSE = 1, /* close this connection; with RC_HOST_OPEN: that first */
    RC_HOST_OPEN = 2,  /* connect, then rc_host_opened or rc_host_lost */
    RC_HOST_GONE = 4   /* with RC_HOST_CLOSE: its number never comes again */
};
typedef struct rc_host_link {
    uint32_t number;    /* which connection: they come and go, each with a number of its own */
    uint32_t wants;     /* RC_HOST_*, each told once */
    size_t len;         /* bytes that wait to be sent, as of this turn: see rc_host_output */
} rc_host_link;
typedef struct rc_turn {
    int64_t wait_us;    /* the next turn is due then, even without news; -1: never */
    uint32_t count;     /* of names; RC_TURN_NAMES: there may be more, turn again */
    uint32_t link_count; /* of links; where there are more, wait_us is 0 */
    uint32_t auth;      /* 1: credentials are wanted of this loop: see rc_authenticate */
    uint32_t reserved;
    uint32_t names[RC_TURN_NAMES];
    /* RC_DRIVER_HOST: those that want something, or have output */
    rc_host_link links[RC_TURN_LINKS];
} rc_turn;
rc_loop *rc_loop_new(rc_client *client);
void rc_loop_free(rc_loop *loop);
uint32_t rc_loop_count(void); /* of all clients, in this process */
void rc_op_name(rc_op *op, rc_loop *loop, uint32_t name); /* of an idle slot */
/* Tells what is done; with a host it does all that can be done without waiting, before. */
void rc_loop_turn(rc_loop *loop, rc_turn *turn);
/* RC_DRIVER_REACTOR, RC_DRIVER_POLL: sleeps until something is done. There must be something
   running in one of its slots. */
void rc_loop_wait(rc_loop *loop);
/* A descriptor that is readable while there is reason for a turn; the loop's own. RC_DRIVER_POLL:
   that is whenever a byte comes or a time is over. RC_DRIVER_REACTOR: when something is done. */
int rc_loop_fd(rc_loop *loop);
/* RC_DRIVER_REACTOR, for hosts that can watch nothing but connections of their own: a unix socket
   that the host connects to within this turn, then rc_loop_accept; a byte comes over it where
   rc_loop_fd would be readable. Returns the length of the path, or RC_ERR_*. */
int rc_loop_listen(rc_loop *loop, char *path, size_t size);
int rc_loop_accept(rc_loop *loop);

/* RC_DRIVER_HOST. `link` is an rc_host_link.number; of one that is gone nothing happens. A turn is
   due after each. */
void rc_host_opened(rc_loop *loop, uint32_t link);
void rc_host_lost(rc_loop *loop, uint32_t link, const char *cause, size_t len);
void rc_host_feed(rc_loop *loop, uint32_t link, const char *bytes, size_t len);
/* What is to be sent over the link, then rc_host_sent; NULL: nothing. Valid until the next call of
   this client, be it a drop or a free: copy or send it at once. */
const char *rc_host_output(rc_loop *loop, uint32_t link, size_t *len);
void rc_host_sent(rc_loop *loop, uint32_t link, size_t len);
/* A host may share a connection over which bytes travel as they are: no TLS. Turns send over it by
   themselves then; what did not go at once is still rc_host_output's, and what comes is still the
   host's to feed, though a long piece that is fed may bring more with it.
   Which connection it is the host shows by its SO_KEEPALIVE, without a break between the steps: it
   is off (RC_SEEK_BEGIN), then on (RC_SEEK_ON), off, on. RC_ERR_UNAVAILABLE from rc_host_share:
   it was not found, and nothing changes. rc_host_unshare: before the host closes the connection;
   rc_host_lost does it, and a turn that tells RC_HOST_CLOSE. */
enum { RC_SEEK_BEGIN = -1, RC_SEEK_OFF = 0, RC_SEEK_ON = 1 };
int rc_host_seek(rc_loop *loop, uint32_t link, int32_t step);
int rc_host_share(rc_loop *loop, uint32_t link);
void rc_host_unshare(rc_loop *loop, uint32_t link);
/* Somebody reads the near cache in this process: connects before anything has to be asked for. */
void rc_host_begin(rc_loop *loop);
/* The process is about to end: what its connection has kept coherent in a near cache that others
   share is handed over to one of theirs, if that is asked for again until it returns 1: done, or
   nothing to hand over. */
int rc_host_hand_over(rc_loop *loop);
/* Where and how to connect: text of the host, or of the path of a unix socket; returns its length.
   *port is 0 for a path, *is_tls says whether TLS is wanted. RC_ERR_CLOSED: that is not wanted any
   more. */
int rc_host_address(rc_loop *loop, uint32_t link, char *text, size_t size, int32_t *port,
                    int32_t *is_tls);
/* Looks the host's name up in a thread, for hosts without a resolver. 0: still at it, call again;
   > 0: length of the address in digits; RC_ERR_UNAVAILABLE, RC_ERR_CLOSED. */
int rc_host_lookup(rc_loop *loop, uint32_t link, char *text, size_t size);
/* Closes the connections as long as nobody needs them; the next operation opens them again. Returns
   0 where somebody does: an operation, lease or lock. */
int rc_host_rest(rc_loop *loop);
/* Begins to close the client: gives leases and locks back, ends what waits with RC_ERR_CLOSED.
   Returns 1 when all of that has been answered; then rc_unref. Where others have opened the client
   of RC_DRIVER_REACTOR, too, nothing ends, and it returns 1. */
int rc_host_leave(rc_loop *loop);

/* MessagePack. Reads len bytes as exactly one value and tells its elements depth first. Returns
   their number; where it is over capacity, only the first ones were written: grow and call again.
   RC_ERR_PROTOCOL for anything but one whole value (codec/msgpack.h lists the limits),
   RC_ERR_TOOLARGE for more than 2 GiB, or more than 65,536 arrays and maps and one per 4 bytes. */
typedef struct rc_token {
    int32_t type;  /* RC_TOKEN_* */
    /* array: elements; map: pairs, a key and a value each; string: length in bytes */
    int32_t count;
    union {
        double number;     /* RC_TOKEN_NUMBER: a float, or an integer that a double holds exactly */
        int32_t offset;    /* RC_TOKEN_STRING: where it begins in bytes */
        int64_t int64;     /* RC_TOKEN_INT64 */
        uint64_t uint64;   /* RC_TOKEN_UINT64 */
    };
} rc_token;
enum {
    RC_TOKEN_NIL = 0, RC_TOKEN_FALSE = 1, RC_TOKEN_TRUE = 2, RC_TOKEN_NUMBER = 3,
    RC_TOKEN_STRING = 4,
    RC_TOKEN_ARRAY = 5, RC_TOKEN_MAP = 6, RC_TOKEN_INT64 = 7, RC_TOKEN_UINT64 = 8
};
int32_t rc_msgpack_scan(const char *bytes, size_t len, rc_token *tokens, int32_t capacity);
/* The same with as little room as the caller likes: tells up to capacity (> 0) more elements and
   returns how many, or an error as above. All zero at first; the value is whole once depth is 0
   again. */
enum { RC_SCAN_DEPTH = 32 };
typedef struct rc_scan {
    int32_t at;         /* bytes that are done */
    int32_t depth;      /* containers that are not whole yet */
    int32_t containers; /* so far */
    uint32_t left[RC_SCAN_DEPTH]; /* elements still to come; a map has two per pair */
    uint8_t is_map[RC_SCAN_DEPTH];
} rc_scan;
int32_t rc_msgpack_next(rc_scan *scan, const char *bytes, size_t len, rc_token *tokens,
                        int32_t capacity);
/* FFI end */
/* clang-format on */
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
