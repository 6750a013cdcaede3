#include "engine/link.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/handshake.h"
#include "engine/login.h"
#include "engine/redirect.h"
#include "engine/script.h"

enum {
    BACKOFF_MIN_MS = 20,
    BACKOFF_MAX_MS = 500,   /* a server that is back is found within this */
    STALL_MIN_MS = 1000,    /* a busy server may well be silent for some hundred milliseconds */
    MAX_ELEMENTS = 1 << 20, /* of one answer */
    MAX_HELD = 64 * 1024 * 1024, /* bytes of all requests without an answer */
    LOGIN_LOOK_MS = 500,         /* so often one looks that waits for credentials; they hurry it */
    MASTER_LOOK_MS = 500,        /* and one at a replica, whether the master is found now */
    KEEP_BYTES = 1024 * 1024,    /* room the empty output keeps */
    ANSWER_SLACK = 64 * 1024 *
                   1024 /* answers over max_value_bytes that are still read, to refuse them alone */
};

static void on_timer(void *context, struct rc_timer *timer);
static void go_down(struct rc_link *link, const char *cause);

int rc_link_init(struct rc_link *link, struct rc_context *context, const struct rc_address *address,
                 enum rc_link_role role)
{
    memset(link, 0, sizeof *link);
    link->context = context;
    link->address = address;
    link->role = role;
    link->timer.fire = on_timer;
    rc_list_init(&link->place);
    rc_list_init(&link->queue);
    rc_list_init(&link->in_flight);
    rc_buf_init(&link->output);
    int error = rc_resp_init(&link->resp, MAX_ELEMENTS,
                             (size_t)context->options.max_value_bytes + ANSWER_SLACK);
    if (error != 0)
        return error;
    error = rc_context_add_timer(context);
    if (error != 0)
        rc_resp_deinit(&link->resp);
    return error;
}

void rc_link_deinit(struct rc_link *link)
{
    assert(rc_list_is_empty(&link->queue) && rc_list_is_empty(&link->in_flight));
    rc_context_clear_timer(link->context, &link->timer);
    rc_context_remove_timer(link->context);
    rc_resp_deinit(&link->resp);
    rc_buf_deinit(&link->output);
}

const char *rc_link_name(const struct rc_link *link)
{
    return rc_handshake_role_name(link->role);
}

/* The same request once more. NULL: no memory; what it is to end ends by itself. */
static struct rc_req *copy(const struct rc_req *req)
{
    struct rc_req *other = rc_req_take(req->context);
    assert(req->read_key == NULL); /* the key is its owner's */
    if (other == NULL)
        return NULL;
    if (rc_buf_append(&other->bytes, rc_buf_head(&req->bytes), rc_buf_len(&req->bytes)) != 0) {
        rc_req_give(other);
        return NULL;
    }
    other->expect = req->expect;
    other->script = req->script;
    other->may_retry = req->may_retry;
    other->patience_ms = req->patience_ms;
    return other;
}

/* Where the earlier request was lost with its connection, Redis may still find it among the bytes
   of that connection, behind the undo. So the undo is sent at once, for a Redis that is well, and
   again over the next connection of the same link: its PONG comes from behind those bytes. */
static void send_undo(struct rc_req *undo, struct rc_link *earlier)
{
    struct rc_context *context = undo->context;
    bool is_lost = !earlier->ended && !rc_link_is_ready(earlier) && earlier != undo->link;
    struct rc_req *again = is_lost ? copy(undo) : NULL;
    int64_t deadline_us = rc_context_after_ms(context, undo->patience_ms);
    rc_link_send(undo->link, undo, deadline_us);
    if (again != NULL)
        rc_link_send(earlier, again, deadline_us);
}

/* Ends a request. Its owner may start new ones from `done`. */
static void complete(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    void (*done)(struct rc_req *, int, struct rc_reply *, const char *) = req->done;
    struct rc_link *link = req->link;
    rc_list_remove(&req->place);
    link->request_count--;
    link->held_bytes -= req->held_bytes;
    req->context->stats.in_flight--;
    rc_context_clear_timer(req->context, &req->timer);
    if (done != NULL)
        done(req, status, reply, text);
    struct rc_req *undo = req->undo;
    rc_req_give(req);
    if (undo != NULL)
        send_undo(undo, link);
}

/* Tells the owner now, but leaves the request in line: its answer is still to come and must be
   read. */
static void abandon(struct rc_req *req, int status, const char *text)
{
    void (*done)(struct rc_req *, int, struct rc_reply *, const char *) = req->done;
    req->done = NULL;
    req->may_retry = false;
    rc_context_clear_timer(req->context, &req->timer);
    if (done != NULL)
        done(req, status, NULL, text);
    req->owner = NULL;
}

/* Whether it is worth sending for its effect, although nobody waits for the answer any more. */
static bool has_patience(const struct rc_req *req)
{
    return req->patience_ms > 0 && !req->link->ended;
}

/* Tells the owner now, and stays for its effect. */
static void leave(struct rc_req *req, int status, const char *text)
{
    void (*done)(struct rc_req *, int, struct rc_reply *, const char *) = req->done;
    req->done = NULL;
    req->error = 0;
    rc_context_set_timer(req->context, &req->timer,
                         rc_context_after_ms(req->context, req->patience_ms));
    if (done != NULL)
        done(req, status, NULL, text);
    req->owner = NULL;
}

