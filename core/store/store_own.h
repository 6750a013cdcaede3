/*
 * store_own - what the files of core/store share, and nobody else sees.
 *
 * What:    the store, its items (keys, and tracked names), its sessions (connections), and a
 *          call: one command being done.
 * Threads: as store.h says.
 * Memory:  the store owns its items and sessions; a call lives as long as its command.
 * Errors:  none.
 * Not:     no functions but inline ones: those are in the header of the file that has them.
 */
#ifndef RC_STORE_OWN_H
#define RC_STORE_OWN_H

#include "base/list.h"
#include "store/names.h"
#include "store/request.h"
#include "store/store.h"

/* What the store answers as. From 7.0.5 on a client may trust tracking (redis/redis#8935). */
#define RC_STORE_REDIS_VERSION  "7.0.15"
#define RC_STORE_VALKEY_VERSION "9.1.0" /* where it compares */

/* In the place of a database: the item is a tracked name. */
enum { RC_PLACE_TRACKED = RC_STORE_DATABASES };

/* What takes room: a key or a tracked name. */
struct rc_item {
    struct rc_table_node node;
    struct rc_list use; /* in store->used, unless it is a pinned key */
    uint32_t place;     /* the key's database; RC_PLACE_TRACKED and up: see rc_tracked */
};

struct rc_key {
    struct rc_item item;
    bool is_pinned; /* never evicted */
    int64_t expires_ms;
    char *value;
    size_t value_len;
    uint64_t readers; /* sessions 0 to 63 that are known to be in rc_tracked of this name */
    char name[];
};

/* Who tracks a name, whatever the database (Redis does so), and whether or not there is such a key.
   One of these holds 64 sessions by their slots; item.place tells which 64. */
struct rc_tracked {
    struct rc_item item;
    uint64_t sessions;
    char name[];
};

struct rc_session {
    struct rc_store_conn conn;
    struct rc_store *store;
    struct rc_request request;
    struct rc_buf input; /* the beginning of a command */
    struct rc_buf name;
    uint64_t id;
    uint32_t slot; /* in store->sessions */
    uint32_t database;
    int resp; /* 2 or 3 */
    bool tracks;
    bool has_tracked; /* it may be in store->tracked */

    struct rc_names channels; /* subscribed to */
    struct rc_names patterns;

    struct rc_names watched; /* keys, each with its database */
    bool is_dirty;           /* one of them was changed */
    bool in_multi;
    bool is_refused; /* a command was, since MULTI */
    uint32_t queued_count;
    struct rc_buf queued; /* of each command how many arguments, and each with its length before */
};

struct rc_verb;

struct rc_call {
    struct rc_store *store;
    struct rc_session *session;
    const struct rc_verb *verb;
    const struct rc_text *args; /* args[0] is the command's name */
    uint32_t count;
    int resp;
    struct rc_buf *out; /* the session's output, or what a script reads */
    size_t mark;        /* how much was in it before */
};

enum { RC_VERB_SLOTS = 512 };

enum { RC_TWINS_MAX = 64 };

struct rc_store {
    /* Fixed after init. */
    struct rc_store_options options;
    const struct rc_verb *verbs[RC_VERB_SLOTS]; /* by a hash of their names */

    size_t max_bytes;
    enum rc_store_role role;
    uint32_t histories; /* it began as a master: those before this one */
    int64_t now_us;
    int64_t started_us; /* the first time it was told; 0: none was */

    struct rc_table keys; /* of all databases; those of one name lie in one chain */
    struct rc_table tracked;
    struct rc_list used; /* what may be evicted; what was used longest ago comes first */
    size_t key_counts[RC_STORE_DATABASES];
    size_t bytes;
    size_t pinned_bytes; /* of them */
    size_t sweep_at;     /* the bucket rc_store_sweep goes on with */

    struct rc_session **sessions; /* by slot; NULL: free */
    uint32_t session_room;
    uint32_t session_count;
    uint32_t watchers; /* sessions that watch keys */
    uint64_t last_id;
    struct rc_session *current; /* whose command is being done */
    struct rc_buf later;        /* pushes for it: they follow the answer */
    struct rc_key *found;       /* the newest its command has found, while it exists; or NULL */

    bool twin_known[RC_TWINS_MAX]; /* by number: its script was loaded */
    struct rc_buf script_out;      /* what the commands inside a script answer */
    uint64_t random;
    struct rc_store_stats stats;
};

static inline int64_t rc_store_now_ms(const struct rc_store *store)
{
    return store->now_us / 1000;
}

/* Of store->keys. */
static inline struct rc_key *rc_key_of(struct rc_table_node *node)
{
    return RC_CONTAINER(RC_CONTAINER(node, struct rc_item, node), struct rc_key, item);
}

static inline struct rc_text rc_key_name(const struct rc_key *key)
{
    return (struct rc_text){key->name, key->item.node.key_len};
}

static inline struct rc_text rc_key_value(const struct rc_key *key)
{
    return (struct rc_text){key->value_len == 0 ? "" : key->value, key->value_len};
}

#endif
