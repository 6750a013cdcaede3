#include "base/error.h"

const char *rc_strerror(int error)
{
    switch (error) {
    case 0: return "success";
    case RC_ERR_NOMEM: return "out of memory";
    case RC_ERR_TIMEOUT: return "timed out";
    case RC_ERR_CANCELLED: return "cancelled";
    case RC_ERR_UNAVAILABLE: return "redis is not available";
    case RC_ERR_UNKNOWN: return "connection broke after the request was sent";
    case RC_ERR_OVERLOAD: return "too many requests are waiting";
    case RC_ERR_CLOSED: return "client is closed";
    case RC_ERR_REDIS: return "redis answered with an error";
    case RC_ERR_PROTOCOL: return "answer is not of the expected form";
    case RC_ERR_TOOLARGE: return "key or value is too large";
    case RC_ERR_LOST: return "lease, lock or lent connection was lost";
    case RC_ERR_NOTHELD: return "lock is not held";
    case RC_ERR_BUSY: return "lock is held by somebody else";
    case RC_ERR_ARGUMENT: return "arguments or state do not fit";
    case RC_ERR_FORKED: return "lease, lock or lent connection belongs to the parent process";
    case RC_ERR_DESCRIPTORS: return "no descriptors are left in this process (ulimit -n)";
    case RC_ERR_REFUSED: return "command may not go over this connection";
    default: return "unknown error";
    }
}
