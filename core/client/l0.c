/*
 * l0 - the public calls that keep the L0 of a view; rc_l0_find is view.c's.
 */
#include <string.h>

#include "client/client.h"
#include "near/l0.h"

enum { LINE = 64 };

size_t rc_l0_bytes(uint32_t room)
{
    return room * sizeof(struct rc_l0_place) + LINE;
}

/* Memory of a Lua state is aligned to 16 bytes at best, and a bucket is a line. */
static void use(rc_l0 *l0, void *memory, uint32_t room)
{
    char *bytes = memory;
    l0->places = (void *)(bytes + LINE - (uintptr_t)bytes % LINE);
    l0->room = room;
    l0->count = 0;
    l0->shift = 65;
    for (; room > 1; room /= 2)
        l0->shift--;
}

void rc_l0_init(rc_l0 *l0, rc_view *view, rc_near_handle *const *handles, void *memory,
                uint32_t room)
{
    memset(l0, 0, sizeof *l0);
    l0->view = view;
    l0->handles = handles;
    rc_near_l0_init(view->near, l0);
    use(l0, memory, room);
}

void rc_l0_move(rc_l0 *l0, void *memory, uint32_t room)
{
    const struct rc_l0_place *old = l0->places, *end = old + l0->room;
    use(l0, memory, room);
    for (; old < end; old++) {
        struct rc_l0_place *place = old->key != NULL ? rc_near_l0_put(l0, old->key) : NULL;
        if (place != NULL) /* else there is none: its handle is asked */
            *place = *old;
    }
}

int rc_l0_put(rc_l0 *l0, const char *key, uint32_t index)
{
    struct rc_l0_place *place = rc_near_l0_find(l0, key);
    if (place == NULL && l0->count >= l0->room / 4 * 3)
        return RC_L0_FULL;
    place = rc_near_l0_put(l0, key);
    if (place == NULL)
        return RC_L0_NONE;
    place->index = index;
    place->used = 0;
    rc_near_l0_see(l0->view->near, place, &(*l0->handles)[index]);
    return RC_L0_PUT;
}

void rc_l0_drop(rc_l0 *l0, const char *key)
{
    struct rc_l0_place *place = rc_near_l0_find(l0, key);
    if (place == NULL)
        return;
    place->key = NULL;
    l0->count--;
}

int rc_l0_was_used(rc_l0 *l0, const char *key)
{
    struct rc_l0_place *place = rc_near_l0_find(l0, key);
    int was_used = place != NULL && place->used != 0;
    if (was_used)
        place->used = 0;
    return was_used;
}
