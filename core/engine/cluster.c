#include "engine/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/redirect.h"
#include "engine/script.h"
#include "engine/slot_word.h"

enum {
    REFRESH_GAP_MS = 500,  /* and half as much again by chance */
    REPLICAS_MS = 5000,    /* the map is not older than that where its replicas are asked */
    ANSWER_MS = 1000,      /* a node that is alive answers within this; another one is asked then */
    OLDER_MS = 20 * 1000,  /* longer than a node alone says that all is well: 15 s by default */
    TRY_AGAIN_MS = 20,     /* a slot that moves is whole again in a moment */
    TRY_AGAIN_MAX_MS = 200 /* a cluster that is down, in some seconds */
};

static void ask(struct rc_cluster *cluster);

static void on_refresh(void *context, struct rc_timer *timer)
{
    (void)context;
    ask(RC_CONTAINER(timer, struct rc_cluster, refresh));
}

/* ---- requests that wait ---------------------------------------------------------------------- */

/* One without a slot was made when there was but one node, and that one has not done it: any that
   answers tells where to, one after the other. */
static struct rc_server_node *find_home(struct rc_cluster *cluster, const struct rc_req *req)
{
    struct rc_topology *topology = cluster->topology;
    if (req->slot < 0 && rc_topology_owners(topology) != NULL)
        return rc_topology_any(topology, ++cluster->turns);
    return rc_topology_home(topology, req);
}

static void on_try_again(void *context, struct rc_timer *timer)
{
    struct rc_cluster *cluster = RC_CONTAINER(timer, struct rc_cluster, try_again);
    struct rc_list due;
    (void)context;
    rc_list_init(&due);
    rc_list_splice(&due, &cluster->waiting);
    cluster->pause_ms =
        cluster->pause_ms < TRY_AGAIN_MAX_MS / 2 ? 2 * cluster->pause_ms : TRY_AGAIN_MAX_MS;
    cluster->tried_us = cluster->context->now_us;
    while (!rc_list_is_empty(&due)) {
        struct rc_req *req = RC_CONTAINER(due.next, struct rc_req, place);
        rc_topology_move(cluster->topology, req, find_home(cluster, req));
    }
}

static void wait_for_server(struct rc_cluster *cluster, struct rc_req *req, const rc_node *said)
{
    struct rc_context *context = cluster->context;
    rc_node_text(said, req->link->cause);
    rc_link_hold(req, &cluster->waiting);
    if (rc_timer_is_set(&cluster->try_again))
        return;
    if (context->now_us - cluster->tried_us > TRY_AGAIN_MAX_MS * 1000)
        cluster->pause_ms = TRY_AGAIN_MS; /* it is another reason */
    rc_context_set_timer(context, &cluster->try_again,
                         rc_context_after_ms(context, cluster->pause_ms));
}

/* ---- the map --------------------------------------------------------------------------------- */

void rc_cluster_want(struct rc_cluster *cluster)
{
    struct rc_context *context = cluster->context;
    cluster->is_wanted = true;
    if (context->closing || cluster->req != NULL || rc_timer_is_set(&cluster->refresh))
        return;
    int64_t gap_us = RC_MUTANT(MAP_STORM) ? 2 : (int64_t)REFRESH_GAP_MS * 1000;
    gap_us += (int64_t)(rc_context_random(context) % (uint64_t)(gap_us / 2));
    int64_t at_us = cluster->asked_us == 0 ? 0 : cluster->asked_us + gap_us;
    rc_context_set_timer(context, &cluster->refresh,
                         at_us > context->now_us ? at_us : context->now_us);
}

void rc_cluster_confirm(struct rc_cluster *cluster, uint16_t number, int64_t age_ms)
{
    if (!cluster->is_on || cluster->context->now_us - cluster->asked_us < age_ms * 1000)
        return;
    cluster->confirms = number;
    rc_cluster_want(cluster);
}

static const char *host_of(const struct rc_cluster *cluster, const struct rc_slot_server *server)
{
    return server->host[0] != '\0' ? server->host : cluster->asked;
}

/* Behind install: the masters are known. */
static void tell_replicas(struct rc_cluster *cluster)
{
    const struct rc_slot_map *map = cluster->map;
    rc_replicas_begin(cluster->replicas);
    for (uint32_t i = 0; i < map->count; i++) {
        const struct rc_slot_server *server = &map->servers[i];
        const struct rc_slot_server *master = &map->servers[server->master];
        int number = server->master != i ? rc_topology_find(cluster->topology,
                                                            host_of(cluster, master), master->port)
                                         : -1;
        if (number >= 0)
            rc_replicas_tell(cluster->replicas, rc_topology_at(cluster->topology, (uint16_t)number),
                             host_of(cluster, server), server->port);
    }
    rc_replicas_end(cluster->replicas);
}

