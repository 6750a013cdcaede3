-- Becomes the command in its arguments, tied to the life of the process that started it:
--   luajit leash.lua PARENT COMMAND ARGUMENTS...
-- The kernel kills this process when the parent ends, however that ends. posix_spawn cannot ask for
-- that by itself.

local ffi = require("ffi")

ffi.cdef([[
    int prctl(int option, ...);
    int getppid(void);
    int execvp(const char *file, char *const argv[]);
    char *strerror(int errnum);
]])

local PR_SET_PDEATHSIG, SIGKILL = 1, 9
local NOT_STARTED = 127

ffi.C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", SIGKILL))
-- The parent may have ended before the line above; then nobody will ever send the signal.
if ffi.C.getppid() ~= tonumber(arg[1]) then os.exit(NOT_STARTED) end

local command = {}
for i = 2, #arg do command[#command + 1] = arg[i] end
local argv = ffi.new("const char *[?]", #command + 1)
for i, word in ipairs(command) do argv[i - 1] = word end
ffi.C.execvp(command[1], ffi.cast("char *const *", argv))
local cause = ffi.string(ffi.C.strerror(ffi.errno()))
io.stderr:write(("could not start '%s': %s\n"):format(command[1], cause))
os.exit(NOT_STARTED)
