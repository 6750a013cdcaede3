#include "engine/resp.h"

#include <hiredis/read.h>
#include <stdlib.h>
#include <string.h>

#include "engine/error_text.h"

enum {
    DEPTH_MAX = 32, /* aggregates inside each other; Redis itself stays below 10 */
    FIRST_NODES = 16,
    /* redisReaderGetReply moves all unread bytes to the front at each consumed KiB, which costs
       more than the parsing when 64 KiB of answers arrive at once (measured: 310 ns per answer of
       1000 bytes, in slices 115). */
    SLICE = 4096,
    /* hiredis frees its buffer at every feed once it has grown over 16 KiB (maxbuf). Slices stay
       below this number, and only the room of a large value is given back. */
    READER_KEEP = 256 * 1024,
    VERBATIM_PREFIX = 4,    /* "txt:" */
    PLAIN_DIGITS = 18,      /* a number of more may not fit: hiredis judges it */
    LINE_MAX_NUMBER = 512,  /* hiredis takes doubles up to 325 bytes, lengths and integers are 20 */
    LINE_MAX_TEXT = 1 << 16 /* simple strings and errors, where max_bulk_bytes is less */
};

void rc_reply_init(struct rc_reply *reply)
{
    *reply = (struct rc_reply){0};
    rc_buf_init(&reply->arena);
}

void rc_reply_deinit(struct rc_reply *reply)
{
    free(reply->nodes);
    rc_buf_deinit(&reply->arena);
    rc_reply_init(reply);
}

void rc_reply_clear(struct rc_reply *reply)
{
    reply->count = 0;
    reply->has_error = false;
    rc_buf_clear(&reply->arena);
}

void rc_reply_trim(struct rc_reply *reply, size_t keep_bytes)
{
    rc_reply_clear(reply);
    rc_buf_trim(&reply->arena, keep_bytes);
    if (reply->room > keep_bytes / sizeof(*reply->nodes)) {
        free(reply->nodes);
        reply->nodes = NULL;
        reply->room = 0;
    }
}

void rc_reply_swap(struct rc_reply *a, struct rc_reply *b)
{
    struct rc_reply kept = *a;
    *a = *b;
    *b = kept;
}

static bool has_text(const rc_node *node)
{
    switch (node->type) {
    case '+':
    case '-':
    case '$':
    case ',':
    case '(':
    case '=': return true;
    default: return false;
    }
}

void rc_reply_resolve(struct rc_reply *reply)
{
    /* Empty strings may be all there is; they point at something too. */
    const char *base = reply->arena.bytes == NULL ? "" : reply->arena.bytes;
    for (uint32_t i = 0; i < reply->count; i++) {
        rc_node *node = &reply->nodes[i];
        if (has_text(node))
            node->str = base + (uintptr_t)node->str;
    }
}

int rc_reply_copy(struct rc_reply *copy, const struct rc_reply *reply)
{
    const char *base = reply->arena.bytes == NULL ? "" : reply->arena.bytes;
    if (rc_buf_append(&copy->arena, base, reply->arena.end) != 0)
        return RC_ERR_NOMEM;
    copy->nodes = malloc((reply->count + 1) * sizeof *copy->nodes);
    if (copy->nodes == NULL)
        return RC_ERR_NOMEM;
    copy->room = copy->count = reply->count;
    copy->has_error = reply->has_error;
    for (uint32_t i = 0; i < reply->count; i++) {
        copy->nodes[i] = reply->nodes[i];
        if (has_text(&copy->nodes[i])) /* back to an offset */
            copy->nodes[i].str = (const char *)(uintptr_t)(reply->nodes[i].str - base);
    }
    rc_reply_resolve(copy);
    return 0;
}

uint32_t rc_reply_skip_all(const struct rc_reply *reply, uint32_t index)
{
    for (uint64_t missing = 1; missing > 0 && index < reply->count; index++)
        missing += (uint64_t)reply->nodes[index].count - 1;
    return index;
}

