/*
 * plan - which part of a call goes to which server, and how their answers become one.
 *
 * What:    sorts the commands of a call by the servers of their keys, each server's in the order
 *          they were asked in. A command's key is its first argument, that of a script the first
 *          one it declares. MGET, UNLINK, DEL, EXISTS and TOUCH of keys of several servers become
 *          one such command for each key, and their answers one list or one sum. A command
 *          without a key goes where the one before it went. What stands between MULTI and EXEC
 *          goes where its first key is. And what a server that has forgotten a script did not run
 *          becomes one more part.
 * Threads: pure.
 * Memory:  owns its parts.
 * Errors:  RC_ERR_NOMEM; RC_ERR_ARGUMENT where a command has not the arguments it has announced.
 *          A part that failed gives its error to each of its answers, and no other part's.
 * Not:     sends nothing. Keeps no order between servers. Knows few commands by name: of one whose
 *          key stands elsewhere the server that is asked says that the key is not its own.
 */
#ifndef RC_PLAN_H
#define RC_PLAN_H

#include "base/buf.h"
#include "engine/resp.h"

struct rc_req;

struct rc_plan_place {
    uint16_t owner; /* the server's number */
    int32_t slot;   /* one that is asked about; RC_PLAN_ANY: none is */
    bool is_asking; /* behind ASKING: the slot is on its way there */
};

/* What one server is asked. */
struct rc_plan_part {
    struct rc_plan_place place;
    uint32_t expect; /* answers to come */
    struct rc_buf bytes;
    struct rc_req *req; /* the caller's: under way, or NULL */
    int status;         /* 0, or why there are no answers: then `reply` is one error */
    struct rc_reply reply;
    size_t base; /* while answers are joined: where its texts begin among all */
};

/* What becomes of the answers to a command that was split. */
enum rc_plan_how { RC_PLAN_WHOLE, RC_PLAN_LIST, RC_PLAN_SUM };

/* One answer to come; a command that was split has one for each key. */
struct rc_plan_step {
    uint32_t part;
    uint32_t at;  /* where in the part's reply it begins, once that is there */
    uint8_t how;  /* enum rc_plan_how */
    bool is_last; /* of its command */
};

struct rc_plan {
    struct rc_plan_part *parts;
    uint32_t part_count, part_room;
    uint32_t
        made; /* parts whose buffers are ready: behind the last part wait those of earlier ones */
    struct rc_plan_step *steps;
    uint32_t step_count, step_room;
};

/* Where to go with what was not run. */
struct rc_plan_guide {
    const uint16_t *owners; /* the number of each slot's server; NULL: there is but one */
    void *owner;
    /* Where an error sends a command. False: nowhere; it is the answer. NULL: nowhere, ever. */
    bool (*follow)(void *owner, const rc_node *error, struct rc_plan_place *place);
};

enum { RC_PLAN_ANY = -1 }; /* any slot: RC_SLOT_ANY */

/* Whether all commands go to one server as they are; *slot is then one that they are about.
   `owners`: the number of each slot's server. True as well where the commands cannot be read: let a
   server say so. */
bool rc_plan_is_whole(const char *bytes, size_t len, const uint16_t *owners, int32_t *slot);

void rc_plan_init(struct rc_plan *plan);
void rc_plan_deinit(struct rc_plan *plan);
/* Empties it, for another call: it keeps its room. */
void rc_plan_clear(struct rc_plan *plan);
/* Bytes of all that room. */
size_t rc_plan_room(const struct rc_plan *plan);
/* Makes the parts. */
int rc_plan_split(struct rc_plan *plan, const char *bytes, size_t len, const uint16_t *owners);
/* One part, for what was sent as it is. */
int rc_plan_take_whole(struct rc_plan *plan, int32_t slot, uint32_t expect);

/* Takes a part's answers. */
void rc_plan_answer(struct rc_plan *plan, uint32_t part, struct rc_reply *reply);
/* Why a part has none; `text` (NULL: none) is copied. */
void rc_plan_fail(struct rc_plan_part *part, int status, const char *text);
/* Whether some commands were not run that another attempt may run: the server has forgotten a
   script, the slot is elsewhere, or the keys of a command are of several slots. */
bool rc_plan_has_undone(const struct rc_reply *reply);
/* What this part's server did not run for such a reason becomes parts again: the number of the
   first of them, which are the last ones. `bytes` are those the part was sent as. 0: there is
   nothing, or no memory; the errors are the answers. */
uint32_t rc_plan_repeat(struct rc_plan *plan, uint32_t part, const char *bytes, size_t len,
                        const struct rc_plan_guide *guide);

/* The last step of the command that begins at this one. */
static inline uint32_t rc_plan_last_step(const struct rc_plan *plan, uint32_t step)
{
    while (!plan->steps[step].is_last)
        step++;
    return step;
}

/* 0: some part has answers. Else one part's status: RC_ERR_UNKNOWN or RC_ERR_TIMEOUT if there is
   such, for something may have been done; `*text` is that part's, NUL-ended, and "" where it has
   none. */
int rc_plan_status(const struct rc_plan *plan, const char **text);
/* Appends the answers in the order the commands were asked in, and resolves. */
int rc_plan_join(struct rc_plan *plan, struct rc_reply *out);

#endif
