/* The scripts of locks with a queue, done natively: each function does what the source of its name
   in engine/script.c says, in the same order. As lock_scripts.c, they pin what they write. */
#include <stdio.h>
#include <string.h>

#include "store/answer.h"
#include "store/key.h"
#include "store/run.h"

/* A record. */
enum { TOKEN_AT = 1, TOKEN_SIZE = 32, TILL_AT = 33, TILL_SIZE = 14, RECORD_SIZE = 47 };

struct queue {
    int64_t now_ms;
    struct rc_text token;
    struct rc_buf list; /* the records that have not ended, but for the token's own */
    size_t place;       /* where that stands, in bytes */
    char mine;          /* what it is; 0: it is not there */
};

static void begin(struct queue *queue, const struct rc_run *run)
{
    memset(queue, 0, sizeof *queue);
    queue->now_ms = run->call->store->now_us / 1000;
    queue->token = rc_run_arg(run, 1);
    if (queue->token.bytes == NULL)
        queue->token = RC_WORD("");
    rc_buf_init(&queue->list);
}

static void out_of_memory(struct rc_run *run)
{
    rc_run_fail(run, RC_WORD("OOM no memory for the queue"));
}

/* When a record ends; 0: it is none. */
static int64_t till(const char *record)
{
    int64_t number = 0;
    for (size_t i = 0; i < TILL_SIZE; i++) {
        char c = record[TILL_AT + i];
        if (c < '0' || c > '9')
            return 0;
        number = number * 10 + (c - '0');
    }
    return number;
}

static bool is_own(const struct queue *queue, const char *record)
{
    return queue->token.len == TOKEN_SIZE &&
           memcmp(record + TOKEN_AT, queue->token.bytes, TOKEN_SIZE) == 0;
}

static void read(struct rc_run *run, struct queue *queue, uint32_t key)
{
    struct rc_text all = rc_run_text(run, rc_run_get(run, key));
    for (size_t at = 0; all.len - at >= RECORD_SIZE; at += RECORD_SIZE) {
        const char *record = all.bytes + at;
        if (till(record) <= queue->now_ms)
            continue;
        if (is_own(queue, record)) {
            queue->place = queue->list.end;
            queue->mine = record[0];
        } else if (rc_buf_append(&queue->list, record, RECORD_SIZE) != 0) {
            out_of_memory(run);
            return;
        }
    }
    if (queue->mine == 0)
        queue->place = queue->list.end;
}

/* The token's record is of this kind now, in its place. */
static void add(struct rc_run *run, struct queue *queue, char kind)
{
    char digits[32];
    int64_t ttl_ms = 0;
    (void)rc_text_to_int(rc_run_arg(run, 2), &ttl_ms);
    int len = snprintf(digits, sizeof digits, "%014.0f", (double)queue->now_ms + (double)ttl_ms);
    size_t size = 1 + queue->token.len + (size_t)len, end = queue->list.end;
    if (run->failed)
        return;
    if (rc_buf_reserve(&queue->list, size) != 0) {
        out_of_memory(run);
        return;
    }
    char *at = queue->list.bytes + queue->place;
    memmove(at + size, at, end - queue->place);
    at[0] = kind;
    memcpy(at + 1, queue->token.bytes, queue->token.len);
    memcpy(at + 1 + queue->token.len, digits, (size_t)len);
    queue->list.end += size;
}

static void write(struct rc_run *run, const struct queue *queue, uint32_t key)
{
    int64_t last_ms = queue->now_ms;
    char digits[RC_TEXT_INT_MAX];
    for (size_t at = 0; at + RECORD_SIZE <= queue->list.end; at += RECORD_SIZE) {
        int64_t till_ms = till(queue->list.bytes + at);
        last_ms = last_ms > till_ms ? last_ms : till_ms;
    }
    if (last_ms == queue->now_ms) {
        RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, key));
        return;
    }
    struct rc_text life = {digits, rc_text_from_int(digits, last_ms - queue->now_ms)};
    struct rc_text list = {queue->list.bytes, queue->list.end};
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, key), list, RC_WORD("PX"), life);
    rc_run_pin(run, key);
}

/* Arguments of lock(). */
enum { KIND = 3, FENCE_LIFE = 4, MAY_WAIT = 5 };
enum { HOLD = 1, FENCE, MARK, QUEUE, ALONE };

static bool wants_alone(const struct rc_run *run)
{
    return rc_text_equal(rc_run_arg(run, KIND), RC_WORD("w"));
}

