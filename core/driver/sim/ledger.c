#include "driver/sim/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "driver/sim/world.h"

/* One addition, or one write. */
struct deed {
    enum sim_deed_kind kind;
    enum sim_told told;
    int key;
    int64_t began_us;
    int64_t done_us;  /* in a master; INT64_MAX: never */
    int64_t until_us; /* a write: when it was last current; INT64_MAX: it is */
    int64_t total;    /* an addition: of the counter, behind it */
    struct sim_addition addition;
};

static const char *const NAMES[] = {"counter", "key"}; /* for violations */

static struct deed *deed_of(struct sim_world *world, size_t id)
{
    struct rc_buf *deeds = &world->ledger.deeds;
    return (struct deed *)(void *)(deeds->bytes + deeds->start) + id;
}

static size_t deed_count(const struct sim_world *world)
{
    return rc_buf_len(&world->ledger.deeds) / sizeof(struct deed);
}

static double ms(int64_t us)
{
    return (double)us / 1000;
}

/* ---- keys ------------------------------------------------------------------------------------ */

void sim_ledger_name(enum sim_deed_kind kind, int key, char name[SIM_LEDGER_NAME + 1])
{
    memcpy(name, kind == SIM_ADDITION ? "{k0}c" : "{k0}b", SIM_LEDGER_NAME + 1);
    name[2] = (char)('0' + key);
}

static enum sim_deed_kind kind_of(const struct rc_store_change *change)
{
    return change->key[SIM_LEDGER_NAME - 1] == 'c' ? SIM_ADDITION : SIM_WRITE;
}

int sim_ledger_place(const struct rc_store_change *change)
{
    bool is_one = change->key != NULL && change->key_len == SIM_LEDGER_NAME &&
                  memcmp(change->key, "{k", 2) == 0 && change->key[3] == '}';
    return is_one ? change->key[2] - '0' : SIM_NOBODY;
}

size_t sim_ledger_text(int key, size_t id, char text[SIM_LEDGER_TEXT])
{
    return (size_t)snprintf(text, SIM_LEDGER_TEXT, "b%d #%zu", key, id);
}

static bool is_deed(struct sim_world *world, enum sim_deed_kind kind, int key, int64_t id)
{
    return id > 0 && id < (int64_t)deed_count(world) && deed_of(world, (size_t)id)->kind == kind &&
           deed_of(world, (size_t)id)->key == key;
}

/* The number of the write that a text tells of; 0: of none of that key. */
static size_t read_text(struct sim_world *world, int key, const char *text, size_t len)
{
    char copy[SIM_LEDGER_TEXT] = "", made[SIM_LEDGER_TEXT];
    int named = -1;
    size_t id = 0;
    memcpy(copy, text, len < sizeof(copy) - 1 ? len : sizeof(copy) - 1);
    if (sscanf(copy, "b%d #%zu", &named, &id) != 2 || named != key ||
        sim_ledger_text(key, id, made) != len || memcmp(made, text, len) != 0 ||
        !is_deed(world, SIM_WRITE, key, (int64_t)id))
        return 0;
    return id;
}