/* Since when nothing at all has come in answer to what was sent. */
static int64_t silent_us(const struct rc_link *link)
{
    const struct rc_req *oldest = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
    int64_t since_us = oldest->sent_us > link->received_us ? oldest->sent_us : link->received_us;
    return link->context->now_us - since_us;
}

static void tell_miss(struct rc_link *link, const struct rc_req *req)
{
    int64_t now_us = link->context->now_us;
    /* Who waits for less than a tick of the fuse is due before it. */
    rc_breaker_late(link->breaker, now_us - req->timer.at_us, now_us);
    if (rc_link_is_ready(link) && !rc_list_is_empty(&link->in_flight))
        rc_breaker_miss(link->breaker, now_us - req->sent_us, silent_us(link), now_us);
}

static void on_request_timer(void *context, struct rc_timer *timer)
{
    struct rc_req *req = RC_CONTAINER(timer, struct rc_req, timer);
    struct rc_link *link = req->link;
    char why[RC_TEXT_SIZE];
    (void)context;
    int status = req->error != 0 ? req->error : RC_ERR_TIMEOUT;
    bool lacks_word = req->needs_word && !req->sent && rc_link_is_ready(link) &&
                      link->unvouched_since != NULL && link->unvouched_since(link, why) != 0;
    if (status == RC_ERR_TIMEOUT && !req->sent &&
        (!rc_link_is_ready(link) || req->is_held || lacks_word))
        status = link->refused ? RC_ERR_REDIS : RC_ERR_UNAVAILABLE;
    const char *text = NULL;
    if (status == RC_ERR_TIMEOUT && req->sent && link->breaker != NULL)
        tell_miss(link, req);
    if (req->is_refused && status == RC_ERR_UNAVAILABLE && link->breaker != NULL) {
        rc_breaker_tell(link->breaker, link->address->label, link->context->now_us, why,
                        sizeof why);
        text = why;
    } else if (status == RC_ERR_UNAVAILABLE || status == RC_ERR_REDIS)
        text = lacks_word ? why : link->cause;
    bool is_late = status == RC_ERR_TIMEOUT || status == RC_ERR_UNAVAILABLE;
    if (is_late && req->done != NULL && has_patience(req))
        leave(req, status, text);
    else if (req->sent)
        abandon(req, status, text);
    else
        complete(req, status, NULL, text);
}

/* `done` must not run inside the call that sends: the caller is in the middle of something. */
static void fail_soon(struct rc_req *req, int error)
{
    req->error = error;
    rc_context_set_timer(req->context, &req->timer, 0);
}

static int64_t stall_us(const struct rc_link *link)
{
    int64_t ms = 2 * (int64_t)link->context->options.command_timeout_ms;
    return (ms < STALL_MIN_MS ? STALL_MIN_MS : ms) * 1000;
}

static int append_plain(struct rc_link *link, struct rc_buf *output, struct rc_req *req)
{
    const struct rc_buf *key = req->read_key;
    assert(key == NULL || req->done != NULL); /* else its owner may be gone, and the key with it */
    req->is_ifeq = false;
    if (key != NULL)
        return rc_command_read(output, rc_buf_head(key), rc_buf_len(key), req->expect > 1);
    const char *bytes = rc_buf_head(&req->bytes);
    size_t len = rc_buf_len(&req->bytes);
    if (req->script >= 0 && !req->is_eval && !req->wants_script) {
        int error = rc_ifeq_write(&link->ifeq, output, req->script, bytes, len, &req->is_ifeq);
        if (error != 0 || req->is_ifeq)
            return error;
    }
    return rc_buf_append(output, bytes, len);
}

/* Whether it may be one of several publishes that one script does. */
static bool may_share(const struct rc_link *link, const struct rc_req *req)
{
    return req->script == RC_SCRIPT_PUBLISH && !req->is_ifeq && !req->is_eval &&
           !req->wants_script && !req->is_asking && link->identity.mode != RC_SERVER_CLUSTER &&
           rc_bundle_takes(&link->bundle, rc_buf_len(&req->bytes));
}

/* Writes a publish into the request in front of it, of which the driver has taken nothing. */
static int append_shared(struct rc_link *link, struct rc_req *req, bool *is_part)
{
    *is_part = false;
    if (link->bundle.count == 0 || !may_share(link, req))
        return 0;
    return rc_bundle_add(&link->bundle, &link->output, rc_buf_head(&req->bytes),
                         rc_buf_len(&req->bytes), is_part);
}

static int append_asking(struct rc_link *link, struct rc_req *req)
{
    struct rc_buf *output = &link->output, plain;
    rc_buf_init(&plain);
    int error = append_plain(link, &plain, req);
    if (error == 0)
        error = rc_redirect_ask(output, rc_buf_head(&plain), rc_buf_len(&plain));
    rc_buf_deinit(&plain);
    return error;
}

/* *is_part: it stands in the bundle now, and has no answer of its own. */
static int append_request(struct rc_link *link, struct rc_req *req, bool *is_part)
{
    int error = append_shared(link, req, is_part);
    if (error != 0 || *is_part)
        return error;
    rc_bundle_close(&link->bundle);
    error = req->is_asking ? append_asking(link, req) : append_plain(link, &link->output, req);
    if (error == 0 && may_share(link, req)) {
        rc_bundle_begin(&link->bundle, rc_buf_head(&req->bytes), rc_buf_len(&req->bytes));
        link->bundler = req;
    }
    return error;
}

