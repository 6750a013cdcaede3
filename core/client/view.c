/*
 * view - the public calls on a namespace's part of the near cache. None of them waits.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "near/l0.h"
#include "near/tags.h"

/* ---- which keys are hit ---------------------------------------------------------------------- */

/* One of `every` in turn, and no one can say which: a page that reads the same keys in the same
   order again and again would have the same key counted each time. */
static void draw_sample(struct rc_view *view)
{
    uint32_t rest = view->sample.every - view->sample.place;
    uint32_t every = rc_near_is_hot_asked(view->near) ? RC_HOT_SAMPLE : RC_HOT_SELDOM;
    view->sample.random = view->sample.random * UINT64_C(6364136223846793005) + 1442695040888963407;
    uint32_t place = (uint32_t)(view->sample.random >> 33) % every;
    if (every != view->sample.every)
        rest = 1; /* the turn of the others ends here */
    view->sample.left += (int32_t)(rest + place);
    view->sample.place = place;
    view->sample.every = every;
}

/* A sample takes as long as ten hits from L0, so that there are few while nobody asks. */
static __attribute__((noinline)) void sample(struct rc_view *view, bool is_hit,
                                             const rc_near_handle *handle)
{
    if (is_hit)
        rc_near_count_hits(view->near, handle->hash, view->sample.every);
    draw_sample(view);
}

/* Somebody asks, who is not to wait for the end of a long turn. */
static void sample_often(struct rc_view *view)
{
    if (view->sample.every == RC_HOT_SAMPLE)
        return;
    view->sample.left = 0;
    draw_sample(view);
}

/* What a reader does not find is counted with the rest, and not told: to ask that each time would
   cost as much as to count. */
static inline bool is_sampled(struct rc_view *view)
{
    return --view->sample.left == 0;
}

/* ---- views ----------------------------------------------------------------------------------- */

rc_view *rc_view_new(rc_client *client, const char *prefix, size_t prefix_len, const char *group,
                     size_t group_len, int64_t min_bytes, int64_t max_bytes, int64_t ttl_us)
{
    if (client == NULL || client->near == NULL || min_bytes < 0 || max_bytes < 0 || ttl_us < 0)
        return NULL;
    struct rc_view *view = calloc(1, sizeof *view);
    if (view == NULL)
        return NULL;
    view->client = client;
    view->near = client->near;
    view->own_process_only = client->address.is_memory;
    view->ttl_us = ttl_us;
    view->sample.random = (uint64_t)(uintptr_t)view ^ (uint64_t)rc_near_now_us();
    draw_sample(view);
    rc_buf_init(&view->prefix);
    if (rc_buf_append(&view->prefix, prefix, prefix_len) != 0) {
        free(view);
        return NULL;
    }
    rc_near_prefix_init(&view->lookups, rc_buf_head(&view->prefix), prefix_len);
    view->group =
        rc_near_group(client->near, group, group_len, (size_t)min_bytes, (size_t)max_bytes);
    rc_client_count_user(client, 1);
    return view;
}

void rc_view_free(rc_view *view)
{
    struct rc_client *client = view->client;
    rc_tags_free(view->tags);
    rc_buf_deinit(&view->prefix);
    free(view);
    rc_client_count_user(client, -1);
}

/* ---- while Redis is away --------------------------------------------------------------------- */

/* Joins prefix and key in `name`, which has room for RC_NEAR_MAX_KEY bytes. False: too long. */
static bool name_entry(rc_view *view, const char *key, size_t key_len, char *name,
                       struct rc_near_entry *entry)
{
    size_t prefix_len = rc_buf_len(&view->prefix);
    if (prefix_len > RC_NEAR_MAX_KEY || key_len > RC_NEAR_MAX_KEY - prefix_len)
        return false;
    if (prefix_len > 0)
        memcpy(name, rc_buf_head(&view->prefix), prefix_len);
    if (key_len > 0)
        memcpy(name + prefix_len, key, key_len);
    entry->key = name;
    entry->key_len = prefix_len + key_len;
    entry->hash = rc_near_hash(view->near, name, entry->key_len);
    return true;
}

