/*
 * resp - RESP3 answers as flat arrays.
 *
 * What:    feeds bytes to hiredis' redisReader; its object functions write one flat node per
 *          element and copy strings into one arena, so an answer costs no allocation once the
 *          buffers have grown. What is plain goes the short way, past hiredis.
 * Threads: the link's owner.
 * Memory:  nodes and arena belong to an rc_reply and are valid until it is cleared. rc_reply_swap
 *          hands an answer to its receiver without a copy. An rc_resp does not move after init.
 * Errors:  RC_ERR_PROTOCOL for what is no RESP3 or is over a limit (depth 32, elements, bulk
 *          length): the connection is useless then. RC_ERR_NOMEM likewise.
 * Not:     does not know requests. A message of type push goes to `push`, everything else to
 *          `reply`. RC_ERR_PROTOCOL for attributes, streamed types and blob errors: hiredis 1.2.0
 *          does not read them, and Redis sends them to nobody but DEBUG PROTOCOL. Likewise for a
 *          push inside an answer, which older Redis can send (redis/redis#8935, #11038: expired
 *          keys in the answer of MGET, FLUSHALL in EXEC): hiredis counts it as an element of the
 *          answer, and all later answers would go to the wrong requests. hiredis checks doubles
 *          with strtod: LC_NUMERIC of the process must keep the decimal point.
 */
#ifndef RC_RESP_H
#define RC_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "redcache.h"

struct redisReader;

/* One or more answers in a row. */
struct rc_reply {
    rc_node *nodes; /* str holds an offset into arena until rc_reply_resolve */
    uint32_t count;
    uint32_t room;
    bool has_error; /* perhaps; false: none of the nodes is an error */
    struct rc_buf arena;
};

void rc_reply_init(struct rc_reply *reply);
void rc_reply_deinit(struct rc_reply *reply);
void rc_reply_clear(struct rc_reply *reply); /* keeps the room */
void rc_reply_trim(struct rc_reply *reply,
                   size_t keep_bytes); /* clears, and frees room over keep_bytes */
void rc_reply_swap(struct rc_reply *a, struct rc_reply *b);
/* Both resolved. `copy` is initialised and empty. */
int rc_reply_copy(struct rc_reply *copy, const struct rc_reply *reply);
void rc_reply_resolve(
    struct rc_reply *reply); /* turns offsets into pointers; call once the last answer is in */
/* Index behind the element at `index` and all that it contains. */
uint32_t rc_reply_skip_all(const struct rc_reply *reply, uint32_t index);
static inline uint32_t rc_reply_skip(const struct rc_reply *reply, uint32_t index)
{
    /* Most contain nothing. */
    bool is_single = index < reply->count && reply->nodes[index].count == 0;
    return is_single ? index + 1 : rc_reply_skip_all(reply, index);
}

/* Making an answer of others, which are resolved; resolve it when it is complete. RC_ERR_NOMEM.
   Copies the elements from `first` to just before `end`. */
int rc_reply_append(struct rc_reply *reply, const struct rc_reply *from, uint32_t first,
                    uint32_t end);
/* The same for one that is appended nearly as a whole, in whatever order: its texts, all at once,
   and its elements, as often as is wanted. *base is for the second. */
int rc_reply_append_texts(struct rc_reply *reply, const struct rc_reply *from, size_t *base);
int rc_reply_append_bare(struct rc_reply *reply, const struct rc_reply *from, size_t base,
                         uint32_t first, uint32_t end);
int rc_reply_add_number(struct rc_reply *reply, int64_t number);
int rc_reply_add_list(struct rc_reply *reply, uint32_t count); /* so many elements follow */
/* An error that is none of Redis': `integer` says which RC_ERR_* it is. text NULL: "". */
int rc_reply_add_error(struct rc_reply *reply, int status, const char *text);

/* The RC_ERR_* of an error. */
static inline int rc_reply_status(const rc_node *error)
{
    return error->integer != 0 ? (int)error->integer : RC_ERR_REDIS;
}

static inline bool rc_reply_is_text(const rc_node *node, const char *text)
{
    size_t len = strlen(text);
    return node->str != NULL && node->len == len && memcmp(node->str, text, len) == 0;
}

/* `begin` is its code, or the code and what follows. */
static inline bool rc_reply_is_error(const rc_node *node, const char *begin)
{
    size_t len = strlen(begin);
    return node->type == '-' && node->len >= len && memcmp(node->str, begin, len) == 0;
}

enum rc_message { RC_MESSAGE_NONE, RC_MESSAGE_REPLY, RC_MESSAGE_PUSH };

struct rc_resp {
    struct redisReader *reader;
    struct rc_reply reply; /* answers; cleared or swapped only right behind a whole one */
    struct rc_reply push;  /* the newest push; cleared when the next begins */
    struct rc_buf input;   /* fed and not yet given to the reader */
    size_t slice;          /* how much of it the reader takes next */
    uint32_t max_elements; /* of one message, at all depths */
    size_t max_bulk_bytes;
    /* Of the message being read. */
    uint32_t elements; /* announced so far */
    bool in_push;
    /* Until reset. */
    bool failed;    /* a limit was passed */
    bool too_large; /* max_bulk_bytes was */
};

int rc_resp_init(struct rc_resp *resp, uint32_t max_elements, size_t max_bulk_bytes);
void rc_resp_deinit(struct rc_resp *resp);
int rc_resp_reset(struct rc_resp *resp); /* forget everything: a new connection */
int rc_resp_feed(struct rc_resp *resp, const char *bytes, size_t len);
/* Takes one whole message. Strings of `reply` are offsets until the owner calls rc_reply_resolve;
   `push` is resolved. Checks an announced bulk length before its bytes have arrived. */
int rc_resp_next(struct rc_resp *resp, enum rc_message *message);

#endif
