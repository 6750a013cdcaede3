-- null - what stands for Redis' null where nil cannot: in a list, or as a value of a map.
--
-- What:   cjson.null, which is ngx.null in nginx; the codecs write it as null. Without cjson it is
--         an object of our own.

local has_cjson, cjson = pcall(require, "cjson")

---@class redcache.Null
return has_cjson and cjson.null or setmetatable({}, {
    __tostring = function()
        return "redcache.NULL"
    end,
})
