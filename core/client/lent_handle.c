/*
 * lent_handle - the public calls on lent connections. The engine's part is engine/lend.c.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "driver/fork.h"

struct rc_lent_handle {
    struct rc_lent lent; /* first: rc_lent * is the address of the handle */
    struct rc_client *client;
    unsigned fork_generation; /* when it was last borrowed for */
    bool used;                /* the engine knows it */
    bool in_multi;            /* behind MULTI, and EXEC was not sent */
    struct rc_buf named;      /* the keys written in that transaction: EXEC is what changes them */
};

static struct rc_lent_handle *handle_of(rc_lent *lent)
{
    return (struct rc_lent_handle *)(void *)lent;
}

static bool is_ours(const struct rc_lent_handle *handle)
{
    return handle->used && handle->fork_generation == rc_fork_generation();
}

/* What was named in a transaction changes when it ends: the end names it. */
static int name_written(struct rc_lent_handle *handle, rc_op *op)
{
    struct rc_buf *written = &op->ask.written;
    bool ends = handle->in_multi && !op->ask.sharing.in_multi;
    if (!handle->in_multi && !op->ask.sharing.in_multi)
        return 0;
    int error = rc_buf_append(&handle->named, rc_buf_head(written), rc_buf_len(written));
    if (error != 0)
        return error;
    if (ends)
        rc_buf_swap(written, &handle->named);
    if (ends)
        rc_buf_clear(&handle->named);
    return 0;
}

static int on_submit(struct rc_lent *lent, struct rc_op *op)
{
    struct rc_lent_handle *handle = handle_of(lent);
    if (!is_ours(handle)) /* there was a fork since rc_lent_begin */
        return RC_ERR_FORKED;
    int error = name_written(handle, op);
    if (error == 0)
        handle->in_multi = op->ask.sharing.in_multi;
    return error;
}

rc_lent *rc_lent_new(rc_client *client)
{
    struct rc_lent_handle *handle = client != NULL ? calloc(1, sizeof *handle) : NULL;
    if (handle == NULL)
        return NULL;
    handle->lent.on_submit = on_submit;
    rc_reply_init(&handle->lent.inbox);
    rc_buf_init(&handle->named);
    handle->client = client;
    rc_client_count_user(client, 1);
    return &handle->lent;
}

/* Nothing is borrowed, and no transaction is open. */
static void forget(struct rc_lent_handle *handle)
{
    handle->lent.spare = NULL;
    handle->lent.cause[0] = '\0';
    handle->lent.listener = NULL;
    rc_lent_deinit(&handle->lent);
    handle->in_multi = false;
    rc_buf_clear(&handle->named);
}

static void take_back(struct rc_engine *engine, void *lent)
{
    rc_engine_take_back(engine, lent);
}

void rc_lent_return(rc_lent *lent)
{
    struct rc_lent_handle *handle = handle_of(lent);
    struct rc_driver *driver = rc_client_running_driver(handle->client);
    if (is_ours(handle) && driver != NULL)
        rc_driver_call(driver, take_back, lent);
    handle->in_multi = false;
    rc_buf_clear(&handle->named);
}

void rc_lent_free(rc_lent *lent)
{
    struct rc_lent_handle *handle = handle_of(lent);
    struct rc_client *client = handle->client;
    rc_lent_return(lent);
    rc_lent_deinit(lent);
    rc_buf_deinit(&handle->named);
    free(handle);
    rc_client_count_user(client, -1);
}

int rc_lent_borrow(rc_lent *lent, rc_op *op, const char *key, size_t key_len)
{
    struct rc_lent_handle *handle = handle_of(lent);
    if (key_len > (size_t)handle->client->options.max_key_bytes)
        return RC_ERR_TOOLARGE;
    int error = rc_operation_ready(op, RC_OP_BORROW);
    if (error != 0)
        return error;
    rc_buf_clear(&op->ask.key);
    error = rc_buf_append(&op->ask.key, key, key_len);
    if (error != 0)
        return error;
    if (!is_ours(handle)) /* what the parent has is not ours */
        forget(handle);
    handle->used = true;
    handle->fork_generation = rc_fork_generation();
    op->ask.lent = lent;
    return rc_operation_submit(op);
}

int rc_lent_begin(rc_lent *lent, rc_op *op)
{
    struct rc_lent_handle *handle = handle_of(lent);
    if (!is_ours(handle))
        return handle->used ? RC_ERR_FORKED : RC_ERR_ARGUMENT;
    int error = rc_operation_ready(op, RC_OP_LENT);
    if (error != 0)
        return error;
    rc_buf_clear(&op->ask.key);
    op->ask.lent = lent;
    rc_sharing_init(&op->ask.sharing, true, handle->in_multi);
    return 0;
}

int rc_lent_listen(rc_lent *lent, rc_op *op)
{
    struct rc_lent_handle *handle = handle_of(lent);
    if (!is_ours(handle))
        return handle->used ? RC_ERR_FORKED : RC_ERR_ARGUMENT;
    int error = rc_operation_ready(op, RC_OP_LISTEN);
    if (error != 0)
        return error;
    op->ask.lent = lent;
    return rc_operation_submit(op);
}
