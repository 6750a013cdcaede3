#include "engine/ownership.h"

#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/slot_word.h"

enum {
    ANSWER_MS = 1000,    /* a node that takes longer is asked again */
    DROP_BUCKETS = 4096, /* per turn: 256 KiB of the index, well under a millisecond */
    DROP_AGAIN_US = 1000,
    SLACK_US = 2000 /* nodes watch at different times */
};

/* ---- dropping copies ------------------------------------------------------------------------- */

/* When the last question was sent that a majority of the masters has answered; 0: never. */
static int64_t majority_us(struct rc_topology *topology)
{
    uint32_t masters = 0;
    int64_t us = 0;
    RC_TOPOLOGY_NODES(node, topology) {
        masters += node->slots > 0;
    }
    /* The greatest time that more than half of them have reached. */
    RC_TOPOLOGY_NODES(candidate, topology) {
        uint32_t count = 0;
        int64_t at_us = candidate->voice.heard_us;
        if (candidate->slots == 0 || at_us <= us)
            continue;
        RC_TOPOLOGY_NODES(node, topology) {
            count += node->slots > 0 && node->voice.heard_us >= at_us;
        }
        if (count > masters / 2)
            us = at_us;
    }
    return us;
}

/* Says of each node up to when it may be vouched for, as far as the answers go. */
static void ready(struct rc_topology *topology)
{
    int64_t us = majority_us(topology);
    RC_TOPOLOGY_NODES(node, topology) {
        int64_t heard_us = node->voice.heard_us;
        node->voice.ready_us = heard_us < us ? heard_us : us;
    }
}

static void vouch(struct rc_topology *topology)
{
    RC_TOPOLOGY_NODES(node, topology) {
        if (node->slots > 0 && node->is_in_cluster)
            rc_node_vouch(node, node->voice.ready_us);
    }
}

static void drop_some(struct rc_ownership *ownership)
{
    struct rc_context *context = ownership->context;
    ownership->cursor = rc_near_drop_slots(ownership->topology->near, &ownership->leaving,
                                           ownership->cursor, DROP_BUCKETS);
    if (ownership->cursor == 0)
        vouch(ownership->topology);
    else
        rc_context_set_timer(context, &ownership->drop, context->now_us + DROP_AGAIN_US);
}

static void on_drop(void *context, struct rc_timer *timer)
{
    (void)context;
    drop_some(RC_CONTAINER(timer, struct rc_ownership, drop));
}

/* Vouches for the nodes, behind the drop of what must not be served any more. What else is in doubt
   or moves while copies are dropped waits for the next answer: up to `ready_us` it was agreed. */
static void settle(struct rc_ownership *ownership)
{
    struct rc_topology *topology = ownership->topology;
    if (ownership->cursor != 0)
        return;
    ready(topology);
    if (!ownership->has_doubted && !topology->has_moved) {
        vouch(topology);
        return;
    }
    ownership->leaving = ownership->doubted;
    rc_slot_set_join(&ownership->leaving, &topology->moved);
    memset(&ownership->doubted, 0, sizeof ownership->doubted);
    memset(&topology->moved, 0, sizeof topology->moved);
    ownership->has_doubted = topology->has_moved = false;
    drop_some(ownership);
}

/* ---- what a master says ---------------------------------------------------------------------- */

/* Whether the map's server is that node; the one that was asked may be named without its host. */
static bool is_same(const struct rc_server_node *node, const struct rc_slot_server *server,
                    const struct rc_server_node *asked)
{
    if (node->id[0] != '\0' && server->id[0] != '\0')
        return strcmp(node->id, server->id) == 0;
    const char *host = server->host[0] != '\0' ? server->host : asked->address.host;
    return server->port == node->address.port && strcmp(host, node->address.host) == 0;
}

/* Compares the map with ours, slot by slot. Returns how many it gives to the one that was asked. */
static uint32_t compare(struct rc_ownership *ownership, const struct rc_server_node *asked)
{
    struct rc_topology *topology = ownership->topology;
    const struct rc_slot_map *map = ownership->map;
    uint32_t own = 0;
    bool agrees = false, is_own = false, has_doubt = false;
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT; slot++) {
        uint16_t theirs = map->owner[slot], ours = topology->owners[slot];
        if (slot == 0 || theirs != map->owner[slot - 1] || ours != topology->owners[slot - 1]) {
            const struct rc_slot_server *server =
                theirs != RC_SLOT_NOBODY ? &map->servers[theirs] : NULL;
            agrees = server != NULL && is_same(rc_topology_at(topology, ours), server, asked);
            is_own = server != NULL && is_same(asked, server, asked);
        }
        own += is_own;
        if (agrees)
            continue;
        has_doubt = true;
        rc_slot_set_add(&ownership->contested, slot);
        if (rc_slot_set_has(&topology->unsure, slot))
            continue; /* there are no copies of it, or they are on their way out */
        rc_slot_set_add(&topology->unsure, slot);
        rc_slot_set_add(&ownership->doubted, slot);
        ownership->has_doubted = true;
    }
    if (has_doubt)
        ownership->on_doubt(ownership->owner);
    return own;
}

