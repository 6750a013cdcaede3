#include "store/store.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "store/answer.h"
#include "store/key.h"
#include "store/session.h"
#include "store/tracking.h"
#include "store/verb.h"

static const struct rc_verb *const tables[] = {
    rc_connection_verbs, rc_counter_verbs, rc_expiry_verbs, rc_keyspace_verbs, rc_multi_verbs,
    rc_pubsub_verbs,     rc_script_verbs,  rc_server_verbs, rc_set_verbs,      rc_string_verbs,
};

enum { KEEP_BYTES = 64 * 1024 }; /* room that empty buffers keep */

/* ---- life ------------------------------------------------------------------------------------ */

int rc_store_new(struct rc_store **result, const struct rc_store_options *options)
{
    struct rc_store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return RC_ERR_NOMEM;
    store->options = *options;
    store->max_bytes = options->max_bytes;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        rc_verb_add(store, tables[i]);
    if (options->compares)
        rc_verb_add(store, rc_compare_verbs);
    rc_table_init(&store->keys, &options->seed);
    rc_table_init(&store->tracked, &options->seed);
    rc_list_init(&store->used);
    rc_buf_init(&store->later);
    rc_buf_init(&store->script_out);
    *result = store;
    return 0;
}

void rc_store_free(struct rc_store *store)
{
    store->options.on_push = NULL;
    store->options.on_change = NULL;
    for (uint32_t i = 0; i < store->session_room; i++) {
        if (store->sessions[i] != NULL)
            rc_session_free(store->sessions[i]);
    }
    rc_key_flush(store, RC_STORE_DATABASES);
    rc_table_deinit(&store->keys);
    rc_table_deinit(&store->tracked);
    rc_buf_deinit(&store->later);
    rc_buf_deinit(&store->script_out);
    free(store->sessions);
    free(store);
}

void rc_store_set_time(struct rc_store *store, int64_t unix_us)
{
    if (store->started_us == 0)
        store->started_us = unix_us;
    store->now_us = unix_us;
}

void rc_store_set_role(struct rc_store *store, enum rc_store_role role)
{
    store->histories += store->role == RC_STORE_REPLICA && role == RC_STORE_MASTER;
    store->role = role;
}

/* ---- connections ----------------------------------------------------------------------------- */

static struct rc_session *session_of(struct rc_store_conn *conn)
{
    return RC_CONTAINER(conn, struct rc_session, conn);
}

int rc_store_connect(struct rc_store *store, struct rc_store_conn **conn)
{
    struct rc_session *session = rc_session_new(store);
    if (session == NULL)
        return RC_ERR_NOMEM;
    *conn = &session->conn;
    return 0;
}

void rc_store_disconnect(struct rc_store_conn *conn)
{
    rc_session_free(session_of(conn));
}

/* Pushes for the session that did the command follow its answer. */
static void send_later(struct rc_session *session)
{
    struct rc_buf *later = &session->store->later;
    if (rc_buf_len(later) == 0)
        return;
    if (rc_buf_append(&session->conn.output, rc_buf_head(later), rc_buf_len(later)) != 0)
        session->conn.wants_close = true;
    rc_buf_clear(later);
    rc_buf_trim(later, KEEP_BYTES);
}

static void do_request(struct rc_session *session)
{
    struct rc_store *store = session->store;
    if (session->request.count == 0)
        return;
    struct rc_call call = {
        .store = store,
        .session = session,
        .args = session->request.args,
        .count = session->request.count,
        .resp = session->resp,
        .out = &session->conn.output,
        .mark = rc_buf_len(&session->conn.output),
    };
    store->stats.commands++;
    store->current = session;
    rc_verb_do(&call);
    store->current = NULL;
    send_later(session);
}

static void refuse_bytes(struct rc_session *session)
{
    struct rc_call call = {.session = session, .out = &session->conn.output};
    rc_answer_error(&call, "ERR Protocol error: %s", session->request.wrong);
    session->conn.wants_close = true;
}