static void write_request(struct rc_link *link, struct rc_req *req)
{
    if (link->owed_end != NULL &&
        atomic_load_explicit(link->owed_end, memory_order_acquire) != link->owed_at)
        link->on_owed(link);
    size_t before = rc_buf_len(&link->output);
    bool is_part;
    req->bundled = 0;
    if (append_request(link, req, &is_part) != 0) {
        req->sent = false; /* even if it was once: it is in no line of answers any more */
        rc_list_append(&link->queue, &req->place);
        fail_soon(req, RC_ERR_NOMEM);
        return;
    }
    rc_list_append(&link->in_flight, &req->place);
    req->sent = true;
    req->sent_us = link->sent_us = link->context->now_us;
    req->output_start = is_part ? link->bundler->output_start : link->output_queued;
    if (is_part)
        link->bundler->bundled += link->bundler->bundled == 0 ? 2 : 1;
    link->output_queued += rc_buf_len(&link->output) - before;
    link->context->stats.requests += req->expect;
    if (!rc_timer_is_set(&link->timer))
        rc_context_set_timer(link->context, &link->timer, link->context->now_us + stall_us(link));
    if (link->breaker != NULL)
        rc_breaker_sent(link->breaker);
}

static void start_opening(struct rc_link *link)
{
    struct rc_context *context = link->context;
    struct rc_login *login = context->login;
    if (link->may_open != NULL && !link->may_open(link)) {
        link->state = RC_LINK_BACKOFF; /* without end */
        return;
    }
    /* As long as nobody has told who we are there is no use in it. */
    bool is_usable = !rc_handshake_has_login(link) || rc_login_is_usable(login);
    int32_t wait_ms = link->connect_ms > 0 ? link->connect_ms : context->options.connect_timeout_ms;
    if (!is_usable)
        wait_ms = LOGIN_LOOK_MS;
    link->state = is_usable ? RC_LINK_OPENING : RC_LINK_BACKOFF;
    link->wants_open = is_usable;
    if (!is_usable)
        snprintf(link->cause, sizeof link->cause, "%s", login->cause);
    rc_context_set_timer(context, &link->timer, rc_context_after_ms(context, wait_ms));
}

void rc_link_want(struct rc_link *link)
{
    if (link->state != RC_LINK_IDLE || link->ended)
        return;
    link->down_since_us = link->context->now_us;
    start_opening(link);
}

/* Counts it as the link's. False: it is one too many. */
static inline bool take_in(struct rc_link *link, struct rc_req *req, int64_t deadline_us)
{
    struct rc_context *context = link->context;
    size_t len = rc_buf_len(req->read_key != NULL ? req->read_key : &req->bytes);
    bool full = link->request_count >= (uint32_t)context->options.max_queue ||
                (link->held_bytes > 0 && link->held_bytes + len > MAX_HELD);
    req->link = link;
    req->held_bytes = len;
    link->held_bytes += req->held_bytes;
    req->timer.fire = on_request_timer;
    link->request_count++;
    context->stats.in_flight++;
    rc_context_set_timer(context, &req->timer, deadline_us);
    rc_link_want(link);
    return !full;
}

/* It waits until the link is ready, or ends soon where that is of no use. */
static void line_up(struct rc_link *link, struct rc_req *req, int64_t deadline_us, bool has_room)
{
    struct rc_context *context = link->context;
    rc_list_append(&link->queue, &req->place);
    if (!has_room)
        fail_soon(req, RC_ERR_OVERLOAD);
    else if (link->state == RC_LINK_IDLE)
        fail_soon(req, RC_ERR_CLOSED);
    else if (req->done == NULL)
        return; /* nobody waits for it */
    else if (link->refused)
        fail_soon(req, RC_ERR_REDIS);
    else if (rc_link_is_barred(link))
        fail_soon(req, RC_ERR_UNAVAILABLE);
    else if (link->attempts > 0 &&
             !(rc_handshake_has_login(link) && rc_login_is_asked(context->login)) &&
             context->now_us - link->down_since_us > deadline_us - context->now_us)
        fail_soon(req, RC_ERR_UNAVAILABLE); /* away for longer than this caller would wait */
}

void rc_link_send(struct rc_link *link, struct rc_req *req, int64_t deadline_us)
{
    bool has_room = take_in(link, req, deadline_us);
    if (rc_link_is_ready(link) && has_room)
        write_request(link, req);
    else
        line_up(link, req, deadline_us, has_room);
}

void rc_link_refuse(struct rc_link *link, struct rc_req *req, int64_t deadline_us)
{
    struct rc_context *context = link->context;
    context->stats.breaker_refusals++;
    if (req->patience_ms > 0) {
        rc_link_send(link, req, deadline_us);
    } else {
        (void)take_in(link, req, deadline_us);
        rc_list_append(&link->queue, &req->place);
    }
    req->is_refused = true;
    if (req->error == 0 && !RC_MUTANT(BREAKER_WAITS))
        fail_soon(req, RC_ERR_UNAVAILABLE);
}

static int64_t unvouched_since(struct rc_link *link)
{
    return link->unvouched_since != NULL ? link->unvouched_since(link, NULL) : 0;
}

