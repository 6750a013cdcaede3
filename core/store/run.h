/*
 * run - a script while it is done: its keys and arguments, and the commands it calls.
 *
 * What:    rc_run_call is redis.call: the command runs through the same code as on the wire. After
 *          one that reads, all keys the script has declared are tracked (Redis 7.0 does so). An
 *          error of a command, or an argument that is missing, ends the script: what follows does
 *          nothing, and its answer is that error.
 * Threads: the store's.
 * Memory:  values lie in store->script_out until the script ends; no command may be given one as an
 *          argument.
 * Errors:  as redis.call: the script ends, and answers the error.
 * Not:     no Lua: the functions in the tables of twins do by hand what the scripts say.
 */
#ifndef RC_RUN_H
#define RC_RUN_H

#include "base/sha1.h"
#include "store/store_own.h"

struct rc_run;

/* A script as the store does it. */
struct rc_twin {
    char sha[RC_SHA_LEN + 1]; /* of its source: what is changed there is no longer known here */
    void (*run)(struct rc_run *run);
};

/* Each ends with one that runs nothing. A new file of twins adds its table to the lists. */
extern const struct rc_twin rc_bloom_twins[], rc_count_twins[], rc_index_twins[], rc_lease_twins[];
extern const struct rc_twin rc_life_twins[], rc_limit_twins[], rc_lock_twins[];
extern const struct rc_twin rc_move_twins[], rc_queue_twins[], rc_session_twins[], rc_soft_twins[];
extern const struct rc_twin rc_swap_twins[], rc_sweep_twins[], rc_tag_twins[];
#define RC_TWIN_TABLES    rc_lease_twins, rc_limit_twins, rc_lock_twins, RC_TWINS_OF_STATE
#define RC_TWINS_OF_STATE rc_session_twins, RC_TWINS_OF_CALLS
#define RC_TWINS_OF_CALLS rc_bloom_twins, rc_count_twins, RC_TWINS_OF_MORE
#define RC_TWINS_OF_MORE  rc_index_twins, rc_life_twins, RC_TWINS_OF_KEYS
#define RC_TWINS_OF_KEYS  rc_move_twins, RC_TWINS_OF_REST
#define RC_TWINS_OF_REST  rc_queue_twins, rc_soft_twins, rc_swap_twins, rc_sweep_twins, rc_tag_twins

/* It writes each of its arguments under one key at most. */
bool rc_lease_twin_is_by_key(const struct rc_twin *twin);

struct rc_run {
    struct rc_call *call;
    const struct rc_twin *twin;
    const struct rc_text *keys;
    uint32_t key_count;
    const struct rc_text *args;
    uint32_t arg_count;
    bool failed; /* and answered */
};

/* What a command gave: '$' text, ':' number, '+' a status, '_' nothing. */
struct rc_value {
    char type;
    int64_t number;
    size_t start, len; /* in store->script_out */
};

/* KEYS[i] and ARGV[i], counted from 1 as Lua does. */
struct rc_text rc_run_key(const struct rc_run *run, uint32_t i);
struct rc_text rc_run_arg(const struct rc_run *run, uint32_t i);
struct rc_value rc_run_call(struct rc_run *run, const struct rc_text *words, uint32_t count);
/* rc_run_call by words in line. */
#define RC_RUN_CALL(run, ...)                                                                      \
    rc_run_call((run), (const struct rc_text[]){__VA_ARGS__},                                      \
                sizeof((const struct rc_text[]){__VA_ARGS__}) / sizeof(struct rc_text))
#define RC_WORD(text) ((struct rc_text){(text), sizeof(text) - 1})
/* GET KEYS[i]. */
struct rc_value rc_run_get(struct rc_run *run, uint32_t i);
/* KEYS[i], where it is there, is never evicted. Nothing in a script that has failed. */
void rc_run_pin(const struct rc_run *run, uint32_t i);

/* The text of a value; no bytes for what is none. */
struct rc_text rc_run_text(const struct rc_run *run, struct rc_value value);
bool rc_run_is(const struct rc_run *run, struct rc_value value, struct rc_text text);

/* Ends the script with an error; the text of a command's error line. */
void rc_run_fail(struct rc_run *run, struct rc_text error);
void rc_run_answer_int(struct rc_run *run, int64_t number);
void rc_run_answer_code(struct rc_run *run, int64_t code); /* {code} */
/* Begins {code, ...}: so many elements follow, by the other functions or rc_answer_*. */
void rc_run_answer_list(struct rc_run *run, size_t count, int64_t code);
void rc_run_answer_text(struct rc_run *run, struct rc_text text);

#endif
