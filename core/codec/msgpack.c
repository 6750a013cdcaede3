#include "codec/msgpack.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define EXACT_MAX 9007199254740992 /* 2^53: doubles hold every integer up to it */

struct scanner {
    const unsigned char *bytes;
    size_t len;
    size_t at;
    rc_scan *open; /* the containers that are not whole yet */
};

static bool has(const struct scanner *scanner, size_t more)
{
    return more <= scanner->len - scanner->at;
}

/* Takes a big-endian number of `width` bytes, 1 to 8. */
static inline bool take_bits(struct scanner *scanner, size_t width, uint64_t *bits)
{
    if (!has(scanner, width))
        return false;
    uint64_t sum = 0;
    for (size_t i = 0; i < width; i++)
        sum = sum << 8 | scanner->bytes[scanner->at + i];
    scanner->at += width;
    *bits = sum;
    return true;
}

static inline bool number(rc_token *token, double value)
{
    token->type = RC_TOKEN_NUMBER;
    token->number = value;
    return true;
}

/* LuaJIT keeps tagged values in the payloads of NaNs and, measured with 2.1, does not clean a
   double that compiled code loads: a NaN from outside would be a forged object. So only one plain
   NaN goes out. */
static bool float_number(rc_token *token, double value)
{
    return number(token, value == value ? value : (double)NAN);
}

static inline bool take_unsigned(struct scanner *scanner, size_t width, rc_token *token)
{
    uint64_t bits;
    if (!take_bits(scanner, width, &bits))
        return false;
    if (bits <= EXACT_MAX)
        return number(token, (double)bits);
    token->type = RC_TOKEN_UINT64;
    token->uint64 = bits;
    return true;
}

static inline bool take_signed(struct scanner *scanner, size_t width, rc_token *token)
{
    uint64_t bits;
    if (!take_bits(scanner, width, &bits))
        return false;
    uint64_t sign = UINT64_C(1) << (width * 8 - 1);
    int64_t value = (int64_t)((bits ^ sign) - sign); /* extends the sign */
    if (value >= -EXACT_MAX && value <= EXACT_MAX)
        return number(token, (double)value);
    token->type = RC_TOKEN_INT64;
    token->int64 = value;
    return true;
}

static bool take_float32(struct scanner *scanner, rc_token *token)
{
    uint64_t bits;
    if (!take_bits(scanner, 4, &bits))
        return false;
    uint32_t narrow = (uint32_t)bits;
    float value;
    memcpy(&value, &narrow, sizeof(value));
    return float_number(token, value);
}

static bool take_float64(struct scanner *scanner, rc_token *token)
{
    uint64_t bits;
    if (!take_bits(scanner, 8, &bits))
        return false;
    double value;
    memcpy(&value, &bits, sizeof(value));
    return float_number(token, value);
}

static bool take_string(struct scanner *scanner, size_t width, uint64_t len, rc_token *token)
{
    if (width > 0 && !take_bits(scanner, width, &len))
        return false;
    if (!has(scanner, len))
        return false;
    token->type = RC_TOKEN_STRING;
    token->count = (int32_t)len;
    token->offset = (int32_t)scanner->at;
    scanner->at += len;
    return true;
}

/* Every element takes at least a byte, so a count over the bytes that are left is a lie. */
static bool take_container(struct scanner *scanner, size_t width, uint64_t count, bool is_map,
                           rc_token *token)
{
    if (width > 0 && !take_bits(scanner, width, &count))
        return false;
    uint64_t elements = is_map ? 2 * count : count;
    rc_scan *open = scanner->open;
    if (open->depth == RC_MSGPACK_DEPTH || !has(scanner, elements))
        return false;
    token->type = is_map ? RC_TOKEN_MAP : RC_TOKEN_ARRAY;
    token->count = (int32_t)count;
    open->left[open->depth] = (uint32_t)elements;
    open->is_map[open->depth] = is_map;
    open->depth++;
    open->containers++;
    return true;
}

/* fixext 8 with one of our types. */
static bool take_extension(struct scanner *scanner, rc_token *token)
{
    uint64_t kind, bits;
    if (!take_bits(scanner, 1, &kind) || !take_bits(scanner, 8, &bits))
        return false;
    if (kind == RC_MSGPACK_EXT_INT64) {
        token->type = RC_TOKEN_INT64;
        memcpy(&token->int64, &bits, sizeof(bits));
        return true;
    }
    token->type = RC_TOKEN_UINT64;
    token->uint64 = bits;
    return kind == RC_MSGPACK_EXT_UINT64;
}

