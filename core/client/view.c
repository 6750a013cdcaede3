/*
 * view - the public calls on a namespace's part of the near cache. None of them waits.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "near/near.h"

rc_view *rc_view_new(rc_client *client, const char *prefix, size_t prefix_len, const char *group,
                     size_t group_len, int64_t min_bytes, int64_t max_bytes, int64_t ttl_us)
{
    if (client == NULL || client->near == NULL || min_bytes < 0 || max_bytes < 0 || ttl_us < 0)
        return NULL;
    struct rc_view *view = calloc(1, sizeof *view);
    if (view == NULL)
        return NULL;
    view->client = client;
    view->near = client->near;
    view->own_process_only = client->address.is_memory;
    view->ttl_us = ttl_us;
    rc_buf_init(&view->prefix);
    if (rc_buf_append(&view->prefix, prefix, prefix_len) != 0) {
        free(view);
        return NULL;
    }
    view->group =
        rc_near_group(client->near, group, group_len, (size_t)min_bytes, (size_t)max_bytes);
    rc_client_count_user(client, 1);
    return view;
}

void rc_view_free(rc_view *view)
{
    struct rc_client *client = view->client;
    rc_buf_deinit(&view->prefix);
    free(view);
    rc_client_count_user(client, -1);
}

int rc_view_get(rc_view *view, const char *key, size_t key_len, int32_t max_stale_us,
                rc_near_value *value)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return RC_NEAR_MISS;
    return rc_near_lookup(view->near, rc_buf_head(&view->prefix), rc_buf_len(&view->prefix), key,
                          key_len, max_stale_us, value);
}

void rc_view_explain(rc_view *view, const char *key, size_t key_len, rc_near_report *report)
{
    char name[RC_NEAR_MAX_KEY];
    size_t prefix_len = rc_buf_len(&view->prefix);
    *report = (rc_near_report){.cause = RC_GONE_REFUSED, .gone_us = -1, .age_us = -1};
    if (prefix_len > sizeof name || key_len > sizeof name - prefix_len)
        return; /* such keys are not kept near */
    if (prefix_len > 0)
        memcpy(name, rc_buf_head(&view->prefix), prefix_len);
    if (key_len > 0)
        memcpy(name + prefix_len, key, key_len);
    if (view->own_process_only && rc_client_is_inherited(view->client))
        *report = (rc_near_report){.gone_us = -1, .age_us = -1};
    else
        rc_near_explain(view->near, name, prefix_len + key_len, report);
}

int64_t rc_view_now_us(rc_view *view)
{
    return rc_near_reader_us(view->near);
}

int rc_view_get_at(rc_view *view, const char *key, size_t key_len, int64_t now_us,
                   int32_t max_stale_us, rc_near_value *value)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return RC_NEAR_MISS;
    return rc_near_lookup_at(view->near, rc_buf_head(&view->prefix), rc_buf_len(&view->prefix), key,
                             key_len, now_us, max_stale_us, value);
}

int rc_view_check(rc_view *view, rc_near_handle *handles, uint32_t index, int32_t max_stale_us)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return 0;
    return rc_near_is_valid(view->near, &handles[index], max_stale_us);
}

void rc_view_check_many(rc_view *view, rc_near_handle *handles, int32_t *places, uint32_t count,
                        int32_t max_stale_us)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        max_stale_us = 0; /* nothing is known coherent */
    rc_near_check_many(view->near, handles, places, count, max_stale_us);
}

/* ---- listening ------------------------------------------------------------------------------- */

void rc_view_listen(rc_view *view, rc_listener *listener)
{
    rc_near_listen(view->near, listener);
}

int rc_view_has_news(rc_view *view, rc_listener *listener)
{
    if (view->own_process_only && rc_client_is_inherited(view->client))
        return 0;
    return rc_near_has_news(view->near, listener);
}

int rc_view_hear(rc_view *view, rc_listener *listener, char *key, size_t *key_len)
{
    return rc_near_hear(view->near, listener, rc_buf_head(&view->prefix), rc_buf_len(&view->prefix),
                        key, key_len);
}
