#include "base/slot.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "redcache.h"

/*
 * A helper key is one of
 *     {tag}key!suffix   the key has a tag of its own
 *     {key}~suffix      the key has no '}' and is not empty: the whole key becomes the tag
 *     {n}key^suffix     n is the smallest number whose slot is the key's
 * The suffix has none of the three marks, so the last mark of a helper key separates it and tells
 * which form it is; each form gives its key back. Without marks "{a}" and "a" would share helpers.
 * All begin with '{', as no key of a namespace does that could be one of them (namespace.lua).
 */
static const char MARKS[] = "!~^";

/*
 * CRC16-XMODEM: polynomial 0x1021, most significant bit first. REMAINDERS[k][byte] is the remainder
 * of that byte with k zero bytes behind it. Remainders of sums are sums of remainders: so each row
 * follows from those of the eight bits, and eight bytes, looked up side by side, cost hardly more
 * than one, which has to wait for the one before it.
 */
enum { STRIDE = 8, SHORT_STRIDE = 4 };

#define BIT(byte, i, r) ((((byte) >> i) & 1) != 0 ? (r) : 0)
#define BYTE(b, r0, r1, r2, r3, r4, r5, r6, r7)                                                    \
    (BIT(b, 0, r0) ^ BIT(b, 1, r1) ^ BIT(b, 2, r2) ^ BIT(b, 3, r3) ^ BIT(b, 4, r4) ^               \
     BIT(b, 5, r5) ^ BIT(b, 6, r6) ^ BIT(b, 7, r7))
#define BYTES_4(b, ...)                                                                            \
    BYTE(b, __VA_ARGS__), BYTE((b) + 1, __VA_ARGS__), BYTE((b) + 2, __VA_ARGS__),                  \
        BYTE((b) + 3, __VA_ARGS__)
#define BYTES_16(b, ...)                                                                           \
    BYTES_4(b, __VA_ARGS__), BYTES_4((b) + 4, __VA_ARGS__), BYTES_4((b) + 8, __VA_ARGS__),         \
        BYTES_4((b) + 12, __VA_ARGS__)
#define BYTES_64(b, ...)                                                                           \
    BYTES_16(b, __VA_ARGS__), BYTES_16((b) + 16, __VA_ARGS__), BYTES_16((b) + 32, __VA_ARGS__),    \
        BYTES_16((b) + 48, __VA_ARGS__)
#define BYTES_256(...)                                                                             \
    {                                                                                              \
        BYTES_64(0, __VA_ARGS__), BYTES_64(64, __VA_ARGS__), BYTES_64(128, __VA_ARGS__),           \
            BYTES_64(192, __VA_ARGS__)                                                             \
    }

static const uint16_t REMAINDERS[STRIDE][256] = {
    BYTES_256(0x1021, 0x2042, 0x4084, 0x8108, 0x1231, 0x2462, 0x48c4, 0x9188),
    BYTES_256(0x3331, 0x6662, 0xccc4, 0x89a9, 0x0373, 0x06e6, 0x0dcc, 0x1b98),
    BYTES_256(0x3730, 0x6e60, 0xdcc0, 0xa9a1, 0x4363, 0x86c6, 0x1dad, 0x3b5a),
    BYTES_256(0x76b4, 0xed68, 0xcaf1, 0x85c3, 0x1ba7, 0x374e, 0x6e9c, 0xdd38),
    BYTES_256(0xaa51, 0x4483, 0x8906, 0x022d, 0x045a, 0x08b4, 0x1168, 0x22d0),
    BYTES_256(0x45a0, 0x8b40, 0x06a1, 0x0d42, 0x1a84, 0x3508, 0x6a10, 0xd420),
    BYTES_256(0xb861, 0x60e3, 0xc1c6, 0x93ad, 0x377b, 0x6ef6, 0xddec, 0xabf9),
    BYTES_256(0x47d3, 0x8fa6, 0x0f6d, 0x1eda, 0x3db4, 0x7b68, 0xf6d0, 0xfd81),
};

static inline uint16_t add_byte(uint16_t crc, char byte)
{
    return (uint16_t)(crc << 8 ^ REMAINDERS[0][(crc >> 8 ^ (unsigned char)byte) & 0xff]);
}

static inline uint16_t add_four(uint16_t crc, const unsigned char *bytes)
{
    return REMAINDERS[3][bytes[0] ^ crc >> 8] ^ REMAINDERS[2][bytes[1] ^ (crc & 0xff)] ^
           REMAINDERS[1][bytes[2]] ^ REMAINDERS[0][bytes[3]];
}

