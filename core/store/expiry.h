/*
 * expiry - the ends that keys are given: "EX 10", "PXAT 1700000000000".
 *
 * What:    reads them as Redis does, with its limits and error texts.
 * Threads: the store's.
 * Memory:  none.
 * Errors:  an answer to the call, in the words of Redis; false then.
 * Not:     does not expire anything: key.h does.
 */
#ifndef RC_EXPIRY_H
#define RC_EXPIRY_H

#include "store/store_own.h"

struct rc_expiry_unit {
    int64_t scale_ms; /* 1000: seconds; 1: milliseconds */
    bool is_absolute; /* since 1970, not from now */
};

/* EX, PX, EXAT or PXAT. */
bool rc_expiry_read_unit(struct rc_text word, struct rc_expiry_unit *unit);
/* The argument at `index` as an end since 1970; false: the call is answered with an error. */
bool rc_expiry_take(struct rc_call *call, uint32_t index, struct rc_expiry_unit unit,
                    bool must_be_positive, int64_t *expires_ms);
/* A key that is given this end is removed at once. */
bool rc_expiry_is_past(const struct rc_call *call, int64_t expires_ms);

#endif
