#include "engine/lend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/call.h"

enum {
    IDLE_US = 30 * 1000 * 1000,    /* nobody has wanted it for so long: it is closed */
    INBOX_BYTES = 8 * 1024 * 1024, /* of messages that nobody asks for; then they are missed */
    FRESH_US = 1000 * 1000         /* an idle one that was heard of later than that is not asked */
};

struct rc_spare {
    struct rc_link link;
    struct rc_lends *lends;
    struct rc_list place;   /* in idle, busy, ended or leaving */
    bool is_ended;          /* the latter two */
    struct rc_op *borrower; /* waits for the link's answer; NULL: nobody */
    struct rc_lent *lent;   /* has it; NULL: nobody */
    int64_t idle_since_us;
};

static struct rc_spare *spare_of(struct rc_link *link)
{
    return RC_CONTAINER(link, struct rc_spare, link);
}

static void fail_without(struct rc_context *context, struct rc_op *op)
{
    const char *cause = op->ask.lent->cause;
    rc_context_fail(context, op, cause[0] != '\0' ? RC_ERR_LOST : RC_ERR_ARGUMENT,
                    cause[0] != '\0' ? cause : "no connection is lent");
}

/* The timer's work is to be done in this turn, but not from inside a `done`. */
static void hurry(struct rc_lends *lends)
{
    rc_context_set_timer(lends->context, &lends->timer, 0);
}

static void move(struct rc_spare *spare, struct rc_list *list)
{
    rc_list_remove(&spare->place);
    rc_list_prepend(list, &spare->place);
}

/* ---- messages -------------------------------------------------------------------------------- */

void rc_lent_deinit(struct rc_lent *lent)
{
    rc_reply_deinit(&lent->inbox);
    lent->missed = 0;
}

static void lose_listener(struct rc_lends *lends, struct rc_lent *lent)
{
    struct rc_op *op = lent->listener;
    if (op == NULL)
        return;
    lent->listener = NULL;
    rc_context_clear_timer(lends->context, &op->run.deadline);
    rc_context_fail(lends->context, op, RC_ERR_LOST, lent->cause);
}

/* The op gets all that is there. */
static void hand_over(struct rc_lends *lends, struct rc_lent *lent, struct rc_op *op)
{
    rc_reply_swap(&op->reply, &lent->inbox);
    rc_reply_clear(&lent->inbox);
    rc_reply_resolve(&op->reply);
    op->result.outcome = RC_DONE;
    op->result.nodes = op->reply.count;
    op->result.number = (int64_t)lent->missed;
    lent->missed = 0;
    rc_context_finish(lends->context, op);
}

static bool is_message(const struct rc_reply *push)
{
    return push->count > 1 && (rc_reply_is_text(&push->nodes[1], "message") ||
                               rc_reply_is_text(&push->nodes[1], "pmessage"));
}

/* False: there is no room for it, or no memory. */
static bool keep_message(struct rc_reply *inbox, const struct rc_reply *push)
{
    uint32_t count = inbox->count;
    size_t len = rc_buf_len(&inbox->arena);
    size_t bytes = len + rc_buf_len(&push->arena) + (count + push->count) * sizeof(rc_node);
    if (count > 0 && bytes > INBOX_BYTES)
        return false;
    if (rc_reply_append(inbox, push, 0, push->count) == 0)
        return true;
    inbox->count = count; /* bytes that no node names do no harm */
    return false;
}

/* Behind messages that were missed nothing is kept: the gap stands where they would have been. */
static void on_spare_push(struct rc_link *link, const struct rc_reply *push)
{
    struct rc_spare *spare = spare_of(link);
    struct rc_lent *lent = spare->lent;
    if (lent == NULL || !is_message(push))
        return;
    if (lent->missed > 0 || !keep_message(&lent->inbox, push))
        lent->missed++;
    struct rc_op *op = lent->listener;
    if (op == NULL)
        return;
    lent->listener = NULL;
    rc_context_clear_timer(spare->lends->context, &op->run.deadline);
    hand_over(spare->lends, lent, op);
}

static void on_listened_long(void *argument, struct rc_timer *timer)
{
    struct rc_op *op = RC_CONTAINER(timer, struct rc_op, run.deadline);
    op->ask.lent->listener = NULL;
    rc_context_fail(argument, op, RC_ERR_TIMEOUT, NULL);
}

void rc_lends_listen(struct rc_lends *lends, struct rc_op *op)
{
    struct rc_context *context = lends->context;
    struct rc_lent *lent = op->ask.lent;
    if (lent->listener != NULL) {
        rc_context_fail(context, op, RC_ERR_ARGUMENT, "somebody listens already");
    } else if (lent->inbox.count > 0 || lent->missed > 0) {
        hand_over(lends, lent, op);
    } else if (lent->spare == NULL) {
        fail_without(context, op);
    } else {
        lent->listener = op;
        op->run.deadline.fire = on_listened_long;
        rc_context_set_timer(context, &op->run.deadline,
                             rc_context_after_ms(context, rc_call_timeout_ms(context, op)));
    }
}

