#include "engine/handshake.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"

/* ---- what is asked --------------------------------------------------------------------------- */

/* Ends a transaction, forgets the watched keys, the database and the user, and speaks RESP2. */
static int write_reset(const struct rc_link *link, struct rc_buf *out)
{
    (void)link;
    int error = rc_command_head(out, 1);
    return error | rc_command_text(out, "RESET");
}

int rc_handshake_write_auth(const struct rc_link *link, struct rc_buf *out)
{
    const struct rc_login *login = link->context->login;
    const struct rc_address *address = link->address;
    bool is_given = rc_handshake_login(link) > 0;
    const char *user = is_given ? rc_buf_head(&login->user) : address->user;
    size_t user_len = is_given ? rc_buf_len(&login->user) : address->user_len;
    int error = rc_command_text(out, "AUTH");
    error |= user_len > 0 ? rc_command_bytes(out, user, user_len) : rc_command_text(out, "default");
    return error | (is_given ? rc_command_bytes(out, rc_buf_head(&login->password),
                                                rc_buf_len(&login->password))
                             : rc_command_bytes(out, address->password, address->password_len));
}

static int write_hello(const struct rc_link *link, struct rc_buf *out)
{
    bool names_user = rc_handshake_login(link) > 0 || link->address->has_password;
    int error = rc_command_head(out, names_user ? 7 : 4);
    error |= rc_command_text(out, "HELLO");
    error |= rc_command_text(out, "3");
    if (names_user)
        error |= rc_handshake_write_auth(link, out);
    error |= rc_command_text(out, "SETNAME");
    return error | rc_command_pair(out, "redcache-", 9, rc_handshake_role_name(link->role), 1);
}

/* Database 0, too: what moves our bytes may have been somebody else's connection before. */
static int write_select(const struct rc_link *link, struct rc_buf *out)
{
    int error = rc_command_head(out, 2);
    error |= rc_command_text(out, "SELECT");
    return error | rc_command_int(out, link->address->db);
}

static int write_tracking(const struct rc_link *link, struct rc_buf *out)
{
    (void)link;
    int error = rc_command_head(out, RC_MUTANT(NOLOOP) ? 4 : 3);
    error |= rc_command_text(out, "CLIENT");
    error |= rc_command_text(out, "TRACKING");
    error |= rc_command_text(out, "ON");
    return RC_MUTANT(NOLOOP) ? error | rc_command_text(out, "NOLOOP") : error;
}

static int write_readonly(const struct rc_link *link, struct rc_buf *out)
{
    (void)link;
    int error = rc_command_head(out, 1);
    return error | rc_command_text(out, "READONLY");
}

static int write_info(const struct rc_link *link, struct rc_buf *out)
{
    (void)link;
    int error = rc_command_head(out, 3);
    error |= rc_command_text(out, "INFO");
    error |= rc_command_text(out, "server");
    return error | rc_command_text(out, "replication");
}

static int write_ping(const struct rc_link *link, struct rc_buf *out)
{
    (void)link;
    int error = rc_command_head(out, 1);
    return error | rc_command_text(out, "PING");
}

/* ---- what is answered ------------------------------------------------------------------------ */

static enum rc_greeting refuse(struct rc_link *link, const char *cause)
{
    snprintf(link->cause, sizeof link->cause, "%s", cause);
    return RC_GREETING_REFUSED;
}

/* The server's words tell a user of a cluster that SELECT is wrong, not that the url is. */
static void explain_database(struct rc_link *link, const rc_node *error)
{
    char text[RC_TEXT_SIZE];
    snprintf(link->cause, sizeof link->cause,
             "the cluster has no database %d: %.100s (it has 0 alone, or on Valkey 9 and newer as "
             "many as its cluster-databases says)",
             link->address->db, rc_node_text(error, text));
}

/* What a server's error means for the connection, where that cannot live with it. */
static enum rc_greeting read_error(struct rc_link *link, enum rc_link_step step,
                                   const rc_node *error)
{
    rc_node_text(error, link->cause);
    if (step == RC_STEP_SELECT)
        rc_server_read_answer(&link->server, RC_SERVER_SELECTS, error);
    if (step == RC_STEP_SELECT && link->identity.mode == RC_SERVER_CLUSTER &&
        rc_reply_is_error(error, "ERR"))
        explain_database(link, error);
    link->turned_away = rc_reply_is_error(error, "ERR max number of clients");
    if (link->turned_away)
        return RC_GREETING_TURNED_AWAY;
    if (step == RC_STEP_RESET) /* who may not do that is let in all the same */
        return RC_GREETING_FAILED;
    if (step == RC_STEP_HELLO &&
        (rc_reply_is_error(error, "NOPROTO") || rc_reply_is_error(error, "ERR unknown command"))) {
        return refuse(link, "this server does not know HELLO 3: Redis 7.0 or newer is needed");
    }
    if (rc_reply_is_error(error, "WRONGPASS") && rc_handshake_has_login(link) &&
        link->context->login->asks)
        return RC_GREETING_LOGIN_REFUSED; /* newer credentials may come while callers wait */
    bool is_refused = rc_reply_is_error(error, "NOAUTH") || rc_reply_is_error(error, "WRONGPASS") ||
                      rc_reply_is_error(error, "NOPERM") ||
                      (step == RC_STEP_SELECT && rc_reply_is_error(error, "ERR"));
    return is_refused ? RC_GREETING_REFUSED : RC_GREETING_FAILED;
}