void rc_cluster_want_replicas(struct rc_cluster *cluster, bool is_wrong)
{
    int64_t age_us = cluster->context->now_us - cluster->asked_us;
    if (!cluster->tells_replicas && cluster->map->covered > 0)
        tell_replicas(cluster);
    cluster->tells_replicas = true;
    if (is_wrong || age_us >= (int64_t)REPLICAS_MS * 1000)
        rc_cluster_want(cluster);
}

/* Gives each slot to the node that the map names. A slot of nobody keeps the node it had, which
   says what is wrong. */
static void install(struct rc_cluster *cluster, const struct rc_link *asked)
{
    struct rc_topology *topology = cluster->topology;
    const struct rc_slot_map *map = cluster->map;
    uint32_t first = 0;
    snprintf(cluster->asked, sizeof cluster->asked, "%s", asked->address->host);
    while (first < RC_SLOT_COUNT) {
        uint16_t owner = map->owner[first];
        uint32_t last = first;
        while (last + 1 < RC_SLOT_COUNT && map->owner[last + 1] == owner)
            last++;
        if (owner != RC_SLOT_NOBODY) {
            const struct rc_slot_server *server = &map->servers[owner];
            int number = rc_topology_find(topology, host_of(cluster, server), server->port);
            if (number >= 0) { /* else there is no memory: a MOVED will say it again */
                rc_topology_assign(topology, (uint16_t)first, (uint16_t)last, number);
                rc_node_name(rc_topology_at(topology, (uint16_t)number), server->id);
            }
        }
        first = last + 1;
    }
    topology->is_mapped |= map->covered > 0;
    rc_topology_hand_over(topology);
    rc_topology_reroute(topology);
    rc_topology_rest_unused(topology);
    if (cluster->tells_replicas)
        tell_replicas(cluster);
    cluster->on_taken(cluster->owner);
}

/* A slot's node that cannot be reached, as far as we know. NULL: there is none. */
static const struct rc_link *find_lost(const struct rc_cluster *cluster)
{
    uint32_t last = UINT32_MAX;
    for (int32_t slot = 0; slot < RC_SLOT_COUNT; slot++) {
        uint32_t number = rc_topology_owner(cluster->topology, slot);
        if (number == last)
            continue;
        last = number;
        const struct rc_link *link = rc_topology_command_link(cluster->topology, slot);
        if (link->state == RC_LINK_BACKOFF || link->attempts > 0)
            return link;
    }
    return NULL;
}

/* Whether a map of that epoch is to be taken. An older one comes from a node that has missed
   something; where for long nobody tells of a newer one the cluster was made new. */
static bool is_new_enough(struct rc_cluster *cluster, int64_t epoch)
{
    int64_t now_us = cluster->context->now_us;
    if (epoch >= cluster->epoch || RC_MUTANT(MAP_OLDER))
        return true;
    if (cluster->older_us == 0)
        cluster->older_us = now_us;
    return now_us - cluster->older_us > (int64_t)OLDER_MS * 1000;
}

static void on_map(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_cluster *cluster = req->owner;
    struct rc_slot_word word;
    (void)text;
    cluster->req = NULL;
    rc_slot_word_read(&word, cluster->map, status, reply);
    req->link->node->is_lonely = word.is_answer && !word.is_ok;
    /* A node that sees no majority says so after a while; until then its map may be an old one. */
    bool is_good = word.is_answer && word.epoch >= 0 &&
                   (word.is_ok || RC_MUTANT(MAP_OF_MINORITY)) &&
                   is_new_enough(cluster, word.epoch) && cluster->map->covered > 0;
    if (is_good) {
        cluster->epoch = word.epoch;
        cluster->older_us = 0;
        cluster->is_wanted = false;
        install(cluster, req->link);
    } else if (cluster->epoch < 0 && word.is_answer) {
        install(cluster, req->link); /* the first: better than none */
    }
    bool is_refused = word.refusal != NULL; /* asking again does not help */
    cluster->is_doubted = word.is_answer && !is_good && !is_refused;
    if (word.refusal != NULL)
        rc_node_text(word.refusal, cluster->refusal);
    else if (is_good)
        cluster->refusal[0] = '\0';
    /* As long as a master is away it may have an heir. */
    if (cluster->is_wanted || (!is_good && !is_refused) || find_lost(cluster) != NULL)
        rc_cluster_want(cluster);
}

/* The next one behind the one that was asked last, of the masters that may confirm another one's
   word, though nothing may be connected to it. One that saw no majority may see it again, but not
   every question goes there: the others may know who replaces it. NULL: none is left. */