/* When the first of what is in the way ends; -1: nothing is. */
static int64_t find_wake(struct rc_run *run, const struct queue *queue, struct rc_value alone)
{
    int64_t wake_ms = -1;
    bool is_alone = wants_alone(run);
    if (alone.type == '$' && !rc_run_is(run, alone, queue->token))
        wake_ms = queue->now_ms + RC_RUN_CALL(run, RC_WORD("PTTL"), rc_run_key(run, ALONE)).number;
    for (size_t at = 0; at < queue->list.end; at += RECORD_SIZE) {
        char kind = queue->list.bytes[at];
        bool is_ahead = at < queue->place;
        if (is_alone ? !is_ahead && kind != 'R' : !is_ahead || kind != 'w')
            continue;
        int64_t till_ms = till(queue->list.bytes + at);
        wake_ms = wake_ms < 0 || till_ms < wake_ms ? till_ms : wake_ms;
    }
    return wake_ms;
}

/* Answers {1, fence}, in doubles, as Lua counts. */
static void give_fence(struct rc_run *run)
{
    char text[32];
    double now = (double)run->call->store->now_us;
    double fence = (double)RC_RUN_CALL(run, RC_WORD("INCR"), rc_run_key(run, FENCE)).number;
    if (fence < now)
        fence = now;
    int len = snprintf(text, sizeof text, "%.0f", fence);
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, FENCE), (struct rc_text){text, (size_t)len},
                RC_WORD("PX"), rc_run_arg(run, FENCE_LIFE));
    rc_run_get(run, HOLD);
    rc_run_answer_list(run, 2, 1);
    rc_run_answer_int(run, fence >= 0x1p63 ? INT64_MAX : (int64_t)fence);
    rc_run_pin(run, FENCE);
}

static void grant(struct rc_run *run, struct queue *queue)
{
    bool is_alone = wants_alone(run);
    if (!is_alone)
        add(run, queue, 'R');
    write(run, queue, QUEUE);
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, HOLD), queue->token, RC_WORD("PX"),
                rc_run_arg(run, 2));
    rc_run_pin(run, HOLD);
    if (is_alone) {
        give_fence(run);
        return;
    }
    rc_run_get(run, HOLD);
    rc_run_answer_list(run, 2, 1);
    rc_run_answer_int(run, 1);
}

static void lock(struct rc_run *run)
{
    struct queue queue;
    begin(&queue, run);
    read(run, &queue, QUEUE);
    struct rc_value alone = rc_run_get(run, ALONE);
    bool is_repeated = rc_run_is(run, alone, queue.token) || queue.mine == 'R';
    int64_t wake_ms = find_wake(run, &queue, alone);
    if (wake_ms < 0 || is_repeated) {
        grant(run, &queue);
    } else {
        struct rc_text kind = rc_run_arg(run, KIND);
        if (rc_text_equal(rc_run_arg(run, MAY_WAIT), RC_WORD("1")) && kind.len == 1)
            add(run, &queue, kind.bytes[0]);
        write(run, &queue, QUEUE);
        rc_run_get(run, MARK);
        rc_run_answer_list(run, 2, 0);
        rc_run_answer_int(run, wake_ms - queue.now_ms);
    }
    rc_buf_deinit(&queue.list);
}

static void renew(struct rc_run *run)
{
    struct queue queue;
    begin(&queue, run);
    if (!rc_run_is(run, rc_run_get(run, 1), queue.token)) {
        rc_run_answer_int(run, 0);
        return;
    }
    read(run, &queue, 2);
    if (queue.mine != 'R') {
        RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
        rc_run_answer_int(run, 0);
    } else {
        add(run, &queue, 'R');
        write(run, &queue, 2);
        RC_RUN_CALL(run, RC_WORD("PEXPIRE"), rc_run_key(run, 1), rc_run_arg(run, 2));
        rc_run_get(run, 1);
        rc_run_answer_int(run, 1);
    }
    rc_buf_deinit(&queue.list);
}

static void release(struct rc_run *run)
{
    struct queue queue;
    begin(&queue, run);
    bool is_held = rc_run_is(run, rc_run_get(run, 1), queue.token);
    read(run, &queue, 3);
    if (!is_held && queue.mine == 0) {
        rc_run_answer_int(run, rc_run_is(run, rc_run_get(run, 2), queue.token));
    } else {
        if (queue.mine != 0)
            write(run, &queue, 3);
        if (is_held)
            RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1));
        RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 2), queue.token, RC_WORD("PX"),
                    RC_WORD("1000"));
        rc_run_answer_int(run, is_held);
        rc_run_pin(run, 2);
    }
    rc_buf_deinit(&queue.list);
}

const struct rc_twin rc_queue_twins[] = {
    {"d65acc5af174fad3268027bd9f25fa8263607a50", lock},
    {"353120d3b1e71bba4138cb12d2f15d1a33a1979b", renew},
    {"9144d5ec991a9f51b3cb6b50fb0615822d25647d", release},
    {"", NULL},
};