static enum rc_greeting read_hello(struct rc_link *link, const struct rc_reply *reply)
{
    char label[RC_SERVER_LABEL];
    memset(&link->identity, 0, sizeof link->identity);
    rc_server_read_hello(&link->server, reply);
    rc_identity_read(&link->identity, reply, 0);
    bool is_sentinel = link->identity.mode == RC_SERVER_SENTINEL;
    const char *lack = rc_server_lacks(&link->server, RC_SERVER_SERVES);
    if (link->role == RC_LINK_S && !is_sentinel)
        return refuse(link, "this is no sentinel: redis+sentinel:// names the sentinels, and "
                            "behind '/' the master");
    if (link->role != RC_LINK_S && is_sentinel)
        return refuse(link, "this is a sentinel, which keeps no data: use the address of a "
                            "server, or redis+sentinel://host:port/master");
    if (link->address->node_count > 0 && link->identity.mode != RC_SERVER_CLUSTER)
        return refuse(link,
                      "this is no node of a cluster, as all addresses of a list must be: name "
                      "one server alone, or its sentinels by "
                      "redis+sentinel://host:port/master");
    if (link->role == RC_LINK_S || lack == NULL)
        return RC_GREETING_GOES_ON;
    rc_server_label(&link->server, label, sizeof label);
    snprintf(link->cause, sizeof link->cause, "%s is too old: %s", label, lack);
    return RC_GREETING_REFUSED;
}

static enum rc_greeting read_select(struct rc_link *link, const struct rc_reply *reply)
{
    rc_server_read_answer(&link->server, RC_SERVER_SELECTS, &reply->nodes[0]);
    return RC_GREETING_GOES_ON;
}

/* Without tracking, waiters look from time to time. */
static enum rc_greeting read_tracking(struct rc_link *link, const struct rc_reply *reply)
{
    rc_server_read_answer(&link->server, RC_SERVER_TRACKS, &reply->nodes[0]);
    const char *lack = rc_server_lacks(&link->server, RC_SERVER_TRACKS);
    link->tracking = lack == NULL;
    if (lack != NULL)
        snprintf(link->cause, sizeof link->cause, "%s", lack);
    return RC_GREETING_GOES_ON;
}

void rc_handshake_judge_writes(struct rc_link *link, const rc_node *ping)
{
    bool was_read_only = link->is_read_only;
    bool is_well = link->role != RC_LINK_T || link->tracking;
    link->is_read_only = true;
    if (link->role == RC_LINK_R)
        link->is_read_only = false; /* it carries no writes */
    else if (rc_reply_is_error(ping, "MISCONF"))
        rc_node_text(ping, link->cause);
    else if (link->identity.role == RC_SERVER_REPLICA)
        snprintf(link->cause, sizeof link->cause,
                 "the server is a replica: reads are answered, writes refused");
    else
        link->is_read_only = false;
    if (was_read_only && !link->is_read_only && is_well)
        link->cause[0] = '\0';
}

static enum rc_greeting read_ping(struct rc_link *link, const struct rc_reply *reply)
{
    rc_handshake_judge_writes(link, &reply->nodes[0]);
    return RC_GREETING_DONE;
}

static bool is_text(const rc_node *node, const char *text)
{
    return node->type == '+' && node->len == strlen(text) &&
           memcmp(node->str, text, node->len) == 0;
}

static bool is_map(const rc_node *node)
{
    return node->type == '%';
}

static bool is_ok(const rc_node *node)
{
    return is_text(node, "OK");
}

static bool is_reset(const rc_node *node)
{
    return is_text(node, "RESET");
}

static bool is_long_text(const rc_node *node)
{
    return node->type == '$' || node->type == '=';
}

static bool is_pong(const rc_node *node)
{
    return is_text(node, "PONG");
}

static bool is_any_error(const struct rc_link *link, const rc_node *error)
{
    (void)link;
    (void)error;
    return true;
}

/* A user who may not choose a database stays in the first one. */
static bool is_first_database(const struct rc_link *link, const rc_node *error)
{
    return link->address->db == 0 && rc_reply_is_error(error, "NOPERM");
}

/* The server cannot save and so refuses writes, and PING; reads go on. */
static bool is_misconf(const struct rc_link *link, const rc_node *error)
{
    (void)link;
    return rc_reply_is_error(error, "MISCONF");
}

