/* The answers of a plan's parts, put together in the order asked. */
#include "base/mutant.h"
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
    if (RC_MUTANT(PART_IS_NIL) && part->reply.count > 0)
        part->reply.nodes[0].type = '_';
    if (RC_MUTANT(PART_IS_DONE) && part->reply.count > 0)
        part->reply.nodes[0] = (rc_node){.type = '+', .str = "OK", .len = 2};
}

/* How likely it is that a part which failed so has been done: a request that was never sent fails
   otherwise. */
static int doubt_of(const struct rc_plan_part *part)
{
    return part->status == RC_ERR_UNKNOWN ? 2 : part->status == RC_ERR_TIMEOUT ? 1 : 0;
}

int rc_plan_status(const struct rc_plan *plan, const char **text)
{
    const struct rc_plan_part *worst = &plan->parts[0];
    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct rc_plan_part *part = &plan->parts[i];
        if (part->status == 0)
            return 0;
        if (doubt_of(part) > doubt_of(worst))
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

/* The answer of a step; NULL: there is none. */
static const rc_node *answer_of(const struct rc_plan *plan, const struct rc_plan_step *step)
{
    const struct rc_reply *reply = &plan->parts[step->part].reply;
    return step->at < reply->count ? &reply->nodes[step->at] : NULL;
}

static int join_whole(const struct rc_plan *plan, const struct rc_plan_step *step,
                      struct rc_reply *out)
{
    const struct rc_plan_part *part = &plan->parts[step->part];
    if (part->status != 0)
        return add_failure(out, part);
    if (answer_of(plan, step) == NULL)
        return rc_reply_add_error(out, RC_ERR_PROTOCOL, NULL);
    return rc_reply_append_bare(out, &part->reply, part->base, step->at,
                                rc_reply_skip(&part->reply, step->at));
}

/* Of a list of one. */
static int join_element(const struct rc_plan *plan, const struct rc_plan_step *step,
                        struct rc_reply *out)
{
    const struct rc_plan_part *part = &plan->parts[step->part];
    const rc_node *answer = answer_of(plan, step);
    if (part->status != 0 || (answer != NULL && answer->type == '-'))
        return join_whole(plan, step, out);
    if (answer == NULL || answer->type != '*' || answer->count != 1)
        return rc_reply_add_error(out, RC_ERR_PROTOCOL, NULL);
    return rc_reply_append_bare(out, &part->reply, part->base, step->at + 1,
                                rc_reply_skip(&part->reply, step->at + 1));
}

static int join_list(const struct rc_plan *plan, uint32_t first, uint32_t last,
                     struct rc_reply *out)
{
    int error = rc_reply_add_list(out, last - first + 1);
    for (uint32_t i = first; i <= last && error == 0; i++)
        error = join_element(plan, &plan->steps[i], out);
    return error;
}

/* The numbers of all keys together; where one gave an error, that. What may have been done counts
   more than what was not. */
static int join_sum(const struct rc_plan *plan, uint32_t first, uint32_t last, struct rc_reply *out)
{
    int64_t sum = 0;
    const struct rc_plan_step *fault = NULL;
    bool is_unfit = false;
    for (uint32_t i = first; i <= last; i++) {
        const struct rc_plan_step *step = &plan->steps[i];
        const struct rc_plan_part *part = &plan->parts[step->part];
        const rc_node *answer = part->status == 0 ? answer_of(plan, step) : NULL;
        if (answer != NULL && answer->type == ':') {
            sum += answer->integer;
        } else if (fault == NULL || doubt_of(part) > doubt_of(&plan->parts[fault->part])) {
            fault = step;
            is_unfit = part->status == 0 && (answer == NULL || answer->type != '-');
        }
    }
    if (fault == NULL)
        return rc_reply_add_number(out, sum);
    return is_unfit ? rc_reply_add_error(out, RC_ERR_PROTOCOL, NULL) : join_whole(plan, fault, out);
}

/* The commands that begin in that part; any part: all of them. */
enum { ANY_PART = UINT32_MAX };
static int join_commands(const struct rc_plan *plan, uint32_t part, struct rc_reply *out)
{
    int error = 0;
    for (uint32_t first = 0, last; first < plan->step_count && error == 0; first = last + 1) {
        last = rc_plan_last_step(plan, first);
        if (part != ANY_PART && plan->steps[first].part != part)
            continue;
        switch ((enum rc_plan_how)plan->steps[first].how) {
        case RC_PLAN_WHOLE: error = join_whole(plan, &plan->steps[first], out); break;
        case RC_PLAN_LIST: error = join_list(plan, first, last, out); break;
        case RC_PLAN_SUM: error = join_sum(plan, first, last, out); break;
        }
    }
    return error;
}

/* The texts of all answers; those of parts that have none of their own are in an error. */
static int join_texts(struct rc_plan *plan, struct rc_reply *out)
{
    size_t size = 0;
    for (uint32_t i = 0; i < plan->part_count; i++)
        size += plan->parts[i].status == 0 ? plan->parts[i].reply.arena.end : 0;
    int error = size > 0 ? rc_buf_reserve(&out->arena, size) : 0;
    for (uint32_t i = 0; i < plan->part_count && error == 0; i++) {
        struct rc_plan_part *part = &plan->parts[i];
        if (part->status == 0)
            error = rc_reply_append_texts(out, &part->reply, &part->base);
    }
    return error;
}

int rc_plan_join(struct rc_plan *plan, struct rc_reply *out)
{
    uint32_t part = RC_MUTANT(ANSWERS_BY_NODE) ? 0 : ANY_PART;
    int error = join_texts(plan, out);
    if (error == 0)
        error = join_commands(plan, part, out);
    while (part != ANY_PART && ++part < plan->part_count && error == 0)
        error = join_commands(plan, part, out);
    if (error == 0)
        rc_reply_resolve(out);
    return error;
}
