#include "store/tracking.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "redcache.h"
#include "store/answer.h"

enum {
    GROUP = 64,        /* sessions in one rc_tracked */
    TRACKED_EXTRA = 24 /* an allocation and a place in the table go with it */
};

static struct rc_tracked *as_tracked(struct rc_table_node *node)
{
    return RC_CONTAINER(RC_CONTAINER(node, struct rc_item, node), struct rc_tracked, item);
}

static size_t cost_of(const struct rc_tracked *tracked)
{
    return sizeof *tracked + TRACKED_EXTRA + tracked->item.node.key_len;
}

static uint64_t bit_of(const struct rc_session *session)
{
    return UINT64_C(1) << session->slot % GROUP;
}

/* ---- pushes ---------------------------------------------------------------------------------- */

/* `name` NULL: everything. */
static int write_push(struct rc_buf *out, const struct rc_text *name)
{
    int error = rc_answer_head(out, '>', 2);
    if (error == 0)
        error = rc_answer_string(out, (struct rc_text){"invalidate", 10});
    if (error == 0 && name == NULL)
        return rc_buf_append(out, "_\r\n", 3);
    if (error == 0)
        error = rc_answer_head(out, '*', 1);
    return error == 0 ? rc_answer_string(out, *name) : error;
}

static void push(struct rc_store *store, struct rc_session *session, const struct rc_text *name)
{
    if (!session->tracks || session->resp < 3 || session->conn.wants_close)
        return;
    bool is_current = session == store->current;
    if (RC_MUTANT(NOLOOP) && is_current && name != NULL)
        return;
    if (write_push(is_current ? &store->later : &session->conn.output, name) != 0)
        session->conn.wants_close = true;
    if (!is_current && store->options.on_push != NULL)
        store->options.on_push(store->options.owner, &session->conn);
}

/* ---- tracked names ------------------------------------------------------------------------- */

static struct rc_tracked *find_tracked(const struct rc_store *store, uint32_t place,
                                       struct rc_text name)
{
    struct rc_table_node *node = rc_table_find(&store->tracked, name.bytes, name.len);
    while (node != NULL && as_tracked(node)->item.place != place)
        node = rc_table_find_next(node);
    return node == NULL ? NULL : as_tracked(node);
}

static struct rc_tracked *new_tracked(struct rc_store *store, uint32_t place, struct rc_text name)
{
    struct rc_tracked *tracked = calloc(1, sizeof *tracked + name.len);
    if (tracked == NULL)
        return NULL;
    if (name.len > 0)
        memcpy(tracked->name, name.bytes, name.len);
    tracked->item.node.key = tracked->name;
    tracked->item.node.key_len = name.len;
    tracked->item.place = place;
    if (rc_table_insert(&store->tracked, &tracked->item.node) != 0) {
        free(tracked);
        return NULL;
    }
    rc_list_append(&store->used, &tracked->item.use);
    store->bytes += cost_of(tracked);
    return tracked;
}

static void free_tracked(struct rc_store *store, struct rc_tracked *tracked)
{
    rc_list_remove(&tracked->item.use);
    rc_table_remove(&store->tracked, &tracked->item.node);
    store->bytes -= cost_of(tracked);
    free(tracked);
}

static bool is_named(const struct rc_key *key, struct rc_text name)
{
    return key->item.node.key_len == name.len && memcmp(key->name, name.bytes, name.len) == 0;
}

/* The key, if the command has found it, remembers that this session tracks its name: the next read
   need not look for that. */
bool rc_tracking_remember(struct rc_store *store, struct rc_session *session, struct rc_text name)
{
    struct rc_key *key = store->found;
    uint64_t bit = bit_of(session);
    if (key != NULL && (session->slot >= GROUP || !is_named(key, name)))
        key = NULL;
    if (key != NULL && (key->readers & bit) != 0)
        return false;
    uint32_t place = RC_PLACE_TRACKED + session->slot / GROUP;
    struct rc_tracked *tracked = find_tracked(store, place, name);
    bool is_new = tracked == NULL;
    if (is_new)
        tracked = new_tracked(store, place, name);
    if (tracked == NULL) {
        push(store, session, &name);
        return false;
    }
    tracked->sessions |= bit;
    if (key != NULL)
        key->readers |= bit;
    return is_new;
}

/* Keys of this name in any database. */
static void forget_readers(struct rc_store *store, struct rc_text name)
{
    struct rc_table_node *node = rc_table_find(&store->keys, name.bytes, name.len);
    for (; node != NULL; node = rc_table_find_next(node))
        rc_key_of(node)->readers = 0;
}

static void tell_sessions(struct rc_store *store, const struct rc_tracked *tracked)
{
    struct rc_text name = {tracked->name, tracked->item.node.key_len};
    uint32_t slot = (tracked->item.place - RC_PLACE_TRACKED) * GROUP;
    for (uint64_t left = tracked->sessions; left != 0; left >>= 1, slot++) {
        if ((left & 1) == 0)
            continue;
        assert(slot < store->session_room && store->sessions[slot] != NULL); /* it was forgotten */
        push(store, store->sessions[slot], &name);
    }
}

void rc_tracking_tell(struct rc_store *store, struct rc_text name)
{
    struct rc_table_node *node = rc_table_find(&store->tracked, name.bytes, name.len), *next;
    if (node == NULL)
        return;
    forget_readers(store, name);
    for (; node != NULL; node = next) {
        next = rc_table_find_next(node);
        tell_sessions(store, as_tracked(node));
        free_tracked(store, as_tracked(node));
    }
}

void rc_tracking_tell_all(struct rc_store *store)
{
    struct rc_table_node *node;
    while ((node = rc_table_any(&store->tracked)) != NULL)
        free_tracked(store, as_tracked(node));
    for (size_t i = 0; i < store->keys.bucket_count; i++) {
        for (node = store->keys.buckets[i]; node != NULL; node = node->next)
            rc_key_of(node)->readers = 0;
    }
    for (uint32_t i = 0; i < store->session_room; i++) {
        if (store->sessions[i] != NULL)
            push(store, store->sessions[i], NULL);
    }
}

void rc_tracking_forget(struct rc_store *store, const struct rc_session *session)
{
    uint32_t place = RC_PLACE_TRACKED + session->slot / GROUP;
    uint64_t others = ~bit_of(session);
    for (size_t i = 0; i < store->tracked.bucket_count; i++) {
        struct rc_table_node *node = store->tracked.buckets[i], *next;
        for (; node != NULL; node = next) {
            next = node->next;
            struct rc_tracked *tracked = as_tracked(node);
            if (tracked->item.place != place)
                continue;
            tracked->sessions &= others;
            if (tracked->sessions == 0)
                free_tracked(store, tracked);
        }
    }
    for (size_t i = 0; place == RC_PLACE_TRACKED && i < store->keys.bucket_count; i++) {
        for (struct rc_table_node *node = store->keys.buckets[i]; node != NULL; node = node->next)
            rc_key_of(node)->readers &= others;
    }
}
