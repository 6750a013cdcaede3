#include "engine/fetch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"

enum { JOIN_US = 5000 }; /* the smallest maxStale there is */

struct rc_fetch {
    struct rc_table_node node; /* in `open`, while it may be joined */
    struct rc_list place;      /* in `idle`, when not in use */
    struct rc_fetches *fetches;
    struct rc_list waiting; /* ops by `member`, oldest first */
    struct rc_req *req;     /* until it is answered; it borrows the key of the first who wait */
    uint64_t hash;
    uint32_t write_version; /* of the machine, before the request was made */
    bool is_open;
    bool doomed;
    bool is_left_out; /* nor is it tracked */
    uint8_t group;
    int64_t ttl_us;
};

void rc_fetches_init(struct rc_fetches *fetches, struct rc_context *context,
                     struct rc_topology *topology, struct rc_near *near)
{
    memset(fetches, 0, sizeof *fetches);
    fetches->context = context;
    fetches->topology = topology;
    fetches->near = near;
    rc_table_init(&fetches->open, &context->seed);
    rc_list_init(&fetches->idle);
}

void rc_fetches_deinit(struct rc_fetches *fetches)
{
    RC_LIST_EACH(place, following, &fetches->idle) {
        struct rc_fetch *fetch = RC_CONTAINER(place, struct rc_fetch, place);
        free(fetch);
    }
    rc_table_deinit(&fetches->open);
}

/* What a replica says is not kept; what a node of a cluster says is, as long as nobody doubts that
   the key is its own. */
static bool may_keep(const struct rc_fetches *fetches, const struct rc_server_node *node,
                     int32_t slot)
{
    return node->is_in_cluster ? rc_topology_may_keep(fetches->topology, node, slot)
                               : !rc_node_is_replica(node);
}

bool rc_fetch_is_possible(const struct rc_fetches *fetches, struct rc_op *op)
{
    int32_t slot = rc_topology_slot_of(fetches->topology, op);
    struct rc_server_node *node = rc_topology_node(fetches->topology, slot);
    if (node->near == NULL)
        rc_node_seek_owner(node);
    if (rc_buf_len(&op->ask.key) > RC_NEAR_MAX_KEY || !rc_node_can_keep(node))
        return false;
    bool is_possible = may_keep(fetches, node, slot);
    if (!is_possible) /* the masters are asked whether they agree, and a replica what it is now */
        rc_horizon_watch(&node->horizon);
    return is_possible;
}

static struct rc_fetch *take(struct rc_fetches *fetches)
{
    struct rc_fetch *fetch;
    if (!rc_list_is_empty(&fetches->idle)) {
        fetch = RC_CONTAINER(fetches->idle.next, struct rc_fetch, place);
        rc_list_remove(&fetch->place);
        return fetch;
    }
    fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    fetch->fetches = fetches;
    rc_list_init(&fetch->waiting);
    rc_list_init(&fetch->place);
    return fetch;
}

static void shut(struct rc_fetch *fetch)
{
    if (fetch->is_open)
        rc_table_remove(&fetch->fetches->open, &fetch->node);
    fetch->is_open = false;
}

static void give(struct rc_fetch *fetch)
{
    shut(fetch);
    fetch->req = NULL;
    rc_list_prepend(&fetch->fetches->idle, &fetch->place);
}

/* ---- keeping the answer ---------------------------------------------------------------------- */

/* Until when a copy may be served: to the entry's end or, before that, the view's ttl. */
static int64_t cap(const struct rc_fetch *fetch, rc_result *entry, int64_t sent_us)
{
    int64_t deadline_us = rc_entry_deadline(entry, sent_us);
    int64_t cap_us = sent_us + fetch->ttl_us;
    if (fetch->ttl_us == 0 || deadline_us <= cap_us)
        return deadline_us;
    if (entry->entry_flags & RC_ENTRY_EXTRA) { /* then its readers cannot tell its soft expiry */
        rc_result plain = *entry;
        plain.entry_flags = 0;
        deadline_us = rc_entry_deadline(&plain, sent_us);
        entry->entry_flags |= RC_ENTRY_CAPPED;
    }
    return deadline_us < cap_us ? deadline_us : cap_us;
}

