/*
 * verb - the commands the store knows, and what is checked before one is done.
 *
 * What:    finds a command by its name; does a call or says why not.
 * Threads: the store's.
 * Memory:  tables of commands are constant.
 * Errors:  an error answer; nothing was changed then.
 * Not:     the commands themselves are in the files of the tables below.
 */
#ifndef RC_VERB_H
#define RC_VERB_H

#include "store/store_own.h"

enum rc_verb_flags {
    RC_VERB_READS = 1,      /* its keys are tracked */
    RC_VERB_WRITES = 2,     /* a replica refuses it */
    RC_VERB_GROWS = 4,      /* room is made for what it may store before it runs */
    RC_VERB_LOADING = 8,    /* done while the role is LOADING, too */
    RC_VERB_KEY = 16,       /* the first argument is a key */
    RC_VERB_KEYS = 32,      /* all arguments may be */
    RC_VERB_ANY_COUNT = 64, /* of arguments */
    RC_VERB_AT_ONCE = 128   /* between MULTI and EXEC, too */
};

enum { RC_VERB_NAME = 16 };

struct rc_verb {
    char name[RC_VERB_NAME]; /* upper case, filled up with NULs */
    int arity;               /* words, its name included; negative: at least so many */
    unsigned flags;
    void (*run)(struct rc_call *call);
};

/* Each ends with one that runs nothing. */
extern const struct rc_verb rc_compare_verbs[]; /* of a store that compares */
extern const struct rc_verb rc_connection_verbs[];
extern const struct rc_verb rc_counter_verbs[];
extern const struct rc_verb rc_expiry_verbs[];
extern const struct rc_verb rc_keyspace_verbs[];
extern const struct rc_verb rc_multi_verbs[];
extern const struct rc_verb rc_pubsub_verbs[];
extern const struct rc_verb rc_script_verbs[];
extern const struct rc_verb rc_server_verbs[];
extern const struct rc_verb rc_set_verbs[];
extern const struct rc_verb rc_string_verbs[];

/* The store knows these from now on. */
void rc_verb_add(struct rc_store *store, const struct rc_verb *verbs);
/* NULL: the store has no such command. */
const struct rc_verb *rc_verb_find(const struct rc_store *store, struct rc_text name);
/* args, count, session, store, out and resp of the call are set. */
void rc_verb_do(struct rc_call *call);
/* What was queued since MULTI is forgotten, and MULTI. */
void rc_verb_end_multi(struct rc_session *session);
/* In lower case, as error texts have it. */
const char *rc_verb_name(const struct rc_verb *verb, char name[32]);

/* A command of two words: does `verbs` by the second one. `others`: names that Redis knows and we
   do not, for rc_text_is_among. */
void rc_verb_do_second(struct rc_call *call, const struct rc_verb *verbs, const char *others);

#endif
