#include "engine/node.h"

#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/owed.h"

enum {
    TRIES = 4,                   /* with one link, before it is the other's turn */
    CHECK_EVERY_US = 250 * 1000, /* health: how old what W's server said of itself may be */
    SILENT_US = 1000 * 1000,     /* and how long it may take to answer */
    /* Without an owner: how soon one is asked for again. Others may be at it, or there is no place:
       then all who have one are looked at, which takes up to 10 ms in a region of 1024. */
    SEEK_MIN_US = 1000 * 1000,
    SEEK_MAX_US = 64 * SEEK_MIN_US
};

static const char TWO_SERVERS[] =
    "reads and commands reach two different servers behind this address; connecting again";

static struct rc_link *link_w(struct rc_server_node *node)
{
    return &node->links[RC_LINK_W];
}

static struct rc_link *link_t(struct rc_server_node *node)
{
    return &node->links[RC_LINK_T];
}

/* ---- do both links lead to one server? ------------------------------------------------------- */

/* Of two links to two servers, the one to be made again. One and the same for some tries, or a
   balancer that takes its servers in turns would never give both the same. A node of a cluster
   may well have become a replica: it says where its slots are. */
static struct rc_link *wrong_of(struct rc_server_node *node, struct rc_link *younger,
                                struct rc_link *older)
{
    if (younger->identity.role != older->identity.role && !node->is_in_cluster) {
        if (younger->identity.role == RC_SERVER_REPLICA)
            return younger;
        if (older->identity.role == RC_SERVER_REPLICA)
            return older;
    }
    if (node->suspect == NULL) {
        node->suspect = older;
        node->tries = 0;
    } else if (++node->tries >= TRIES) {
        node->suspect = node->suspect == older ? younger : older;
        node->tries = 0;
    }
    return node->suspect;
}

/* The objection to a server that is not the kind of server that was meant; NULL: there is none. */
static const char *judge_role(const struct rc_link *link)
{
    bool is_wrong = link->node->only_master && link->identity.role == RC_SERVER_REPLICA;
    return is_wrong ? "the server is a replica: the sentinels will name the master" : NULL;
}

/* A slot that leaves takes its pushes along, at some time: of what a cluster's node says nothing is
   known coherent, however often it answers, until others have vouched for it. */
static void learn_mode(struct rc_server_node *node, const struct rc_link *link)
{
    bool is_in_cluster = link->identity.mode == RC_SERVER_CLUSTER;
    if (link->owes != NULL)
        rc_near_set_single(link->owes, !is_in_cluster);
    if (is_in_cluster == node->is_in_cluster)
        return;
    node->is_in_cluster = is_in_cluster;
    if (!node->only_master)
        node->vouched_us = is_in_cluster ? 0 : INT64_MAX;
}

/* What a master that was none in between has lost is done again, as after a reconnect. */
static void hear_change(struct rc_server_node *node, struct rc_link *other,
                        const struct rc_identity *now, const char *change)
{
    if (rc_link_hear_change(other, now, change) && other == link_w(node))
        rc_replay_send(&node->replay, other);
}

/* This link has shaken hands: compares its server with the other link's. NULL: they are one, as far
   as is known, or the other link was the wrong one and is down now; else why this one must go. */
static const char *on_link_greeted(struct rc_link *link)
{
    struct rc_server_node *node = link->node;
    struct rc_link *other = link->role == RC_LINK_W ? link_t(node) : link_w(node);
    const char *objection = judge_role(link);
    learn_mode(node, link);
    if (objection != NULL || !rc_link_is_ready(other))
        return objection;
    if (!rc_identity_differs(&link->identity, &other->identity)) {
        const char *change = rc_identity_change(&other->identity, &link->identity);
        node->suspect = NULL;
        if (change != NULL) /* it would find out with its next heartbeat */
            hear_change(node, other, &link->identity, change);
        return NULL;
    }
    if (wrong_of(node, link, other) == link)
        return TWO_SERVERS;
    rc_link_give_up(other, TWO_SERVERS);
    return NULL;
}

static bool may_open(struct rc_link *link)
{
    const struct rc_node_news *news = &link->node->news;
    return news->may_open(news->owner, link);
}

static int64_t unvouched_since(struct rc_link *link, char why[RC_TEXT_SIZE])
{
    const struct rc_node_news *news = &link->node->news;
    return news->unvouched_since(news->owner, why);
}