static void fill_entry(rc_view *view, const rc_entry *from, const char *value, size_t value_len,
                       int64_t ttl_us, struct rc_near_entry *entry)
{
    int64_t now_us = rc_near_reader_us(view->near);
    entry->value = value;
    entry->value_len = value_len;
    entry->kind = from->kind;
    entry->codec = from->codec;
    entry->entry_flags = from->entry_flags;
    entry->group = view->group;
    entry->deadline_us = ttl_us < INT64_MAX - now_us ? now_us + ttl_us : INT64_MAX;
}

int rc_view_write(rc_view *view, const char *key, size_t key_len, const rc_entry *from,
                  const char *value, size_t value_len, int64_t ttl_us)
{
    char name[RC_NEAR_MAX_KEY];
    struct rc_near_entry entry = {0};
    if (view->own_process_only || !name_entry(view, key, key_len, name, &entry))
        return RC_ERR_UNAVAILABLE;
    fill_entry(view, from, value, value_len, ttl_us, &entry);
    return rc_near_write_local(view->near, &entry);
}

uint64_t rc_view_mark(rc_view *view, const char *key, size_t key_len)
{
    char name[RC_NEAR_MAX_KEY];
    struct rc_near_entry entry = {0};
    bool is_kept = !view->own_process_only && name_entry(view, key, key_len, name, &entry);
    return is_kept ? rc_near_local_mark(view->near, entry.hash) : 0;
}

int rc_view_keep(rc_view *view, const char *key, size_t key_len, const rc_entry *from,
                 const char *value, size_t value_len, int64_t ttl_us, uint64_t mark)
{
    char name[RC_NEAR_MAX_KEY];
    struct rc_near_entry entry = {0};
    if (view->own_process_only || !name_entry(view, key, key_len, name, &entry))
        return 0;
    fill_entry(view, from, value, value_len, ttl_us, &entry);
    return rc_near_keep_local(view->near, &entry, mark) ? 1 : 0;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

void rc_view_judge(rc_view *view, rc_tags *tags)
{
    view->is_judging = true;
    if (tags == view->tags)
        return;
    if (tags != NULL)
        tags->holders++;
    rc_tags_free(view->tags);
    view->tags = tags;
}

static inline size_t sound_size(rc_view *view, const rc_near_handle *handle, const char *block,
                                size_t len, int64_t now_us, int32_t max_stale_us)
{
    return rc_near_tags_sound(view->tags != NULL ? view->tags->near : NULL, handle, block, len,
                              now_us, max_stale_us);
}

/* Of a hit: takes the block off where it is sound. */
static __attribute__((noinline)) int judge_hit(rc_view *view, rc_near_value *value,
                                               int32_t max_stale_us)
{
    uint8_t flags = value->entry_flags;
    if (!view->is_judging || (flags & ~RC_ENTRY_CAPPED) != RC_ENTRY_EXTRA)
        return RC_NEAR_HIT;
    value->handle.is_capped = (flags & RC_ENTRY_CAPPED) != 0;
    size_t size = sound_size(view, &value->handle, value->data, value->len,
                             value->handle.deadline_us - value->left_us, max_stale_us);
    if (size == 0)
        return RC_NEAR_HIT;
    value->flags_taken = flags;
    value->entry_flags = 0;
    value->block_len = (uint32_t)size;
    value->data += size;
    value->len -= size;
    return RC_NEAR_HIT;
}

static inline int judged(rc_view *view, rc_near_value *value, int outcome, int32_t max_stale_us)
{
    value->block_len = 0;
    if (outcome == RC_NEAR_HIT && value->entry_flags != 0)
        return judge_hit(view, value, max_stale_us);
    return outcome;
}

/* Of a valid handle with a block, which was whole when the handle was filled. */
static inline bool is_sound(rc_view *view, const rc_near_handle *handle, int64_t now_us,
                            int32_t max_stale_us)
{
    return view->is_judging &&
           sound_size(view, handle, handle->block, SIZE_MAX, now_us, max_stale_us) != 0;
}

static __attribute__((noinline)) int check_told(rc_view *view, rc_near_handle *handle,
                                                int32_t max_stale_us)
{
    if (view->is_judging)
        return rc_near_tags_check_handle(view->near, view->tags != NULL ? view->tags->near : NULL,
                                         handle, max_stale_us);
    return rc_near_is_valid(view->near, handle, max_stale_us) ? RC_VIEW_TOLD : RC_VIEW_GONE;
}

/* ---- reading --------------------------------------------------------------------------------- */

int rc_view_get(rc_view *view, const char *key, size_t key_len, int32_t max_stale_us,
                rc_near_value *value)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return RC_NEAR_MISS;
    int outcome = rc_near_get(view->near, &view->lookups, key, key_len, max_stale_us, value);
    if (is_sampled(view))
        sample(view, outcome == RC_NEAR_HIT, &value->handle);
    return judged(view, value, outcome, max_stale_us);
}

