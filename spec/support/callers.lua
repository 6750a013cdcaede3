--- Callers of a generated history: coroutines that wait half way, and go on in any order.
--
-- What:   go(fn) calls fn as a caller of its own, up to where it waits; wait() is what it calls
--         there. Who waits is in the list `suspended`, until resume() has it go on.
-- Errors: what a caller throws is the `fault`, where it is the first.

local callers = {}
local Callers = {}
Callers.__index = Callers

function callers.new()
    return setmetatable({ suspended = {}, current = nil, fault = nil, is_calm = false }, Callers)
end

--- Lets a caller go on, up to where it waits. `has_waited` tells whether it ever did.
function Callers:resume(one)
    local outer = self.current
    self.current = one
    local ok, err = coroutine.resume(one.co)
    self.current = outer
    if not ok then
        self.fault = self.fault or tostring(err)
    elseif coroutine.status(one.co) == "suspended" then
        one.has_waited = true
        self.suspended[#self.suspended + 1] = one
    end
    return one
end

--- @param own? table what the history wants to know of it
function Callers:go(fn, own)
    own = own or {}
    own.co = coroutine.create(fn)
    return self:resume(own)
end

--- Takes one that waits, any of them, out of the list.
function Callers:pick()
    return table.remove(self.suspended, math.random(#self.suspended))
end

--- One that waits goes on, where there is one.
function Callers:resume_one()
    if #self.suspended > 0 then self:resume(self:pick()) end
end

--- The caller that runs waits, that often.
function Callers:wait(of)
    if not self.is_calm and math.random() < of then coroutine.yield() end
end

return callers