static inline uint16_t add_eight(uint16_t crc, const unsigned char *bytes)
{
    return REMAINDERS[7][bytes[0] ^ crc >> 8] ^ REMAINDERS[6][bytes[1] ^ (crc & 0xff)] ^
           REMAINDERS[5][bytes[2]] ^ REMAINDERS[4][bytes[3]] ^ add_four(0, bytes + 4);
}

uint16_t rc_crc16(const char *bytes, size_t len)
{
    const unsigned char *at = (const unsigned char *)bytes;
    uint16_t crc = 0;
    for (; len >= STRIDE; at += STRIDE, len -= STRIDE)
        crc = add_eight(crc, at);
    if (len >= SHORT_STRIDE) {
        crc = add_four(crc, at);
        at += SHORT_STRIDE;
        len -= SHORT_STRIDE;
    }
    for (; len > 0; at++, len--)
        crc = add_byte(crc, (char)*at);
    return crc;
}

/* The tag stands between the first '{' and the first '}' behind it, unless that is nothing. */
static bool has_tag(const char *key, size_t len, const char **tag, size_t *tag_len)
{
    const char *open = len == 0 ? NULL : memchr(key, '{', len);
    if (open == NULL)
        return false;
    const char *first = open + 1;
    const char *close = memchr(first, '}', len - (size_t)(first - key));
    if (close == NULL || close == first)
        return false;
    *tag = first;
    *tag_len = (size_t)(close - first);
    return true;
}

uint16_t rc_slot(const char *key, size_t len)
{
    const char *tag = key;
    size_t tag_len = len;
    has_tag(key, len, &tag, &tag_len);
    return rc_crc16(tag, tag_len) % RC_SLOT_COUNT;
}

enum { NUMBER_MAX = 10 };

static size_t write_number(char digits[NUMBER_MAX], uint32_t number)
{
    char reversed[NUMBER_MAX];
    size_t count = 0;
    do
        reversed[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    for (size_t i = 0; i < count; i++)
        digits[i] = reversed[count - 1 - i];
    return count;
}

/* Tries about 20000 numbers: every slot has one up to 109757. Keys with a '}' that closes nothing
   are rare, and ten numbers share the work of their leading digits (40 us in all). */
static size_t find_number_tag(char digits[NUMBER_MAX], uint16_t slot)
{
    for (uint32_t tens = 0;; tens++) {
        size_t count = tens == 0 ? 0 : write_number(digits, tens);
        uint16_t crc = rc_crc16(digits, count);
        for (char digit = '0'; digit <= '9'; digit++) {
            if (add_byte(crc, digit) % RC_SLOT_COUNT == slot) {
                digits[count] = digit;
                return count + 1;
            }
        }
    }
}

static int append_all(struct rc_buf *out, const char *head, size_t head_len, const char *key,
                      size_t len, const char *tail, const char *suffix)
{
    size_t tail_len = strlen(tail), suffix_len = strlen(suffix);
    if (len > SIZE_MAX / 2)
        return RC_ERR_NOMEM;
    int error = rc_buf_reserve(out, head_len + len + tail_len + suffix_len);
    if (error != 0)
        return error;
    /* Cannot fail any more: the room is there. */
    rc_buf_append(out, head, head_len);
    rc_buf_append(out, key, len);
    rc_buf_append(out, tail, tail_len);
    return rc_buf_append(out, suffix, suffix_len);
}

static int append_tagged(struct rc_buf *out, const char *tag, size_t tag_len, const char *key,
                         size_t len, const char *suffix)
{
    if (len > SIZE_MAX / 4)
        return RC_ERR_NOMEM;
    int error = rc_buf_reserve(out, tag_len + len + strlen("{}!") + strlen(suffix));
    if (error != 0)
        return error;
    /* Cannot fail any more: the room is there. */
    rc_buf_append(out, "{", 1);
    rc_buf_append(out, tag, tag_len);
    return append_all(out, "}", 1, key, len, "!", suffix);
}

int rc_slot_helper_key(struct rc_buf *out, const char *key, size_t len, const char *suffix)
{
    const char *tag;
    size_t tag_len;
    assert(strpbrk(suffix, MARKS) == NULL);
    if (has_tag(key, len, &tag, &tag_len))
        return append_tagged(out, tag, tag_len, key, len, suffix);
    if (len > 0 && memchr(key, '}', len) == NULL)
        return append_all(out, "{", 1, key, len, "}~", suffix);
    char head[NUMBER_MAX + 2] = "{";
    size_t digits = find_number_tag(head + 1, rc_slot(key, len));
    head[digits + 1] = '}';
    return append_all(out, head, digits + 2, key, len, "^", suffix);
}
