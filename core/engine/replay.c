#include "engine/replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/script.h"

enum { REPLAY_US = 10 * 1000 * 1000, KEEP_BYTES = 1024 };

static struct rc_replay_entry *entry_of(struct rc_list *place)
{
    return RC_CONTAINER(place, struct rc_replay_entry, place);
}

void rc_replay_init(struct rc_replay *replay, struct rc_context *context)
{
    memset(replay, 0, sizeof *replay);
    replay->context = context;
    rc_table_init(&replay->by_key, &context->seed);
    rc_list_init(&replay->noted);
    rc_list_init(&replay->idle);
}

void rc_replay_deinit(struct rc_replay *replay)
{
    for (size_t i = 0; replay->entries != NULL && i < RC_REPLAY_ENTRIES; i++)
        rc_buf_deinit(&replay->entries[i].key);
    rc_table_deinit(&replay->by_key);
    free(replay->entries);
    free(replay->seen);
}

/* ---- versions -------------------------------------------------------------------------------- */

/* Fast, not strong: keys of one hash take each other's version, which then stands nowhere. */
static uint64_t hash_of(const char *key, size_t len)
{
    const uint64_t prime = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t hash = (len + 1) * prime, word = 0;
    size_t at = 0;
    for (; at + sizeof word < len; at += sizeof word) {
        memcpy(&word, key + at, sizeof word);
        hash = (hash ^ word) * prime;
        hash ^= hash >> 29;
    }
    word = 0;
    if (len >= sizeof word) /* the last bytes as one word; some of them for the second time */
        memcpy(&word, key + len - sizeof word, sizeof word);
    else if (len > 0) /* a key without bytes may be NULL */
        memcpy(&word, key, len);
    hash = (hash ^ word) * prime;
    return hash ^ hash >> 32;
}

static struct rc_replay_seen *place_of(const struct rc_replay *replay, uint64_t hash)
{
    return &replay->seen[hash % RC_REPLAY_SEEN];
}

void rc_replay_saw(struct rc_replay *replay, const char *key, size_t len,
                   const char version[RC_NONCE_SIZE])
{
    if (replay->seen == NULL)
        replay->seen = calloc(RC_REPLAY_SEEN, sizeof *replay->seen);
    if (replay->seen == NULL)
        return;
    uint64_t hash = hash_of(key, len);
    struct rc_replay_seen *seen = place_of(replay, hash);
    seen->hash = hash;
    memcpy(seen->version, version, RC_NONCE_SIZE);
}

static const char *find_version(const struct rc_replay *replay, const char *key, size_t len)
{
    uint64_t hash = hash_of(key, len);
    const struct rc_replay_seen *seen = replay->seen != NULL ? place_of(replay, hash) : NULL;
    return seen != NULL && seen->hash == hash ? seen->version : NULL;
}

/* ---- noting ---------------------------------------------------------------------------------- */

static struct rc_replay_entry *find(const struct rc_replay *replay, const char *key, size_t len)
{
    struct rc_table_node *node =
        replay->by_key.count > 0 ? rc_table_find(&replay->by_key, key, len) : NULL;
    return node != NULL ? RC_CONTAINER(node, struct rc_replay_entry, node) : NULL;
}

const char *rc_replay_known(const struct rc_replay *replay, const char *key, size_t len)
{
    const struct rc_replay_entry *entry = find(replay, key, len);
    return entry != NULL && entry->is_known ? entry->version : NULL;
}

static void forget(struct rc_replay *replay, struct rc_replay_entry *entry)
{
    rc_table_remove(&replay->by_key, &entry->node);
    replay->bytes -= rc_buf_len(&entry->key);
    rc_buf_clear(&entry->key);
    rc_buf_trim(&entry->key, KEEP_BYTES);
    rc_list_remove(&entry->place);
    rc_list_append(&replay->idle, &entry->place);
}

static bool is_fresh(const struct rc_replay *replay, int64_t at_us)
{
    return replay->context->now_us - at_us <= REPLAY_US;
}

static void squeeze_oldest(struct rc_replay *replay)
{
    struct rc_replay_entry *entry = entry_of(replay->noted.next);
    int64_t now_us = replay->context->now_us;
    if (!is_fresh(replay, replay->squeezed_us))
        replay->squeezed = 0;
    if (entry->is_acknowledged && !entry->is_overruled && is_fresh(replay, entry->acked_us)) {
        replay->squeezed++;
        replay->squeezed_us = now_us;
    }
    forget(replay, entry);
}

static bool make_entries(struct rc_replay *replay)
{
    if (replay->entries != NULL)
        return true;
    replay->entries = calloc(RC_REPLAY_ENTRIES, sizeof *replay->entries);
    for (size_t i = 0; replay->entries != NULL && i < RC_REPLAY_ENTRIES; i++) {
        rc_buf_init(&replay->entries[i].key);
        rc_list_init(&replay->entries[i].place);
        rc_list_append(&replay->idle, &replay->entries[i].place);
    }
    return replay->entries != NULL;
}

