#include "engine/lock.h"

#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "engine/held_lock.h"
#include "engine/lock_request.h"
#include "engine/script.h"

enum {
    POLL_MS = 50,            /* without tracking */
    LOOK_MAX_MS = 60 * 1000, /* with it: so much trust in pushes, and in what the server says */
    /* A push about the lock's key is mostly a renewal. A release is told by the mark as well, in
       the same burst: who looks a moment later looks at nothing then. */
    LOOK_SOON_MS = 1,
    LOOK_EACH_MS = 1000, /* pushes of one that renews without end are worth a look a second, */
    LOOK_AHEAD = 3       /* and so many at once */
};

/* Redis' Lua, ours, and JSON count in doubles: behind 2^53 (the year 2255 in microseconds) a fence
   would not grow with each grant. */
static const int64_t FENCE_END = INT64_C(1) << 53;

enum line_state { LINE_IDLE, LINE_ASKING, LINE_WAITING };

/* All that this process does about one lock name. */
struct rc_lock_line {
    struct rc_table_node node;
    struct rc_locks *locks;
    struct rc_buf key;
    struct rc_buf mark_key;
    struct rc_list waiting; /* ops, oldest first */
    enum line_state state;
    struct rc_req *req;        /* acquire or PTTL under way */
    struct rc_watch watch;     /* on the release mark */
    struct rc_watch key_watch; /* on the lock's key: deleted, expired, or only renewed */
    struct rc_timer timer;     /* the holder's key ends, or a look at it is due */
    bool looks;                /* the latter */
    int64_t looked_us;         /* what the looks so far have used up, a second each */
    int64_t answered_us;       /* when Redis last said how the lock is */
    char token[RC_TOKEN_SIZE];
    int32_t asked_ttl_ms; /* what a grant lives: the one who asked may leave before it comes */
    /* Of a lock with a queue. */
    struct rc_buf name; /* the table's; without a queue it is `key` */
    struct rc_buf queue_key;
    bool has_queue;
    bool has_ticket; /* our token may stand in the queue */
};

static void ask(struct rc_lock_line *line);
static void ask_how_long(struct rc_lock_line *line);

void rc_locks_init(struct rc_locks *locks, struct rc_context *context, struct rc_topology *topology,
                   struct rc_track *track,
                   void (*on_word)(void *owner, uint16_t number, bool is_new), void *owner)
{
    memset(locks, 0, sizeof *locks);
    locks->context = context;
    locks->topology = topology;
    locks->track = track;
    locks->on_word = on_word;
    locks->owner = owner;
    rc_table_init(&locks->lines, &context->seed);
    rc_list_init(&locks->held);
}

/* ---- the line of those who want it ----------------------------------------------------------- */

static struct rc_op *first(const struct rc_lock_line *line)
{
    if (rc_list_is_empty(&line->waiting))
        return NULL;
    return RC_CONTAINER(line->waiting.next, struct rc_op, run.member);
}

static void on_line_watch(struct rc_watch *watch)
{
    struct rc_lock_line *line = RC_CONTAINER(watch, struct rc_lock_line, watch);
    if (line->state == LINE_WAITING)
        ask(line);
}

/* The lock's key changed: whether it is gone is worth a look, unless one is under way, whose answer
   comes behind this news. */
static void on_line_key_watch(struct rc_watch *watch)
{
    struct rc_lock_line *line = RC_CONTAINER(watch, struct rc_lock_line, key_watch);
    struct rc_context *context = line->locks->context;
    int64_t soon_us = rc_context_after_ms(context, LOOK_SOON_MS);
    int64_t due_us = line->looked_us - (int64_t)(LOOK_AHEAD - 1) * LOOK_EACH_MS * 1000;
    if (line->state != LINE_WAITING || line->req != NULL)
        return;
    if (due_us < soon_us)
        due_us = soon_us;
    if (rc_timer_is_set(&line->timer) && line->timer.at_us <= due_us)
        return; /* the holder's key ends first, or a look is due already */
    line->looks = true;
    rc_context_set_timer(context, &line->timer, due_us);
}

static void on_line_timer(void *context, struct rc_timer *timer)
{
    struct rc_lock_line *line = RC_CONTAINER(timer, struct rc_lock_line, timer);
    int64_t now_us = line->locks->context->now_us;
    (void)context;
    if (line->state != LINE_WAITING)
        return;
    if (!line->looks) {
        ask(line);
        return;
    }
    line->looked_us = (line->looked_us > now_us ? line->looked_us : now_us) + LOOK_EACH_MS * 1000;
    ask_how_long(line);
}

