/*
 * random - secret bytes from the system, for seeds and ids.
 *
 * What:    declares nothing itself: rc_random_bytes is public. getentropy(): 256 bytes a call.
 * Threads: any.
 * Memory:  the caller's.
 * Errors:  RC_ERR_UNAVAILABLE when the system gives none.
 * Not:     no generator: what needs many numbers takes a seed from here.
 */
#ifndef RC_RANDOM_H
#define RC_RANDOM_H

#include "redcache.h"

#endif
