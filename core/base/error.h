/*
 * error - texts of the error numbers in redcache.h.
 *
 * What:    declares nothing itself: rc_strerror is public.
 * Threads: pure; rc_strerror returns static text.
 * Memory:  static texts.
 * Errors:  a number that is none of ours gets a text as well.
 * Not:     texts of a server: error_text.h of the engine has those.
 */
#ifndef RC_ERROR_H
#define RC_ERROR_H

#include "redcache.h"

#endif