static bool is_queued(const struct rc_lock *lock)
{
    return lock->queue.kind != RC_QUEUE_NONE;
}

static struct rc_lock_line *find_line(struct rc_locks *locks, const struct rc_lock *lock)
{
    const struct rc_buf *name = is_queued(lock) ? &lock->queue.line : &lock->key;
    return (struct rc_lock_line *)(void *)rc_table_find(&locks->lines, rc_buf_head(name),
                                                        rc_buf_len(name));
}

static void free_line(struct rc_lock_line *line)
{
    struct rc_locks *locks = line->locks;
    rc_context_clear_timer(locks->context, &line->timer);
    rc_context_remove_timer(locks->context);
    rc_track_unwatch(locks->track, &line->watch);
    rc_track_unwatch(locks->track, &line->key_watch);
    rc_table_remove(&locks->lines, &line->node);
    rc_buf_deinit(&line->key);
    rc_buf_deinit(&line->mark_key);
    rc_buf_deinit(&line->name);
    rc_buf_deinit(&line->queue_key);
    free(line);
}

static int copy(struct rc_buf *to, const struct rc_buf *from)
{
    return rc_buf_append(to, rc_buf_head(from), rc_buf_len(from));
}

static struct rc_lock_line *new_line(struct rc_locks *locks, const struct rc_lock *lock)
{
    struct rc_lock_line *line = calloc(1, sizeof *line);
    if (line == NULL)
        return NULL;
    line->locks = locks;
    line->watch.fire = on_line_watch;
    line->key_watch.fire = on_line_key_watch;
    line->timer.fire = on_line_timer;
    rc_list_init(&line->waiting);
    rc_buf_init(&line->key);
    rc_buf_init(&line->mark_key);
    rc_buf_init(&line->name);
    rc_buf_init(&line->queue_key);
    line->has_queue = is_queued(lock);
    const struct rc_buf *name = line->has_queue ? &line->name : &line->key;
    if (rc_context_add_timer(locks->context) != 0)
        goto fail;
    if (copy(&line->key, &lock->key) != 0 || copy(&line->mark_key, &lock->mark_key) != 0)
        goto fail_timer;
    if (line->has_queue && (copy(&line->name, &lock->queue.line) != 0 ||
                            copy(&line->queue_key, &lock->queue.key) != 0))
        goto fail_timer;
    line->node.key = rc_buf_head(name);
    line->node.key_len = rc_buf_len(name);
    if (rc_table_insert(&locks->lines, &line->node) != 0)
        goto fail_timer;
    return line;

fail_timer:
    rc_context_remove_timer(locks->context);
fail:
    rc_buf_deinit(&line->key);
    rc_buf_deinit(&line->mark_key);
    rc_buf_deinit(&line->name);
    rc_buf_deinit(&line->queue_key);
    free(line);
    return NULL;
}

static void free_if_idle(struct rc_lock_line *line)
{
    if (first(line) == NULL && line->req == NULL)
        free_line(line);
}

void rc_locks_deinit(struct rc_locks *locks)
{
    struct rc_table_node *node;
    while ((node = rc_table_any(&locks->lines)) != NULL)
        free_line((struct rc_lock_line *)(void *)node);
    rc_table_deinit(&locks->lines);
}

/* What was asked for may have been granted although nobody will use it, and its ticket stand in the
   queue. `asked` is the request that did so, if it may still be under way. */
static void give_back(struct rc_lock_line *line, struct rc_req *asked)
{
    struct rc_locks *locks = line->locks;
    const struct rc_buf *queue_key = line->has_queue ? &line->queue_key : NULL;
    struct rc_req *req =
        rc_lock_take_release(locks, &line->key, &line->mark_key, queue_key, line->token);
    line->has_ticket = false;
    if (req == NULL)
        return;
    req->patience_ms = line->asked_ttl_ms;
    if (asked != NULL)
        rc_topology_send_after(locks->topology, req, rc_lock_slot(locks, &line->key), asked);
    else
        rc_lock_send(locks, req, &line->key,
                     locks->context->closing
                         ? rc_lock_deadline(locks, NULL)
                         : rc_context_after_ms(locks->context, req->patience_ms));
}

static void leave_queue(struct rc_lock_line *line)
{
    if (line->has_ticket)
        give_back(line, NULL);
}

