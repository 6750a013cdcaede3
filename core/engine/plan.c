#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/slot.h"
#include "engine/command.h"
#include "engine/script.h"

/* Commands that do to each key what they do to the others. The answer is a list, or a number. */
static const struct {
    const char *name;
    uint8_t how;
} SPLITS[] = {{"MGET", RC_PLAN_LIST},
              {"UNLINK", RC_PLAN_SUM},
              {"DEL", RC_PLAN_SUM},
              {"EXISTS", RC_PLAN_SUM},
              {"TOUCH", RC_PLAN_SUM}};

/* ---- reading commands ------------------------------------------------------------------------ */

struct reader {
    const char *at, *end;
};

struct word {
    const char *bytes;
    size_t len;
};

/* One command: "*3", its name, and the rest. */
struct asked {
    const char *start;
    size_t len;
    uint32_t count; /* words, its name included */
    struct word name;
    struct reader rest; /* the words behind the name */
};

static bool read_head(struct reader *reader, char type, size_t *number)
{
    const char *at = reader->at;
    size_t value = 0;
    if (at == reader->end || *at++ != type)
        return false;
    while (at < reader->end && *at >= '0' && *at <= '9' && value < SIZE_MAX / 16)
        value = value * 10 + (size_t)(*at++ - '0');
    if (reader->end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return false;
    reader->at = at + 2;
    *number = value;
    return true;
}

static bool read_word(struct reader *reader, struct word *word)
{
    size_t len;
    if (!read_head(reader, '$', &len) || (size_t)(reader->end - reader->at) < 2 ||
        len > (size_t)(reader->end - reader->at) - 2)
        return false;
    *word = (struct word){reader->at, len};
    reader->at += len + 2;
    return true;
}

static bool read_asked(struct reader *reader, struct asked *asked)
{
    size_t count;
    struct word word;
    asked->start = reader->at;
    if (!read_head(reader, '*', &count) || count == 0 || count > UINT32_MAX ||
        !read_word(reader, &asked->name))
        return false;
    asked->rest = *reader;
    for (size_t i = 1; i < count; i++) {
        if (!read_word(reader, &word))
            return false;
    }
    asked->count = (uint32_t)count;
    asked->len = (size_t)(reader->at - asked->start);
    asked->rest.end = reader->at;
    return true;
}

static bool is_word(struct word word, const char *text)
{
    return word.len == strlen(text) && strncasecmp(word.bytes, text, word.len) == 0;
}

static bool is_script(const struct asked *asked)
{
    return is_word(asked->name, "EVALSHA") || is_word(asked->name, "EVAL");
}

/* The key that says where the command belongs. */
static bool find_key(const struct asked *asked, struct word *key)
{
    struct reader rest = asked->rest;
    struct word source, count;
    if (!is_script(asked))
        return read_word(&rest, key);
    return read_word(&rest, &source) && read_word(&rest, &count) && !is_word(count, "0") &&
           read_word(&rest, key);
}

static enum rc_plan_how how_to_split(const struct asked *asked)
{
    for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++) {
        if (is_word(asked->name, SPLITS[i].name))
            return SPLITS[i].how;
    }
    return RC_PLAN_WHOLE;
}

/* ---- where commands go ----------------------------------------------------------------------- */

struct place {
    uint16_t owner;
    int32_t slot;
};

struct sorter {
    struct reader reader;
    const uint16_t *owners;
    struct place last; /* where the command before went */
    bool is_transaction;
};

static struct sorter begin(const char *bytes, size_t len, const uint16_t *owners)
{
    return (struct sorter){
        .reader = {bytes, bytes + len},
        .owners = owners,
        .last = {owners[0], RC_PLAN_ANY},
    };
}

static struct place place_of(const struct sorter *sorter, struct word key)
{
    uint16_t slot = rc_slot(key.bytes, key.len);
    return (struct place){sorter->owners[slot], slot};
}

/* MULTI was read: where the first key is that stands before its EXEC. */
static struct place look_ahead(const struct sorter *sorter)
{
    struct reader reader = sorter->reader;
    struct asked asked;
    struct word key;
    while (reader.at < reader.end && read_asked(&reader, &asked) && !is_word(asked.name, "EXEC")) {
        if (find_key(&asked, &key))
            return place_of(sorter, key);
    }
    return sorter->last;
}

static bool is_of_one_owner(const struct sorter *sorter, const struct asked *asked, uint16_t owner)
{
    struct reader rest = asked->rest;
    struct word key;
    while (rest.at < rest.end && read_word(&rest, &key)) {
        if (place_of(sorter, key).owner != owner)
            return false;
    }
    return true;
}

