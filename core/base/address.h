/*
 * address - where a Redis is and who we are there, from a URL.
 *
 * What:    redis://[[user]:password@]host[:port][/db], also redis://[::1]:6379, the same with
 *          rediss:// for TLS, and unix://[[user]:password@]/path/to.sock[?db=n]. User, password and
 *          path may hold %XX. memory://[name] is a store in this process; a name has letters,
 *          digits and ._- only.
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

struct rc_address {
    bool is_memory;
    bool is_unix;
    bool is_tls;
    bool has_password;
    bool has_user;
    /* Or the socket's path, at most 107 bytes then (sun_path); or the store's name. */
    char host[256];
    uint16_t port;
    int32_t db;
    size_t user_len;
    size_t password_len;
    char user[128];
    char password[512];
    /* Which server that is, the same in every process that shares what it knows of it. Today its
       host, port and database; where an address is looked up by a name, that name. */
    char server[288];
    char label[128]; /* "127.0.0.1:6379/0", for health and errors: no user, no password */
};

int rc_address_parse(struct rc_address *address, const char *url, size_t len, const char **why);
/* Makes the address of another server of the same kind: user, password, database and TLS are those
   of `from`. False: the host is too long. */
bool rc_address_elsewhere(struct rc_address *address, const struct rc_address *from,
                          const char *host, uint16_t port);

#endif
