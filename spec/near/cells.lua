--- Numbers that several processes of this machine see at once: a file of doubles, mapped.
--
-- Order: x86 keeps it. Elsewhere whoever sees something wrong looks again a moment later.

local ffi = require("ffi")
local posix = require("spec.support.posix")

ffi.cdef([[
    int open(const char *path, int flags, ...);
    int ftruncate(int fd, long size);
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset);
    int sched_yield(void);
]])

local C = ffi.C
local O_RDWR_CREAT, RW_OWNER = 0x2 + 0x40, 384 -- 0600, octal
local PROT_READ_WRITE, MAP_SHARED = 3, 1

local cells = {}

--- `count` doubles, 0 at first, from index 0 on; whoever maps the same path sees the same ones.
-- They stay mapped until the process ends.
function cells.map(path, count)
    local fd = C.open(path, O_RDWR_CREAT, ffi.cast("int", RW_OWNER))
    assert(fd >= 0, posix.failure())
    assert(C.ftruncate(fd, count * 8) == 0, posix.failure())
    local address = C.mmap(nil, count * 8, PROT_READ_WRITE, MAP_SHARED, fd, 0)
    assert(ffi.cast("intptr_t", address) ~= -1, posix.failure())
    C.close(fd)
    return ffi.cast("volatile double *", address)
end

--- Lets somebody else have the core.
function cells.yield()
    C.sched_yield()
end

return cells
