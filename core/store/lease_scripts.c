/* The scripts of leases, done natively: each function does what the source of its name in
   engine/script.c says, in the same order. */
#include "store/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "base/sha1.h"
#include "engine/entry.h"
#include "store/answer.h"

/* What is no entry of ours. */
enum { KIND_PLAIN = 0 };

/* As string.sub: what lies outside is left out. */
static struct rc_text nonce_of(struct rc_text value)
{
    enum { START = 8 };
    if (value.len <= START)
        return (struct rc_text){"", 0};
    size_t len = value.len - START;
    return (struct rc_text){value.bytes + START, len < RC_NONCE_SIZE ? len : RC_NONCE_SIZE};
}

static bool is_entry(struct rc_text value)
{
    return value.len >= RC_ENTRY_SIZE && (uint8_t)value.bytes[0] == RC_ENTRY_MAGIC &&
           value.bytes[1] == RC_ENTRY_VERSION;
}

static int kind_of(struct rc_text value)
{
    if (!is_entry(value))
        return KIND_PLAIN;
    int kind = (uint8_t)value.bytes[2];
    return kind == RC_KIND_LEASE && value.len != RC_ENTRY_SIZE ? KIND_PLAIN : kind;
}

static struct rc_value get(struct rc_run *run, uint32_t key)
{
    return RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, key));
}

static int64_t pttl(struct rc_run *run, uint32_t key)
{
    return RC_RUN_CALL(run, RC_WORD("PTTL"), rc_run_key(run, key)).number;
}

static void unlink_key(struct rc_run *run, uint32_t key)
{
    RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, key));
}

static void set(struct rc_run *run, uint32_t key, uint32_t value, uint32_t ttl)
{
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, key), rc_run_arg(run, value), RC_WORD("PX"),
                rc_run_arg(run, ttl));
}

/* A ttl of "-1": for ever. */
static void store_value(struct rc_run *run, uint32_t value, uint32_t ttl)
{
    if (rc_text_equal(rc_run_arg(run, ttl), RC_WORD("-1")))
        RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), rc_run_arg(run, value));
    else
        RC_RUN_CALL(run, RC_WORD("PSETEX"), rc_run_key(run, 1), rc_run_arg(run, ttl),
                    rc_run_arg(run, value));
}

/* {0, left, token} */
static void answer_busy(struct rc_run *run, int64_t left, struct rc_value holder)
{
    rc_run_answer_list(run, 3, 0);
    rc_run_answer_int(run, left);
    rc_run_answer_text(run, nonce_of(rc_run_text(run, holder)));
}

/* {2, value, left} */
static void answer_value(struct rc_run *run, struct rc_value value, int64_t left)
{
    rc_run_answer_list(run, 3, 2);
    rc_run_answer_text(run, rc_run_text(run, value));
    rc_run_answer_int(run, left);
}

static void answer_identity(struct rc_run *run, struct rc_text identity)
{
    rc_run_answer_list(run, 2, 1);
    rc_run_answer_text(run, identity);
}

static void answer_lost(struct rc_run *run, struct rc_value v)
{
    int kind = kind_of(rc_run_text(run, v));
    if (v.type != '$' || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE)
        rc_run_answer_code(run, 0);
    else
        answer_value(run, v, pttl(run, 1));
}

/* ---- a load ---------------------------------------------------------------------------------- */

/* The load that was waited for has failed, or its error is for everybody. */
static bool is_answer(const struct rc_run *run, struct rc_text marker)
{
    return rc_text_equal(nonce_of(marker), rc_run_arg(run, 3)) ||
           ((uint8_t)marker.bytes[4] & RC_ENTRY_STICKY) != 0;
}

/* For the planted bug SEPARATE_LOCK. */
static struct rc_text beside(const struct rc_run *run, char name[64])
{
    struct rc_text key = rc_run_key(run, 1);
    return (struct rc_text){name,
                            (size_t)snprintf(name, 64, "%.*s:lease", (int)key.len, key.bytes)};
}

/* Whether a planted bug has answered (base/mutant.h). */
static bool acquire_wrongly(struct rc_run *run)
{
    char name[64];
    struct rc_value other;
    if (RC_MUTANT(BLIND_SET) && kind_of(rc_run_text(run, get(run, 1))) == RC_KIND_LEASE) {
        set(run, 1, 1, 2);
        rc_run_answer_code(run, 1);
        return true;
    }
    if (!RC_MUTANT(SEPARATE_LOCK) || get(run, 1).type == '$')
        return false;
    other = RC_RUN_CALL(run, RC_WORD("SET"), beside(run, name), rc_run_arg(run, 1), RC_WORD("NX"),
                        RC_WORD("GET"), RC_WORD("PX"), rc_run_arg(run, 2));
    if (other.type == '$' && !rc_run_is(run, other, rc_run_arg(run, 1)))
        answer_busy(run, 20, other);
    else
        rc_run_answer_code(run, 1);
    return true;
}