static int grow_nodes(struct rc_reply *reply)
{
    size_t room = reply->room == 0 ? FIRST_NODES : (size_t)reply->room * 2;
    if (room > UINT32_MAX || room > SIZE_MAX / 2 / sizeof(*reply->nodes))
        return RC_ERR_NOMEM;
    rc_node *nodes = realloc(reply->nodes, room * sizeof(*nodes));
    if (nodes == NULL)
        return RC_ERR_NOMEM;
    reply->nodes = nodes;
    reply->room = (uint32_t)room;
    return 0;
}

static rc_node *add_node(struct rc_reply *reply, int32_t type)
{
    if (reply->count == reply->room && grow_nodes(reply) != 0)
        return NULL;
    rc_node *node = &reply->nodes[reply->count++];
    *node = (rc_node){.type = type};
    reply->has_error |= type == '-';
    return node;
}

/* ---- an answer made of others ---------------------------------------------------------------- */

/* Gives the newest node a text. */
static int add_bytes(struct rc_reply *reply, const char *bytes, size_t len)
{
    rc_node *node = &reply->nodes[reply->count - 1];
    node->str = (const char *)(uintptr_t)reply->arena.end;
    node->len = len;
    return rc_buf_append(&reply->arena, bytes, len);
}

int rc_reply_append(struct rc_reply *reply, const struct rc_reply *from, uint32_t first,
                    uint32_t end)
{
    int error = 0;
    for (uint32_t i = first; i < end && error == 0; i++) {
        const rc_node *node = &from->nodes[i];
        rc_node *copy = add_node(reply, node->type);
        if (copy == NULL)
            return RC_ERR_NOMEM;
        copy->count = node->count;
        copy->integer = node->integer;
        if (has_text(node))
            error = add_bytes(reply, node->str, node->len);
    }
    return error;
}

int rc_reply_append_texts(struct rc_reply *reply, const struct rc_reply *from, size_t *base)
{
    *base = reply->arena.end;
    return rc_buf_append(&reply->arena, from->arena.bytes, from->arena.end);
}

int rc_reply_append_bare(struct rc_reply *reply, const struct rc_reply *from, size_t base,
                         uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        const rc_node *node = &from->nodes[i];
        rc_node *copy = add_node(reply, node->type);
        if (copy == NULL)
            return RC_ERR_NOMEM;
        *copy = *node;
        if (has_text(node)) /* an empty one may stand elsewhere */
            copy->str =
                (const char *)(node->len > 0 ? (uintptr_t)(node->str - from->arena.bytes) + base
                                             : base);
    }
    return 0;
}

int rc_reply_add_number(struct rc_reply *reply, int64_t number)
{
    rc_node *node = add_node(reply, ':');
    if (node == NULL)
        return RC_ERR_NOMEM;
    node->integer = number;
    return 0;
}

int rc_reply_add_list(struct rc_reply *reply, uint32_t count)
{
    rc_node *node = add_node(reply, '*');
    if (node == NULL)
        return RC_ERR_NOMEM;
    node->count = count;
    return 0;
}

int rc_reply_add_error(struct rc_reply *reply, int status, const char *text)
{
    rc_node *node = add_node(reply, '-');
    if (node == NULL)
        return RC_ERR_NOMEM;
    node->integer = status;
    return add_bytes(reply, text, text != NULL ? strlen(text) : 0);
}

/*
 * The reader's object functions. hiredis takes NULL for "no memory" and stops for good; `failed`
 * tells whether it was a limit. Anything else it takes for an object: we give it privdata, and
 * nobody looks at it.
 */

static void *refuse(struct rc_resp *resp)
{
    resp->failed = true;
    return NULL;
}

/* Where the nodes of this message go. Its first element decides. */
static struct rc_reply *find_target(struct rc_resp *resp, const redisReadTask *task)
{
    if (task->parent == NULL) {
        resp->elements = 0;
        resp->in_push = task->type == REDIS_REPLY_PUSH;
        if (resp->in_push)
            rc_reply_clear(&resp->push);
    }
    return resp->in_push ? &resp->push : &resp->reply;
}

