#include "store/key.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "engine/entry.h"
#include "store/tracking.h"
#include "store/watch.h"

/* Two allocations and a place in the table go with a key. */
enum { KEY_EXTRA = 40 };

size_t rc_key_cost(size_t name_len, size_t value_len)
{
    return sizeof(struct rc_key) + KEY_EXTRA + name_len + value_len;
}

static size_t cost_of(const struct rc_key *key)
{
    return rc_key_cost(key->item.node.key_len, key->value_len);
}

static uint32_t place_of(const struct rc_table_node *node)
{
    return RC_CONTAINER(node, const struct rc_item, node)->place;
}

/* ---- telling --------------------------------------------------------------------------------- */

static void tell_change(struct rc_store *store, const struct rc_key *key, bool is_gone)
{
    struct rc_text name = rc_key_name(key), value = rc_key_value(key);
    rc_tracking_tell(store, name);
    rc_watch_tell(store, key->item.place, name);
    if (store->options.on_change == NULL)
        return;
    struct rc_store_change change = {key->item.place, name.bytes, name.len,
                                     value.bytes,     value.len,  key->expires_ms};
    if (is_gone) {
        change.value = NULL;
        change.value_len = 0;
        change.expires_ms = RC_STORE_NEVER;
    }
    store->options.on_change(store->options.owner, &change);
}

/* ---- finding --------------------------------------------------------------------------------- */

struct rc_key *rc_key_peek(const struct rc_store *store, uint32_t database, struct rc_text name)
{
    struct rc_table_node *node = rc_table_find(&store->keys, name.bytes, name.len);
    while (node != NULL && place_of(node) != database)
        node = rc_table_find_next(node);
    return node == NULL ? NULL : rc_key_of(node);
}

bool rc_key_is_over(const struct rc_store *store, const struct rc_key *key)
{
    return key->expires_ms < rc_store_now_ms(store);
}

bool rc_key_expire(struct rc_store *store, struct rc_key *key)
{
    if (!rc_key_is_over(store, key))
        return false;
    if (store->role != RC_STORE_REPLICA) {
        store->stats.expirations++;
        rc_key_remove(store, key);
    }
    return true;
}

