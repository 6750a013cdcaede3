/* The scripts of leases, done natively: each function does what the source of its name in
   engine/script.c says, in the same order. */
#include "store/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
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
    return value.bytes != NULL ? rc_entry_form(value.bytes, value.len) : KIND_PLAIN;
}

static bool is_identity(struct rc_text value, struct rc_text identity)
{
    char own[RC_IDENTITY_SIZE];
    size_t len = rc_entry_identity(own, value.bytes, value.len);
    return rc_text_equal((struct rc_text){own, len}, identity);
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

static void answer_lost(struct rc_run *run, struct rc_value v)
{
    if (v.type != '$') {
        rc_run_answer_code(run, 0);
        return;
    }
    int kind = kind_of(rc_run_text(run, v));
    int64_t left = pttl(run, 1);
    if ((kind == RC_KIND_ERROR || kind == RC_KIND_LEASE) && left >= 0)
        rc_run_answer_code(run, 0);
    else
        answer_value(run, v, left);
}

/* The number of milliseconds in an argument, 0 for what is none. */
static int64_t number_in(const struct rc_run *run, uint32_t arg)
{
    int64_t number = 0;
    struct rc_text text = rc_run_arg(run, arg);
    if (text.bytes != NULL)
        (void)rc_text_to_int(text, &number);
    return number;
}

/* {code, left} */
static void answer_left(struct rc_run *run, int64_t code, int64_t left)
{
    rc_run_answer_list(run, 2, code);
    rc_run_answer_int(run, left);
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
    if (RC_MUTANT(BLIND_SET) && kind_of(rc_run_text(run, rc_run_get(run, 1))) == RC_KIND_LEASE) {
        set(run, 1, 1, 2);
        rc_run_answer_code(run, 1);
        return true;
    }
    if (!RC_MUTANT(SEPARATE_LOCK) || rc_run_get(run, 1).type == '$')
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
    int64_t left = kind == RC_KIND_ERROR || kind == RC_KIND_LEASE ? pttl(run, 1) : -1;
    if (left >= 0 && kind == RC_KIND_ERROR && is_answer(run, rc_run_text(run, v))) {
        rc_run_answer_list(run, 2, 3);
        rc_run_answer_text(run, rc_run_text(run, v));
        return;
    }
    if (left >= 0 && kind == RC_KIND_LEASE) {
        rc_run_get(run, 1);
        answer_busy(run, left, v);
        return;
    }
    bool is_marker = left >= 0 && kind == RC_KIND_ERROR;
    if (is_marker ||
        (run->arg_count >= 4 && is_identity(rc_run_text(run, v), rc_run_arg(run, 4)))) {
        set(run, 1, 1, 2);
        rc_run_answer_code(run, 1);
        return;
    }
    rc_run_get(run, 1);
    answer_value(run, v, pttl(run, 1));
}

static void publish(struct rc_run *run)
{
    struct rc_value v = rc_run_get(run, 1);
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

/* A planted bug is left to the script of one key. */
static bool is_leased(struct rc_run *run, uint32_t key)
{
    return !RC_MUTANT(PUBLISH_ANY) && !RC_MUTANT(SEPARATE_LOCK) &&
           rc_run_is(run, rc_run_get(run, key), rc_run_arg(run, 3 * key - 2));
}

static void publish_many(struct rc_run *run)
{
    enum { MOST = 256 }; /* in a request of ours are fewer */
    char done[MOST];
    if (run->key_count > MOST) {
        rc_run_fail(run, RC_WORD("ERR too many keys"));
        return;
    }
    for (uint32_t i = 1; i <= run->key_count; i++) {
        struct rc_text key = rc_run_key(run, i), ttl = rc_run_arg(run, 3 * i);
        done[i - 1] = is_leased(run, i) ? '1' : '0';
        if (done[i - 1] == '0')
            continue;
        if (rc_text_equal(ttl, RC_WORD("-1")))
            RC_RUN_CALL(run, RC_WORD("SET"), key, rc_run_arg(run, 3 * i - 1));
        else
            RC_RUN_CALL(run, RC_WORD("PSETEX"), key, ttl, rc_run_arg(run, 3 * i - 1));
    }
    if (!run->failed)
        rc_run_answer_text(run, (struct rc_text){done, run->key_count});
}

static void release(struct rc_run *run)
{
    int64_t count = 0;
    for (uint32_t i = 1; i <= run->key_count; i++) {
        if (!rc_run_is(run, rc_run_get(run, i), rc_run_arg(run, 1)))
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
        if (!rc_run_is(run, rc_run_get(run, i), rc_run_arg(run, 1)))
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
    if (rc_run_is(run, head, rc_run_arg(run, 2))) {
        answer_left(run, 1, -1);
        return;
    }
    if (!rc_text_equal(nonce_of(rc_run_text(run, head)), rc_run_arg(run, 1))) {
        rc_run_answer_code(run, 0);
        return;
    }
    struct rc_value done = RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 2), rc_run_arg(run, 2),
                                       RC_WORD("NX"), RC_WORD("PX"), rc_run_arg(run, 3));
    if (done.type != '+' && !rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 2))) {
        answer_left(run, 0, pttl(run, 2));
        return;
    }
    int64_t left = pttl(run, 1);
    if (left >= 0 && left <= number_in(run, 4)) {
        set(run, 1, 2, 3);
        left = -1;
    }
    answer_left(run, 1, left);
}