/* The head of the line is served or gone; the next one asks. */
static void next(struct rc_lock_line *line)
{
    line->state = LINE_IDLE;
    if (line->locks->context->closing) {
        RC_LIST_EACH(member, following, &line->waiting) {
            rc_context_fail(line->locks->context, RC_CONTAINER(member, struct rc_op, run.member),
                            RC_ERR_CLOSED, NULL);
        }
    }
    if (first(line) != NULL) {
        ask(line);
        return;
    }
    leave_queue(line);
    free_if_idle(line);
}

/* ---- acquiring ------------------------------------------------------------------------------- */

static void new_token(struct rc_context *context, char token[RC_TOKEN_SIZE])
{
    static const char DIGITS[] = "0123456789abcdef";
    char raw[2 * RC_NONCE_SIZE];
    rc_context_nonce(context, raw);
    rc_context_nonce(context, raw + RC_NONCE_SIZE);
    for (size_t i = 0; i < sizeof raw; i++) {
        token[2 * i] = DIGITS[(uint8_t)raw[i] >> 4];
        token[2 * i + 1] = DIGITS[(uint8_t)raw[i] & 15];
    }
}

static void wait_for_release(struct rc_lock_line *line, int64_t recheck_ms)
{
    line->looks = false;
    rc_context_set_timer(
        line->locks->context, &line->timer,
        rc_context_after_ms(line->locks->context, recheck_ms > 0 ? recheck_ms : 1));
}

/* How long the holder's key still lives: waiters must not rely on the server's lazy expiry push. */
static void on_pttl(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_lock_line *line = req->owner;
    (void)text;
    line->req = NULL;
    if (line->state != LINE_WAITING || first(line) == NULL) {
        next(line);
        return;
    }
    int64_t left_ms =
        status == 0 && reply->nodes[0].type == ':' ? reply->nodes[0].integer : POLL_MS;
    if (left_ms == -2) {
        ask(line); /* released in between */
        return;
    }
    bool tracked =
        rc_topology_is_tracked(line->locks->topology, rc_lock_slot(line->locks, &line->key));
    if (left_ms ==
        -1) /* a foreign lock without an end: only its deletion, which nobody tells us of */
        left_ms = POLL_MS * 20;
    if (!tracked && left_ms > POLL_MS)
        left_ms = POLL_MS;
    if (left_ms > LOOK_MAX_MS)
        left_ms = LOOK_MAX_MS;
    (void)rc_track_watch(line->locks->track, &line->key_watch, rc_buf_head(&line->key),
                         rc_buf_len(&line->key));
    wait_for_release(line, left_ms + 1);
}

/* Asks how long the lock's key lives, which also makes the server track it. */
static void ask_how_long(struct rc_lock_line *line)
{
    struct rc_locks *locks = line->locks;
    struct rc_context *context = locks->context;
    wait_for_release(line, POLL_MS);
    struct rc_req *req = rc_req_take(context);
    if (req == NULL)
        return;
    if (rc_command_head(&req->bytes, 2) != 0 || rc_command_text(&req->bytes, "PTTL") != 0 ||
        rc_lock_put_key(&req->bytes, &line->key) != 0) {
        rc_req_give(req);
        return;
    }
    rc_context_clear_timer(context, &line->timer);
    req->expect = 1;
    req->may_retry = true;
    req->is_tracked = true;
    req->done = on_pttl;
    req->owner = line;
    line->req = req;
    rc_lock_send(locks, req, &line->key, rc_lock_deadline(locks, NULL));
}

/* Somebody is in our way for so long, says the server. Our ticket is for ttl: it is asked for again
   in time. */
static void wait_in_queue(struct rc_lock_line *line, int64_t left_ms)
{
    struct rc_locks *locks = line->locks;
    int64_t most_ms = (line->asked_ttl_ms + 2) / 3;
    if (left_ms <= 0) /* a lock of somebody else's, without an end */
        left_ms = LOOK_EACH_MS;
    if (!rc_topology_is_tracked(locks->topology, rc_lock_slot(locks, &line->key)) &&
        most_ms > POLL_MS)
        most_ms = POLL_MS;
    wait_for_release(line, left_ms < most_ms ? left_ms + 1 : most_ms);
}

