/*
 * tag_handle - the public calls on the tags of entries that are kept near. One thread at a time;
 * none of them waits.
 */
#include <stdlib.h>

#include "client/client.h"
#include "near/tags.h"

rc_tags *rc_tags_new(rc_client *client, const char *prefix, size_t prefix_len)
{
    if (client == NULL || client->near == NULL)
        return NULL;
    struct rc_tags *tags = calloc(1, sizeof *tags);
    if (tags == NULL)
        return NULL;
    tags->holders = 1;
    tags->client = client;
    tags->own_process_only = client->address.is_memory;
    tags->near = rc_near_tags_new(client->near, prefix, prefix_len);
    if (tags->near == NULL) {
        free(tags);
        return NULL;
    }
    rc_client_count_user(client, 1);
    return tags;
}

void rc_tags_free(rc_tags *tags)
{
    if (tags == NULL || --tags->holders > 0)
        return;
    struct rc_client *client = tags->client;
    rc_near_tags_free(tags->near);
    free(tags);
    rc_client_count_user(client, -1);
}

int rc_tags_check(rc_tags *tags, const char *block, size_t len, int32_t max_stale_us)
{
    if (tags->own_process_only && rc_client_is_inherited(tags->client))
        max_stale_us = 0; /* nothing is known coherent */
    return rc_near_tags_check(tags->near, block, len, max_stale_us);
}
