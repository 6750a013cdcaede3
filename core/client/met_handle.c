/*
 * met_handle - the public calls on sets of strings that were met. Any thread, one at a time.
 */
#include <stdlib.h>

#include "base/seen.h"
#include "driver/random.h"
#include "redcache.h"

struct rc_met {
    struct rc_seen seen;
};

rc_met *rc_met_new(void)
{
    struct rc_seed seed;
    struct rc_met *met = rc_random_bytes(&seed, sizeof seed) == 0 ? malloc(sizeof *met) : NULL;
    if (met != NULL)
        rc_seen_init(&met->seen, &seed);
    return met;
}

void rc_met_free(rc_met *met)
{
    if (met == NULL)
        return;
    rc_seen_deinit(&met->seen);
    free(met);
}

int rc_met_add(rc_met *met, const char *bytes, size_t len)
{
    return rc_seen_meet(&met->seen, bytes, len);
}