/* Offers the answer to the near cache. False: it is nothing to keep. */
static bool offer(struct rc_fetch *fetch, const struct rc_req *req, const struct rc_reply *reply)
{
    struct rc_fetches *fetches = fetch->fetches;
    const rc_node *value = &reply->nodes[0];
    if (fetch->is_left_out || reply->count < 2 || value->type != '$' ||
        reply->nodes[1].type != ':' || !rc_node_can_keep(req->link->node) ||
        !may_keep(fetches, req->link->node, req->slot))
        return false;
    /* A slot that was away and is back may have been written elsewhere behind this answer. */
    if (req->sent_us <= req->link->node->epoch_us)
        fetch->doomed = true;
    if (fetch->doomed) {
        rc_near_count_doom(fetches->near, fetch->hash);
        return false;
    }
    rc_result entry = {.ttl_ms = reply->nodes[1].integer};
    rc_entry_read(&entry, value->str, value->len);
    bool is_value = (entry.kind == RC_KIND_VALUE || entry.kind == RC_KIND_NEGATIVE ||
                     entry.kind == RC_KIND_PLAIN) &&
                    !(entry.entry_flags & RC_ENTRY_CAPPED);
    int64_t deadline_us = cap(fetch, &entry, req->sent_us);
    if (!is_value || deadline_us <= fetches->context->now_us ||
        rc_entry_is_too_large(value->len, fetches->context->options.max_value_bytes))
        return false;
    struct rc_near_entry kept = {.hash = fetch->hash,
                                 .key = rc_buf_head(req->read_key),
                                 .key_len = rc_buf_len(req->read_key),
                                 .value = entry.data,
                                 .value_len = entry.len,
                                 .kind = entry.kind,
                                 .codec = entry.codec,
                                 .entry_flags = entry.entry_flags,
                                 .group = fetch->group,
                                 .deadline_us = deadline_us};
    memcpy(kept.version, entry.version, sizeof kept.version);
    struct rc_near_owner *owner =
        RC_MUTANT(EPOCH_PER_CLIENT) ? fetches->topology->node.owner : req->link->node->owner;
    rc_near_fill(fetches->near, owner, &kept, fetch->write_version);
    return true;
}

/* What is handed out and not kept must not be followed by an older copy that another process of
   this machine has read, and whose push is still on its way to it. */
static void keep(struct rc_fetch *fetch, const struct rc_req *req, const struct rc_reply *reply)
{
    if (!offer(fetch, req, reply))
        rc_near_drop(fetch->fetches->near, rc_buf_head(req->read_key), rc_buf_len(req->read_key),
                     RC_NEAR_UNKEPT);
}

void rc_fetches_push(struct rc_fetches *fetches, const struct rc_link *link, const char *key,
                     size_t len)
{
    /* Before the first of the two answers a push is about an older value; behind the second the
       copy is dropped. Only between them does it concern what is being read. */
    struct rc_req *req = rc_link_half_answered(link);
    struct rc_fetch *fetch = req != NULL && req->detail == fetches ? req->owner : NULL;
    if (fetch == NULL || (key != NULL && !rc_buf_is(req->read_key, key, len)))
        return;
    fetch->doomed = !RC_MUTANT(FILL_AFTER_INVALIDATION);
    shut(fetch);
}

/* ---- the request ----------------------------------------------------------------------------- */

static struct rc_op *first_of(const struct rc_fetch *fetch)
{
    if (rc_list_is_empty(&fetch->waiting))
        return NULL;
    return RC_CONTAINER(fetch->waiting.next, struct rc_op, run.member);
}

/* To every op but the last goes a copy. */
static void deliver(struct rc_fetch *fetch, int status, struct rc_reply *reply, const char *text)
{
    struct rc_fetches *fetches = fetch->fetches;
    struct rc_op *op;
    while ((op = first_of(fetch)) != NULL) {
        struct rc_reply copy;
        rc_list_remove(&op->run.member);
        op->run.fetch = NULL;
        if (status != 0 || rc_list_is_empty(&fetch->waiting)) {
            op->run.receiver->take(op->run.receiver, op, status, reply, text);
            continue;
        }
        rc_reply_init(&copy);
        int error = rc_reply_copy(&copy, reply);
        fetches->context->stats.shared++;
        op->run.receiver->take(op->run.receiver, op, error, error == 0 ? &copy : NULL, NULL);
        rc_reply_deinit(&copy);
    }
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_fetch *fetch = req->owner;
    shut(fetch);
    if (status == 0)
        keep(fetch, req, reply);
    deliver(fetch, status, reply, text);
    give(fetch);
}

