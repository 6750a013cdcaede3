--- Where one RESP message ends: shared by the foreign client, the proxy and the fake server.
--
-- What:   frame.finish(bytes, from) walks RESP2 and RESP3 without recursion and without building
--         anything; frame.request(bytes, from) reads a command as servers see it.
-- Errors: nil while more bytes are needed; throws at bytes that are no RESP.

local frame = {}

local find, byte, sub = string.find, string.byte, string.sub

-- How a type goes on after its line: a payload of so many bytes, so many elements, or nothing.
local PAYLOAD = { ["$"] = true, ["="] = true, ["!"] = true }
local ELEMENTS = { ["*"] = 1, ["~"] = 1, [">"] = 1, ["%"] = 2, ["|"] = 2 }
local LINE = {
    ["+"] = true, ["-"] = true, [":"] = true, ["("] = true, [","] = true, ["_"] = true,
    ["#"] = true,
}

--- One type, its line's text, where the payload begins. nil while the line is not complete.
function frame.line(bytes, from)
    local ends = find(bytes, "\r\n", from, true)
    if not ends then return nil end
    return sub(bytes, from, from), sub(bytes, from + 1, ends - 1), ends + 2
end

--- The position after the message that begins at `from`.
function frame.finish(bytes, from)
    local missing = 1
    while missing > 0 do
        local kind, text, after = frame.line(bytes, from)
        if not kind then
            local first = sub(bytes, from, from)
            if first ~= "" and not (PAYLOAD[first] or ELEMENTS[first] or LINE[first]) then
                error("no RESP: " .. ("%q"):format(first), 0)
            end
            return nil
        end
        missing = missing - 1
        from = after
        if PAYLOAD[kind] then
            local len = assert(tonumber(text), "no RESP: bad length")
            if len >= 0 then from = after + len + 2 end
            if from > #bytes + 1 then return nil end
        elseif ELEMENTS[kind] then
            local count = assert(tonumber(text), "no RESP: bad count")
            missing = missing + math.max(count, 0) * ELEMENTS[kind]
            -- An attribute is told before the message it belongs to.
            if kind == "|" then missing = missing + 1 end
        elseif not LINE[kind] then
            error("no RESP: " .. ("%q"):format(kind), 0)
        end
    end
    return from
end

--- The words of the command that begins at `from`, and the position after it.
function frame.request(bytes, from)
    if byte(bytes, from) ~= 42 and from <= #bytes then error("no RESP: inline command", 0) end
    local after = frame.finish(bytes, from)
    if not after then return nil end
    local words = {}
    local _, count, at = frame.line(bytes, from)
    for i = 1, tonumber(count) do
        local _, len, start = frame.line(bytes, at)
        words[i] = sub(bytes, start, start + tonumber(len) - 1)
        at = start + tonumber(len) + 2
    end
    return words, after
end

--- A command in RESP. Numbers become their text.
function frame.command(words)
    local parts = { "*", #words, "\r\n" }
    for _, word in ipairs(words) do
        word = type(word) == "number" and ("%.17g"):format(word) or word
        parts[#parts + 1] = "$"
        parts[#parts + 1] = #word
        parts[#parts + 1] = "\r\n"
        parts[#parts + 1] = word
        parts[#parts + 1] = "\r\n"
    end
    return table.concat(parts)
end

function frame.bulk(bytes)
    return "$" .. #bytes .. "\r\n" .. bytes .. "\r\n"
end

return frame