static bool read_total(const char *text, size_t len, int64_t *total)
{
    char copy[SIM_LEDGER_TEXT] = "";
    int used = 0;
    if (len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    return sscanf(copy, "%" SCNd64 "%n", total, &used) == 1 && (size_t)used == len;
}

/* What a key holds behind this change. False: what nobody can have written. */
static bool read_page(struct sim_world *world, const struct rc_store_change *change,
                      struct sim_page *page)
{
    int key = sim_ledger_place(change);
    *page = (struct sim_page){.expires_ms = change->expires_ms, .filled_us = world->now_us};
    if (change->value == NULL)
        return true;
    page->is_there = true;
    if (kind_of(change) == SIM_ADDITION)
        return read_total(change->value, change->value_len, &page->number);
    page->number = (int64_t)read_text(world, key, change->value, change->value_len);
    return page->number > 0;
}

/* ---- changes --------------------------------------------------------------------------------- */

static void write_page(struct sim_world *world, enum sim_deed_kind kind, int key,
                       const struct sim_page *now)
{
    struct sim_page *page = &world->ledger.pages[kind][key], old = *page;
    if (kind == SIM_ADDITION) {
        uint32_t place = world->ledger.past_count[key]++ % SIM_PASTS;
        world->ledger.pasts[key][place] =
            (struct sim_past){old.is_there, old.number, world->now_us};
    }
    *page = *now;
    if (old.is_there && now->is_there)
        page->filled_us = old.filled_us;
    if (kind == SIM_WRITE && old.is_there)
        deed_of(world, (size_t)old.number)->until_us = world->now_us;
    if (kind == SIM_WRITE && now->is_there)
        deed_of(world, (size_t)now->number)->until_us = INT64_MAX;
}

static bool is_outside(const struct sim_addition *addition, int64_t total)
{
    return (addition->has_min && total < addition->min) ||
           (addition->has_max && total > addition->max);
}

/* `number`: what was added, or that of the write. */
static void do_deed(struct sim_world *world, enum sim_deed_kind kind, int key, int64_t number)
{
    int64_t id = number < 0 ? -number : number;
    if (!is_deed(world, kind, key, id) ||
        (kind == SIM_ADDITION && deed_of(world, (size_t)id)->addition.by != number)) {
        sim_violation(world, "G10: %s %d was changed by what nobody has asked for: %" PRId64,
                      NAMES[kind], key, number);
        return;
    }
    struct deed *deed = deed_of(world, (size_t)id);
    if (deed->done_us != INT64_MAX)
        sim_violation(world, "G10: %s %d: !%" PRId64 ", done at %.3f ms, was done again",
                      NAMES[kind], key, id, ms(deed->done_us));
    if (deed->told == SIM_TOLD_FAILED)
        sim_violation(world, "G10: %s %d: !%" PRId64 " was done after it was said to have failed",
                      NAMES[kind], key, id);
    deed->done_us = world->now_us;
    deed->total = world->ledger.pages[kind][key].number;
    if (kind == SIM_ADDITION && is_outside(&deed->addition, deed->total))
        sim_violation(world,
                      "G10: counter %d: !%" PRId64 " has taken it out of its bounds: %" PRId64, key,
                      id, deed->total);
}

/* It begins with nothing, and its ttl, in the step that adds to it first. */
static void begin_counter(struct sim_world *world, int key, const struct sim_page *now)
{
    int64_t ends_ms = sim_world_unix_us(world) / 1000 + world->weather.count_ttl_ms;
    if (now->number != 0)
        sim_violation(world, "G10: counter %d begins with %" PRId64, key, now->number);
    if (now->expires_ms != ends_ms)
        sim_violation(world, "G10: counter %d begins without its ttl", key);
    world->ledger.pages[SIM_ADDITION][key].is_bare = true; /* for this moment */
}

/* Nobody begins a counter and adds nothing. */
static void check_bare(struct sim_world *world, int key)
{
    struct sim_page *page = &world->ledger.pages[SIM_ADDITION][key];
    if (page->is_there && page->is_bare && page->filled_us < world->now_us) {
        sim_violation(world, "G10: counter %d was begun at %.3f ms, and nothing added to it", key,
                      ms(page->filled_us));
        page->is_bare = false;
    }
}

static void change_counter(struct sim_world *world, int key, const struct sim_page *old,
                           const struct sim_page *now)
{
    if (!old->is_there) {
        begin_counter(world, key, now);
        return;
    }
    if (now->expires_ms != old->expires_ms)
        sim_violation(world, "G10: the ttl of counter %d has changed", key);
    do_deed(world, SIM_ADDITION, key, now->number - old->number);
}

/* Nobody but a flush takes it away before its time. */
static void check_end(struct sim_world *world, enum sim_deed_kind kind, int key,
                      const struct sim_page *old)
{
    bool is_over = old->expires_ms <= sim_world_unix_us(world) / 1000;
    if (old->is_there && !is_over)
        sim_violation(world, "G10: %s %d is gone %" PRId64 " ms before its time", NAMES[kind], key,
                      old->expires_ms - sim_world_unix_us(world) / 1000);
}

void sim_ledger_change(struct sim_world *world, const struct rc_store_change *change)
{
    enum sim_deed_kind kind = kind_of(change);
    int key = sim_ledger_place(change);
    check_bare(world, key);
    struct sim_page now, old = world->ledger.pages[kind][key];
    if (!read_page(world, change, &now)) {
        sim_violation(world, "G10: %s %d holds what nobody has written: '%.*s'", NAMES[kind], key,
                      (int)change->value_len, change->value);
        return;
    }
    sim_trace(world, "  master: %s %d = %s%" PRId64, NAMES[kind], key,
              now.is_there ? "" : "nothing, was ", now.is_there ? now.number : old.number);
    write_page(world, kind, key, &now);
    if (!now.is_there)
        check_end(world, kind, key, &old);
    else if (kind == SIM_ADDITION)
        change_counter(world, key, &old, &now);
    else
        do_deed(world, kind, key, now.number);
}

void sim_ledger_flush(struct sim_world *world, int key)
{
    const struct sim_page gone = {.is_there = false};
    for (int kind = 0; kind < SIM_DEED_KINDS; kind++)
        write_page(world, (enum sim_deed_kind)kind, key, &gone);
}

struct heirloom {
    struct sim_world *world;
    const struct sim_node *holder;
    struct sim_page pages[SIM_DEED_KINDS][SIM_KEYS];
};

static void inherit(void *owner, const struct rc_store_change *change)
{
    struct heirloom *heirloom = owner;
    struct sim_page page;
    int key = sim_ledger_place(change);
    if (key >= 0 && heirloom->holder == heirloom->world->holders[key] &&
        read_page(heirloom->world, change, &page))
        heirloom->pages[kind_of(change)][key] = page;
}

void sim_ledger_lose(struct sim_world *world, unsigned places)
{
    struct heirloom heirloom = {.world = world};
    for (int i = 0; i < 2 * world->shard_count; i++) {
        heirloom.holder = &world->nodes[i];
        rc_store_each(world->nodes[i].store, inherit, &heirloom);
    }
    for (int kind = 0; kind < SIM_DEED_KINDS; kind++)
        for (int key = 0; key < SIM_KEYS; key++)
            if (places & 1U << key) {
                const struct sim_page *page = &heirloom.pages[kind][key];
                if (page->is_there)
                    sim_trace(world, "  new master: %s %d = %" PRId64, NAMES[kind], key,
                              page->number);
                write_page(world, (enum sim_deed_kind)kind, key, page);
            }
}

/* ---- what callers are told ------------------------------------------------------------------- */

size_t sim_ledger_begin(struct sim_world *world, enum sim_deed_kind kind, int key)
{
    struct deed deed = {.kind = kind,
                        .key = key,
                        .began_us = world->now_us,
                        .done_us = INT64_MAX,
                        .until_us = INT64_MIN};
    sim_must(rc_buf_append(&world->ledger.deeds, &deed, sizeof(deed)));
    return deed_count(world) - 1;
}

void sim_ledger_add(struct sim_world *world, size_t id, const struct sim_addition *addition)
{
    deed_of(world, id)->addition = *addition;
}

int64_t sim_ledger_total(const struct sim_world *world, int key)
{
    const struct sim_page *page = &world->ledger.pages[SIM_ADDITION][key];
    return page->is_there ? page->number : 0;
}

void sim_ledger_tell(struct sim_world *world, size_t id, enum sim_told told, int64_t total)
{
    struct deed *deed = deed_of(world, id);
    bool is_done = deed->done_us != INT64_MAX;
    deed->told = told;
    check_bare(world, deed->key);
    if (told == SIM_TOLD_FAILED && is_done)
        sim_violation(world, "G10: %s %d: !%zu has failed, it is said, but it was done at %.3f ms",
                      NAMES[deed->kind], deed->key, id, ms(deed->done_us));
    /* One that is no master any more may have done it. */
    if (told != SIM_TOLD_DONE || sim_world_lost_us(world, deed->key) >= deed->began_us)
        return;
    if (!is_done)
        sim_violation(world, "G10: %s %d: !%zu is done, it is said, and never was",
                      NAMES[deed->kind], deed->key, id);
    else if (deed->kind == SIM_ADDITION && deed->total != total)
        sim_violation(world,
                      "G11: counter %d: !%zu has made %" PRId64 " of it, but %" PRId64 " was told",
                      deed->key, id, deed->total, total);
}

/* Whether the counter was that at that time or later. */
static bool was_so(const struct sim_world *world, int key, int64_t since_us, const int64_t *total)
{
    const struct sim_ledger *ledger = &world->ledger;
    const struct sim_page *page = &ledger->pages[SIM_ADDITION][key];
    uint32_t count = ledger->past_count[key];
    if (page->is_there == (total != NULL) && (total == NULL || page->number == *total))
        return true;
    for (uint32_t i = 1; i <= count && i <= SIM_PASTS; i++) {
        const struct sim_past *past = &ledger->pasts[key][(count - i) % SIM_PASTS];
        if (past->until_us < since_us)
            return false;
        if (past->was_there == (total != NULL) && (total == NULL || past->number == *total))
            return true;
    }
    return count > SIM_PASTS; /* it is not known any more */
}

void sim_ledger_refuse(struct sim_world *world, size_t id, const int64_t *total)
{
    const struct deed *deed = deed_of(world, id);
    int64_t base = total != NULL ? *total : 0;
    sim_ledger_tell(world, id, SIM_TOLD_FAILED, 0);
    sim_trace(world, "  counter %d: !%zu is out of its bounds at %" PRId64, deed->key, id, base);
    if (!is_outside(&deed->addition, base + deed->addition.by))
        sim_violation(world, "G11: counter %d: !%zu was refused at %" PRId64 ", within its bounds",
                      deed->key, id, base);
    if (sim_world_lost_us(world, deed->key) < deed->began_us &&
        !was_so(world, deed->key, deed->began_us, total))
        sim_violation(world, "G11: counter %d: !%zu was refused at %s%" PRId64 ", which it was not",
                      deed->key, id, total != NULL ? "" : "nothing, ", base);
}

void sim_ledger_once(struct sim_world *world, int key, const char *text, size_t len)
{
    size_t id = text != NULL ? read_text(world, key, text, len) : 0;
    if (text == NULL)
        return; /* a replica may be as far behind as it likes */
    sim_trace(world, "  a replica's word of key %d: !%zu", key, id);
    if (id == 0)
        sim_violation(world, "G11: what was told of key %d is none of its values: '%.*s'", key,
                      (int)(len < 60 ? len : 60), text);
    else if (deed_of(world, id)->done_us == INT64_MAX && sim_world_lost_us(world, key) == INT64_MIN)
        sim_violation(world, "G11: !%zu was told of key %d, where it never was", id, key);
}

void sim_ledger_read(struct sim_world *world, int key, int64_t began_us, const char *text,
                     size_t len)
{
    const struct sim_page *page = &world->ledger.pages[SIM_WRITE][key];
    size_t id = text != NULL ? read_text(world, key, text, len) : 0;
    bool is_split = world->split_us[key] >= began_us;
    if (text == NULL && page->is_there && page->filled_us < began_us && !is_split)
        sim_violation(world, "G11: key %d was told to be empty, but !%" PRId64 " stands there", key,
                      page->number);
    if (text == NULL)
        return;
    if (id == 0) {
        sim_violation(world, "G11: what was told of key %d is none of its values: '%.*s'", key,
                      (int)(len < 60 ? len : 60), text);
        return;
    }
    const struct deed *deed = deed_of(world, id);
    int64_t end_us = deed->done_us == INT64_MAX ? sim_world_lost_us(world, key) : deed->until_us;
    if (end_us < began_us && !is_split)
        sim_violation(world, "G11: !%zu was told of key %d, but it is gone since %.3f ms", id, key,
                      ms(end_us));
}

/* ---- life ------------------------------------------------------------------------------------ */

void sim_ledger_init(struct sim_world *world)
{
    rc_buf_init(&world->ledger.deeds);
    (void)sim_ledger_begin(world, SIM_WRITE, SIM_NOBODY); /* number 0: none */
}

void sim_ledger_deinit(struct sim_world *world)
{
    rc_buf_deinit(&world->ledger.deeds);
}