void rc_view_explain(rc_view *view, const char *key, size_t key_len, rc_near_report *report)
{
    char name[RC_NEAR_MAX_KEY];
    size_t prefix_len = rc_buf_len(&view->prefix);
    *report = (rc_near_report){.cause = RC_GONE_REFUSED, .gone_us = -1, .age_us = -1};
    if (prefix_len > sizeof name || key_len > sizeof name - prefix_len)
        return; /* such keys are not kept near */
    if (prefix_len > 0)
        memcpy(name, rc_buf_head(&view->prefix), prefix_len);
    if (key_len > 0)
        memcpy(name + prefix_len, key, key_len);
    if (view->own_process_only && rc_client_is_inherited(view->client))
        *report = (rc_near_report){.gone_us = -1, .age_us = -1};
    else
        rc_near_explain(view->near, name, prefix_len + key_len, report);
}

void rc_view_avoid(rc_view *view, int is_avoiding)
{
    view->is_avoiding = is_avoiding != 0;
}

uint32_t rc_view_hot(rc_view *view, rc_hot_key *keys, uint32_t max)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return 0;
    uint32_t count =
        rc_near_hot(view->near, rc_buf_head(&view->prefix), rc_buf_len(&view->prefix), keys, max);
    sample_often(view);
    return count;
}

int64_t rc_view_now_us(rc_view *view)
{
    return rc_near_reader_us(view->near);
}

int rc_view_get_at(rc_view *view, const char *key, size_t key_len, int64_t now_us,
                   int32_t max_stale_us, rc_near_value *value)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return RC_NEAR_MISS;
    int outcome =
        rc_near_get_at(view->near, &view->lookups, key, key_len, now_us, max_stale_us, value);
    if (is_sampled(view))
        sample(view, outcome == RC_NEAR_HIT, &value->handle);
    return judged(view, value, outcome, max_stale_us);
}

/* ---- reading many keys ----------------------------------------------------------------------- */

/* So many keys are on their way at once: about as many lines as a core waits for. */
enum { TOGETHER = 8 };

static void find_one(rc_view *view, struct rc_near_seek *seek, int64_t now_us, int32_t max_stale_us,
                     rc_near_value *value, rc_near_many *many, uint32_t i)
{
    int outcome = rc_near_lookup_sought(view->near, seek, now_us, max_stale_us, value);
    if (outcome == RC_NEAR_GROW) {
        many->found[i].what = outcome;
        return; /* counted when it is looked up again */
    }
    if (is_sampled(view))
        sample(view, outcome == RC_NEAR_HIT, &value->handle);
    judged(view, value, outcome, max_stale_us);
    many->found[i].what = outcome;
    if (outcome == RC_NEAR_HIT) {
        many->found[i].what =
            (int32_t)(RC_NEAR_HIT | (uint32_t)value->kind << 8 | (uint32_t)value->codec << 16 |
                      (uint32_t)value->entry_flags << 24);
        many->found[i].at = (int32_t)(value->data - many->bytes);
        many->found[i].len = (int32_t)value->len;
    }
}