/* It may have taken slots over since it was last asked: one that it had lost for a moment may be
   among them, which nobody else has noticed. */
static void begin_epoch(struct rc_server_node *node)
{
    rc_node_begin_epoch(node);
    if (node->near != NULL)
        rc_revalidate_start(&node->revalidate);
}

static void hear(struct rc_ownership *ownership, struct rc_server_node *node,
                 const struct rc_slot_word *word, int64_t sent_us)
{
    struct rc_voice *voice = &node->voice;
    if (word->own_epoch != voice->epoch)
        begin_epoch(node);
    voice->epoch = word->own_epoch;
    if (compare(ownership, node) > 0 && word->is_ok)
        voice->heard_us = sent_us;
}

/* Nobody doubts any more what nobody has doubted in a round that a majority has answered. */
static void end_round(struct rc_ownership *ownership)
{
    struct rc_topology *topology = ownership->topology;
    if (majority_us(topology) >= ownership->round_us)
        topology->unsure = ownership->contested;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_ownership *ownership = req->owner;
    struct rc_server_node *node = req->detail;
    struct rc_slot_word word;
    (void)text;
    node->voice.req = NULL;
    rc_slot_word_read(&word, ownership->map, status, reply);
    if (word.is_answer)
        hear(ownership, node, &word, req->sent_us);
    if (node->voice.round == ownership->round && --ownership->missing == 0)
        end_round(ownership);
    settle(ownership);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void ask(struct rc_ownership *ownership, struct rc_server_node *node)
{
    struct rc_context *context = ownership->context;
    struct rc_req *req = node->voice.req == NULL ? rc_slot_word_ask(context) : NULL;
    if (req == NULL)
        return;
    req->done = on_answer;
    req->owner = ownership;
    req->detail = node;
    node->voice.req = req;
    node->voice.round = ownership->round;
    ownership->missing++;
    rc_topology_send_to(ownership->topology, req, node, RC_SLOT_ANY,
                        rc_context_after_ms(context, ANSWER_MS));
}

static bool has_map(struct rc_ownership *ownership)
{
    if (ownership->map == NULL) {
        ownership->map = malloc(sizeof *ownership->map);
        if (ownership->map == NULL)
            return false; /* a moment later there may be memory */
        rc_slot_map_init(ownership->map);
    }
    return true;
}

void rc_ownership_watch(struct rc_ownership *ownership, const struct rc_server_node *node)
{
    struct rc_topology *topology = ownership->topology;
    int64_t now_us = ownership->context->now_us;
    if (ownership->context->closing || topology->owners == NULL || !has_map(ownership) ||
        (ownership->has_majority &&
         now_us - ownership->round_us < rc_horizon_period_us(&node->horizon) - SLACK_US))
        return;
    uint32_t masters = 0, deaf = 0;
    ownership->round++;
    ownership->missing = 0;
    ownership->round_us = now_us;
    memset(&ownership->contested, 0, sizeof ownership->contested);
    RC_TOPOLOGY_NODES(each, topology) {
        if (each->slots == 0)
            continue;
        bool is_ready = rc_link_is_ready(rc_node_command_link(each));
        masters++;
        deaf += !is_ready;
        if (is_ready)
            ask(ownership, each);
        else
            rc_node_want(each);
    }
    ownership->has_majority = 2 * deaf < masters;
}

/* ---- life ------------------------------------------------------------------------------------ */

int rc_ownership_init(struct rc_ownership *ownership, struct rc_context *context,
                      struct rc_topology *topology, void (*on_doubt)(void *owner), void *owner)
{
    memset(ownership, 0, sizeof *ownership);
    ownership->context = context;
    ownership->topology = topology;
    ownership->on_doubt = on_doubt;
    ownership->owner = owner;
    ownership->drop.fire = on_drop;
    return rc_context_add_timer(context);
}

void rc_ownership_deinit(struct rc_ownership *ownership)
{
    rc_context_clear_timer(ownership->context, &ownership->drop);
    rc_context_remove_timer(ownership->context);
    if (ownership->map != NULL)
        rc_slot_map_deinit(ownership->map);
    free(ownership->map);
}