/* left_ms: of what is in the way of a lock with a queue. */
static void on_busy(struct rc_lock_line *line, int64_t left_ms)
{
    struct rc_locks *locks = line->locks;
    struct rc_context *context = locks->context;
    RC_LIST_EACH(member, following, &line->waiting) {
        struct rc_op *other = RC_CONTAINER(member, struct rc_op, run.member);
        if (other->ask.lock_options.wait_ms == 0 && !(other->ask.lock_options.flags & RC_FORCE))
            rc_context_fail(context, other, RC_ERR_BUSY, NULL);
    }
    struct rc_op *op = first(line);
    if (op == NULL) {
        next(line);
        return;
    }
    if (op->ask.lock_options.flags & RC_FORCE) { /* it came while somebody else's request was out */
        ask(line);
        return;
    }
    line->state = LINE_WAITING;
    (void)rc_track_watch(locks->track, &line->watch, rc_buf_head(&line->mark_key),
                         rc_buf_len(&line->mark_key));
    if (line->has_queue)
        wait_in_queue(line, left_ms);
    else
        ask_how_long(line);
}

static void on_ask_answer(struct rc_req *req, int status, struct rc_reply *reply, const char *text)
{
    struct rc_lock_line *line = req->owner;
    struct rc_context *context = line->locks->context;
    struct rc_op *op = first(line);
    line->req = NULL;
    const rc_node *nodes = status == 0 ? reply->nodes : NULL;
    if (status == 0)
        line->answered_us = context->now_us;
    bool granted =
        nodes != NULL && reply->count >= 3 && nodes[1].type == ':' && nodes[1].integer == 1;
    bool is_exact =
        granted && nodes[2].type == ':' && nodes[2].integer > 0 && nodes[2].integer < FENCE_END;
    bool busy = nodes != NULL && reply->count >= 2 && nodes[1].type == ':' && nodes[1].integer == 0;
    char cause[RC_TEXT_SIZE];
    if (op == NULL) {
        if (granted || (status != 0 && req->sent_us != 0))
            give_back(line, req);
    } else if (granted && !is_exact) {
        give_back(line, req);
        rc_context_fail(context, op, RC_ERR_PROTOCOL, "the fence's key holds no fence");
    } else if (granted) {
        op->result.number = nodes[2].integer;
        line->has_ticket = false;
        rc_held_lock_start(op->ask.lock, op, line->token, line->asked_ttl_ms, req->sent_us);
        rc_context_finish(context, op);
    } else if (busy) {
        on_busy(line, reply->count >= 3 && nodes[2].type == ':' ? nodes[2].integer : 0);
        return;
    } else {
        if (status != 0 && req->sent_us != 0)
            give_back(line, req);
        if (status == 0) {
            bool is_error = nodes[0].type == '-';
            status = is_error ? RC_ERR_REDIS : RC_ERR_PROTOCOL;
            text = is_error ? rc_node_text(&nodes[0], cause) : NULL;
        }
        rc_context_fail(context, op, status, text);
    }
    next(line);
}

static void ask(struct rc_lock_line *line)
{
    struct rc_locks *locks = line->locks;
    struct rc_op *op = first(line);
    if (line->req != NULL) { /* the PTTL of the last round: its answer no longer matters */
        rc_link_forget(line->req);
        line->req = NULL;
    }
    rc_context_clear_timer(locks->context, &line->timer);
    rc_track_unwatch(locks->track, &line->watch);
    rc_track_unwatch(locks->track, &line->key_watch);
    if (op == NULL) {
        next(line);
        return;
    }
    if (!line->has_ticket) /* else it keeps its place */
        new_token(locks->context, line->token);
    line->asked_ttl_ms = op->ask.lock_options.ttl_ms;
    line->has_ticket = line->has_queue && op->ask.lock_options.wait_ms > 0;
    struct rc_req *req = rc_lock_take_ask(locks, op, line->token);
    if (req == NULL) {
        rc_context_fail(locks->context, op, RC_ERR_NOMEM, NULL);
        next(line);
        return;
    }
    req->done = on_ask_answer;
    req->owner = line;
    line->req = req;
    line->state = LINE_ASKING;
    int64_t deadline_us = op->run.answer_by_us > locks->context->now_us
                              ? op->run.answer_by_us
                              : rc_lock_deadline(locks, op);
    rc_lock_send(locks, req, &line->key, deadline_us);
}

bool rc_locks_has_answered(struct rc_locks *locks, const struct rc_op *op)
{
    const struct rc_lock_line *line = find_line(locks, op->ask.lock);
    int64_t began_us = op->run.answer_by_us - (int64_t)op->ask.timeout_ms * 1000;
    return line != NULL && line->answered_us >= began_us;
}

