#include "engine/replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "base/slot.h"
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

enum { SLOT_BITS = 16, SLOT_MASK = (1 << SLOT_BITS) - 1 };

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

static uint64_t tag_of(int32_t slot, const char *key, size_t len)
{
    return (hash_of(key, len) & ~(uint64_t)SLOT_MASK) | (uint16_t)slot;
}

static struct rc_replay_seen *place_of(const struct rc_replay *replay, uint64_t tag)
{
    return &replay->seen[(tag >> SLOT_BITS) % RC_REPLAY_SEEN];
}

static bool make_seen(struct rc_replay *replay)
{
    if (replay->seen == NULL)
        replay->seen = calloc(RC_REPLAY_SEEN, sizeof *replay->seen);
    return replay->seen != NULL;
}

void rc_replay_saw(struct rc_replay *replay, int32_t slot, const char *key, size_t len,
                   const char version[RC_NONCE_SIZE])
{
    if (!make_seen(replay))
        return;
    uint64_t tag = tag_of(slot, key, len);
    struct rc_replay_seen *seen = place_of(replay, tag);
    seen->tag = tag;
    memcpy(seen->version, version, RC_NONCE_SIZE);
}

static const char *find_version(const struct rc_replay *replay, int32_t slot, const char *key,
                                size_t len)
{
    uint64_t tag = tag_of(slot, key, len);
    const struct rc_replay_seen *seen = replay->seen != NULL ? place_of(replay, tag) : NULL;
    return seen != NULL && seen->tag == tag ? seen->version : NULL;
}

/* Of a key that has come the home may know a newer one, or of another key in the same place. */
static void carry_versions(struct rc_replay *replay, const struct rc_replay_homes *homes)
{
    for (size_t i = 0; replay->seen != NULL && i < RC_REPLAY_SEEN; i++) {
        struct rc_replay_seen *seen = &replay->seen[i];
        uint16_t slot = seen->tag & SLOT_MASK;
        if (seen->tag == 0 || slot >= RC_SLOT_COUNT)
            continue;
        struct rc_replay *home = homes->find(homes->owner, slot);
        if (home == replay)
            continue;
        if (make_seen(home) && home->seen[i].tag == 0)
            home->seen[i] = *seen;
        seen->tag = 0;
    }
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
        replay->squeezed_server = entry->server;
        replay->is_squeezed_unproven = entry->is_unproven;
    }
    forget(replay, entry);
}

void rc_replay_forget(struct rc_replay *replay)
{
    while (!rc_list_is_empty(&replay->noted))
        forget(replay, entry_of(replay->noted.next));
    memset(&replay->server, 0, sizeof replay->server);
    replay->squeezed = 0;
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
    entry->is_unproven = false;
    entry->pending = 0;
    return entry;
}

static bool is_mark_known(const struct rc_identity_mark *mark)
{
    return mark->run != 0 || mark->history != 0;
}

void rc_replay_begin(struct rc_replay *replay, int32_t slot, const char *key, size_t len,
                     const char version[RC_NONCE_SIZE])
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (version == NULL)
        version = find_version(replay, slot, key, len);
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
        entry->asked = rc_identity_mark(&replay->server);
    }
    entry->slot = slot;
    entry->asked_us = replay->context->now_us;
    rc_list_remove(&entry->place);
    rc_list_append(&replay->noted, &entry->place);
}

/* The server that has acknowledged the delete: the present one, unless another had the key when it
   was asked for. That may have done it, before or behind a redirection, a reconnect or a failover:
   then it is taken for the one, which costs a delete that is sent twice. */
static void take_server(const struct rc_replay *replay, struct rc_replay_entry *entry)
{
    struct rc_identity_mark now = rc_identity_mark(&replay->server);
    bool is_other = !is_mark_known(&now) || rc_identity_is_loss(&entry->asked, &replay->server);
    entry->is_unproven = is_mark_known(&entry->asked) && is_other;
    entry->server = entry->is_unproven ? entry->asked : now;
}

bool rc_replay_end(struct rc_replay *replay, const char *key, size_t len, bool is_acknowledged)
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (entry == NULL)
        return false;
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
        take_server(replay, entry);
        return entry->is_unproven;
    }
    if (!entry->is_acknowledged && entry->pending == 0)
        forget(replay, entry);
    return false;
}

void rc_replay_overrule(struct rc_replay *replay, const char *key, size_t len)
{
    struct rc_replay_entry *entry = find(replay, key, len);
    if (entry != NULL && entry->pending == 0)
        entry->is_overruled = true;
}

/* ---- carrying -------------------------------------------------------------------------------- */

/* Behind all that were asked for earlier. At the end of a long list stand those that come late. */
static void place_by_time(struct rc_replay *replay, struct rc_replay_entry *entry)
{
    struct rc_list *at = &replay->noted;
    while (at->prev != &replay->noted && entry_of(at->prev)->asked_us > entry->asked_us)
        at = at->prev;
    rc_list_remove(&entry->place);
    rc_list_append(at, &entry->place);
}