uint32_t rc_view_get_many(rc_view *view, rc_near_many *many, uint32_t from, uint32_t to,
                          int32_t max_stale_us)
{
    struct rc_near_seek seeks[TOGETHER];
    int64_t now_us = rc_near_reader_us(view->near);
    rc_near_value value = {.buffer = many->bytes, .capacity = sizeof many->bytes};
    if (view->own_process_only && rc_client_is_inherited(view->client))
        max_stale_us = 0; /* nothing is known coherent */
    for (uint32_t first = from; first < to; first += TOGETHER) {
        uint32_t count = to - first < TOGETHER ? to - first : TOGETHER;
        for (uint32_t i = 0; i < count; i++)
            rc_near_seek(view->near, &view->lookups, many->keys[first + i],
                         many->key_lens[first + i], &seeks[i]);
        for (uint32_t i = 0; i < count; i++)
            rc_near_seek_block(&seeks[i]);
        for (uint32_t i = 0; i < count; i++) {
            find_one(view, &seeks[i], now_us, max_stale_us, &value, many, first + i);
            int32_t what = many->found[first + i].what;
            if (what == RC_NEAR_GROW && value.buffer != many->bytes)
                return first + i; /* it may find room in an empty buffer */
            if ((what & 0xff) == RC_NEAR_HIT) {
                value.buffer = many->bytes + many->found[first + i].at + many->found[first + i].len;
                value.capacity = (size_t)(many->bytes + sizeof many->bytes - value.buffer);
            }
        }
    }
    return to;
}

/* ---- handles --------------------------------------------------------------------------------- */

static inline int check_handle(rc_view *view, rc_near_handle *handle, int32_t max_stale_us)
{
    if (handle->block != NULL)
        return check_told(view, handle, max_stale_us);
    return rc_near_is_valid(view->near, handle, max_stale_us);
}

static __attribute__((noinline)) int check_sampled(rc_view *view, rc_near_handle *handle,
                                                   int32_t max_stale_us)
{
    int outcome = check_handle(view, handle, max_stale_us);
    sample(view, outcome != RC_VIEW_GONE, handle);
    return outcome;
}

int rc_view_check(rc_view *view, rc_near_handle *handles, uint32_t index, int32_t max_stale_us)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return RC_VIEW_GONE;
    rc_near_handle *handle = &handles[index];
    if (is_sampled(view))
        return check_sampled(view, handle, max_stale_us);
    return check_handle(view, handle, max_stale_us);
}

/* Asks the handle where the place does not tell enough; the place takes its answer over. */
static __attribute__((noinline)) int32_t ask_handle(rc_l0 *l0, struct rc_l0_place *place,
                                                    int32_t max_stale_us)
{
    struct rc_view *view = l0->view;
    rc_near_handle *handle = &(*l0->handles)[place->index];
    int outcome = check_handle(view, handle, max_stale_us);
    if (view->sample.left == 0)
        sample(view, outcome != RC_VIEW_GONE, handle);
    if (outcome == RC_VIEW_GONE)
        return 0;
    rc_near_l0_use(place);
    if (!place->has_block)
        rc_near_l0_see(view->near, place, handle);
    if (outcome != RC_VIEW_SOUND)
        return -(int32_t)place->index;
    l0->hits++;
    return (int32_t)place->index;
}

/* The clock is to be compared, or is not the machine's. Apart, so that a hit saves no register. */
static __attribute__((noinline)) int32_t check_slowly(rc_l0 *l0, struct rc_l0_place *place,
                                                      int32_t max_stale_us)
{
    struct rc_near *near = l0->view->near;
    int64_t now_us = rc_near_reader_us(near);
    if (rc_near_l0_check(near, l0, place, now_us, max_stale_us) != RC_VIEW_SOUND)
        return ask_handle(l0, place, max_stale_us);
    l0->hits++;
    return (int32_t)place->index;
}

