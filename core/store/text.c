#include "store/text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rc_text_to_int(struct rc_text text, int64_t *number)
{
    bool negative = text.len > 0 && text.bytes[0] == '-';
    size_t at = negative;
    uint64_t limit = (uint64_t)INT64_MAX + negative, size = 0;
    if (text.len == 1 && text.bytes[0] == '0') {
        *number = 0;
        return true;
    }
    if (at == text.len || text.bytes[at] < '1' || text.bytes[at] > '9')
        return false;
    for (; at < text.len; at++) {
        unsigned digit = (unsigned)text.bytes[at] - '0';
        if (digit > 9 || size > (limit - digit) / 10)
            return false;
        size = size * 10 + digit;
    }
    *number = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool rc_text_to_float(struct rc_text text, long double *number)
{
    char copy[RC_TEXT_FLOAT_MAX], *end;
    if (text.len == 0 || text.len >= sizeof copy || isspace((unsigned char)text.bytes[0]))
        return false;
    memcpy(copy, text.bytes, text.len);
    copy[text.len] = '\0';
    errno = 0;
    *number = strtold(copy, &end);
    bool in_range =
        errno != ERANGE || (*number != HUGE_VALL && *number != -HUGE_VALL && *number != 0);
    return end == copy + text.len && in_range && !isnan(*number);
}

size_t rc_text_from_int(char text[RC_TEXT_INT_MAX], int64_t number)
{
    char digits[RC_TEXT_INT_MAX];
    size_t count = 0, len = 0;
    uint64_t size = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[count++] = (char)('0' + size % 10);
        size /= 10;
    } while (size > 0);
    if (number < 0)
        text[len++] = '-';
    while (count > 0)
        text[len++] = digits[--count];
    return len;
}

/* 17 decimals, and then no zeros at the end. */
size_t rc_text_from_float(char text[RC_TEXT_FLOAT_MAX], long double number)
{
    size_t len = (size_t)snprintf(text, RC_TEXT_FLOAT_MAX, "%.17Lf", number);
    while (text[len - 1] == '0')
        len--;
    if (text[len - 1] == '.')
        len--;
    if (len == 2 && memcmp(text, "-0", 2) == 0)
        text[--len - 1] = '0';
    return len;
}

bool rc_text_is(struct rc_text text, const char *name)
{
    size_t at = 0;
    for (; at < text.len && name[at] != '\0'; at++) {
        if (toupper((unsigned char)text.bytes[at]) != name[at])
            return false;
    }
    return at == text.len && name[at] == '\0';
}

bool rc_text_is_among(const char *names, struct rc_text word)
{
    char padded[32] = " ";
    if (word.len == 0 || word.len > sizeof padded - 3 || memchr(word.bytes, ' ', word.len) != NULL)
        return false;
    for (size_t i = 0; i < word.len; i++)
        padded[1 + i] = (char)tolower((unsigned char)word.bytes[i]);
    padded[1 + word.len] = ' ';
    return strlen(padded) == word.len + 2 && strstr(names, padded) != NULL;
}

bool rc_text_equal(struct rc_text a, struct rc_text b)
{
    if (a.bytes == NULL || b.bytes == NULL)
        return a.bytes == b.bytes;
    return a.len == b.len && memcmp(a.bytes, b.bytes, a.len) == 0;
}