static void refresh_publish(struct rc_run *run)
{
    struct rc_value v = rc_run_get(run, 1);
    struct rc_text text = rc_run_text(run, v);
    bool is_seen = kind_of(text) > KIND_PLAIN &&
                   (RC_MUTANT(REFRESH_ANY) || rc_text_equal(nonce_of(text), rc_run_arg(run, 1)));
    is_seen |= rc_run_is(run, v, rc_run_arg(run, 2));
    if (rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 2)))
        unlink_key(run, 2);
    if (is_seen)
        store_value(run, 3, 4);
    if (is_seen || rc_run_is(run, v, rc_run_arg(run, 3)))
        rc_run_answer_code(run, 1);
    else
        answer_lost(run, v);
}

static void refresh_fail(struct rc_run *run)
{
    int64_t count = 0;
    if (rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 1))) {
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, 2), rc_run_arg(run, 4));
        count++;
    }
    if (rc_run_is(run, rc_run_get(run, 1), rc_run_arg(run, 1))) {
        RC_RUN_CALL(run, RC_WORD("PSETEX"), rc_run_key(run, 1), rc_run_arg(run, 3),
                    rc_run_arg(run, 2));
        count++;
    }
    rc_run_answer_int(run, count);
}

/* ---- a refresh or a put: the value's end ----------------------------------------------------- */

/* The lease takes the value's place, for as long as the helper key lives. */
static void take_place(struct rc_run *run, bool renews, int64_t helper_left)
{
    char digits[24];
    struct rc_text ttl = rc_run_arg(run, 2);
    if (!renews)
        ttl = (struct rc_text){
            digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)helper_left)};
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), rc_run_arg(run, 1), RC_WORD("PX"), ttl);
}

/* Whether a planted bug takes what is gone for what has expired (base/mutant.h). */
static bool is_taken_for_expired(int64_t left)
{
    return RC_MUTANT(COVER_ABSENT) && left == -2;
}

static void cover(struct rc_run *run)
{
    bool renews = rc_text_equal(rc_run_arg(run, 5), RC_WORD("1"));
    int64_t helper_left = 0, left = -1;
    bool has_helper = rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 1));
    if (has_helper && renews)
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, 2), rc_run_arg(run, 2));
    else if (has_helper)
        helper_left = pttl(run, 2);
    struct rc_value head =
        RC_RUN_CALL(run, RC_WORD("GETRANGE"), rc_run_key(run, 1), RC_WORD("0"), RC_WORD("23"));
    bool has_key = rc_run_is(run, head, rc_run_arg(run, 1));
    if (has_key && renews)
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, 1), rc_run_arg(run, 2));
    if (!has_key && has_helper) {
        left = pttl(run, 1);
        if (is_taken_for_expired(left)) {
            take_place(run, renews, helper_left);
        } else if (left >= 0 && left <= number_in(run, 4)) {
            if (is_identity(rc_run_text(run, rc_run_get(run, 1)), rc_run_arg(run, 3)))
                take_place(run, renews, helper_left);
            left = -1;
        }
    }
    answer_left(run, (int64_t)has_helper + has_key, left);
}

/* ---- a put ----------------------------------------------------------------------------------- */

/* {1, identity, left} */
static void answer_identity(struct rc_run *run, struct rc_text identity, int64_t left)
{
    rc_run_answer_list(run, 3, 1);
    rc_run_answer_text(run, identity);
    rc_run_answer_int(run, left);
}

