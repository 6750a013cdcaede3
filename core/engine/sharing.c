#include "engine/sharing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* What the next argument is looked at for. */
enum sharing_next {
    NOTHING,
    NAME,       /* of the command */
    SUBCOMMAND, /* of the container that `rule` names */
    BLOCK,      /* among the options of XREAD and XREADGROUP */
};

enum where {
    LENT,    /* over a lent connection only */
    NOWHERE, /* over none */
    LISTENS, /* over a lent one, one name each: one answer each */
    /* These say more with what follows. */
    CONTAINER,
    READS_STREAMS,
    BEGINS_MULTI,
    ENDS_MULTI
};

struct rc_sharing_rule {
    const char *name;
    enum where where;
    const char *reason;
};

static const char WAITS[] = "waits, and would hold up all who share the connection";
static const char KEEPS[] = "changes the connection for all who share it";
static const char STREAMS[] = "is answered by messages, which no connection passes on";
static const char HEARS[] = "is followed by messages, which a shared connection does not pass on";
static const char OURS[] = "is up to redcache alone, which sends it with each connection";
static const char MUTES[] = "changes what is answered, and no answer would find its command";

static const struct rc_sharing_rule rules[] = {
    {"ASKING", LENT, KEEPS},
    {"AUTH", LENT, KEEPS},
    {"BLMOVE", LENT, WAITS},
    {"BLMPOP", LENT, WAITS},
    {"BLPOP", LENT, WAITS},
    {"BRPOP", LENT, WAITS},
    {"BRPOPLPUSH", LENT, WAITS},
    {"BZMPOP", LENT, WAITS},
    {"BZPOPMAX", LENT, WAITS},
    {"BZPOPMIN", LENT, WAITS},
    {"CLIENT", CONTAINER, NULL},
    {"DISCARD", ENDS_MULTI, NULL},
    {"EXEC", ENDS_MULTI, NULL},
    {"HELLO", NOWHERE, OURS},
    {"MONITOR", NOWHERE, STREAMS},
    {"MULTI", BEGINS_MULTI, NULL},
    {"PSUBSCRIBE", LISTENS, HEARS},
    {"PSYNC", NOWHERE, STREAMS},
    {"PUNSUBSCRIBE", LISTENS, HEARS},
    {"QUIT", NOWHERE, OURS},
    {"READONLY", LENT, KEEPS},
    {"READWRITE", LENT, KEEPS},
    {"REPLCONF", NOWHERE, STREAMS},
    {"RESET", NOWHERE, OURS},
    {"SCRIPT", CONTAINER, NULL},
    {"SELECT", LENT, KEEPS},
    {"SSUBSCRIBE", NOWHERE, STREAMS},
    {"SUBSCRIBE", LISTENS, HEARS},
    {"SUNSUBSCRIBE", NOWHERE, STREAMS},
    {"SYNC", NOWHERE, STREAMS},
    {"UNSUBSCRIBE", LISTENS, HEARS},
    {"UNWATCH", LENT, KEEPS},
    {"WAIT", LENT, WAITS},
    {"WAITAOF", LENT, WAITS},
    {"WATCH", LENT, KEEPS},
    {"XREAD", READS_STREAMS, NULL},
    {"XREADGROUP", READS_STREAMS, NULL},
};

/* What else CLIENT and SCRIPT can do is harmless. */
static const struct rc_sharing_rule subcommands[] = {
    {"CLIENT CACHING", NOWHERE, OURS},     {"CLIENT CAPA", LENT, KEEPS},
    {"CLIENT IMPORT-SOURCE", LENT, KEEPS}, {"CLIENT NO-EVICT", LENT, KEEPS},
    {"CLIENT NO-TOUCH", LENT, KEEPS},      {"CLIENT REPLY", NOWHERE, MUTES},
    {"CLIENT SETINFO", LENT, KEEPS},       {"CLIENT SETNAME", LENT, KEEPS},
    {"CLIENT TRACKING", NOWHERE, OURS},    {"SCRIPT DEBUG", NOWHERE, MUTES},
};

static const struct rc_sharing_rule blocking = {"XREAD or XREADGROUP with BLOCK", LENT, WAITS};

enum { RULES = sizeof rules / sizeof rules[0], SUBCOMMANDS = sizeof subcommands / sizeof *rules };

/* Bit `len` of a letter's word: there is a rule for a name of that length. Nearly all names of
   commands are told apart from ours by these alone. */
static const uint32_t LENGTHS[26] = {
    ['A' - 'A'] = 1u << 6 | 1u << 4,
    ['B' - 'A'] = 1u << 5 | 1u << 6 | 1u << 8 | 1u << 10,
    ['C' - 'A'] = 1u << 6,
    ['D' - 'A'] = 1u << 7,
    ['E' - 'A'] = 1u << 4,
    ['H' - 'A'] = 1u << 5,
    ['M' - 'A'] = 1u << 5 | 1u << 7,
    ['P' - 'A'] = 1u << 5 | 1u << 10 | 1u << 12,
    ['Q' - 'A'] = 1u << 4,
    ['R' - 'A'] = 1u << 5 | 1u << 8 | 1u << 9,
    ['S' - 'A'] = 1u << 4 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 12,
    ['U' - 'A'] = 1u << 7 | 1u << 11,
    ['W' - 'A'] = 1u << 4 | 1u << 5 | 1u << 7,
    ['X' - 'A'] = 1u << 5 | 1u << 10,
};

