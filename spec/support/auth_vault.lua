-- Changes the credentials of two users in turn, as vaults do it, and closes connections now and
-- then; in a process of its own, so that nothing holds it up.
--
-- params: path (the server's socket), user, password (who may do that), file (user, password and
-- the instant of their end: see auth_worker.lua), every, overlap (seconds: how long the earlier
-- password holds behind a change), kill (seconds between two times that connections are closed)
-- Any message ends it. Answer: changes; late (by how many seconds a change came too late, at worst)

local clock = require("spec.support.clock")
local resp = require("spec.support.resp")

local PAUSE = 0.01

local worker = ...
local params = worker.params
local admin = resp.connect({ path = params.path }, {
    user = params.user, password = params.password,
})
local begins = clock.now()
local changes, late, passwords, killed = 0, 0, {}, begins

local function write(text)
    local file = assert(io.open(params.file .. ".new", "w"))
    file:write(text)
    file:close()
    os.rename(params.file .. ".new", params.file)
end

local function change(now)
    late = math.max(late, now - begins - changes * params.every)
    changes = changes + 1
    local user, password = changes % 2 == 0 and "ann" or "bob", "password-" .. changes
    local ends = now + params.every + params.overlap
    admin:call("ACL", "SETUSER", user, "on", ">" .. password, "~*", "&*", "+@all")
    passwords[#passwords + 1] = { user = user, text = password, ends = ends }
    write(("%s\n%s\n%.6f\n"):format(user, password, ends))
end

local function expire(now)
    while passwords[1] and passwords[1].ends <= now do
        local old = table.remove(passwords, 1)
        admin:call("ACL", "SETUSER", old.user, "<" .. old.text)
    end
end

change(begins)
worker:emit("changed")
repeat
    local now = clock.now()
    if now >= begins + changes * params.every then change(now) end
    expire(now)
    if now - killed > params.kill then -- what is made in between needs the newest
        killed = now
        admin:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    end
until worker:receive(PAUSE)
admin:close()
return { changes = changes, late = late }