static void put_lease(struct rc_run *run)
{
    set(run, 1, 1, 2);
    answer_identity(run, rc_run_arg(run, 1), -1);
}

static void put(struct rc_run *run)
{
    struct rc_value v = rc_run_get(run, 1), w = rc_run_get(run, 2);
    struct rc_text lease = rc_run_arg(run, 1), text = rc_run_text(run, v);
    if (w.type == '$' && !rc_run_is(run, w, lease)) {
        answer_busy(run, pttl(run, 2), w);
        return;
    }
    int kind = kind_of(text);
    int64_t left = pttl(run, 1);
    if ((kind == RC_KIND_ERROR || kind == RC_KIND_LEASE) && left < 0)
        kind = KIND_PLAIN;
    if (kind == RC_KIND_LEASE && !rc_run_is(run, v, lease)) {
        answer_busy(run, left, v);
        return;
    }
    set(run, 2, 1, 2);
    bool is_absent = v.type != '$' || kind == RC_KIND_ERROR || kind == RC_KIND_LEASE;
    bool ends = left >= 0 && left <= number_in(run, 3);
    if (is_absent || (ends && run->key_count < 3)) {
        put_lease(run);
    } else if (run->key_count >= 3) {
        RC_RUN_CALL(run, RC_WORD("RENAME"), rc_run_key(run, 1), rc_run_key(run, 3));
        put_lease(run);
    } else {
        char own[RC_IDENTITY_SIZE];
        text = rc_run_text(run, v); /* what was called since may have moved it */
        size_t len = rc_entry_identity(own, text.bytes, text.len);
        answer_identity(run, (struct rc_text){own, len}, left);
    }
}

static void put_publish(struct rc_run *run)
{
    struct rc_value v = rc_run_get(run, 1);
    bool is_ours = rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 1));
    if (is_ours)
        unlink_key(run, 2);
    if (run->key_count >= 3)
        unlink_key(run, 3);
    if (rc_run_is(run, v, rc_run_arg(run, 2))) {
        rc_run_answer_code(run, 1);
        return;
    }
    bool is_seen = v.type == '$' && (rc_run_is(run, v, rc_run_arg(run, 1)) ||
                                     is_identity(rc_run_text(run, v), rc_run_arg(run, 4)));
    if (is_ours && is_seen)
        store_value(run, 2, 3);
    rc_run_answer_code(run, is_ours && is_seen);
}

static void put_restore(struct rc_run *run)
{
    int64_t count = 0;
    if (rc_run_is(run, rc_run_get(run, 2), rc_run_arg(run, 1))) {
        unlink_key(run, 2);
        count++;
        if (RC_RUN_CALL(run, RC_WORD("EXISTS"), rc_run_key(run, 3)).number == 1)
            RC_RUN_CALL(run, RC_WORD("RENAME"), rc_run_key(run, 3), rc_run_key(run, 2));
    }
    if (rc_run_is(run, rc_run_get(run, 1), rc_run_arg(run, 1))) {
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

const struct rc_twin rc_lease_twins[] = {
    {"d65b6ca0f80c30d5c406764db99d336b2b7955a7", acquire},
    {"6fbbe173b0063228b8b45c268876db37f9492d07", publish},
    {"58978a4cf47c30c02a216c0aea2629c21151f9fc", release},
    {"85c880fa508adf722396fa6087d801a0f3c81f1b", heartbeat},
    {"dc04e7b51529e2aac176c60c744807f13e106b5e", refresh},
    {"768a3438b06a562c2afc66a84a4a61512591f8ec", refresh_publish},
    {"e8ac83d8838eedcd0a33ccc0ab3e9d4830885659", put},
    {"81643d20ebbdda91bf4d77dafdb114190a01b7b8", put_publish},
    {"0b52cb297f91c0adb90bde479dd6ded8cc64a2f7", put_restore},
    {"5a18646c741cf74c3c4509ee78c7f1a6002b3aba", unlink_version},
    {"9c04338b06df2604d5f35edd7866e5a941b4dc63", cover},
    {"ff032de99f2ad815b4b93a28c5ed5edc2acad3e3", refresh_fail},
    {"365377769ce4616412350428ab599d83db660001", publish_many},
    {"", NULL},
};

bool rc_lease_twin_is_by_key(const struct rc_twin *twin)
{
    return twin->run == publish_many;
}
