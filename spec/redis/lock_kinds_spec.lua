-- Locks of all kinds on memory://: the cases that spec/redis/api_spec.lua runs on Redis.

local memory_bed = require("spec.support.memory_bed")

describe("on memory://", function()
    local caches

    before_each(function() caches = {} end)
    after_each(function()
        for _, cache in ipairs(caches) do cache:close() end
    end)

    for _, name in ipairs({ "reentrants", "semaphores" }) do
        for _, case in ipairs(require("spec.support.cases." .. name).list) do
            it(case[1], function() case[2](memory_bed.new("lock-kinds", caches)) end)
        end
    end
end)
