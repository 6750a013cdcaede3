#include "near/ghost.h"

/* Bits of the hash that the choice of the line does not use. */
static uint16_t fingerprint_of(uint64_t hash)
{
    uint16_t fingerprint = (uint16_t)hash;
    return fingerprint != 0 ? fingerprint : 1;
}

static struct rc_ghost_line *line_of(struct rc_ghost_line *lines, uint32_t count, uint64_t hash)
{
    return &lines[(uint64_t)(uint32_t)(hash >> 26) * count >> 32];
}

void rc_ghost_add(struct rc_ghost_line *lines, uint32_t count, uint64_t hash)
{
    struct rc_ghost_line *line = line_of(lines, count, hash);
    uint32_t place = line->next < RC_GHOST_PRINTS ? line->next : 0;
    line->fingerprints[place] = fingerprint_of(hash);
    line->next = (uint16_t)((place + 1) % RC_GHOST_PRINTS);
}

bool rc_ghost_take(struct rc_ghost_line *lines, uint32_t count, uint64_t hash)
{
    struct rc_ghost_line *line = line_of(lines, count, hash);
    uint16_t fingerprint = fingerprint_of(hash);
    for (int i = 0; i < RC_GHOST_PRINTS; i++)
        if (line->fingerprints[i] == fingerprint) {
            line->fingerprints[i] = 0;
            return true;
        }
    return false;
}