/* Without memory the answer is as it was. */
static int append_text(struct rc_reply *reply, int32_t type, const char *text, size_t len)
{
    size_t offset = reply->arena.end;
    rc_node *node = rc_buf_reserve(&reply->arena, len) == 0 ? add_node(reply, type) : NULL;
    if (node == NULL)
        return RC_ERR_NOMEM;
    (void)rc_buf_append(&reply->arena, text, len); /* there is room */
    node->str = (const char *)(uintptr_t)offset;
    node->len = len;
    return 0;
}

static void *add_text(struct rc_resp *resp, const redisReadTask *task, int32_t type,
                      const char *text, size_t len)
{
    return append_text(find_target(resp, task), type, text, len) == 0 ? task->privdata : NULL;
}

/* The only way of an error into the program: what may be a secret stays out. */
static void *add_error(struct rc_resp *resp, const redisReadTask *task, const char *text,
                       size_t len)
{
    char shown[RC_ERROR_TEXT_SIZE];
    return add_text(resp, task, '-', shown, rc_error_text(shown, text, len));
}

static size_t line_max(const struct rc_resp *resp, int type)
{
    switch (type) {
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
    case REDIS_REPLY_BIGNUM:
        return resp->max_bulk_bytes > LINE_MAX_TEXT ? resp->max_bulk_bytes : LINE_MAX_TEXT;
    default: return LINE_MAX_NUMBER;
    }
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    struct rc_resp *resp = task->privdata;
    bool is_bulk = task->type == REDIS_REPLY_STRING || task->type == REDIS_REPLY_VERB;
    if (len > (is_bulk ? resp->max_bulk_bytes : line_max(resp, task->type))) {
        resp->too_large = true;
        return refuse(resp);
    }
    /* hiredis 1.2.0 skips the two bytes behind a bulk string unseen; they are in its buffer. */
    if (text[len] != '\r' || text[len + 1] != '\n')
        return refuse(resp);
    switch (task->type) {
    case REDIS_REPLY_STRING: return add_text(resp, task, '$', text, len);
    case REDIS_REPLY_VERB: /* hiredis has checked the prefix */
        return add_text(resp, task, '=', text + VERBATIM_PREFIX, len - VERBATIM_PREFIX);
    case REDIS_REPLY_STATUS: return add_text(resp, task, '+', text, len);
    case REDIS_REPLY_ERROR: return add_error(resp, task, text, len);
    case REDIS_REPLY_BIGNUM: return add_text(resp, task, '(', text, len);
    default: return refuse(resp);
    }
}

static int32_t aggregate_type(int type)
{
    switch (type) {
    case REDIS_REPLY_MAP: return '%';
    case REDIS_REPLY_SET: return '~';
    case REDIS_REPLY_PUSH: return '>';
    default: return '*';
    }
}

/* `count` is already doubled for maps. */
static void *create_array(const redisReadTask *task, size_t count)
{
    struct rc_resp *resp = task->privdata;
    if (task->type == REDIS_REPLY_PUSH && task->parent != NULL)
        return refuse(resp);
    struct rc_reply *reply = find_target(resp, task);
    if (resp->reader->ridx >= DEPTH_MAX || count > resp->max_elements - resp->elements)
        return refuse(resp);
    rc_node *node = add_node(reply, aggregate_type(task->type));
    if (node == NULL)
        return NULL;
    resp->elements += (uint32_t)count;
    node->count = (uint32_t)count;
    return task->privdata;
}

static void *create_number(const redisReadTask *task, int32_t type, int64_t number)
{
    rc_node *node = add_node(find_target(task->privdata, task), type);
    if (node == NULL)
        return NULL;
    node->integer = number;
    return task->privdata;
}

static void *create_integer(const redisReadTask *task, long long number)
{
    return create_number(task, ':', number);
}

static void *create_bool(const redisReadTask *task, int value)
{
    return create_number(task, '#', value);
}