static bool is_leased_beside(struct rc_run *run)
{
    char name[64];
    struct rc_text lease = beside(run, name);
    bool is_ours = rc_run_is(run, RC_RUN_CALL(run, RC_WORD("GET"), lease), rc_run_arg(run, 1));
    if (is_ours)
        RC_RUN_CALL(run, RC_WORD("UNLINK"), lease);
    return is_ours;
}

static void acquire(struct rc_run *run)
{
    if (acquire_wrongly(run))
        return;
    struct rc_value v =
        RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), rc_run_arg(run, 1), RC_WORD("NX"),
                    RC_WORD("GET"), RC_WORD("PX"), rc_run_arg(run, 2));
    int kind = kind_of(rc_run_text(run, v));
    if (v.type != '$' || rc_run_is(run, v, rc_run_arg(run, 1))) {
        rc_run_answer_code(run, 1);
        return;
    }
    if (kind == RC_KIND_ERROR && is_answer(run, rc_run_text(run, v))) {
        rc_run_answer_list(run, 2, 3);
        rc_run_answer_text(run, rc_run_text(run, v));
        return;
    }
    if (kind == RC_KIND_ERROR) {
        set(run, 1, 1, 2);
        rc_run_answer_code(run, 1);
        return;
    }
    get(run, 1);
    int64_t left = pttl(run, 1);
    if (kind == RC_KIND_LEASE && left >= 0)
        answer_busy(run, left, v);
    else
        answer_value(run, v, left);
}

static void publish(struct rc_run *run)
{
    struct rc_value v = get(run, 1);
    bool is_ours = rc_run_is(run, v, rc_run_arg(run, 1));
    if (RC_MUTANT(PUBLISH_ANY))
        is_ours = v.type != '$' || kind_of(rc_run_text(run, v)) == RC_KIND_LEASE;
    if (RC_MUTANT(SEPARATE_LOCK))
        is_ours = is_leased_beside(run);
    if (is_ours)
        store_value(run, 2, 3);
    if (is_ours || rc_run_is(run, v, rc_run_arg(run, 2)))
        rc_run_answer_int(run, 1);
    else
        answer_lost(run, v);
}

static void release(struct rc_run *run)
{
    int64_t count = 0;
    for (uint32_t i = 1; i <= run->key_count; i++) {
        if (!rc_run_is(run, get(run, i), rc_run_arg(run, 1)))
            continue;
        unlink_key(run, i);
        count++;
    }
    rc_run_answer_int(run, count);
}

static void heartbeat(struct rc_run *run)
{
    int64_t count = 0;
    for (uint32_t i = 1; i <= run->key_count; i++) {
        if (!rc_run_is(run, get(run, i), rc_run_arg(run, 1)))
            continue;
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, i), rc_run_arg(run, 2));
        count++;
    }
    rc_run_answer_int(run, count);
}

/* ---- a refresh ------------------------------------------------------------------------------- */

static void refresh(struct rc_run *run)
{
    struct rc_value head =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, 1), RC_WORD("0"), RC_WORD("23"));
    if (!rc_text_equal(nonce_of(rc_run_text(run, head)), rc_run_arg(run, 1))) {
        rc_run_answer_code(run, 0);
        return;
    }
    struct rc_value done = RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 2), rc_run_arg(run, 2),
                                       RC_WORD("NX"), RC_WORD("PX"), rc_run_arg(run, 3));
    bool is_ours = done.type == '+' || rc_run_is(run, get(run, 2), rc_run_arg(run, 2));
    rc_run_answer_code(run, is_ours);
}

static void refresh_publish(struct rc_run *run)
{
    struct rc_value v = get(run, 1);
    struct rc_text text = rc_run_text(run, v);
    bool is_seen = is_entry(text) &&
                   (RC_MUTANT(REFRESH_ANY) || rc_text_equal(nonce_of(text), rc_run_arg(run, 1)));
    if (rc_run_is(run, get(run, 2), rc_run_arg(run, 2)))
        unlink_key(run, 2);
    if (is_seen)
        store_value(run, 3, 4);
    if (is_seen || rc_run_is(run, v, rc_run_arg(run, 3)))
        rc_run_answer_code(run, 1);
    else
        answer_lost(run, v);
}

/* ---- a put ----------------------------------------------------------------------------------- */

static void put_lease(struct rc_run *run)
{
    set(run, 1, 1, 2);
    answer_identity(run, rc_run_arg(run, 1));
}