const char *rc_locks_why_deaf(const struct rc_locks *locks, const struct rc_lock *lock)
{
    return rc_topology_why_deaf(locks->topology, rc_lock_slot(locks, &lock->key));
}

/* The two of a handle: renewal and the end of trust. */
static bool reserve_timers(struct rc_context *context)
{
    if (rc_context_add_timer(context) != 0)
        return false;
    if (rc_context_add_timer(context) == 0)
        return true;
    rc_context_remove_timer(context);
    return false;
}

void rc_locks_acquire(struct rc_locks *locks, struct rc_op *op)
{
    struct rc_lock *lock = op->ask.lock;
    if (lock->locks == NULL) {
        if (!reserve_timers(locks->context)) {
            rc_context_fail(locks->context, op, RC_ERR_NOMEM, NULL);
            return;
        }
        rc_held_lock_prepare(lock, locks);
    }
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) == RC_LOCK_HELD) {
        rc_context_fail(locks->context, op, RC_ERR_ARGUMENT, "the handle already holds the lock");
        return;
    }
    atomic_store_explicit(&lock->state, RC_LOCK_FREE, memory_order_release);
    const char *cause;
    int error = rc_topology_is_barred(locks->topology, rc_lock_slot(locks, &lock->key), &cause);
    if (error != 0) { /* T could bring the lock, and nothing could renew or release it */
        rc_context_fail(locks->context, op, error, cause);
        return;
    }
    struct rc_lock_line *line = find_line(locks, lock);
    if (line == NULL)
        line = new_line(locks, lock);
    if (line == NULL) {
        rc_context_fail(locks->context, op, RC_ERR_NOMEM, NULL);
        return;
    }
    bool force = op->ask.lock_options.flags & RC_FORCE;
    if (force) /* asks at once, though others wait */
        rc_list_prepend(&line->waiting, &op->run.member);
    else
        rc_list_append(&line->waiting, &op->run.member);
    if (line->state == LINE_IDLE || (force && line->state == LINE_WAITING))
        ask(line);
    else if (op->ask.lock_options.wait_ms == 0 && line->state == LINE_WAITING)
        rc_context_fail(locks->context, op, RC_ERR_BUSY, NULL);
}

/* ---- releasing ------------------------------------------------------------------------------- */

/* Somebody of this process waits for it: no need for the detour of the mark's push. */
static void tell_line(struct rc_locks *locks, const struct rc_lock *lock)
{
    struct rc_lock_line *line = find_line(locks, lock);
    if (line != NULL && line->state == LINE_WAITING)
        ask(line);
}

static const struct rc_buf *queue_key_of(const struct rc_lock *lock)
{
    return is_queued(lock) ? &lock->queue.key : NULL;
}

/* Worth sending for as long as the lock may live, though nobody may hear the answer. */
static struct rc_req *take_own_release(const struct rc_lock *lock)
{
    struct rc_req *req = rc_lock_take_release(lock->locks, &lock->key, &lock->mark_key,
                                              queue_key_of(lock), lock->token);
    if (req != NULL)
        req->patience_ms = lock->ttl_ms;
    return req;
}

static void on_release_answer(struct rc_req *req, int status, struct rc_reply *reply,
                              const char *text)
{
    struct rc_op *op = req->owner;
    struct rc_locks *locks = req->detail;
    op->run.req = NULL;
    char cause[RC_TEXT_SIZE];
    if (status == 0) {
        const rc_node *node = &reply->nodes[0];
        if (node->type == '-') {
            status = RC_ERR_REDIS;
            text = rc_node_text(node, cause);
        } else if (node->type != ':' || node->integer != 1) {
            status = RC_ERR_NOTHELD;
        }
    }
    tell_line(locks, op->ask.lock);
    if (status != 0)
        rc_context_fail(locks->context, op, status, text);
    else
        rc_context_finish(locks->context, op);
}

void rc_locks_release(struct rc_locks *locks, struct rc_op *op)
{
    struct rc_lock *lock = op->ask.lock;
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) != RC_LOCK_HELD) {
        rc_context_fail(locks->context, op, RC_ERR_NOTHELD, NULL);
        return;
    }
    struct rc_req *req = take_own_release(lock);
    rc_held_lock_end(lock, RC_LOCK_FREE);
    rc_lock_send_for(locks, op, req, on_release_answer);
}

/* ---- leaving --------------------------------------------------------------------------------- */

