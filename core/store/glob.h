/*
 * glob - patterns of SCAN, KEYS and CONFIG GET.
 *
 * What:    * ? [a-z] [^a] and a backslash, as Redis takes them, badly formed ones included.
 * Threads: pure.
 * Memory:  none.
 * Errors:  none: any bytes are a pattern.
 * Not:     no recursion: a star goes back to the newest one only, so the time is bounded by
 *          pattern times text.
 */
#ifndef RC_GLOB_H
#define RC_GLOB_H

#include "store/text.h"

bool rc_glob_matches(struct rc_text pattern, struct rc_text text);

#endif