static void *create_double(const redisReadTask *task, double number, char *text, size_t len)
{
    (void)number;
    return add_text(task->privdata, task, ',', text, len);
}

static void *create_nil(const redisReadTask *task)
{
    if (task->type == REDIS_REPLY_PUSH) /* ">-1" */
        return refuse(task->privdata);
    return create_number(task, '_', 0);
}

static const redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createDouble = create_double,
    .createNil = create_nil,
    .createBool = create_bool,
};

static redisReader *new_reader(struct rc_resp *resp)
{
    /* Not const in hiredis' signature; it only reads them. */
    redisReader *reader = redisReaderCreateWithFunctions((redisReplyObjectFunctions *)&functions);
    if (reader == NULL)
        return NULL;
    reader->privdata = resp;
    reader->maxbuf = READER_KEEP;
    reader->maxelements = resp->max_elements > 0 ? resp->max_elements : 1; /* 0: no limit */
    return reader;
}

int rc_resp_init(struct rc_resp *resp, uint32_t max_elements, size_t max_bulk_bytes)
{
    *resp = (struct rc_resp){.slice = SLICE};
    /* hiredis counts in int. */
    resp->max_elements = max_elements < INT32_MAX ? max_elements : INT32_MAX;
    resp->max_bulk_bytes = max_bulk_bytes < SIZE_MAX / 4 ? max_bulk_bytes : SIZE_MAX / 4;
    rc_reply_init(&resp->reply);
    rc_reply_init(&resp->push);
    rc_buf_init(&resp->input);
    resp->reader = new_reader(resp);
    return resp->reader == NULL ? RC_ERR_NOMEM : 0;
}

void rc_resp_deinit(struct rc_resp *resp)
{
    redisReaderFree(resp->reader);
    resp->reader = NULL;
    rc_reply_deinit(&resp->reply);
    rc_reply_deinit(&resp->push);
    rc_buf_deinit(&resp->input);
}

int rc_resp_reset(struct rc_resp *resp)
{
    redisReader *reader = new_reader(resp);
    if (reader == NULL)
        return RC_ERR_NOMEM;
    redisReaderFree(resp->reader);
    resp->reader = reader;
    rc_reply_clear(&resp->reply);
    rc_reply_clear(&resp->push);
    rc_buf_clear(&resp->input);
    resp->slice = SLICE;
    resp->elements = 0;
    resp->in_push = resp->failed = resp->too_large = false;
    return 0;
}

/* 0, or why nothing can be read any more. */
static int find_error(const struct rc_resp *resp)
{
    if (resp->failed)
        return RC_ERR_PROTOCOL;
    if (resp->reader->err == REDIS_ERR_OOM)
        return RC_ERR_NOMEM;
    return resp->reader->err == 0 ? 0 : RC_ERR_PROTOCOL;
}

/* The reader has nothing left, and nothing begun. */
static bool is_idle(const struct rc_resp *resp)
{
    return resp->reader->pos == resp->reader->len && resp->reader->ridx < 0;
}

int rc_resp_feed(struct rc_resp *resp, const char *bytes, size_t len)
{
    int error = find_error(resp);
    if (error != 0 || len == 0)
        return error;
    if (is_idle(resp) || rc_buf_len(&resp->input) > 0)
        return rc_buf_append(&resp->input, bytes, len);
    size_t first = len < resp->slice ? len : resp->slice;
    error = rc_buf_append(&resp->input, bytes + first, len - first);
    if (error != 0)
        return error;
    redisReaderFeed(resp->reader, bytes, first);
    return find_error(resp);
}

static int fail(struct rc_resp *resp, bool too_large)
{
    resp->failed = true;
    resp->too_large = too_large;
    return RC_ERR_PROTOCOL;
}

/* `at` is behind the type byte of a bulk string that has not arrived completely. A whole header is
   one that hiredis has found to be a number. */