struct rc_key *rc_key_find(struct rc_store *store, uint32_t database, struct rc_text name)
{
    struct rc_key *key = rc_key_peek(store, database, name);
    if (key == NULL || rc_key_expire(store, key))
        return NULL;
    if (!key->is_pinned && store->used.prev != &key->item.use) {
        rc_list_remove(&key->item.use);
        rc_list_append(&store->used, &key->item.use);
    }
    store->found = key;
    return key;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* An empty key nobody was told of. */
static struct rc_key *new_key(struct rc_store *store, uint32_t database, struct rc_text name)
{
    struct rc_key *key = calloc(1, sizeof *key + name.len);
    if (key == NULL)
        return NULL;
    if (name.len > 0)
        memcpy(key->name, name.bytes, name.len);
    key->item.node.key = key->name;
    key->item.node.key_len = name.len;
    key->item.place = database;
    key->expires_ms = RC_STORE_NEVER;
    if (rc_table_insert(&store->keys, &key->item.node) != 0) {
        free(key);
        return NULL;
    }
    rc_list_append(&store->used, &key->item.use);
    store->key_counts[database]++;
    store->bytes += cost_of(key);
    return key;
}

static void free_key(struct rc_store *store, struct rc_key *key)
{
    rc_key_pin(store, key, false);
    if (store->found == key)
        store->found = NULL;
    rc_list_remove(&key->item.use);
    rc_table_remove(&store->keys, &key->item.node);
    store->key_counts[key->item.place]--;
    store->bytes -= cost_of(key);
    free(key->value);
    free(key);
}

void rc_key_remove(struct rc_store *store, struct rc_key *key)
{
    tell_change(store, key, true);
    free_key(store, key);
}

void rc_key_pin(struct rc_store *store, struct rc_key *key, bool pinned)
{
    if (key->is_pinned == pinned)
        return;
    key->is_pinned = pinned;
    rc_list_remove(&key->item.use);
    if (pinned) {
        store->pinned_bytes += cost_of(key);
    } else {
        store->pinned_bytes -= cost_of(key);
        rc_list_append(&store->used, &key->item.use);
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Takes `value`, of which `len` bytes count. */
static void take_value(struct rc_store *store, struct rc_key *key, char *value, size_t len)
{
    rc_key_pin(store, key, false);
    store->bytes = store->bytes - key->value_len + len;
    key->value = value;
    key->value_len = len;
}

/* A lease that ends by itself: what takes part in nobody's being alone must not be evicted. */
static bool is_lease(const struct rc_key *key)
{
    rc_result entry;
    if (key->value_len != RC_ENTRY_SIZE || key->expires_ms == RC_STORE_NEVER)
        return false;
    rc_entry_read(&entry, key->value, key->value_len);
    return entry.kind == RC_KIND_LEASE;
}

static char *copy_of(struct rc_text bytes)
{
    char *copy = malloc(bytes.len > 0 ? bytes.len : 1);
    if (copy != NULL && bytes.len > 0)
        memcpy(copy, bytes.bytes, bytes.len);
    return copy;
}

int rc_key_write(struct rc_store *store, uint32_t database, struct rc_text name,
                 struct rc_text value, int64_t expires_ms)
{
    char *copy = copy_of(value); /* first: the value may be this key's own */
    struct rc_key *key = copy == NULL ? NULL : rc_key_peek(store, database, name);
    if (copy != NULL && key == NULL)
        key = new_key(store, database, name);
    if (key == NULL) {
        free(copy);
        return RC_ERR_NOMEM;
    }
    free(key->value);
    take_value(store, key, copy, value.len);
    key->expires_ms = expires_ms;
    rc_key_pin(store, key, is_lease(key));
    tell_change(store, key, false);
    return 0;
}

int rc_key_splice(struct rc_store *store, struct rc_key *key, size_t offset, struct rc_text bytes)
{
    size_t old_len = key->value_len, len = offset + bytes.len;
    if (len < old_len)
        len = old_len;
    char *value = realloc(key->value, len > 0 ? len : 1);
    if (value == NULL)
        return RC_ERR_NOMEM;
    if (offset > old_len)
        memset(value + old_len, 0, offset - old_len);
    if (bytes.len > 0)
        memcpy(value + offset, bytes.bytes, bytes.len);
    take_value(store, key, value, len);
    rc_key_pin(store, key, is_lease(key));
    tell_change(store, key, false);
    return 0;
}

void rc_key_set_expiry(struct rc_store *store, struct rc_key *key, int64_t expires_ms)
{
    key->expires_ms = expires_ms;
    tell_change(store, key, false);
}

int rc_key_rename(struct rc_store *store, struct rc_key *key, struct rc_text name)
{
    struct rc_key *target = rc_key_peek(store, key->item.place, name);
    if (target == NULL)
        target = new_key(store, key->item.place, name);
    if (target == NULL)
        return RC_ERR_NOMEM;
    bool pinned = key->is_pinned;
    char *value = key->value;
    size_t len = key->value_len;
    free(target->value);
    take_value(store, target, value, len);
    target->expires_ms = key->expires_ms;
    take_value(store, key, NULL, 0);
    rc_key_remove(store, key);
    rc_key_pin(store, target, pinned);
    tell_change(store, target, false);
    return 0;
}

/* ---- all keys -------------------------------------------------------------------------------- */

static void tell_flush(struct rc_store *store, uint32_t database)
{
    struct rc_store_change change = {.database = database, .expires_ms = RC_STORE_NEVER};
    rc_tracking_tell_all(store);
    if (store->options.on_change != NULL)
        store->options.on_change(store->options.owner, &change);
}

void rc_key_flush(struct rc_store *store, uint32_t database)
{
    tell_flush(store, database);
    for (size_t i = 0; i < store->keys.bucket_count; i++) {
        struct rc_table_node *node = store->keys.buckets[i], *next;
        for (; node != NULL; node = next) {
            next = node->next;
            if (place_of(node) != database && database != RC_STORE_DATABASES)
                continue;
            rc_watch_tell(store, place_of(node), rc_key_name(rc_key_of(node)));
            free_key(store, rc_key_of(node));
        }
    }
    if (store->keys.count == 0)
        rc_table_deinit(&store->keys);
}

bool rc_key_make_room(struct rc_store *store, size_t more)
{
    size_t max = store->max_bytes;
    if (max == 0)
        return true;
    if (store->pinned_bytes > max || more > max - store->pinned_bytes)
        return false;
    while (store->bytes > max - more && !rc_list_is_empty(&store->used)) {
        struct rc_item *item = RC_CONTAINER(store->used.next, struct rc_item, use);
        if (item->place >= RC_PLACE_TRACKED) {
            rc_tracking_tell(store, (struct rc_text){item->node.key, item->node.key_len});
            continue;
        }
        store->stats.evictions++;
        rc_key_remove(store, RC_CONTAINER(item, struct rc_key, item));
    }
    return true;
}

void rc_key_track(struct rc_store *store, struct rc_session *session, struct rc_text name)
{
    /* Only now: when the key is evicted for it, this session must be told. */
    if (rc_tracking_remember(store, session, name))
        (void)rc_key_make_room(store, 0);
}

/* The table only grows, and then a key stays in its bucket or moves to one far behind: a cursor
   that counts up misses none, though it may meet one twice. */
uint64_t rc_key_scan(const struct rc_store *store, uint64_t cursor, uint32_t database,
                     void (*tell)(void *owner, struct rc_key *key), void *owner)
{
    if (cursor >= store->keys.bucket_count)
        return 0;
    size_t count = store->keys.count;
    struct rc_table_node *node = store->keys.buckets[cursor], *next;
    for (; node != NULL; node = next) {
        next = node->next;
        if (place_of(node) == database)
            tell(owner, rc_key_of(node));
    }
    assert(store->keys.count <= count); /* `tell` has added none */
    return cursor + 1 < store->keys.bucket_count ? cursor + 1 : 0;
}
