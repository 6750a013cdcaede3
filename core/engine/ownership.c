#include "engine/ownership.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mutant.h"
#include "engine/slot_word.h"

enum {
    ANSWER_MS = 1000,    /* a node that takes longer is asked again */
    DROP_BUCKETS = 4096, /* per turn: 256 KiB of the index, well under a millisecond */
    DROP_AGAIN_US = 1000,
    SLACK_US = 2000 /* nodes watch at different times */
};

static void recheck(struct rc_ownership *ownership, struct rc_server_node *node, int64_t claim_us);

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

/* Says of each node up to when it may be vouched for, as far as the answers go, and asks for the
   proof of what they promise. */
static void ready(struct rc_ownership *ownership)
{
    int64_t us = majority_us(ownership->topology);
    RC_TOPOLOGY_NODES(node, ownership->topology) {
        struct rc_voice *voice = &node->voice;
        int64_t claim_us = voice->heard_us < us ? voice->heard_us : us;
        if (claim_us > voice->sure_us && voice->recheck == NULL)
            recheck(ownership, node, claim_us);
        voice->ready_us = voice->sure_us;
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
    if (ownership->cursor != 0) {
        rc_context_set_timer(context, &ownership->drop, context->now_us + DROP_AGAIN_US);
        return;
    }
    /* The nodes that own those slots now do not know what was read of them. */
    rc_near_tell(ownership->topology->near, RC_TOLD_GAP, NULL, 0);
    vouch(ownership->topology);
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
    ready(ownership);
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

/* Compares the map with ours, slot by slot. Returns whether they are the same; `own`: how many it
   gives to the one that was asked. */
static bool compare(struct rc_ownership *ownership, const struct rc_server_node *asked,
                    uint32_t *own)
{
    struct rc_topology *topology = ownership->topology;
    const struct rc_slot_map *map = ownership->map;
    bool agrees = false, is_own = false, has_doubt = false;
    *own = 0;
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT; slot++) {
        uint16_t theirs = map->owner[slot], ours = topology->owners[slot];
        if (slot == 0 || theirs != map->owner[slot - 1] || ours != topology->owners[slot - 1]) {
            const struct rc_slot_server *server =
                theirs != RC_SLOT_NOBODY ? &map->servers[theirs] : NULL;
            agrees = server != NULL && is_same(rc_topology_at(topology, ours), server, asked);
            is_own = server != NULL && is_same(asked, server, asked);
        }
        *own += is_own;
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
    return !has_doubt;
}

/* ---- what other processes were told ---------------------------------------------------------- */

/* A number that stands for the map we follow, the same for all who follow the same. */
static uint64_t number_map(struct rc_ownership *ownership)
{
    static const struct rc_seed NO_SEED;
    struct rc_topology *topology = ownership->topology;
    struct {
        uint64_t before, server, first;
    } range = {0};
    if (ownership->map_changes == topology->changes)
        return ownership->map_number;
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT; slot++) {
        if (slot > 0 && topology->owners[slot] == topology->owners[slot - 1])
            continue;
        range.server = rc_node_number(rc_topology_at(topology, topology->owners[slot]));
        range.first = slot;
        range.before = rc_siphash(&NO_SEED, &range, sizeof range);
    }
    ownership->map_changes = topology->changes;
    ownership->map_number = range.before;
    return range.before;
}

/* Stands for "the server of that name and epoch is in a cluster that works, has slots, and follows
   the same map as we do". */
static uint64_t number_word(struct rc_ownership *ownership, const struct rc_server_node *node)
{
    static const struct rc_seed NO_SEED;
    struct {
        uint64_t map;
        int64_t epoch;
        char id[48]; /* a multiple of 8: no padding is hashed */
    } word = {.map = RC_MUTANT(NOTE_OF_ANY_MAP) ? 0 : number_map(ownership),
              .epoch = node->voice.epoch};
    memcpy(word.id, node->id, strlen(node->id));
    return rc_siphash(&NO_SEED, &word, sizeof word);
}

/* Takes what another process was told for the answer, if it is at most half a period old. Older
   ones would add up with the time until we look again. */
static bool take_note(struct rc_ownership *ownership, struct rc_server_node *node)
{
    struct rc_voice *voice = &node->voice;
    if (node->near == NULL || node->id[0] == '\0' || voice->epoch < 0)
        return false;
    int64_t now_us = ownership->context->now_us;
    int64_t at_us =
        rc_near_noted_us(node->near, rc_node_number(node), number_word(ownership, node));
    if (at_us <= voice->heard_us || at_us > now_us || at_us < now_us - ownership->period_us / 2)
        return false;
    voice->heard_us = voice->sure_us = at_us;
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */

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
    uint32_t own;
    bool is_same_map = compare(ownership, node, &own);
    if (own == 0 || !word->is_ok)
        return;
    voice->heard_us = sent_us;
    bool is_for_others = is_same_map || RC_MUTANT(NOTE_OF_ANY_MAP);
    voice->note = is_for_others ? number_word(ownership, node) : 0;
}

/* Nobody doubts any more what nobody has doubted in a round that a majority has answered, once the
   owner's word of that round stands: what was read before the slot was away may still arrive. */
static void end_round(struct rc_ownership *ownership)
{
    struct rc_topology *topology = ownership->topology;
    if (ownership->missing > 0 || ownership->is_partial ||
        rc_slot_set_is_empty(&topology->unsure) || majority_us(topology) < ownership->round_us)
        return;
    for (uint32_t slot = 0; slot < RC_SLOT_COUNT; slot++) {
        const struct rc_server_node *owner = rc_topology_at(topology, topology->owners[slot]);
        if (!rc_slot_set_has(&ownership->contested, slot) &&
            owner->voice.sure_us >= ownership->round_us)
            rc_slot_set_remove(&topology->unsure, slot);
    }
}

/* Whether what is proven of a node is proven for every process with our map: nobody has doubted any
   of its slots in the round. Ourselves we keep no copies of those in doubt. */
static bool is_for_all(const struct rc_ownership *ownership, const struct rc_voice *voice)
{
    bool is_agreed = RC_MUTANT(NOTE_OF_DOUBTED) || (voice->claim_us >= ownership->round_us &&
                                                    rc_slot_set_is_empty(&ownership->contested));
    return voice->note != 0 && (is_agreed || RC_MUTANT(NOTE_OF_ANY_MAP));
}

static void on_recheck(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_ownership *ownership = req->owner;
    struct rc_server_node *node = req->detail;
    struct rc_voice *voice = &node->voice;
    int64_t epoch = rc_slot_word_read_epoch(status, reply);
    (void)text;
    voice->recheck = NULL;
    if (epoch < 0)
        return; /* the next answer asks again */
    if (epoch != voice->epoch) {
        begin_epoch(node);
        voice->epoch = epoch;
        return;
    }
    voice->sure_us = voice->claim_us;
    end_round(ownership);
    if (is_for_all(ownership, voice) && node->near != NULL)
        rc_near_note(node->owner, voice->note, voice->sure_us);
    settle(ownership);
}

static void recheck(struct rc_ownership *ownership, struct rc_server_node *node, int64_t claim_us)
{
    struct rc_context *context = ownership->context;
    struct rc_req *req = rc_slot_word_ask_epoch(context);
    if (req == NULL)
        return;
    req->done = on_recheck;
    req->owner = ownership;
    req->detail = node;
    node->voice.recheck = req;
    node->voice.claim_us = claim_us;
    rc_topology_send_to(ownership->topology, req, node, RC_SLOT_ANY,
                        rc_context_after_ms(context, ANSWER_MS));
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
    if (node->voice.round == ownership->round)
        ownership->missing--;
    end_round(ownership);
    settle(ownership);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/* Whether it is asked: an answer to the last question may still be on its way. */
static bool ask(struct rc_ownership *ownership, struct rc_server_node *node)
{
    struct rc_context *context = ownership->context;
    struct rc_req *req = node->voice.req == NULL ? rc_slot_word_ask(context) : NULL;
    if (req == NULL)
        return false;
    req->done = on_answer;
    req->owner = ownership;
    req->detail = node;
    node->voice.req = req;
    node->voice.round = ownership->round;
    ownership->missing++;
    rc_topology_send_to(ownership->topology, req, node, RC_SLOT_ANY,
                        rc_context_after_ms(context, ANSWER_MS));
    return true;
}

/* Wants a connection to a master that has none. Whether it may be there in a moment: one that is
   away does not keep the others from agreeing. */
static bool want(const struct rc_ownership *ownership, struct rc_server_node *node)
{
    int64_t now_us = ownership->context->now_us;
    if (node->voice.deaf_us == 0)
        node->voice.deaf_us = now_us;
    rc_node_want(node);
    return now_us - node->voice.deaf_us < (int64_t)ANSWER_MS * 1000;
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

static void begin_round(struct rc_ownership *ownership)
{
    struct rc_topology *topology = ownership->topology;
    /* What is in doubt only answers to ourselves can settle: end_round. */
    bool may_take = rc_slot_set_is_empty(&topology->unsure), has_taken = false;
    uint32_t masters = 0, deaf = 0;
    ownership->is_due = false;
    ownership->round++;
    ownership->missing = 0;
    ownership->is_partial = false;
    ownership->round_us = ownership->context->now_us;
    memset(&ownership->contested, 0, sizeof ownership->contested);
    RC_TOPOLOGY_NODES(each, topology) {
        if (each->slots == 0)
            continue;
        masters++;
        if (may_take && take_note(ownership, each)) {
            has_taken = true;
            continue;
        }
        bool is_ready = rc_link_is_ready(rc_node_command_link(each));
        deaf += !is_ready;
        if (is_ready)
            each->voice.deaf_us = 0;
        if (is_ready ? !ask(ownership, each) : want(ownership, each))
            ownership->is_partial = true;
    }
    ownership->is_enough = 2 * deaf < masters && !ownership->is_partial;
    if (has_taken)
        settle(ownership);
}

static void on_due(void *context, struct rc_timer *timer)
{
    struct rc_ownership *ownership = RC_CONTAINER(timer, struct rc_ownership, due);
    (void)context;
    if (!ownership->context->closing)
        begin_round(ownership);
}

void rc_ownership_watch(struct rc_ownership *ownership, const struct rc_server_node *node)
{
    struct rc_context *context = ownership->context;
    int64_t period_us = rc_horizon_period_us(&node->horizon);
    int64_t age_us = context->now_us - ownership->round_us;
    if (context->closing || ownership->is_due || !ownership->topology->is_mapped ||
        !has_map(ownership) || (ownership->is_enough && age_us < period_us - SLACK_US))
        return;
    ownership->period_us = period_us;
    if (!ownership->is_enough || age_us > 2 * period_us) {
        begin_round(ownership);
        return;
    }
    /* Processes that began together would all ask together: who is first by chance asks for all. */
    int64_t wait_us = (int64_t)(rc_context_random(context) % (uint64_t)(period_us / 8 + 1));
    ownership->is_due = true;
    rc_context_set_timer(context, &ownership->due, context->now_us + wait_us);
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
    ownership->due.fire = on_due;
    ownership->map_changes = UINT32_MAX;
    int error = rc_context_add_timer(context);
    if (error == 0 && (error = rc_context_add_timer(context)) != 0)
        rc_context_remove_timer(context);
    return error;
}

void rc_ownership_deinit(struct rc_ownership *ownership)
{
    rc_context_clear_timer(ownership->context, &ownership->drop);
    rc_context_clear_timer(ownership->context, &ownership->due);
    rc_context_remove_timer(ownership->context);
    rc_context_remove_timer(ownership->context);
    if (ownership->map != NULL)
        rc_slot_map_deinit(ownership->map);
    free(ownership->map);
}
