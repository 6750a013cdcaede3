#include "engine/replicas.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/redirect.h"

enum {
    FIRST_LOOK_MS = 50, /* as long as nobody has told who the replicas are */
    LOOK_MS = 1000      /* each is asked whether it hears its master, and others, which there are */
};

struct rc_replica {
    struct rc_link link; /* where has_link says so */
    struct rc_replicas *replicas;
    struct rc_server_node *master;
    struct rc_address address;
    struct rc_list place; /* among its master's */
    struct rc_list every; /* in known, ended or leaving */
    uint32_t round;       /* that has told of it last */
    bool has_link;
    bool is_near_by;    /* in the user's zone */
    struct rc_req *req; /* the question under way, or NULL */
    int64_t late_us;    /* when it has last not answered in time; 0: never */
};

static struct rc_replica *replica_of(const struct rc_link *link)
{
    assert(link->role == RC_LINK_R);
    return RC_CONTAINER((struct rc_link *)(uintptr_t)link, struct rc_replica, link);
}

static struct rc_replica *in_every(struct rc_list *place)
{
    return RC_CONTAINER(place, struct rc_replica, every);
}

/* ---- the zone -------------------------------------------------------------------------------- */

/* One item of the zone: a host, a host with its port, or a beginning of either and "*". */
static bool is_meant(const char *item, size_t len, const char *host, uint16_t port)
{
    char forms[3][300];
    snprintf(forms[0], sizeof forms[0], "%s", host);
    snprintf(forms[1], sizeof forms[1], "%s:%u", host, port);
    snprintf(forms[2], sizeof forms[2], "[%s]:%u", host, port);
    bool is_beginning = len > 0 && item[len - 1] == '*';
    len -= is_beginning;
    for (size_t i = 0; i < 3; i++) {
        if (strncmp(forms[i], item, len) == 0 && (is_beginning || forms[i][len] == '\0'))
            return true;
    }
    return false;
}

static bool is_in_zone(const rc_options *options, const char *host, uint16_t port)
{
    const char *at = options->zone, *end = options->zone_len > 0 ? at + options->zone_len : at;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;
        if (is_meant(at, (size_t)(stop - at), host, port))
            return true;
        at = stop + 1;
    }
    return false;
}

/* ---- links ----------------------------------------------------------------------------------- */

/* What it was asked and has not answered is for the master. */
static void on_down(struct rc_link *link)
{
    struct rc_replicas *replicas = replica_of(link)->replicas;
    RC_LIST_EACH(place, following, &link->queue) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        if (req->error == 0)
            rc_link_fail(req, RC_ERR_UNAVAILABLE);
    }
    if (!replicas->context->closing)
        replicas->on_old(replicas->owner, true);
}

static void on_ready(struct rc_link *link)
{
    replica_of(link)->late_us = 0;
}

/* None is asked for. */
static void on_push(struct rc_link *link, const struct rc_reply *push)
{
    (void)link;
    (void)push;
}

static const char *on_greeted(struct rc_link *link)
{
    return link->identity.role == RC_SERVER_MASTER ? "the server is no replica any more" : NULL;
}

static void on_gone(struct rc_link *link)
{
    struct rc_replica *replica = replica_of(link);
    rc_list_remove(&replica->every);
    rc_link_deinit(link);
    free(replica);
}

static bool make_link(struct rc_replica *replica)
{
    struct rc_link *link = &replica->link;
    struct rc_replicas *replicas = replica->replicas;
    if (rc_link_init(link, replicas->context, &replica->address, RC_LINK_R) != 0)
        return false;
    link->node = replica->master;
    link->on_ready = on_ready;
    link->on_down = on_down;
    link->on_push = on_push;
    link->on_greeted = on_greeted;
    link->on_gone = on_gone;
    if (rc_topology_add(replicas->topology, link) != 0) {
        rc_link_deinit(link);
        return false;
    }
    replica->has_link = true;
    return true;
}

static void want(struct rc_replica *replica)
{
    if (replica->has_link || make_link(replica))
        rc_link_want(&replica->link);
}

/* ---- those that come and go ------------------------------------------------------------------ */

