#include "near/backlog.h"

#include <string.h>

#include "redcache.h"

/* A record: what it is told apart by, and the key, filled up to whole words. */
struct record {
    uint32_t len;
    uint32_t tag;
};
enum { WORD = sizeof(struct record), MAX_KEY = 1024 };
_Static_assert(WORD == 8, "positions are whole words");

size_t rc_backlog_bytes(size_t region_bytes)
{
    size_t size = RC_BACKLOG_MIN_BYTES;
    while (size < RC_BACKLOG_MAX_BYTES && size * 2 <= region_bytes / 128)
        size *= 2;
    return sizeof(struct rc_backlog_head) + size;
}

void rc_backlog_view(struct rc_backlog *backlog, size_t region_bytes, char *at)
{
    backlog->head = (struct rc_backlog_head *)(void *)at;
    backlog->bytes = at + sizeof(struct rc_backlog_head);
    backlog->size = rc_backlog_bytes(region_bytes) - sizeof(struct rc_backlog_head);
}

static uint64_t record_bytes(size_t key_len)
{
    return WORD + (((uint64_t)key_len + WORD - 1) & ~(uint64_t)(WORD - 1));
}

/* It may go on at the beginning of the ring. */
static void copy_out(const struct rc_backlog *backlog, uint64_t at, void *into, size_t len)
{
    size_t from = (size_t)(at & (backlog->size - 1)), rest = (size_t)backlog->size - from;
    size_t first = len < rest ? len : rest;
    memcpy(into, backlog->bytes + from, first);
    memcpy((char *)into + first, backlog->bytes, len - first);
}

static void copy_in(struct rc_backlog *backlog, uint64_t at, const void *bytes, size_t len)
{
    size_t from = (size_t)(at & (backlog->size - 1)), rest = (size_t)backlog->size - from;
    size_t first = len < rest ? len : rest;
    if (len == 0) /* a key without bytes may be NULL */
        return;
    memcpy(backlog->bytes + from, bytes, first);
    memcpy(backlog->bytes, (const char *)bytes + first, len - first);
}

static uint64_t load(const _Atomic uint64_t *position)
{
    return atomic_load_explicit(position, memory_order_relaxed);
}

/* False: no record can be there, for its bytes were damaged. */
static bool read_record(const struct rc_backlog *backlog, uint64_t at, uint64_t end,
                        struct record *record)
{
    if (end - at < WORD || end - at > backlog->size)
        return false;
    copy_out(backlog, at, record, sizeof *record);
    return record->len <= MAX_KEY && record_bytes(record->len) <= end - at;
}

static bool is_key(const struct rc_backlog *backlog, uint64_t at, const char *key, size_t len)
{
    char found[MAX_KEY];
    copy_out(backlog, at + WORD, found, len);
    return len == 0 || memcmp(found, key, len) == 0;
}

/* Its positions contradict each other: nobody knows what was owed. */
static bool is_damaged(const struct rc_backlog *backlog, uint64_t begin, uint64_t end)
{
    return begin > end || end - begin > backlog->size || ((begin | end) & (WORD - 1)) != 0;
}

static void begin_anew(struct rc_backlog *backlog)
{
    struct rc_backlog_head *head = backlog->head;
    atomic_store_explicit(&head->begin, 0, memory_order_relaxed);
    atomic_store_explicit(&head->end, 0, memory_order_release);
    head->sent = 0;
    atomic_fetch_add_explicit(&head->returns, 1, memory_order_release);
}

bool rc_backlog_add(struct rc_backlog *backlog, uint64_t hash, const char *key, size_t len)
{
    struct rc_backlog_head *head = backlog->head;
    struct record record, added = {.len = (uint32_t)len, .tag = (uint32_t)hash};
    uint64_t begin = load(&head->begin), end = load(&head->end);
    uint64_t at = head->sent > begin ? head->sent : begin;
    if (len > MAX_KEY || is_damaged(backlog, begin, end) || head->sent > end ||
        (at & (WORD - 1)) != 0)
        return false;
    for (; at < end; at += record_bytes(record.len)) {
        if (!read_record(backlog, at, end, &record))
            return false;
        if (record.len == len && record.tag == added.tag && is_key(backlog, at, key, len))
            return true;
    }
    uint64_t bytes = record_bytes(len);
    if (bytes > backlog->size - (end - begin))
        return false;
    copy_in(backlog, end, &added, sizeof added);
    copy_in(backlog, end + WORD, key, len);
    /* Release: with the acquire in rc_backlog_is_owed. A process that dies before this has added
       nothing. */
    atomic_store_explicit(&head->end, end + bytes, memory_order_release);
    return true;
}

size_t rc_backlog_read(struct rc_backlog *backlog, uint64_t *at, char *into, size_t room)
{
    struct rc_backlog_head *head = backlog->head;
    uint64_t begin = load(&head->begin), end = load(&head->end);
    struct record record;
    size_t copied = 0;
    if (is_damaged(backlog, begin, end)) {
        begin_anew(backlog);
        *at = 0;
        return 0;
    }
    *at = *at > begin && *at <= end ? *at : begin;
    while (*at < end) {
        if ((*at & (WORD - 1)) != 0 || !read_record(backlog, *at, end, &record)) {
            *at = end; /* damaged, as well */
            rc_backlog_pay(backlog, end);
            break;
        }
        if (sizeof record.len + record.len > room - copied)
            break;
        memcpy(into + copied, &record.len, sizeof record.len);
        copied += sizeof record.len;
        copy_out(backlog, *at + WORD, into + copied, record.len);
        copied += record.len;
        *at += record_bytes(record.len);
    }
    if (head->sent < *at || head->sent > end)
        head->sent = *at;
    return copied;
}

void rc_backlog_pay(struct rc_backlog *backlog, uint64_t to)
{
    struct rc_backlog_head *head = backlog->head;
    if (to <= load(&head->begin) || to > load(&head->end))
        return;
    /* What was written here before is void when the deletes are done: release, with the acquire in
       rc_near_returns. */
    atomic_fetch_add_explicit(&head->returns, 1, memory_order_release);
    atomic_store_explicit(&head->begin, to, memory_order_release);
}
