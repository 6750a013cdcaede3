#include "engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "base/slot.h"
#include "engine/command.h"
#include "engine/redirect.h"
#include "engine/script.h"

/* Commands that do to each key what they do to the others. The answer is a list, or a number. */
static const struct {
    char name[8];
    uint8_t len;
    uint8_t how;
} SPLITS[] = {{"MGET", 4, RC_PLAN_LIST},
              {"UNLINK", 6, RC_PLAN_SUM},
              {"DEL", 3, RC_PLAN_SUM},
              {"EXISTS", 6, RC_PLAN_SUM},
              {"TOUCH", 5, RC_PLAN_SUM}};

/* "*2", and a name of those, as they are encoded. */
enum { HEAD_MAX = 32 };

/* ---- reading commands ------------------------------------------------------------------------ */

/* Where the first key of a command stands that is not its first argument. */
enum key_place {
    FIRST,
    SECOND,
    COUNTED, /* behind its number, which is the second argument: "0", there is none */
    STREAMS  /* behind that word */
};

static const struct {
    const char *name;
    enum key_place place;
} KEY_PLACES[] = {
    {"EVALSHA", COUNTED}, {"EVAL", COUNTED},     {"EVALSHA_RO", COUNTED}, {"EVAL_RO", COUNTED},
    {"FCALL", COUNTED},   {"FCALL_RO", COUNTED}, {"OBJECT", SECOND},      {"XINFO", SECOND},
    {"XGROUP", SECOND},   {"MEMORY", SECOND},    {"BITOP", SECOND},       {"ZUNION", SECOND},
    {"ZINTER", SECOND},   {"ZDIFF", SECOND},     {"ZINTERCARD", SECOND},  {"SINTERCARD", SECOND},
    {"LMPOP", SECOND},    {"ZMPOP", SECOND},     {"XREAD", STREAMS},      {"XREADGROUP", STREAMS},
};

enum { SHORTEST = 4 }; /* of these names: GET, SET and DEL need no look */

static enum key_place place_of_key(struct rc_command_word name)
{
    for (size_t i = 0; name.len >= SHORTEST && i < sizeof KEY_PLACES / sizeof *KEY_PLACES; i++) {
        if (rc_command_is_word(name, KEY_PLACES[i].name))
            return KEY_PLACES[i].place;
    }
    return FIRST;
}

/* The key that says where the command belongs. */
static bool find_key(const struct rc_command *asked, struct rc_command_word *key)
{
    struct rc_command_reader rest = asked->rest;
    struct rc_command_word word;
    switch (place_of_key(asked->name)) {
    case FIRST: break;
    case SECOND:
        if (!rc_command_next_word(&rest, &word))
            return false;
        break;
    case COUNTED:
        if (!rc_command_next_word(&rest, &word) || !rc_command_next_word(&rest, &word) ||
            rc_command_is_word(word, "0"))
            return false;
        break;
    case STREAMS:
        do {
            if (!rc_command_next_word(&rest, &word))
                return false;
        } while (!rc_command_is_word(word, "STREAMS"));
        break;
    }
    return rc_command_next_word(&rest, key);
}

static enum rc_plan_how how_to_split(const struct rc_command *asked)
{
    for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++) {
        if (asked->name.len == SPLITS[i].len && rc_command_is_word(asked->name, SPLITS[i].name))
            return SPLITS[i].how;
    }
    return RC_PLAN_WHOLE;
}

/* ---- where commands go ----------------------------------------------------------------------- */

enum { KNOWN_PARTS = 64 };

struct sorter {
    struct rc_command_reader reader;
    const uint16_t *owners;
    struct rc_plan_place last; /* where the command before went */
    bool is_transaction;
    /* A part that is perhaps the server's whose number leaves this remainder. */
    uint32_t known[KNOWN_PARTS];
};

static struct sorter begin(const char *bytes, size_t len, const uint16_t *owners)
{
    return (struct sorter){
        .reader = {bytes, bytes + len},
        .owners = owners,
        .last = {.owner = owners[0], .slot = RC_PLAN_ANY},
    };
}

static struct rc_plan_place place_of(const struct sorter *sorter, struct rc_command_word key)
{
    uint16_t slot = rc_slot(key.bytes, key.len);
    return (struct rc_plan_place){.owner = sorter->owners[slot], .slot = slot};
}

