#include "engine/slot_word.h"

#include <string.h>

#include "engine/command.h"

/* Where the text of CLUSTER INFO goes on behind "name:" at the beginning of a line; NULL: it is not
   there. */
static const char *find_field(const rc_node *info, const char *name)
{
    size_t len = strlen(name);
    for (size_t at = 0; info->str != NULL && at + len <= info->len; at++) {
        if ((at == 0 || info->str[at - 1] == '\n') && memcmp(info->str + at, name, len) == 0)
            return info->str + at + len;
    }
    return NULL;
}

static int64_t read_number(const rc_node *info, const char *name)
{
    const char *at = find_field(info, name);
    int64_t number = 0;
    if (at == NULL)
        return -1;
    for (const char *end = info->str + info->len; at < end && *at >= '0' && *at <= '9'; at++)
        number = 10 * number + (*at - '0');
    return number;
}

static struct rc_req *take(struct rc_context *context, const char *const words[], uint32_t count)
{
    struct rc_req *req = rc_req_take(context);
    int error = 0;
    if (req == NULL)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        error |= rc_command_head(&req->bytes, 2);
        error |= rc_command_text(&req->bytes, "CLUSTER");
        error |= rc_command_text(&req->bytes, words[i]);
    }
    if (error != 0) {
        rc_req_give(req);
        return NULL;
    }
    req->expect = count;
    req->stays = true;
    return req;
}

struct rc_req *rc_slot_word_ask(struct rc_context *context)
{
    return take(context, (const char *const[]){"SLOTS", "INFO"}, 2);
}

struct rc_req *rc_slot_word_ask_epoch(struct rc_context *context)
{
    return take(context, (const char *const[]){"INFO"}, 1);
}

int64_t rc_slot_word_read_epoch(int status, const struct rc_reply *reply)
{
    return status == 0 ? read_number(&reply->nodes[0], "cluster_my_epoch:") : -1;
}

void rc_slot_word_read(struct rc_slot_word *word, struct rc_slot_map *map, int status,
                       const struct rc_reply *reply)
{
    *word = (struct rc_slot_word){.epoch = -1, .own_epoch = -1};
    if (status != 0)
        return;
    const rc_node *slots = &reply->nodes[0], *info = &reply->nodes[rc_reply_skip(reply, 0)];
    if (slots->type == '-' || info->type == '-') {
        word->refusal = slots->type == '-' ? slots : info;
        return;
    }
    word->epoch = read_number(info, "cluster_current_epoch:");
    word->own_epoch = read_number(info, "cluster_my_epoch:");
    word->is_ok = find_field(info, "cluster_state:ok") != NULL;
    word->is_answer = rc_slot_map_read(map, reply, 0) == 0;
}
