#include "engine/link.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/script.h"

enum {
    BACKOFF_MIN_MS = 20,
    BACKOFF_MAX_MS = 500,   /* a server that is back is found within this */
    STALL_MIN_MS = 1000,    /* a busy server may well be silent for some hundred milliseconds */
    MAX_ELEMENTS = 1 << 20, /* of one answer */
    MAX_HELD = 64 * 1024 * 1024, /* bytes of all requests without an answer */
    KEEP_BYTES = 1024 * 1024,    /* room the empty output keeps */
    ANSWER_SLACK = 64 * 1024 *
                   1024 /* answers over max_value_bytes that are still read, to refuse them alone */
};

enum handshake_step { STEP_HELLO, STEP_SELECT, STEP_TRACKING, STEP_PING };

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

static void send_undo(struct rc_link *link, struct rc_req *req)
{
    struct rc_context *context = link->context;
    rc_link_send(link, req, rc_context_after_ms(context, req->patience_ms));
}

/* Ends a request. Its owner may start new ones from `done`. */
static void complete(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    void (*done)(struct rc_req *, int, struct rc_reply *, const char *) = req->done;
    rc_list_remove(&req->place);
    req->link->request_count--;
    req->link->held_bytes -= req->held_bytes;
    req->context->stats.in_flight--;
    rc_context_clear_timer(req->context, &req->timer);
    if (done != NULL)
        done(req, status, reply, text);
    struct rc_req *undo = req->undo;
    rc_req_give(req);
    if (undo != NULL)
        send_undo(undo->link, undo);
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

static void on_request_timer(void *context, struct rc_timer *timer)
{
    struct rc_req *req = RC_CONTAINER(timer, struct rc_req, timer);
    struct rc_link *link = req->link;
    (void)context;
    int status = req->error != 0 ? req->error : RC_ERR_TIMEOUT;
    if (status == RC_ERR_TIMEOUT && !req->sent && !rc_link_is_ready(link))
        status = link->refused ? RC_ERR_REDIS : RC_ERR_UNAVAILABLE;
    const char *text = status == RC_ERR_UNAVAILABLE || status == RC_ERR_REDIS ? link->cause : NULL;
    if (req->sent)
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

static void write_request(struct rc_link *link, struct rc_req *req)
{
    size_t len = rc_buf_len(&req->bytes);
    if (rc_buf_append(&link->output, rc_buf_head(&req->bytes), len) != 0) {
        req->sent = false; /* even if it was once: it is in no line of answers any more */
        rc_list_append(&link->queue, &req->place);
        fail_soon(req, RC_ERR_NOMEM);
        return;
    }
    rc_list_append(&link->in_flight, &req->place);
    req->sent = true;
    req->sent_us = link->sent_us = link->context->now_us;
    req->output_start = link->output_queued;
    link->output_queued += len;
    link->context->stats.requests += req->expect;
    if (!rc_timer_is_set(&link->timer))
        rc_context_set_timer(link->context, &link->timer, link->context->now_us + stall_us(link));
}

void rc_link_want(struct rc_link *link)
{
    if (link->state != RC_LINK_IDLE || link->ended)
        return;
    link->state = RC_LINK_OPENING;
    link->wants_open = true;
    link->down_since_us = link->context->now_us;
    rc_context_set_timer(
        link->context, &link->timer,
        rc_context_after_ms(link->context, link->context->options.connect_timeout_ms));
}

void rc_link_send(struct rc_link *link, struct rc_req *req, int64_t deadline_us)
{
    struct rc_context *context = link->context;
    bool full = link->request_count >= (uint32_t)context->options.max_queue ||
                (link->held_bytes > 0 && link->held_bytes + rc_buf_len(&req->bytes) > MAX_HELD);
    req->link = link;
    req->held_bytes = rc_buf_len(&req->bytes);
    link->held_bytes += req->held_bytes;
    req->timer.fire = on_request_timer;
    link->request_count++;
    context->stats.in_flight++;
    rc_context_set_timer(context, &req->timer, deadline_us);
    rc_link_want(link);
    if (rc_link_is_ready(link) && !full) {
        write_request(link, req);
        return;
    }
    rc_list_append(&link->queue, &req->place);
    if (full)
        fail_soon(req, RC_ERR_OVERLOAD);
    else if (link->state == RC_LINK_IDLE)
        fail_soon(req, RC_ERR_CLOSED);
    else if (link->refused)
        fail_soon(req, RC_ERR_REDIS);
    else if (link->attempts > 0 &&
             context->now_us - link->down_since_us > deadline_us - context->now_us)
        fail_soon(req, RC_ERR_UNAVAILABLE); /* away for longer than this caller would wait */
}

void rc_link_send_after(struct rc_link *link, struct rc_req *req, struct rc_req *earlier)
{
    bool is_given_up = earlier->sent && earlier->done == NULL;
    req->link = link;
    if (is_given_up)
        earlier->undo = req;
    else
        send_undo(link, req);
}

void rc_link_forget(struct rc_req *req)
{
    req->done = NULL;
    req->owner = NULL;
    req->may_retry = false;
    if (!req->sent)
        complete(req, 0, NULL, NULL);
    else
        rc_context_clear_timer(req->context, &req->timer);
}

/* One without `done` that may be repeated is sent for its effect alone: it gives a lease back,
   whoever hears of it. What was forgotten or timed out is neither. */
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
        if (is_wanted(req) && (req->may_retry || untouched)) {
            rc_list_remove(&req->place);
            rc_list_append(&again, &req->place);
            req->sent = false;
            link->context->stats.retries++;
        } else {
            complete(req, RC_ERR_UNKNOWN, NULL, NULL);
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
    bool was_ready = link->state == RC_LINK_READY;
    bool had_socket = link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
    if (!had_socket)
        return;
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
    requeue(link);
    rc_buf_clear(&link->output);
    link->output_queued = link->output_sent = 0;
    link->answers = 0;
    if (was_ready)
        link->on_down(link);
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

void rc_link_lost(struct rc_link *link, const char *cause)
{
    link->wants_close = false;
    go_down(link, cause);
    link->wants_close = false;
}

void rc_link_rest(struct rc_link *link)
{
    bool was_ready = link->state == RC_LINK_READY;
    bool had_socket = link->state != RC_LINK_IDLE && link->state != RC_LINK_BACKOFF;
    assert(link->request_count == 0);
    rc_context_clear_timer(link->context, &link->timer);
    link->state = RC_LINK_IDLE;
    link->wants_open = false;
    link->wants_close |= had_socket;
    link->tracking = false;
    link->attempts = 0;
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
    bool still_waited_for = rc_timer_is_set(&oldest->timer);
    if (context->now_us - quiet_since >= stall_us(link) && !still_waited_for) {
        go_down(link, "the server does not answer");
        return;
    }
    int64_t again = quiet_since + stall_us(link);
    if (still_waited_for && again < oldest->timer.at_us)
        again = oldest->timer.at_us;
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
    case RC_LINK_OPENING:
    case RC_LINK_HANDSHAKE: go_down(link, "connecting timed out"); break;
    case RC_LINK_READY: check_stall(link); break;
    case RC_LINK_BACKOFF:
        link->state = RC_LINK_OPENING;
        link->wants_open = true;
        rc_context_set_timer(
            link->context, &link->timer,
            rc_context_after_ms(link->context, link->context->options.connect_timeout_ms));
        break;
    }
}

static int write_handshake(struct rc_link *link)
{
    const struct rc_address *address = link->address;
    struct rc_buf *out = &link->output;
    int error = rc_command_head(out, address->has_password ? 7 : 4);
    error |= rc_command_text(out, "HELLO");
    error |= rc_command_text(out, "3");
    if (address->has_password) {
        error |= rc_command_text(out, "AUTH");
        error |= address->has_user ? rc_command_bytes(out, address->user, address->user_len)
                                   : rc_command_text(out, "default");
        error |= rc_command_bytes(out, address->password, address->password_len);
    }
    error |= rc_command_text(out, "SETNAME");
    error |= rc_command_text(out, link->role == RC_LINK_T ? "redcache-T" : "redcache-W");
    link->handshake[link->handshake_count++] = STEP_HELLO;
    /* Database 0, too: what moves our bytes may have been somebody else's connection before. */
    error |= rc_command_head(out, 2);
    error |= rc_command_text(out, "SELECT");
    error |= rc_command_int(out, address->db);
    link->handshake[link->handshake_count++] = STEP_SELECT;
    if (link->role == RC_LINK_T) {
        error |= rc_command_head(out, RC_MUTANT(NOLOOP) ? 4 : 3);
        error |= rc_command_text(out, "CLIENT");
        error |= rc_command_text(out, "TRACKING");
        error |= rc_command_text(out, "ON");
        if (RC_MUTANT(NOLOOP))
            error |= rc_command_text(out, "NOLOOP");
        link->handshake[link->handshake_count++] = STEP_TRACKING;
    }
    error |= rc_command_head(out, 1);
    error |= rc_command_text(out, "PING");
    link->handshake[link->handshake_count++] = STEP_PING;
    return error;
}

void rc_link_opened(struct rc_link *link)
{
    if (link->state != RC_LINK_OPENING)
        return;
    link->state = RC_LINK_HANDSHAKE;
    link->handshake_at = link->handshake_count = 0;
    link->output_queued = link->output_sent = 0;
    link->answers = 0;
    rc_buf_clear(&link->output);
    if (rc_resp_reset(&link->resp) != 0 || write_handshake(link) != 0)
        go_down(link, "no memory");
    else
        link->output_queued = rc_buf_len(&link->output);
}

static void remember_server(struct rc_link *link, const struct rc_reply *reply)
{
    const rc_node *name = NULL, *version = NULL;
    for (uint32_t i = 1; i + 1 < reply->count; i++) {
        const rc_node *key = &reply->nodes[i];
        if (key->type != '$')
            continue;
        if (key->len == 6 && memcmp(key->str, "server", 6) == 0 && name == NULL)
            name = key + 1;
        if (key->len == 7 && memcmp(key->str, "version", 7) == 0 && version == NULL)
            version = key + 1;
    }
    if (name != NULL && version != NULL && name->type == '$' && version->type == '$')
        snprintf(link->server, sizeof link->server, "%.*s %.*s",
                 (int)(name->len < 30 ? name->len : 30), name->str,
                 (int)(version->len < 30 ? version->len : 30), version->str);
}

/* Before 7.0.5 a push may stand in the middle of another answer (redis/redis#8935). */
static bool has_trusted_tracking(const struct rc_link *link)
{
    unsigned major = 0, minor = 0, patch = 0;
    const char *version = strrchr(link->server, ' ');
    if (version == NULL || sscanf(version, " %u.%u.%u", &major, &minor, &patch) < 3)
        return true;
    return major > 7 || (major == 7 && (minor > 0 || patch >= 5));
}

static void become_ready(struct rc_link *link)
{
    link->state = RC_LINK_READY;
    link->attempts = 0;
    link->refused = false;
    link->down_since_us = 0;
    link->context->stats.connects++;
    rc_context_clear_timer(link->context, &link->timer);
    if (link->role != RC_LINK_T || link->tracking)
        link->cause[0] = '\0';
    RC_LIST_EACH(place, following, &link->queue) {
        struct rc_req *req = RC_CONTAINER(place, struct rc_req, place);
        if (req->error != 0)
            continue; /* already failed: its timer takes it out */
        rc_list_remove(place);
        write_request(link, req);
    }
    link->on_ready(link);
}

static bool is_error(const rc_node *node, const char *prefix)
{
    size_t len = strlen(prefix);
    return node->type == '-' && node->len >= len && memcmp(node->str, prefix, len) == 0;
}

/* We are not let in: nobody needs to wait for the next attempt to learn it. */
static void refuse_queue(struct rc_link *link)
{
    RC_LIST_EACH(place, following, &link->queue) {
        fail_soon(RC_CONTAINER(place, struct rc_req, place), RC_ERR_REDIS);
    }
}

static bool is_text(const rc_node *node, const char *text)
{
    return node->type == '+' && node->len == strlen(text) &&
           memcmp(node->str, text, node->len) == 0;
}

/* Whether an answer that is no error has the form that this step's answer has. On a connection that
   stands in MULTI each would be QUEUED; what answers HELLO by no map does not speak RESP3. */
static bool has_right_form(enum handshake_step step, const rc_node *first)
{
    switch (step) {
    case STEP_HELLO: return first->type == '%';
    case STEP_PING: return is_text(first, "PONG");
    case STEP_SELECT:
    case STEP_TRACKING: return is_text(first, "OK");
    }
    return false;
}

/* Errors that the connection can live with. MISCONF: the server cannot save and so refuses writes,
   and PING; reads go on. NOPERM: a user who may not choose a database stays in the first one. */
static bool is_harmless(const struct rc_link *link, enum handshake_step step, const rc_node *first)
{
    return (step == STEP_PING && is_error(first, "MISCONF")) ||
           (step == STEP_SELECT && link->address->db == 0 && is_error(first, "NOPERM"));
}

static void read_handshake(struct rc_link *link, const struct rc_reply *reply)
{
    static const char *const names[] = {"HELLO", "SELECT", "CLIENT TRACKING", "PING"};
    const rc_node *first = &reply->nodes[0];
    enum handshake_step step = link->handshake[link->handshake_at++];
    if (first->type != '-' && !has_right_form(step, first)) {
        char cause[RC_TEXT_SIZE];
        snprintf(cause, sizeof cause, "the answer to %s is not the one of Redis", names[step]);
        go_down(link, cause);
        return;
    }
    if (step == STEP_TRACKING) {
        link->tracking = first->type != '-';
        if (!link->tracking) /* waiters then look from time to time */
            rc_node_text(first, link->cause);
        else if (!has_trusted_tracking(link)) {
            link->tracking = false;
            snprintf(link->cause, sizeof link->cause, "client tracking needs Redis 7.0.5 or newer");
        }
        return;
    }
    if (first->type == '-' && !is_harmless(link, step, first)) {
        rc_node_text(first, link->cause);
        link->refused = is_error(first, "NOAUTH") || is_error(first, "WRONGPASS") ||
                        is_error(first, "NOPERM") ||
                        (step == STEP_SELECT && is_error(first, "ERR"));
        go_down(link, link->cause);
        if (link->refused)
            refuse_queue(link);
        return;
    }
    if (step == STEP_HELLO)
        remember_server(link, reply);
    if (step == STEP_PING)
        become_ready(link);
}

/* Redis has forgotten the script: it was not run, so it is sent again, with its source. */
static bool resend_with_source(struct rc_link *link, struct rc_req *req, const rc_node *first)
{
    struct rc_buf full;
    if (req->script < 0 || req->with_source || !is_wanted(req) || !is_error(first, "NOSCRIPT"))
        return false;
    rc_buf_init(&full);
    if (rc_script_with_source(&full, (enum rc_script)req->script, rc_buf_head(&req->bytes),
                              rc_buf_len(&req->bytes)) != 0) {
        rc_buf_deinit(&full);
        return false;
    }
    rc_buf_swap(&full, &req->bytes);
    rc_buf_deinit(&full);
    req->with_source = true;
    link->context->stats.noscript++;
    rc_list_remove(&req->place);
    write_request(link, req);
    return true;
}

static void read_answer(struct rc_link *link)
{
    struct rc_reply *reply = &link->resp.reply;
    struct rc_req *req = RC_CONTAINER(link->in_flight.next, struct rc_req, place);
    if (++link->answers < req->expect)
        return;
    link->answers = 0;
    rc_reply_resolve(reply);
    if (resend_with_source(link, req, &reply->nodes[0])) {
        rc_reply_clear(reply);
        return;
    }
    if (link->on_answered != NULL)
        link->on_answered(link, req->sent_us);
    const rc_node *first = &reply->nodes[0];
    if (is_error(first, "LOADING") && req->done != NULL) {
        rc_node_text(first, link->cause);
        complete(req, RC_ERR_UNAVAILABLE, NULL, link->cause);
    } else {
        complete(req, 0, reply, NULL);
    }
    rc_reply_clear(reply);
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
    int error = rc_resp_feed(&link->resp, bytes, len);
    while (error == 0 && (link->state == RC_LINK_HANDSHAKE || link->state == RC_LINK_READY)) {
        error = rc_resp_next(&link->resp, &message);
        if (error != 0 || message == RC_MESSAGE_NONE)
            break;
        if (message == RC_MESSAGE_REPLY)
            link->received_us = link->context->now_us;
        if (message == RC_MESSAGE_PUSH) {
            link->context->stats.pushes++;
            link->on_push(link, &link->resp.push);
        } else if (link->state == RC_LINK_HANDSHAKE && link->handshake_at < link->handshake_count) {
            rc_reply_resolve(&link->resp.reply);
            read_handshake(link, &link->resp.reply);
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
    rc_buf_consume(&link->output, len);
    rc_buf_trim(&link->output, KEEP_BYTES);
    link->output_sent += len;
    link->context->stats.bytes_out += len;
}
