#include "store/glob.h"

/* Reads the class that begins behind '[' at `at`, and moves behind its ']'. */
static bool class_matches(struct rc_text pattern, size_t *at, unsigned char c)
{
    const unsigned char *bytes = (const unsigned char *)pattern.bytes;
    size_t i = *at;
    bool negated = i < pattern.len && bytes[i] == '^', found = false;
    for (i += negated; i < pattern.len && bytes[i] != ']'; i++) {
        if (bytes[i] == '\\' && i + 1 < pattern.len) {
            i++;
            found |= bytes[i] == c;
        } else if (i + 2 < pattern.len && bytes[i + 1] == '-') {
            unsigned char low = bytes[i], high = bytes[i + 2];
            found |= low <= high ? low <= c && c <= high : high <= c && c <= low;
            i += 2;
        } else {
            found |= bytes[i] == c;
        }
    }
    *at = i < pattern.len ? i + 1 : i;
    return found != negated;
}

/* One character against what stands at `at`, which is moved behind it. */
static bool one_matches(struct rc_text pattern, size_t *at, char c)
{
    char wanted = pattern.bytes[(*at)++];
    if (wanted == '?')
        return true;
    if (wanted == '[')
        return class_matches(pattern, at, (unsigned char)c);
    if (wanted == '\\' && *at < pattern.len)
        wanted = pattern.bytes[(*at)++];
    return wanted == c;
}

bool rc_glob_matches(struct rc_text pattern, struct rc_text text)
{
    size_t at = 0, next = 0;
    size_t star = SIZE_MAX, star_next = 0; /* behind the newest star, and what it has left over */
    while (next < text.len || at < pattern.len) {
        if (at < pattern.len && pattern.bytes[at] == '*') {
            star = ++at;
            star_next = next;
            continue;
        }
        if (at < pattern.len && next < text.len && one_matches(pattern, &at, text.bytes[next])) {
            next++;
            continue;
        }
        if (star == SIZE_MAX || star_next == text.len)
            return false;
        at = star;
        next = ++star_next;
    }
    return true;
}