static void end(struct rc_replica *replica)
{
    struct rc_replicas *replicas = replica->replicas;
    rc_list_remove(&replica->place);
    rc_list_remove(&replica->every);
    if (!replica->has_link) {
        free(replica);
        return;
    }
    rc_list_append(&replicas->ended, &replica->every);
    rc_context_set_timer(replicas->context, &replicas->sweep, 0);
}

static void on_sweep(void *context, struct rc_timer *timer)
{
    struct rc_replicas *replicas = RC_CONTAINER(timer, struct rc_replicas, sweep);
    (void)context;
    while (!rc_list_is_empty(&replicas->ended)) {
        struct rc_replica *replica = in_every(replicas->ended.next);
        rc_list_remove(&replica->every);
        rc_list_append(&replicas->leaving, &replica->every);
        rc_topology_remove(replicas->topology, &replica->link);
    }
}

static struct rc_replica *find(struct rc_replicas *replicas, const char *host, uint16_t port)
{
    RC_LIST_EACH(place, following, &replicas->known) {
        struct rc_replica *each = in_every(place);
        if (each->address.port == port && strcmp(each->address.host, host) == 0)
            return each;
    }
    return NULL;
}

static struct rc_replica *add(struct rc_replicas *replicas, const struct rc_server_node *master,
                              const char *host, uint16_t port)
{
    struct rc_replica *replica = calloc(1, sizeof *replica);
    if (replica == NULL)
        return NULL;
    if (!rc_address_elsewhere(&replica->address, &master->address, host, port)) {
        free(replica);
        return NULL;
    }
    replica->replicas = replicas;
    replica->is_near_by = is_in_zone(&replicas->context->options, host, port);
    rc_list_init(&replica->place);
    rc_list_init(&replica->every);
    rc_list_append(&replicas->known, &replica->every);
    return replica;
}

void rc_replicas_begin(struct rc_replicas *replicas)
{
    replicas->round++;
}

void rc_replicas_tell(struct rc_replicas *replicas, struct rc_server_node *master, const char *host,
                      uint16_t port)
{
    struct rc_replica *replica = find(replicas, host, port);
    if (replica == NULL)
        replica = add(replicas, master, host, port);
    if (replica == NULL)
        return;
    replica->round = replicas->round;
    if (replica->master == master)
        return;
    replica->master = replica->link.node = master;
    rc_list_remove(&replica->place);
    rc_list_append(&master->replicas, &replica->place);
}

void rc_replicas_end(struct rc_replicas *replicas)
{
    replicas->told_us = replicas->context->now_us;
    RC_LIST_EACH(place, following, &replicas->known) {
        struct rc_replica *replica = in_every(place);
        if (replica->round != replicas->round)
            end(replica);
    }
}

/* ---- looking after them ---------------------------------------------------------------------- */

static void on_looked(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_replica *replica = req->owner;
    (void)reply;
    (void)text;
    replica->req = NULL; /* the link has read what it says of itself */
    if (status == RC_ERR_TIMEOUT)
        replica->late_us = req->context->now_us;
}

static void look_at(struct rc_replica *replica)
{
    struct rc_link *link = &replica->link;
    if (!replica->has_link || !rc_link_is_ready(link) || replica->req != NULL)
        return;
    struct rc_req *req = rc_link_question(link);
    if (req == NULL)
        return;
    req->done = on_looked;
    req->owner = replica;
    replica->req = req;
    rc_link_send(link, req, rc_context_after_ms(link->context, LOOK_MS));
}

static void set_look(struct rc_replicas *replicas)
{
    int64_t ms = replicas->told_us == 0 ? FIRST_LOOK_MS : LOOK_MS;
    rc_context_set_timer(replicas->context, &replicas->look,
                         rc_context_after_ms(replicas->context, ms));
}

/* Nobody has wanted one for a while: those that are lost are not tried for ever. */
static void rest(struct rc_replicas *replicas)
{
    RC_LIST_EACH(place, following, &replicas->known) {
        struct rc_replica *replica = in_every(place);
        if (replica->has_link && replica->link.attempts > 0 && replica->link.request_count == 0)
            rc_link_rest(&replica->link);
    }
}