/* The next command, and where it goes: sorter->last. RC_PLAN_WHOLE: there, in one piece. */
static bool next(struct sorter *sorter, struct asked *asked, enum rc_plan_how *how)
{
    struct word key;
    if (!read_asked(&sorter->reader, asked))
        return false;
    *how = RC_PLAN_WHOLE;
    if (is_word(asked->name, "MULTI")) {
        sorter->is_transaction = true;
        sorter->last = look_ahead(sorter);
    } else if (is_word(asked->name, "EXEC") || is_word(asked->name, "DISCARD")) {
        sorter->is_transaction = false;
    } else if (!sorter->is_transaction && find_key(asked, &key)) {
        sorter->last = place_of(sorter, key);
        enum rc_plan_how splits = asked->count > 2 ? how_to_split(asked) : RC_PLAN_WHOLE;
        if (splits != RC_PLAN_WHOLE && !is_of_one_owner(sorter, asked, sorter->last.owner))
            *how = splits;
    }
    return true;
}

bool rc_plan_is_whole(const char *bytes, size_t len, const uint16_t *owners, int32_t *slot)
{
    struct sorter sorter = begin(bytes, len, owners);
    struct asked asked;
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
    for (uint32_t i = 0; i < plan->part_count; i++) {
        rc_buf_deinit(&plan->parts[i].bytes);
        rc_reply_deinit(&plan->parts[i].reply);
    }
    free(plan->parts);
    free(plan->steps);
    rc_plan_init(plan);
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

static int add_part(struct rc_plan *plan, struct place place, uint32_t *number)
{
    struct rc_plan_part *parts =
        grow(plan->parts, plan->part_count, &plan->part_room, sizeof *parts);
    if (parts == NULL)
        return RC_ERR_NOMEM;
    plan->parts = parts;
    *number = plan->part_count++;
    struct rc_plan_part *part = &parts[*number];
    *part = (struct rc_plan_part){.owner = place.owner, .slot = place.slot};
    rc_buf_init(&part->bytes);
    rc_reply_init(&part->reply);
    return 0;
}

/* The part for a server: there are as many as servers, so few. */
static int find_part(struct rc_plan *plan, struct place place, uint32_t *number)
{
    for (uint32_t i = 0; i < plan->part_count; i++) {
        if (plan->parts[i].owner == place.owner) {
            *number = i;
            return 0;
        }
    }
    return add_part(plan, place, number);
}

static int add_step(struct rc_plan *plan, uint32_t part, enum rc_plan_how how, bool is_last)
{
    struct rc_plan_step *steps =
        grow(plan->steps, plan->step_count, &plan->step_room, sizeof *steps);
    if (steps == NULL)
        return RC_ERR_NOMEM;
    plan->steps = steps;
    steps[plan->step_count++] =
        (struct rc_plan_step){.part = part, .how = (uint8_t)how, .is_last = is_last};
    return 0;
}

static int add_whole(struct rc_plan *plan, struct place place, const struct asked *asked)
{
    uint32_t part;
    int error = find_part(plan, place, &part);
    if (error == 0)
        error = rc_buf_append(&plan->parts[part].bytes, asked->start, asked->len);
    if (error != 0)
        return error;
    plan->parts[part].expect++;
    return add_step(plan, part, RC_PLAN_WHOLE, true);
}

/* A command's keys, each by its part's number in `parts`, and their number by part in `counts`. */
static int sort_keys(struct rc_plan *plan, const struct sorter *sorter, const struct asked *asked,
                     struct rc_buf *parts, struct rc_buf *counts)
{
    struct reader rest = asked->rest;
    struct word key;
    int error = 0;
    while (error == 0 && rest.at < rest.end && read_word(&rest, &key)) {
        uint32_t part = 0, none = 0;
        error = find_part(plan, place_of(sorter, key), &part);
        while (error == 0 && rc_buf_len(counts) / sizeof none < plan->part_count)
            error = rc_buf_append(counts, &none, sizeof none);
        if (error == 0)
            error = rc_buf_append(parts, &part, sizeof part);
        if (error == 0)
            ((uint32_t *)(void *)counts->bytes)[part]++;
    }
    return error;
}

/* One step for each key, or for each server. */
static int add_steps(struct rc_plan *plan, enum rc_plan_how how, const uint32_t *parts,
                     uint32_t key_count, const uint32_t *counts)
{
    int error = 0;
    if (how == RC_PLAN_LIST) {
        for (uint32_t i = 0; i < key_count && error == 0; i++)
            error = add_step(plan, parts[i], RC_PLAN_LIST, i + 1 == key_count);
        return error;
    }
    for (uint32_t i = 0; i < plan->part_count && error == 0; i++) {
        if (counts[i] > 0)
            error = add_step(plan, i, RC_PLAN_SUM, false);
    }
    if (error == 0)
        plan->steps[plan->step_count - 1].is_last = true;
    return error;
}

/* A command for each server, with the keys that are its. */
static int write_pieces(struct rc_plan *plan, const struct asked *asked, const uint32_t *parts,
                        const uint32_t *counts)
{
    struct reader rest = asked->rest;
    struct word key;
    int error = 0;
    for (uint32_t i = 0; i < plan->part_count && error == 0; i++) {
        struct rc_plan_part *part = &plan->parts[i];
        if (counts[i] == 0)
            continue;
        error = rc_command_head(&part->bytes, counts[i] + 1);
        error |= rc_command_bytes(&part->bytes, asked->name.bytes, asked->name.len);
        part->expect++;
    }
    while (error == 0 && rest.at < rest.end && read_word(&rest, &key))
        error = rc_command_bytes(&plan->parts[*parts++].bytes, key.bytes, key.len);
    return error;
}

static int add_split(struct rc_plan *plan, const struct sorter *sorter, const struct asked *asked,
                     enum rc_plan_how how)
{
    struct rc_buf parts, counts;
    rc_buf_init(&parts);
    rc_buf_init(&counts);
    int error = sort_keys(plan, sorter, asked, &parts, &counts);
    const uint32_t *part_of = (const uint32_t *)(const void *)parts.bytes;
    const uint32_t *count_of = (const uint32_t *)(const void *)counts.bytes;
    if (error == 0)
        error = add_steps(plan, how, part_of, asked->count - 1, count_of);
    if (error == 0)
        error = write_pieces(plan, asked, part_of, count_of);
    rc_buf_deinit(&parts);
    rc_buf_deinit(&counts);
    return error == 0 ? 0 : RC_ERR_NOMEM;
}

int rc_plan_split(struct rc_plan *plan, const char *bytes, size_t len, const uint16_t *owners)
{
    struct sorter sorter = begin(bytes, len, owners);
    struct asked asked;
    enum rc_plan_how how;
    int error = 0;
    while (error == 0 && sorter.reader.at < sorter.reader.end) {
        if (!next(&sorter, &asked, &how))
            return RC_ERR_ARGUMENT;
        error = how == RC_PLAN_WHOLE ? add_whole(plan, sorter.last, &asked)
                                     : add_split(plan, &sorter, &asked, how);
    }
    return error;
}

int rc_plan_take_whole(struct rc_plan *plan, int32_t slot, uint32_t expect)
{
    uint32_t part = 0;
    int error = add_part(plan, (struct place){0, slot}, &part);
    for (uint32_t i = 0; i < expect && error == 0; i++)
        error = add_step(plan, part, RC_PLAN_WHOLE, true);
    if (error == 0)
        plan->parts[part].expect = expect;
    return error;
}

/* ---- forgotten scripts ----------------------------------------------------------------------- */

static bool is_forgotten(const rc_node *node)
{
    static const char CODE[] = "NOSCRIPT";
    return node->type == '-' && node->len >= sizeof CODE - 1 &&
           memcmp(node->str, CODE, sizeof CODE - 1) == 0;
}

bool rc_plan_has_forgotten(const struct rc_reply *reply)
{
    for (uint32_t i = 0; i < reply->count; i = rc_reply_skip(reply, i)) {
        if (is_forgotten(&reply->nodes[i]))
            return true;
    }
    return false;
}

/* The script of an EVALSHA; negative: it is none of ours, or none. */
static int script_of(const struct asked *asked)
{
    struct reader rest = asked->rest;
    struct word sha;
    return is_word(asked->name, "EVALSHA") && read_word(&rest, &sha) && sha.len == RC_SHA_LEN
               ? rc_script_find(sha.bytes)
               : -1;
}

static bool is_in(const struct rc_plan *plan, uint32_t first, uint32_t last, uint32_t part)
{
    while (first <= last && plan->steps[first].part != part)
        first++;
    return first <= last;
}

/* Appends a command that was not run to the part for such, which is made with the first. */
static int repeat(struct rc_plan *plan, uint32_t part, const struct asked *asked, int script,
                  uint32_t *again)
{
    int error = 0;
    if (*again == 0)
        error =
            add_part(plan, (struct place){plan->parts[part].owner, plan->parts[part].slot}, again);
    struct rc_plan_part *more = &plan->parts[*again];
    if (error == 0)
        error = rc_script_as_eval(&more->bytes, script, asked->start, asked->len);
    if (error == 0)
        more->expect++;
    return error;
}

void rc_plan_unmend(struct rc_plan *plan, uint32_t again)
{
    for (uint32_t i = 0; i < plan->step_count; i++) {
        if (plan->steps[i].again == again)
            plan->steps[i].again = 0;
    }
    rc_buf_deinit(&plan->parts[again].bytes);
    rc_reply_deinit(&plan->parts[again].reply);
    plan->part_count--;
}

uint32_t rc_plan_mend(struct rc_plan *plan, uint32_t part, const char *bytes, size_t len)
{
    struct reader reader = {bytes, bytes + len};
    struct asked asked;
    uint32_t again = 0, at = 0;
    for (uint32_t first = 0, last; first < plan->step_count; first = last + 1) {
        last = rc_plan_last_step(plan, first);
        if (!is_in(plan, first, last, part))
            continue;
        const struct rc_reply *reply = &plan->parts[part].reply;
        if (at >= reply->count || !read_asked(&reader, &asked))
            break;
        int script = is_forgotten(&reply->nodes[at]) ? script_of(&asked) : -1;
        at = rc_reply_skip(reply, at);
        if (script < 0)
            continue;
        if (repeat(plan, part, &asked, script, &again) != 0) {
            if (again > 0)
                rc_plan_unmend(plan, again);
            return 0;
        }
        plan->steps[first].again = again;
    }
    return again;
}
