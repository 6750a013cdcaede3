#include "engine/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"

enum {
    NEED_MAX_US = 1000 * 1000,   /* while no reader allows less */
    PERIOD_MIN_US = 5 * 1000,    /* they serve others, too */
    WORD_US = 1000 * 1000,       /* so long an answer counts where a master is chosen */
    TURNED_US = 10 * 1000 * 1000 /* the others follow sooner, or never */
};

struct rc_voter {
    struct rc_link link;
    struct rc_sentinel *sentinel;
    struct rc_address address;
    struct rc_req *req;  /* the question under way, or NULL */
    bool is_overtaken;   /* there is news since it was sent */
    bool is_subscribing; /* the question stands behind SUBSCRIBE */
    bool refuses_news;   /* this user may not subscribe */
    enum { SAYS_NOTHING, NAMES, KNOWS_NONE, REFUSES } says;
    char host[256]; /* of the master that it names */
    uint16_t port;
    int64_t sent_us;   /* when its last answer was asked for */
    int64_t turned_us; /* when it turned away from the node's address; 0: it has not */
    char refusal[RC_TEXT_SIZE];
};

static struct rc_server_node *node_of(const struct rc_sentinel *sentinel)
{
    return rc_topology_node(sentinel->topology, RC_SLOT_ANY);
}

static uint32_t majority(const struct rc_sentinel *sentinel)
{
    return sentinel->count / 2 + 1;
}

/* ---- what they say --------------------------------------------------------------------------- */

static bool is_fresh(const struct rc_voter *voter)
{
    return voter->says != SAYS_NOTHING &&
           voter->sentinel->context->now_us - voter->sent_us <= WORD_US;
}

static bool names(const struct rc_voter *voter, const char *host, uint16_t port)
{
    return voter->says == NAMES && voter->port == port && strcmp(voter->host, host) == 0;
}

static bool names_node(const struct rc_voter *voter)
{
    const struct rc_address *address = &node_of(voter->sentinel)->address;
    return voter->sentinel->is_known && names(voter, address->host, address->port);
}

/* One who names what the majority names now. NULL: there is no majority. */
static const struct rc_voter *find_winner(const struct rc_sentinel *sentinel)
{
    for (uint32_t i = 0; i < sentinel->count; i++) {
        const struct rc_voter *voter = &sentinel->voters[i];
        uint32_t votes = 0;
        for (uint32_t j = 0; j < sentinel->count && voter->says == NAMES; j++) {
            const struct rc_voter *other = &sentinel->voters[j];
            votes += is_fresh(other) && names(other, voter->host, voter->port);
        }
        if (votes >= majority(sentinel))
            return voter;
    }
    return NULL;
}

/* When a majority was asked, at the latest, that has named the node's address: the time that so
   many of them have passed. 0: there is none. */
static int64_t vouched_us(const struct rc_sentinel *sentinel)
{
    int64_t best_us = 0;
    for (uint32_t i = 0; i < sentinel->count; i++) {
        int64_t sent_us = sentinel->voters[i].sent_us;
        uint32_t votes = 0;
        for (uint32_t j = 0; j < sentinel->count; j++) {
            const struct rc_voter *other = &sentinel->voters[j];
            votes += names_node(other) && other->sent_us >= sent_us;
        }
        if (names_node(&sentinel->voters[i]) && votes >= majority(sentinel) && sent_us > best_us)
            best_us = sent_us;
    }
    return best_us;
}

static bool has_turned(const struct rc_sentinel *sentinel)
{
    for (uint32_t i = 0; i < sentinel->count; i++) {
        const struct rc_voter *voter = &sentinel->voters[i];
        if (voter->turned_us != 0 && sentinel->context->now_us - voter->turned_us < TURNED_US)
            return true;
    }
    return false;
}

/* ---- why there is no master ------------------------------------------------------------------ */