/* MULTI was read: where the first key is that stands before its EXEC. */
static struct rc_plan_place look_ahead(const struct sorter *sorter)
{
    struct rc_command_reader reader = sorter->reader;
    struct rc_command asked;
    struct rc_command_word key;
    while (reader.at < reader.end && rc_command_next(&reader, &asked) &&
           !rc_command_is_word(asked.name, "EXEC")) {
        if (find_key(&asked, &key))
            return place_of(sorter, key);
    }
    return sorter->last;
}

/* Of an open command. True as well where its words cannot be read. */
static bool is_of_one_slot(const struct rc_command *asked, int32_t slot)
{
    struct rc_command_reader rest = asked->rest;
    struct rc_command_word key;
    for (uint32_t i = 1; i < asked->count && rc_command_next_word(&rest, &key); i++) {
        if (rc_slot(key.bytes, key.len) != slot)
            return false;
    }
    return true;
}

/* The next command, and where it goes: sorter->last. RC_PLAN_WHOLE: there, in one piece. One that
   is split is still open: add_keys reads its words, and a thousand keys are read but once. */
static bool next(struct sorter *sorter, struct rc_command *asked, enum rc_plan_how *how)
{
    struct rc_command_word key;
    if (!rc_command_open(&sorter->reader, asked))
        return false;
    *how = !sorter->is_transaction && asked->count > 2 ? how_to_split(asked) : RC_PLAN_WHOLE;
    if (*how != RC_PLAN_WHOLE) {
        if (!find_key(asked, &key))
            return false;
        sorter->last = place_of(sorter, key);
        if (!is_of_one_slot(asked, sorter->last.slot))
            return true;
        *how = RC_PLAN_WHOLE;
        return rc_command_close(&sorter->reader, asked);
    }
    if (!rc_command_close(&sorter->reader, asked))
        return false;
    if (rc_command_is_word(asked->name, "MULTI")) {
        sorter->is_transaction = true;
        sorter->last = look_ahead(sorter);
    } else if (rc_command_is_word(asked->name, "EXEC") ||
               rc_command_is_word(asked->name, "DISCARD")) {
        sorter->is_transaction = false;
    } else if (!sorter->is_transaction && find_key(asked, &key)) {
        sorter->last = place_of(sorter, key);
    }
    return true;
}

bool rc_plan_is_whole(const char *bytes, size_t len, const uint16_t *owners, int32_t *slot)
{
    struct sorter sorter = begin(bytes, len, owners);
    struct rc_command asked;
    enum rc_plan_how how;
    uint16_t owner = owners[0];
    *slot = RC_PLAN_ANY;
    for (bool is_first = true; sorter.reader.at < sorter.reader.end; is_first = false) {
        if (!next(&sorter, &asked, &how))
            return true;
        if (is_first)
            owner = sorter.last.owner;
        if (how != RC_PLAN_WHOLE || sorter.last.owner != owner)
            return false;
        if (*slot == RC_PLAN_ANY)
            *slot = sorter.last.slot;
    }
    return true;
}

/* ---- parts ----------------------------------------------------------------------------------- */

void rc_plan_init(struct rc_plan *plan)
{
    *plan = (struct rc_plan){0};
}

void rc_plan_deinit(struct rc_plan *plan)
{
    for (uint32_t i = 0; i < plan->made; i++) {
        rc_buf_deinit(&plan->parts[i].bytes);
        rc_reply_deinit(&plan->parts[i].reply);
    }
    free(plan->parts);
    free(plan->steps);
    rc_plan_init(plan);
}

void rc_plan_clear(struct rc_plan *plan)
{
    plan->part_count = plan->step_count = 0;
}

size_t rc_plan_room(const struct rc_plan *plan)
{
    size_t room = plan->part_room * sizeof *plan->parts + plan->step_room * sizeof *plan->steps;
    for (uint32_t i = 0; i < plan->made; i++) {
        const struct rc_plan_part *part = &plan->parts[i];
        room += part->bytes.room + part->reply.arena.room + part->reply.room * sizeof(rc_node);
    }
    return room;
}

/* Room for one more of `size` bytes each. The list, or NULL without memory. */
static void *grow(void *list, uint32_t count, uint32_t *room, size_t size)
{
    if (count < *room)
        return list;
    uint32_t more = *room == 0 ? 8 : *room * 2;
    void *grown = more > *room ? realloc(list, more * size) : NULL;
    if (grown != NULL)
        *room = more;
    return grown;
}

