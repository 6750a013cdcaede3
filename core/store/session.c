#include "store/session.h"

#include <stdlib.h>

#include "store/names.h"
#include "store/tracking.h"
#include "store/watch.h"

enum { FIRST_ROOM = 8 };

static bool has_slot(struct rc_store *store, uint32_t *slot)
{
    for (*slot = 0; *slot < store->session_room; ++*slot) {
        if (store->sessions[*slot] == NULL)
            return true;
    }
    uint32_t room = store->session_room == 0 ? FIRST_ROOM : store->session_room * 2;
    struct rc_session **sessions = realloc(store->sessions, room * sizeof(*sessions));
    if (sessions == NULL)
        return false;
    for (uint32_t i = store->session_room; i < room; i++)
        sessions[i] = NULL;
    store->sessions = sessions;
    store->session_room = room;
    return true;
}

struct rc_session *rc_session_new(struct rc_store *store)
{
    uint32_t slot;
    struct rc_session *session = has_slot(store, &slot) ? calloc(1, sizeof *session) : NULL;
    if (session == NULL)
        return NULL;
    rc_buf_init(&session->conn.output);
    rc_request_init(&session->request);
    rc_buf_init(&session->input);
    rc_buf_init(&session->name);
    rc_names_init(&session->channels);
    rc_names_init(&session->patterns);
    rc_names_init(&session->watched);
    rc_buf_init(&session->queued);
    session->store = store;
    session->id = ++store->last_id;
    session->slot = slot;
    session->resp = 2;
    store->sessions[slot] = session;
    store->session_count++;
    return session;
}

void rc_session_free(struct rc_session *session)
{
    struct rc_store *store = session->store;
    if (session->has_tracked)
        rc_tracking_forget(store, session);
    rc_watch_forget(session);
    store->sessions[session->slot] = NULL;
    store->session_count--;
    rc_buf_deinit(&session->conn.output);
    rc_request_deinit(&session->request);
    rc_buf_deinit(&session->input);
    rc_buf_deinit(&session->name);
    rc_names_deinit(&session->channels);
    rc_names_deinit(&session->patterns);
    rc_names_deinit(&session->watched);
    rc_buf_deinit(&session->queued);
    free(session);
}

int rc_session_kill(struct rc_store *store, uint64_t id, const struct rc_session *except)
{
    for (uint32_t i = 0; i < store->session_room; i++) {
        struct rc_session *session = store->sessions[i];
        if (session == NULL || session == except || session->id != id || session->conn.wants_close)
            continue;
        session->conn.wants_close = true;
        if (store->options.on_push != NULL)
            store->options.on_push(store->options.owner, &session->conn);
        return 1;
    }
    return 0;
}
