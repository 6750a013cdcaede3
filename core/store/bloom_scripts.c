/* The scripts of a filter of keys, done natively, as lua/redcache/bloom.lua has them. */
#include "store/run.h"

enum { MARK_LEN = 17, BITS_OF_BYTE = 8 };
/* Answers of add. */
enum { OTHER = 0, KNOWN, ADDED };

/* Sets one bit. Whether it was not set. Rounds down, as Lua does. */
static bool set_bit(struct rc_run *run, struct rc_text key, int64_t place)
{
    char digits[RC_TEXT_INT_MAX];
    int64_t low = (place % BITS_OF_BYTE + BITS_OF_BYTE) % BITS_OF_BYTE;
    int64_t byte_at = place / BITS_OF_BYTE - (place < 0 && low > 0 ? 1 : 0);
    struct rc_text at = {digits, rc_text_from_int(digits, byte_at)};
    struct rc_value value = RC_RUN_CALL(run, RC_WORD("GETRANGE"), key, at, at);
    struct rc_text found = rc_run_text(run, value);
    unsigned char byte = found.len == 0 ? 0 : (unsigned char)found.bytes[0];
    unsigned char more = (unsigned char)(byte | 1U << (unsigned)low);
    if (more == byte)
        return false;
    char changed = (char)more;
    RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, at, (struct rc_text){&changed, 1});
    return true;
}

static void add(struct rc_run *run)
{
    struct rc_text key = rc_run_key(run, 1), mark = rc_run_arg(run, 1);
    struct rc_value head = RC_RUN_CALL(run, RC_WORD("GETRANGE"), key, RC_WORD("0"), RC_WORD("16"));
    if (mark.len != MARK_LEN || !rc_run_is(run, head, mark)) {
        rc_run_answer_int(run, OTHER);
        return;
    }
    bool has_added = false;
    for (uint32_t i = 2; i <= run->arg_count; i++) {
        int64_t place = 0;
        (void)rc_text_to_int(rc_run_arg(run, i), &place);
        has_added = set_bit(run, key, place) || has_added;
    }
    rc_run_answer_int(run, has_added ? ADDED : KNOWN);
}

static void turn(struct rc_run *run)
{
    struct rc_text key = rc_run_key(run, 1);
    struct rc_value value = RC_RUN_CALL(run, RC_WORD("GET"), key);
    bool is_ours = value.type == '$' && rc_run_is(run, value, rc_run_arg(run, 1));
    if (is_ours)
        RC_RUN_CALL(run, RC_WORD("SET"), key, rc_run_arg(run, 2));
    rc_run_answer_int(run, is_ours ? 1 : 0);
}

const struct rc_twin rc_bloom_twins[] = {
    {"f4eaa57ea5cf1c7d024ac04067cc7915bf54d2ea", add},
    {"3240da5466b044d9005fa8d29f2eca088147e87b", turn},
    {"", NULL},
};
