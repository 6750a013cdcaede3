--- The system calls the test bed stands on, by FFI, and nothing more clever than that.
--
-- What:   constants, errno as text, file descriptors that close on exec, poll.
-- Errors: a call that fails returns nil, text, errno.
-- Not:    processes (process.lua), sockets (socket.lua), time (clock.lua). Linux only: the numbers
--         below are Linux's.

local ffi = require("ffi")
local bit = require("bit")

-- Declared once per Lua state: a spec file that loses package.loaded must not declare the types
-- again.
if not pcall(ffi.typeof, "struct rcbed_pollfd") then
    ffi.cdef([[
        struct rcbed_pollfd { int fd; short events; short revents; };
        struct rcbed_timespec { long tv_sec; long tv_nsec; };
        struct rcbed_linger { int l_onoff; int l_linger; };
        struct rcbed_in { uint16_t family; uint16_t port; uint8_t addr[4]; uint8_t zero[8]; };
        struct rcbed_un { uint16_t family; char path[108]; };

        char *strerror(int errnum);
        int close(int fd);
        long read(int fd, void *buf, size_t count);
        int poll(struct rcbed_pollfd *fds, unsigned long nfds, int timeout);
        int fcntl(int fd, int cmd, ...);
        int pipe2(int fds[2], int flags);
        int getpid(void);
        int getppid(void);
        int kill(int pid, int sig);
        void *signal(int sig, void *handler);
        int waitpid(int pid, int *status, int options);
        int posix_spawnp(int *pid, const char *file, const void *actions, const void *attr,
                         char *const argv[], char *const envp[]);
        int posix_spawn_file_actions_init(void *actions);
        int posix_spawn_file_actions_destroy(void *actions);
        int posix_spawn_file_actions_adddup2(void *actions, int fd, int newfd);
        int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags,
                                             unsigned int mode);
        int posix_spawnattr_init(void *attr);
        int posix_spawnattr_destroy(void *attr);
        int posix_spawnattr_setflags(void *attr, short flags);
        int posix_spawnattr_setsigmask(void *attr, const void *mask);
        int posix_spawnattr_setsigdefault(void *attr, const void *mask);
        int sigemptyset(void *set);
        int sigaddset(void *set, int sig);
        extern char **environ;
        long readlink(const char *path, char *buf, size_t size);
        char *mkdtemp(char *template);

        int clock_gettime(int clock, struct rcbed_timespec *now);
        int nanosleep(const struct rcbed_timespec *wanted, struct rcbed_timespec *left);

        int socket(int domain, int type, int protocol);
        int socketpair(int domain, int type, int protocol, int fds[2]);
        int bind(int fd, const void *address, unsigned int len);
        int listen(int fd, int backlog);
        int accept4(int fd, void *address, unsigned int *len, int flags);
        int connect(int fd, const void *address, unsigned int len);
        int getsockname(int fd, void *address, unsigned int *len);
        int getsockopt(int fd, int level, int name, void *value, unsigned int *len);
        int setsockopt(int fd, int level, int name, const void *value, unsigned int len);
        long send(int fd, const void *buf, size_t len, int flags);
        long recv(int fd, void *buf, size_t len, int flags);
    ]])
end

local C = ffi.C

local posix = {
    C = C,
    EINTR = 4, EAGAIN = 11, ECONNRESET = 104, EADDRINUSE = 98, EINPROGRESS = 115,
    POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16,
    SIG_DFL = ffi.cast("void *", 0), SIG_IGN = ffi.cast("void *", 1),
    SIGINT = 2, SIGKILL = 9, SIGUSR1 = 10, SIGPIPE = 13, SIGTERM = 15, SIGCONT = 18, SIGSTOP = 19,
}

local F_GETFL, F_SETFL, O_NONBLOCK, O_CLOEXEC = 3, 4, 0x800, 0x80000

--- errno of the last failed call, as text and as a number.
function posix.failure()
    local errno = ffi.errno()
    return ffi.string(C.strerror(errno)), errno
end

--- Two descriptors, reading end first. Both close on exec, neither blocks.
function posix.pipe()
    local fds = ffi.new("int[2]")
    if C.pipe2(fds, bit.bor(O_CLOEXEC, O_NONBLOCK)) ~= 0 then return nil, posix.failure() end
    return fds[0], fds[1]
end

function posix.set_nonblocking(fd, on)
    local flags = C.fcntl(fd, F_GETFL)
    flags = on and bit.bor(flags, O_NONBLOCK) or bit.band(flags, bit.bnot(O_NONBLOCK))
    C.fcntl(fd, F_SETFL, ffi.cast("int", flags))
end

--- What is there now, "" at the end of the stream; nil, "again" when nothing is there yet.
function posix.read(fd, limit)
    limit = limit or 65536
    local buf = ffi.new("char[?]", limit)
    while true do
        local n = tonumber(C.read(fd, buf, limit))
        if n >= 0 then return ffi.string(buf, n) end
        local text, errno = posix.failure()
        if errno == posix.EAGAIN then return nil, "again", errno end
        if errno ~= posix.EINTR then return nil, text, errno end
    end
end

--- Waits until one of the descriptors is ready. `wanted` maps fd to POLL* bits; the answer maps fd
-- to what came.
function posix.poll(wanted, timeout)
    local count = 0
    for _ in pairs(wanted) do count = count + 1 end
    local fds = ffi.new("struct rcbed_pollfd[?]", math.max(count, 1))
    local i = 0
    for fd, events in pairs(wanted) do
        fds[i].fd, fds[i].events = fd, events
        i = i + 1
    end
    -- Rounded up: a poll that returns a moment early turns the caller's loop into spinning.
    local ready = {}
    if C.poll(fds, count, math.ceil(math.max(timeout, 0) * 1000)) > 0 then
        for k = 0, count - 1 do
            if fds[k].revents ~= 0 then ready[fds[k].fd] = fds[k].revents end
        end
    end
    return ready
end

return posix