/* ---- whose it is ----------------------------------------------------------------------------- */

static void take_from_caller(struct rc_spare *spare, const char *cause)
{
    struct rc_lent *lent = spare->lent;
    if (lent == NULL)
        return;
    snprintf(lent->cause, sizeof lent->cause, "%s", cause);
    lent->spare = NULL;
    spare->lent = NULL;
    spare->link.is_lent = false;
    spare->lends->lent--;
    lose_listener(spare->lends, lent);
}

/* It is of no use any more, to nobody. */
static void end(struct rc_spare *spare, const char *cause)
{
    if (spare->is_ended)
        return;
    take_from_caller(spare, cause);
    spare->is_ended = true;
    spare->borrower = NULL;
    move(spare, &spare->lends->ended);
    hurry(spare->lends);
}

/* ---- news of the links ----------------------------------------------------------------------- */

/* One that is asked for connects again, and its borrower waits for that. */
static void on_spare_down(struct rc_link *link)
{
    struct rc_spare *spare = spare_of(link);
    if (spare->borrower == NULL)
        end(spare, link->cause);
}

static void on_spare_gone(struct rc_link *link)
{
    struct rc_spare *spare = spare_of(link);
    struct rc_lends *lends = spare->lends;
    rc_list_remove(&spare->place);
    rc_link_deinit(link);
    free(spare);
    lends->count--;
    if (!rc_list_is_empty(&lends->waiting))
        hurry(lends);
}

/* ---- borrowing ------------------------------------------------------------------------------- */

static struct rc_server_node *node_of(struct rc_lends *lends, const struct rc_op *op)
{
    const char *key = rc_buf_head(&op->ask.key);
    int32_t slot = rc_topology_slot(lends->topology, key, rc_buf_len(&op->ask.key));
    return rc_topology_node(lends->topology, slot);
}

/* Commands go to another server behind the same address meanwhile. */
static bool is_left_behind(const struct rc_spare *spare)
{
    const struct rc_link *w = rc_node_command_link(spare->link.node);
    return rc_link_is_ready(w) && rc_link_is_ready(&spare->link) &&
           rc_identity_differs(&spare->link.identity, &w->identity);
}

/* One that is ready, or else one that is being reset. NULL: none. */
static struct rc_spare *find_idle(struct rc_lends *lends, const struct rc_server_node *node)
{
    struct rc_spare *found = NULL;
    RC_LIST_EACH(place, following, &lends->idle) {
        struct rc_spare *spare = RC_CONTAINER(place, struct rc_spare, place);
        if (spare->link.node != node)
            continue;
        if (is_left_behind(spare))
            end(spare, "");
        else if (rc_link_is_ready(&spare->link))
            return spare;
        else if (found == NULL)
            found = spare;
    }
    return found;
}

/* NULL: no memory. */
static struct rc_spare *open_spare(struct rc_lends *lends, struct rc_server_node *node)
{
    struct rc_spare *spare = calloc(1, sizeof *spare);
    if (spare == NULL)
        return NULL;
    if (rc_node_init_spare(node, &spare->link) != 0) {
        free(spare);
        return NULL;
    }
    spare->lends = lends;
    rc_list_init(&spare->place);
    spare->link.on_down = on_spare_down;
    spare->link.on_gone = on_spare_gone;
    spare->link.on_push = on_spare_push;
    if (rc_topology_add(lends->topology, &spare->link) != 0) {
        rc_link_deinit(&spare->link);
        free(spare);
        return NULL;
    }
    move(spare, &lends->busy);
    lends->count++;
    return spare;
}

static void lend(struct rc_spare *spare, struct rc_op *op)
{
    struct rc_lends *lends = spare->lends;
    spare->lent = op->ask.lent;
    spare->lent->spare = spare;
    spare->link.is_lent = true;
    lends->lent++;
    op->result.outcome = RC_DONE;
    rc_context_finish(lends->context, op);
}

static void on_greeted(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_spare *spare = spare_of(req->link);
    (void)reply;
    op->run.req = NULL;
    spare->borrower = NULL;
    if (status == 0) {
        lend(spare, op);
        return;
    }
    end(spare, "");
    rc_context_fail(req->context, op, status, text);
}

/* What an idle connection is asked before it is lent, and whether it is still the same server; a
   new one is told apart by its handshake. */
static struct rc_req *make_greeting(struct rc_link *link)
{
    return rc_link_is_ready(link) ? rc_link_question(link) : rc_link_ping(link);
}

