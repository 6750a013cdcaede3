/* Any string as an entry, under any PTTL a server may answer. What is read is what was written, and
   a copy never outlives its entry. */
#include "engine/entry.h"

#include <string.h>

#include "fuzz.h"

enum { RESERVED_AT = 5, MAX_VALUE = 100 };

static void check_foreign(const rc_result *result, const char *bytes, size_t len)
{
    static const char none[RC_NONCE_SIZE];
    FUZZ_CHECK(result->data == bytes && result->len == len);
    FUZZ_CHECK(result->codec == 0 && result->entry_flags == 0 && result->schema == 0);
    FUZZ_CHECK(result->stale_ms == 0 && result->load_ms == 0);
    FUZZ_CHECK(memcmp(result->version, none, sizeof none) == 0);
}

static void check_ours(const rc_result *result, const char *bytes, size_t len)
{
    char header[RC_ENTRY_SIZE], expected[RC_ENTRY_SIZE];
    rc_entry entry = {.kind = result->kind,
                      .codec = result->codec,
                      .entry_flags = result->entry_flags,
                      .schema = result->schema,
                      .stale_ms = result->stale_ms,
                      .load_ms = result->load_ms};
    FUZZ_CHECK(result->data == bytes + RC_ENTRY_SIZE && result->len == len - RC_ENTRY_SIZE);
    FUZZ_CHECK(result->kind != RC_KIND_LEASE || result->len == 0);
    memcpy(expected, bytes, sizeof expected);
    expected[RESERVED_AT] = 0;
    rc_entry_write(header, &entry, result->version);
    FUZZ_CHECK(memcmp(header, expected, sizeof header) == 0);
}

static void check_deadline(const rc_result *result, int64_t sent_us)
{
    int64_t deadline_us = rc_entry_deadline(result, sent_us);
    bool is_judged = result->entry_flags & RC_ENTRY_EXTRA; /* by its readers, to its end */
    if (result->ttl_ms == -1)
        FUZZ_CHECK(deadline_us == INT64_MAX);
    else if (result->ttl_ms <= (is_judged ? 0 : (int64_t)result->stale_ms))
        FUZZ_CHECK(deadline_us == 0);
    else if (deadline_us != INT64_MAX)
        FUZZ_CHECK((deadline_us - sent_us) / 1000 <= result->ttl_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input input = {bytes, bytes + len};
    rc_result result = {.ttl_ms = (int64_t)fuzz_number(&input, 8), .codec = 9, .load_ms = 9};
    int64_t sent_us = (int64_t)(fuzz_number(&input, 8) >> 8); /* a clock of 2,000 years */
    const char *string = (const char *)input.at;
    size_t left = fuzz_left(&input);

    rc_entry_read(&result, string, left);
    if (result.kind == RC_KIND_PLAIN || result.kind == RC_KIND_UNKNOWN)
        check_foreign(&result, string, left);
    else
        check_ours(&result, string, left);
    FUZZ_CHECK(!rc_entry_is_absent(RC_KIND_PLAIN) && result.kind != RC_KIND_NONE);
    FUZZ_CHECK(rc_entry_is_too_large(left, MAX_VALUE) == (left > MAX_VALUE + RC_ENTRY_SIZE));
    check_deadline(&result, sent_us);
    return 0;
}
