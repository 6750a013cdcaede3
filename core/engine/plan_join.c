/* The answers of a plan's parts, put together in the order asked. */
#include "engine/plan.h"

void rc_plan_fail(struct rc_plan_part *part, int status, const char *text)
{
    part->status = status;
    rc_reply_clear(&part->reply);
    if (rc_reply_add_error(&part->reply, status, text) == 0 &&
        rc_buf_append(&part->reply.arena, "", 1) == 0) /* for rc_plan_status: NUL-ended */
        rc_reply_resolve(&part->reply);
    else
        rc_reply_clear(&part->reply); /* the status says enough */
}

int rc_plan_status(const struct rc_plan *plan, const char **text)
{
    const struct rc_plan_part *worst = &plan->parts[0];
    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct rc_plan_part *part = &plan->parts[i];
        if (part->status == 0)
            return 0;
        if (part->status == RC_ERR_UNKNOWN && worst->status != RC_ERR_UNKNOWN)
            worst = part;
    }
    *text = worst->reply.count > 0 ? worst->reply.nodes[0].str : "";
    return worst->status;
}

static int add_failure(struct rc_reply *out, const struct rc_plan_part *part)
{
    return part->reply.count > 0 ? rc_reply_append(out, &part->reply, 0, 1)
                                 : rc_reply_add_error(out, part->status, NULL);
}

static int join_whole(struct rc_plan *plan, const struct rc_plan_step *step, struct rc_reply *out)
{
    struct rc_plan_part *part = &plan->parts[step->part];
    if (step->again > 0) {
        part->at = rc_reply_skip(&part->reply, part->at);
        part = &plan->parts[step->again];
    }
    if (part->status != 0)
        return add_failure(out, part);
    uint32_t first = part->at;
    if (first >= part->reply.count)
        return rc_reply_add_error(out, RC_ERR_PROTOCOL, NULL);
    part->at = rc_reply_skip(&part->reply, first);
    return rc_reply_append(out, &part->reply, first, part->at);
}

/* Begins to read a part's answer to a command that was split. */
static void open_answer(struct rc_plan_part *part)
{
    const struct rc_reply *reply = &part->reply;
    if (part->status != 0)
        return;
    part->item = part->at;
    part->end = part->at = rc_reply_skip(reply, part->at);
    part->is_list = part->item < reply->count && reply->nodes[part->item].type == '*';
    if (part->is_list)
        part->item++;
}

static int join_element(struct rc_plan_part *part, struct rc_reply *out)
{
    const struct rc_reply *reply = &part->reply;
    if (part->status != 0)
        return add_failure(out, part);
    if (part->item >= part->end || (!part->is_list && reply->nodes[part->item].type != '-'))
        return rc_reply_add_error(out, RC_ERR_PROTOCOL, NULL);
    if (!part->is_list) /* one error for all keys */
        return rc_reply_append(out, reply, part->item, part->item + 1);
    uint32_t first = part->item;
    part->item = rc_reply_skip(reply, first);
    return rc_reply_append(out, reply, first, part->item);
}

static void open_answers(struct rc_plan *plan, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last; i++)
        plan->parts[plan->steps[i].part].end = 0;
    for (uint32_t i = first; i <= last; i++) {
        struct rc_plan_part *part = &plan->parts[plan->steps[i].part];
        if (part->end == 0)
            open_answer(part);
    }
}

static int join_list(struct rc_plan *plan, uint32_t first, uint32_t last, struct rc_reply *out)
{
    int error = rc_reply_add_list(out, last - first + 1);
    open_answers(plan, first, last);
    for (uint32_t i = first; i <= last && error == 0; i++)
        error = join_element(&plan->parts[plan->steps[i].part], out);
    return error;
}

/* The numbers of all servers together; where one gave an error, that. What may have been done
   counts more than what was not. */
static int join_sum(struct rc_plan *plan, uint32_t first, uint32_t last, struct rc_reply *out)
{
    static const rc_node UNFIT = {.type = '-', .integer = RC_ERR_PROTOCOL};
    int64_t sum = 0;
    const rc_node *fault = NULL;
    struct rc_plan_part *faulty = NULL;
    open_answers(plan, first, last);
    for (uint32_t i = first; i <= last; i++) {
        struct rc_plan_part *part = &plan->parts[plan->steps[i].part];
        uint32_t at = part->status != 0 ? 0 : part->item;
        const rc_node *node = at < part->reply.count ? &part->reply.nodes[at] : &UNFIT;
        if (node->type == ':')
            sum += node->integer;
        else if (fault == NULL || part->status == RC_ERR_UNKNOWN) {
            fault = node->type == '-' ? node : &UNFIT;
            faulty = part;
        }
    }
    if (fault == NULL)
        return rc_reply_add_number(out, sum);
    if (fault == &UNFIT)
        return rc_reply_add_error(out, faulty->status != 0 ? faulty->status : RC_ERR_PROTOCOL,
                                  NULL);
    uint32_t at = (uint32_t)(fault - faulty->reply.nodes);
    return rc_reply_append(out, &faulty->reply, at, at + 1);
}

int rc_plan_join(struct rc_plan *plan, struct rc_reply *out)
{
    int error = 0;
    for (uint32_t first = 0, last; first < plan->step_count && error == 0; first = last + 1) {
        last = rc_plan_last_step(plan, first);
        switch ((enum rc_plan_how)plan->steps[first].how) {
        case RC_PLAN_WHOLE: error = join_whole(plan, &plan->steps[first], out); break;
        case RC_PLAN_LIST: error = join_list(plan, first, last, out); break;
        case RC_PLAN_SUM: error = join_sum(plan, first, last, out); break;
        }
    }
    if (error == 0)
        rc_reply_resolve(out);
    return error;
}