/* A new entry of that key, the newest; NULL: no room. */
static struct rc_replay_entry *add(struct rc_replay *replay, const char *key, size_t len)
{
    if (len > RC_REPLAY_BYTES / 4 || !make_entries(replay))
        return NULL;
    while (rc_list_is_empty(&replay->idle) || replay->bytes + len > RC_REPLAY_BYTES)
        squeeze_oldest(replay);
    struct rc_replay_entry *entry = entry_of(replay->idle.next);
    if (rc_buf_append(&entry->key, key, len) != 0)
        return NULL;
    entry->node.key = rc_buf_head(&entry->key);
    entry->node.key_len = len;
    if (rc_table_insert(&replay->by_key, &entry->node) != 0) {
        rc_buf_clear(&entry->key);
        return NULL;
    }
    replay->bytes += len;
    entry->is_known = entry->has_next = entry->is_acknowledged = entry->is_overruled = false;
    entry->pending = 0;
    return entry;
}

void rc_replay_begin(struct rc_replay *replay, const char *key, size_t len,
                     const char version[RC_NONCE_SIZE])
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (version == NULL)
        version = find_version(replay, key, len);
    if (entry == NULL)
        entry = add(replay, key, len);
    if (entry == NULL)
        return;
    /* What was seen before the first of those without an answer was seen before each of them. And
       it is not what the entry is about before one is acknowledged (spec/model/replay.pml). */
    if (entry->pending++ == 0) {
        entry->has_next = version != NULL;
        if (version != NULL)
            memcpy(entry->next, version, RC_NONCE_SIZE);
    }
    rc_list_remove(&entry->place);
    rc_list_append(&replay->noted, &entry->place);
}

void rc_replay_end(struct rc_replay *replay, const char *key, size_t len, bool is_acknowledged)
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (entry == NULL)
        return;
    if (entry->pending > 0)
        entry->pending--;
    if (is_acknowledged) {
        entry->is_acknowledged = true;
        entry->is_overruled = false;
        /* Else an earlier delete's version stands: it was seen before this one, too. */
        if (entry->has_next) {
            entry->is_known = true;
            memcpy(entry->version, entry->next, RC_NONCE_SIZE);
        }
        entry->acked_us = replay->context->now_us;
        entry->generation = replay->generation;
    } else if (!entry->is_acknowledged && entry->pending == 0) {
        forget(replay, entry);
    }
}

void rc_replay_overrule(struct rc_replay *replay, const char *key, size_t len)
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (entry != NULL && entry->pending == 0)
        entry->is_overruled = true;
}

/* ---- sending again --------------------------------------------------------------------------- */

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    const struct rc_replay *replay = req->owner;
    bool is_overruled = req->detail != NULL;
    bool is_told = status == 0 && reply->nodes[0].type == ':';
    (void)text;
    if (!is_told || (reply->nodes[0].integer < 0 && !is_overruled))
        replay->context->stats.deletes_lost++;
}

static int encode(struct rc_req *req, const struct rc_replay_entry *entry)
{
    const char *key = rc_buf_head(&entry->key);
    size_t len = rc_buf_len(&entry->key);
    if (RC_MUTANT(REPLAY_ANY)) {
        int error = rc_command_head(&req->bytes, 2);
        error |= rc_command_text(&req->bytes, "UNLINK");
        return error | rc_command_bytes(&req->bytes, key, len);
    }
    req->script = RC_SCRIPT_UNLINK_VERSION;
    int error = rc_script_begin(&req->bytes, RC_SCRIPT_UNLINK_VERSION, 1, 1);
    error |= rc_command_bytes(&req->bytes, key, len);
    return error | rc_command_bytes(&req->bytes, entry->version, RC_NONCE_SIZE);
}

static void send_again(struct rc_replay *replay, struct rc_link *link,
                       const struct rc_replay_entry *entry)
{
    struct rc_context *context = replay->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL || encode(req, entry) != 0) {
        if (req != NULL)
            rc_req_give(req);
        context->stats.deletes_lost++;
        return;
    }
    req->expect = 1;
    req->may_retry = true; /* it compares */
    req->done = on_answer;
    req->owner = replay;
    req->detail = entry->is_overruled ? replay : NULL;
    rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
}

static void send_lost(struct rc_replay *replay, struct rc_link *link)
{
    RC_LIST_EACH(place, following, &replay->noted) {
        struct rc_replay_entry *entry = entry_of(place);
        if (!entry->is_acknowledged || entry->generation == replay->generation)
            continue;
        if (!is_fresh(replay, entry->acked_us)) {
            if (entry->pending == 0)
                forget(replay, entry);
            continue;
        }
        entry->generation = replay->generation;
        if (entry->is_known || RC_MUTANT(REPLAY_ANY))
            send_again(replay, link, entry);
        else if (!entry->is_overruled)
            replay->context->stats.deletes_lost++;
    }
    if (is_fresh(replay, replay->squeezed_us))
        replay->context->stats.deletes_lost += replay->squeezed;
    replay->squeezed = 0;
}

void rc_replay_send(struct rc_replay *replay, struct rc_link *link)
{
    if (link->identity.role == RC_SERVER_REPLICA)
        return; /* it takes no writes; what it has lost is told when a master answers */
    bool is_loss = rc_identity_is_loss(&replay->server, &link->identity);
    replay->server = link->identity;
    if (RC_MUTANT(REPLAY_LATE_EPOCH) || (!is_loss && !RC_MUTANT(REPLAY_ANY)))
        return;
    replay->generation++;
    send_lost(replay, link);
}
