/*
 * bundle - ends of loads that are written behind each other, done by one run of a script.
 *
 * What:    what Redis spends on an EVALSHA is mostly spent before its first command. So publishes
 *          of one key each that stand in the output behind each other become one request for up to
 *          RC_BUNDLE_MOST keys (RC_SCRIPT_PUBLISH_MANY), as long as the driver has taken none of
 *          its bytes. It answers for each key whether its lease stood there, and the value does
 *          now. For all else - another lease, a newer value, an error of the whole - each request
 *          goes again with the script of its own, which says what stands there, and is done twice
 *          without harm.
 * Threads: the link's owner.
 * Memory:  a plain struct, of the link; the bytes are the output's.
 * Errors:  RC_ERR_NOMEM, and then the output is as it was.
 * Not:     a cluster (keys of several slots), servers that compare by themselves (ifeq.h), large
 *          values. Which requests it stands for: the link's list of those in flight.
 */
#ifndef RC_BUNDLE_H
#define RC_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/resp.h"

/* Nobody else is served meanwhile: some 50 us on a server of today. */
enum { RC_BUNDLE_MOST = 20 };

struct rc_bundle {
    bool is_off;    /* the server refuses it: not on this connection */
    bool is_known;  /* it has the script, which went out as a source once */
    uint32_t count; /* keys of the one that may grow; 0: there is none */
    size_t head_len, keys_len;
    size_t len; /* of it in the output, whose last bytes it is */
};

/* A connection was made. */
void rc_bundle_greet(struct rc_bundle *bundle);
/* What stands in the output stays as it is: other bytes follow, or the driver is sending it. */
static inline void rc_bundle_close(struct rc_bundle *bundle)
{
    bundle->count = 0;
}

/* Whether an EVALSHA of RC_SCRIPT_PUBLISH of that length may be part of one. */
bool rc_bundle_takes(const struct rc_bundle *bundle, size_t len);
/* It was appended to the output as it is, and may become one with the next. */
void rc_bundle_begin(struct rc_bundle *bundle, const char *bytes, size_t len);
/* Makes it part of the one at the output's end. *is_part false: it has no room there, and the
   caller begins another. */
int rc_bundle_add(struct rc_bundle *bundle, struct rc_buf *output, const char *bytes, size_t len,
                  bool *is_part);

/* Reads the answer for `count` keys: which of them are stored. */
void rc_bundle_read(struct rc_bundle *bundle, const rc_node *answer, uint32_t count,
                    bool stored[RC_BUNDLE_MOST]);

#endif
