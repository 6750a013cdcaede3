/*
 * sharing - which commands go over the connection that all callers share, and which do not.
 *
 * What:    judges the commands of one batch while they are written, argument by argument. What
 *          waits, or changes the connection for the next caller, goes over a lent connection
 *          (lend.h); a transaction goes over the shared one if the whole of it is in the batch.
 *          Some commands go over neither: what they are answered is no answer.
 * Threads: the caller's that writes the batch.
 * Memory:  part of the batch's op; texts are constant.
 * Errors:  a text that says what is wrong and what to do: rc_sharing_objection.
 * Not:     does not know what a command's keys are, nor whether the server knows the command.
 */
#ifndef RC_SHARING_H
#define RC_SHARING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rc_sharing_rule;

struct rc_sharing {
    bool is_lent;       /* the batch goes over a lent connection */
    bool in_multi;      /* behind MULTI, and EXEC has not come */
    uint8_t next;       /* enum sharing_next: what the next argument is to be looked at for */
    uint8_t skip;       /* so many arguments before that are none of our business */
    uint32_t left;      /* arguments of the command that are still to come */
    uint32_t arguments; /* of the command */
    const struct rc_sharing_rule *rule;   /* of the command, NULL: an ordinary one */
    const struct rc_sharing_rule *broken; /* by a command of the batch, NULL: none */
    const char *fault;                    /* another one: static text, NULL: none */
};

void rc_sharing_init(struct rc_sharing *sharing, bool is_lent, bool in_multi);
/* A command with so many arguments, its name included. */
void rc_sharing_begin(struct rc_sharing *sharing, uint32_t arguments);
void rc_sharing_look(struct rc_sharing *sharing, const char *bytes, size_t len);

/* Its next argument. Of most commands only the name is looked at. */
static inline void rc_sharing_argument(struct rc_sharing *sharing, const char *bytes, size_t len)
{
    sharing->left--;
    if (sharing->next != 0)
        rc_sharing_look(sharing, bytes, len);
}

enum { RC_SHARING_TEXT = 256 };
/* What forbids to send the batch as it is now: NULL, nothing; else `text`. */
const char *rc_sharing_objection(const struct rc_sharing *sharing, char text[RC_SHARING_TEXT]);

#endif