static bool constant(rc_token *token, int32_t type)
{
    token->type = type;
    return true;
}

/* Takes one element; a container only with its head. */
static bool take_element(struct scanner *scanner, rc_token *token)
{
    if (!has(scanner, 1))
        return false;
    unsigned char head = scanner->bytes[scanner->at++];
    token->count = 0;
    if (head <= 0x7f)
        return number(token, head);
    if (head <= 0x8f)
        return take_container(scanner, 0, head & 0x0f, true, token);
    if (head <= 0x9f)
        return take_container(scanner, 0, head & 0x0f, false, token);
    if (head <= 0xbf)
        return take_string(scanner, 0, head & 0x1f, token);
    if (head >= 0xe0)
        return number(token, (double)head - 256);
    /* clang-format off */
    switch (head) {
    case 0xc0: return constant(token, RC_TOKEN_NIL);
    case 0xc2: return constant(token, RC_TOKEN_FALSE);
    case 0xc3: return constant(token, RC_TOKEN_TRUE);
    case 0xc4: case 0xd9: return take_string(scanner, 1, 0, token);
    case 0xc5: case 0xda: return take_string(scanner, 2, 0, token);
    case 0xc6: case 0xdb: return take_string(scanner, 4, 0, token);
    case 0xca: return take_float32(scanner, token);
    case 0xcb: return take_float64(scanner, token);
    case 0xcc: return take_unsigned(scanner, 1, token);
    case 0xcd: return take_unsigned(scanner, 2, token);
    case 0xce: return take_unsigned(scanner, 4, token);
    case 0xcf: return take_unsigned(scanner, 8, token);
    case 0xd0: return take_signed(scanner, 1, token);
    case 0xd1: return take_signed(scanner, 2, token);
    case 0xd2: return take_signed(scanner, 4, token);
    case 0xd3: return take_signed(scanner, 8, token);
    case 0xd7: return take_extension(scanner, token);
    case 0xdc: return take_container(scanner, 2, 0, false, token);
    case 0xdd: return take_container(scanner, 4, 0, false, token);
    case 0xde: return take_container(scanner, 2, 0, true, token);
    case 0xdf: return take_container(scanner, 4, 0, true, token);
    default: return false; /* 0xc1 is nothing, the others are extensions */
    }
    /* clang-format on */
}

static bool is_key(const rc_token *token)
{
    switch (token->type) {
    case RC_TOKEN_FALSE:
    case RC_TOKEN_TRUE:
    case RC_TOKEN_STRING: return true;
    case RC_TOKEN_NUMBER: return token->number == token->number;
    default: return false;
    }
}

int32_t rc_msgpack_next(rc_scan *scan, const char *bytes, size_t len, rc_token *tokens,
                        int32_t capacity)
{
    if (len > INT32_MAX)
        return RC_ERR_TOOLARGE;
    struct scanner scanner = {.bytes = (const unsigned char *)bytes, .len = len, .open = scan};
    int64_t container_max = RC_MSGPACK_TABLES + (int64_t)len / RC_MSGPACK_TABLE_BYTES;
    int32_t count = 0;
    scanner.at = (size_t)scan->at;
    while (count < capacity && (scan->at == 0 || scan->depth > 0)) {
        bool want_key = false;
        if (scan->depth > 0) {
            int32_t inner = scan->depth - 1;
            want_key = scan->is_map[inner] && scan->left[inner] % 2 == 0;
            scan->left[inner]--;
        }
        if (!take_element(&scanner, &tokens[count]) || (want_key && !is_key(&tokens[count])))
            return RC_ERR_PROTOCOL;
        if (scan->containers > container_max)
            return RC_ERR_TOOLARGE;
        count++; /* every token took a byte, so count <= len */
        scan->at = (int32_t)scanner.at;
        while (scan->depth > 0 && scan->left[scan->depth - 1] == 0)
            scan->depth--;
    }
    bool is_whole = scan->at > 0 && scan->depth == 0;
    return is_whole && scanner.at != len ? RC_ERR_PROTOCOL : count;
}

int32_t rc_msgpack_scan(const char *bytes, size_t len, rc_token *tokens, int32_t capacity)
{
    rc_scan scan = {.at = 0};
    rc_token spare[64];
    int32_t count = rc_msgpack_next(&scan, bytes, len, tokens, capacity), more = count;
    if (capacity == 0 || (count == capacity && scan.depth > 0)) {
        do {
            more = rc_msgpack_next(&scan, bytes, len, spare, 64);
            count += more;
        } while (more == 64 && scan.depth > 0);
    }
    return more < 0 ? more : count;
}
