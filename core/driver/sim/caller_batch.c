/*
 * caller_batch - a caller that counts and sends batches: several commands for several places in one
 * call.
 *
 * What:    a batch adds to counters and takes from them, within bounds or without, writes and reads
 *          keys, one or many. What each command is told goes to the ledger, by its place in the
 *          batch. Nothing of it may be sent twice, but a batch for replicas, which only reads.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "driver/sim/caller_own.h"
#include "driver/sim/count_script.h"
#include "engine/command.h"
#include "engine/script.h"

enum { ALL_KEYS = (1U << SIM_KEYS) - 1 };

/* ---- asking ---------------------------------------------------------------------------------- */

/* Bounds that are near to what the counter will be, if nobody else adds to it. */
static struct sim_addition some_addition(struct sim_world *world, const struct sim_step *step)
{
    struct sim_dice *dice = &world->dice;
    int64_t size = (int64_t)step->deed;
    struct sim_addition addition = {.by = sim_dice_falls(dice, 400) ? -size : size};
    int64_t total = sim_ledger_total(world, step->key) + addition.by;
    addition.has_min = sim_dice_falls(dice, 250);
    addition.has_max = !addition.has_min && sim_dice_falls(dice, 250);
    int64_t bound = total + sim_dice_between(dice, -size, size);
    addition.min = addition.max = bound;
    return addition;
}

static void encode_bound(struct rc_buf *request, bool is_there, int64_t bound)
{
    sim_must(is_there ? rc_command_int(request, bound) : rc_command_text(request, ""));
}

static void encode_addition(struct rc_op *op, const struct sim_step *step, int64_t ttl_ms)
{
    char name[SIM_LEDGER_NAME + 1];
    struct rc_buf *request = &op->ask.request;
    int script = sim_count_script();
    sim_must(script < 0 ? script : 0);
    sim_ledger_name(SIM_ADDITION, step->key, name);
    sim_must(rc_script_begin(request, script, 1, 6));
    sim_must(rc_command_text(request, name));
    sim_must(rc_command_text(request, "INCRBY"));
    sim_must(rc_command_int(request, step->addition.by));
    sim_must(rc_command_int(request, 0));
    sim_must(rc_command_int(request, ttl_ms));
    encode_bound(request, step->addition.has_min, step->addition.min);
    encode_bound(request, step->addition.has_max, step->addition.max);
    op->ask.script = (int16_t)script;
}

static void encode_write(struct rc_op *op, const struct sim_step *step)
{
    char name[SIM_LEDGER_NAME + 1], text[SIM_LEDGER_TEXT];
    size_t len = sim_ledger_text(step->key, step->deed, text);
    sim_ledger_name(SIM_WRITE, step->key, name);
    sim_must(rc_command_head(&op->ask.request, 3));
    sim_must(rc_command_text(&op->ask.request, "SET"));
    sim_must(rc_command_text(&op->ask.request, name));
    sim_must(rc_command_bytes(&op->ask.request, text, len));
}

/* MGET of all keys of the step, or GET of its one. */
static void encode_read(struct rc_op *op, const struct sim_step *step)
{
    char name[SIM_LEDGER_NAME + 1];
    bool is_many = step->keys != 1U << step->key;
    uint32_t count = 0;
    for (int key = 0; key < SIM_KEYS; key++)
        count += (step->keys & 1U << key) != 0;
    sim_must(rc_command_head(&op->ask.request, 1 + count));
    sim_must(rc_command_text(&op->ask.request, is_many ? "MGET" : "GET"));
    for (int key = 0; key < SIM_KEYS; key++) {
        if ((step->keys & 1U << key) == 0)
            continue;
        sim_ledger_name(SIM_WRITE, key, name);
        sim_must(rc_command_text(&op->ask.request, name));
    }
}

static void trace_addition(struct sim_world *world, int caller, const struct sim_step *step)
{
    const struct sim_addition *addition = &step->addition;
    char bound[32] = "";
    if (addition->has_min || addition->has_max)
        snprintf(bound, sizeof(bound), ", %s %" PRId64, addition->has_min ? "from" : "up to",
                 addition->min);
    sim_trace(world, "caller %d counts: %s!%zu to counter %d%s", caller,
              addition->by < 0 ? "-" : "", step->deed, step->key, bound);
}

static void add_step(struct sim_caller *caller, enum sim_step_kind kind)
{
    struct sim_world *world = sim_caller_world(caller);
    struct sim_step *step = &caller->steps[caller->step_count++];
    *step = (struct sim_step){.kind = kind,
                              .key = (int)sim_dice_between(&world->dice, 0, SIM_KEYS - 1)};
    step->keys = 1U << step->key;
    switch (kind) {
    case SIM_STEP_COUNT:
        step->deed = sim_ledger_begin(world, SIM_ADDITION, step->key);
        step->addition = some_addition(world, step);
        sim_ledger_add(world, step->deed, &step->addition);
        encode_addition(&caller->op, step, world->weather.count_ttl_ms);
        trace_addition(world, caller->number, step);
        break;
    case SIM_STEP_WRITE:
        step->deed = sim_ledger_begin(world, SIM_WRITE, step->key);
        encode_write(&caller->op, step);
        sim_trace(world, "caller %d writes !%zu into key %d", caller->number, step->deed,
                  step->key);
        break;
    case SIM_STEP_READ:
        if (sim_dice_falls(&world->dice, 500))
            step->keys |= (unsigned)sim_dice_between(&world->dice, 1, ALL_KEYS);
        encode_read(&caller->op, step);
        break;
    }
    caller->op.ask.expect++;
}

