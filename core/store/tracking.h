/*
 * tracking - who has read which name, and is told once when it changes.
 *
 * What:    client tracking in default mode. Names are shared by all databases. A session is told
 *          behind the answer to the command it does itself, all others at once.
 * Threads: the store's.
 * Memory:  tracked names are items: they take room, and are evicted as keys are, telling their
 *          sessions.
 * Errors:  none. Whom it cannot remember it tells at once; whom it cannot tell it closes.
 * Not:     no NOLOOP, OPTIN, OPTOUT, BCAST, REDIRECT.
 */
#ifndef RC_TRACKING_H
#define RC_TRACKING_H

#include "store/store_own.h"

/* The session has read `name`. store->found is its key, if it was the one found last. true:
   something was made for that, and the caller makes room (rc_key_track does). */
bool rc_tracking_remember(struct rc_store *store, struct rc_session *session, struct rc_text name);
/* `name` has changed. */
void rc_tracking_tell(struct rc_store *store, struct rc_text name);
/* Everything has: each session that tracks is told, whatever it has read. */
void rc_tracking_tell_all(struct rc_store *store);
/* The session ends. */
void rc_tracking_forget(struct rc_store *store, const struct rc_session *session);

#endif
