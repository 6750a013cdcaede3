/*
 * count_script - the script of counters, for the simulator's callers.
 *
 * What:    that of lua/redcache/count.lua, which count_source.cmake takes from there. The embedded
 *          store has a twin, which knows it by its SHA.
 * Threads: the run's.
 * Memory:  the process's, as of all scripts.
 * Errors:  one that the store has no twin of is our own fault: an assertion.
 * Not:     says nothing of its arguments: caller_batch.c gives them.
 */
#ifndef RC_SIM_COUNT_SCRIPT_H
#define RC_SIM_COUNT_SCRIPT_H

/* Its number among the scripts; negative: RC_ERR_NOMEM. */
int sim_count_script(void);

#endif
