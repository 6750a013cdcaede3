-- constants - what the core answers and takes, as numbers: outcomes, kinds, flags, statuses.
--
-- Not:    no way to the core itself; every file of Lua may use these.

local C = require("redcache.core.ffi")

local constants = {
    -- Outcomes and flags as the core says them, under the names the Lua files use.
    HIT = C.RC_HIT,
    MISS = C.RC_MISS,
    LOAD = C.RC_LOAD,
    FAILED = C.RC_FAILED,
    STORED = C.RC_STORED,
    UNSTORED = C.RC_UNSTORED,
    BUSY = C.RC_BUSY,
    KIND_NONE = C.RC_KIND_NONE,
    KIND_VALUE = C.RC_KIND_VALUE,
    KIND_NEGATIVE = C.RC_KIND_NEGATIVE,
    STALE = C.RC_STALE,
    DEGRADED = C.RC_DEGRADED,
    REFRESH = C.RC_REFRESH,
    WAITED = C.RC_WAITED,
    WANT_TTL = C.RC_WANT_TTL,
    SCRIPT_FIRST = C.RC_SCRIPT_FIRST,
    RETRY = C.RC_RETRY,
    STRICT = C.RC_STRICT,
    PUT = C.RC_PUT,
    HIDE_OLD = C.RC_HIDE_OLD,
    FORCE = C.RC_FORCE,
    NO_RENEW = C.RC_NO_RENEW,
    FRESH = C.RC_FRESH,
    REPLACE = C.RC_REPLACE,
    REPLICA = C.RC_REPLICA,
    NO_WAIT = C.RC_NO_WAIT,
    SERVE = C.RC_SERVE,
    EARLY = C.RC_EARLY,
    NEAR_MISS = C.RC_NEAR_MISS,
    NEAR_HIT = C.RC_NEAR_HIT,
    NEAR_STALE = C.RC_NEAR_STALE,
    KIND_PLAIN = C.RC_KIND_PLAIN,
    CODEC_RAW = C.RC_CODEC_RAW,
    HEADER_BYTE = C.RC_HEADER_BYTE,
    KIND_ERROR = C.RC_KIND_ERROR,
    KIND_LEASE = C.RC_KIND_LEASE,
    LOCK_HELD = C.RC_LOCK_HELD,
    LOCK_LOST = C.RC_LOCK_LOST,
    TIMEOUT = C.RC_ERR_TIMEOUT,
    CANCELLED = C.RC_ERR_CANCELLED,
    CLOSED = C.RC_ERR_CLOSED,
    LOST = C.RC_ERR_LOST,
    FORKED = C.RC_ERR_FORKED,
    NOTHELD = C.RC_ERR_NOTHELD,
    ARGUMENT = C.RC_ERR_ARGUMENT,
    REFUSED = C.RC_ERR_REFUSED,
    TOOLARGE = C.RC_ERR_TOOLARGE,
    DESCRIPTORS = C.RC_ERR_DESCRIPTORS,
    -- What a scheduler's wait() says where the caller cannot wait: the request is on its way.
    NOT_WAITED = 1,
    -- Who moves the bytes.
    REACTOR = C.RC_DRIVER_REACTOR,
    POLL = C.RC_DRIVER_POLL,
    HOST = C.RC_DRIVER_HOST,
    HOST_CLOSE = C.RC_HOST_CLOSE,
    HOST_OPEN = C.RC_HOST_OPEN,
    HOST_GONE = C.RC_HOST_GONE,
    TURN_NAMES = C.RC_TURN_NAMES,
}

return constants
