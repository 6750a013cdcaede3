/*
 * session - a connection as the store knows it.
 *
 * What:    made, found by its id, killed, freed.
 * Threads: the store's.
 * Memory:  the store owns its sessions.
 * Errors:  NULL: no memory.
 * Not:     reads no commands: request.h does.
 */
#ifndef RC_SESSION_H
#define RC_SESSION_H

#include "store/store_own.h"

struct rc_session *rc_session_new(struct rc_store *store); /* NULL: no memory */
void rc_session_free(struct rc_session *session);
/* Closes the session of that id, unless it is `except`. Returns how many that were. */
int rc_session_kill(struct rc_store *store, uint64_t id, const struct rc_session *except);

#endif
