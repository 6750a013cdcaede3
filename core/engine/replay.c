#include "engine/replay.h"

#include <stdlib.h>

#include "base/mutant.h"

enum { REPLAY_SECONDS = 10 };

void rc_replay_init(struct rc_replay *replay)
{
    replay->entries = NULL;
    replay->next = replay->bytes = 0;
}

void rc_replay_deinit(struct rc_replay *replay)
{
    for (size_t i = 0; replay->entries != NULL && i < RC_REPLAY_ENTRIES; i++)
        rc_buf_deinit(&replay->entries[i].request);
    free(replay->entries);
    rc_replay_init(replay);
}

static void forget(struct rc_replay *replay, struct rc_replay_entry *entry)
{
    replay->bytes -= rc_buf_len(&entry->request);
    rc_buf_clear(&entry->request);
    rc_buf_trim(&entry->request, 1024);
}

void rc_replay_note(struct rc_replay *replay, const struct rc_link *link,
                    const struct rc_buf *request)
{
    size_t len = rc_buf_len(request);
    if (len > RC_REPLAY_BYTES / 4)
        return;
    if (replay->entries == NULL)
        replay->entries = calloc(RC_REPLAY_ENTRIES, sizeof *replay->entries);
    if (replay->entries == NULL)
        return;
    size_t at = replay->next;
    /* Room in bytes: the oldest go first, and they stand from `next` on. */
    for (size_t i = at; replay->bytes + len > RC_REPLAY_BYTES; i = (i + 1) % RC_REPLAY_ENTRIES)
        forget(replay, &replay->entries[i]);
    struct rc_replay_entry *entry = &replay->entries[at];
    forget(replay, entry);
    if (rc_buf_append(&entry->request, rc_buf_head(request), len) != 0)
        return;
    replay->bytes += len;
    entry->sent_us = link->context->now_us;
    entry->epoch = link->epoch;
    replay->next = (at + 1) % RC_REPLAY_ENTRIES;
}

void rc_replay_send(struct rc_replay *replay, struct rc_link *link)
{
    struct rc_context *context = link->context;
    for (size_t i = 0; replay->entries != NULL && i < RC_REPLAY_ENTRIES; i++) {
        struct rc_replay_entry *entry = &replay->entries[i];
        if (RC_MUTANT(REPLAY_LATE_EPOCH))
            entry->epoch = link->epoch;
        if (rc_buf_len(&entry->request) == 0 || entry->epoch == link->epoch)
            continue;
        if (context->now_us - entry->sent_us > REPLAY_SECONDS * INT64_C(1000000)) {
            forget(replay, entry);
            continue;
        }
        struct rc_req *req = rc_req_take(context);
        if (req == NULL)
            return;
        if (rc_buf_append(&req->bytes, rc_buf_head(&entry->request), rc_buf_len(&entry->request)) !=
            0) {
            rc_req_give(req);
            return;
        }
        req->expect = 1;
        entry->epoch = link->epoch;
        rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
    }
}
