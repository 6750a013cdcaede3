#include "engine/login.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
    PACE_MIN_MS = 100,  /* between a failure and the next request */
    PACE_MAX_MS = 3200, /* the same after many */
    CLAIM_MS = 5000,    /* a caller that has claimed a request and says nothing is gone */
    CLOSE_MS = 50       /* newer credentials are wanted before the end of the old ones: then */
};

/* Newer ones are wanted when so much of their time is over: 7 of 10 parts. What is left is for
   failures. */
static int64_t renewal_us(int64_t now_us, int64_t expires_us)
{
    int64_t left_us = expires_us - now_us;
    return left_us <= CLOSE_MS * 1000 ? now_us : now_us + left_us / 10 * 7;
}

static void look_after_claim(struct rc_login *login)
{
    rc_context_set_timer(login->context, &login->timer,
                         rc_context_after_ms(login->context, CLAIM_MS));
}

static void raise_request(struct rc_login *login)
{
    atomic_store(&login->request, RC_LOGIN_WANTED);
    look_after_claim(login);
}

static void on_timer(void *context, struct rc_timer *timer)
{
    (void)context;
    raise_request(RC_CONTAINER(timer, struct rc_login, timer));
}

int rc_login_init(struct rc_login *login, struct rc_context *context)
{
    memset(login, 0, sizeof *login);
    login->context = context;
    login->asks = context->options.auth != 0;
    login->expires_us = INT64_MAX;
    login->timer.fire = on_timer;
    rc_buf_init(&login->user);
    rc_buf_init(&login->password);
    int error = rc_context_add_timer(context);
    if (error == 0 && login->asks)
        atomic_store(&login->request, RC_LOGIN_WANTED);
    return error;
}

void rc_login_deinit(struct rc_login *login)
{
    rc_context_clear_timer(login->context, &login->timer);
    rc_context_remove_timer(login->context);
    rc_buf_deinit(&login->user);
    rc_buf_deinit(&login->password);
}

bool rc_login_is_newer(const struct rc_login *login, const struct rc_credentials *credentials)
{
    return credentials->version > login->version;
}

int rc_login_set(struct rc_login *login, const struct rc_credentials *credentials)
{
    struct rc_context *context = login->context;
    assert(rc_login_is_newer(login, credentials));
    /* Room first: either both change, or none. */
    if (rc_buf_reserve(&login->user, credentials->user_len) != 0 ||
        rc_buf_reserve(&login->password, credentials->password_len) != 0)
        return RC_ERR_NOMEM;
    rc_buf_clear(&login->user);
    rc_buf_clear(&login->password);
    (void)rc_buf_append(&login->user, credentials->user, credentials->user_len);
    (void)rc_buf_append(&login->password, credentials->password, credentials->password_len);
    login->version = credentials->version;
    login->expires_us = credentials->expires_us;
    login->cause[0] = '\0';
    atomic_store(&login->request, RC_LOGIN_CONTENT);
    rc_context_clear_timer(context, &login->timer);
    if (login->asks && login->expires_us != INT64_MAX)
        rc_context_set_timer(context, &login->timer,
                             renewal_us(context->now_us, login->expires_us));
    return 0;
}

/* Somebody is asked again, but not at once. */
static void ask_later(struct rc_login *login)
{
    uint32_t shift = login->failures < 5 ? login->failures : 5;
    login->failures++;
    atomic_store(&login->request, RC_LOGIN_CONTENT);
    rc_context_set_timer(login->context, &login->timer,
                         rc_context_after_ms(login->context, (int64_t)PACE_MIN_MS << shift));
    assert(PACE_MIN_MS << shift <= PACE_MAX_MS);
}

void rc_login_fail(struct rc_login *login, const char *text, size_t len)
{
    snprintf(login->cause, sizeof login->cause, "the function auth has failed: %.*s",
             (int)(len < 200 ? len : 200), text);
    if (login->asks)
        ask_later(login);
}

bool rc_login_is_usable(struct rc_login *login)
{
    if (!login->asks)
        return true;
    bool is_over = login->expires_us <= login->context->now_us;
    if (login->version > login->refused && !is_over)
        return true;
    if (login->cause[0] == '\0')
        snprintf(login->cause, sizeof login->cause, "%s",
                 login->version == 0 ? "credentials are waited for (option auth)"
                                     : "the credentials have expired, newer ones are waited for");
    if (!rc_timer_is_set(&login->timer)) { /* that of the first request, which init has raised */
        assert(login->version == 0 && rc_login_is_asked(login));
        look_after_claim(login);
    }
    return false;
}

void rc_login_accept(struct rc_login *login)
{
    login->failures = 0;
}

void rc_login_refuse(struct rc_login *login, uint64_t version)
{
    if (!login->asks || version <= login->refused || version < login->version)
        return; /* of several connections one is enough; and there may be newer ones by now */
    login->refused = version;
    snprintf(login->cause, sizeof login->cause,
             "the server refuses the credentials, newer ones are waited for");
    if (login->failures > 0)
        ask_later(login);
    else
        raise_request(login);
    login->failures += login->failures == 0;
}
