#include "engine/identity.h"

#include <string.h>

#include "base/hash.h"
#include "engine/command.h"

static void read_role(struct rc_identity *identity, const rc_node *role)
{
    if (rc_reply_is_text(role, "master"))
        identity->role = RC_SERVER_MASTER;
    else if (rc_reply_is_text(role, "replica") || rc_reply_is_text(role, "slave"))
        identity->role = RC_SERVER_REPLICA;
}

static void read_mode(struct rc_identity *identity, const rc_node *mode)
{
    if (rc_reply_is_text(mode, "sentinel"))
        identity->mode = RC_SERVER_SENTINEL;
    else if (rc_reply_is_text(mode, "cluster"))
        identity->mode = RC_SERVER_CLUSTER;
}

const char *rc_identity_mode_name(enum rc_server_mode mode)
{
    static const char *const NAMES[] = {"standalone", "sentinel", "cluster"};
    return NAMES[mode];
}

void rc_identity_read_hello(struct rc_identity *identity, const struct rc_reply *reply, size_t at)
{
    uint32_t end = rc_reply_skip(reply, (uint32_t)at);
    uint32_t i = (uint32_t)at + 1;
    while (i < end) {
        const rc_node *key = &reply->nodes[i];
        uint32_t value = rc_reply_skip(reply, i);
        if (value >= end)
            return;
        if (rc_reply_is_text(key, "role"))
            read_role(identity, &reply->nodes[value]);
        else if (rc_reply_is_text(key, "mode"))
            read_mode(identity, &reply->nodes[value]);
        i = rc_reply_skip(reply, value);
    }
}

static bool is_hex(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return true;
}

/* Forty zeros are Redis' way to say that there is none, and a proxy's to say nothing. */
static void read_id(char id[RC_SERVER_ID_SIZE], const char *text, size_t len)
{
    id[0] = '\0';
    if (len != RC_SERVER_ID_SIZE - 1 || !is_hex(text, len) || strspn(text, "0") >= len)
        return;
    memcpy(id, text, len);
    id[len] = '\0';
}

/* The value of "name:value" in that line, or NULL. */
static const char *value_in(const char *line, size_t len, const char *name, size_t *value_len)
{
    size_t name_len = strlen(name);
    if (len <= name_len || memcmp(line, name, name_len) != 0 || line[name_len] != ':')
        return NULL;
    *value_len = len - name_len - 1;
    return line + name_len + 1;
}

static void read_line(struct rc_identity *identity, const char *line, size_t len)
{
    const char *value;
    size_t value_len;
    if ((value = value_in(line, len, "run_id", &value_len)) != NULL) {
        read_id(identity->run_id, value, value_len);
    } else if ((value = value_in(line, len, "master_replid", &value_len)) != NULL) {
        read_id(identity->history, value, value_len);
    } else if ((value = value_in(line, len, "master_replid2", &value_len)) != NULL) {
        read_id(identity->earlier, value, value_len);
    } else if ((value = value_in(line, len, "master_link_status", &value_len)) != NULL) {
        identity->is_cut_off = value_len != 2 || memcmp(value, "up", 2) != 0;
    } else if ((value = value_in(line, len, "role", &value_len)) != NULL) {
        rc_node role = {.type = '$', .str = value, .len = value_len};
        read_role(identity, &role);
    }
}

void rc_identity_read_info(struct rc_identity *identity, const char *text, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t whole = newline != NULL ? (size_t)(newline + 1 - text) : len;
        size_t line_len = newline != NULL ? whole - 1 : len;
        if (line_len > 0 && text[line_len - 1] == '\r')
            line_len--;
        read_line(identity, text, line_len);
        text += whole;
        len -= whole;
    }
}

static bool is_known(const char id[RC_SERVER_ID_SIZE])
{
    return id[0] != '\0';
}

static bool differ(const char a[RC_SERVER_ID_SIZE], const char b[RC_SERVER_ID_SIZE])
{
    return is_known(a) && is_known(b) && strcmp(a, b) != 0;
}

bool rc_identity_differs(const struct rc_identity *a, const struct rc_identity *b)
{
    if (is_known(a->run_id) && is_known(b->run_id))
        return strcmp(a->run_id, b->run_id) != 0; /* its role may have changed in between */
    return a->role != RC_SERVER_UNKNOWN && b->role != RC_SERVER_UNKNOWN && a->role != b->role;
}

static uint64_t short_of(const char id[RC_SERVER_ID_SIZE])
{
    static const struct rc_seed NO_SEED;
    return is_known(id) ? rc_siphash(&NO_SEED, id, strlen(id)) : 0;
}

struct rc_identity_mark rc_identity_mark(const struct rc_identity *identity)
{
    return (struct rc_identity_mark){short_of(identity->run_id), short_of(identity->history)};
}

static bool marks_differ(uint64_t a, uint64_t b)
{
    return a != 0 && b != 0 && a != b;
}

/* A master begins a new history of its own accord, too: with its first replica, and an hour after
   the last one left (repl-backlog-ttl). Then it goes on with no earlier one, and has all its
   data. */
static bool may_have_other_data(const struct rc_identity *now)
{
    return now->role != RC_SERVER_MASTER || is_known(now->earlier);
}

bool rc_identity_is_loss(const struct rc_identity_mark *before, const struct rc_identity *now)
{
    struct rc_identity_mark mark = rc_identity_mark(now);
    return marks_differ(before->run, mark.run) ||
           (marks_differ(before->history, mark.history) && may_have_other_data(now));
}

bool rc_identity_is_heir(const struct rc_identity_mark *before, const struct rc_identity *now)
{
    return before->history != 0 &&
           (short_of(now->history) == before->history || short_of(now->earlier) == before->history);
}

const char *rc_identity_change(const struct rc_identity *before, const struct rc_identity *now)
{
    if (differ(before->run_id, now->run_id))
        return "another server answers on this connection";
    if (before->role == RC_SERVER_MASTER && now->role == RC_SERVER_REPLICA)
        return "the server has become a replica";
    if (before->role == RC_SERVER_REPLICA && now->role == RC_SERVER_MASTER)
        return "the server has become a master";
    bool has_other_data = differ(before->history, now->history) && may_have_other_data(now);
    return has_other_data ? "the server has taken over other data" : NULL;
}

int rc_identity_ask(struct rc_buf *out, const struct rc_identity *known)
{
    if (!is_known(known->run_id)) {
        int error = rc_command_head(out, 1);
        return error == 0 ? rc_command_text(out, "HELLO") : error;
    }
    int error = rc_command_head(out, 2);
    error |= rc_command_text(out, "INFO");
    error |= rc_command_text(out, "replication");
    return error;
}

void rc_identity_read(struct rc_identity *identity, const struct rc_reply *reply, size_t at)
{
    if (at >= reply->count)
        return;
    const rc_node *first = &reply->nodes[at];
    if (first->type == '%')
        rc_identity_read_hello(identity, reply, at);
    else if ((first->type == '$' || first->type == '=') && first->str != NULL)
        rc_identity_read_info(identity, first->str, first->len);
}
