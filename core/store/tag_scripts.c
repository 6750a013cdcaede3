/* The script of soft invalidations by tags, done natively: lua/redcache/invalidate.lua has it. */
#include <string.h>

#include "engine/entry.h"
#include "store/run.h"

enum { HALF = 8, SIZE = RC_ENTRY_SIZE + 2 * HALF }; /* generations: hard, then soft */

/* Whether a value of raw bytes of that size stands under the key. */
static bool has_generations(struct rc_run *run)
{
    static const char head[] = {(char)RC_ENTRY_MAGIC, RC_ENTRY_VERSION, RC_KIND_VALUE,
                                RC_CODEC_RAW};
    struct rc_value found =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, 1), RC_WORD("0"), RC_WORD("40"));
    struct rc_text text = rc_run_text(run, found);
    return text.len == SIZE && memcmp(text.bytes, head, sizeof head) == 0;
}

static void change(struct rc_run *run)
{
    if (!has_generations(run)) {
        rc_run_answer_int(run, 0);
        return;
    }
    struct rc_text key = rc_run_key(run, 1), drawn = rc_run_arg(run, 1);
    struct rc_text version = {"", 0}, soft = {"", 0};
    if (drawn.len >= SIZE) {
        version = (struct rc_text){rc_entry_version(drawn.bytes), RC_NONCE_SIZE};
        soft = (struct rc_text){drawn.bytes + RC_ENTRY_SIZE + HALF, HALF};
    }
    RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, RC_WORD("8"), version);
    RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, RC_WORD("32"), soft);
    rc_run_answer_int(run, 1);
}

const struct rc_twin rc_tag_twins[] = {
    {"5fbedc894aaa4bbdf837f47e835e272216d2adb9", change},
    {"", NULL},
};
