-- breaker - circuit breakers by hand.
--
-- What:   the breakers of a cache's client, as they are, and held open or closed. What opens and
--         closes them otherwise is the core's (engine/breaker.h).
-- Not:    no breakers where redcache.new had `breaker = false`: that raises, as a mistake.

local core_client = require("redcache.core.client")
local errors = require("redcache.errors")

local breaker = {}

---Holds circuit breakers open or closed by hand, of all caches on this client in this process.
---@param state? string "open": calls fail with `unavailable` before they wait, and nobody probes
---the server; "close": they are sent, whatever happens; "auto": it opens and closes by itself
---again, after "open" by probes that begin at once; nil: nothing is changed
---@param address? string of one server, as in health().breaker; nil: all, and those that come
---@return table<string, table>|nil breakers by address: state ("closed", "open", "half-open") and
---cause
---@return redcache.Error|nil err closed; unavailable: the client knows no such server
function breaker.breaker(self, state, address)
    local client = self._client
    if state ~= nil and not core_client.is_hold(state) then
        error('bad argument \'state\' to breaker: "open", "close" or "auto" expected, got '
            .. (type(state) == "string" and "another string" or type(state)), 2)
    elseif address ~= nil and type(address) ~= "string" then
        error(errors.argument("address", "breaker", "string", address), 2)
    end
    local err = core_client.closed(client, "hold the breaker", address)
    if err then
        return nil, err
    elseif not client.has_breaker then
        error("could not hold the breaker: redcache.new had breaker = false", 2)
    end
    if state ~= nil then
        local count = core_client.breaker(client, state, address)
        if count < 0 or count == 0 and address ~= nil then
            return nil, errors.new("unavailable", "hold the breaker of", address,
                count < 0 and "the client could not be started" or "there is no such server")
        end
        if self._scheduler.tell then
            self._scheduler.tell(client)
        end
    end
    return core_client.health(client).breaker
end

return breaker
