/*
 * caller_tag - a caller that reads, loads and invalidates entries with tags, as lua/redcache does
 * it.
 *
 * What:    a read looks at the entry and at the generations of its tags, each near or in Redis. A
 *          load reads the generations (or makes them), then the data, and stores both. Everything
 *          that is served goes to tags.h of this directory.
 */
#include <string.h>

#include "base/mutant.h"
#include "driver/sim/caller_own.h"
#include "driver/sim/gate.h"
#include "driver/sim/server.h"
#include "engine/command.h"
#include "near/tags.h"
#include "store/key.h"
#include "store/store_own.h"

/* How a block is made here: all names have the same length. */
enum {
    BLOCK_HEAD = 16, /* with times, which are 0 */
    PART_TIMES = 1,
    TAG_NAME = SIM_TAGS_NAME - SIM_TAGS_PREFIX,
    TAG_BYTES = RC_TAG_GENERATIONS + 1 + TAG_NAME,
    EXTRA = 1, /* the entry's flag: its payload begins with a block */
    LOADER_MAX_US = 60000
};

static struct rc_near *near_of(const struct sim_caller *caller)
{
    return caller->client->machine->near;
}

static void keep_name(struct rc_op *op, const char name[SIM_TAGS_NAME])
{
    rc_buf_clear(&op->ask.key);
    sim_must(rc_buf_append(&op->ask.key, name, SIM_TAGS_NAME));
}

static int some_tag(struct sim_world *world)
{
    return (int)sim_dice_between(&world->dice, 0, SIM_KEYS - 1);
}