static struct rc_server_node *next_master(const struct rc_cluster *cluster)
{
    struct rc_topology *topology = cluster->topology;
    struct rc_server_node *lonely = NULL;
    uint32_t count = topology->other_count + 1U;
    for (uint32_t i = 1; i <= count; i++) {
        uint16_t number = (uint16_t)((cluster->asked_number + i) % count);
        struct rc_server_node *node = rc_topology_at(topology, number);
        const struct rc_link *link = rc_node_command_link(node);
        bool may_answer = link->state != RC_LINK_BACKOFF && link->attempts == 0;
        if (number == cluster->confirms || node->slots == 0 || !may_answer)
            continue;
        if (!node->is_lonely)
            return node;
        lonely = lonely != NULL ? lonely : node;
    }
    return cluster->is_doubted ? NULL : lonely;
}

/* Whom to ask. A node that answers, as long as its kind tells a good map; else those that are known
   and those that the url lists, in turns. */
static struct rc_server_node *choose(struct rc_cluster *cluster)
{
    struct rc_server_node *next = cluster->confirms >= 0 ? next_master(cluster) : NULL;
    if (next != NULL)
        return next;
    uint64_t chance = rc_context_random(cluster->context);
    struct rc_server_node *known = rc_topology_any(cluster->topology, chance), *listed;
    const struct rc_link *link = rc_node_command_link(known);
    if (rc_link_is_ready(link) && !cluster->is_doubted)
        return known;
    listed = rc_roster_next(&cluster->roster);
    bool is_waiting = link->state == RC_LINK_BACKOFF;
    return listed != NULL && (is_waiting || cluster->is_doubted || chance % 2) ? listed : known;
}

static void ask(struct rc_cluster *cluster)
{
    struct rc_context *context = cluster->context;
    if (context->closing)
        return;
    struct rc_server_node *node = choose(cluster);
    struct rc_req *req = rc_slot_word_ask(context);
    cluster->asked_us = context->now_us;
    cluster->asked_number = node->number;
    cluster->confirms = -1;
    if (req == NULL) {
        rc_cluster_want(cluster);
        return;
    }
    req->done = on_map;
    req->owner = cluster;
    cluster->req = req;
    cluster->is_wanted = false;
    context->stats.map_refreshes++;
    rc_topology_send_to(cluster->topology, req, node, RC_SLOT_ANY,
                        rc_context_after_ms(context, ANSWER_MS));
}

void rc_cluster_on_ready(struct rc_cluster *cluster, struct rc_link *link)
{
    bool is_first = !cluster->is_on;
    if (link->identity.mode != RC_SERVER_CLUSTER)
        return;
    if (rc_topology_expect_many(cluster->topology) != 0)
        return; /* the next connection tries again */
    if (cluster->map == NULL) {
        cluster->map = malloc(sizeof *cluster->map);
        if (cluster->map == NULL)
            return;
        rc_slot_map_init(cluster->map);
    }
    cluster->is_on = true;
    if (!is_first)
        return;
    rc_roster_on_ready(&cluster->roster);
    rc_cluster_want(cluster);
}

/* The question that waits for a lost link goes to a node that is not known to be lost. */
static void pass_question_on(struct rc_cluster *cluster, const struct rc_link *link)
{
    struct rc_req *req = cluster->req;
    if (req == NULL || req->link != link || req->sent || req->error != 0)
        return;
    struct rc_server_node *node = choose(cluster);
    if (rc_node_command_link(node)->state != RC_LINK_BACKOFF)
        rc_topology_move(cluster->topology, req, node);
}

void rc_cluster_on_down(struct rc_cluster *cluster, struct rc_link *link)
{
    if (!cluster->is_on) {
        rc_roster_on_missed(&cluster->roster, link);
    } else if (link->state == RC_LINK_BACKOFF) { /* it was lost, and not closed by us */
        pass_question_on(cluster, link);
        rc_cluster_want(cluster);
    }
}

/* ---- following ------------------------------------------------------------------------------- */

/* Whether no command of the request was run, or to run them twice does no harm: *said is the answer
   that says where to. */
static bool is_undone(const struct rc_req *req, const struct rc_reply *reply, const rc_node **said)
{
    bool all = true;
    *said = NULL;
    if (!reply->has_error)
        return false;
    for (uint32_t i = 0; i < reply->count; i = rc_reply_skip(reply, i)) {
        if (!rc_redirect_is(&reply->nodes[i]))
            all = false;
        else if (*said == NULL)
            *said = &reply->nodes[i];
    }
    return *said != NULL && (all || req->read_key != NULL);
}

