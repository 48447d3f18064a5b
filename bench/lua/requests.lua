-- wrk: sends POST or GET requests from a list, one after the other.
-- Arguments: a file whose lines are a bearer key and a path, the method, and for POST a file with the body.
local formatted, next_one = {}, 0

function init(args)
    local body
    if args[3] then
        local file = assert(io.open(args[3]))
        body = file:read("*a")
        file:close()
    end
    for line in io.lines(args[1]) do
        local key, path = line:match("^(%S+) (%S+)$")
        local headers = { Authorization = "Bearer " .. key, ["Content-Type"] = body and "application/json" or nil }
        formatted[#formatted + 1] = wrk.format(args[2], path, headers, body)
    end
end

function request()
    next_one = next_one % #formatted + 1
    return formatted[next_one]
end