void rc_locks_leave(struct rc_locks *locks, struct rc_op *op)
{
    struct rc_lock_line *line = find_line(locks, op->ask.lock);
    rc_list_remove(&op->run.member);
    if (line == NULL || first(line) != NULL)
        return;
    if (line->state == LINE_WAITING && line->req == NULL) {
        leave_queue(line);
        free_if_idle(line);
    }
}

void rc_locks_drop(struct rc_locks *locks, struct rc_lock *lock)
{
    if (lock->locks == NULL)
        return;
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) == RC_LOCK_HELD) {
        struct rc_req *req = take_own_release(lock);
        rc_held_lock_end(lock, RC_LOCK_FREE);
        if (req != NULL)
            rc_lock_send(locks, req, &lock->key,
                         rc_context_after_ms(locks->context, req->patience_ms));
        tell_line(locks, lock);
    }
    rc_context_remove_timer(locks->context);
    rc_context_remove_timer(locks->context);
    lock->locks = NULL;
}

void rc_locks_on_tracking(struct rc_locks *locks)
{
    RC_LIST_EACH(link, following, &locks->held) {
        rc_held_lock_verify(RC_CONTAINER(link, struct rc_lock, held));
    }
}

void rc_locks_on_map(struct rc_locks *locks)
{
    RC_LIST_EACH(link, following, &locks->held) {
        rc_held_lock_follow(RC_CONTAINER(link, struct rc_lock, held));
    }
}

void rc_locks_shutdown(struct rc_locks *locks)
{
    RC_LIST_EACH(link, following, &locks->held) {
        struct rc_lock *lock = RC_CONTAINER(link, struct rc_lock, held);
        struct rc_req *req = rc_lock_take_release(locks, &lock->key, &lock->mark_key,
                                                  queue_key_of(lock), lock->token);
        rc_held_lock_end(lock, RC_LOCK_LOST);
        if (req != NULL)
            rc_lock_send(locks, req, &lock->key, rc_lock_deadline(locks, NULL));
    }
    for (size_t i = 0; i < locks->lines.bucket_count; i++) {
        struct rc_table_node *node = locks->lines.buckets[i];
        while (node != NULL) {
            struct rc_lock_line *line = (struct rc_lock_line *)(void *)node;
            node = node->next;
            if (line->req == NULL)
                next(line);
        }
    }
}

/* ---- handles --------------------------------------------------------------------------------- */

int rc_lock_init(struct rc_lock *lock, const char *key, size_t len)
{
    memset(lock, 0, sizeof *lock);
    rc_list_init(&lock->held);
    rc_buf_init(&lock->key);
    rc_buf_init(&lock->fence_key);
    rc_buf_init(&lock->mark_key);
    rc_lock_queue_init(&lock->queue);
    atomic_init(&lock->state, RC_LOCK_FREE);
    atomic_init(&lock->trusted_until_us, 0);
    if (rc_buf_append(&lock->key, key, len) != 0 ||
        rc_slot_helper_key(&lock->fence_key, key, len, ":fence") != 0 ||
        rc_slot_helper_key(&lock->mark_key, key, len, ":mark") != 0) {
        rc_lock_deinit(lock);
        return RC_ERR_NOMEM;
    }
    return 0;
}

int rc_lock_init_queued(struct rc_lock *lock, const char *key, size_t len, const char *own,
                        size_t own_len)
{
    char kind = own != NULL ? RC_QUEUE_SHARED : RC_QUEUE_ALONE;
    int error = rc_lock_init(lock, key, len);
    if (error != 0)
        return error;
    struct rc_buf mine = {NULL, 0, 0, 0};
    if (own != NULL)
        error = rc_buf_append(&mine, own, own_len);
    if (error == 0)
        error = rc_lock_queue_join(&lock->queue, kind, &lock->key, own != NULL ? &mine : &lock->key,
                                   lock);
    if (error != 0) {
        rc_buf_deinit(&mine);
        rc_lock_deinit(lock);
        return error;
    }
    if (own != NULL)
        rc_buf_swap(&lock->key, &mine); /* the helper keys are those of the lock */
    rc_buf_deinit(&mine);
    return 0;
}

void rc_lock_deinit(struct rc_lock *lock)
{
    rc_lock_queue_deinit(&lock->queue);
    rc_buf_deinit(&lock->key);
    rc_buf_deinit(&lock->fence_key);
    rc_buf_deinit(&lock->mark_key);
}
