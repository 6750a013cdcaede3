#include "engine/owed.h"

#include <string.h>

#include "engine/breaker.h"
#include "engine/command.h"

enum { BATCH_BYTES = 16 * 1024, PAUSE_US = 100 * 1000 };

/* The user has no right to delete, or the command has another name there: waiting does not help. */
static bool is_refused_for_good(const rc_node *node)
{
    return rc_reply_is_error(node, "NOPERM") || rc_reply_is_error(node, "ERR");
}

static uint32_t count_of(const struct rc_req *req)
{
    const char *bytes = rc_buf_head(&req->bytes);
    struct rc_command_reader reader = {bytes, bytes + rc_buf_len(&req->bytes)};
    struct rc_command command;
    return rc_command_next(&reader, &command) ? command.count - 1 : 0;
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_link *link = req->owner;
    const rc_node *node = status == 0 ? &reply->nodes[0] : NULL;
    (void)text;
    link->owed_in_flight--;
    if (node == NULL || (node->type != ':' && !is_refused_for_good(node))) {
        link->is_owed_refused = true; /* it, and what was sent behind it */
        link->owed_again_us = link->context->now_us + PAUSE_US;
        return;
    }
    if (node->type != ':')
        link->context->stats.deletes_lost += count_of(req);
    if (!link->is_owed_refused)
        rc_near_pay(link->owes, (uint64_t)(uintptr_t)req->detail);
}

static uint32_t count_keys(const char *keys, size_t len)
{
    uint32_t count = 0, key_len;
    for (size_t at = 0; at < len; at += sizeof key_len + key_len, count++)
        memcpy(&key_len, keys + at, sizeof key_len);
    return count;
}

static int encode(struct rc_buf *bytes, const char *keys, size_t len)
{
    uint32_t key_len;
    int error = rc_command_head(bytes, count_keys(keys, len) + 1);
    error |= rc_command_text(bytes, "UNLINK");
    for (size_t at = 0; at < len && error == 0; at += sizeof key_len + key_len) {
        memcpy(&key_len, keys + at, sizeof key_len);
        error = rc_command_bytes(bytes, keys + at + sizeof key_len, key_len);
    }
    return error;
}

/* False: no memory. */
static bool send(struct rc_link *link, const char *keys, size_t len, uint64_t to)
{
    struct rc_context *context = link->context;
    struct rc_req *req = rc_req_take(context);
    if (req == NULL || encode(&req->bytes, keys, len) != 0) {
        if (req != NULL)
            rc_req_give(req);
        return false;
    }
    req->expect = 1;
    req->done = on_answer;
    req->owner = link;
    req->detail = (void *)(uintptr_t)to;
    link->owed_in_flight++;
    rc_link_send(link, req, rc_context_after_ms(context, context->options.command_timeout_ms));
    return true;
}

/* Answers come in the order of what was sent, so that each pays for all before it. */
static void send_all(struct rc_link *link)
{
    char keys[BATCH_BYTES];
    uint64_t at = link->owed_at;
    for (;;) {
        size_t len = rc_near_read_owed(link->owes, &at, keys, sizeof keys);
        if (len > 0 && !send(link, keys, len, at))
            return; /* the next request tries again */
        link->owed_at = at;
        if (len == 0)
            return;
    }
}

/* What was refused is sent again, and what was sent behind it with it. */
static bool may_send(struct rc_link *link)
{
    if (link->is_owing || !rc_link_is_ready(link) || link->context->closing ||
        (link->breaker != NULL && rc_breaker_is_shut(link->breaker)) ||
        link->identity.role == RC_SERVER_REPLICA)
        return false;
    if (!link->is_owed_refused)
        return true;
    if (link->owed_in_flight > 0 || link->context->now_us < link->owed_again_us)
        return false;
    link->is_owed_refused = false;
    link->owed_at = UINT64_MAX;
    return true;
}

void rc_owed_send(struct rc_link *link)
{
    if (link->owes == NULL || !may_send(link))
        return;
    if (link->identity.mode == RC_SERVER_CLUSTER) { /* it is owed nothing */
        link->owed_at = atomic_load_explicit(link->owed_end, memory_order_relaxed);
        return;
    }
    link->is_owing = true; /* these requests have none before them */
    send_all(link);
    link->is_owing = false;
}

void rc_owed_init(struct rc_link *link, struct rc_near *near)
{
    link->owes = near;
    link->owed_end = near != NULL ? rc_near_owed(near) : NULL;
    link->on_owed = rc_owed_send;
}
