#include "engine/slot_map.h"

#include <stdlib.h>
#include <string.h>

void rc_slot_map_init(struct rc_slot_map *map)
{
    map->servers = NULL;
    map->count = map->room = map->covered = 0;
    memset(map->owner, 0xff, sizeof map->owner);
}

void rc_slot_map_deinit(struct rc_slot_map *map)
{
    free(map->servers);
    rc_slot_map_init(map);
}

static void clear(struct rc_slot_map *map)
{
    map->count = map->covered = 0;
    memset(map->owner, 0xff, sizeof map->owner);
}

/* Copies a string without its end; false where it is too long. Null is "". */
static bool take_text(char *to, size_t room, const rc_node *node)
{
    if (node->type == '_' || (node->len == 1 && room > 1 && node->str[0] == '?')) {
        to[0] = '\0';
        return true;
    }
    if ((node->type != '$' && node->type != '+') || node->len >= room)
        return false;
    memcpy(to, node->str, node->len);
    to[node->len] = '\0';
    return true;
}

/* The server that is described at `at`: [host, port, id, ...]. */
static bool read_server(struct rc_slot_server *server, const struct rc_reply *reply, uint32_t at)
{
    const rc_node *node = &reply->nodes[at];
    if (node->type != '*' || node->count < 2 || reply->count - at <= 2)
        return false;
    const rc_node *port = node + 2;
    if (!take_text(server->host, sizeof server->host, node + 1) || port->type != ':' ||
        port->integer < 1 || port->integer > 65535)
        return false;
    server->port = (uint16_t)port->integer;
    server->id[0] = '\0';
    return node->count < 3 || reply->count - at <= 3 || node[3].type != '$' ||
           take_text(server->id, sizeof server->id, node + 3);
}

/* Index of the server, which is added where it is new; negative: an error. A cluster of many
   ranges names the same few again and again: the newest are looked at first. */
static int32_t find_or_add(struct rc_slot_map *map, const struct rc_slot_server *server)
{
    for (uint32_t i = map->count; i-- > 0;) {
        const struct rc_slot_server *each = &map->servers[i];
        if (each->port == server->port && strcmp(each->host, server->host) == 0)
            return (int32_t)i;
    }
    if (map->count == RC_SLOT_SERVERS_MAX)
        return RC_ERR_PROTOCOL;
    if (map->count == map->room) {
        uint32_t room = map->room > 0 ? 2 * map->room : 8;
        struct rc_slot_server *servers = realloc(map->servers, room * sizeof *servers);
        if (servers == NULL)
            return RC_ERR_NOMEM;
        map->servers = servers;
        map->room = room;
    }
    map->servers[map->count] = *server;
    return (int32_t)map->count++;
}

static void give_slots(struct rc_slot_map *map, uint32_t first, uint32_t last, uint16_t owner)
{
    for (uint32_t slot = first; slot <= last; slot++) {
        map->covered += map->owner[slot] == RC_SLOT_NOBODY;
        map->owner[slot] = owner;
    }
}

/* One range: [first, last, master, replica, ...]. */
static int read_range(struct rc_slot_map *map, const struct rc_reply *reply, uint32_t at)
{
    const rc_node *range = &reply->nodes[at];
    struct rc_slot_server server;
    int32_t master = -1;
    if (range->type != '*' || range->count < 3 || reply->count - at <= 3)
        return RC_ERR_PROTOCOL;
    const rc_node *first = range + 1, *last = range + 2;
    if (first->type != ':' || last->type != ':' || first->integer < 0 ||
        last->integer < first->integer || last->integer >= RC_SLOT_COUNT)
        return RC_ERR_PROTOCOL;
    uint32_t next = at + 3;
    for (uint32_t i = 2; i < range->count; i++) {
        if (next >= reply->count || !read_server(&server, reply, next))
            return RC_ERR_PROTOCOL;
        int32_t index = find_or_add(map, &server);
        if (index < 0)
            return (int)index;
        if (master < 0) {
            master = index;
            give_slots(map, (uint32_t)first->integer, (uint32_t)last->integer, (uint16_t)index);
        }
        map->servers[index].master = (uint16_t)master;
        next = rc_reply_skip(reply, next);
    }
    return 0;
}

int rc_slot_map_read(struct rc_slot_map *map, const struct rc_reply *reply, uint32_t at)
{
    clear(map);
    const rc_node *ranges = &reply->nodes[at];
    int error = ranges->type == '*' ? 0 : RC_ERR_PROTOCOL;
    uint32_t next = at + 1;
    for (uint32_t i = 0; error == 0 && i < ranges->count; i++) {
        error = next < reply->count ? read_range(map, reply, next) : RC_ERR_PROTOCOL;
        if (error == 0)
            next = rc_reply_skip(reply, next);
    }
    if (error != 0)
        clear(map);
    return error;
}
