#include "store/present.h"

#include <string.h>

struct rc_text rc_present_bytes(struct rc_run *run, uint32_t key, char bytes[RC_PRESENT_HEAD])
{
    struct rc_value value =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, key), RC_WORD("0"), RC_WORD("24"));
    struct rc_text text = rc_run_text(run, value);
    size_t len = text.len < RC_PRESENT_HEAD ? text.len : RC_PRESENT_HEAD;
    if (len > 0)
        memcpy(bytes, text.bytes, len);
    return (struct rc_text){bytes, len};
}

struct rc_text rc_present_head(struct rc_run *run, uint32_t key, char bytes[RC_PRESENT_HEAD])
{
    struct rc_text head = rc_present_bytes(run, key, bytes);
    if (head.len == 0 && RC_RUN_CALL(run, RC_WORD("EXISTS"), rc_run_key(run, key)).number != 1)
        head.bytes = NULL;
    return head;
}

bool rc_present_is_nothing(struct rc_run *run, uint32_t key, struct rc_text value)
{
    if (value.bytes == NULL)
        return true;
    uint8_t kind = rc_entry_form(value.bytes, value.len);
    return kind == RC_KIND_NEGATIVE ||
           ((kind == RC_KIND_LEASE || kind == RC_KIND_ERROR) &&
            RC_RUN_CALL(run, RC_WORD("PTTL"), rc_run_key(run, key)).number >= 0);
}

int64_t rc_present_grace_ms(struct rc_text head)
{
    const uint8_t *at = (const uint8_t *)head.bytes + 16;
    if (rc_entry_form(head.bytes, head.len) != RC_KIND_VALUE)
        return 0;
    return (int64_t)at[0] | (int64_t)at[1] << 8 | (int64_t)at[2] << 16 | (int64_t)at[3] << 24;
}
