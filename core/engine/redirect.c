#include "engine/redirect.h"

#include <assert.h>
#include <string.h>

#include "base/slot.h"
#include "engine/command.h"

static bool begins(const rc_node *node, const char *word)
{
    size_t len = strlen(word);
    return node->len >= len && memcmp(node->str, word, len) == 0;
}

static enum rc_redirect_kind kind_of(const rc_node *node)
{
    if (node->type != '-' || node->len == 0)
        return RC_REDIRECT_NONE;
    switch (node->str[0]) {
    case 'M':
        return begins(node, "MOVED ")        ? RC_REDIRECT_MOVED
               : begins(node, "MASTERDOWN ") ? RC_REDIRECT_WAIT
                                             : RC_REDIRECT_NONE;
    case 'A': return begins(node, "ASK ") ? RC_REDIRECT_ASK : RC_REDIRECT_NONE;
    case 'T': return begins(node, "TRYAGAIN ") ? RC_REDIRECT_WAIT : RC_REDIRECT_NONE;
    case 'C': return begins(node, "CLUSTERDOWN ") ? RC_REDIRECT_WAIT : RC_REDIRECT_NONE;
    case 'L': return begins(node, "LOADING ") ? RC_REDIRECT_WAIT : RC_REDIRECT_NONE;
    default: return RC_REDIRECT_NONE;
    }
}

bool rc_redirect_is(const rc_node *node)
{
    return kind_of(node) != RC_REDIRECT_NONE;
}

/* Reads a number below `limit`; returns what stands behind it, NULL where there is none. */
static const char *read_number(const char *at, const char *end, uint32_t limit, uint32_t *number)
{
    const char *first = at;
    uint32_t value = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        value = 10 * value + (uint32_t)(*at - '0');
        if (value >= limit)
            return NULL;
    }
    *number = value;
    return at > first ? at : NULL;
}

/* "host:port" up to the end; the last colon counts, for an IPv6 address has more. */
static bool read_place(struct rc_redirect *redirect, const char *at, const char *end)
{
    const char *colon = end;
    uint32_t port = 0;
    while (colon > at && colon[-1] != ':')
        colon--;
    if (colon == at)
        return false;
    size_t host_len = (size_t)(colon - 1 - at);
    if (host_len >= sizeof redirect->host || read_number(colon, end, 65536, &port) != end ||
        port == 0)
        return false;
    if (host_len == 1 && *at == '?')
        host_len = 0;
    memcpy(redirect->host, at, host_len);
    redirect->host[host_len] = '\0';
    redirect->port = (uint16_t)port;
    return true;
}

void rc_redirect_read(struct rc_redirect *redirect, const rc_node *node)
{
    uint32_t slot = 0;
    redirect->kind = kind_of(node);
    redirect->slot = -1;
    redirect->port = 0;
    redirect->host[0] = '\0';
    if (redirect->kind != RC_REDIRECT_MOVED && redirect->kind != RC_REDIRECT_ASK)
        return;
    const char *end = node->str + node->len;
    const char *at = (const char *)memchr(node->str, ' ', node->len) + 1;
    at = read_number(at, end, RC_SLOT_COUNT, &slot);
    if (at == NULL || at == end || *at != ' ' || !read_place(redirect, at + 1, end)) {
        redirect->kind = RC_REDIRECT_NONE;
        return;
    }
    redirect->slot = (int32_t)slot;
}

int rc_redirect_ask(struct rc_buf *out, const char *bytes, size_t len)
{
    static const char ASKING[] = "*1\r\n$6\r\nASKING\r\n";
    struct rc_command_reader reader = {bytes, bytes + len};
    struct rc_command command;
    size_t before = rc_buf_len(out);
    int error = 0;
    while (error == 0 && reader.at < reader.end) {
        bool is_whole = rc_command_next(&reader, &command);
        assert(is_whole); /* we have encoded it */
        error = is_whole ? rc_buf_append(out, ASKING, sizeof ASKING - 1) : RC_ERR_ARGUMENT;
        if (error == 0)
            error = rc_buf_append(out, command.start, command.len);
    }
    if (error != 0)
        out->end = out->start + before; /* the half of a request must not go out */
    return error;
}

void rc_redirect_drop_asking(struct rc_reply *reply)
{
    uint32_t count = 0, at = 0;
    while (at < reply->count) {
        uint32_t from = at, to = rc_reply_skip(reply, at);
        at = rc_reply_skip(reply, to);
        if (reply->nodes[from].type != '-' || reply->nodes[to].type != '-') {
            from = to;
            to = at;
        }
        memmove(reply->nodes + count, reply->nodes + from, (to - from) * sizeof *reply->nodes);
        count += to - from;
    }
    reply->count = count;
}