void rc_link_send_vouched(struct rc_link *link, struct rc_req *req, int64_t deadline_us)
{
    int64_t now_us = link->context->now_us;
    bool has_room = take_in(link, req, deadline_us);
    bool is_ready = rc_link_is_ready(link);
    int64_t since_us = is_ready ? unvouched_since(link) : 0;
    req->needs_word = true;
    if (is_ready && has_room && since_us == 0) {
        write_request(link, req);
        return;
    }
    line_up(link, req, deadline_us, has_room);
    if (since_us != 0 && req->error == 0 && now_us - since_us > deadline_us - now_us)
        fail_soon(req, RC_ERR_UNAVAILABLE); /* as in line_up */
}

/* What waits, but for what is to be failed, which its timer takes out, and what needs a word that
   is not there. */
static void write_queue(struct rc_link *link)
{
    bool is_vouched = unvouched_since(link) == 0;
    RC_LIST_EACH(place, following, &link->queue) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        if (req->error != 0 || (req->needs_word && !is_vouched))
            continue;
        rc_list_remove(place);
        write_request(link, req);
    }
}

void rc_link_resume(struct rc_link *link)
{
    if (rc_link_is_ready(link) && !rc_list_is_empty(&link->queue))
        write_queue(link);
}

void rc_link_send_after(struct rc_link *link, struct rc_req *req, struct rc_req *earlier)
{
    bool is_given_up = earlier->sent && earlier->done == NULL;
    req->link = link;
    if (is_given_up)
        earlier->undo = req;
    else
        send_undo(req, earlier->link);
}

void rc_link_hold(struct rc_req *req, struct rc_list *list)
{
    rc_list_remove(&req->place);
    rc_list_append(list, &req->place);
    req->sent = false;
    req->is_held = true;
}

void rc_link_move(struct rc_req *req, struct rc_link *to)
{
    struct rc_link *from = req->link;
    assert(rc_timer_is_set(&req->timer) && req->error == 0);
    rc_list_remove(&req->place);
    req->sent = req->is_held = false;
    from->request_count--;
    from->held_bytes -= req->held_bytes;
    req->context->stats.in_flight--;
    rc_link_send(to, req, req->timer.at_us);
}

void rc_link_fail(struct rc_req *req, int status)
{
    complete(req, status, NULL, NULL);
}

struct rc_req *rc_link_ping(struct rc_link *link)
{
    struct rc_req *req = rc_req_take(link->context);
    if (req == NULL)
        return NULL;
    if (rc_command_head(&req->bytes, 1) != 0 || rc_command_text(&req->bytes, "PING") != 0) {
        rc_req_give(req);
        return NULL;
    }
    req->expect = 1;
    return req;
}

struct rc_req *rc_link_question(struct rc_link *link)
{
    struct rc_req *req = rc_link_ping(link);
    if (req == NULL)
        return NULL;
    if (rc_identity_ask(&req->bytes, &link->identity) != 0) {
        rc_req_give(req);
        return NULL;
    }
    req->expect = 2;
    req->asks = true;
    return req;
}

void rc_link_forget(struct rc_req *req)
{
    if (has_patience(req)) {
        req->done = NULL;
        leave(req, 0, NULL);
        return;
    }
    req->done = NULL;
    req->owner = NULL;
    req->may_retry = false;
    if (!req->sent)
        complete(req, 0, NULL, NULL);
    else
        rc_context_clear_timer(req->context, &req->timer);
}

/* One without `done` that may be repeated is sent for its effect alone: it gives a lease back,
   or nobody hears of it. What was forgotten or timed out is neither, unless it has patience. */
static bool is_wanted(const struct rc_req *req)
{
    return req->done != NULL || req->may_retry;
}

/* The broken connection's requests: what may be sent again goes back to the front of the queue, in
   order. */
static void requeue(struct rc_link *link)
{
    struct rc_list again;
    rc_list_init(&again);
    while (!rc_list_is_empty(&link->in_flight)) {
        struct rc_req *req = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
        bool untouched = req->output_start >= link->output_sent;
        if (link->is_lent && untouched) {
            complete(req, RC_ERR_UNAVAILABLE, NULL, link->cause);
        } else if (is_wanted(req) && (req->may_retry || untouched || RC_MUTANT(RETRY_WRITES))) {
            rc_list_remove(&req->place);
            rc_list_append(&again, &req->place);
            req->sent = false;
            link->context->stats.retries++;
        } else {
            int status = RC_MUTANT(BROKEN_IS_UNDONE) ? RC_ERR_UNAVAILABLE : RC_ERR_UNKNOWN;
            complete(req, status, NULL, NULL);
        }
    }
    rc_list_splice(&again, &link->queue);
    rc_list_splice(&link->queue, &again);
}

static void start_backoff(struct rc_link *link)
{
    uint32_t shift = link->attempts < 6 ? link->attempts : 6;
    int64_t delay_us = (int64_t)BACKOFF_MIN_MS * 1000 << shift;
    if (delay_us > BACKOFF_MAX_MS * 1000)
        delay_us = BACKOFF_MAX_MS * 1000;
    /* Half fixed, half random: clients that lost one server together do not come back together. */
    delay_us =
        delay_us / 2 + (int64_t)(rc_context_random(link->context) % (uint64_t)(delay_us / 2 + 1));
    link->state = RC_LINK_BACKOFF;
    link->attempts++;
    rc_context_set_timer(link->context, &link->timer, link->context->now_us + delay_us);
}

