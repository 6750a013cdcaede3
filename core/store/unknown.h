/*
 * unknown - the answer to a command the store does not have.
 *
 * What:    one of ours for a name that Redis knows, Redis' own for one that nobody knows.
 * Threads: the store's.
 * Memory:  none but the call's output.
 * Errors:  it is one; no memory: as answer.h says.
 * Not:     subcommands: rc_verb_do_second answers for those, with RC_UNKNOWN_LACKED.
 */
#ifndef RC_UNKNOWN_H
#define RC_UNKNOWN_H

#include "store/store_own.h"

/* What a command is answered that Redis has and the store has not. Its name is left out: no error
   repeats what was sent, and the caller that tells of it says which command it ran. */
#define RC_UNKNOWN_LACKED "ERR memory:// has no such command: give redcache.new the url of a server"

/* args and count of the call are set. */
void rc_unknown_refuse(struct rc_call *call);

#endif