/* A new one for the op's key, or NULL. */
static struct rc_fetch *begin(struct rc_fetches *fetches, const struct rc_op *op, uint64_t hash)
{
    struct rc_fetch *fetch = take(fetches);
    struct rc_req *req = fetch != NULL ? rc_req_take_read(fetches->context, op) : NULL;
    if (req == NULL)
        goto fail;
    fetch->node.key = rc_buf_head(req->read_key);
    fetch->node.key_len = rc_buf_len(req->read_key);
    if (rc_table_insert(&fetches->open, &fetch->node) != 0)
        goto fail_req;
    fetch->is_open = true;
    fetch->doomed = false;
    fetch->hash = hash;
    fetch->write_version = rc_near_write_version(fetches->near, hash);
    fetch->group = op->ask.near_group;
    fetch->ttl_us = op->ask.near_ttl_us;
    fetch->req = req;
    fetch->is_left_out = op->ask.near_avoids && rc_near_avoids(fetches->near, hash);
    req->is_tracked = !fetch->is_left_out;
    req->done = on_answer;
    req->owner = fetch;
    req->detail = fetches;
    return fetch;

fail_req:
    rc_req_give(req);
fail:
    if (fetch != NULL)
        give(fetch);
    return NULL;
}

static struct rc_fetch *find(struct rc_fetches *fetches, const char *key, size_t len, uint64_t hash)
{
    struct rc_fetch *fetch = (struct rc_fetch *)(void *)rc_table_find(&fetches->open, key, len);
    /* What this machine has written since then must be seen by those who ask now; and what others
       have written, with the delay they allow. */
    if (fetch == NULL || fetch->write_version != rc_near_write_version(fetches->near, hash))
        return NULL;
    int64_t sent_us = fetch->req->sent_us;
    return sent_us == 0 || fetches->context->now_us - sent_us <= JOIN_US ? fetch : NULL;
}

void rc_fetch_start(struct rc_fetches *fetches, struct rc_op *op, struct rc_receiver *receiver,
                    int64_t timeout_ms)
{
    struct rc_context *context = fetches->context;
    const char *key = rc_buf_head(&op->ask.key);
    size_t len = rc_buf_len(&op->ask.key);
    uint64_t hash = rc_near_hash(fetches->near, key, len);
    int64_t until_us = rc_context_after_ms(context, timeout_ms);
    int32_t slot = rc_topology_slot_of(fetches->topology, op);
    op->run.receiver = receiver;
    rc_horizon_watch(&rc_topology_node(fetches->topology, slot)->horizon);
    struct rc_fetch *fetch = op->ask.flags & RC_FRESH ? NULL : find(fetches, key, len, hash);
    if (fetch != NULL) {
        op->run.fetch = fetch;
        rc_list_append(&fetch->waiting, &op->run.member);
        if (fetch->req->error == 0 && fetch->req->timer.at_us < until_us)
            rc_context_set_timer(context, &fetch->req->timer, until_us);
        return;
    }
    fetch = begin(fetches, op, hash);
    if (fetch == NULL) {
        receiver->take(receiver, op, RC_ERR_NOMEM, NULL, NULL);
        return;
    }
    op->run.fetch = fetch;
    rc_list_append(&fetch->waiting, &op->run.member);
    rc_topology_send(fetches->topology, fetch->req, slot, until_us);
}

void rc_fetch_leave(struct rc_op *op)
{
    struct rc_fetch *fetch = op->run.fetch;
    assert(fetch != NULL);
    op->run.fetch = NULL;
    rc_list_remove(&op->run.member);
    if (!rc_list_is_empty(&fetch->waiting)) { /* it goes on with the key of one who stays */
        fetch->req->read_key = &first_of(fetch)->ask.key;
        fetch->node.key = rc_buf_head(fetch->req->read_key);
        return;
    }
    shut(fetch);
    rc_link_forget(fetch->req);
    give(fetch);
}
