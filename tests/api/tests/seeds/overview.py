"""The overview: its quick start as it stands, which gives a team nothing to call; then with models in the access group; then its stream."""

import json

import requests
from world import API, admin_post, bearer, good, has, named, refused, same

ORGANIZATION = named("org_acme")
admin_post("/organizations/create", {"organization_id": ORGANIZATION, "name": "ACME Corporation"})


def team_with(access_group, team_id):
    admin_post("/model-access-groups/create", access_group)
    body = {
        "organization_id": ORGANIZATION,
        "team_id": team_id,
        "team_alias": "ACME Corp Team",
        "access_groups": [access_group["group_name"]],
        "credits_allocated": 1000,
    }
    team = admin_post("/teams/create", body)
    has(team, {"team_id": team_id, "credits_allocated": 1000, "credits_remaining": 1000})
    return bearer(team["virtual_key"])


def create(headers, team_id):
    body = {"team_id": team_id, "job_type": "test", "metadata": {"test": True}}
    return requests.post(f"{API}/jobs/create", headers=headers, json=body).json()["job_id"]


def call(headers, job, prompt):
    body = {"messages": [{"role": "user", "content": prompt}]}
    return requests.post(f"{API}/jobs/{job}/llm-call", headers=headers, json=body)


def complete(headers, job):
    return good(requests.post(f"{API}/jobs/{job}/complete", headers=headers, json={"status": "completed"}))


def stream(headers, job, prompt):
    body = {"messages": [{"role": "user", "content": prompt}]}
    response = requests.post(f"{API}/jobs/{job}/llm-call-stream", headers=headers, json=body, stream=True)
    same((response.status_code, response.headers["content-type"].split(";")[0]), (200, "text/event-stream"))
    ended = False
    for line in response.iter_lines():
        if line == b"data: [DONE]":
            ended = True
        elif line.startswith(b"data: "):
            assert not ended, line
            yield json.loads(line[6:])
    assert ended, "the stream ends with [DONE]"


bare = named("acme-bare")
headers = team_with({"group_name": named("no-models"), "description": "GPT models"}, bare)
job = create(headers, bare)
refused(call(headers, job, "Say hello!"), 403, f"Team '{bare}' has no model group")
# Nothing was called, so nothing failed: the job itself is as good as any other.
has(complete(headers, job)["costs"], {"total_calls": 0, "failed_calls": 0})

acme = named("acme-corp")
group = named("gpt-models")
headers = team_with({"group_name": group, "description": "GPT models", "models": ["gpt-4o-mini", "gpt-4o"]}, acme)
job = create(headers, acme)
answer = good(call(headers, job, "Say hello!"))
assert "Say hello!" in answer["response"]["content"], answer
same(answer["metadata"]["model_group"], group)
same(complete(headers, job)["costs"]["credits_remaining"], 999)

job = create(headers, acme)
chunks = list(stream(headers, job, "Tell me a story"))
texts = [chunk.get("content", "") for chunk in chunks]
# The guide prints them as they are, so none may be null.
assert all(isinstance(text, str) for text in texts), chunks
assert "Tell me a story" in "".join(texts), texts
assert sum(1 for text in texts if text) > 1, "piece by piece"
same("".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", [])), "".join(texts))
assert "gpt-4o" not in str(chunks), "models are not shown"
has(chunks[-1], {"finish_reason": "stop"})
costs = complete(headers, job)["costs"]
has(costs, {"total_calls": 1, "successful_calls": 1, "credit_applied": True, "credits_remaining": 998})
assert costs["total_tokens"] > 0 and costs["total_cost_usd"] > 0, costs
