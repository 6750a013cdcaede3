#include "driver/sim/tags.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "driver/sim/world.h"

/* A value. */
struct made {
    int entry;
    unsigned tags;
    int64_t versions[SIM_KEYS];
};

struct invalidation {
    int64_t version; /* nobody is served older data */
    int64_t began_us;
    int64_t acked_us;
    int machine;
    bool is_soft;
};

/* ---- names and values ------------------------------------------------------------------------ */

void sim_tags_name_tag(int tag, char name[SIM_TAGS_NAME + 1])
{
    memcpy(name, "{k0}/t", SIM_TAGS_NAME + 1);
    name[2] = (char)('0' + tag);
}

void sim_tags_name_entry(int entry, char name[SIM_TAGS_NAME + 1])
{
    memcpy(name, "{k0}/e", SIM_TAGS_NAME + 1);
    name[2] = (char)('0' + entry);
}

static size_t made_count(const struct sim_world *world)
{
    return rc_buf_len(&world->tags.values) / sizeof(struct made);
}

static size_t write_text(int entry, size_t id, char text[SIM_TAGS_TEXT])
{
    return (size_t)snprintf(text, SIM_TAGS_TEXT, "e%d #%zu", entry, id);
}

size_t sim_tags_make(struct sim_world *world, int entry, unsigned tags,
                     const int64_t versions[SIM_KEYS], char text[SIM_TAGS_TEXT])
{
    struct made made = {.entry = entry, .tags = tags};
    memcpy(made.versions, versions, sizeof(made.versions));
    sim_must(rc_buf_append(&world->tags.values, &made, sizeof(made)));
    return write_text(entry, made_count(world) - 1, text);
}

/* NULL: it is none of that entry. */
static const struct made *read_text(const struct sim_world *world, int entry, const char *text,
                                    size_t len)
{
    char copy[SIM_TAGS_TEXT] = "", made[SIM_TAGS_TEXT];
    int named = -1;
    size_t id = 0;
    memcpy(copy, text, len < sizeof(copy) - 1 ? len : sizeof(copy) - 1);
    if (sscanf(copy, "e%d #%zu", &named, &id) != 2 || named != entry || id == 0 ||
        id >= made_count(world) || write_text(entry, id, made) != len ||
        memcmp(made, text, len) != 0)
        return NULL;
    const struct made *values = (const void *)rc_buf_head(&world->tags.values);
    return values[id].entry == entry ? &values[id] : NULL;
}

/* ---- what must hold -------------------------------------------------------------------------- */

void sim_tags_invalidated(struct sim_world *world, int tag, int64_t version, int machine,
                          int64_t began_us, bool is_soft)
{
    struct invalidation one = {version, began_us, world->now_us, machine, is_soft};
    sim_trace(world, "  tag %d is invalidated%s: its data is of version %" PRId64 " at least", tag,
              is_soft ? " softly" : "", version);
    sim_must(rc_buf_append(&world->tags.invalidations[tag], &one, sizeof(one)));
}

static bool is_due(const struct invalidation *one, const struct sim_tags_claim *claim)
{
    return one->acked_us < claim->since_us ||
           (one->machine == claim->machine && one->acked_us <= claim->began_us);
}

static void judge_tag(struct sim_world *world, const struct sim_tags_claim *claim, int tag,
                      int64_t version)
{
    const struct rc_buf *list = &world->tags.invalidations[tag];
    const struct invalidation *all = (const void *)rc_buf_head(list);
    int64_t lost_us = sim_world_lost_us(world, tag);
    /* They may have come from one that is no master any more. */
    if (world->split_us[tag] >= claim->since_us ||
        (claim->is_near && world->unknown_us[tag] >= claim->since_us))
        return;
    for (size_t i = 0; i < rc_buf_len(list) / sizeof(*all); i++) {
        const struct invalidation *one = &all[i];
        if (one->version <= version || one->began_us <= lost_us ||
            (one->is_soft && claim->is_stale) || !is_due(one, claim))
            continue;
        sim_violation(world,
                      "G12: entry %d was served%s with data of version %" PRId64
                      " of tag %d, which was invalidated%s behind version %" PRId64
                      " at %.3f ms; the call began at %.3f ms",
                      claim->entry, claim->is_stale ? " as stale" : "", version, tag,
                      one->is_soft ? " softly" : "", one->version, (double)one->acked_us / 1000,
                      (double)claim->began_us / 1000);
        return;
    }
}

void sim_tags_saw(struct sim_world *world, const struct sim_tags_claim *claim, const char *text,
                  size_t len)
{
    const struct made *made = read_text(world, claim->entry, text, len);
    if (made == NULL) {
        sim_violation(world, "G12: what was told of entry %d is none of its values: '%.*s'",
                      claim->entry, (int)(len < 60 ? len : 60), text);
        return;
    }
    sim_trace(world, "  entry %d%s%s: %.*s", claim->entry, claim->is_near ? ", near" : "",
              claim->is_stale ? ", stale" : "", (int)len, text);
    for (int tag = 0; tag < SIM_KEYS; tag++)
        if (made->tags & 1U << tag)
            judge_tag(world, claim, tag, made->versions[tag]);
}

/* ---- life ------------------------------------------------------------------------------------ */

void sim_tags_init(struct sim_world *world)
{
    const struct made none = {.entry = SIM_NOBODY};
    rc_buf_init(&world->tags.values);
    sim_must(rc_buf_append(&world->tags.values, &none, sizeof(none)));
    for (int tag = 0; tag < SIM_KEYS; tag++)
        rc_buf_init(&world->tags.invalidations[tag]);
}

void sim_tags_deinit(struct sim_world *world)
{
    rc_buf_deinit(&world->tags.values);
    for (int tag = 0; tag < SIM_KEYS; tag++)
        rc_buf_deinit(&world->tags.invalidations[tag]);
}