int32_t rc_l0_find(rc_l0 *l0, const char *key, int32_t max_stale_us)
{
    int64_t now_us = 0;
    struct rc_view *view = l0->view;
    if (l0->count == 0)
        return 0; /* the view may be gone: a finalizer asks at the end of its Lua state */
    /* The counter waits for loads that stand before it, but for no prefetch: the line of the place
       comes meanwhile. */
    __builtin_prefetch(rc_near_l0_bucket(l0, key, 0));
    bool is_read = rc_ticks_read_us(&view->near->ticks, &now_us);
    struct rc_l0_place *place = rc_near_l0_find(l0, key);
    if (place == NULL || (view->own_process_only && rc_client_is_inherited(view->client)))
        return 0;
    if (is_sampled(view) || place->has_block)
        return ask_handle(l0, place, max_stale_us);
    if (!is_read)
        return check_slowly(l0, place, max_stale_us);
    if (rc_near_l0_check(view->near, l0, place, now_us, max_stale_us) != RC_VIEW_SOUND)
        return ask_handle(l0, place, max_stale_us);
    l0->hits++;
    return (int32_t)place->index;
}

/* Asks the handle of one key of many as of that moment; what is hit is counted by the caller. */
static __attribute__((noinline)) int32_t ask_handle_at(const rc_l0 *l0, struct rc_l0_place *place,
                                                       int64_t now_us, int32_t max_stale_us)
{
    struct rc_view *view = l0->view;
    rc_near_handle *handle = &(*l0->handles)[place->index];
    if (!rc_near_is_valid_at(view->near, handle, now_us, max_stale_us))
        return 0;
    rc_near_l0_use(place);
    if (!place->has_block)
        rc_near_l0_see(view->near, place, handle);
    else if (!is_sound(view, handle, now_us, max_stale_us))
        return -(int32_t)place->index;
    return (int32_t)place->index;
}

/* Of `count` places that were checked, whose part in the countdown is over. */
static __attribute__((noinline)) void sample_many(rc_view *view, const rc_near_handle *handles,
                                                  const int32_t *places, uint32_t count)
{
    while (view->sample.left <= 0) {
        int32_t place = places[(int64_t)count - 1 + view->sample.left];
        sample(view, place > 0, &handles[place > 0 ? place : 0]);
    }
}

uint32_t rc_l0_find_many(rc_l0 *l0, const char *const *keys, int32_t *found, uint32_t count,
                         int32_t max_stale_us)
{
    struct rc_view *view = l0->view;
    if (view->own_process_only && rc_client_is_inherited(view->client))
        max_stale_us = 0; /* nothing is known coherent */
    int64_t now_us = rc_near_reader_us(view->near);
    struct rc_near_l0_owner owner = {0};
    uint32_t sound = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rc_l0_place *place = keys[i] != NULL ? rc_near_l0_find(l0, keys[i]) : NULL;
        if (place == NULL)
            found[i] = 0;
        else if (!place->has_block && rc_near_l0_check_next(view->near, l0, place, &owner, now_us,
                                                            max_stale_us) == RC_VIEW_SOUND)
            found[i] = (int32_t)place->index;
        else
            found[i] = ask_handle_at(l0, place, now_us, max_stale_us);
        sound += found[i] > 0;
    }
    view->sample.left -= (int32_t)count;
    if (view->sample.left <= 0)
        sample_many(view, *l0->handles, found, count);
    return sound;
}

/* ---- listening ------------------------------------------------------------------------------- */

void rc_view_listen(rc_view *view, rc_listener *listener)
{
    rc_near_listen(view->near, listener);
}

int rc_view_has_news(rc_view *view, rc_listener *listener)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return 0;
    return rc_near_has_news(view->near, listener);
}

int rc_view_hear(rc_view *view, rc_listener *listener, char *key, size_t *key_len)
{
    return rc_near_hear(view->near, listener, rc_buf_head(&view->prefix), rc_buf_len(&view->prefix),
                        key, key_len);
}
