-- bench/charts.lua draws what the benches left, and says what is not there. A program in gnuplot's
-- place keeps what it was told to draw.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local RESULTS = [[{"idle":{"sides":[
{"name":"callers, 10","rounds":[],"figures":{"rate":{"median":20.5,"min":1,"max":2}}},
{"name":"callers, 2","rounds":[],"figures":{"rate":{"median":4.25,"min":1,"max":2}}},
{"name":"callers, all","rounds":[],"figures":{}},
{"name":"masters, 3","rounds":[],"figures":{"rate":{"median":7.75,"min":1,"max":2}}}]}}]]
local READ = [[{"idle":{"sides":[
{"name":"get","rounds":[],"figures":{"p50":{"median":0.0415,"min":1,"max":2}}},
{"name":"get all","rounds":[],"figures":{"p50":{"median":3,"min":1,"max":4}}}]}}]]

local function run(env, ...)
    return process.run({ process.interpreter, "bench/charts.lua", env = env, ... })
end

describe("charts of the benches", function()
    local from, to, bin

    before_each(function()
        from, to, bin = temp.dir(), temp.dir(), temp.dir()
        temp.write(from .. "/growth.json", RESULTS)
        temp.write(from .. "/read.json", READ)
        temp.write(bin .. "/gnuplot", "#!/bin/sh\nexec cp \"$1\" " .. to .. "\n")
        os.execute(("chmod +x '%s/gnuplot'"):format(bin))
    end)

    local function draw()
        return run({ PATH = bin .. ":" .. os.getenv("PATH") }, "--from", from, "--to", to)
    end

    it("are drawn of what was measured, points by their numbers", function()
        local ended = draw()
        local script = temp.read(to .. "/callers.gp")
        assert.truthy(script:find("set output '" .. to .. "/callers.svg'", 1, true))
        assert.truthy(script:find("\n2 4.25\n10 20.5\nEND", 1, true), script)
        assert.truthy(temp.read(to .. "/masters.gp"):find("\n3 7.75\nEND", 1, true))
        assert.truthy(ended.out:find(to .. "/callers.svg", 1, true))
    end)

    it("show a figure in the chart's unit", function()
        draw()
        assert.truthy(temp.read(to .. "/hits.gp"):find('-1 41.5 0x2a6fdb "from Redis, blocking"', 1,
            true))
    end)

    it("say what was not measured, and fail where nothing of a chart was", function()
        local ended = draw()
        assert.equal(1, ended.exit)
        assert.truthy(ended.out:find("hits: no L0: script/bench near has not measured it", 1, true))
        assert.truthy(ended.out:find("keys: no redcache: script/bench near_growth", 1, true))
        assert.is_nil(io.open(to .. "/keys.gp"))
    end)

    it("ask for gnuplot where there is none", function()
        local ended = run({ PATH = temp.dir() }, "--from", from, "--to", to)
        assert.not_equal(0, ended.exit)
        assert.truthy(ended.err:find("gnuplot-nox", 1, true), ended.err)
    end)

    it("name the arguments there are", function()
        local ended = run({}, "--form", from)
        assert.truthy(ended.err:find("usage: script/bench charts [--from DIR] [--to DIR]", 1, true))
    end)
end)