static size_t write_entry(char out[RC_ENTRY_SIZE + SIM_TAGS_ROOM], const rc_entry *entry,
                          const char *nonce, const char *payload, size_t len)
{
    rc_entry_write(out, entry, nonce);
    memcpy(out + RC_ENTRY_SIZE, payload, len);
    return RC_ENTRY_SIZE + len;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* What the loader finds in the data behind the cache. */
static void read_data(struct sim_caller *caller)
{
    memcpy(caller->tagged.versions, sim_caller_world(caller)->tags.versions,
           sizeof(caller->tagged.versions));
}

static void run_loader(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    if (!RC_MUTANT(TAGS_AFTER_LOAD))
        read_data(caller);
    caller->state = SIM_LOADING;
    caller->load_until_us = 0;
    sim_world_in(world, &caller->timer, sim_dice_spread(&world->dice, 200, LOADER_MAX_US));
}

/* True: all of them are near. */
static bool find_generations(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    char name[SIM_TAGS_NAME + 1];
    for (int tag = 0; tag < SIM_KEYS; tag++) {
        rc_near_value value = {.buffer = tagged->generations[tag], .capacity = RC_TAG_GENERATIONS};
        if ((tagged->tags & 1U << tag) == 0)
            continue;
        sim_tags_name_tag(tag, name);
        if (rc_near_lookup(near_of(caller), NULL, 0, name, SIM_TAGS_NAME,
                           sim_caller_max_stale_us(caller), &value) != RC_NEAR_HIT ||
            value.len != RC_TAG_GENERATIONS)
            return false;
    }
    return true;
}

/* New ones: random, or what is lost would come back. */
static void write_generations(struct sim_caller *caller, char out[RC_TAG_GENERATIONS])
{
    struct rc_context *context = &caller->client->engine.context;
    rc_context_nonce(context, out);
    rc_context_nonce(context, out + RC_TAG_GENERATION);
    if (RC_MUTANT(TAGS_COME_BACK))
        memset(out, 1, RC_TAG_GENERATIONS);
}

/* SET NX GET of each: what stands there is told, else these do from now on. It is never sent again:
   others may have read these meanwhile, and they may have been invalidated. */
static void make_generations(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct rc_op *op = sim_caller_op(caller, RC_OP_COMMAND);
    struct rc_buf *request = &op->ask.request;
    rc_entry entry = {.kind = RC_KIND_VALUE, .codec = RC_CODEC_RAW};
    for (int tag = 0; tag < SIM_KEYS; tag++) {
        char name[SIM_TAGS_NAME + 1], nonce[RC_NONCE_SIZE], text[RC_ENTRY_SIZE + SIM_TAGS_ROOM];
        if ((caller->tagged.tags & 1U << tag) == 0)
            continue;
        sim_tags_name_tag(tag, name);
        write_generations(caller, caller->tagged.generations[tag]);
        rc_context_nonce(&caller->client->engine.context, nonce);
        size_t len =
            write_entry(text, &entry, nonce, caller->tagged.generations[tag], RC_TAG_GENERATIONS);
        sim_must(rc_command_head(request, 7));
        sim_must(rc_command_text(request, "SET"));
        sim_must(rc_command_text(request, name));
        sim_must(rc_command_bytes(request, text, len));
        sim_must(rc_command_text(request, "NX"));
        sim_must(rc_command_text(request, "GET"));
        sim_must(rc_command_text(request, "PX"));
        sim_must(rc_command_int(request, sim_dice_spread(&world->dice, 300, 6000)));
        op->ask.expect++;
    }
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

static void begin_load(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct sim_tagged *tagged = &caller->tagged;
    tagged->tags = 1U << some_tag(world);
    if (sim_dice_falls(&world->dice, 600))
        tagged->tags |= (unsigned)sim_dice_between(&world->dice, 1, (1 << SIM_KEYS) - 1);
    sim_trace(world, "caller %d loads entry %d with tags %x", caller->number, tagged->entry,
              tagged->tags);
    if (RC_MUTANT(TAGS_AFTER_LOAD))
        read_data(caller);
    /* Old ones do no harm: the entry is void then when it is stored. */
    if (sim_dice_falls(&world->dice, 500) && find_generations(caller))
        run_loader(caller);
    else
        make_generations(caller);
}

static void end_make(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    const struct rc_reply *reply = &caller->op.reply;
    uint32_t at = 0;
    for (int tag = 0; tag < SIM_KEYS; tag++) {
        rc_result stands = {.status = 0};
        if ((tagged->tags & 1U << tag) == 0)
            continue;
        const rc_node *node = at < reply->count ? &reply->nodes[at++] : NULL;
        if (node != NULL && node->type == '_')
            continue; /* ours */
        if (node != NULL && node->type == '-') {
            sim_caller_failed(caller, rc_reply_status(node), node->str, node->len);
            sim_caller_rest(caller);
            return;
        }
        if (node != NULL && node->type == '$')
            rc_entry_read(&stands, node->str, node->len);
        if (stands.kind != RC_KIND_VALUE || stands.len != RC_TAG_GENERATIONS) {
            sim_violation(sim_caller_world(caller), "G12: tag %d holds no generations", tag);
            return;
        }
        memcpy(tagged->generations[tag], stands.data, RC_TAG_GENERATIONS);
    }
    run_loader(caller);
}

void sim_caller_store_tagged(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct sim_tagged *tagged = &caller->tagged;
    struct rc_op *op = sim_caller_op(caller, RC_OP_SET);
    rc_entry entry = {.kind = RC_KIND_VALUE, .codec = RC_CODEC_RAW, .entry_flags = EXTRA};
    char name[SIM_TAGS_NAME + 1], text[RC_ENTRY_SIZE + SIM_TAGS_ROOM], *block = tagged->payload;
    size_t at = BLOCK_HEAD;
    memset(block, 0, BLOCK_HEAD);
    block[2] = PART_TIMES;
    for (int tag = 0; tag < SIM_KEYS; tag++) {
        if ((tagged->tags & 1U << tag) == 0)
            continue;
        sim_tags_name_tag(tag, name);
        memcpy(block + at, tagged->generations[tag], RC_TAG_GENERATIONS);
        block[at + RC_TAG_GENERATIONS] = TAG_NAME;
        memcpy(block + at + RC_TAG_GENERATIONS + 1, name + SIM_TAGS_PREFIX, TAG_NAME);
        at += TAG_BYTES;
        block[3]++;
    }
    block[0] = (char)(at & 0xFF);
    block[1] = (char)(at >> 8);
    at += sim_tags_make(world, tagged->entry, tagged->tags, tagged->versions, block + at);
    rc_context_nonce(&caller->client->engine.context, op->run.nonce);
    size_t len = write_entry(text, &entry, op->run.nonce, block, at);
    sim_tags_name_entry(tagged->entry, name);
    keep_name(op, name);
    sim_must(rc_command_head(&op->ask.request, 5));
    sim_must(rc_command_text(&op->ask.request, "SET"));
    sim_must(rc_command_text(&op->ask.request, name));
    sim_must(rc_command_bytes(&op->ask.request, text, len));
    sim_must(rc_command_text(&op->ask.request, "PX"));
    sim_must(rc_command_int(&op->ask.request, sim_dice_spread(&world->dice, 30, 8000)));
    op->ask.expect = 1;
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

/* ---- reading --------------------------------------------------------------------------------- */

static void serve(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    size_t block_len = (size_t)(uint8_t)tagged->payload[0] | (size_t)(uint8_t)tagged->payload[1]
                                                                 << 8;
    struct sim_tags_claim claim = {
        .entry = tagged->entry,
        .machine = sim_caller_machine(caller),
        .began_us = tagged->began_us,
        .since_us = tagged->began_us - (tagged->is_near ? sim_caller_max_stale_us(caller) : 0),
        .is_near = tagged->is_near,
        .is_stale = tagged->is_stale};
    sim_tags_saw(sim_caller_world(caller), &claim, tagged->payload + block_len,
                 tagged->payload_len - block_len);
    sim_caller_rest(caller);
}

static void miss(struct sim_caller *caller)
{
    if (sim_dice_falls(&sim_caller_world(caller)->dice, 700))
        begin_load(caller);
    else
        sim_caller_rest(caller);
}

static void ask(struct sim_caller *caller, const char name[SIM_TAGS_NAME])
{
    struct rc_op *op = sim_caller_op(caller, RC_OP_GET);
    keep_name(op, name);
    op->ask.near = caller->tagged.is_near;
    op->ask.near_group = 0;
    op->ask.near_ttl_us = 0;
    op->ask.near_avoids = false;
    op->ask.expect = 2;
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

/* One after the other. */
static void ask_for_tag(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    char name[SIM_TAGS_NAME] = {'{', 'k'};
    if (tagged->asked == tagged->payload[3]) {
        serve(caller);
        return;
    }
    const char *tag = tagged->payload + BLOCK_HEAD + tagged->asked * TAG_BYTES;
    memcpy(name + SIM_TAGS_PREFIX, tag + RC_TAG_GENERATIONS + 1, TAG_NAME);
    ask(caller, name);
}

static void check_tags(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    int verdict = RC_TAGS_UNKNOWN;
    if (tagged->is_near)
        verdict = rc_near_tags_check(tagged->checker, tagged->payload, tagged->payload_len,
                                     sim_caller_max_stale_us(caller));
    tagged->is_stale = verdict == RC_TAGS_SOFT;
    switch (verdict) {
    case RC_TAGS_VALID:
    case RC_TAGS_SOFT: serve(caller); break;
    case RC_TAGS_VOID: miss(caller); break;
    case RC_TAGS_UNKNOWN: ask_for_tag(caller); break;
    default:
        sim_violation(sim_caller_world(caller), "G12: entry %d has a damaged block", tagged->entry);
    }
}

/* As rc_view_get judges an entry: mostly by what was found valid before. */
static bool is_sound(struct sim_caller *caller, const rc_near_value *value)
{
    return rc_near_tags_sound(caller->tagged.checker, &value->handle, value->data, value->len,
                              value->handle.deadline_us - value->left_us,
                              sim_caller_max_stale_us(caller)) != 0;
}

static void begin_read(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct sim_tagged *tagged = &caller->tagged;
    char name[SIM_TAGS_NAME + 1];
    rc_near_value value = {.buffer = tagged->payload, .capacity = sizeof(tagged->payload)};
    tagged->is_near = !sim_dice_falls(&world->dice, 150);
    tagged->is_stale = false;
    tagged->has_entry = false;
    tagged->asked = 0;
    sim_tags_name_entry(tagged->entry, name);
    if (tagged->is_near && rc_near_lookup(near_of(caller), NULL, 0, name, SIM_TAGS_NAME,
                                          sim_caller_max_stale_us(caller), &value) == RC_NEAR_HIT) {
        tagged->has_entry = true;
        tagged->payload_len = value.len;
        if (is_sound(caller, &value))
            serve(caller);
        else
            check_tags(caller);
        return;
    }
    ask(caller, name);
}

static void take_entry(struct sim_caller *caller)
{
    const rc_result *result = &caller->op.result;
    struct sim_tagged *tagged = &caller->tagged;
    if (result->outcome != RC_HIT) {
        miss(caller);
        return;
    }
    if (result->entry_flags != EXTRA || result->len > sizeof(tagged->payload)) {
        sim_violation(sim_caller_world(caller), "G12: entry %d holds what nobody has written",
                      tagged->entry);
        return;
    }
    tagged->has_entry = true;
    memcpy(tagged->payload, result->data, result->len);
    tagged->payload_len = result->len;
    check_tags(caller);
}

static void take_tag(struct sim_caller *caller)
{
    const rc_result *result = &caller->op.result;
    struct sim_tagged *tagged = &caller->tagged;
    const char *stored = tagged->payload + BLOCK_HEAD + tagged->asked * TAG_BYTES;
    bool is_lost = result->outcome != RC_HIT;
    bool is_same = !is_lost && result->len == RC_TAG_GENERATIONS &&
                   memcmp(result->data, stored, RC_TAG_GENERATION) == 0;
    if (!is_same && !(is_lost && RC_MUTANT(TAGS_LOST_IS_HIT))) {
        miss(caller);
        return;
    }
    if (is_same && memcmp(result->data + RC_TAG_GENERATION, stored + RC_TAG_GENERATION,
                          RC_TAG_GENERATION) != 0)
        tagged->is_stale = true;
    tagged->asked++;
    ask_for_tag(caller);
}

/* ---- invalidating ---------------------------------------------------------------------------- */

static void invalidate(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    struct rc_op *op = sim_caller_op(caller, RC_OP_DELETE);
    int tag = caller->tagged.tag = some_tag(world);
    char name[SIM_TAGS_NAME + 1];
    caller->tagged.version = ++world->tags.versions[tag];
    sim_trace(world, "caller %d invalidates tag %d", caller->number, tag);
    sim_tags_name_tag(tag, name);
    keep_name(op, name);
    sim_must(rc_command_head(&op->ask.request, 2));
    sim_must(rc_command_text(&op->ask.request, "UNLINK"));
    sim_must(rc_command_text(&op->ask.request, name));
    op->ask.expect = 1;
    sim_caller_submit(caller, sim_caller_timeout_ms(caller));
}

/* Who has the tag's key now, and takes commands about it. NULL: nobody. */
static struct sim_node *holder_of(struct sim_world *world, int tag)
{
    char name[SIM_TAGS_NAME + 1];
    struct sim_node *node = sim_gate_owner(world, tag), *heir = world->moves[tag].heir;
    if (node == NULL)
        return NULL;
    sim_tags_name_tag(tag, name);
    node = world->holders[tag];
    if (heir != NULL && !sim_gate_has_key(node, name, SIM_TAGS_NAME))
        node = heir;
    return node->refuses || node->stopped_until_us > world->now_us ? NULL : node;
}

/* Somebody elsewhere does, by a script: another soft half, if there are generations. */
static void invalidate_softly(struct sim_world *world)
{
    int tag = some_tag(world);
    char name[SIM_TAGS_NAME + 1], text[RC_ENTRY_SIZE + SIM_TAGS_ROOM];
    struct sim_node *node = holder_of(world, tag);
    uint64_t soft = sim_dice_roll(&world->dice), nonce = sim_dice_roll(&world->dice);
    rc_entry entry = {.kind = RC_KIND_VALUE, .codec = RC_CODEC_RAW};
    if (node == NULL)
        return;
    int64_t version = ++world->tags.versions[tag];
    sim_tags_name_tag(tag, name);
    if (sim_gate_has_key(node, name, SIM_TAGS_NAME)) {
        const struct rc_key *key =
            rc_key_peek(node->store, 0, (struct rc_text){name, SIM_TAGS_NAME});
        char generations[RC_TAG_GENERATIONS];
        memcpy(generations, key->value + RC_ENTRY_SIZE, RC_TAG_GENERATION);
        memcpy(generations + RC_TAG_GENERATION, &soft, RC_TAG_GENERATION);
        size_t len =
            write_entry(text, &entry, (const char *)&nonce, generations, sizeof(generations));
        sim_server_set(node, name, text, len, sim_dice_spread(&world->dice, 300, 6000));
    }
    sim_tags_invalidated(world, tag, version, SIM_NOBODY, world->now_us, true);
}

/* The server needs the room. */
static void evict(struct sim_world *world)
{
    int tag = some_tag(world);
    struct sim_node *node = holder_of(world, tag);
    if (node != NULL)
        sim_server_command(node, "DEL {k%d}/t", tag);
}

/* ---- the life of a call ---------------------------------------------------------------------- */

void sim_caller_begin_tagged(struct sim_caller *caller)
{
    struct sim_world *world = sim_caller_world(caller);
    int64_t what = sim_dice_between(&world->dice, 0, 99);
    caller->tagged.entry = some_tag(world);
    caller->tagged.began_us = world->now_us;
    if (what < 62) {
        begin_read(caller);
    } else if (what < 76) {
        begin_load(caller);
    } else if (what < 90) {
        invalidate(caller);
    } else {
        if (what < 95)
            invalidate_softly(world);
        else
            evict(world);
        sim_caller_rest(caller);
    }
}

void sim_caller_end_tagged(struct sim_caller *caller)
{
    struct sim_tagged *tagged = &caller->tagged;
    switch (caller->op.ask.kind) {
    case RC_OP_GET:
        if (tagged->has_entry)
            take_tag(caller);
        else
            take_entry(caller);
        break;
    case RC_OP_COMMAND: end_make(caller); break;
    case RC_OP_DELETE:
        sim_tags_invalidated(sim_caller_world(caller), tagged->tag, tagged->version,
                             sim_caller_machine(caller), tagged->began_us, false);
        sim_caller_rest(caller);
        break;
    default: sim_caller_rest(caller); break;
    }
}

void sim_caller_open_tags(struct sim_caller *caller)
{
    if (!sim_caller_world(caller)->has_tags)
        return;
    caller->tagged.checker = rc_near_tags_new(near_of(caller), "{k", SIM_TAGS_PREFIX);
    sim_must(caller->tagged.checker == NULL ? RC_ERR_NOMEM : 0);
}

void sim_caller_close_tags(struct sim_caller *caller)
{
    if (caller->tagged.checker != NULL)
        rc_near_tags_free(caller->tagged.checker);
    caller->tagged.checker = NULL;
}
