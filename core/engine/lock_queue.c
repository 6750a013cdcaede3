#include "engine/lock_queue.h"

#include <string.h>

#include "base/slot.h"

void rc_lock_queue_init(struct rc_lock_queue *queue)
{
    memset(queue, 0, sizeof *queue);
    rc_buf_init(&queue->key);
    rc_buf_init(&queue->alone);
    rc_buf_init(&queue->line);
}

int rc_lock_queue_join(struct rc_lock_queue *queue, char kind, const struct rc_buf *key,
                       const struct rc_buf *own, const void *handle)
{
    queue->kind = kind;
    int error = rc_slot_helper_key(&queue->key, rc_buf_head(key), rc_buf_len(key), ":queue");
    if (error == 0)
        error = rc_buf_append(&queue->alone, rc_buf_head(key), rc_buf_len(key));
    if (error == 0)
        error = rc_buf_append(&queue->line, rc_buf_head(own), rc_buf_len(own));
    if (error == 0)
        error = rc_buf_append(&queue->line, &handle, sizeof handle);
    return error;
}

void rc_lock_queue_deinit(struct rc_lock_queue *queue)
{
    rc_buf_deinit(&queue->key);
    rc_buf_deinit(&queue->alone);
    rc_buf_deinit(&queue->line);
}
