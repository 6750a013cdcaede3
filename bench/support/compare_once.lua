-- compare_once - one question, once, on a store in memory: for those who count instructions.
-- usage: luajit -joff compare_once.lua QUESTION CALLS CAPACITY
--   CAPACITY: the most calls of any run that this one is compared with

local name, calls, capacity = arg[1], tonumber(arg[2]), tonumber(arg[3])
local compare_questions = require("bench.support.compare_questions")
math.randomseed(1) -- the same keys at every run
collectgarbage("stop") -- it would work by what random addresses make of its tables
local questions = compare_questions.open({ url = "memory://", namespace = "count",
    capacity = capacity })
questions:ask(name, calls)
questions:close()