/* ---- news of the links ----------------------------------------------------------------------- */

/* The server may be asked again over this link: first for what it is owed. */
static void return_to(struct rc_link *link)
{
    rc_owed_send(link);
    if (link->owes != NULL && link->role == RC_LINK_W)
        rc_near_count_return(link->owes);
}

static void on_link_ready(struct rc_link *link)
{
    struct rc_server_node *node = link->node;
    return_to(link);
    node->news.on_ready(node->news.owner, link);
    /* One of them alone does harm: a lease that is asked for over T is given back over W. */
    rc_link_hurry(link_w(node));
    rc_link_hurry(link_t(node));
    rc_fuse_hurry(&node->fuse);
    if (link->role == RC_LINK_W) {
        rc_replay_send(&node->replay, link);
        return;
    }
    /* Reads and writes must lead to the same server, and health() tells of both. */
    rc_link_want(link_w(node));
    node->news.on_tracked(node->news.owner, node);
    if (node->near != NULL && link->tracking && link->epoch > 0 && !rc_node_is_replica(node))
        rc_revalidate_start(&node->revalidate);
}

void rc_node_begin_epoch(struct rc_server_node *node)
{
    if (node->near == NULL)
        return;
    node->epoch_us = node->context->now_us;
    rc_near_renew_owner(node->owner);
    rc_revalidate_stop(&node->revalidate);
}

static void on_fuse_closed(struct rc_fuse *fuse)
{
    struct rc_server_node *node = RC_CONTAINER(fuse, struct rc_server_node, fuse);
    for (int role = 0; role < RC_NODE_LINKS; role++)
        return_to(&node->links[role]);
}

static void on_link_down(struct rc_link *link)
{
    struct rc_server_node *node = link->node;
    node->news.on_down(node->news.owner, link);
    if (link->role == RC_LINK_W && link->is_silent)
        node->news.on_silence(node->news.owner, node);
    if (link->role != RC_LINK_T)
        return;
    bool was_coherent = node->reached_us != 0;
    node->reached_us = 0;
    if (!RC_MUTANT(NO_FLUSH_ON_RECONNECT))
        rc_node_begin_epoch(node);
    if (was_coherent && node->near != NULL) /* what changes meanwhile, nobody is told */
        rc_near_tell(node->near, RC_TOLD_GAP, NULL, 0);
    node->news.on_untracked(node->news.owner, node);
}

/* The older of what T has said and what others say. */
static void move_horizon(struct rc_server_node *node)
{
    int64_t vouched_us = RC_MUTANT(OWNED_BY_PONG) ? INT64_MAX : node->vouched_us;
    rc_near_set_asof(node->owner, node->reached_us < vouched_us ? node->reached_us : vouched_us);
}

static void on_link_missed(struct rc_link *link)
{
    const struct rc_node_news *news = &link->node->news;
    news->on_down(news->owner, link);
}

static void on_link_answered(struct rc_link *link, int64_t sent_us)
{
    struct rc_server_node *node = link->node;
    if (!link->tracking || rc_node_is_replica(node))
        return;
    node->reached_us = rc_horizon_reach(&node->horizon, sent_us);
    move_horizon(node);
}

void rc_node_vouch(struct rc_server_node *node, int64_t vouched_us)
{
    node->vouched_us = vouched_us;
    if (node->near != NULL && node->reached_us > 0)
        move_horizon(node);
    for (int role = 0; role < RC_NODE_LINKS; role++)
        rc_link_resume(&node->links[role]);
}

static bool on_link_answer(struct rc_link *link, struct rc_req *req, const struct rc_reply *reply)
{
    const struct rc_node_news *news = &link->node->news;
    return news->on_answer(news->owner, req, reply);
}

