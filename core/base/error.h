/*
 * error - texts of the error numbers in redcache.h.
 *
 * Threads: pure; rc_strerror returns static text.
 */
#ifndef RC_ERROR_H
#define RC_ERROR_H

#include "redcache.h"

#endif
