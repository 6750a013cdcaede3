#include "near/near_own.h"

/* What the owner of an entry says of it now. */
static void read_owner(struct rc_near *near, const struct rc_block *block, int64_t now_us,
                       rc_near_report *report)
{
    const struct rc_near_owner *owner = rc_region_owner(&near->region, block->stamp);
    int64_t asof_us = atomic_load_explicit(&owner->asof_us, memory_order_acquire);
    bool is_current = atomic_load_explicit(&owner->stamp, memory_order_acquire) == block->stamp;
    report->age_us = is_current && asof_us > 0 ? (asof_us < now_us ? now_us - asof_us : 0) : -1;
}

static void read_entry(struct rc_near *near, const struct rc_block *block, int64_t now_us,
                       rc_near_report *report)
{
    int64_t deadline_us = rc_block_time(rc_block_deadline(block), near->region.shape.birth_us);
    report->is_there = 1;
    report->kind = block->kind & 7;
    report->codec = block->codec;
    report->len = rc_arena_len(block->word) - RC_BLOCK_HEAD - rc_block_key_room(block->key_len);
    report->left_us = deadline_us == INT64_MAX ? INT64_MAX : deadline_us - now_us;
    read_owner(near, block, now_us, report);
}

void rc_near_explain(struct rc_near *near, const char *key, size_t len, rc_near_report *report)
{
    int64_t now_us = rc_ticks_now_us(&near->ticks), gone_us = 0;
    *report = (rc_near_report){.age_us = -1, .gone_us = -1};
    if (len > RC_NEAR_MAX_KEY) {
        report->cause = RC_GONE_REFUSED;
        return;
    }
    uint64_t hash = rc_near_hash(near, key, len);
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    /* Under the mutex what is read belongs together. Nothing is counted as a use of the entry. */
    if (rc_stripe_lock(stripe)) {
        struct rc_index_spot spot = rc_stripe_find(stripe, hash, key, len);
        if (spot.bucket != NULL)
            read_entry(near, rc_stripe_block(stripe, spot), now_us, report);
        rc_stripe_unlock(stripe);
    }
    report->cause = rc_journal_read(&near->region.shape.journal, hash, &gone_us);
    if (report->cause != RC_GONE_UNKNOWN)
        report->gone_us = gone_us < now_us ? now_us - gone_us : 0;
}