static int add_part(struct rc_plan *plan, struct rc_plan_place place, uint32_t *number)
{
    struct rc_plan_part *parts =
        grow(plan->parts, plan->part_count, &plan->part_room, sizeof *parts);
    if (parts == NULL)
        return RC_ERR_NOMEM;
    plan->parts = parts;
    *number = plan->part_count++;
    struct rc_plan_part *part = &parts[*number];
    if (*number == plan->made) {
        rc_buf_init(&part->bytes);
        rc_reply_init(&part->reply);
        plan->made++;
    }
    rc_buf_clear(&part->bytes);
    rc_reply_clear(&part->reply);
    part->place = place;
    part->expect = 0;
    part->req = NULL;
    part->status = 0;
    return 0;
}

static bool is_for(const struct rc_plan_part *part, struct rc_plan_place place)
{
    return part->place.owner == place.owner && part->place.is_asking == place.is_asking;
}

/* The part for a server among those from `first` on: there are as many as servers, so few. */
static int find_part(struct rc_plan *plan, uint32_t first, struct rc_plan_place place,
                     uint32_t *number)
{
    for (uint32_t i = first; i < plan->part_count; i++) {
        if (is_for(&plan->parts[i], place)) {
            *number = i;
            return 0;
        }
    }
    return add_part(plan, place, number);
}

/* The same while many keys are sorted. */
static inline int find_known(struct rc_plan *plan, uint32_t first, struct sorter *sorter,
                             struct rc_plan_place place, uint32_t *number)
{
    uint32_t *known = &sorter->known[place.owner % KNOWN_PARTS];
    if (*known < first || *known >= plan->part_count || !is_for(&plan->parts[*known], place)) {
        int error = find_part(plan, first, place, known);
        if (error != 0)
            return error;
    }
    *number = *known;
    return 0;
}

static inline int add_step(struct rc_plan *plan, struct rc_plan_step step)
{
    struct rc_plan_step *steps =
        grow(plan->steps, plan->step_count, &plan->step_room, sizeof *steps);
    if (steps == NULL)
        return RC_ERR_NOMEM;
    plan->steps = steps;
    steps[plan->step_count++] = step;
    return 0;
}

/* A command, or a piece of one, as it is encoded. */
static int add_piece(struct rc_plan *plan, uint32_t part, const char *bytes, size_t len,
                     struct rc_plan_step step)
{
    int error = rc_buf_append(&plan->parts[part].bytes, bytes, len);
    if (error != 0)
        return error;
    plan->parts[part].expect++;
    step.part = part;
    return add_step(plan, step);
}

/* `head`: of so many bytes, in room for HEAD_MAX. `word` is encoded. */
static inline int add_key(struct rc_plan *plan, uint32_t number, const char *head, size_t head_len,
                          const char *word, size_t len, struct rc_plan_step step)
{
    struct rc_plan_part *part = &plan->parts[number];
    struct rc_buf *bytes = &part->bytes;
    if (len + HEAD_MAX > bytes->room - bytes->end && rc_buf_reserve(bytes, len + HEAD_MAX) != 0)
        return RC_ERR_NOMEM;
    memcpy(bytes->bytes + bytes->end, head, HEAD_MAX); /* all of the room: no call for it */
    memcpy(bytes->bytes + bytes->end + head_len, word, len);
    bytes->end += head_len + len;
    part->expect++;
    step.part = number;
    return add_step(plan, step);
}

/* A command for each key of one that is open, as it is encoded: a server refuses keys of two slots
   in one, and of a thousand keys hardly two are of one. `first`: of the parts it may go into. The
   sorter's reader stands at the first key, and then behind the last. */
static int add_keys(struct rc_plan *plan, uint32_t first, struct sorter *sorter,
                    const struct rc_command *asked, enum rc_plan_how how)
{
    struct rc_command_reader *reader = &sorter->reader;
    struct rc_command_word key;
    char head[HEAD_MAX] = {0};
    int head_len = snprintf(head, sizeof head, "*2\r\n$%zu\r\n%.*s\r\n", asked->name.len,
                            (int)asked->name.len, asked->name.bytes);
    int error = 0;
    for (uint32_t i = 1; i < asked->count && error == 0; i++) {
        const char *start = reader->at;
        uint32_t part = 0;
        const struct rc_plan_step step = {.how = (uint8_t)how, .is_last = i + 1 == asked->count};
        if (!rc_command_next_word(reader, &key))
            return RC_ERR_ARGUMENT;
        error = find_known(plan, first, sorter, place_of(sorter, key), &part);
        if (error == 0)
            error = add_key(plan, part, head, (size_t)head_len, start, (size_t)(reader->at - start),
                            step);
    }
    return error;
}

