/*
 * slot_map - which server of a cluster owns which slot, as one node has told it.
 *
 * What:    reads the answer to CLUSTER SLOTS: the masters by address, which of them owns each of
 *          the 16,384 slots, and their replicas.
 * Threads: pure.
 * Memory:  owns its list of servers.
 * Errors:  RC_ERR_NOMEM; RC_ERR_PROTOCOL where the answer has another form. The map is then empty.
 * Not:     does not ask, and decides nothing: the topology compares maps.
 * Source:  CLUSTER SLOTS in the Redis documentation. Its host is null, "" or "?" where the node
 *          knows none: it means the host that was asked (measured on 7.0 to 9.1). CLUSTER SHARDS is
 *          newer and tells nothing else that is of use here.
 */
#ifndef RC_SLOT_MAP_H
#define RC_SLOT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slot.h"
#include "engine/resp.h"

enum {
    RC_SLOT_NOBODY = 0xffff,    /* no node serves it */
    RC_SLOT_SERVERS_MAX = 2000, /* nodes of a cluster: its specification names 1,000 */
    RC_SLOT_ID_SIZE = 41
};

struct rc_slot_server {
    char host[256]; /* "": the one that was asked */
    uint16_t port;
    uint16_t master;          /* of a replica: the index of its master; else its own */
    char id[RC_SLOT_ID_SIZE]; /* the node's; "": not told */
};

struct rc_slot_map {
    struct rc_slot_server *servers;
    uint32_t count;
    uint32_t room;
    uint32_t covered;              /* slots that have an owner */
    uint16_t owner[RC_SLOT_COUNT]; /* index of a server, or RC_SLOT_NOBODY */
};

void rc_slot_map_init(struct rc_slot_map *map); /* nobody owns anything */
void rc_slot_map_deinit(struct rc_slot_map *map);
/* Takes the whole answer, which begins at the node `at`, in place of what was there. */
int rc_slot_map_read(struct rc_slot_map *map, const struct rc_reply *reply, uint32_t at);

#endif
