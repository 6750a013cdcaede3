/*
 * login - who this client is on its connections, where that changes.
 *
 * What:    the credentials that were given last, and whether newer ones are wanted: nobody has
 *          given any yet, most of their time is over, or a server has refused them. One that wants
 *          them raises a request; a caller or a loop claims it, and answers it with set or fail.
 *          What is not answered may be claimed again after a while; failures and refusals slow the
 *          requests down.
 * Threads: the engine's owner; rc_login_claim: any.
 * Memory:  owns a copy of the credentials.
 * Errors:  RC_ERR_NOMEM: the earlier credentials stay.
 * Not:     sends nothing (link.h), and does not know where credentials come from. As long as none
 *          were given those of the address count.
 */
#ifndef RC_LOGIN_H
#define RC_LOGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/context.h"

struct rc_credentials {
    const char *user; /* user_len 0: the default one */
    size_t user_len;
    const char *password;
    size_t password_len;
    int64_t expires_us; /* INT64_MAX: never */
    uint64_t version;   /* of two the one with the higher number is newer; from 1 */
};

enum rc_login_request {
    RC_LOGIN_CONTENT, /* nothing is wanted */
    RC_LOGIN_WANTED,
    RC_LOGIN_CLAIMED /* somebody is about to answer */
};

struct rc_login {
    /* Fixed after init. */
    struct rc_context *context;
    bool asks; /* options.auth: requests are answered. False: what is given is all there is */

    /* Engine only. */
    struct rc_buf user;
    struct rc_buf password;
    uint64_t version; /* 0: none were given */
    uint64_t refused; /* the newest version that a server did not accept */
    int64_t expires_us;
    uint32_t failures;     /* refusals, and requests that failed, since a server has accepted */
    struct rc_timer timer; /* when the next request is raised, or the same one again */
    char cause[RC_TEXT_SIZE];

    /* Any thread. */
    _Atomic uint32_t request; /* enum rc_login_request */
};

/* Raises the first request, where there is somebody to answer it. */
int rc_login_init(struct rc_login *login, struct rc_context *context);
void rc_login_deinit(struct rc_login *login);

/* Newer credentials. False: there are newer ones already. */
bool rc_login_is_newer(const struct rc_login *login, const struct rc_credentials *credentials);
int rc_login_set(struct rc_login *login, const struct rc_credentials *credentials);
/* The caller that was asked has none. `text` says why; it is told on. */
void rc_login_fail(struct rc_login *login, const char *text, size_t len);

/* Whether a connection may be made. If not, newer credentials are wanted, and `cause` says why. */
bool rc_login_is_usable(struct rc_login *login);
/* What a server said to the credentials of that version. */
void rc_login_accept(struct rc_login *login);
void rc_login_refuse(struct rc_login *login, uint64_t version);

/* Somebody is to answer a request, and has not: with that a connection may come at once. */
static inline bool rc_login_is_asked(const struct rc_login *login)
{
    return atomic_load_explicit(&login->request, memory_order_relaxed) != RC_LOGIN_CONTENT;
}

/* The caller is to answer a request, and nobody else. */
static inline bool rc_login_claim(struct rc_login *login)
{
    uint32_t wanted = RC_LOGIN_WANTED;
    /* Relaxed: what is raised a moment later is found by the next look. The exchange orders
       nothing but itself: what is answered goes through the driver. */
    return atomic_load_explicit(&login->request, memory_order_relaxed) == RC_LOGIN_WANTED &&
           atomic_compare_exchange_strong(&login->request, &wanted, RC_LOGIN_CLAIMED);
}

#endif
