/*
 * watch - who watches which key, and whether it was changed since (WATCH).
 *
 * What:    a session's watched keys; one change of any of them marks the session.
 * Threads: the store's.
 * Memory:  names are the session's.
 * Errors:  RC_ERR_NOMEM, and then nothing was changed.
 * Not:     no keys: key.c tells what changes. Nothing is done while nobody watches.
 */
#ifndef RC_WATCH_H
#define RC_WATCH_H

#include "store/store_own.h"

int rc_watch_add(struct rc_session *session, uint32_t database, struct rc_text name);
/* The session watches nothing, and is marked no longer. */
void rc_watch_forget(struct rc_session *session);
/* A key was changed, or is gone. */
void rc_watch_tell(struct rc_store *store, uint32_t database, struct rc_text name);

#endif