static void on_look(void *argument, struct rc_timer *timer)
{
    struct rc_replicas *replicas = RC_CONTAINER(timer, struct rc_replicas, look);
    struct rc_context *context = argument;
    if (context->closing)
        return;
    if (!replicas->is_used) {
        rest(replicas);
        return;
    }
    replicas->is_used = false;
    RC_LIST_EACH(place, following, &replicas->known) {
        look_at(in_every(place));
    }
    replicas->on_old(replicas->owner, false);
    set_look(replicas);
}

void rc_replicas_forget(struct rc_replicas *replicas)
{
    rc_replicas_begin(replicas);
    rc_replicas_end(replicas);
    replicas->told_us = 0;
    if (rc_timer_is_set(&replicas->look))
        set_look(replicas);
}

static void use(struct rc_replicas *replicas)
{
    replicas->is_used = true;
    if (rc_timer_is_set(&replicas->look) || replicas->context->closing)
        return;
    set_look(replicas);
    replicas->on_old(replicas->owner, false);
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* It has not answered in time, and nothing since. */
static bool is_silent(const struct rc_replica *replica)
{
    return replica->late_us != 0 && replica->link.received_us <= replica->late_us;
}

enum { CUT_OFF = 0, HEARS = 2, NEAR_BY = 1 };

/* How good it is; negative: it cannot be asked. */
static int rank_of(const struct rc_replica *replica)
{
    const struct rc_link *link = &replica->link;
    if (!replica->has_link || !rc_link_is_ready(link) || is_silent(replica))
        return -1;
    return (link->identity.is_cut_off ? CUT_OFF : HEARS) + (replica->is_near_by ? NEAR_BY : 0);
}

struct choice {
    int rank;       /* the best there is */
    uint32_t count; /* of those */
};

static struct choice look_over(struct rc_server_node *node)
{
    struct choice choice = {-1, 0};
    RC_LIST_EACH(place, following, &node->replicas) {
        int rank = rank_of(RC_CONTAINER(place, struct rc_replica, place));
        if (rank > choice.rank)
            choice = (struct choice){rank, 0};
        choice.count += rank == choice.rank;
    }
    return choice;
}

/* Those of the zone are connected to, and the others where none of it can be asked. */
static void open_links(struct rc_server_node *node, struct choice choice)
{
    bool needs_others = choice.rank < HEARS + NEAR_BY;
    RC_LIST_EACH(place, following, &node->replicas) {
        const struct rc_replica *each = RC_CONTAINER(place, struct rc_replica, place);
        bool is_on_its_way = !each->has_link || each->link.attempts == 0;
        if (each->is_near_by && !(each->has_link && rc_link_is_ready(&each->link)) && is_on_its_way)
            needs_others = false;
    }
    RC_LIST_EACH(next, after, &node->replicas) {
        struct rc_replica *each = RC_CONTAINER(next, struct rc_replica, place);
        if (each->is_near_by || needs_others)
            want(each);
    }
}

static struct rc_link *pick(struct rc_replicas *replicas, struct rc_server_node *node,
                            struct choice choice)
{
    uint64_t left = replicas->turns++ % choice.count;
    RC_LIST_EACH(place, following, &node->replicas) {
        struct rc_replica *each = RC_CONTAINER(place, struct rc_replica, place);
        if (rank_of(each) == choice.rank && left-- == 0)
            return &each->link;
    }
    return NULL;
}

struct rc_link *rc_replicas_choose(struct rc_replicas *replicas, int32_t slot)
{
    struct rc_server_node *node = rc_topology_node(replicas->topology, slot);
    if (node->address.is_memory)
        return NULL;
    use(replicas);
    if (rc_list_is_empty(&node->replicas))
        return NULL;
    struct choice choice = look_over(node);
    if (choice.rank < HEARS + NEAR_BY)
        open_links(node, choice);
    /* What one says that does not hear its master may be very old: it is for the time in which the
       master cannot be reached. */
    if (choice.rank < 0 || (choice.rank < HEARS && rc_node_command_link(node)->attempts == 0))
        return NULL;
    return pick(replicas, node, choice);
}

/* ---- answers --------------------------------------------------------------------------------- */

int64_t rc_replicas_until_us(const struct rc_replicas *replicas, int64_t deadline_us)
{
    int64_t now_us = replicas->context->now_us;
    return deadline_us > now_us ? now_us + (deadline_us - now_us) / 2 : deadline_us;
}

/* The first error among the answers; NULL: there is none. */
static const rc_node *find_error(const struct rc_reply *reply)
{
    for (uint32_t i = 0; i < reply->count; i = rc_reply_skip(reply, i)) {
        if (reply->nodes[i].type == '-')
            return &reply->nodes[i];
    }
    return NULL;
}

bool rc_replicas_hear(struct rc_replicas *replicas, const struct rc_req *req, int status,
                      const struct rc_reply *reply)
{
    struct rc_context *context = replicas->context;
    const rc_node *error = status == 0 ? find_error(reply) : NULL;
    if (status == 0 && error == NULL) {
        context->stats.replica_reads++;
        return true;
    }
    if (status == RC_ERR_TOOLARGE || context->closing)
        return true;
    context->stats.replica_fallbacks++;
    if (status == RC_ERR_TIMEOUT)
        replica_of(req->link)->late_us = context->now_us;
    if (error != NULL && rc_redirect_is(error)) /* it does not hold what it was taken to hold */
        replicas->on_old(replicas->owner, true);
    return false;
}

/* ---- health ---------------------------------------------------------------------------------- */

static const char *matter_of(const struct rc_replica *replica)
{
    const struct rc_link *link = &replica->link;
    if (!replica->has_link || link->state == RC_LINK_IDLE)
        return "not needed yet";
    if (is_silent(replica))
        return "it does not answer";
    if (!rc_link_is_ready(link))
        return link->cause[0] != '\0' ? link->cause : "connecting";
    return link->identity.is_cut_off ? "it does not hear its master" : "";
}

void rc_replicas_get_health(const struct rc_replicas *replicas, rc_health *health)
{
    size_t len = 0;
    RC_LIST_EACH(place, following, &replicas->known) {
        char line[sizeof health->address + RC_TEXT_SIZE + 3];
        const struct rc_replica *replica = RC_CONTAINER(place, struct rc_replica, every);
        const char *matter = matter_of(replica);
        int size = snprintf(line, sizeof line, "%s%s%s\n", replica->address.label,
                            matter[0] != '\0' ? "\t" : "", matter);
        if (len + (size_t)size >= sizeof health->replicas)
            return;
        memcpy(health->replicas + len, line, (size_t)size + 1);
        len += (size_t)size;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

int rc_replicas_init(struct rc_replicas *replicas, struct rc_context *context,
                     struct rc_topology *topology, void (*on_old)(void *owner, bool is_wrong),
                     void *owner)
{
    memset(replicas, 0, sizeof *replicas);
    replicas->context = context;
    replicas->topology = topology;
    replicas->on_old = on_old;
    replicas->owner = owner;
    rc_list_init(&replicas->known);
    rc_list_init(&replicas->ended);
    rc_list_init(&replicas->leaving);
    replicas->look.fire = on_look;
    replicas->sweep.fire = on_sweep;
    int error = rc_context_add_timer(context);
    if (error != 0)
        return error;
    error = rc_context_add_timer(context);
    if (error != 0)
        rc_context_remove_timer(context);
    return error;
}

void rc_replicas_shutdown(struct rc_replicas *replicas)
{
    rc_context_clear_timer(replicas->context, &replicas->look);
    RC_LIST_EACH(place, following, &replicas->known) {
        end(in_every(place));
    }
    on_sweep(replicas->context, &replicas->sweep);
}

static void free_all(struct rc_list *list)
{
    while (!rc_list_is_empty(list)) {
        struct rc_replica *replica = in_every(list->next);
        rc_list_remove(&replica->place);
        rc_list_remove(&replica->every);
        if (replica->has_link) {
            rc_list_remove(&replica->link.place);
            rc_link_deinit(&replica->link);
        }
        free(replica);
    }
}

void rc_replicas_deinit(struct rc_replicas *replicas)
{
    free_all(&replicas->known);
    free_all(&replicas->ended);
    free_all(&replicas->leaving);
    rc_context_clear_timer(replicas->context, &replicas->look);
    rc_context_clear_timer(replicas->context, &replicas->sweep);
    rc_context_remove_timer(replicas->context);
    rc_context_remove_timer(replicas->context);
}
