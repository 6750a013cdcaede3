/*
 * msgpack - reads MessagePack from untrusted bytes.
 *
 * What:    rc_msgpack_scan() (declared in redcache.h) checks a whole buffer and tells its elements
 *          as flat tokens, rc_msgpack_next() some of them at a time. What is refused although
 *          MessagePack allows it: more than RC_MSGPACK_DEPTH containers inside each other; more
 *          than RC_MSGPACK_TABLES of them and one more per RC_MSGPACK_TABLE_BYTES bytes; map keys
 *          that are no string, number or boolean (a Lua table could not hold or not find them
 *          again); NaN as a map key; every extension type but the two below. Integers within +-2^53
 *          are RC_TOKEN_NUMBER whatever their width; beyond, and in our extensions, they are
 *          RC_TOKEN_INT64 (signed formats) or RC_TOKEN_UINT64 (unsigned formats).
 * Threads: pure.
 * Memory:  the caller's; no allocation and no recursion. Tokens hold offsets, never pointers into
 *          the bytes.
 * Errors:  RC_ERR_PROTOCOL, RC_ERR_TOOLARGE; the tokens are undefined then.
 * Not:     does not write MessagePack (lua/redcache/serializer/msgpack.lua does) and does not check
 *          UTF-8: strings are any bytes, and bin is read as a string.
 */
#ifndef RC_MSGPACK_H
#define RC_MSGPACK_H

#include "redcache.h"

enum {
    RC_MSGPACK_DEPTH = RC_SCAN_DEPTH,
    /* A container takes one byte, and as a Lua table 64 and more. */
    RC_MSGPACK_TABLES = 65536,
    RC_MSGPACK_TABLE_BYTES = 4,
    /* Extension types with 8 bytes of payload: 64-bit integers within +-2^53 that were no plain
       numbers when they were stored (LuaJIT's int64_t and uint64_t), and shall not be plain numbers
       when they come back. */
    RC_MSGPACK_EXT_INT64 = 'i',
    RC_MSGPACK_EXT_UINT64 = 'u'
};

#endif
