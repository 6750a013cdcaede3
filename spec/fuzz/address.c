/* Any bytes as a URL and as the numbers of rc_open. What is read writes back to the same address,
   and the label, which is shown to everybody, is the same whatever the password. */
#include "base/address.h"

#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "redcache.h"

enum {
    PERCENT = 3,    /* bytes of a %XX */
    URL_MAX = 4096, /* host, user and password are bounded, so three bytes for each of theirs fit */
    GROUP_MAX = 8
};

static size_t put_text(char *out, size_t at, const char *text)
{
    size_t len = strlen(text);
    memcpy(out + at, text, len);
    return at + len;
}

static size_t put_encoded(char *out, size_t at, const char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[at++] = '%';
        out[at++] = digits[(uint8_t)bytes[i] >> 4];
        out[at++] = digits[(uint8_t)bytes[i] & 15];
    }
    return at;
}

static size_t put_host(char *out, size_t at, const struct rc_address *address)
{
    char text[300];
    bool is_bare = strchr(address->host, ':') == NULL && address->host[0] != '[';
    snprintf(text, sizeof text, is_bare ? "%s:%u" : "[%s]:%u", address->host,
             (unsigned)address->port);
    return put_text(out, at, text);
}

/* The nodes of a cluster, in the order that the address has them in. */
static size_t put_nodes(char *out, size_t at, const struct rc_address *address)
{
    struct rc_address node;
    for (uint32_t i = 0; i < address->node_count; i++) {
        rc_address_listed(&node, address, i);
        at = put_text(out, at, i > 0 ? "," : "");
        at = put_host(out, at, &node);
    }
    return at;
}

/* The sentinels' and the master's names, in the order that the address has them in. */
static size_t put_set(char *out, size_t at, const struct rc_address *address)
{
    struct rc_address sentinel;
    for (uint32_t i = 0; i < address->sentinel_count; i++) {
        rc_address_sentinel(&sentinel, address, i);
        at = put_text(out, at, i > 0 ? "," : "");
        at = put_host(out, at, &sentinel);
    }
    at = put_text(out, at, "/");
    return put_text(out, at, address->master);
}

/* Writes the URL of an address, with another password where it has one. */
static size_t write_url(char out[URL_MAX], const struct rc_address *address, const char *password,
                        size_t password_len)
{
    char rest[300];
    if (address->is_memory)
        return put_text(out, put_text(out, 0, "memory://"), address->host);
    bool is_set = address->sentinel_count > 0;
    size_t at = put_text(out, 0, address->is_unix ? "unix" : address->is_tls ? "rediss" : "redis");
    at = put_text(out, at, is_set ? "+sentinel://" : "://");
    if (address->has_password) {
        at = put_encoded(out, at, address->user, address->user_len);
        at = put_text(out, at, ":");
        at = put_encoded(out, at, password, password_len);
        at = put_text(out, at, "@");
    }
    if (address->is_unix) {
        at = put_text(out, at, "/"); /* the first byte of the path, which may not be encoded */
        at = put_encoded(out, at, address->host + 1, strlen(address->host) - 1);
        snprintf(rest, sizeof rest, "?db=%d", (int)address->db);
        return put_text(out, at, rest);
    }
    if (is_set)
        at = put_set(out, at, address);
    else
        at = address->node_count > 0 ? put_nodes(out, at, address) : put_host(out, at, address);
    snprintf(rest, sizeof rest, "/%d", (int)address->db);
    return put_text(out, at, rest);
}

static void check_ends(const struct rc_address *address)
{
    FUZZ_CHECK(memchr(address->host, '\0', sizeof address->host) != NULL);
    FUZZ_CHECK(memchr(address->label, '\0', sizeof address->label) != NULL);
    bool is_named = address->is_memory || address->sentinel_count > 0 || address->node_count > 0;
    FUZZ_CHECK(address->node_count != 1 && address->node_count <= RC_LISTED);
    FUZZ_CHECK((address->host[0] != '\0' || is_named) && address->label[0] != '\0');
    FUZZ_CHECK(address->user_len < sizeof address->user && address->user[address->user_len] == 0);
    FUZZ_CHECK(address->password_len < sizeof address->password &&
               address->password[address->password_len] == 0);
    FUZZ_CHECK(address->is_unix || is_named || address->port != 0);
    FUZZ_CHECK(address->has_user == (address->user_len > 0) && address->db >= 0);
}

static void check_round_trip(const struct rc_address *address)
{
    static const char other[] = "0the other password, which nobody would guess";
    static char url[URL_MAX];
    struct rc_address copy;
    const char *why;
    size_t len = write_url(url, address, address->password, address->password_len);
    FUZZ_CHECK(rc_address_parse(&copy, url, len, &why) == 0);
    FUZZ_CHECK(memcmp(&copy, address, sizeof copy) == 0);
    len = write_url(url, address, other, sizeof other - 1);
    FUZZ_CHECK(rc_address_parse(&copy, url, len, &why) == 0);
    FUZZ_CHECK(strcmp(copy.label, address->label) == 0);
}

/* Equal options are one client, another group is another; nothing is left of either. */
static void check_options(const rc_options *options)
{
    rc_client *client, *same, *other;
    rc_refusal refusal = {0};
    rc_options another = *options;
    if (rc_open(options, &client, &refusal) != 0) {
        FUZZ_CHECK(refusal.text != NULL && refusal.text[0] != '\0');
        return;
    }
    another.group = "another group";
    another.group_len = strlen(another.group);
    FUZZ_CHECK(rc_open(options, &same, NULL) == 0 && same == client);
    FUZZ_CHECK(rc_open(&another, &other, NULL) == 0 && other != client);
    rc_unref(other, 0);
    rc_unref(same, 0);
    rc_unref(client, 0);
}

static rc_options read_options(struct fuzz_input *input)
{
    rc_options options = {0};
    options.connect_timeout_ms = (int32_t)fuzz_number(input, 4);
    options.command_timeout_ms = (int32_t)fuzz_number(input, 4);
    options.max_value_bytes = (int64_t)fuzz_number(input, 8);
    options.max_key_bytes = (int32_t)fuzz_number(input, 4);
    options.max_queue = (int32_t)fuzz_number(input, 4);
    options.degraded_ttl_ms = (int32_t)fuzz_number(input, 4);
    options.spin = (int32_t)fuzz_number(input, 4);
    options.near_bytes = (int64_t)fuzz_number(input, 8); /* checked even where near is off */
    options.max_bytes = (int64_t)fuzz_number(input, 8);
    options.group = (const char *)input->at;
    options.group_len = fuzz_left(input) < GROUP_MAX ? fuzz_left(input) : GROUP_MAX;
    return options;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    const uint8_t *line = len > 0 ? memchr(bytes, '\n', len) : NULL;
    struct fuzz_input input = {line != NULL ? line + 1 : bytes + len, bytes + len};
    const char *url = (const char *)bytes, *why;
    size_t url_len = line != NULL ? (size_t)(line - bytes) : len;
    struct rc_address address;
    if (rc_address_parse(&address, url, url_len, &why) == 0) {
        FUZZ_CHECK(why == NULL);
        check_ends(&address);
        check_round_trip(&address);
    } else {
        FUZZ_CHECK(why != NULL && why[0] != '\0');
    }
    if (address.is_tls) /* rc_open would read the system's certificates, each time */
        return 0;
    rc_options options = read_options(&input);
    options.url = url;
    options.url_len = url_len;
    check_options(&options);
    return 0;
}