bool rc_cluster_resolve(struct rc_cluster *cluster, const struct rc_link *link, const rc_node *said,
                        struct rc_cluster_way *way)
{
    struct rc_topology *topology = cluster->topology;
    struct rc_redirect redirect;
    if (!cluster->is_on)
        return false;
    rc_redirect_read(&redirect, said);
    way->kind = redirect.kind;
    way->slot = redirect.slot;
    if (redirect.kind == RC_REDIRECT_NONE)
        return false;
    if (redirect.kind != RC_REDIRECT_ASK)
        rc_cluster_want(cluster);
    if (redirect.kind == RC_REDIRECT_WAIT)
        return true;
    int number = rc_topology_find(
        topology, redirect.host[0] != '\0' ? redirect.host : link->address->host, redirect.port);
    if (number < 0)
        return false;
    way->number = (uint16_t)number;
    rc_node_want(rc_topology_at(topology, way->number)); /* it stays */
    cluster->context->stats.redirections++;
    bool is_moved = redirect.kind == RC_REDIRECT_MOVED;
    if (is_moved && rc_topology_owner(topology, redirect.slot) != number) {
        rc_topology_assign(topology, (uint16_t)redirect.slot, (uint16_t)redirect.slot, number);
        rc_topology_hand_over(topology);
    }
    return true;
}

bool rc_cluster_follow(struct rc_cluster *cluster, struct rc_req *req, const struct rc_reply *reply)
{
    const rc_node *said;
    struct rc_cluster_way way;
    if (RC_MUTANT(RENEWED_ELSEWHERE) && req->script == RC_SCRIPT_LOCK_RENEW)
        return false;
    if (req->stays || req->hops >= RC_HOPS_MAX || !is_undone(req, reply, &said) ||
        !rc_cluster_resolve(cluster, req->link, said, &way))
        return false;
    req->is_asking = way.kind == RC_REDIRECT_ASK && !RC_MUTANT(ASK_WITHOUT_ASKING);
    if (way.kind == RC_REDIRECT_WAIT) { /* its deadline is the bound */
        wait_for_server(cluster, req, said);
        return true;
    }
    req->hops++;
    req->slot = way.slot;
    rc_topology_move(cluster->topology, req, rc_topology_at(cluster->topology, way.number));
    return true;
}

/* ---- health ---------------------------------------------------------------------------------- */

void rc_cluster_get_health(const struct rc_cluster *cluster, rc_health *health)
{
    const struct rc_link *lost = find_lost(cluster);
    health->ready = lost == NULL && cluster->map->covered > 0;
    health->down_ms = 0;
    if (lost != NULL) {
        health->down_ms = (cluster->context->now_us - lost->down_since_us) / 1000;
        snprintf(health->address, sizeof health->address, "%s", lost->address->label);
        snprintf(health->cause, sizeof health->cause, "%s", lost->cause);
    } else if (health->ready) { /* one that may not ask follows MOVED alone */
        snprintf(health->cause, sizeof health->cause, "%s", cluster->refusal);
    } else {
        snprintf(health->cause, sizeof health->cause, "%s",
                 cluster->refusal[0] != '\0'
                     ? cluster->refusal
                     : "the cluster serves no slots, or its map is not known yet");
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

int rc_cluster_init(struct rc_cluster *cluster, struct rc_context *context,
                    struct rc_topology *topology, struct rc_replicas *replicas,
                    void (*on_taken)(void *owner), void *owner)
{
    memset(cluster, 0, sizeof *cluster);
    cluster->on_taken = on_taken;
    cluster->owner = owner;
    cluster->context = context;
    cluster->topology = topology;
    cluster->replicas = replicas;
    cluster->epoch = -1;
    cluster->confirms = -1;
    cluster->refresh.fire = on_refresh;
    cluster->try_again.fire = on_try_again;
    rc_list_init(&cluster->waiting);
    int error = rc_context_add_timer(context);
    if (error != 0)
        return error;
    error = rc_context_add_timer(context);
    if (error == 0 && (error = rc_roster_init(&cluster->roster, context, topology)) != 0)
        rc_context_remove_timer(context);
    if (error != 0)
        rc_context_remove_timer(context);
    return error;
}

void rc_cluster_shutdown(struct rc_cluster *cluster)
{
    rc_context_clear_timer(cluster->context, &cluster->refresh);
    rc_context_clear_timer(cluster->context, &cluster->try_again);
    while (!rc_list_is_empty(&cluster->waiting))
        rc_link_fail(RC_CONTAINER(cluster->waiting.next, struct rc_req, place), RC_ERR_CLOSED);
}

void rc_cluster_deinit(struct rc_cluster *cluster)
{
    rc_context_clear_timer(cluster->context, &cluster->refresh);
    rc_roster_deinit(&cluster->roster);
    if (cluster->map != NULL)
        rc_slot_map_deinit(cluster->map);
    free(cluster->map);
    rc_context_remove_timer(cluster->context);
    rc_context_remove_timer(cluster->context);
}