int rc_plan_split(struct rc_plan *plan, const char *bytes, size_t len, const uint16_t *owners)
{
    struct sorter sorter = begin(bytes, len, owners);
    struct rc_command asked;
    enum rc_plan_how how;
    int error = 0;
    while (error == 0 && sorter.reader.at < sorter.reader.end) {
        uint32_t part = 0;
        if (!next(&sorter, &asked, &how))
            return RC_ERR_ARGUMENT;
        if (how != RC_PLAN_WHOLE) {
            error = add_keys(plan, 0, &sorter, &asked, how);
            continue;
        }
        error = find_known(plan, 0, &sorter, sorter.last, &part);
        if (error == 0)
            error = add_piece(plan, part, asked.start, asked.len,
                              (struct rc_plan_step){.how = RC_PLAN_WHOLE, .is_last = true});
    }
    return error;
}

int rc_plan_take_whole(struct rc_plan *plan, int32_t slot, uint32_t expect)
{
    uint32_t part = 0;
    struct rc_plan_step step = {.how = RC_PLAN_WHOLE, .is_last = true};
    int error = add_part(plan, (struct rc_plan_place){.slot = slot}, &part);
    for (uint32_t i = 0; i < expect && error == 0; i++)
        error = add_step(plan, step);
    if (error == 0)
        plan->parts[part].expect = expect;
    return error;
}

void rc_plan_answer(struct rc_plan *plan, uint32_t part, struct rc_reply *reply)
{
    uint32_t at = 0;
    rc_reply_swap(&plan->parts[part].reply, reply);
    reply = &plan->parts[part].reply;
    for (uint32_t i = 0; i < plan->step_count; i++) {
        struct rc_plan_step *step = &plan->steps[i];
        if (step->part != part)
            continue;
        step->at = at;
        if (at < reply->count)
            at = rc_reply_skip(reply, at);
    }
}

/* ---- what was not run ------------------------------------------------------------------------ */

static bool is_undone(const rc_node *node)
{
    return node->type == '-' && (rc_reply_is_error(node, "NOSCRIPT") ||
                                 rc_reply_is_error(node, "CROSSSLOT") || rc_redirect_is(node));
}

bool rc_plan_has_undone(const struct rc_reply *reply)
{
    for (uint32_t i = 0; reply->has_error && i < reply->count; i = rc_reply_skip(reply, i)) {
        if (is_undone(&reply->nodes[i]))
            return true;
    }
    return false;
}

/* The script of an EVALSHA; negative: it is none of ours, or none. */
static int script_of(const struct rc_command *asked)
{
    struct rc_command_reader rest = asked->rest;
    struct rc_command_word sha;
    return rc_command_is_word(asked->name, "EVALSHA") && rc_command_next_word(&rest, &sha) &&
                   sha.len == RC_SHA_LEN
               ? rc_script_find(sha.bytes)
               : -1;
}

/* While the commands of one part are gone through again. */
struct repeat {
    struct rc_plan *plan;
    const struct rc_plan_guide *guide;
    uint32_t part;                   /* its number */
    uint32_t first;                  /* of the parts that come of it */
    struct rc_command_reader reader; /* its commands */
    const struct rc_plan_step *steps;
    uint32_t step_count;
    bool is_transaction; /* between MULTI and EXEC, */
    bool is_repeated;    /* which goes to `place` once more */
    struct rc_plan_place place;
};

static const struct rc_plan_part *source(const struct repeat *repeat)
{
    return &repeat->plan->parts[repeat->part];
}

static const rc_node *answer_to(const struct repeat *repeat, const struct rc_plan_step *step)
{
    static const rc_node NOTHING = {.type = '_'};
    const struct rc_reply *reply = &source(repeat)->reply;
    return step->at < reply->count ? &reply->nodes[step->at] : &NOTHING;
}

static int add_again(struct repeat *repeat, struct rc_plan_place place,
                     const struct rc_command *asked, struct rc_plan_step step)
{
    uint32_t part = 0;
    int error = find_part(repeat->plan, repeat->first, place, &part);
    return error == 0 ? add_piece(repeat->plan, part, asked->start, asked->len, step) : error;
}

static int add_with_source(struct repeat *repeat, int script, const struct rc_command *asked,
                           struct rc_plan_step step)
{
    uint32_t part = 0;
    int error = find_part(repeat->plan, repeat->first, source(repeat)->place, &part);
    if (error == 0)
        error =
            rc_script_as_eval(&repeat->plan->parts[part].bytes, script, asked->start, asked->len);
    return error == 0 ? add_piece(repeat->plan, part, NULL, 0, step) : error;
}

