-- The simulator: histories without a violation, the same for the same seed; and known bugs found.
--
-- Env: REDCACHE_SIM_SEEDS: how many histories (2000; 100 under sanitizers).

local clock = require("spec.support.clock")
local process = require("spec.support.process")

local BUILD = os.getenv("REDCACHE_BUILD_DIR") or "build"
local SEEDS = os.getenv("REDCACHE_SIM_SEEDS") or clock.scale == 1 and "2000" or "100"
local LIMIT = 600

-- What a mutant may cost: so many seeds in all, some at a time.
local MUTANT_SEEDS, MUTANT_STEP = 2000, 100

local function run(program, ...)
    return process.run({ BUILD .. "/" .. program, ... }, LIMIT)
end

local function has(program)
    local file = io.open(BUILD .. "/" .. program)
    if file then file:close() end
    return file ~= nil
end

local function verdict(result)
    local seeds, events, violations =
        result.out:match("(%d+) seeds, (%d+) events, (%d+) violations\n$")
    assert.is_truthy(seeds, result.out .. result.err)
    return tonumber(seeds), tonumber(events), tonumber(violations)
end

describe("redcache-sim", function()
    it("finds no violation in " .. SEEDS .. " histories", function()
        local result = run("redcache-sim", "--seeds", SEEDS)
        local seeds, events, violations = verdict(result)
        assert.equal(0, violations, result.out)
        assert.equal(tonumber(SEEDS), seeds)
        assert.equal(0, result.exit)
        assert.is_true(events > 500 * seeds, "histories in which nothing happens: " .. result.out)
    end)

    it("finds none in as many of clusters", function()
        local result = run("redcache-sim", "--cluster", "--seeds", SEEDS)
        local seeds, events, violations = verdict(result)
        assert.equal(0, violations, result.out)
        assert.equal(tonumber(SEEDS), seeds)
        assert.is_true(events > 500 * seeds, "histories in which nothing happens: " .. result.out)
    end)

    it("finds none where replicas answer some of a cluster's reads", function()
        local result = run("redcache-sim", "--cluster", "--replicas", "--seeds",
            math.ceil(SEEDS / 4))
        local _, _, violations = verdict(result)
        assert.equal(0, violations, result.out)
        local trace = run("redcache-sim", "--cluster", "--replicas", "--seeds", "3", "--trace").out
        assert.is_truthy(trace:find("a replica's word of k%d"))
        assert.is_truthy(trace:find("a replica's word of key %d")) -- of a batch
    end)

    it("counts up and down, and refuses what would leave the bounds of an addition", function()
        local trace = run("redcache-sim", "--seeds", "3", "--trace").out
        for _, what in ipairs({ "counts: !", "counts: -!", ", from ", ", up to ",
            "is out of its bounds at " }) do
            assert.is_truthy(trace:find(what, 1, true), what)
        end
    end)

    it("finds none where servers compare by themselves, or some of a cluster do", function()
        local _, _, violations =
            verdict(run("redcache-sim", "--ifeq", "--seeds", math.ceil(SEEDS / 8)))
        assert.equal(0, violations)
        _, _, violations =
            verdict(run("redcache-sim", "--ifeq", "--cluster", "--seeds", math.ceil(SEEDS / 16)))
        assert.equal(0, violations)
        local same = { "--seeds", "1", "--from", "7", "--trace" }
        local plain = run("redcache-sim", unpack(same)).out
        assert.is_true(plain ~= run("redcache-sim", "--ifeq", unpack(same)).out)
    end)

    it("finds none where entries have tags, which are invalidated", function()
        local function holds(seeds, ...)
            local result = run("redcache-sim", "--tags", "--seeds", math.ceil(seeds), ...)
            local _, _, violations = verdict(result)
            assert.equal(0, violations, result.out)
        end
        holds(SEEDS / 8)
        holds(SEEDS / 16, "--cluster")
        local trace = run("redcache-sim", "--tags", "--seeds", "3", "--trace").out
        for _, what in ipairs({ "is invalidated:", "is invalidated softly:", ", near: e",
            ", near, stale: e", "somebody: DEL {k" }) do
            assert.is_truthy(trace:find(what, 1, true), what)
        end
    end)

    it("finds none where clients have circuit breakers, which open and close", function()
        local result = run("redcache-sim", "--breaker", "--seeds", math.ceil(SEEDS / 8))
        local _, _, violations = verdict(result)
        assert.equal(0, violations, result.out)
        local trace = run("redcache-sim", "--breaker", "--seeds", "20", "--trace").out
        for _, what in ipairs({ "breaker opens: it does not answer",
            "breaker opens: its answers are slow", "breaker opens: too many requests failed",
            "breaker is closed" }) do
            assert.is_truthy(trace:find(what, 1, true), what)
        end
    end)

    it("tells the same history for the same seed, and another for another", function()
        local first = run("redcache-sim", "--seeds", "1", "--from", "7", "--trace").out
        assert.is_true(#first > 10000)
        assert.is_true(first == run("redcache-sim", "--seeds", "1", "--from", "7", "--trace").out)
        assert.is_true(first ~= run("redcache-sim", "--seeds", "1", "--from", "8", "--trace").out)
        local cluster = { "--seeds", "1", "--from", "7", "--trace", "--cluster" }
        local other = run("redcache-sim", unpack(cluster)).out
        assert.is_true(#other > 10000 and other ~= first)
        assert.is_true(other == run("redcache-sim", unpack(cluster)).out)
    end)

    it("refuses arguments it does not know, and tells which it does", function()
        local wrong = { { "--replicas" }, { "--seeds" }, { "--seeds", "-3" }, { "--from", "x" },
            { "more" } }
        for _, arguments in ipairs(wrong) do
            local result = run("redcache-sim", unpack(arguments))
            assert.equal(2, result.exit)
            assert.is_truthy(result.err:find("usage: redcache-sim", 1, true))
        end
    end)
end)

-- Each bug was once made by some cache; base/mutant.h says what it is.
local MUTANTS = {
    "BLIND_SET", "PUBLISH_ANY", "IFEQ_NEVER_LOST", "BUNDLE_ALL_STORED", "TOKEN_PER_CLIENT",
    "SEPARATE_LOCK",
    "REFRESH_ANY", "COVER_ABSENT", "NO_LOCAL_TIMER", "NO_FLUSH_ON_RECONNECT",
    "FILL_AFTER_INVALIDATION",
    "NO_PURGE_AT_ACK", "REPLAY_LATE_EPOCH", "REPLAY_ANY", "NOLOOP", "LATE_HEARTBEAT",
    "RETRY_WRITES", "ASK_WITHOUT_ASKING", "MAP_STORM", "MAP_OLDER", "MAP_OF_MINORITY",
    "RENEWED_ELSEWHERE", "OWNED_BY_PONG", "NOTE_OF_DOUBTED", "NOTE_OF_ANY_MAP",
    "REPLAY_ELSEWHERE", "PUSH_BY_KEY", "EPOCH_PER_CLIENT", "COUNT_AGAIN", "COUNT_WITHOUT_TTL",
    "BOUND_BEFORE", "BOUND_KEPT", "BOUND_BEGINS", "BOUND_TOLD", "REPLICA_WRITES", "REPLICA_TOLD",
    "BROKEN_IS_UNDONE", "REPEAT_WHOLE", "ANSWERS_BY_NODE", "PART_IS_NIL", "PART_IS_DONE",
    "L0_REMEMBERED",
    "TAGS_AFTER_LOAD", "TAGS_LOST_IS_HIT", "TAGS_COME_BACK", "TAGS_AT_FILL", "TAGS_REMEMBERED",
    "BREAKER_HASTY", "BREAKER_STUCK", "BREAKER_LEAKS", "BREAKER_BY_CALLERS", "BREAKER_ONE_GOOD",
    "BREAKER_BLIND", "BREAKER_OWN_PAUSE", "BREAKER_WAITS",
}

-- Those that can only be made in a cluster.
local IN_CLUSTER = {
    ASK_WITHOUT_ASKING = true, MAP_STORM = true, MAP_OLDER = true, MAP_OF_MINORITY = true,
    RENEWED_ELSEWHERE = true, OWNED_BY_PONG = true, NOTE_OF_DOUBTED = true,
    NOTE_OF_ANY_MAP = true, REPLAY_ELSEWHERE = true, PUSH_BY_KEY = true, EPOCH_PER_CLIENT = true,
    ANSWERS_BY_NODE = true, PART_IS_NIL = true, PART_IS_DONE = true,
    REPLICA_WRITES = true, REPLICA_TOLD = true,
}

-- Seldom ones, of which a history in 400 to 2,000 shows something: the search begins where they
-- were found last.
local SEARCHED_FIRST = { NOTE_OF_DOUBTED = 1601, NOTE_OF_ANY_MAP = 601, REPLAY_ELSEWHERE = 2101,
    ASK_WITHOUT_ASKING = 1301, RENEWED_ELSEWHERE = 4101 }

-- Only the plain build has them: a sanitizer finds nothing in a bug that is meant.
describe("a planted bug", function()
    local on_mutants = has("redcache-sim-mutants") and it or pending

    on_mutants("is each known to this spec", function()
        local names = {}
        for name in run("redcache-sim-mutants", "--help").out:gmatch("\n +(%u[%u%d_]+): ") do
            names[#names + 1] = name
        end
        assert.same(MUTANTS, names)
    end)

    for _, mutant in ipairs(MUTANTS) do
        on_mutants("is found: " .. mutant, function()
            local found
            local first = SEARCHED_FIRST[mutant] or 1
            for from = first, first + MUTANT_SEEDS - 1, MUTANT_STEP do
                local result = run("redcache-sim-mutants", "--mutant", mutant, "--from", from,
                    "--seeds", MUTANT_STEP, IN_CLUSTER[mutant] and "--cluster"
                        or mutant:find("^TAGS_") and "--tags"
                        or mutant:find("^BREAKER_") and "--breaker"
                        or mutant:find("^IFEQ_") and "--ifeq",
                    mutant:find("^REPLICA_") and "--replicas")
                local _, _, violations = verdict(result)
                found = violations > 0
                if found then break end
            end
            assert.is_true(found, mutant .. " is not found in " .. MUTANT_SEEDS .. " histories")
        end)
    end
end)