/* Returns how many of the bytes were used. */
static size_t do_requests(struct rc_session *session, const char *bytes, size_t len)
{
    size_t done = 0;
    while (done < len && !session->conn.wants_close) {
        size_t used;
        int found = rc_request_read(&session->request, bytes + done, len - done, &used);
        if (found == 0)
            break;
        if (found == 1) {
            done += used;
            do_request(session);
        } else if (found == RC_ERR_PROTOCOL) {
            refuse_bytes(session);
        } else {
            session->conn.wants_close = true;
        }
    }
    return done;
}

int rc_store_feed(struct rc_store_conn *conn, const char *bytes, size_t len)
{
    struct rc_session *session = session_of(conn);
    struct rc_buf *input = &session->input;
    if (conn->wants_close)
        return 0;
    if (rc_buf_len(input) == 0) {
        size_t used = do_requests(session, bytes, len);
        bytes += used;
        len -= used;
        if (conn->wants_close)
            return 0;
    }
    bool had_begun = rc_buf_len(input) > 0;
    if (rc_buf_append(input, bytes, len) != 0) {
        conn->wants_close = true;
        return RC_ERR_NOMEM;
    }
    if (had_begun) {
        rc_buf_consume(input, do_requests(session, rc_buf_head(input), rc_buf_len(input)));
        rc_buf_trim(input, KEEP_BYTES);
    }
    return 0;
}

/* ---- time and replication -------------------------------------------------------------------- */

static size_t sweep_bucket(struct rc_store *store, size_t bucket, size_t *looked)
{
    size_t expired = 0;
    struct rc_table_node *node = store->keys.buckets[bucket], *next;
    for (; node != NULL; node = next, ++*looked) {
        next = node->next;
        expired += rc_key_expire(store, rc_key_of(node));
    }
    return expired;
}

size_t rc_store_sweep(struct rc_store *store, size_t count)
{
    size_t expired = 0, looked = 0;
    if (store->role == RC_STORE_REPLICA)
        return 0;
    for (size_t left = store->keys.bucket_count; left > 0 && looked < count; left--) {
        if (store->sweep_at >= store->keys.bucket_count)
            store->sweep_at = 0;
        looked++; /* at the bucket: a table that is all but empty must not hold a call up */
        expired += sweep_bucket(store, store->sweep_at++, &looked);
    }
    return expired;
}

int rc_store_apply(struct rc_store *store, const struct rc_store_change *change)
{
    struct rc_text name = {change->key, change->key_len};
    struct rc_text value = {change->value, change->value_len};
    if (change->key == NULL) {
        rc_key_flush(store, change->database);
        return 0;
    }
    if (change->value != NULL)
        return rc_key_write(store, change->database, name, value, change->expires_ms);
    struct rc_key *key = rc_key_peek(store, change->database, name);
    if (key != NULL)
        rc_key_remove(store, key);
    return 0;
}

struct listener {
    void (*tell)(void *owner, const struct rc_store_change *change);
    void *owner;
};

static void tell_key(void *owner, struct rc_key *key)
{
    const struct listener *listener = owner;
    struct rc_text name = rc_key_name(key), value = rc_key_value(key);
    struct rc_store_change change = {key->item.place, name.bytes, name.len,
                                     value.bytes,     value.len,  key->expires_ms};
    listener->tell(listener->owner, &change);
}

void rc_store_each(const struct rc_store *from,
                   void (*tell)(void *owner, const struct rc_store_change *change), void *owner)
{
    struct listener listener = {tell, owner};
    for (uint32_t i = 0; i < RC_STORE_DATABASES; i++) {
        uint64_t cursor = 0;
        if (from->key_counts[i] == 0)
            continue;
        do
            cursor = rc_key_scan(from, cursor, i, tell_key, &listener);
        while (cursor != 0);
    }
}

void rc_store_read_stats(const struct rc_store *store, struct rc_store_stats *stats)
{
    *stats = store->stats;
    stats->keys = store->keys.count;
    stats->bytes = store->bytes;
    stats->connections = store->session_count;
}
