#include "engine/server.h"

#include <stdio.h>
#include <string.h>

#include "engine/context.h"

struct release {
    unsigned major, minor, patch;
};

/* What each ability needs, and what is off without it. */
static const struct {
    const char *off; /* NULL: everything */
    struct release since;
    const char *why;
} abilities[RC_SERVER_ABILITIES] = {
    [RC_SERVER_SERVES] = {NULL, {7, 0, 0}, "Redis 7.0 or newer is needed"},
    /* Before, a push may stand in the middle of another answer (redis/redis#8935). */
    [RC_SERVER_TRACKS] = {"tracking", {7, 0, 5}, "client tracking needs Redis 7.0.5 or newer"},
    [RC_SERVER_IDENTIFIES] = {"identity", {0, 0, 0}, NULL},
    [RC_SERVER_SELECTS] = {"databases", {0, 0, 0}, NULL},
};

static void copy_text(char text[RC_SERVER_NAME], const rc_node *node)
{
    if (node->type == '$')
        snprintf(text, RC_SERVER_NAME, "%.*s",
                 (int)(node->len < RC_SERVER_NAME ? node->len : RC_SERVER_NAME - 1), node->str);
}

static bool is_field(const rc_node *key, const char *name)
{
    return key->type == '$' && key->len == strlen(name) && memcmp(key->str, name, key->len) == 0;
}

void rc_server_read_hello(struct rc_server *server, const struct rc_reply *reply)
{
    memset(server, 0, sizeof *server);
    server->is_known = true;
    for (uint32_t i = 1; i + 1 < reply->count; i = rc_reply_skip(reply, i + 1)) {
        const rc_node *key = &reply->nodes[i];
        if (is_field(key, "server"))
            copy_text(server->name, key + 1);
        else if (is_field(key, "version"))
            copy_text(server->version, key + 1);
    }
}

void rc_server_read_answer(struct rc_server *server, enum rc_server_ability ability,
                           const rc_node *answer)
{
    char text[RC_TEXT_SIZE] = "";
    if (answer->type == '-')
        rc_node_text(answer, text);
    snprintf(server->refusals[ability], RC_SERVER_WHY, "%.*s", RC_SERVER_WHY - 1, text);
}

/* A server that does not tell its version is taken for a new one. */
static bool is_since(const struct rc_server *server, struct release since)
{
    struct release is;
    if (sscanf(server->version, "%u.%u.%u", &is.major, &is.minor, &is.patch) < 3)
        return true;
    return is.major != since.major   ? is.major > since.major
           : is.minor != since.minor ? is.minor > since.minor
                                     : is.patch >= since.patch;
}

const char *rc_server_lacks(const struct rc_server *server, enum rc_server_ability ability)
{
    if (server->refusals[ability][0] != '\0')
        return server->refusals[ability];
    return is_since(server, abilities[ability].since) ? NULL : abilities[ability].why;
}

bool rc_server_is(const struct rc_server *server, const char *name, unsigned major, unsigned minor)
{
    struct release since = {major, minor, 0};
    return strcmp(server->name, name) == 0 && server->version[0] >= '0' &&
           server->version[0] <= '9' && is_since(server, since);
}

void rc_server_label(const struct rc_server *server, char *text, size_t size)
{
    bool is_known = server->name[0] != '\0' && server->version[0] != '\0';
    snprintf(text, size, "%s%s%s", is_known ? server->name : "", is_known ? " " : "",
             is_known ? server->version : "");
}

void rc_server_tell_off(const struct rc_server *one, const struct rc_server *other, char *text,
                        size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    for (int i = 0; i < RC_SERVER_ABILITIES; i++) {
        const char *why = rc_server_lacks(one, (enum rc_server_ability)i);
        if (why == NULL)
            why = rc_server_lacks(other, (enum rc_server_ability)i);
        if (why == NULL || abilities[i].off == NULL)
            continue;
        int more = snprintf(text + len, size - len, "%s: %s\n", abilities[i].off, why);
        if (more < 0 || (size_t)more >= size - len) {
            text[len] = '\0'; /* no half of a line */
            return;
        }
        len += (size_t)more;
    }
}
