#include "store/watch.h"

#include "store/names.h"

int rc_watch_add(struct rc_session *session, uint32_t database, struct rc_text name)
{
    bool is_first = session->watched.count == 0;
    int error = rc_names_add(&session->watched, database, name);
    if (error == 0 && is_first)
        session->store->watchers++;
    return error;
}

void rc_watch_forget(struct rc_session *session)
{
    session->store->watchers -= session->watched.count > 0;
    rc_names_clear(&session->watched);
    session->is_dirty = false;
}

void rc_watch_tell(struct rc_store *store, uint32_t database, struct rc_text name)
{
    for (uint32_t i = 0; store->watchers > 0 && i < store->session_room; i++) {
        struct rc_session *session = store->sessions[i];
        if (session != NULL && rc_names_has(&session->watched, database, name))
            session->is_dirty = true;
    }
}
