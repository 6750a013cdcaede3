/*
 * login - the public calls for credentials that change.
 */
#include <string.h>

#include "client/client.h"

enum { MAX_LEN = 65536 };

static bool is_user_kept(const struct rc_client *client, const char *user, size_t len)
{
    const struct rc_address *address = &client->address;
    const char *known = address->user_len > 0 ? address->user : "default";
    size_t known_len = address->user_len > 0 ? address->user_len : 7;
    if (client->options.auth != 0)
        return true;
    if (len == 0)
        return known_len == 7 && memcmp(known, "default", 7) == 0;
    return len == known_len && memcmp(user, known, len) == 0;
}

/* With the client's mutex. */
static int keep(struct rc_client_login *login, const char *user, size_t user_len,
                const char *password, size_t password_len)
{
    if (rc_buf_reserve(&login->text, user_len + password_len) != 0)
        return RC_ERR_NOMEM;
    rc_buf_clear(&login->text);
    (void)rc_buf_append(&login->text, user, user_len);
    (void)rc_buf_append(&login->text, password, password_len);
    login->user_len = user_len;
    login->version++;
    return 0;
}

int rc_authenticate(rc_client *client, const char *user, size_t user_len, const char *password,
                    size_t password_len, int64_t ttl_ms)
{
    const struct rc_address *address = &client->address;
    if (password_len == 0 || password_len > MAX_LEN || user_len > MAX_LEN || ttl_ms < 0 ||
        address->is_memory || !is_user_kept(client, user, user_len))
        return RC_ERR_ARGUMENT;
    if (!rc_options_is_private(&client->options, address))
        return RC_ERR_REFUSED;
    if (atomic_load(&client->closed))
        return RC_ERR_CLOSED;
    /* The mutex is held until the engine has them: of two threads the later one is told later. Its
       owner never takes the mutex. */
    pthread_mutex_lock(&client->driver_mutex);
    int error = keep(&client->login, user, user_len, password, password_len);
    client->login.expires_us = ttl_ms == 0 ? INT64_MAX : rc_client_now_us(client) + ttl_ms * 1000;
    struct rc_driver *driver = rc_client_running_driver(client);
    if (error == 0 && driver != NULL && !atomic_load(&client->closed))
        rc_client_tell_login(client, driver);
    pthread_mutex_unlock(&client->driver_mutex);
    return error;
}

struct failure {
    const char *text;
    size_t len;
};

static void fail(struct rc_engine *engine, void *argument)
{
    const struct failure *failure = argument;
    rc_engine_fail_login(engine, failure->text, failure->len);
}

int rc_auth_fail(rc_client *client, const char *text, size_t len)
{
    struct failure failure = {text, len};
    struct rc_driver *driver = rc_client_running_driver(client);
    if (atomic_load(&client->closed))
        return RC_ERR_CLOSED;
    if (driver != NULL)
        rc_driver_call(driver, fail, &failure);
    return 0;
}

int rc_auth_wanted(rc_client *client)
{
    struct rc_driver *driver = rc_client_running_driver(client);
    return driver != NULL && !atomic_load(&client->closed) && rc_login_claim(&driver->engine.login);
}
