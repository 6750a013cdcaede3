#include "base/seen.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"

enum { FIRST_ROOM = 8 };

void rc_seen_init(struct rc_seen *seen, const struct rc_seed *seed)
{
    memset(seen, 0, sizeof *seen);
    seen->seed = *seed;
}

void rc_seen_deinit(struct rc_seen *seen)
{
    for (int i = 0; i < RC_SEEN_PARTS; i++)
        free(seen->parts[i].hashes);
    memset(seen->parts, 0, sizeof seen->parts);
}

/* Where the hash stands, or would: one place is always free. */
static uint64_t *place_of(uint64_t *hashes, uint32_t room, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (room - 1);
    while (hashes[at] != 0 && hashes[at] != hash)
        at = (at + 1) & (room - 1);
    return &hashes[at];
}

static int grow(struct rc_seen_part *part)
{
    uint32_t room = part->room == 0 ? FIRST_ROOM : part->room * 2;
    uint64_t *hashes = room > part->room ? calloc(room, sizeof *hashes) : NULL;
    if (hashes == NULL)
        return RC_ERR_NOMEM;
    for (uint32_t i = 0; i < part->room; i++) {
        if (part->hashes[i] != 0)
            *place_of(hashes, room, part->hashes[i]) = part->hashes[i];
    }
    free(part->hashes);
    part->hashes = hashes;
    part->room = room;
    return 0;
}

int rc_seen_meet(struct rc_seen *seen, const char *bytes, size_t len)
{
    uint64_t hash = rc_siphash(&seen->seed, bytes, len);
    struct rc_seen_part *part = &seen->parts[hash >> 56];
    if (hash == 0)
        hash = 1;
    if (part->count > 0 && *place_of(part->hashes, part->room, hash) == hash)
        return 0;
    /* Three quarters full: long runs are rare up to there, and it is half full of that behind. */
    if (part->count >= part->room / 4 * 3 && grow(part) != 0)
        return RC_ERR_NOMEM;
    *place_of(part->hashes, part->room, hash) = hash;
    part->count++;
    return 1;
}

size_t rc_seen_room(const struct rc_seen *seen)
{
    size_t bytes = 0;
    for (int i = 0; i < RC_SEEN_PARTS; i++)
        bytes += seen->parts[i].room * sizeof *seen->parts[i].hashes;
    return bytes;
}
