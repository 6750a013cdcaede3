/*
 * address - where a Redis is and who we are there, from a URL.
 *
 * What:    redis://[[user]:password@]host[:port][/db], also redis://[::1]:6379, the same with
 *          rediss:// for TLS, and unix://[[user]:password@]/path/to.sock[?db=n]. User, password and
 *          path may hold %XX. Several hosts with commas, as in redis://h1:7000,h2:7000/0, are nodes
 *          of one cluster. memory://[name] is a store in this process; a name has letters,
 *          digits and ._- only. redis+sentinel://[[user]:password@]host[:port],.../master[/db]:
 *          the master of that name, which these sentinels know, and who we are there; with
 *          rediss+sentinel:// TLS for the sentinels and the master.
 * Threads: pure; an address is constant after parsing.
 * Memory:  fixed size, no pointers.
 * Errors:  RC_ERR_ARGUMENT; `why` is a static text that never holds a part of the URL (it may hold
 *          a password).
 * Not:     looks no name up, and opens nothing.
 */
#ifndef RC_ADDRESS_H
#define RC_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RC_LISTED = 15, RC_MASTER_NAME = 100 }; /* hosts in a list; at most */

struct rc_address {
    bool is_memory;
    bool is_unix;
    bool is_tls;
    bool has_password;
    bool has_user;
    uint32_t sentinel_count; /* 0: it is no set. Else host and port are not known: sentinels are */
    uint32_t node_count;     /* of one cluster, that are listed; 0: the url names one server */
    char master[RC_MASTER_NAME + 1]; /* its name; "": none */
    /* Or a path, at most 107 bytes then (sun_path); or the name of a store; of a list "". */
    char host[256];
    uint16_t port;
    int32_t db;
    size_t user_len;
    size_t password_len;
    char user[128];
    char password[512];
    /* The same for the sentinels. */
    size_t sentinel_user_len;
    size_t sentinel_password_len;
    char sentinel_user[128];
    char sentinel_password[512];
    /* Which server that is, the same in every process that shares what it knows of it: its host,
       port and database; of a set "host port,host port master/db", of listed nodes "host port,host
       port/db", sorted. */
    char server[1024];
    char label[128]; /* "127.0.0.1:6379/0", for health and errors: no user, no password */
};

int rc_address_parse(struct rc_address *address, const char *url, size_t len, const char **why);
/* Makes the address of another server of the same kind: user, password, database and TLS are those
   of `from`. False: the host is too long. */
bool rc_address_elsewhere(struct rc_address *address, const struct rc_address *from,
                          const char *host, uint16_t port);
/* Makes the address of one of the nodes that are listed. */
void rc_address_listed(struct rc_address *address, const struct rc_address *list, uint32_t which);
/* Makes the address of one sentinel of a set. */
void rc_address_sentinel(struct rc_address *address, const struct rc_address *set, uint32_t which);
/* Who we are to the sentinels of a set: user ("": the default one) and password ("": none). False:
   one is too long. */
bool rc_address_log_in_at_sentinels(struct rc_address *address, const char *user, size_t user_len,
                                    const char *password, size_t password_len);

#endif
