/* Commands that read or change a part of a value. SET and its kin are in set.c, numbers in
   counters.c. */
#include "store/verb.h"

#include "store/answer.h"
#include "store/key.h"

enum { VALUE_MAX = 512 * 1024 * 1024 }; /* Redis' proto-max-bulk-len */

static void answer_value(struct rc_call *call, const struct rc_key *key)
{
    if (key == NULL)
        rc_answer_null(call);
    else
        rc_answer_bulk(call, rc_key_value(key));
}

static struct rc_key *find(const struct rc_call *call, uint32_t index)
{
    return rc_key_find(call->store, call->session->database, call->args[index]);
}

static void do_get(struct rc_call *call)
{
    answer_value(call, find(call, 1));
}

static void do_mget(struct rc_call *call)
{
    rc_answer_array(call, call->count - 1);
    for (uint32_t i = 1; i < call->count; i++)
        answer_value(call, find(call, i));
}

static void do_getdel(struct rc_call *call)
{
    struct rc_key *key = find(call, 1);
    answer_value(call, key);
    if (key != NULL)
        rc_key_remove(call->store, key);
}

static void do_strlen(struct rc_call *call)
{
    const struct rc_key *key = find(call, 1);
    rc_answer_int(call, key == NULL ? 0 : (int64_t)key->value_len);
}

/* Offsets count from the end when they are negative, and both ends are part of the range. */
static void do_getrange(struct rc_call *call)
{
    int64_t start, end;
    if (!rc_answer_take_int(call, 2, &start) || !rc_answer_take_int(call, 3, &end))
        return;
    const struct rc_key *key = find(call, 1);
    int64_t len = key == NULL ? 0 : (int64_t)key->value_len;
    bool is_empty = start < 0 && end < 0 && start > end;
    start = start < 0 ? start + len : start;
    end = end < 0 ? end + len : end;
    start = start < 0 ? 0 : start;
    end = end < 0 ? 0 : end;
    end = end >= len ? len - 1 : end;
    if (is_empty || start > end || len == 0)
        rc_answer_text(call, "");
    else
        rc_answer_bulk(call, (struct rc_text){key->value + start, (size_t)(end - start + 1)});
}

static void refuse_length(struct rc_call *call)
{
    rc_answer_error(call, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
}

/* Puts `bytes` at `offset` of the key, which need not exist, and answers with its length. */
static void splice(struct rc_call *call, struct rc_key *key, size_t offset, struct rc_text bytes)
{
    struct rc_store *store = call->store;
    int error;
    if (key != NULL) {
        error = rc_key_splice(store, key, offset, bytes);
    } else if (offset == 0) {
        error = rc_key_write(store, call->session->database, call->args[1], bytes, RC_STORE_NEVER);
    } else {
        struct rc_text none = {"", 0};
        error = rc_key_write(store, call->session->database, call->args[1], none, RC_STORE_NEVER);
        key = error == 0 ? find(call, 1) : NULL;
        error = error == 0 ? rc_key_splice(store, key, offset, bytes) : error;
    }
    key = find(call, 1);
    if (error != 0)
        rc_answer_no_room(call);
    else
        rc_answer_int(call, (int64_t)key->value_len);
}

static void do_append(struct rc_call *call)
{
    struct rc_key *key = find(call, 1);
    size_t len = key == NULL ? 0 : key->value_len;
    if (call->args[2].len > VALUE_MAX - len)
        refuse_length(call);
    else
        splice(call, key, len, call->args[2]);
}

static void do_setrange(struct rc_call *call)
{
    int64_t offset;
    struct rc_text bytes = call->args[3];
    if (!rc_answer_take_int(call, 2, &offset))
        return;
    if (offset < 0) {
        rc_answer_error(call, "ERR offset is out of range");
        return;
    }
    const struct rc_key *key = find(call, 1);
    if (bytes.len == 0)
        rc_answer_int(call, key == NULL ? 0 : (int64_t)key->value_len);
    else if (offset > VALUE_MAX || bytes.len > (size_t)(VALUE_MAX - offset))
        refuse_length(call);
    else if (!rc_key_make_room(call->store, (size_t)offset + bytes.len))
        rc_answer_no_room(call);
    else /* making room may have evicted it */
        splice(call, find(call, 1), (size_t)offset, bytes);
}

const struct rc_verb rc_string_verbs[] = {
    {"GET", 2, RC_VERB_READS | RC_VERB_KEY, do_get},
    {"MGET", -2, RC_VERB_READS | RC_VERB_KEYS, do_mget},
    {"GETDEL", 2, RC_VERB_WRITES, do_getdel},
    {"STRLEN", 2, RC_VERB_READS | RC_VERB_KEY, do_strlen},
    {"GETRANGE", 4, RC_VERB_READS | RC_VERB_KEY, do_getrange},
    {"SUBSTR", 4, RC_VERB_READS | RC_VERB_KEY, do_getrange},
    {"APPEND", 3, RC_VERB_WRITES | RC_VERB_GROWS, do_append},
    {"SETRANGE", 4, RC_VERB_WRITES | RC_VERB_GROWS, do_setrange},
    {"", 0, 0, NULL},
};