static enum rc_greeting read_info(struct rc_link *link, const struct rc_reply *reply)
{
    rc_server_read_answer(&link->server, RC_SERVER_IDENTIFIES, &reply->nodes[0]);
    rc_identity_read(&link->identity, reply, 0);
    return RC_GREETING_GOES_ON;
}

/* Outside of a cluster every replica answers reads. */
static bool is_no_cluster(const struct rc_link *link, const rc_node *error)
{
    (void)error;
    return link->identity.mode != RC_SERVER_CLUSTER;
}

/* ---- the steps ------------------------------------------------------------------------------- */

/* What a step asks, and what it makes of the answer. */
static const struct step {
    const char *name;
    int (*write)(const struct rc_link *link, struct rc_buf *out);
    /* Whether an answer that is no error has the form that this step's answer has. On a connection
       that stands in MULTI each would be QUEUED; what answers HELLO by no map does not speak
       RESP3. */
    bool (*has_form)(const rc_node *first);
    /* Whether the connection can live with this error. NULL: with none. */
    bool (*can_bear)(const struct rc_link *link, const rc_node *error);
    /* NULL: nothing to learn. */
    enum rc_greeting (*read)(struct rc_link *link, const struct rc_reply *reply);
} steps[RC_LINK_STEPS] = {
    [RC_STEP_RESET] = {"RESET", write_reset, is_reset, NULL, NULL},
    [RC_STEP_HELLO] = {"HELLO", write_hello, is_map, NULL, read_hello},
    [RC_STEP_SELECT] = {"SELECT", write_select, is_ok, is_first_database, read_select},
    [RC_STEP_TRACKING] = {"CLIENT TRACKING", write_tracking, is_ok, is_any_error, read_tracking},
    [RC_STEP_READONLY] = {"READONLY", write_readonly, is_ok, is_no_cluster, NULL},
    /* Who may not ask INFO does not learn which server this is. */
    [RC_STEP_INFO] = {"INFO", write_info, is_long_text, is_any_error, read_info},
    [RC_STEP_PING] = {"PING", write_ping, is_pong, is_misconf, read_ping},
};

/* The steps in their order. The last is PING: with its answer the link is ready. */
struct handshake {
    uint32_t count;
    enum rc_link_step steps[RC_LINK_STEPS];
};

static const struct role {
    const char *name;
    struct handshake handshake;
} roles[RC_LINK_ROLES] = {
    [RC_LINK_W] = {"W", {4, {RC_STEP_HELLO, RC_STEP_SELECT, RC_STEP_INFO, RC_STEP_PING}}},
    [RC_LINK_T] = {"T",
                   {5,
                    {RC_STEP_HELLO, RC_STEP_SELECT, RC_STEP_TRACKING, RC_STEP_INFO, RC_STEP_PING}}},
    [RC_LINK_X] = {"X", {4, {RC_STEP_HELLO, RC_STEP_SELECT, RC_STEP_INFO, RC_STEP_PING}}},
    [RC_LINK_S] = {"S", {2, {RC_STEP_HELLO, RC_STEP_PING}}},
    [RC_LINK_R] = {"R",
                   {5,
                    {RC_STEP_HELLO, RC_STEP_SELECT, RC_STEP_READONLY, RC_STEP_INFO, RC_STEP_PING}}},
};

/* Of one that was in use. */
static const struct handshake cleaning = {
    5, {RC_STEP_RESET, RC_STEP_HELLO, RC_STEP_SELECT, RC_STEP_INFO, RC_STEP_PING}};

static const struct handshake *handshake_of(const struct rc_link *link)
{
    return link->is_cleaning ? &cleaning : &roles[link->role].handshake;
}

const char *rc_handshake_role_name(enum rc_link_role role)
{
    return roles[role].name;
}

int rc_handshake_write(struct rc_link *link)
{
    const struct handshake *handshake = handshake_of(link);
    int error = 0;
    assert(handshake->count <= RC_LINK_STEPS);
    assert(handshake->steps[handshake->count - 1] == RC_STEP_PING);
    link->handshake_at = 0;
    link->login = rc_handshake_login(link);
    for (uint32_t i = 0; i < handshake->count; i++)
        error |= steps[handshake->steps[i]].write(link, &link->output);
    return error;
}

enum rc_greeting rc_handshake_read(struct rc_link *link, const struct rc_reply *reply)
{
    const rc_node *first = &reply->nodes[0];
    assert(link->handshake_at < handshake_of(link)->count); /* PING ends it, either way */
    enum rc_link_step at = handshake_of(link)->steps[link->handshake_at++];
    const struct step *step = &steps[at];
    bool is_refused = first->type == '-';
    if (!is_refused && !step->has_form(first)) {
        snprintf(link->cause, sizeof link->cause, "the answer to %s is not the one of Redis",
                 step->name);
        return RC_GREETING_FAILED;
    }
    if (is_refused && (step->can_bear == NULL || !step->can_bear(link, first)))
        return read_error(link, at, first);
    return step->read != NULL ? step->read(link, reply) : RC_GREETING_GOES_ON;
}