static void on_link_push(struct rc_link *link, const struct rc_reply *push)
{
    const struct rc_node_news *news = &link->node->news;
    news->on_push(news->owner, link, push);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_again(void *context, struct rc_timer *timer);

static void on_watch(struct rc_horizon *horizon)
{
    struct rc_server_node *node = RC_CONTAINER(horizon, struct rc_server_node, horizon);
    if (!rc_node_is_replica(node))
        rc_revalidate_adopt(&node->revalidate);
    if (node->is_in_cluster)
        node->news.on_watch(node->news.owner, node);
}

static bool may_confirm(const struct rc_link *link, const char *key, size_t len)
{
    const struct rc_server_node *node = link->node;
    return !node->is_in_cluster || node->news.may_keep(node->news.owner, node, key, len);
}

uint64_t rc_node_number(const struct rc_server_node *node)
{
    static const struct rc_seed NO_SEED;
    return rc_siphash(&NO_SEED, node->address.label, strlen(node->address.label));
}

/* What goes with the owner. */
static int init_near(struct rc_server_node *node)
{
    struct rc_link *t = link_t(node);
    struct rc_near *near = node->wanted;
    int error = rc_horizon_init(&node->horizon, node->context, t, near, node->owner);
    if (error != 0)
        return error;
    node->horizon.on_watch = on_watch;
    error = rc_revalidate_init(&node->revalidate, node->context, t, near, node->owner);
    if (error != 0) {
        rc_horizon_deinit(&node->horizon);
        return error;
    }
    node->revalidate.may_confirm = may_confirm;
    t->on_answered = on_link_answered;
    node->near = near;
    if (node->is_one_of_many)
        rc_near_name_owner(node->owner, rc_node_number(node));
    return 0;
}

/* Behind a pause that grows with each time there was none. */
static int take_owner(struct rc_server_node *node)
{
    if (node->wanted == NULL || node->near != NULL || node->context->now_us < node->seek_us)
        return 0;
    int error = 0;
    node->owner = rc_near_add_owner(node->wanted, &node->no_owner);
    if (node->owner != NULL && (error = init_near(node)) != 0) {
        rc_near_remove_owner(node->wanted, node->owner);
        node->owner = NULL;
        node->no_owner = "there is no memory";
    }
    node->seek_us = node->context->now_us + node->seek_pace_us;
    if (node->seek_pace_us < SEEK_MAX_US)
        node->seek_pace_us *= 2;
    return error;
}

void rc_node_seek_owner(struct rc_server_node *node)
{
    (void)take_owner(node); /* without memory: without near copies, for now */
    if (node->near != NULL && node->is_warm)
        rc_node_warm(node);
}

void rc_node_keep(struct rc_server_node *node, struct rc_near *near)
{
    node->wanted = near;
    node->is_one_of_many = true;
    if (node->near != NULL)
        rc_near_name_owner(node->owner, rc_node_number(node));
    else
        rc_node_seek_owner(node);
}

static int init_links(struct rc_server_node *node)
{
    for (int role = 0; role < RC_NODE_LINKS; role++) {
        struct rc_link *link = &node->links[role];
        int error = rc_link_init(link, node->context, &node->address, (enum rc_link_role)role);
        if (error != 0) {
            while (role-- > 0)
                rc_link_deinit(&node->links[role]);
            return error;
        }
        link->node = node;
        link->on_ready = on_link_ready;
        link->on_down = on_link_down;
        link->on_missed = on_link_missed;
        link->on_push = on_link_push;
        link->on_answer = on_link_answer;
        link->on_greeted = on_link_greeted;
        link->may_open = node->news.may_open != NULL ? may_open : NULL;
        link->unvouched_since = node->news.unvouched_since != NULL ? unvouched_since : NULL;
        rc_owed_init(link, node->wanted);
    }
    return 0;
}

static void deinit_links(struct rc_server_node *node)
{
    for (int role = RC_NODE_LINKS; role-- > 0;)
        rc_link_deinit(&node->links[role]);
}

/* What it has said as one of a cluster: nothing yet. */
static void forget_word(struct rc_server_node *node)
{
    node->id[0] = '\0';
    node->is_lonely = false;
    node->voice = (struct rc_voice){.epoch = -1};
}

int rc_node_init(struct rc_server_node *node, struct rc_context *context,
                 const struct rc_address *address, struct rc_near *near,
                 const struct rc_node_news *news)
{
    node->context = context;
    node->address = *address;
    node->news = *news;
    node->slots = 0;
    node->has_lost_slots = node->is_in_cluster = false;
    rc_list_init(&node->replicas);
    forget_word(node);
    node->only_master = false;
    node->vouched_us = INT64_MAX;
    node->reached_us = 0;
    node->wanted = near;
    node->near = NULL;
    node->owner = NULL;
    node->no_owner = NULL;
    node->seek_us = 0;
    node->seek_pace_us = SEEK_MIN_US;
    node->is_one_of_many = node->is_warm = false;
    node->again.fire = on_again;
    int error = rc_context_add_timer(context);
    if (error != 0)
        return error;
    error = init_links(node);
    if (error == 0 && (error = rc_fuse_init(&node->fuse, context, link_w(node), link_t(node))) != 0)
        deinit_links(node);
    node->fuse.on_closed = on_fuse_closed;
    if (error == 0 && (error = take_owner(node)) != 0) {
        rc_fuse_deinit(&node->fuse);
        deinit_links(node);
    }
    if (error != 0) {
        rc_context_remove_timer(context);
        return error;
    }
    rc_replay_init(&node->replay, context);
    return 0;
}

void rc_node_deinit(struct rc_server_node *node)
{
    rc_context_clear_timer(node->context, &node->again);
    rc_context_remove_timer(node->context);
    rc_replay_deinit(&node->replay);
    rc_fuse_deinit(&node->fuse);
    if (node->near != NULL) {
        rc_revalidate_deinit(&node->revalidate);
        rc_horizon_deinit(&node->horizon);
        rc_near_remove_owner(node->near, node->owner);
    }
    deinit_links(node);
}

void rc_node_name(struct rc_server_node *node, const char id[RC_SLOT_ID_SIZE])
{
    if (id[0] != '\0')
        memcpy(node->id, id, sizeof node->id);
}

void rc_node_reuse(struct rc_server_node *node, const struct rc_address *address)
{
    node->address = *address;
    node->suspect = NULL;
    forget_word(node);
    rc_replay_forget(&node->replay);
    rc_fuse_renew(&node->fuse);
    if (node->is_in_cluster)
        node->vouched_us = 0; /* of this one nobody has spoken yet */
    rc_node_begin_epoch(node);
}

void rc_node_move(struct rc_server_node *node, const struct rc_address *address)
{
    static const char MOVED[] = "the sentinels name another master";
    node->address = *address;
    node->suspect = NULL;
    node->vouched_us = 0; /* of this one nobody has spoken yet */
    rc_fuse_renew(&node->fuse);
    /* T first: copies of the old server are void before anything is done at the new one. */
    rc_link_redial(link_t(node), MOVED);
    rc_link_redial(link_w(node), MOVED);
}

/* ---- near copies ----------------------------------------------------------------------------- */

void rc_node_warm(struct rc_server_node *node)
{
    node->is_warm = true; /* where there is no owner yet, too */
    if (node->near == NULL)
        return;
    node->horizon.stays = true; /* the copies that are read may all be others', who will leave */
    rc_horizon_watch(&node->horizon);
    rc_link_want(link_t(node));
}

bool rc_node_offer(struct rc_server_node *node)
{
    const struct rc_link *t = link_t(node);
    if (node->near == NULL || !rc_link_is_ready(t) || !t->tracking)
        return false;
    rc_revalidate_leave(&node->revalidate);
    rc_horizon_offer(&node->horizon);
    rc_near_offer(node->near, node->owner);
    return true;
}

bool rc_node_can_keep(const struct rc_server_node *node)
{
    const struct rc_link *t = &node->links[RC_LINK_T];
    if (node->near == NULL || t->refused || t->ended)
        return false;
    /* Not yet connected: the first read pays for it as it would on W. Lost: W may be alive. */
    return rc_link_is_ready(t) ? t->tracking : t->attempts == 0;
}

/* ---- asking after the server ----------------------------------------------------------------- */

static void on_check(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_server_node *node = req->owner;
    (void)reply;
    (void)text;
    node->check = NULL; /* the link has read what it says */
    if (status == 0)
        rc_replay_send(&node->replay, link_w(node));
}

static void ask(struct rc_server_node *node)
{
    struct rc_context *context = node->context;
    struct rc_link *w = link_w(node);
    if (!rc_link_is_ready(w) || node->check != NULL || context->closing)
        return;
    struct rc_req *req = rc_link_question(w);
    if (req == NULL)
        return;
    req->done = on_check;
    req->owner = node;
    node->check = req;
    rc_link_send(w, req, rc_context_after_ms(context, context->options.command_timeout_ms));
}

static void check(struct rc_server_node *node)
{
    if (node->context->now_us - link_w(node)->confirmed_us >= CHECK_EVERY_US)
        ask(node);
}

static void on_again(void *context, struct rc_timer *timer)
{
    struct rc_server_node *node = RC_CONTAINER(timer, struct rc_server_node, again);
    struct rc_link *w = link_w(node);
    (void)context;
    if (node->context->closing)
        return;
    if (!rc_link_is_ready(w))
        rc_link_want(w); /* ready, it does the same */
    else if (w->identity.role == RC_SERVER_REPLICA)
        ask(node); /* it was one, and is said to have slots */
    else
        rc_replay_send(&node->replay, w);
}

void rc_node_replay(struct rc_server_node *node)
{
    rc_context_set_timer(node->context, &node->again, 0);
}

/* ---- links that may be lent ------------------------------------------------------------------ */

/* What goes over W and what goes over this one must reach the same server. */
static const char *on_spare_greeted(struct rc_link *link)
{
    const struct rc_link *w = link_w(link->node);
    const char *objection = judge_role(link);
    if (objection != NULL)
        return objection;
    bool differs = rc_link_is_ready(w) && rc_identity_differs(&link->identity, &w->identity);
    return differs ? TWO_SERVERS : NULL;
}

/* W is asked how the server is while this one waits. */
static void on_spare_ready(struct rc_link *link)
{
    rc_link_want(link_w(link->node));
}

static void on_spare_quiet(struct rc_link *link)
{
    check(link->node);
}

/* None is asked for: sharing.h refuses what would. */
static void ignore_push(struct rc_link *link, const struct rc_reply *push)
{
    (void)link;
    (void)push;
}

int rc_node_init_spare(struct rc_server_node *node, struct rc_link *link)
{
    int error = rc_link_init(link, node->context, &node->address, RC_LINK_X);
    if (error != 0)
        return error;
    link->node = node;
    link->on_ready = on_spare_ready;
    link->on_push = ignore_push;
    link->on_greeted = on_spare_greeted;
    link->on_missed = on_link_missed;
    link->may_open = link_w(node)->may_open;
    link->connect_ms = link_w(node)->connect_ms;
    link->on_quiet = on_spare_quiet;
    return 0;
}

/* ---- health ---------------------------------------------------------------------------------- */

static bool is_silent(const struct rc_link *link)
{
    if (rc_list_is_empty(&link->in_flight))
        return false;
    const struct rc_req *oldest = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
    int64_t since_us = oldest->sent_us > link->received_us ? oldest->sent_us : link->received_us;
    return link->context->now_us - since_us > SILENT_US;
}

void rc_node_get_health(struct rc_server_node *node, rc_health *health)
{
    const struct rc_link *w = link_w(node), *t = link_t(node);
    memset(health, 0, sizeof *health);
    check(node);
    const struct rc_breaker *breaker = node->fuse.is_on ? &node->fuse.breaker : NULL;
    bool is_shut = breaker != NULL && rc_breaker_is_shut(breaker);
    health->ready = rc_link_is_ready(w) && !w->is_read_only && !is_silent(w) && !is_shut;
    health->tracking = rc_link_is_ready(t) && t->tracking && !rc_node_is_replica(node);
    /* A client that has only read near so far knows what is wrong from T. */
    const struct rc_link *asked = health->ready || w->state == RC_LINK_IDLE ? t : w;
    if (!health->ready && asked->down_since_us != 0)
        health->down_ms = (node->context->now_us - asked->down_since_us) / 1000;
    const struct rc_link *known = w->server.is_known ? w : t;
    rc_server_label(&known->server, health->server, sizeof health->server);
    if (known->server.is_known)
        snprintf(health->mode, sizeof health->mode, "%s",
                 rc_identity_mode_name(known->identity.mode));
    rc_server_tell_off(&w->server, &t->server, health->off, sizeof health->off);
    snprintf(health->address, sizeof health->address, "%s", node->address.label);
    snprintf(health->cause, sizeof health->cause, "%s",
             !health->ready && is_silent(w) ? "the server does not answer" : asked->cause);
    if (is_shut && health->cause[0] == '\0')
        rc_breaker_tell(breaker, node->address.label, node->context->now_us, health->cause,
                        sizeof health->cause);
}