static void go_down(struct rc_link *link, const char *cause)
{
    bool was_ready = link->state == RC_LINK_READY || link->is_cleaning;
    bool had_socket = link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
    if (!had_socket)
        return;
    link->is_cleaning = false;
    if (was_ready && link->breaker != NULL && !rc_list_is_empty(&link->in_flight))
        rc_breaker_broke(link->breaker, link->context->now_us);
    if (was_ready) {
        link->down_since_us = link->context->now_us;
        link->context->stats.disconnects++;
    }
    if (cause != link->cause)
        snprintf(link->cause, sizeof link->cause, "%s", cause);
    link->wants_open = false;
    link->wants_close = true;
    link->tracking = false;
    link->epoch++;
    start_backoff(link);
    rc_bundle_close(&link->bundle);
    requeue(link);
    rc_buf_clear(&link->output);
    link->output_queued = link->output_sent = 0;
    link->answers = 0;
    if (was_ready)
        link->on_down(link);
    else if (link->on_missed != NULL)
        link->on_missed(link);
}

void rc_link_hurry(struct rc_link *link)
{
    if (link->state == RC_LINK_BACKOFF)
        rc_context_set_timer(link->context, &link->timer, link->context->now_us);
}

void rc_link_give_up(struct rc_link *link, const char *cause)
{
    go_down(link, cause);
}

void rc_link_redial(struct rc_link *link, const char *cause)
{
    if (link->state == RC_LINK_IDLE)
        return;
    go_down(link, cause);
    link->attempts = 0; /* at the new address */
    link->refused = link->turned_away = false;
    link->down_since_us = link->context->now_us;
    rc_link_hurry(link);
}

void rc_link_lost(struct rc_link *link, const char *cause)
{
    char text[RC_TEXT_SIZE];
    link->wants_close = false;
    link->turned_away &= link->state == RC_LINK_HANDSHAKE;
    bool is_explained = strncmp(cause, "TLS: ", 5) == 0; /* it came no further than there */
    if (link->state == RC_LINK_HANDSHAKE && link->handshake_at == 0 && !link->is_cleaning &&
        !is_explained) {
        snprintf(text, sizeof text, "%.150s, instead of an answer to HELLO: %s", cause,
                 link->address->is_tls ? "a proxy without RESP3"
                                       : "a proxy without RESP3, or a port for TLS (rediss://)");
        cause = text;
    }
    go_down(link, cause);
    link->wants_close = false;
}

void rc_link_rest(struct rc_link *link)
{
    bool was_ready = link->state == RC_LINK_READY || link->is_cleaning;
    bool had_socket = link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
    assert(link->request_count == 0);
    rc_context_clear_timer(link->context, &link->timer);
    link->state = RC_LINK_IDLE;
    link->is_cleaning = false;
    link->wants_open = false;
    link->wants_close |= had_socket;
    link->tracking = false;
    link->attempts = 0;
    link->turned_away = false;
    link->epoch++;
    rc_buf_clear(&link->output);
    link->output_queued = link->output_sent = 0;
    link->answers = 0;
    if (was_ready)
        link->on_down(link);
}

void rc_link_shutdown(struct rc_link *link)
{
    rc_context_clear_timer(link->context, &link->timer);
    link->ended = true;
    link->wants_open = false;
    link->wants_close |= link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
    link->state = RC_LINK_IDLE;
    while (!rc_list_is_empty(&link->in_flight))
        complete(RC_CONTAINER(link->in_flight.next, struct rc_req, place), RC_ERR_CLOSED, NULL,
                 NULL);
    while (!rc_list_is_empty(&link->queue))
        complete(RC_CONTAINER(link->queue.next, struct rc_req, place), RC_ERR_CLOSED, NULL, NULL);
}

/* Ready, but is it alive? TCP does not tell when the other side has vanished. */
static void check_stall(struct rc_link *link)
{
    struct rc_context *context = link->context;
    if (rc_list_is_empty(&link->in_flight))
        return;
    struct rc_req *oldest = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
    int64_t quiet_since = oldest->sent_us > link->received_us ? oldest->sent_us : link->received_us;
    bool still_waited_for = oldest->done != NULL && rc_timer_is_set(&oldest->timer);
    if (context->now_us - quiet_since >= stall_us(link) && !still_waited_for) {
        link->is_silent = true;
        go_down(link, "the server does not answer");
        return;
    }
    int64_t again = quiet_since + stall_us(link);
    if (still_waited_for && link->on_quiet != NULL) {
        link->on_quiet(link);
        again = context->now_us + stall_us(link);
    } else if (still_waited_for && again < oldest->timer.at_us) {
        again = oldest->timer.at_us;
    }
    if (again <= context->now_us)
        again = context->now_us + 1000;
    rc_context_set_timer(context, &link->timer, again);
}

static void on_timer(void *context, struct rc_timer *timer)
{
    struct rc_link *link = RC_CONTAINER(timer, struct rc_link, timer);
    (void)context;
    switch (link->state) {
    case RC_LINK_IDLE: break;
    case RC_LINK_OPENING: go_down(link, "connecting timed out"); break;
    case RC_LINK_HANDSHAKE: /* a server without TLS waits for the end of what is no command to it */
        go_down(link, link->address->is_tls && link->handshake_at == 0
                          ? "connecting timed out: the port may be one without TLS (redis://)"
                          : "connecting timed out");
        break;
    case RC_LINK_READY: check_stall(link); break;
    case RC_LINK_BACKOFF: start_opening(link); break;
    }
}