static int check_bulk(struct rc_resp *resp, const char *at, size_t have)
{
    const char *end = have == 0 ? NULL : memchr(at, '\n', have);
    if (end == NULL || end == at || end[-1] != '\r')
        return have > LINE_MAX_NUMBER ? fail(resp, false) : 0;
    size_t len = 0, header = (size_t)(end - at) + 1;
    for (; *at >= '0' && *at <= '9'; at++) {
        size_t digit = (size_t)(*at - '0');
        if (digit > resp->max_bulk_bytes || len > (resp->max_bulk_bytes - digit) / 10)
            return fail(resp, true);
        len = len * 10 + digit;
    }
    size_t whole = header + len + 2;
    if (whole > have && whole - have > SLICE)
        resp->slice = whole - have;
    return 0;
}

/* Looks at the element the reader waits for: what is over a limit is refused before its bytes are
   collected, and a large value may come in one slice. */
static int check_pending(struct rc_resp *resp)
{
    const redisReader *reader = resp->reader;
    resp->slice = SLICE;
    if (reader->ridx < 0 || reader->task[reader->ridx]->type < 0)
        return 0;
    const char *at = reader->buf + reader->pos;
    size_t have = reader->len - reader->pos;
    int type = reader->task[reader->ridx]->type;
    if (type == REDIS_REPLY_STRING || type == REDIS_REPLY_VERB)
        return check_bulk(resp, at, have);
    size_t most = line_max(resp, type);
    if (have > most + 1) /* 1: a '\r' whose '\n' is still to come */
        return fail(resp, most > LINE_MAX_NUMBER);
    return 0;
}

static void give_slice(struct rc_resp *resp)
{
    size_t len = rc_buf_len(&resp->input);
    if (len > resp->slice)
        len = resp->slice;
    if (redisReaderFeed(resp->reader, rc_buf_head(&resp->input), len) == REDIS_OK)
        rc_buf_consume(&resp->input, len);
}

/*
 * A string, a number, nil or "OK" by itself, or a list of one string or nil, is what nearly all
 * commands are answered by. One that is here as a whole is taken without hiredis, which needs three
 * times as long. Of a short one that is here in part the rest is waited for: hiredis, once it has
 * begun, would go on with all that comes. Everything else, and whatever is not exactly of that
 * form, is left to hiredis: it alone says what is wrong.
 */
enum plain {
    PLAIN_NOT,  /* something else */
    PLAIN_PART, /* so far */
    PLAIN_WHOLE
};

/* Digits as hiredis takes them, and "\r\n": *at is then behind them. */
static inline enum plain take_digits(const char **at, const char *end, int64_t *number)
{
    const char *first = *at, *to = first;
    int64_t value = 0;
    for (; to < end && to - first < PLAIN_DIGITS && *to >= '0' && *to <= '9'; to++)
        value = value * 10 + (*to - '0');
    if (to - first > 1 && *first == '0')
        return PLAIN_NOT;
    if (end - to < 2)
        return to == end || (to > first && *to == '\r') ? PLAIN_PART : PLAIN_NOT;
    *number = value;
    *at = to + 2;
    return to > first && to[0] == '\r' && to[1] == '\n' ? PLAIN_WHOLE : PLAIN_NOT;
}

static inline enum plain take_word(const char **at, const char *end, const char *word, size_t len)
{
    size_t have = (size_t)(end - *at) < len ? (size_t)(end - *at) : len;
    if (memcmp(*at, word, have) != 0)
        return PLAIN_NOT;
    *at += have;
    return have == len ? PLAIN_WHOLE : PLAIN_PART;
}

static inline enum plain take_string(struct rc_resp *resp, const char **at, const char *end)
{
    int64_t len = 0;
    enum plain form = take_digits(at, end, &len);
    const char *text = *at;
    if (form != PLAIN_WHOLE)
        return form;
    if ((uint64_t)len > resp->max_bulk_bytes)
        return PLAIN_NOT;
    if (end - text < len + 2)
        return len <= SLICE ? PLAIN_PART : PLAIN_NOT;
    if (text[len] != '\r' || text[len + 1] != '\n' ||
        append_text(&resp->reply, '$', text, (size_t)len) != 0)
        return PLAIN_NOT;
    *at = text + len + 2;
    return PLAIN_WHOLE;
}