/* MULTI was read, `at` is its step. EXEC runs all of it or, where a command was refused before or
   EXEC itself is, nothing: then all goes where the first of those was sent. Not behind ASKING,
   which holds for one command. */
static bool is_aborted(const struct repeat *repeat, uint32_t at, struct rc_plan_place *place)
{
    struct rc_command_reader reader = repeat->reader;
    struct rc_command asked;
    const rc_node *said = NULL;
    for (at++; at < repeat->step_count; at++) {
        const struct rc_plan_step *step = &repeat->steps[at];
        if (step->part != repeat->part)
            continue;
        if (!rc_command_next(&reader, &asked))
            return false;
        const rc_node *answer = answer_to(repeat, step);
        if (said == NULL && rc_redirect_is(answer))
            said = answer;
        if (rc_command_is_word(asked.name, "EXEC"))
            return said != NULL &&
                   (rc_reply_is_error(answer, "EXECABORT") || rc_redirect_is(answer)) &&
                   repeat->guide->follow != NULL &&
                   repeat->guide->follow(repeat->guide->owner, said, place) && !place->is_asking;
    }
    return false;
}

/* One of the part's commands: what stands in its place. */
static int repeat_step(struct repeat *repeat, uint32_t at, const struct rc_command *asked)
{
    const struct rc_plan_guide *guide = repeat->guide;
    struct rc_plan_step step = repeat->steps[at];
    const rc_node *answer = answer_to(repeat, &step);
    struct rc_plan_place place = source(repeat)->place;
    if (rc_command_is_word(asked->name, "MULTI")) {
        repeat->is_transaction = true;
        repeat->place = place;
        repeat->is_repeated = is_aborted(repeat, at, &repeat->place);
    }
    if (repeat->is_transaction) {
        repeat->is_transaction =
            !rc_command_is_word(asked->name, "EXEC") && !rc_command_is_word(asked->name, "DISCARD");
        return repeat->is_repeated ? add_again(repeat, repeat->place, asked, step)
                                   : add_step(repeat->plan, step);
    }
    int script = rc_reply_is_error(answer, "NOSCRIPT") ? script_of(asked) : -1;
    if (script >= 0)
        return add_with_source(repeat, script, asked, step);
    if (rc_redirect_is(answer) && guide->follow != NULL &&
        guide->follow(guide->owner, answer, &place))
        return add_again(repeat, place, asked, step);
    enum rc_plan_how how = asked->count > 2 ? how_to_split(asked) : RC_PLAN_WHOLE;
    if (rc_reply_is_error(answer, "CROSSSLOT") && guide->owners != NULL && how != RC_PLAN_WHOLE) {
        struct sorter sorter =
            begin(asked->rest.at, (size_t)(asked->rest.end - asked->rest.at), guide->owners);
        return add_keys(repeat->plan, repeat->first, &sorter, asked, how);
    }
    if (RC_MUTANT(REPEAT_WHOLE))
        return add_again(repeat, place, asked, step);
    return add_step(repeat->plan, step);
}

static int repeat_steps(struct repeat *repeat)
{
    struct rc_command asked;
    int error = 0;
    for (uint32_t i = 0; i < repeat->step_count && error == 0; i++) {
        if (repeat->steps[i].part != repeat->part)
            error = add_step(repeat->plan, repeat->steps[i]);
        else if (!rc_command_next(&repeat->reader, &asked))
            error = RC_ERR_ARGUMENT;
        else
            error = repeat_step(repeat, i, &asked);
    }
    return error;
}

uint32_t rc_plan_repeat(struct rc_plan *plan, uint32_t part, const char *bytes, size_t len,
                        const struct rc_plan_guide *guide)
{
    struct rc_plan_step *before = plan->steps;
    uint32_t count = plan->step_count, room = plan->step_room;
    struct repeat repeat = {.plan = plan,
                            .guide = guide,
                            .part = part,
                            .first = plan->part_count,
                            .reader = {bytes, bytes + len},
                            .steps = before,
                            .step_count = count};
    plan->steps = NULL;
    plan->step_count = plan->step_room = 0;
    if (repeat_steps(&repeat) == 0 && plan->part_count > repeat.first) {
        free(before);
        return repeat.first;
    }
    plan->part_count = repeat.first;
    free(plan->steps);
    plan->steps = before;
    plan->step_count = count;
    plan->step_room = room;
    return 0;
}
