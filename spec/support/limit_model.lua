--- What a rate limiter has to decide, from a list of all that was taken: the rules as
-- docs/api/limiter.md tells them, in whole microseconds.

local limit_model = {}
local Model = {}
Model.__index = Model

local CELLS = 64

--- settings: kind, limit, window, burst. began: the time at which nothing has been taken yet.
function limit_model.new(settings, began)
    return setmetatable({ settings = settings, takes = {}, began = began,
        most = settings.burst or settings.limit }, Model)
end

-- Until when a take counts, of a sliding window: all of its part is a window old.
local function ends_at(self, at)
    local part = math.ceil(self.settings.window * 1e6 / CELLS)
    return (math.floor(at / part) + CELLS + 1) * part
end

--- How many units can be taken; below 0: more were taken than that.
function Model:room(now)
    local settings, used = self.settings, 0
    local window = settings.window * 1e6
    if settings.kind == "gcra" then
        -- Each unit is paid back in its turn, one per interval, from when it was taken or from the
        -- end of the one before. In 1 / limit microseconds, which are whole.
        local paid = 0
        for _, take in ipairs(self.takes) do
            paid = math.max(paid, (take.at - self.began) * settings.limit) + take.n * window
        end
        local owed = math.max(paid - (now - self.began) * settings.limit, 0)
        return math.floor((self.most * window - owed) / window)
    end
    for _, take in ipairs(self.takes) do
        if settings.kind == "sliding" and now < ends_at(self, take.at)
            or settings.kind == "fixed" and now < take.ends then
            used = used + take.n
        end
    end
    return settings.limit - used
end

--- Takes n units, or none. Whether it did.
function Model:take(now, n)
    local room = self:room(now)
    if room < n then return false end
    if room == self.most then self.takes = {} end -- nothing of it counts any more
    local last = self.takes[#self.takes]
    local ends = last and now < last.ends and last.ends or now + self.settings.window * 1e6
    table.insert(self.takes, { at = now, n = n, ends = ends })
    return true
end

--- The first instant from now on at which n units can be taken, where nobody takes any meanwhile.
function Model:when(now, n)
    if self:room(now) >= n then return now end
    local late = 1
    while self:room(now + late) < n do late = late * 2 end
    local early = now + math.floor(late / 2)
    late = now + late
    while late - early > 1 do
        local middle = math.floor((early + late) / 2)
        if self:room(middle) >= n then late = middle else early = middle end
    end
    return late
end

return limit_model
