/* The script of the index of a tag, done natively: lua/redcache/tag_index.lua has it. */
#include <string.h>

#include "store/run.h"

/* Arguments of the script. */
enum { MILLISECONDS = 1, MOST_BYTES, FIRST_NAME };
enum { HEAD = 2 /* bytes in front of the names: whether it was ever full, and a zero */ };

/* Whether `all` has the name between two zeros. */
static bool has(struct rc_text all, struct rc_text name)
{
    if (all.len == 0)
        return false;
    const char *at = all.bytes, *end = at + all.len;
    while ((at = memchr(at, 0, (size_t)(end - at))) != NULL) {
        at++;
        if ((size_t)(end - at) <= name.len)
            return false;
        if (memcmp(at, name.bytes, name.len) == 0 && at[name.len] == 0)
            return true;
    }
    return false;
}

static int append(struct rc_buf *more, struct rc_text name)
{
    int error = rc_buf_append(more, name.bytes, name.len);
    return error == 0 ? rc_buf_append(more, "", 1) : error;
}

/* Puts the names that are not in `all` behind the zero in `more`. How many there is no room for;
   -1: no memory. */
static int64_t gather(const struct rc_run *run, struct rc_text all, struct rc_buf *more)
{
    int64_t left = 0, most = 0;
    (void)rc_text_to_int(rc_run_arg(run, MOST_BYTES), &most);
    for (uint32_t i = FIRST_NAME; i <= run->arg_count; i++) {
        struct rc_text name = rc_run_arg(run, i);
        struct rc_text known = {more->bytes, more->end};
        if (has(all, name) || has(known, name))
            continue;
        if (all.len + more->end + name.len + 2 > (size_t)most)
            left++;
        else if (append(more, name) != 0)
            return -1;
    }
    return left;
}

static void add(struct rc_run *run)
{
    struct rc_text key = rc_run_key(run, 1);
    struct rc_value value = RC_RUN_CALL(run, RC_WORD("GET"), key);
    struct rc_buf more;
    rc_buf_init(&more);
    int64_t left =
        rc_buf_append(&more, "", 1) == 0 ? gather(run, rc_run_text(run, value), &more) : -1;
    char digits[RC_TEXT_INT_MAX];
    int64_t end = value.len < HEAD ? HEAD : (int64_t)value.len;
    struct rc_text at = {digits, rc_text_from_int(digits, end)};
    if (left < 0)
        rc_run_fail(run, RC_WORD("OOM no memory for the index"));
    else if (more.end > 1)
        RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, at,
                    (struct rc_text){more.bytes + 1, more.end - 1});
    if (left > 0)
        RC_RUN_CALL(run, RC_WORD("SETRANGE"), key, RC_WORD("0"), RC_WORD("\1\0"));
    RC_RUN_CALL(run, RC_WORD("PEXPIRE"), key, rc_run_arg(run, MILLISECONDS));
    rc_run_answer_int(run, left);
    rc_buf_deinit(&more);
}

const struct rc_twin rc_index_twins[] = {
    {"6dd0ad78f7e310617b4a2fb908f99802d1d7dc5a", add},
    {"", NULL},
};
