/*
 * tags - the data behind tagged entries, who has invalidated it when, and what readers are told.
 *
 * What:    each place has a tag, with data that belongs to it, and an entry, whose value is made of
 *          the data of any tags. A version of data is a number; a value knows from which versions
 *          it was made.
 *
 *              G12  a value whose tag was invalidated, acknowledged, after its data had changed is
 *                   served to nobody whose call began behind that: at once on the machine that
 *                   has invalidated it, elsewhere near reads have maxStale. Where the invalidation
 *                   was soft it may be served as stale
 *
 *          Loads are under no lease here: any may store at any time, which is more than leases let.
 * Threads: the run's.
 * Memory:  owns the lists of values and invalidations.
 * Errors:  sim_violation.
 * Not:     what a failover may lose is excused as in oracle.h, by the tag's place: an invalidation
 *          may be undone then. Where the entry lies is no excuse.
 */
#ifndef RC_SIM_TAGS_H
#define RC_SIM_TAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "driver/sim/oracle.h"

struct sim_world;

struct sim_tags {
    struct rc_buf values;                  /* of struct made; number 0 is none */
    struct rc_buf invalidations[SIM_KEYS]; /* of struct invalidation, oldest first */
    int64_t versions[SIM_KEYS];            /* of the data, now */
};

/* How a tag's generations and an entry are called: both lie in their place's slots. */
enum { SIM_TAGS_NAME = 6, SIM_TAGS_PREFIX = 2 /* of a tag's; the rest names it */ };
void sim_tags_name_tag(int tag, char name[SIM_TAGS_NAME + 1]);
void sim_tags_name_entry(int entry, char name[SIM_TAGS_NAME + 1]);

void sim_tags_init(struct sim_world *world);
void sim_tags_deinit(struct sim_world *world);

/* Writes the text of a value, made of those versions of the data of those tags (bits). */
enum { SIM_TAGS_TEXT = 32 };
size_t sim_tags_make(struct sim_world *world, int entry, unsigned tags,
                     const int64_t versions[SIM_KEYS], char text[SIM_TAGS_TEXT]);

/* The tag was invalidated, behind that version of its data, by a call that began then and has been
   acknowledged now. `machine`: whose it was, or SIM_NOBODY. */
void sim_tags_invalidated(struct sim_world *world, int tag, int64_t version, int machine,
                          int64_t began_us, bool is_soft);

/* A call was given that value. */
struct sim_tags_claim {
    int entry;
    int machine;
    int64_t began_us;
    int64_t since_us; /* the generations must have been so at or after that time */
    bool is_near;     /* some of them at least */
    bool is_stale;    /* it was told so */
};
void sim_tags_saw(struct sim_world *world, const struct sim_tags_claim *claim, const char *text,
                  size_t len);

#endif