void rc_sharing_init(struct rc_sharing *sharing, bool is_lent, bool in_multi)
{
    memset(sharing, 0, sizeof *sharing);
    sharing->is_lent = is_lent;
    sharing->in_multi = in_multi;
}

static void break_rule(struct rc_sharing *sharing, const struct rc_sharing_rule *rule)
{
    bool is_free = sharing->is_lent && (rule->where == LENT || rule->where == LISTENS);
    if (!is_free && sharing->broken == NULL)
        sharing->broken = rule;
}

void rc_sharing_begin(struct rc_sharing *sharing, uint32_t arguments)
{
    if (sharing->left != 0 || arguments == 0)
        sharing->fault = "a command has other arguments than were announced for it";
    sharing->left = sharing->arguments = arguments;
    sharing->next = NAME;
    sharing->skip = 0;
    sharing->rule = NULL;
}

static bool is(const char *bytes, size_t len, const char *name)
{
    return strlen(name) == len && strncasecmp(bytes, name, len) == 0;
}

static const struct rc_sharing_rule *find(const char *name, size_t len)
{
    unsigned letter = len > 0 ? ((unsigned char)name[0] & ~0x20u) - 'A' : 26;
    if (letter >= 26 || len >= 32 || (LENGTHS[letter] >> len & 1) == 0)
        return NULL;
    for (size_t i = 0; i < RULES; i++) {
        if (is(name, len, rules[i].name))
            return &rules[i];
    }
    return NULL;
}

static void look_at_name(struct rc_sharing *sharing, const char *name, size_t len)
{
    const struct rc_sharing_rule *rule = sharing->rule = find(name, len);
    if (rule == NULL)
        return;
    switch (rule->where) {
    case LENT:
    case NOWHERE: break_rule(sharing, rule); break;
    case CONTAINER: sharing->next = SUBCOMMAND; break;
    case READS_STREAMS: sharing->next = BLOCK; break;
    case LISTENS:
        break_rule(sharing, rule);
        if (sharing->is_lent && (sharing->arguments != 2 || sharing->in_multi))
            sharing->fault = "subscriptions go one by one, and not between MULTI and EXEC";
        break;
    case BEGINS_MULTI: sharing->in_multi = true; break;
    case ENDS_MULTI: /* with arguments it is refused, and the transaction stays open */
        sharing->in_multi &= sharing->arguments != 1;
        break;
    }
}

static void look_at_subcommand(struct rc_sharing *sharing, const char *name, size_t len)
{
    size_t head = strlen(sharing->rule->name);
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        const struct rc_sharing_rule *rule = &subcommands[i];
        if (strncmp(rule->name, sharing->rule->name, head) == 0 && rule->name[head] == ' ' &&
            is(name, len, rule->name + head + 1))
            break_rule(sharing, rule);
    }
}

/* [GROUP group consumer] [COUNT n] [BLOCK ms] [NOACK] STREAMS ...: a group may be called BLOCK. */
static void look_at_option(struct rc_sharing *sharing, const char *name, size_t len)
{
    sharing->next = BLOCK;
    if (is(name, len, "GROUP"))
        sharing->skip = 2;
    else if (is(name, len, "COUNT"))
        sharing->skip = 1;
    else if (is(name, len, "BLOCK"))
        break_rule(sharing, &blocking);
    else if (is(name, len, "STREAMS"))
        sharing->next = NOTHING;
}

void rc_sharing_look(struct rc_sharing *sharing, const char *bytes, size_t len)
{
    enum sharing_next next = (enum sharing_next)sharing->next;
    if (sharing->skip > 0) {
        sharing->skip--;
        return;
    }
    sharing->next = NOTHING;
    if (next == NAME)
        look_at_name(sharing, bytes, len);
    else if (next == SUBCOMMAND)
        look_at_subcommand(sharing, bytes, len);
    else
        look_at_option(sharing, bytes, len);
}

const char *rc_sharing_objection(const struct rc_sharing *sharing, char text[RC_SHARING_TEXT])
{
    const struct rc_sharing_rule *rule = sharing->broken;
    const char *fault = sharing->fault;
    if (fault == NULL && sharing->left != 0)
        fault = "a command has other arguments than were announced for it";
    if (fault != NULL)
        snprintf(text, RC_SHARING_TEXT, "%s", fault);
    else if (rule != NULL && (rule->where == LENT || rule->where == LISTENS))
        snprintf(text, RC_SHARING_TEXT, "%s %s: it goes over a lent one (rc_lent_begin)",
                 rule->name, rule->reason);
    else if (rule != NULL)
        snprintf(text, RC_SHARING_TEXT, "%s %s", rule->name, rule->reason);
    else if (sharing->in_multi && !sharing->is_lent)
        snprintf(text, RC_SHARING_TEXT,
                 "MULTI without EXEC in the same batch would leave the transaction open for all "
                 "who share the connection: it goes over a lent one (rc_lent_begin)");
    else
        return NULL;
    return text;
}
