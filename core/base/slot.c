#include "base/slot.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "redcache.h"

/*
 * A helper key is one of
 *     key!suffix        the key has a tag of its own
 *     {key}~suffix      the key has no '}' and is not empty: the whole key becomes the tag
 *     {n}key^suffix     n is the smallest number whose slot is the key's
 * The suffix has none of the three marks, so the last mark of a helper key separates it and tells
 * which form it is; each form gives its key back. Without marks "{a}" and "a" would share helpers.
 */
static const char MARKS[] = "!~^";

/* Remainders of each byte: polynomial 0x1021, most significant bit first (CRC16-XMODEM). */
static const uint16_t REMAINDERS[256] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b,
    0xc18c, 0xd1ad, 0xe1ce, 0xf1ef, 0x1231, 0x0210, 0x3273, 0x2252, 0x52b5, 0x4294, 0x72f7, 0x62d6,
    0x9339, 0x8318, 0xb37b, 0xa35a, 0xd3bd, 0xc39c, 0xf3ff, 0xe3de, 0x2462, 0x3443, 0x0420, 0x1401,
    0x64e6, 0x74c7, 0x44a4, 0x5485, 0xa56a, 0xb54b, 0x8528, 0x9509, 0xe5ee, 0xf5cf, 0xc5ac, 0xd58d,
    0x3653, 0x2672, 0x1611, 0x0630, 0x76d7, 0x66f6, 0x5695, 0x46b4, 0xb75b, 0xa77a, 0x9719, 0x8738,
    0xf7df, 0xe7fe, 0xd79d, 0xc7bc, 0x48c4, 0x58e5, 0x6886, 0x78a7, 0x0840, 0x1861, 0x2802, 0x3823,
    0xc9cc, 0xd9ed, 0xe98e, 0xf9af, 0x8948, 0x9969, 0xa90a, 0xb92b, 0x5af5, 0x4ad4, 0x7ab7, 0x6a96,
    0x1a71, 0x0a50, 0x3a33, 0x2a12, 0xdbfd, 0xcbdc, 0xfbbf, 0xeb9e, 0x9b79, 0x8b58, 0xbb3b, 0xab1a,
    0x6ca6, 0x7c87, 0x4ce4, 0x5cc5, 0x2c22, 0x3c03, 0x0c60, 0x1c41, 0xedae, 0xfd8f, 0xcdec, 0xddcd,
    0xad2a, 0xbd0b, 0x8d68, 0x9d49, 0x7e97, 0x6eb6, 0x5ed5, 0x4ef4, 0x3e13, 0x2e32, 0x1e51, 0x0e70,
    0xff9f, 0xefbe, 0xdfdd, 0xcffc, 0xbf1b, 0xaf3a, 0x9f59, 0x8f78, 0x9188, 0x81a9, 0xb1ca, 0xa1eb,
    0xd10c, 0xc12d, 0xf14e, 0xe16f, 0x1080, 0x00a1, 0x30c2, 0x20e3, 0x5004, 0x4025, 0x7046, 0x6067,
    0x83b9, 0x9398, 0xa3fb, 0xb3da, 0xc33d, 0xd31c, 0xe37f, 0xf35e, 0x02b1, 0x1290, 0x22f3, 0x32d2,
    0x4235, 0x5214, 0x6277, 0x7256, 0xb5ea, 0xa5cb, 0x95a8, 0x8589, 0xf56e, 0xe54f, 0xd52c, 0xc50d,
    0x34e2, 0x24c3, 0x14a0, 0x0481, 0x7466, 0x6447, 0x5424, 0x4405, 0xa7db, 0xb7fa, 0x8799, 0x97b8,
    0xe75f, 0xf77e, 0xc71d, 0xd73c, 0x26d3, 0x36f2, 0x0691, 0x16b0, 0x6657, 0x7676, 0x4615, 0x5634,
    0xd94c, 0xc96d, 0xf90e, 0xe92f, 0x99c8, 0x89e9, 0xb98a, 0xa9ab, 0x5844, 0x4865, 0x7806, 0x6827,
    0x18c0, 0x08e1, 0x3882, 0x28a3, 0xcb7d, 0xdb5c, 0xeb3f, 0xfb1e, 0x8bf9, 0x9bd8, 0xabbb, 0xbb9a,
    0x4a75, 0x5a54, 0x6a37, 0x7a16, 0x0af1, 0x1ad0, 0x2ab3, 0x3a92, 0xfd2e, 0xed0f, 0xdd6c, 0xcd4d,
    0xbdaa, 0xad8b, 0x9de8, 0x8dc9, 0x7c26, 0x6c07, 0x5c64, 0x4c45, 0x3ca2, 0x2c83, 0x1ce0, 0x0cc1,
    0xef1f, 0xff3e, 0xcf5d, 0xdf7c, 0xaf9b, 0xbfba, 0x8fd9, 0x9ff8, 0x6e17, 0x7e36, 0x4e55, 0x5e74,
    0x2e93, 0x3eb2, 0x0ed1, 0x1ef0,
};

static inline uint16_t add_byte(uint16_t crc, char byte)
{
    return (uint16_t)(crc << 8 ^ REMAINDERS[(crc >> 8 ^ (unsigned char)byte) & 0xff]);
}

uint16_t rc_crc16(const char *bytes, size_t len)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++)
        crc = add_byte(crc, bytes[i]);
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

int rc_slot_helper_key(struct rc_buf *out, const char *key, size_t len, const char *suffix)
{
    const char *tag;
    size_t tag_len;
    assert(strpbrk(suffix, MARKS) == NULL);
    if (has_tag(key, len, &tag, &tag_len))
        return append_all(out, "", 0, key, len, "!", suffix);
    if (len > 0 && memchr(key, '}', len) == NULL)
        return append_all(out, "{", 1, key, len, "}~", suffix);
    char head[NUMBER_MAX + 2] = "{";
    size_t digits = find_number_tag(head + 1, rc_slot(key, len));
    head[digits + 1] = '}';
    return append_all(out, head, digits + 2, key, len, "^", suffix);
}
