/*
 * plan - which part of a call goes to which server, and how their answers become one.
 *
 * What:    sorts the commands of a call by the servers of their keys, each server's in the order
 *          they were asked in. A command's key is its first argument, that of a script the first
 *          one it declares. MGET, UNLINK, DEL, EXISTS and TOUCH of keys of several servers become
 *          one such command for each of them, and their answers one list or one sum. A command
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

/* What one server is asked. */
struct rc_plan_part {
    uint16_t owner;  /* the server's number */
    int32_t slot;    /* of its first key; RC_PLAN_ANY: it has none */
    uint32_t expect; /* answers to come */
    struct rc_buf bytes;
    struct rc_req *req; /* the caller's: under way, or NULL */
    int status;         /* 0, or why there are no answers: then `reply` is one error */
    struct rc_reply reply;
    uint32_t at;        /* its next answer that is not joined yet */
    uint32_t item, end; /* in that answer, a list: the next element, and behind the last */
    bool is_list;
};

/* What becomes of the answers to a command that was split. */
enum rc_plan_how { RC_PLAN_WHOLE, RC_PLAN_LIST, RC_PLAN_SUM };

/* Where the answer to a command comes from; some have one for each key, or each server. */
struct rc_plan_step {
    uint32_t part;
    uint32_t again; /* the part that has it, and not the error in `part`; 0: `part` has it */
    uint8_t how;    /* enum rc_plan_how */
    bool is_last;   /* of its command */
};

struct rc_plan {
    struct rc_plan_part *parts;
    uint32_t part_count, part_room;
    struct rc_plan_step *steps;
    uint32_t step_count, step_room;
};

enum { RC_PLAN_ANY = -1 }; /* any slot: RC_SLOT_ANY */

/* Whether all commands go to one server; *slot is then one of it that they are about. `owners`: the
   number of each slot's server. True as well where the commands cannot be read: let a server say
   so. */
bool rc_plan_is_whole(const char *bytes, size_t len, const uint16_t *owners, int32_t *slot);

void rc_plan_init(struct rc_plan *plan);
void rc_plan_deinit(struct rc_plan *plan);
/* Makes the parts. */
int rc_plan_split(struct rc_plan *plan, const char *bytes, size_t len, const uint16_t *owners);
/* One part, for what was sent as it is. */
int rc_plan_take_whole(struct rc_plan *plan, int32_t slot, uint32_t expect);

/* Why a part has no answers; `text` (NULL: none) is copied. */
void rc_plan_fail(struct rc_plan_part *part, int status, const char *text);
/* Whether a server has not run a script that it had forgotten. */
bool rc_plan_has_forgotten(const struct rc_reply *reply);
/* What this part's server did not run for that becomes a part of its own, with the scripts'
   sources: its number. `bytes` are those the part was sent as. 0: there is none, or no memory. */
uint32_t rc_plan_mend(struct rc_plan *plan, uint32_t part, const char *bytes, size_t len);

/* Takes the newest part away, which was made so: the errors are the answers. */
void rc_plan_unmend(struct rc_plan *plan, uint32_t again);

/* The last step of the command that begins at this one. */
static inline uint32_t rc_plan_last_step(const struct rc_plan *plan, uint32_t step)
{
    while (!plan->steps[step].is_last)
        step++;
    return step;
}

/* 0: some part has answers. Else one part's status: RC_ERR_UNKNOWN if there is such, for something
   may have been done; `*text` is that part's, NUL-ended, and "" where it has none. */
int rc_plan_status(const struct rc_plan *plan, const char **text);
/* Appends the answers in the order the commands were asked in, and resolves. */
int rc_plan_join(struct rc_plan *plan, struct rc_reply *out);

#endif