struct poll {
    uint32_t name, know_none, shut; /* fresh answers; links that are not let in */
    const struct rc_voter *silent;  /* one without an answer; NULL: there is none */
    const struct rc_voter *refusing;
};

static void count_votes(const struct rc_sentinel *sentinel, struct poll *poll)
{
    memset(poll, 0, sizeof *poll);
    for (uint32_t i = 0; i < sentinel->count; i++) {
        const struct rc_voter *voter = &sentinel->voters[i];
        bool refuses = voter->link.refused || (is_fresh(voter) && voter->says == REFUSES);
        poll->name += is_fresh(voter) && voter->says == NAMES;
        poll->know_none += is_fresh(voter) && voter->says == KNOWS_NONE;
        poll->shut += refuses;
        if (refuses && poll->refusing == NULL)
            poll->refusing = voter;
        if (!is_fresh(voter) && (poll->silent == NULL || voter->link.cause[0] != '\0'))
            poll->silent = voter;
    }
}

/* True: waiting does not help. */
static bool explain(const struct rc_sentinel *sentinel, char text[RC_TEXT_SIZE])
{
    const char *master = node_of(sentinel)->address.master;
    struct poll poll;
    count_votes(sentinel, &poll);
    if (poll.know_none >= majority(sentinel)) {
        snprintf(text, RC_TEXT_SIZE, "the sentinels know no master '%s'", master);
        return true;
    }
    if (poll.shut > sentinel->count - majority(sentinel)) {
        const struct rc_voter *voter = poll.refusing;
        snprintf(text, RC_TEXT_SIZE, "%u of %u sentinels refuse us, as '%.60s': %.120s", poll.shut,
                 sentinel->count, voter->address.label,
                 voter->link.refused ? voter->link.cause : voter->refusal);
        return true;
    }
    uint32_t answers = poll.name + poll.know_none;
    if (answers >= majority(sentinel) || poll.silent == NULL) {
        snprintf(text, RC_TEXT_SIZE, "the sentinels do not agree on the master '%s'", master);
        return false;
    }
    const char *cause = poll.silent->link.cause;
    snprintf(text, RC_TEXT_SIZE, "%u of %u sentinels answer, and %u have to; '%.60s': %.100s",
             answers, sentinel->count, majority(sentinel), poll.silent->address.label,
             cause[0] != '\0' ? cause : "no answer yet");
    return false;
}

/* ---- judging --------------------------------------------------------------------------------- */

static bool waits_for_us(const struct rc_link *link)
{
    return !rc_link_is_sentinels(link) && link->state == RC_LINK_BACKOFF &&
           !rc_timer_is_set(&link->timer);
}

static void tell_waiting(struct rc_sentinel *sentinel, bool is_open)
{
    char text[RC_TEXT_SIZE] = "";
    bool refused = !is_open && explain(sentinel, text);
    RC_TOPOLOGY_EACH(link, sentinel->topology) {
        if (!waits_for_us(link))
            continue;
        if (is_open)
            rc_link_redial(link, text);
        else
            rc_link_explain(link, text, refused);
    }
}

static void move(struct rc_sentinel *sentinel, const struct rc_voter *winner)
{
    struct rc_server_node *node = node_of(sentinel);
    struct rc_address address;
    if (!rc_address_elsewhere(&address, &node->address, winner->host, winner->port))
        return; /* a voter's host has room in an address */
    sentinel->is_known = true;
    for (uint32_t i = 0; i < sentinel->count; i++)
        sentinel->voters[i].turned_us = 0;
    rc_node_move(node, &address);
    rc_lends_on_move(sentinel->lends, node);
    rc_replicas_forget(sentinel->replicas);
}

static bool is_word_good(const struct rc_sentinel *sentinel)
{
    return sentinel->is_known &&
           sentinel->context->now_us - node_of(sentinel)->vouched_us <= WORD_US;
}

