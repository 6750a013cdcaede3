-- fence - the other half of a fencing token: the check where the work is done.
--
-- What:   a function in Redis' Lua, to be put in front of a script of your own that writes what the
--         lock protects. Two holders at once then do no harm: the older one's writes are refused.
--         Hand it lock:fenceText(): tostring(lock.fence) has 14 digits of 16.
-- Not:    for other stores do the same there: "update ... where fence <= ?".
-- Source: Kleppmann, How to do distributed locking, 2016.

return [[
-- True, and the fence remembered under key, unless a newer holder has been here.
local function fenced(key, fence)
  local seen = tonumber(redis.call('GET', key) or '0')
  if tonumber(fence) < seen then return false end
  redis.call('SET', key, fence)
  return true
end
]]
