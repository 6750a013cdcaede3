/*
 * replay - deletes of the last seconds, sent again on a new connection.
 *
 * What:    a failover may lose a delete that was acknowledged, and the old value would be back. So
 *          a delete is repeated when the connection it went over has ended within ten seconds.
 *          Deleting twice costs a miss at most.
 * Threads: the engine's owner.
 * Memory:  a bounded ring of copied requests; the oldest makes room.
 * Errors:  none: without memory a delete is simply not repeated.
 */
#ifndef RC_REPLAY_H
#define RC_REPLAY_H

#include "base/buf.h"
#include "engine/link.h"

enum { RC_REPLAY_ENTRIES = 1024, RC_REPLAY_BYTES = 1024 * 1024 };

struct rc_replay_entry {
    struct rc_buf request;
    int64_t sent_us;
    uint64_t epoch; /* of the link it was sent over */
};

struct rc_replay {
    struct rc_replay_entry *entries; /* RC_REPLAY_ENTRIES of them, made with the first delete */
    size_t next;
    size_t bytes;
};

void rc_replay_init(struct rc_replay *replay);
void rc_replay_deinit(struct rc_replay *replay);
void rc_replay_note(struct rc_replay *replay, const struct rc_link *link,
                    const struct rc_buf *request);
/* The link is ready again. */
void rc_replay_send(struct rc_replay *replay, struct rc_link *link);

#endif