static void answer_identity_of(struct rc_run *run, struct rc_text value)
{
    char sha[41];
    if (kind_of(value) > KIND_PLAIN) {
        answer_identity(run, nonce_of(value));
        return;
    }
    rc_sha1_hex(value.bytes, value.len, sha);
    answer_identity(run, (struct rc_text){sha, 40});
}

static void put(struct rc_run *run)
{
    struct rc_value v = get(run, 1), w = get(run, 2);
    struct rc_text lease = rc_run_arg(run, 1);
    if (w.type == '$' && !rc_run_is(run, w, lease)) {
        answer_busy(run, pttl(run, 2), w);
        return;
    }
    int kind = kind_of(rc_run_text(run, v));
    if (kind == RC_KIND_LEASE && !rc_run_is(run, v, lease)) {
        int64_t left = pttl(run, 1);
        if (left >= 0) {
            answer_busy(run, left, v);
            return;
        }
    }
    set(run, 2, 1, 2);
    if (v.type != '$' || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE) {
        put_lease(run);
    } else if (run->key_count >= 3) {
        RC_RUN_CALL(run, RC_WORD("RENAME"), rc_run_key(run, 1), rc_run_key(run, 3));
        put_lease(run);
    } else {
        answer_identity_of(run, rc_run_text(run, v));
    }
}

/* What `put` answered for it. */
static bool has_identity(const struct rc_run *run, struct rc_value v, struct rc_text identity)
{
    char sha[41];
    struct rc_text text = rc_run_text(run, v);
    if (v.type != '$')
        return false;
    if (rc_run_is(run, v, rc_run_arg(run, 1)))
        return rc_text_equal(text, identity);
    if (kind_of(text) > KIND_PLAIN)
        return rc_text_equal(nonce_of(text), identity);
    rc_sha1_hex(text.bytes, text.len, sha);
    return rc_text_equal((struct rc_text){sha, 40}, identity);
}

static void put_publish(struct rc_run *run)
{
    struct rc_value v = get(run, 1);
    bool is_ours = rc_run_is(run, get(run, 2), rc_run_arg(run, 1));
    if (is_ours)
        unlink_key(run, 2);
    if (run->key_count >= 3)
        unlink_key(run, 3);
    if (rc_run_is(run, v, rc_run_arg(run, 2))) {
        rc_run_answer_code(run, 1);
    } else if (!is_ours || !has_identity(run, v, rc_run_arg(run, 4))) {
        rc_run_answer_code(run, 0);
    } else {
        store_value(run, 2, 3);
        rc_run_answer_code(run, 1);
    }
}

static void put_restore(struct rc_run *run)
{
    int64_t count = 0;
    if (rc_run_is(run, get(run, 2), rc_run_arg(run, 1))) {
        unlink_key(run, 2);
        count++;
        if (RC_RUN_CALL(run, RC_WORD("EXISTS"), rc_run_key(run, 3)).number == 1)
            RC_RUN_CALL(run, RC_WORD("RENAME"), rc_run_key(run, 3), rc_run_key(run, 2));
    }
    if (rc_run_is(run, get(run, 1), rc_run_arg(run, 1))) {
        RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1), rc_run_key(run, 3));
        count++;
    }
    rc_run_answer_int(run, count);
}

/* ---- a delete that was lost ------------------------------------------------------------------ */

static void unlink_version(struct rc_run *run)
{
    struct rc_value head =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, 1), RC_WORD("0"), RC_WORD("23"));
    struct rc_text text = rc_run_text(run, head);
    if (is_entry(text) && rc_text_equal(nonce_of(text), rc_run_arg(run, 1))) {
        unlink_key(run, 1);
        rc_run_answer_int(run, 1);
        return;
    }
    bool is_there =
        text.len > 0 || RC_RUN_CALL(run, RC_WORD("EXISTS"), rc_run_key(run, 1)).number != 0;
    rc_run_answer_int(run, is_there ? -1 : 0);
}

void rc_run_lease_script(struct rc_run *run)
{
    switch (run->script) {
    case RC_SCRIPT_ACQUIRE: acquire(run); break;
    case RC_SCRIPT_PUBLISH: publish(run); break;
    case RC_SCRIPT_RELEASE: release(run); break;
    case RC_SCRIPT_HEARTBEAT: heartbeat(run); break;
    case RC_SCRIPT_REFRESH: refresh(run); break;
    case RC_SCRIPT_REFRESH_PUBLISH: refresh_publish(run); break;
    case RC_SCRIPT_PUT: put(run); break;
    case RC_SCRIPT_PUT_PUBLISH: put_publish(run); break;
    case RC_SCRIPT_PUT_RESTORE: put_restore(run); break;
    case RC_SCRIPT_UNLINK_VERSION: unlink_version(run); break;
    default: break;
    }
}
