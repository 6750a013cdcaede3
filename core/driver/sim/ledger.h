/*
 * ledger - what counters and batches have done, deed by deed, and what is told of it.
 *
 * What:    each place of a key has a counter beside it, and a key that batches alone write. A deed
 *          is one addition or one write. It has a number of its own, which is what it adds, takes
 *          away or writes, so each change in a master tells whose it is: acknowledged <= total <=
 *          acknowledged + unknown holds for each deed by itself.
 *
 *              G10  a deed is done once; one that was acknowledged is done, one that failed (and
 *                   neither "unknown" nor a time-out was said) or was refused is not, nor later; a
 *                   counter begins with its ttl, which stands as long as it does, and with an
 *                   addition; no addition takes it out of the bounds that were given with it
 *              G11  a batch's answers stand at their keys' places, and each is of its time: a total
 *                   that an addition was refused at, too, and it would have left its bounds there.
 *                   What was asked for replicas has stood there at whatever time
 * Threads: the run's.
 * Memory:  owns the list of deeds; the rest is of fixed size, in the world.
 * Errors:  sim_violation.
 * Not:     what a failover may lose is excused as in oracle.h: by the place's.
 */
#ifndef RC_SIM_LEDGER_H
#define RC_SIM_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "driver/sim/oracle.h"

struct sim_world;

enum sim_deed_kind { SIM_ADDITION, SIM_WRITE, SIM_DEED_KINDS };
enum sim_told { SIM_TOLD_NOTHING, SIM_TOLD_DONE, SIM_TOLD_UNKNOWN, SIM_TOLD_FAILED };

/* What is added to a counter, and between which totals. */
struct sim_addition {
    int64_t by; /* the deed's number, or what is 0 with it */
    bool has_min;
    bool has_max;
    int64_t min;
    int64_t max;
};

/* What stands in one key of the ledger. */
struct sim_page {
    bool is_there;
    bool is_bare;       /* a counter that nothing was added to yet */
    int64_t number;     /* of the counter, or of the deed that wrote the key */
    int64_t expires_ms; /* since 1970; RC_STORE_NEVER */
    int64_t filled_us;  /* when it came to be there */
};

/* What a counter was. */
struct sim_past {
    bool was_there;
    int64_t number;
    int64_t until_us;
};

enum { SIM_PASTS = 64 /* more changes than there are in the time of one call */ };
struct sim_ledger {
    struct rc_buf deeds; /* of struct deed; number 0 is none */
    struct sim_page pages[SIM_DEED_KINDS][SIM_KEYS];
    struct sim_past pasts[SIM_KEYS][SIM_PASTS]; /* a ring */
    uint32_t past_count[SIM_KEYS];              /* ever */
};

/* How a key of the ledger is called: it lies in the slot of the place's own. */
enum { SIM_LEDGER_NAME = 5 };
void sim_ledger_name(enum sim_deed_kind kind, int key, char name[SIM_LEDGER_NAME + 1]);

void sim_ledger_init(struct sim_world *world);
void sim_ledger_deinit(struct sim_world *world);

/* The place of such a key; negative: it is none. */
int sim_ledger_place(const struct rc_store_change *change);
/* One of them has changed, in truth. */
void sim_ledger_change(struct sim_world *world, const struct rc_store_change *change);
/* Somebody has deleted all keys of the place. */
void sim_ledger_flush(struct sim_world *world, int key);
/* The places of these bits have other holders. */
void sim_ledger_lose(struct sim_world *world, unsigned places);

/* A caller is about to ask for it. Returns its number. */
size_t sim_ledger_begin(struct sim_world *world, enum sim_deed_kind kind, int key);
/* What an addition is, before it is asked for. */
void sim_ledger_add(struct sim_world *world, size_t id, const struct sim_addition *addition);
/* The counter in truth; 0: there is none. */
int64_t sim_ledger_total(const struct sim_world *world, int key);
/* What the caller was told of it. `total`: of a counter, if it was told that it is done. */
void sim_ledger_tell(struct sim_world *world, size_t id, enum sim_told told, int64_t total);
/* The caller of an addition was told that it would leave its bounds, and what the counter is. NULL:
   there is none. */
void sim_ledger_refuse(struct sim_world *world, size_t id, const int64_t *total);
/* What was asked for replicas was told to stand, or have stood, in the key. */
void sim_ledger_once(struct sim_world *world, int key, const char *text, size_t len);
/* A batch that began then was told that this stands in the key. NULL: nothing does. */
void sim_ledger_read(struct sim_world *world, int key, int64_t began_us, const char *text,
                     size_t len);
/* Writes what a write with that number stores, NUL-ended, and returns its length. */
enum { SIM_LEDGER_TEXT = 32 };
size_t sim_ledger_text(int key, size_t id, char text[SIM_LEDGER_TEXT]);

#endif
