-- wrk: creates jobs and completes each that was created; a job is two requests.
-- Arguments: a file whose lines are a bearer key and its team.
local create, complete, next_team, created = {}, {}, 0, {}

function init(args)
    for line in io.lines(args[1]) do
        local key, team = line:match("^(%S+) (%S+)$")
        -- The answer comes with the request's id, which tells whose job it is.
        local headers = {
            Authorization = "Bearer " .. key, ["Content-Type"] = "application/json", ["X-Request-Id"] = tostring(#create + 1),
        }
        create[#create + 1] = wrk.format("POST", "/api/jobs/create", headers, '{"team_id":"' .. team .. '","job_type":"bench"}')
        complete[#complete + 1] = headers
    end
end

function request()
    local job = table.remove(created)
    if job then
        return wrk.format("POST", "/api/jobs/" .. job.id .. "/complete", complete[job.team], '{"status":"completed"}')
    end
    next_team = next_team % #create + 1
    return create[next_team]
end

function response(_, headers, body)
    local id = body:match('"job_id":"([^"]+)","status":"pending"')
    if id then
        created[#created + 1] = { id = id, team = tonumber(headers["x-request-id"]) }
    end
end
