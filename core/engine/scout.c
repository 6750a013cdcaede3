#include "engine/scout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"

enum { ANSWER_MS = 1000 };

static struct rc_server_node *node_of(const struct rc_scout *scout)
{
    return rc_topology_node(scout->topology, RC_SLOT_ANY);
}

/* ---- what is told ---------------------------------------------------------------------------- */

/* Whether the text, words with commas, has that one. */
static bool has_word(const rc_node *node, const char *word)
{
    size_t len = strlen(word);
    for (size_t i = 0; node->str != NULL && i + len <= node->len; i++) {
        bool begins = i == 0 || node->str[i - 1] == ',';
        bool ends = i + len == node->len || node->str[i + len] == ',';
        if (begins && ends && memcmp(node->str + i, word, len) == 0)
            return true;
    }
    return false;
}

static uint16_t read_port(const rc_node *node)
{
    char digits[8] = "";
    if (node->str != NULL && node->len < sizeof digits)
        memcpy(digits, node->str, node->len);
    long port = node->type == ':' ? (long)node->integer : strtol(digits, NULL, 10);
    return port > 0 && port <= 65535 ? (uint16_t)port : 0;
}

static void tell(struct rc_scout *scout, const rc_node *host, uint16_t port)
{
    char text[256];
    if (host == NULL || host->str == NULL || host->len == 0 || host->len >= sizeof text ||
        port == 0 || memchr(host->str, '\0', host->len) != NULL)
        return;
    memcpy(text, host->str, host->len);
    text[host->len] = '\0';
    rc_replicas_tell(scout->replicas, node_of(scout), text, port);
}

/* ["master", offset, [[host, port, offset], ...]]; of a replica nothing that is of use. */
static void read_role(struct rc_scout *scout, const struct rc_reply *reply)
{
    const rc_node *nodes = reply->nodes;
    uint32_t list = 3; /* behind the array, its name and the offset */
    if (reply->count <= list || nodes[0].count < 3 || !rc_reply_is_text(&nodes[1], "master") ||
        nodes[list].type != '*')
        return;
    uint32_t at = list + 1;
    for (uint32_t i = 0; i < nodes[list].count && at + 2 < reply->count; i++) {
        if (nodes[at].type == '*' && nodes[at].count >= 2)
            tell(scout, &nodes[at + 1], read_port(&nodes[at + 2]));
        at = rc_reply_skip(reply, at);
    }
}

/* One replica, as a list or map of names and values, of which all are texts. */
static void read_described(struct rc_scout *scout, const struct rc_reply *reply, uint32_t at)
{
    uint32_t end = rc_reply_skip(reply, at);
    const rc_node *host = NULL;
    uint16_t port = 0;
    bool is_good = true;
    for (uint32_t i = at + 1; i + 1 < end; i += 2) {
        const rc_node *name = &reply->nodes[i], *value = name + 1;
        if (rc_reply_is_text(name, "ip"))
            host = value;
        else if (rc_reply_is_text(name, "port"))
            port = read_port(value);
        else if (rc_reply_is_text(name, "flags"))
            is_good &= !has_word(value, "s_down") && !has_word(value, "o_down") &&
                       !has_word(value, "disconnected");
        else if (rc_reply_is_text(name, "role-reported"))
            is_good &= rc_reply_is_text(value, "slave") || rc_reply_is_text(value, "replica");
        else if (rc_reply_is_text(name, "replica-announced"))
            is_good &= !rc_reply_is_text(value, "0");
    }
    if (is_good)
        tell(scout, host, port);
}

static void read_described_all(struct rc_scout *scout, const struct rc_reply *reply)
{
    uint32_t at = 1;
    for (uint32_t i = 0; i < reply->nodes[0].count && at < reply->count; i++) {
        if (reply->nodes[at].type == '*' || reply->nodes[at].type == '%')
            read_described(scout, reply, at);
        at = rc_reply_skip(reply, at);
    }
}

static void on_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_scout *scout = req->owner;
    (void)text;
    scout->req = NULL;
    if (status != 0 || node_of(scout)->is_in_cluster)
        return; /* it is asked again, or nobody needs it any more */
    const rc_node *first = &reply->nodes[0];
    scout->refusal[0] = '\0';
    if (first->type == '-')
        rc_node_text(first, scout->refusal);
    rc_replicas_begin(scout->replicas);
    if (first->type == '*' && scout->sentinel->count > 0)
        read_described_all(scout, reply);
    else if (first->type == '*')
        read_role(scout, reply);
    rc_replicas_end(scout->replicas);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static struct rc_req *make_question(const struct rc_scout *scout)
{
    bool has_sentinels = scout->sentinel->count > 0;
    struct rc_req *req = rc_req_take(scout->context);
    if (req == NULL)
        return NULL;
    int error = rc_command_head(&req->bytes, has_sentinels ? 3 : 1);
    error |= rc_command_text(&req->bytes, has_sentinels ? "SENTINEL" : "ROLE");
    if (has_sentinels) {
        error |= rc_command_text(&req->bytes, "REPLICAS");
        error |= rc_command_text(&req->bytes, node_of(scout)->address.master);
    }
    if (error == 0)
        return req;
    rc_req_give(req);
    return NULL;
}

/* Who can be asked now. NULL: nobody. */
static struct rc_link *find_witness(const struct rc_scout *scout)
{
    if (scout->sentinel->count > 0)
        return rc_sentinel_find_witness(scout->sentinel);
    struct rc_link *w = rc_node_link(node_of(scout), RC_LINK_W);
    return rc_link_is_ready(w) ? w : NULL;
}

void rc_scout_ask(struct rc_scout *scout)
{
    struct rc_link *witness = scout->req == NULL ? find_witness(scout) : NULL;
    struct rc_req *req = witness != NULL ? make_question(scout) : NULL;
    if (req == NULL)
        return;
    req->expect = 1;
    req->stays = true;
    req->done = on_answer;
    req->owner = scout;
    scout->req = req;
    rc_link_send(witness, req, rc_context_after_ms(scout->context, ANSWER_MS));
}

void rc_scout_get_health(const struct rc_scout *scout, rc_health *health)
{
    size_t len = strlen(health->off);
    if (scout->refusal[0] != '\0')
        snprintf(health->off + len, sizeof health->off - len, "replicas: %s\n", scout->refusal);
}

void rc_scout_init(struct rc_scout *scout, struct rc_context *context, struct rc_topology *topology,
                   struct rc_replicas *replicas, struct rc_sentinel *sentinel)
{
    *scout = (struct rc_scout){
        .context = context, .topology = topology, .replicas = replicas, .sentinel = sentinel};
}