static int64_t period_us(const struct rc_sentinel *sentinel)
{
    const struct rc_server_node *node = node_of(sentinel);
    int64_t need_us = node->near != NULL ? rc_near_need_us(node->owner) : NEED_MAX_US;
    int64_t period = (need_us < NEED_MAX_US ? need_us : NEED_MAX_US) / 4;
    return period > PERIOD_MIN_US ? period : PERIOD_MIN_US;
}

/* Enough for leases and locks. */
static bool is_word_new(const struct rc_sentinel *sentinel)
{
    int64_t age_us = sentinel->context->now_us - node_of(sentinel)->vouched_us;
    return age_us <= 4 * period_us(sentinel);
}

static void judge(struct rc_sentinel *sentinel)
{
    struct rc_server_node *node = node_of(sentinel);
    const struct rc_voter *winner = find_winner(sentinel);
    if (winner != NULL && !names_node(winner))
        move(sentinel, winner);
    int64_t until_us = vouched_us(sentinel);
    if (until_us > node->vouched_us && !has_turned(sentinel))
        rc_node_vouch(node, until_us);
    if (is_word_new(sentinel))
        sentinel->unvouched_us = 0;
    else if (sentinel->unvouched_us == 0)
        sentinel->unvouched_us = sentinel->context->now_us;
    tell_waiting(sentinel, is_word_good(sentinel));
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void ask(struct rc_voter *voter, bool subscribes);

static bool read_address(struct rc_voter *voter, const struct rc_reply *reply)
{
    const rc_node *host = &reply->nodes[1], *port = &reply->nodes[2];
    char digits[8];
    if (reply->count != 3 || host->type != '$' || port->type != '$' || host->len == 0 ||
        host->len >= sizeof voter->host || port->len == 0 || port->len >= sizeof digits ||
        memchr(host->str, '\0', host->len) != NULL)
        return false;
    memcpy(digits, port->str, port->len);
    digits[port->len] = '\0';
    long number = strtol(digits, NULL, 10);
    if (number <= 0 || number > 65535)
        return false;
    memcpy(voter->host, host->str, host->len);
    voter->host[host->len] = '\0';
    voter->port = (uint16_t)number;
    return true;
}

static void read_answer(struct rc_voter *voter, const struct rc_req *req,
                        const struct rc_reply *reply)
{
    const rc_node *first = &reply->nodes[0];
    bool was_ours = names_node(voter);
    if (first->type == '-' && voter->is_subscribing) {
        /* It may have been SUBSCRIBE that was refused: then the other answer is one too many, and
           ends the connection. The next one does without. */
        voter->refuses_news = true;
        return;
    }
    voter->sent_us = req->sent_us;
    if (first->type == '-') {
        voter->says = REFUSES;
        rc_node_text(first, voter->refusal);
    } else if (first->type == '*' && read_address(voter, reply)) {
        voter->says = NAMES;
    } else if (first->type == '_') {
        voter->says = KNOWS_NONE;
    } else {
        voter->says = REFUSES;
        snprintf(voter->refusal, sizeof voter->refusal, "its answer is not that of a sentinel");
    }
    if (names_node(voter))
        voter->turned_us = 0;
    else if (was_ours && voter->says == NAMES)
        voter->turned_us = voter->sentinel->context->now_us;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_voter *voter = req->owner;
    (void)text;
    voter->req = NULL;
    if (status == 0)
        read_answer(voter, req, reply);
    if (voter->is_overtaken)
        ask(voter, false);
    if (status == 0)
        judge(voter->sentinel);
}

static struct rc_req *take_question(const struct rc_voter *voter, bool subscribes)
{
    const char *master = node_of(voter->sentinel)->address.master;
    struct rc_req *req = rc_req_take(voter->sentinel->context);
    int error = 0;
    if (req == NULL)
        return NULL;
    if (subscribes) { /* what confirms it is a push, and no answer */
        error |= rc_command_head(&req->bytes, 2);
        error |= rc_command_text(&req->bytes, "SUBSCRIBE");
        error |= rc_command_text(&req->bytes, "+switch-master");
    }
    error |= rc_command_head(&req->bytes, 3);
    error |= rc_command_text(&req->bytes, "SENTINEL");
    error |= rc_command_text(&req->bytes, "GET-MASTER-ADDR-BY-NAME");
    error |= rc_command_text(&req->bytes, master);
    if (error == 0)
        return req;
    rc_req_give(req);
    return NULL;
}

static void ask(struct rc_voter *voter, bool subscribes)
{
    struct rc_context *context = voter->sentinel->context;
    if (context->closing || !rc_link_is_ready(&voter->link) || voter->req != NULL)
        return;
    struct rc_req *req = take_question(voter, subscribes);
    if (req == NULL)
        return; /* the next tick asks again */
    req->expect = 1;
    req->slot = RC_SLOT_ANY;
    req->done = on_answer;
    req->owner = voter;
    voter->req = req;
    voter->is_overtaken = false;
    voter->is_subscribing = subscribes;
    rc_link_send(&voter->link, req, context->now_us + WORD_US);
}

/* Whether somebody needs the master. */
static bool is_needed(const struct rc_sentinel *sentinel)
{
    RC_TOPOLOGY_EACH(link, sentinel->topology) {
        if (!rc_link_is_sentinels(link) && link->state != RC_LINK_IDLE)
            return true;
    }
    return false;
}

static void on_tick(void *argument, struct rc_timer *timer)
{
    struct rc_sentinel *sentinel = RC_CONTAINER(timer, struct rc_sentinel, timer);
    struct rc_context *context = argument;
    if (context->closing || !is_needed(sentinel))
        return;
    rc_context_set_timer(context, timer, context->now_us + period_us(sentinel));
    sentinel->asked_us = context->now_us;
    for (uint32_t i = 0; i < sentinel->count; i++) {
        rc_link_want(&sentinel->voters[i].link);
        ask(&sentinel->voters[i], false);
    }
    judge(sentinel);
}

/* In this turn, but not from inside of what calls. */
static void hurry(struct rc_sentinel *sentinel)
{
    if (!sentinel->context->closing)
        rc_context_set_timer(sentinel->context, &sentinel->timer, 0);
}

bool rc_sentinel_may_open(struct rc_sentinel *sentinel)
{
    int64_t age_us = sentinel->context->now_us - node_of(sentinel)->vouched_us;
    if (!rc_timer_is_set(&sentinel->timer) || age_us > PERIOD_MIN_US)
        hurry(sentinel);
    return is_word_good(sentinel);
}

int64_t rc_sentinel_unvouched_since(struct rc_sentinel *sentinel, char why[RC_TEXT_SIZE])
{
    int64_t now_us = sentinel->context->now_us;
    if (is_word_new(sentinel))
        return 0;
    if (why != NULL)
        (void)explain(sentinel, why);
    if (now_us - sentinel->asked_us > period_us(sentinel)) /* it was longer then */
        hurry(sentinel);
    /* Where this process stood still they have not been asked: it counts from now on. */
    return sentinel->unvouched_us != 0 ? sentinel->unvouched_us : now_us;
}

struct rc_link *rc_sentinel_find_witness(const struct rc_sentinel *sentinel)
{
    for (uint32_t i = 0; i < sentinel->count; i++) {
        struct rc_voter *voter = &sentinel->voters[i];
        if (rc_link_is_ready(&voter->link) && is_fresh(voter) && names_node(voter))
            return &voter->link;
    }
    return NULL;
}

/* ---- news of their links --------------------------------------------------------------------- */

static struct rc_voter *voter_of(struct rc_link *link)
{
    return RC_CONTAINER(link, struct rc_voter, link);
}

static void on_ready(struct rc_link *link)
{
    struct rc_voter *voter = voter_of(link);
    ask(voter, !voter->refuses_news);
}

static void on_down(struct rc_link *link)
{
    struct rc_voter *voter = voter_of(link);
    if (voter->req != NULL)
        rc_link_forget(voter->req);
    voter->req = NULL;
}

static void on_push(struct rc_link *link, const struct rc_reply *push)
{
    const rc_node *kind = &push->nodes[1];
    struct rc_sentinel *sentinel = voter_of(link)->sentinel;
    if (push->count < 2 || kind->str == NULL || kind->len != 7 ||
        memcmp(kind->str, "message", 7) != 0)
        return;
    for (uint32_t i = 0; i < sentinel->count; i++)
        sentinel->voters[i].is_overtaken = sentinel->voters[i].req != NULL;
    hurry(sentinel);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int init_voter(struct rc_sentinel *sentinel, struct rc_voter *voter, uint32_t which)
{
    struct rc_server_node *node = node_of(sentinel);
    voter->sentinel = sentinel;
    rc_address_sentinel(&voter->address, &node->address, which);
    int error = rc_link_init(&voter->link, sentinel->context, &voter->address, RC_LINK_S);
    if (error != 0)
        return error;
    voter->link.node = node;
    voter->link.on_ready = on_ready;
    voter->link.on_down = on_down;
    voter->link.on_push = on_push;
    error = rc_topology_add(sentinel->topology, &voter->link);
    if (error != 0)
        rc_link_deinit(&voter->link);
    return error;
}

int rc_sentinel_init(struct rc_sentinel *sentinel, struct rc_context *context,
                     struct rc_topology *topology, struct rc_lends *lends,
                     struct rc_replicas *replicas)
{
    memset(sentinel, 0, sizeof *sentinel);
    sentinel->context = context;
    sentinel->topology = topology;
    sentinel->lends = lends;
    sentinel->replicas = replicas;
    sentinel->timer.fire = on_tick;
    struct rc_server_node *node = node_of(sentinel);
    uint32_t count = node->address.sentinel_count;
    if (count == 0)
        return 0;
    sentinel->voters = calloc(count, sizeof *sentinel->voters);
    int error = sentinel->voters != NULL ? rc_context_add_timer(context) : RC_ERR_NOMEM;
    if (error != 0) {
        free(sentinel->voters);
        sentinel->voters = NULL;
        return error;
    }
    while (error == 0 && sentinel->count < count) {
        error = init_voter(sentinel, &sentinel->voters[sentinel->count], sentinel->count);
        sentinel->count += error == 0;
    }
    if (error != 0) {
        rc_sentinel_deinit(sentinel);
        return error;
    }
    node->only_master = true;
    node->vouched_us = 0;
    return 0;
}

void rc_sentinel_shutdown(struct rc_sentinel *sentinel)
{
    for (uint32_t i = 0; i < sentinel->count; i++) {
        on_down(&sentinel->voters[i].link);
        rc_link_shutdown(&sentinel->voters[i].link);
    }
}

void rc_sentinel_deinit(struct rc_sentinel *sentinel)
{
    if (sentinel->voters == NULL)
        return;
    for (uint32_t i = 0; i < sentinel->count; i++) {
        rc_list_remove(&sentinel->voters[i].link.place);
        rc_link_deinit(&sentinel->voters[i].link);
    }
    rc_context_clear_timer(sentinel->context, &sentinel->timer);
    rc_context_remove_timer(sentinel->context);
    free(sentinel->voters);
}

void rc_sentinel_get_health(const struct rc_sentinel *sentinel, rc_health *health)
{
    char text[RC_TEXT_SIZE];
    if (sentinel->count == 0 || !is_needed(sentinel) || is_word_good(sentinel))
        return;
    health->tracking = 0;
    (void)explain(sentinel, text);
    snprintf(health->cause, sizeof health->cause, "%s", text);
}
