/*
 * unknown - the answer to a command the store does not have.
 *
 * What:    one of ours for a name that Redis knows, Redis' own for one that nobody knows.
 * Threads: the store's.
 * Memory:  none but the call's output.
 * Errors:  it is one; no memory: as answer.h says.
 * Not:     subcommands: rc_verb_do_second answers for those.
 */
#ifndef RC_UNKNOWN_H
#define RC_UNKNOWN_H

#include "store/store_own.h"

/* args and count of the call are set. */
void rc_unknown_refuse(struct rc_call *call);

#endif
