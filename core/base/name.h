/*
 * name - what users may call a thing of theirs: a store in memory, a shared near cache.
 *
 * What:    whether a text is such a name.
 * Threads: pure.
 * Memory:  none.
 * Errors:  false.
 * Not:     does not bound the length: its caller does.
 */
#ifndef RC_NAME_H
#define RC_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* Letters, digits and ._- only, whatever the locale; of any length, none included. */
static inline bool rc_is_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

#endif