static void carry(struct rc_replay *replay, struct rc_replay_entry *entry, struct rc_replay *home)
{
    bool is_over = entry->pending == 0 && !is_fresh(replay, entry->acked_us);
    struct rc_replay_entry *copy =
        is_over ? NULL : add(home, rc_buf_head(&entry->key), rc_buf_len(&entry->key));
    if (copy != NULL) {
        memcpy(copy->version, entry->version, RC_NONCE_SIZE);
        memcpy(copy->next, entry->next, RC_NONCE_SIZE);
        copy->is_known = entry->is_known;
        copy->has_next = entry->has_next;
        copy->is_acknowledged = entry->is_acknowledged;
        copy->is_overruled = entry->is_overruled;
        copy->is_unproven = true;
        copy->slot = entry->slot;
        copy->pending = entry->pending;
        copy->server = entry->server;
        copy->asked = entry->asked;
        copy->acked_us = entry->acked_us;
        copy->asked_us = entry->asked_us;
        place_by_time(home, copy);
        home->has_come = true;
    }
    forget(replay, entry);
}

void rc_replay_carry(struct rc_replay *replay, const struct rc_replay_homes *homes)
{
    struct rc_replay *last = NULL;
    RC_LIST_EACH(place, following, &replay->noted) {
        struct rc_replay_entry *entry = entry_of(place);
        if (entry->slot < 0)
            entry->slot = rc_slot(rc_buf_head(&entry->key), rc_buf_len(&entry->key));
        struct rc_replay *home = homes->find(homes->owner, (uint16_t)entry->slot);
        if (home == replay)
            continue;
        carry(replay, entry, home);
        last = home;
    }
    /* Of which slots those were that found no room nobody knows. Where all that stood beside them
       have left, so have they. */
    if (last != NULL && rc_list_is_empty(&replay->noted) && replay->squeezed > 0) {
        last->squeezed += replay->squeezed;
        last->squeezed_us = replay->squeezed_us;
        last->squeezed_server = replay->squeezed_server;
        last->is_squeezed_unproven = true;
        replay->squeezed = 0;
    }
    carry_versions(replay, homes);
}

/* ---- sending again --------------------------------------------------------------------------- */

/* What an answer means that is not "it is gone". */
enum {
    IS_LOST,
    MAY_BE_OURS, /* what else stands there is right; what nobody has answered is lost */
    MAY_BE_DONE  /* it may never have been lost */
};

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    const struct rc_replay *replay = req->owner;
    uintptr_t meaning = (uintptr_t)req->detail;
    bool is_told = status == 0 && reply->nodes[0].type == ':';
    (void)text;
    if (is_told ? reply->nodes[0].integer < 0 && meaning == IS_LOST : meaning != MAY_BE_DONE)
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
                       const struct rc_replay_entry *entry, uintptr_t meaning)
{
    struct rc_context *context = replay->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL || encode(req, entry) != 0) {
        if (req != NULL)
            rc_req_give(req);
        context->stats.deletes_lost += meaning != MAY_BE_DONE;
        return;
    }
    req->expect = 1;
    req->slot = entry->slot;
    req->may_retry = true; /* it compares */
    req->done = on_answer;
    req->owner = replay;
    req->detail = (void *)meaning;
    rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
}

/* Whether the present server may have lost what that one has done. Counted it is where it has: it
   stands in the other's place, or was its replica. */
static bool may_be_lost(const struct rc_replay *replay, const struct rc_identity_mark *server)
{
    return rc_identity_is_loss(server, &replay->server) || RC_MUTANT(REPLAY_ANY);
}

static bool counts(const struct rc_replay *replay, const struct rc_identity_mark *server,
                   bool is_unproven)
{
    return !is_unproven || rc_identity_is_heir(server, &replay->server);
}

static void send_lost(struct rc_replay *replay, struct rc_link *link)
{
    struct rc_identity_mark now = rc_identity_mark(&replay->server);
    RC_LIST_EACH(place, following, &replay->noted) {
        struct rc_replay_entry *entry = entry_of(place);
        if (!entry->is_acknowledged)
            continue;
        /* An unproven one may have been done by the owner of a moment, although the server that was
           asked first has the key again. */
        if (!may_be_lost(replay, &entry->server) && !entry->is_unproven)
            continue;
        if (!is_fresh(replay, entry->acked_us)) {
            if (entry->pending == 0)
                forget(replay, entry);
            continue;
        }
        uintptr_t meaning = entry->is_overruled ? MAY_BE_OURS : IS_LOST;
        if (!counts(replay, &entry->server, entry->is_unproven))
            meaning = MAY_BE_DONE;
        entry->server = now;
        entry->is_unproven = false;
        if (entry->is_known || RC_MUTANT(REPLAY_ANY))
            send_again(replay, link, entry, meaning);
        else
            replay->context->stats.deletes_lost += meaning == IS_LOST;
    }
}

static void tell_squeezed(struct rc_replay *replay)
{
    if (!may_be_lost(replay, &replay->squeezed_server))
        return;
    if (is_fresh(replay, replay->squeezed_us) &&
        counts(replay, &replay->squeezed_server, replay->is_squeezed_unproven))
        replay->context->stats.deletes_lost += replay->squeezed;
    replay->squeezed = 0;
}

void rc_replay_send(struct rc_replay *replay, struct rc_link *link)
{
    if (link->identity.role == RC_SERVER_REPLICA)
        return; /* it takes no writes; what it has lost is told when a master answers */
    replay->server = link->identity;
    if (RC_MUTANT(REPLAY_LATE_EPOCH))
        return;
    send_lost(replay, link);
    tell_squeezed(replay);
}