static enum sim_step_kind some_kind(struct sim_world *world)
{
    int64_t what = sim_dice_between(&world->dice, 0, 99);
    return what < 35 ? SIM_STEP_COUNT : what < 65 ? SIM_STEP_WRITE : SIM_STEP_READ;
}

void sim_caller_begin_batch(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    int64_t count =
        sim_dice_falls(&world->dice, 400) ? 1 : sim_dice_between(&world->dice, 2, SIM_STEPS_MAX);
    struct rc_op *op = sim_caller_op(caller, RC_OP_COMMAND);
    caller->is_for_replicas = world->asks_replicas && sim_dice_falls(&world->dice, 300);
    if (caller->is_for_replicas)
        op->ask.flags = RC_RETRY | RC_REPLICA;
    caller->step_count = 0;
    for (int64_t i = 0; i < count; i++)
        add_step(caller, caller->is_for_replicas ? SIM_STEP_READ
                         : count == 1            ? SIM_STEP_COUNT
                                                 : some_kind(world));
    if (count > 1)
        sim_trace(world, "caller %d sends them as a batch of %d", caller->number, (int)count);
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

/* ---- answers --------------------------------------------------------------------------------- */

static enum sim_told told_by(int status)
{
    bool may_be_done = status == RC_ERR_UNKNOWN || status == RC_ERR_TIMEOUT;
    return may_be_done ? SIM_TOLD_UNKNOWN : SIM_TOLD_FAILED;
}

static void misfit(struct sim_caller *caller, const struct sim_step *step, const rc_node *node)
{
    static const char *const KINDS[] = {"count", "write", "read"};
    sim_violation(sim_caller_world(caller), "G11: caller %d: the answer to a %s of %d is a '%c'",
                  caller->number, KINDS[step->kind], step->key, (int)node->type);
}

/* A whole number, with nothing around it. */
static bool read_number(const rc_node *node, int64_t *number)
{
    char text[SIM_LEDGER_TEXT] = "";
    int used = 0;
    if (node->len >= sizeof(text))
        return false;
    memcpy(text, node->str, node->len);
    return sscanf(text, "%" SCNd64 "%n", number, &used) == 1 && (size_t)used == node->len;
}

static void take_total(struct sim_caller *caller, const struct sim_step *step, const rc_node *node)
{
    struct sim_world *world = sim_caller_world(caller);
    int64_t total = 0;
    bool fits = node->type == '*' && node->count == 2 && node[1].type == ':' && node[2].type == '$';
    bool is_number = fits && read_number(&node[2], &total);
    if (fits && node[1].integer == 1 && is_number)
        sim_ledger_tell(world, step->deed, SIM_TOLD_DONE, total);
    else if (fits && node[1].integer == 0 && (is_number || node[2].len == 0))
        sim_ledger_refuse(world, step->deed, is_number ? &total : NULL);
    else
        misfit(caller, step, node);
}

static void take_failure(struct sim_caller *caller, const struct sim_step *step,
                         const rc_node *node)
{
    int status = rc_reply_status(node);
    sim_caller_failed(caller, status, node->str, node->len);
    if (step->kind != SIM_STEP_READ)
        sim_ledger_tell(sim_caller_world(caller), step->deed, told_by(status), 0);
}

static void take_value(struct sim_caller *caller, const struct sim_step *step, int key,
                       const rc_node *node)
{
    if (node->type == '-')
        take_failure(caller, step, node);
    else if ((node->type == '$' || node->type == '_') && caller->is_for_replicas)
        sim_ledger_once(sim_caller_world(caller), key, node->type == '$' ? node->str : NULL,
                        node->len);
    else if (node->type == '$' || node->type == '_')
        sim_ledger_read(sim_caller_world(caller), key, caller->began_us,
                        node->type == '$' ? node->str : NULL, node->len);
    else
        misfit(caller, step, node);
}

static void take_values(struct sim_caller *caller, const struct sim_step *step, const rc_node *node)
{
    uint32_t at = 0;
    for (int key = 0; key < SIM_KEYS && node->type == '*'; key++)
        if ((step->keys & 1U << key) != 0 && ++at <= node->count)
            take_value(caller, step, key, node + at);
    if (node->type != '*' || at != node->count)
        misfit(caller, step, node);
}

static void take_answer(struct sim_caller *caller, const struct sim_step *step, const rc_node *node)
{
    if (node->type == '-')
        take_failure(caller, step, node);
    else if (step->kind == SIM_STEP_COUNT)
        take_total(caller, step, node);
    else if (step->kind == SIM_STEP_READ && step->keys != 1U << step->key)
        take_values(caller, step, node);
    else if (step->kind == SIM_STEP_READ)
        take_value(caller, step, step->key, node);
    else if (node->type == '+' && rc_reply_is_text(node, "OK"))
        sim_ledger_tell(sim_caller_world(caller), step->deed, SIM_TOLD_DONE, 0);
    else
        misfit(caller, step, node);
}

void sim_caller_end_batch(struct sim_caller *caller)
{
    const struct rc_reply *reply = &caller->op.reply;
    uint32_t at = 0;
    for (int i = 0; i < caller->step_count; i++) {
        if (at >= reply->count) {
            sim_violation(sim_caller_world(caller), "G11: caller %d lacks an answer",
                          caller->number);
            break;
        }
        take_answer(caller, &caller->steps[i], &reply->nodes[at]);
        at = rc_reply_skip(reply, at);
    }
    sim_caller_rest(caller);
}

void sim_caller_fail_batch(struct sim_caller *caller, int status)
{
    for (int i = 0; i < caller->step_count; i++)
        if (caller->steps[i].kind != SIM_STEP_READ)
            sim_ledger_tell(sim_caller_world(caller), caller->steps[i].deed, told_by(status), 0);
}
