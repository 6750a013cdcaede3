/*
 * caller_own - what the files of a caller share.
 *
 * What:    caller_call.c (how any call begins and ends), caller_load.c, caller_lock.c,
 *          caller_batch.c and caller_tag.c above it, and caller.c (its life, reads and writes)
 *          above these. caller_audit.c judges from below them all, for the oracle.
 * Threads: the run's.
 * Memory:  none: callers are the world's.
 * Errors:  none.
 * Not:     for the files of a caller alone.
 */
#ifndef RC_SIM_CALLER_OWN_H
#define RC_SIM_CALLER_OWN_H

#include "driver/sim/caller.h"

/* After a fault so much may pass until all is well: a half-open connection is found by then. */
enum { SIM_SETTLED_US = 2500000 };
/* A call that ends so late is overdue: timers are exact here. */
enum { SIM_LATE_US = 5000 };

struct sim_world *sim_caller_world(const struct sim_caller *caller);
int sim_caller_machine(const struct sim_caller *caller);
int64_t sim_caller_max_stale_us(const struct sim_caller *caller);
int64_t sim_caller_timeout_ms(const struct sim_caller *caller); /* of one command */

/* In a cluster: its client knows the url's node alone, which may have gone; or it has not used a
   connection for so long that it does not know yet that it is half-open. */
bool sim_caller_is_lost(const struct sim_caller *caller);

/* It was told that a call, or one command of a batch, has failed: may that be? */
void sim_caller_failed(const struct sim_caller *caller, int status, const char *text, size_t len);

/* The call is over: thinks for a while. */
void sim_caller_rest(struct sim_caller *caller);
/* From now on an answer must be of that age at most, and know of what this machine has written. */
void sim_caller_claim(struct sim_caller *caller, int64_t allowance_us, const char *how);
/* Readies the op; its key; one command on that key; and off it goes. */
struct rc_op *sim_caller_op(struct sim_caller *caller, enum rc_op_kind kind);
void sim_caller_keep_key(struct sim_caller *caller);
void sim_caller_name_key(int key, char name[3]);
void sim_caller_encode(struct rc_op *op, const char *verb, int key);
void sim_caller_submit(struct sim_caller *caller, int64_t timeout_ms);
/* As the Lua side does before it asks the engine. Whether L0 or the near cache had it. */
bool sim_caller_look_near(struct sim_caller *caller);

void sim_caller_begin_load(struct sim_caller *caller);
void sim_caller_end_load(struct sim_caller *caller);
void sim_caller_end_loader(struct sim_caller *caller);
void sim_caller_end_publish(struct sim_caller *caller);

void sim_caller_begin_lock(struct sim_caller *caller);
void sim_caller_end_lock(struct sim_caller *caller);
void sim_caller_begin_unlock(struct sim_caller *caller);

void sim_caller_begin_batch(struct sim_caller *caller);
void sim_caller_end_batch(struct sim_caller *caller);
/* No command of it was answered. */
void sim_caller_fail_batch(struct sim_caller *caller, int status);

void sim_caller_begin_tagged(struct sim_caller *caller);
void sim_caller_end_tagged(struct sim_caller *caller);
void sim_caller_store_tagged(struct sim_caller *caller); /* its loader has ended */
void sim_caller_open_tags(struct sim_caller *caller);    /* in a new process */
void sim_caller_close_tags(struct sim_caller *caller);

#endif