static void give_to(struct rc_spare *spare, struct rc_op *op)
{
    struct rc_lends *lends = spare->lends;
    struct rc_link *link = &spare->link;
    bool is_fresh = rc_link_is_ready(link) && link->request_count == 0 &&
                    lends->context->now_us - link->received_us < FRESH_US;
    move(spare, &lends->busy);
    rc_list_remove(&op->run.member);
    rc_context_clear_timer(lends->context, &op->run.deadline);
    if (is_fresh) {
        lend(spare, op);
        return;
    }
    struct rc_req *req = make_greeting(link);
    if (req == NULL) {
        end(spare, "");
        rc_context_fail(lends->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    req->may_retry = true;
    req->done = on_greeted;
    req->owner = op;
    op->run.req = req;
    spare->borrower = op;
    rc_link_send(link, req, op->run.answer_by_us);
}

/* False: there is none for it now. */
static bool serve(struct rc_lends *lends, struct rc_op *op)
{
    struct rc_server_node *node = node_of(lends, op);
    struct rc_spare *spare = find_idle(lends, node);
    bool has_room = lends->count < (uint32_t)lends->context->options.max_lent;
    if (spare == NULL && !has_room && !rc_list_is_empty(&lends->idle)) /* to another server */
        end(RC_CONTAINER(lends->idle.prev, struct rc_spare, place), "");
    if (spare == NULL && !has_room)
        return false;
    if (spare == NULL)
        spare = open_spare(lends, node);
    if (spare != NULL)
        give_to(spare, op);
    else
        rc_context_fail(lends->context, op, RC_ERR_NOMEM, NULL);
    return true;
}

static void on_wait_over(void *argument, struct rc_timer *timer)
{
    struct rc_context *context = argument;
    struct rc_op *op = RC_CONTAINER(timer, struct rc_op, run.deadline);
    char text[64];
    snprintf(text, sizeof text, "all %d lent connections are in use", context->options.max_lent);
    rc_context_fail(context, op, RC_ERR_OVERLOAD, text);
}

void rc_lends_borrow(struct rc_lends *lends, struct rc_op *op)
{
    struct rc_context *context = lends->context;
    struct rc_lent *lent = op->ask.lent;
    if (lent->spare != NULL) {
        rc_context_fail(context, op, RC_ERR_ARGUMENT, "the handle has a connection already");
        return;
    }
    lent->cause[0] = '\0';
    rc_reply_clear(&lent->inbox);
    lent->missed = 0;
    op->run.answer_by_us = rc_context_after_ms(context, rc_call_timeout_ms(context, op));
    if (rc_list_is_empty(&lends->waiting) && serve(lends, op))
        return;
    rc_list_append(&lends->waiting, &op->run.member);
    op->run.deadline.fire = on_wait_over;
    rc_context_set_timer(context, &op->run.deadline, op->run.answer_by_us);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* Of a request that has failed: the connection was closed under it for another's sake. */
static int status_of(const struct rc_req *req, int status)
{
    return status == RC_ERR_CLOSED && !req->context->closing ? RC_ERR_UNKNOWN : status;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_op *op = req->owner;
    op->run.req = NULL;
    if (status == 0) {
        rc_call_take_answer(op, reply);
        rc_context_finish(req->context, op);
        return;
    }
    if (req->sent) /* its answer may still come, and would be taken for the next one's */
        end(spare_of(req->link),
            status == RC_ERR_TIMEOUT ? "a command on it has timed out" : req->link->cause);
    rc_context_fail(req->context, op, status_of(req, status), text);
}

void rc_lends_send(struct rc_lends *lends, struct rc_op *op)
{
    struct rc_context *context = lends->context;
    const struct rc_lent *lent = op->ask.lent;
    if (lent->spare == NULL) {
        fail_without(context, op);
        return;
    }
    struct rc_req *req = rc_req_take(context);
    if (req == NULL) {
        rc_context_fail(context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    rc_buf_swap(&req->bytes, &op->ask.request);
    req->expect = op->ask.expect;
    if (req->expect == 1)
        req->script = op->ask.script; /* -1: it is none */
    req->done = on_answer;
    req->owner = op;
    op->run.req = req;
    rc_link_send(&lent->spare->link, req,
                 rc_context_after_ms(context, rc_call_timeout_ms(context, op)));
}

void rc_lends_leave(struct rc_lends *lends, struct rc_op *op)
{
    struct rc_lent *lent = op->ask.lent;
    if (op->ask.kind == RC_OP_LENT && lent->spare != NULL)
        end(lent->spare, "a command on it was given up");
    if (lent->listener == op)
        lent->listener = NULL;
    RC_LIST_EACH(place, following, &lends->busy) {
        struct rc_spare *spare = RC_CONTAINER(place, struct rc_spare, place);
        if (spare->borrower == op)
            end(spare, "");
    }
}

/* ---- giving back ----------------------------------------------------------------------------- */

void rc_lends_return(struct rc_lends *lends, struct rc_lent *lent)
{
    struct rc_spare *spare = lent->spare;
    if (spare != NULL)
        take_from_caller(spare, "");
    lent->cause[0] = '\0';
    if (spare == NULL)
        return;
    struct rc_link *link = &spare->link;
    /* With an AUTH on its way it is not worth the wait. */
    if (!rc_link_is_ready(link) || link->request_count > 0 || rc_link_clean(link) != 0) {
        end(spare, "");
        return;
    }
    spare->idle_since_us = lends->context->now_us;
    move(spare, &lends->idle);
    hurry(lends);
}

static void remove_ended(struct rc_lends *lends)
{
    while (!rc_list_is_empty(&lends->ended)) {
        struct rc_spare *spare = RC_CONTAINER(lends->ended.next, struct rc_spare, place);
        move(spare, &lends->leaving);
        rc_topology_remove(lends->topology, &spare->link);
    }
}

static void on_timer(void *context, struct rc_timer *timer)
{
    struct rc_lends *lends = RC_CONTAINER(timer, struct rc_lends, timer);
    int64_t now_us = ((struct rc_context *)context)->now_us;
    RC_LIST_EACH(place, following, &lends->idle) {
        struct rc_spare *spare = RC_CONTAINER(place, struct rc_spare, place);
        if (now_us - spare->idle_since_us >= IDLE_US)
            end(spare, "");
    }
    remove_ended(lends);
    RC_LIST_EACH(member, next, &lends->waiting) {
        if (!serve(lends, RC_CONTAINER(member, struct rc_op, run.member)))
            break;
    }
    if (!rc_timer_is_set(timer) && !rc_list_is_empty(&lends->idle)) {
        const struct rc_spare *oldest = RC_CONTAINER(lends->idle.prev, struct rc_spare, place);
        rc_context_set_timer(context, timer, oldest->idle_since_us + IDLE_US);
    }
}

/* ---- the ends of all ------------------------------------------------------------------------- */

void rc_lends_on_silence(struct rc_lends *lends, struct rc_server_node *node)
{
    RC_LIST_EACH(place, following, &lends->busy) {
        struct rc_spare *spare = RC_CONTAINER(place, struct rc_spare, place);
        if (spare->link.node == node && spare->lent != NULL && spare->link.request_count > 0)
            rc_link_give_up(&spare->link, "the server does not answer");
    }
}

void rc_lends_on_move(struct rc_lends *lends, struct rc_server_node *node)
{
    RC_LIST_EACH(place, following, &lends->idle) {
        struct rc_spare *spare = RC_CONTAINER(place, struct rc_spare, place);
        if (spare->link.node == node)
            end(spare, "");
    }
    RC_LIST_EACH(member, next, &lends->busy) {
        struct rc_spare *spare = RC_CONTAINER(member, struct rc_spare, place);
        if (spare->link.node == node)
            rc_link_redial(&spare->link, "the sentinels name another master");
    }
}

static void end_all(struct rc_list *list)
{
    RC_LIST_EACH(place, following, list) {
        end(RC_CONTAINER(place, struct rc_spare, place), "the client is closed");
    }
}

void rc_lends_shutdown(struct rc_lends *lends)
{
    assert(rc_list_is_empty(&lends->waiting));
    end_all(&lends->idle);
    end_all(&lends->busy);
    remove_ended(lends);
}

int rc_lends_init(struct rc_lends *lends, struct rc_context *context, struct rc_topology *topology)
{
    memset(lends, 0, sizeof *lends);
    lends->context = context;
    lends->topology = topology;
    rc_list_init(&lends->idle);
    rc_list_init(&lends->busy);
    rc_list_init(&lends->ended);
    rc_list_init(&lends->leaving);
    rc_list_init(&lends->waiting);
    lends->timer.fire = on_timer;
    return rc_context_add_timer(context);
}

static void free_all(struct rc_list *list)
{
    while (!rc_list_is_empty(list)) {
        struct rc_spare *spare = RC_CONTAINER(list->next, struct rc_spare, place);
        rc_list_remove(&spare->place);
        rc_list_remove(&spare->link.place);
        rc_link_deinit(&spare->link);
        free(spare);
    }
}

void rc_lends_deinit(struct rc_lends *lends)
{
    free_all(&lends->idle);
    free_all(&lends->busy);
    free_all(&lends->ended);
    free_all(&lends->leaving);
    rc_context_clear_timer(lends->context, &lends->timer);
    rc_context_remove_timer(lends->context);
}