void rc_link_opened(struct rc_link *link)
{
    if (link->state != RC_LINK_OPENING)
        return;
    link->state = RC_LINK_HANDSHAKE;
    link->confirmed_us = link->context->now_us;
    link->owed_at = UINT64_MAX; /* over this connection nothing was sent yet */
    link->is_owed_refused = false;
    link->output_queued = link->output_sent = 0;
    link->answers = 0;
    rc_buf_clear(&link->output);
    if (rc_resp_reset(&link->resp) != 0 || rc_handshake_write(link) != 0)
        go_down(link, "no memory");
    else
        link->output_queued = rc_buf_len(&link->output);
}

/* A refused connection stays who it was: Redis closes it where that user is gone. */
static void on_authenticated(struct rc_req *req, int status, struct rc_reply *reply,
                             const char *text)
{
    struct rc_link *link = req->owner;
    (void)text;
    if (status != 0)
        return; /* the next handshake says it */
    if (reply->nodes[0].type == '-')
        rc_login_refuse(link->context->login, (uint64_t)(uintptr_t)req->detail);
    else
        rc_login_accept(link->context->login);
}

static void send_auth(struct rc_link *link)
{
    struct rc_context *context = link->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL)
        return;
    if (rc_command_head(&req->bytes, 3) != 0 || rc_handshake_write_auth(link, &req->bytes) != 0) {
        rc_req_give(req);
        return;
    }
    link->login = context->login->version;
    req->expect = 1;
    req->done = on_authenticated;
    req->owner = link;
    req->detail = (void *)(uintptr_t)link->login;
    rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
}

void rc_link_authenticate(struct rc_link *link)
{
    if (link->ended || link->login == rc_handshake_login(link))
        return;
    if (rc_link_is_ready(link) && !link->is_lent) {
        send_auth(link);
    } else if (link->state == RC_LINK_BACKOFF) {
        link->refused = false;
        rc_link_hurry(link);
    }
}

static void become_ready(struct rc_link *link)
{
    link->state = RC_LINK_READY;
    link->attempts = 0;
    link->refused = link->turned_away = false;
    link->down_since_us = 0;
    link->context->stats.connects += !link->is_cleaning;
    link->is_cleaning = link->is_silent = false;
    link->ready_us = link->context->now_us;
    rc_ifeq_greet(&link->ifeq, &link->server);
    rc_bundle_greet(&link->bundle);
    rc_context_clear_timer(link->context, &link->timer);
    if ((link->role != RC_LINK_T || link->tracking) && !link->is_read_only)
        link->cause[0] = '\0';
    write_queue(link);
    if (rc_handshake_has_login(link))
        rc_login_accept(link->context->login);
    rc_link_authenticate(link); /* there may be newer credentials since its handshake */
    link->on_ready(link);
}

/* We are not let in: nobody needs to wait for the next attempt to learn it. */
static void fail_queue(struct rc_link *link, int error)
{
    RC_LIST_EACH(place, following, &link->queue) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        if (req->done != NULL)
            fail_soon(req, error);
    }
}

void rc_link_explain(struct rc_link *link, const char *cause, bool refused)
{
    if (link->state != RC_LINK_BACKOFF)
        return;
    snprintf(link->cause, sizeof link->cause, "%s", cause);
    link->attempts++;
    link->refused = refused;
    if (refused)
        fail_queue(link, RC_ERR_REDIS);
}

int rc_link_clean(struct rc_link *link)
{
    assert(rc_link_is_ready(link) && link->request_count == 0);
    size_t before = rc_buf_len(&link->output);
    link->is_cleaning = true;
    link->state = RC_LINK_HANDSHAKE;
    if (rc_handshake_write(link) != 0) {
        go_down(link, "no memory");
        return RC_ERR_NOMEM;
    }
    link->output_queued += rc_buf_len(&link->output) - before;
    rc_context_set_timer(
        link->context, &link->timer,
        rc_context_after_ms(link->context, link->context->options.connect_timeout_ms));
    return 0;
}

