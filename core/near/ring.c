#include "near/ring.h"

#include <string.h>

#include "near/word.h"

/* Each word of a record is stored by itself: the tag, which is the record's position plus 1, last
   of all; the sum; and what it tells, with the key's length. The key comes behind them. */
enum { TAG, SUM, WHAT, HEAD_WORDS, WORD = 8, TOLD_BITS = 3 };

size_t rc_ring_bytes(size_t region_bytes)
{
    size_t size = RC_RING_MIN_BYTES;
    while (size < RC_RING_MAX_BYTES && size * 2 <= region_bytes / 64)
        size *= 2;
    return sizeof(struct rc_ring_head) + size;
}

void rc_ring_view(struct rc_ring *ring, size_t region_bytes, char *at,
                  const struct rc_mix_seed *seed)
{
    ring->head = (struct rc_ring_head *)(void *)at;
    ring->bytes = at + sizeof(struct rc_ring_head);
    ring->size = rc_ring_bytes(region_bytes) - sizeof(struct rc_ring_head);
    ring->seed = seed;
}

static char *word_at(const struct rc_ring *ring, uint64_t position)
{
    return ring->bytes + (position & (ring->size - 1));
}

static uint64_t record_bytes(size_t key_len)
{
    return HEAD_WORDS * WORD + (((uint64_t)key_len + WORD - 1) & ~(uint64_t)(WORD - 1));
}

static int fits(const struct rc_ring *ring, size_t key_len)
{
    return key_len <= RC_RING_MAX_KEY && record_bytes(key_len) <= ring->size / 4;
}

static uint64_t sum_of(const struct rc_ring *ring, uint64_t position, uint64_t what,
                       const char *key, size_t len)
{
    uint64_t sum = rc_mix(ring->seed, key, len);
    return rc_mix_fold(sum ^ position, what ^ ring->seed->words[0]);
}

/* ---- writing --------------------------------------------------------------------------------- */

void rc_ring_write(struct rc_ring *ring, int told, const char *key, size_t len, int64_t now_us)
{
    /* Relaxed: who begins to listen at the same time hears of it, or does not. */
    int64_t heard_us = atomic_load_explicit(&ring->head->heard_us, memory_order_relaxed);
    if (heard_us <= 0 || now_us - heard_us > RC_RING_WINDOW_US)
        return;
    if (!fits(ring, len)) {
        told = RC_TOLD_GAP;
        len = 0;
    }
    uint64_t what = (uint64_t)len << TOLD_BITS | (uint64_t)told, bytes = record_bytes(len);
    uint64_t at = atomic_fetch_add_explicit(&ring->head->end, bytes, memory_order_relaxed);
    /* Release: who sees a word from here on sees that the end has moved past the place, too. Pairs
       with the acquire in read_record. */
    rc_word_fence_release();
    for (size_t done = 0; done < len; done += WORD) {
        uint64_t word = 0;
        memcpy(&word, key + done, len - done < WORD ? len - done : WORD);
        rc_word_store64(word_at(ring, at + HEAD_WORDS * WORD + done), word);
    }
    rc_word_store64(word_at(ring, at + WHAT * WORD), what);
    rc_word_store64(word_at(ring, at + SUM * WORD), sum_of(ring, at, what, key, len));
    /* Release: who sees the tag sees the words. Pairs with the acquire in rc_ring_hear. */
    rc_word_fence_release();
    rc_word_store64(word_at(ring, at + TAG * WORD), at + 1);
}

/* ---- listening ------------------------------------------------------------------------------- */

/* Not more often than it takes: all listeners of the machine share the word. */
static void come_by(struct rc_ring *ring, int64_t now_us)
{
    enum { SELDOM_US = 1000000 };
    int64_t heard_us = atomic_load_explicit(&ring->head->heard_us, memory_order_relaxed);
    /* Any bytes may stand there; a time to come is nobody's. */
    if (heard_us <= 0 || heard_us > now_us || now_us - heard_us > SELDOM_US)
        atomic_store_explicit(&ring->head->heard_us, now_us > 0 ? now_us : 1, memory_order_relaxed);
}

/* From here on nothing is missed. */
static int gap(struct rc_ring *ring, rc_listener *listener)
{
    listener->cursor = atomic_load_explicit(&ring->head->end, memory_order_acquire);
    listener->stuck_us = 0;
    return RC_TOLD_GAP;
}

void rc_ring_listen(struct rc_ring *ring, rc_listener *listener, int64_t now_us)
{
    come_by(ring, now_us);
    (void)gap(ring, listener);
    listener->heard_us = now_us;
}

static int was_away(const rc_listener *listener, int64_t now_us)
{
    return now_us - listener->heard_us > RC_RING_LAPSE_US;
}

int rc_ring_has_news(struct rc_ring *ring, rc_listener *listener, int64_t now_us)
{
    if (was_away(listener, now_us))
        return 1; /* rc_ring_hear tells of the gap */
    come_by(ring, now_us);
    listener->heard_us = now_us;
    return atomic_load_explicit(&ring->head->end, memory_order_relaxed) != listener->cursor;
}

/* Of the record at the cursor, which has its tag. False: it is none, or no longer. */
static int read_record(const struct rc_ring *ring, uint64_t at, uint64_t *what, char *key,
                       size_t *len)
{
    *what = rc_word_load64(word_at(ring, at + WHAT * WORD));
    uint64_t sum = rc_word_load64(word_at(ring, at + SUM * WORD));
    uint64_t told = *what & ((1 << TOLD_BITS) - 1), key_len = *what >> TOLD_BITS;
    if (key_len > RC_RING_MAX_KEY || !fits(ring, (size_t)key_len) || told == RC_TOLD_NOTHING ||
        told > RC_TOLD_GAP)
        return 0;
    *len = (size_t)key_len;
    for (size_t done = 0; done < *len; done += WORD) {
        uint64_t word = rc_word_load64(word_at(ring, at + HEAD_WORDS * WORD + done));
        memcpy(key + done, &word, *len - done < WORD ? *len - done : WORD);
    }
    rc_word_fence_acquire();
    uint64_t end = atomic_load_explicit(&ring->head->end, memory_order_relaxed);
    return end - at <= ring->size && sum == sum_of(ring, at, *what, key, *len);
}

int rc_ring_hear(struct rc_ring *ring, rc_listener *listener, char *key, size_t *len,
                 int64_t now_us)
{
    int is_late = was_away(listener, now_us);
    uint64_t what, end, at = listener->cursor;
    *len = 0;
    come_by(ring, now_us);
    listener->heard_us = now_us;
    if (is_late)
        return gap(ring, listener);
    end = atomic_load_explicit(&ring->head->end, memory_order_relaxed);
    if (end == at)
        return RC_TOLD_NOTHING;
    if (end - at > ring->size)
        return gap(ring, listener);
    if (rc_word_load64(word_at(ring, at + TAG * WORD)) != at + 1) {
        /* It is being written, by a process that may have died over it. */
        if (listener->stuck_us == 0)
            listener->stuck_us = now_us;
        if (now_us - listener->stuck_us <= RC_RING_PATIENCE_US)
            return RC_TOLD_NOTHING;
        return gap(ring, listener);
    }
    rc_word_fence_acquire();
    if (!read_record(ring, at, &what, key, len)) {
        *len = 0;
        return gap(ring, listener);
    }
    listener->cursor = at + record_bytes(*len);
    listener->stuck_us = 0;
    return (int)(what & ((1 << TOLD_BITS) - 1));
}
