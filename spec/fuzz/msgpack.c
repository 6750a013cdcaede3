/* Any bytes as MessagePack. What is read is one sound value within its limits, whatever the room
   for tokens, and the same value again when it is written and read once more. */
#include "codec/msgpack.h"

#include <stdbool.h>
#include <string.h>

#include "fuzz.h"

enum {
    LEN_MAX = 4096,     /* and so the most tokens: each takes a byte */
    WIDEST = 10,        /* bytes of an element we write, without its text */
    GUARD = 0x5a5a5a5a, /* stands where nothing may be written */
};

static rc_token first[LEN_MAX + 1], again[LEN_MAX + 1];
static unsigned char written[LEN_MAX * (WIDEST + 1)];

/* One value, its strings inside `len` bytes, its containers at most RC_MSGPACK_DEPTH deep. */
static void check_sound(const rc_token *tokens, int32_t count, size_t len)
{
    int64_t left[RC_MSGPACK_DEPTH + 1] = {1};
    int depth = 0;
    for (int32_t i = 0; i < count; i++) {
        const rc_token *token = &tokens[i];
        while (depth > 0 && left[depth] == 0)
            depth--;
        FUZZ_CHECK(left[depth]-- > 0 && token->count >= 0);
        if (token->type == RC_TOKEN_STRING)
            FUZZ_CHECK(token->offset > 0 && (size_t)token->offset + (size_t)token->count <= len);
        if (token->type != RC_TOKEN_ARRAY && token->type != RC_TOKEN_MAP)
            continue;
        FUZZ_CHECK(depth < RC_MSGPACK_DEPTH);
        left[++depth] = token->type == RC_TOKEN_MAP ? 2 * (int64_t)token->count : token->count;
    }
    for (; depth >= 0; depth--)
        FUZZ_CHECK(left[depth] == 0);
}

static size_t put(size_t at, uint64_t number, int width)
{
    for (int i = width - 1; i >= 0; i--)
        written[at++] = (unsigned char)(number >> (8 * i));
    return at;
}

/* Writes a token in the widest form of its type; returns where the next one goes. */
static size_t write_token(size_t at, const rc_token *token, const uint8_t *bytes)
{
    switch (token->type) {
    case RC_TOKEN_NIL: return put(at, 0xc0, 1);
    case RC_TOKEN_FALSE: return put(at, 0xc2, 1);
    case RC_TOKEN_TRUE: return put(at, 0xc3, 1);
    case RC_TOKEN_NUMBER: return put(put(at, 0xcb, 1), token->uint64, 8);
    case RC_TOKEN_ARRAY: return put(put(at, 0xdd, 1), (uint64_t)token->count, 4);
    case RC_TOKEN_MAP: return put(put(at, 0xdf, 1), (uint64_t)token->count, 4);
    case RC_TOKEN_INT64: return put(put(at, 0xd700 | RC_MSGPACK_EXT_INT64, 2), token->uint64, 8);
    case RC_TOKEN_UINT64: return put(put(at, 0xd700 | RC_MSGPACK_EXT_UINT64, 2), token->uint64, 8);
    default: break;
    }
    FUZZ_CHECK(token->type == RC_TOKEN_STRING);
    at = put(put(at, 0xdb, 1), (uint64_t)token->count, 4);
    memcpy(written + at, bytes + token->offset, (size_t)token->count);
    return at + (size_t)token->count;
}

static bool is_same(const rc_token *a, const uint8_t *a_bytes, const rc_token *b)
{
    if (a->type != b->type || a->count != b->count)
        return false;
    if (a->type == RC_TOKEN_STRING)
        return memcmp(a_bytes + a->offset, written + b->offset, (size_t)a->count) == 0;
    return a->type < RC_TOKEN_NUMBER || a->type == RC_TOKEN_ARRAY || a->type == RC_TOKEN_MAP ||
           a->uint64 == b->uint64;
}

static void check_round_trip(int32_t count, const uint8_t *bytes)
{
    size_t end = 0;
    for (int32_t i = 0; i < count; i++)
        end = write_token(end, &first[i], bytes);
    FUZZ_CHECK(rc_msgpack_scan((const char *)written, end, again, LEN_MAX) == count);
    for (int32_t i = 0; i < count; i++)
        FUZZ_CHECK(is_same(&first[i], bytes, &again[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input input = {bytes, bytes + len};
    int32_t room = fuzz_byte(&input);
    size_t left = fuzz_left(&input);
    if (left > LEN_MAX)
        return 0;
    int32_t count = rc_msgpack_scan((const char *)input.at, left, first, LEN_MAX);
    FUZZ_CHECK(count == RC_ERR_PROTOCOL || (count > 0 && (size_t)count <= left));
    again[room].type = GUARD;
    FUZZ_CHECK(rc_msgpack_scan((const char *)input.at, left, again, room) == count);
    FUZZ_CHECK(again[room].type == GUARD);
    if (count > 0) {
        check_sound(first, count, left);
        check_round_trip(count, input.at);
    }
    return 0;
}