static void read_greeting(struct rc_link *link, const struct rc_reply *reply)
{
    enum rc_greeting greeting = rc_handshake_read(link, reply);
    const char *objection = NULL;
    switch (greeting) {
    case RC_GREETING_GOES_ON: return;
    case RC_GREETING_DONE:
        objection = link->on_greeted != NULL ? link->on_greeted(link) : NULL;
        if (objection != NULL)
            go_down(link, objection);
        else
            become_ready(link);
        return;
    case RC_GREETING_FAILED: go_down(link, link->cause); return;
    case RC_GREETING_TURNED_AWAY:
        go_down(link, link->cause);
        fail_queue(link, RC_ERR_UNAVAILABLE);
        return;
    case RC_GREETING_REFUSED:
        link->refused = true;
        go_down(link, link->cause);
        fail_queue(link, RC_ERR_REDIS);
        return;
    case RC_GREETING_LOGIN_REFUSED:
        rc_login_refuse(link->context->login, link->login);
        go_down(link, link->cause);
        return;
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Redis has forgotten the script: it was not run, so it is sent again, with its source. */
static bool resend_as_eval(struct rc_link *link, struct rc_req *req, const rc_node *first)
{
    struct rc_buf full;
    if (req->script < 0 || req->is_eval || !is_wanted(req) || !rc_reply_is_error(first, "NOSCRIPT"))
        return false;
    rc_buf_init(&full);
    if (rc_script_as_eval(&full, req->script, rc_buf_head(&req->bytes), rc_buf_len(&req->bytes)) !=
        0) {
        rc_buf_deinit(&full);
        return false;
    }
    rc_buf_swap(&full, &req->bytes);
    rc_buf_deinit(&full);
    req->is_eval = true;
    link->context->stats.noscript++;
    rc_list_remove(&req->place);
    write_request(link, req);
    return true;
}

/* A command in a script's place cannot tell what the script would: what is asked now. */
static bool resend_as_script(struct rc_link *link, struct rc_req *req)
{
    if (!is_wanted(req))
        return false;
    req->wants_script = true;
    rc_list_remove(&req->place);
    write_request(link, req);
    return true;
}

/* A node of a cluster whose role has changed, be it there and back, says itself where its slots
   are: what is under way goes there, and need not be lost with the connection. T's copies are
   another matter. */
static bool may_stay(const struct rc_link *link, const struct rc_identity *now)
{
    return link->role != RC_LINK_T && now->mode == RC_SERVER_CLUSTER &&
           !rc_identity_differs(&link->identity, now);
}

bool rc_link_hear_change(struct rc_link *link, const struct rc_identity *now, const char *change)
{
    if (!may_stay(link, now)) {
        go_down(link, change);
        return false;
    }
    link->identity = *now;
    return true;
}

/* A balancer or a name may lead to the master by now, and only a new connection finds it. A node of
   a cluster says itself where its slots are; of X its caller knows. */
static bool may_lead_to_master(const struct rc_link *link)
{
    int64_t since_us = link->context->now_us - link->ready_us;
    return (link->role == RC_LINK_W || link->role == RC_LINK_T) &&
           link->identity.role == RC_SERVER_REPLICA && link->identity.mode != RC_SERVER_CLUSTER &&
           since_us >= MASTER_LOOK_MS * 1000;
}

/* The answer to "are you still the one I was connected to?". False: it is not, or it is a replica
   still; the link is down. */
static bool hear_identity(struct rc_link *link, const struct rc_req *req,
                          const struct rc_reply *reply)
{
    struct rc_identity now = link->identity;
    rc_identity_read(&now, reply, rc_reply_skip(reply, 0));
    const char *change = rc_identity_change(&link->identity, &now);
    if (change != NULL && !rc_link_hear_change(link, &now, change))
        return false;
    link->identity = now;
    link->confirmed_us = req->sent_us;
    rc_handshake_judge_writes(link, &reply->nodes[0]);
    if (!may_lead_to_master(link))
        return true;
    go_down(link, link->cause);
    return false;
}

static void on_doubt_over(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_link *link = req->owner;
    (void)status;
    (void)reply;
    (void)text;
    link->is_doubted = false;
}

/* A write was refused as a replica does it. The question stands behind what is under way, which is
   answered before the answer takes the link down. */
static void doubt(struct rc_link *link)
{
    struct rc_context *context = link->context;
    struct rc_req *req = link->is_doubted ? NULL : rc_link_question(link);
    if (req == NULL)
        return;
    req->done = on_doubt_over;
    req->owner = link;
    link->is_doubted = true;
    rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
}

static bool is_doubtful(const struct rc_link *link, const rc_node *first)
{
    return rc_reply_is_error(first, "READONLY") && link->identity.mode != RC_SERVER_CLUSTER &&
           (link->role == RC_LINK_W || link->role == RC_LINK_T);
}

/* Only these errors are the server's own state, and a PING is answered by them, too: other errors
   are the caller's, or a cluster's, which is followed elsewhere. */
static bool is_server_sick(const rc_node *first)
{
    return first->type == '-' &&
           (rc_reply_is_error(first, "LOADING") || rc_reply_is_error(first, "BUSY") ||
            rc_reply_is_error(first, "MASTERDOWN"));
}

/* One sample for what is read at once: those behind the first have not waited for the server. */
static void tell_breaker(struct rc_link *link, const struct rc_req *req, const rc_node *first)
{
    int64_t now_us = link->context->now_us;
    int64_t since_us = req->sent_us > link->before_us ? req->sent_us : link->before_us;
    if (link->before_us >= now_us)
        return;
    link->before_us = now_us;
    rc_breaker_hear(link->breaker, is_server_sick(first), req->sent_us, now_us - since_us, now_us);
}

/* One answer for several publishes: each ends as by its own script, or is sent again as that. */
static void read_bundle(struct rc_link *link, struct rc_req *first, struct rc_reply *reply)
{
    bool stored[RC_BUNDLE_MOST];
    uint32_t count = first->bundled;
    assert(count <= RC_BUNDLE_MOST);
    rc_bundle_read(&link->bundle, &reply->nodes[0], count, stored);
    if (link->on_answered != NULL)
        link->on_answered(link, first->sent_us);
    if (link->breaker != NULL)
        tell_breaker(link, first, &reply->nodes[0]);
    for (uint32_t i = 0; i < count; i++) {
        struct rc_req *req = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
        if (!stored[i] && resend_as_script(link, req))
            continue;
        reply->nodes[0] = (rc_node){.type = ':', .integer = 1}; /* nobody waits, or it is so */
        reply->count = 1;
        complete(req, 0, reply, NULL);
    }
    rc_reply_clear(reply);
}

static void read_answer(struct rc_link *link)
{
    struct rc_reply *reply = &link->resp.reply;
    struct rc_req *req = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
    if (++link->answers < (req->is_asking ? 2 * req->expect : req->expect))
        return;
    link->answers = 0;
    rc_reply_resolve(reply);
    if (req->bundled > 0) {
        read_bundle(link, req, reply);
        return;
    }
    if (req->is_asking)
        rc_redirect_drop_asking(reply);
    bool is_told = !req->is_ifeq || rc_ifeq_read(&link->ifeq, req->script, &reply->nodes[0]);
    if (link->identity.mode == RC_SERVER_CLUSTER && link->on_answer != NULL && is_wanted(req) &&
        link->on_answer(link, req, reply)) { /* it is elsewhere now */
        rc_reply_clear(reply);
        return;
    }
    if ((!is_told && resend_as_script(link, req)) || resend_as_eval(link, req, &reply->nodes[0])) {
        rc_reply_clear(reply);
        return;
    }
    if (req->asks && !hear_identity(link, req, reply))
        return;
    if (link->on_answered != NULL)
        link->on_answered(link, req->sent_us);
    const rc_node *first = &reply->nodes[0];
    if (link->breaker != NULL)
        tell_breaker(link, req, first);
    if (is_doubtful(link, first))
        doubt(link);
    if (rc_reply_is_error(first, "LOADING") && req->done != NULL) {
        rc_node_text(first, link->cause);
        complete(req, RC_ERR_UNAVAILABLE, NULL, link->cause);
    } else {
        complete(req, 0, reply, NULL);
    }
    rc_reply_clear(reply);
}

static bool is_confirmed(const rc_node *kind)
{
    static const char *const kinds[] = {"subscribe", "unsubscribe", "psubscribe", "punsubscribe"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (rc_reply_is_text(kind, kinds[i]))
            return true;
    }
    return false;
}

/* Over a lent connection SUBSCRIBE and its like are answered by pushes, one for each name: such a
   push stands in the line of answers. */
static bool is_answer(const struct rc_link *link)
{
    const struct rc_reply *push = &link->resp.push;
    return link->is_lent && link->state == RC_LINK_READY && push->count > 1 &&
           is_confirmed(&push->nodes[1]) && !rc_list_is_empty(&link->in_flight);
}

/* False: no memory. */
static bool take_push_as_answer(struct rc_link *link)
{
    const struct rc_reply *push = &link->resp.push;
    link->received_us = link->context->now_us;
    if (rc_reply_append(&link->resp.reply, push, 0, push->count) != 0)
        return false;
    read_answer(link);
    return true;
}

/* What a TLS server says to bytes that are no TLS: an alert, or nothing at all. */
static bool is_tls_alert(const struct rc_link *link, const char *bytes, size_t len)
{
    return link->state == RC_LINK_HANDSHAKE && link->handshake_at == 0 && len >= 2 &&
           bytes[0] == 0x15 && bytes[1] == 0x03;
}

static void refuse_stream(struct rc_link *link)
{
    static const char cause[] = "the server's answer is no RESP3 or over a limit";
    /* The request whose answer it is fails alone; the others are sent again. What may not be done
       twice may have been done. */
    if (!rc_list_is_empty(&link->in_flight)) {
        struct rc_req *req = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
        if (link->resp.too_large)
            abandon(req, RC_ERR_TOOLARGE, NULL);
        else if (req->may_retry)
            abandon(req, RC_ERR_PROTOCOL, NULL);
        else
            abandon(req, RC_ERR_UNKNOWN, cause);
    }
    go_down(link, cause);
}

void rc_link_feed(struct rc_link *link, const char *bytes, size_t len)
{
    enum rc_message message = RC_MESSAGE_NONE;
    if (link->state != RC_LINK_HANDSHAKE && link->state != RC_LINK_READY)
        return;
    link->context->stats.bytes_in += len;
    link->before_us = link->received_us;
    if (is_tls_alert(link, bytes, len)) {
        go_down(link, "the server speaks TLS on this port: the url has to begin with rediss://");
        return;
    }
    int error = rc_resp_feed(&link->resp, bytes, len);
    while (error == 0 && (link->state == RC_LINK_HANDSHAKE || link->state == RC_LINK_READY)) {
        error = rc_resp_next(&link->resp, &message);
        if (error != 0 || message == RC_MESSAGE_NONE)
            break;
        if (message == RC_MESSAGE_REPLY)
            link->received_us = link->context->now_us;
        if (message == RC_MESSAGE_PUSH && is_answer(link)) {
            if (!take_push_as_answer(link))
                error = RC_ERR_NOMEM;
        } else if (message == RC_MESSAGE_PUSH) {
            link->context->stats.pushes++;
            link->on_push(link, &link->resp.push);
        } else if (link->state == RC_LINK_HANDSHAKE) {
            rc_reply_resolve(&link->resp.reply);
            read_greeting(link, &link->resp.reply);
            rc_reply_clear(&link->resp.reply);
        } else if (link->state == RC_LINK_READY && !rc_list_is_empty(&link->in_flight)) {
            read_answer(link);
        } else {
            error = RC_ERR_PROTOCOL; /* an answer nobody asked for */
        }
    }
    if (!link->resp.in_push) /* a piece of an answer. A push does not prove that we are heard */
        link->received_us = link->context->now_us;
    if (error != 0)
        refuse_stream(link);
}

void rc_link_sent(struct rc_link *link, size_t len)
{
    assert(len <= rc_buf_len(&link->output));
    rc_bundle_close(&link->bundle);
    rc_buf_consume(&link->output, len);
    rc_buf_trim(&link->output, KEEP_BYTES);
    link->output_sent += len;
    link->context->stats.bytes_out += len;
}
