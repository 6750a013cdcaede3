#include "base/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "redcache.h"

enum {
    DEFAULT_PORT = 6379,
    DEFAULT_SENTINEL_PORT = 26379,
    MAX_DB = 1 << 20,
    MAX_SOCKET_PATH = 107,
    MAX_STORE_NAME = 100
};

static const char *find(const char *from, const char *end, char wanted)
{
    return from < end ? memchr(from, wanted, (size_t)(end - from)) : NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes %XX into `out` of `room` bytes and ends it with NUL. */
static bool decode(char *out, size_t room, size_t *out_len, const char *in, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = in[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(in[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(in[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (n + 1 >= room)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    *out_len = n;
    return true;
}

static bool parse_number(const char *text, size_t len, int64_t max, int64_t *number)
{
    int64_t value = 0;
    if (len == 0 || len > 9)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    *number = value;
    return value <= max;
}

/* "user:password@" before the rest; the last @ ends it, so a password may hold one. */
static bool parse_credentials(struct rc_address *address, const char **rest, const char *end)
{
    const char *at = NULL;
    for (const char *p = *rest; p < end; p++) {
        if (*p == '@')
            at = p;
    }
    if (at == NULL)
        return true;
    const char *colon = find(*rest, at, ':');
    if (colon == NULL)
        return false;
    address->has_user = colon > *rest;
    address->has_password = true;
    if (!decode(address->user, sizeof address->user, &address->user_len, *rest,
                (size_t)(colon - *rest)) ||
        !decode(address->password, sizeof address->password, &address->password_len, colon + 1,
                (size_t)(at - colon - 1)))
        return false;
    *rest = at + 1;
    return true;
}

static const char *parse_unix(struct rc_address *address, const char *rest, const char *end)
{
    const char *query = find(rest, end, '?');
    int64_t db = 0;
    size_t host_len;
    if (query != NULL) {
        if (end - query < 5 || memcmp(query, "?db=", 4) != 0 ||
            !parse_number(query + 4, (size_t)(end - query - 4), MAX_DB, &db))
            return "the part behind '?' must be db=number";
        end = query;
    }
    if (rest == end || *rest != '/')
        return "unix:// needs an absolute path";
    if (!decode(address->host, sizeof address->host, &host_len, rest, (size_t)(end - rest)) ||
        host_len > MAX_SOCKET_PATH || strlen(address->host) != host_len)
        return "the socket's path is too long or badly encoded";
    address->is_unix = true;
    address->db = (int32_t)db;
    snprintf(address->label, sizeof address->label, "%.127s", address->host);
    return NULL;
}

static bool has_blank(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] <= ' ' || name[i] == 127)
            return true;
    }
    return false;
}

static void set_label(struct rc_address *address)
{
    snprintf(address->label, sizeof address->label, "%.100s:%u/%d", address->host,
             (unsigned)address->port, (int)address->db);
}

/* host[:port] or [host][:port]. NULL: it is one; else what is wrong. */
static const char *parse_host(struct rc_address *address, const char *rest, const char *host_end,
                              int64_t port)
{
    int64_t number = port;
    bool bracket = rest < host_end && *rest == '[';
    const char *name_end = bracket ? find(rest, host_end, ']') : NULL;
    if (bracket && name_end == NULL)
        return "'[' without ']'";
    if (bracket && name_end + 1 < host_end && name_end[1] != ':')
        return "only :port may follow ']'";
    const char *colon = find(bracket ? name_end : rest, host_end, ':');
    if (!bracket)
        name_end = colon != NULL ? colon : host_end;
    if (colon != NULL &&
        (!parse_number(colon + 1, (size_t)(host_end - colon - 1), 65535, &number) || number == 0))
        return "the port must be a number from 1 to 65535";
    address->port = (uint16_t)number;

    const char *name = bracket ? rest + 1 : rest;
    size_t name_len = (size_t)(name_end - name);
    if (name_len == 0 || name_len >= sizeof address->host)
        return "the host name is missing or too long";
    if (has_blank(name, name_len))
        return "the host name holds a blank or a control character";
    memcpy(address->host, name, name_len);
    address->host[name_len] = '\0';
    return NULL;
}

static const char *parse_db(struct rc_address *address, const char *text, const char *end)
{
    int64_t number = 0;
    if (text < end && !parse_number(text, (size_t)(end - text), MAX_DB, &number))
        return "the database must be a number";
    address->db = (int32_t)number;
    return NULL;
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* Hosts with commas between them, each once, in the order of their bytes: who lists the same ones
   in another order speaks of the same servers. */
struct list {
    int64_t port; /* where none is written */
    const char *too_many, *twice;
    uint32_t count;
    char entries[RC_LISTED][sizeof((struct rc_address *)0)->host + 8]; /* "host port" */
};

static const char *add_listed(struct rc_address *address, struct list *list, const char *rest,
                              const char *end)
{
    uint32_t at = list->count;
    if (at == RC_LISTED)
        return list->too_many;
    const char *why = parse_host(address, rest, end, list->port);
    if (why != NULL)
        return why;
    char entry[sizeof list->entries[0]];
    snprintf(entry, sizeof entry, "%s %u", address->host, (unsigned)address->port);
    for (; at > 0 && strcmp(list->entries[at - 1], entry) >= 0; at--) {
        if (strcmp(list->entries[at - 1], entry) == 0)
            return list->twice;
        memcpy(list->entries[at], list->entries[at - 1], sizeof entry);
    }
    memcpy(list->entries[at], entry, sizeof entry);
    list->count++;
    return NULL;
}

/* Reads host[:port],... into address->server, with room behind it for the master's name and the
   database. */
static const char *parse_list(struct rc_address *address, struct list *list, const char *rest,
                              const char *end)
{
    while (rest <= end) {
        const char *comma = find(rest, end, ',');
        const char *entry_end = comma != NULL ? comma : end;
        const char *why = add_listed(address, list, rest, entry_end);
        if (why != NULL)
            return why;
        rest = entry_end + 1;
    }
    size_t len = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        int more = snprintf(address->server + len, sizeof address->server - len, "%s%s",
                            i > 0 ? "," : "", list->entries[i]);
        len += (size_t)more;
        if (len + RC_MASTER_NAME + 16 > sizeof address->server)
            return "the names of the hosts are too long together";
    }
    memset(address->host, 0, sizeof address->host); /* the last one's */
    address->port = 0;
    return NULL;
}

/* Reads the host and port of one entry of address->server. */
static void read_listed(struct rc_address *address, const struct rc_address *list, uint32_t which)
{
    const char *entry = list->server;
    for (uint32_t i = 0; i < which; i++)
        entry = strchr(entry, ',') + 1;
    size_t len = strcspn(entry, " ");
    memcpy(address->host, entry, len);
    address->host[len] = '\0';
    address->port = (uint16_t)strtoul(entry + len, NULL, 10);
}

/* ---- one server, or nodes of one cluster ----------------------------------------------------- */

/* Known by all that are listed, whichever of them answers. */
static const char *parse_nodes(struct rc_address *address, const char *rest, const char *end)
{
    struct list list = {.port = DEFAULT_PORT,
                        .too_many = "more than 15 addresses are listed: the cluster tells of the "
                                    "nodes that are not",
                        .twice = "an address is listed twice"};
    const char *why = parse_list(address, &list, rest, end);
    if (why != NULL)
        return why;
    size_t len = strlen(address->server);
    address->node_count = list.count;
    snprintf(address->server + len, sizeof address->server - len, "/%d", (int)address->db);
    len = strcspn(address->server, " ");
    snprintf(address->label, sizeof address->label, "%.*s and %u more/%d",
             (int)(len < 90 ? len : 90), address->server, (unsigned)list.count - 1,
             (int)address->db);
    return NULL;
}

/* Not its label, which is cut where a host is long, and without the database of a socket's path. */
static void name_server(struct rc_address *address)
{
    snprintf(address->server, sizeof address->server, "%s %u/%d", address->host,
             (unsigned)address->port, (int)address->db);
}

static bool holds_scheme(const char *rest, const char *end)
{
    for (; end - rest >= 3; rest++) {
        if (memcmp(rest, "://", 3) == 0)
            return true;
    }
    return false;
}

static const char *parse_tcp(struct rc_address *address, const char *rest, const char *end)
{
    if (find(rest, end, '?') != NULL)
        return "nothing may follow '?' but for unix://: the database is written as in "
               "redis://host:port/3";
    if (holds_scheme(rest, end))
        return "redis:// stands once, before the first address: redis://h1:7000,h2:7000";
    const char *slash = find(rest, end, '/');
    const char *why = slash != NULL ? parse_db(address, slash + 1, end) : NULL;
    const char *host_end = slash != NULL ? slash : end;
    if (why == NULL && find(rest, host_end, ',') != NULL)
        return parse_nodes(address, rest, host_end);
    if (why == NULL)
        why = parse_host(address, rest, host_end, DEFAULT_PORT);
    if (why != NULL)
        return why;
    set_label(address);
    name_server(address);
    return NULL;
}

void rc_address_listed(struct rc_address *address, const struct rc_address *list, uint32_t which)
{
    *address = *list;
    read_listed(address, list, which);
    set_label(address);
    name_server(address);
}

/* ---- sentinels ------------------------------------------------------------------------------- */

/* As Redis has it. */
static bool is_master_name(const char *name, size_t len)
{
    return len > 0 && len <= RC_MASTER_NAME && rc_is_name(name, len);
}

/* host[:port],.../master[/db]: the set is known by its sentinels and the master's name, wherever
   that master is. */
static const char *parse_sentinels(struct rc_address *address, const char *rest, const char *end)
{
    struct list list = {.port = DEFAULT_SENTINEL_PORT,
                        .too_many = "more than 15 sentinels are named",
                        .twice = "a sentinel is named twice: each has one voice"};
    const char *slash = find(rest, end, '/');
    if (find(rest, end, '?') != NULL)
        return "nothing may follow '?': the database is written as in redis+sentinel://host/name/3";
    if (slash == NULL)
        return "the master's name is missing: redis+sentinel://host:26379,host/name";
    const char *name = slash + 1;
    const char *name_end = find(name, end, '/');
    const char *why = parse_list(address, &list, rest, slash);
    if (why == NULL && name_end != NULL)
        why = parse_db(address, name_end + 1, end);
    if (name_end == NULL)
        name_end = end;
    size_t len = (size_t)(name_end - name);
    if (why == NULL && !is_master_name(name, len))
        why = "the master's name behind the sentinels must be 1 to 100 letters, digits and ._-";
    if (why != NULL)
        return why;
    memcpy(address->master, name, len);
    address->master[len] = '\0';
    address->sentinel_count = list.count;
    size_t at = strlen(address->server);
    snprintf(address->server + at, sizeof address->server - at, " %s/%d", address->master,
             (int)address->db);
    snprintf(address->label, sizeof address->label, "%s/%d", address->master, (int)address->db);
    return NULL;
}

void rc_address_sentinel(struct rc_address *address, const struct rc_address *set, uint32_t which)
{
    memset(address, 0, sizeof *address);
    read_listed(address, set, which);
    address->is_tls = set->is_tls;
    address->has_user = set->sentinel_user_len > 0;
    address->has_password = set->sentinel_password_len > 0;
    address->user_len = set->sentinel_user_len;
    address->password_len = set->sentinel_password_len;
    memcpy(address->user, set->sentinel_user, sizeof address->user);
    memcpy(address->password, set->sentinel_password, sizeof address->password);
    snprintf(address->label, sizeof address->label, "%.100s:%u", address->host,
             (unsigned)address->port);
}

bool rc_address_log_in_at_sentinels(struct rc_address *address, const char *user, size_t user_len,
                                    const char *password, size_t password_len)
{
    if (user_len >= sizeof address->sentinel_user ||
        password_len >= sizeof address->sentinel_password)
        return false;
    if (user_len > 0)
        memcpy(address->sentinel_user, user, user_len);
    if (password_len > 0)
        memcpy(address->sentinel_password, password, password_len);
    address->sentinel_user_len = user_len;
    address->sentinel_password_len = password_len;
    return true;
}

static const char *parse_memory(struct rc_address *address, const char *rest, const char *end)
{
    size_t len = (size_t)(end - rest);
    if (len > MAX_STORE_NAME)
        return "the name behind memory:// is too long";
    if (!rc_is_name(rest, len))
        return "only a name of letters, digits and ._- may follow memory://";
    memcpy(address->host, rest, len);
    address->host[len] = '\0';
    snprintf(address->label, sizeof address->label, "memory://%.100s", address->host);
    return NULL;
}

static const char CREDENTIALS[] = "the part before '@' must be user:password or :password";

int rc_address_parse(struct rc_address *address, const char *url, size_t len, const char **why)
{
    const char *end = url + len;
    memset(address, 0, sizeof *address);
    *why = NULL;
    address->is_memory = len >= 9 && memcmp(url, "memory://", 9) == 0;
    if (address->is_memory) {
        *why = parse_memory(address, url + 9, end);
        name_server(address);
        return *why == NULL ? 0 : RC_ERR_ARGUMENT;
    }
    bool is_sentinel = len >= 17 && memcmp(url, "redis+sentinel://", 17) == 0;
    bool is_tls_sentinel = len >= 18 && memcmp(url, "rediss+sentinel://", 18) == 0;
    if (is_sentinel || is_tls_sentinel) {
        const char *at = url + (is_sentinel ? 17 : 18);
        address->is_tls = is_tls_sentinel;
        if (!parse_credentials(address, &at, end))
            *why = CREDENTIALS;
        else
            *why = parse_sentinels(address, at, end);
        return *why == NULL ? 0 : RC_ERR_ARGUMENT;
    }
    bool is_unix = len >= 7 && memcmp(url, "unix://", 7) == 0;
    bool is_tcp = len >= 8 && memcmp(url, "redis://", 8) == 0;
    address->is_tls = len >= 9 && memcmp(url, "rediss://", 9) == 0;
    if (!is_unix && !is_tcp && !address->is_tls)
        *why =
            "it must begin with memory://, redis://, rediss://, redis+sentinel:// or unix://, as "
            "in redis://127.0.0.1:6379";
    const char *rest = url + (is_unix ? 7 : address->is_tls ? 9 : 8);
    if (*why == NULL && !parse_credentials(address, &rest, end))
        *why = CREDENTIALS;
    if (*why == NULL)
        *why = is_unix ? parse_unix(address, rest, end) : parse_tcp(address, rest, end);
    if (is_unix)
        name_server(address);
    return *why == NULL ? 0 : RC_ERR_ARGUMENT;
}

bool rc_address_elsewhere(struct rc_address *address, const struct rc_address *from,
                          const char *host, uint16_t port)
{
    size_t len = strlen(host);
    if (len >= sizeof address->host)
        return false;
    *address = *from;
    memcpy(address->host, host, len + 1);
    address->port = port;
    address->is_unix = false;
    set_label(address);
    name_server(address);
    return true;
}