static enum plain take_integer(struct rc_resp *resp, const char **at, const char *end)
{
    int64_t number = 0;
    bool is_negative = *at < end && **at == '-';
    *at += is_negative;
    enum plain form = take_digits(at, end, &number);
    if (form != PLAIN_WHOLE)
        return form;
    rc_node *node = !(is_negative && number == 0) ? add_node(&resp->reply, ':') : NULL;
    if (node == NULL)
        return PLAIN_NOT;
    node->integer = is_negative ? -number : number;
    return PLAIN_WHOLE;
}

static enum plain take_nil(struct rc_resp *resp, const char **at, const char *end)
{
    enum plain form = take_word(at, end, "\r\n", 2);
    if (form == PLAIN_WHOLE && add_node(&resp->reply, '_') == NULL)
        return PLAIN_NOT;
    return form;
}

static enum plain take_status(struct rc_resp *resp, const char **at, const char *end)
{
    enum plain form = take_word(at, end, "OK\r\n", 4);
    if (form == PLAIN_WHOLE && append_text(&resp->reply, '+', "OK", 2) != 0)
        return PLAIN_NOT;
    return form;
}

/* Of one element: what MGET of one key is answered by. */
static enum plain take_list(struct rc_resp *resp, const char **at, const char *end)
{
    struct rc_reply *reply = &resp->reply;
    enum plain form = resp->max_elements > 0 ? take_word(at, end, "1\r\n", 3) : PLAIN_NOT;
    if (form != PLAIN_WHOLE || *at == end)
        return form == PLAIN_WHOLE ? PLAIN_PART : form;
    uint32_t before = reply->count;
    char type = *(*at)++;
    rc_node *node = type == '$' || type == '_' ? add_node(reply, '*') : NULL;
    if (node == NULL)
        return PLAIN_NOT;
    node->count = 1;
    form = type == '$' ? take_string(resp, at, end) : take_nil(resp, at, end);
    if (form != PLAIN_WHOLE)
        reply->count = before;
    return form;
}

static enum plain take_plain(struct rc_resp *resp)
{
    const char *bytes = rc_buf_head(&resp->input), *end = bytes + rc_buf_len(&resp->input);
    const char *at = bytes + 1;
    enum plain form = PLAIN_NOT;
    switch (*bytes) {
    case '$': form = take_string(resp, &at, end); break;
    case ':': form = take_integer(resp, &at, end); break;
    case '_': form = take_nil(resp, &at, end); break;
    case '+': form = take_status(resp, &at, end); break;
    case '*': form = take_list(resp, &at, end); break;
    default: break;
    }
    if (form == PLAIN_NOT)
        return form;
    if (form == PLAIN_WHOLE)
        rc_buf_consume(&resp->input, (size_t)(at - bytes));
    resp->in_push = false;
    return form;
}

int rc_resp_next(struct rc_resp *resp, enum rc_message *message)
{
    *message = RC_MESSAGE_NONE;
    for (;;) {
        void *answer = NULL;
        int error = find_error(resp);
        if (error != 0)
            return error;
        if (is_idle(resp)) {
            if (rc_buf_len(&resp->input) == 0)
                return 0; /* what most calls behind an answer find */
            enum plain form = take_plain(resp);
            if (form == PLAIN_PART)
                return 0;
            if (form == PLAIN_WHOLE)
                break;
        }
        if (redisReaderGetReply(resp->reader, &answer) != REDIS_OK) {
            error = find_error(resp);
            return error != 0 ? error : fail(resp, false);
        }
        if (answer != NULL)
            break;
        error = check_pending(resp);
        if (error != 0 || rc_buf_len(&resp->input) == 0)
            return error;
        give_slice(resp);
    }
    if (resp->in_push)
        rc_reply_resolve(&resp->push);
    *message = resp->in_push ? RC_MESSAGE_PUSH : RC_MESSAGE_REPLY;
    return 0;
}
