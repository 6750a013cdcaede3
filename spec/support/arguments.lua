--- The command line of a program of spec: options with a value each; and lines that are seen at
-- once.
--
-- What:   read(words, usage, options, known), say(text, ...).
-- Errors: what is not known, or has no value, ends the program with its usage and status 2.

local arguments = {}

--- Reads "--name value --name value ..." over the defaults in `options`. known: by name what makes
-- the value of a text, nil where it is none (tonumber, tostring). Returns options.
function arguments.read(words, usage, options, known)
    for i = 1, #words, 2 do
        local name = words[i]:match("^%-%-(%a+)$")
        local value = name and known[name] and words[i + 1] and known[name](words[i + 1])
        if not value then
            io.stderr:write(usage)
            os.exit(2)
        end
        options[name] = value
    end
    return options
end

--- A line, also where a file or a pipe takes it.
function arguments.say(text, ...)
    print(text:format(...))
    io.stdout:flush()
end

return arguments
