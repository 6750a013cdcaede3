/* The script of soft invalidations, done natively: lua/redcache/soft.lua has it. */
#include "store/present.h"

static void make_stale(struct rc_run *run, int64_t grace_ms)
{
    char digits[RC_TEXT_INT_MAX];
    struct rc_text key = rc_run_key(run, 1), header = rc_run_arg(run, 1);
    struct rc_text ms = {digits, rc_text_from_int(digits, grace_ms)};
    struct rc_text version = {"", 0};
    if (header.len >= RC_ENTRY_SIZE)
        version = (struct rc_text){rc_entry_version(header.bytes), RC_NONCE_SIZE};
    RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, RC_WORD("8"), version);
    int64_t left = RC_RUN_CALL(run, RC_WORD("PTTL"), key).number;
    if (left < 0 || left > grace_ms)
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), key, ms);
    rc_run_answer_int(run, 2);
}

static void soften(struct rc_run *run)
{
    char bytes[RC_PRESENT_HEAD];
    struct rc_text head = rc_present_head(run, 1, bytes);
    if (head.bytes == NULL) {
        rc_run_answer_int(run, 0);
        return;
    }
    int64_t grace_ms = rc_present_is_nothing(run, 1, head) ? 0 : rc_present_grace_ms(head);
    if (grace_ms > 0) {
        make_stale(run, grace_ms);
        return;
    }
    RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
    rc_run_answer_int(run, 1);
}

const struct rc_twin rc_soft_twins[] = {
    {"5582e60cda2b023ecd6bb1f9c963bf65878efc55", soften},
    {"", NULL},
};
