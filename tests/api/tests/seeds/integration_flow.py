"""The complete integration flow: an organization by its name, groups for two tiers, a team with a budget in USD and rate limits, its
key used directly; then the other tier with the same key, a budget that is used up, and credits that raise it."""

import json
import time

import requests
from world import ADMIN, API, LITELLM, admin_post, bearer, good, has, named, refused, same

BASIC, PREMIUM, TEAM = named("basic-models"), named("premium-models"), named("acme-dev")


def curl(path, body):
    """As `curl -d` sends it: JSON that says it is a form."""
    headers = {**ADMIN, "Content-Type": "application/x-www-form-urlencoded"}
    return requests.post(f"{API}{path}", headers=headers, data=json.dumps(body))


def direct(key, model):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello, world!"}]}
    return requests.post(f"{LITELLM}/chat/completions", headers=bearer(key), json=body)


def until(what, attempt):
    """LiteLLM learns of what was spent a little later."""
    deadline = time.monotonic() + 30
    while not attempt():
        assert time.monotonic() < deadline, f"in 30 seconds there was no {what}"
        time.sleep(0.1)


refused(requests.post(f"{API}/organizations/create", json={"name": "x"}), 401, "Missing X-Admin-Key header. Admin authentication required.")
wrong = requests.post(f"{API}/organizations/create", headers={"X-Admin-Key": "wrong"}, json={"name": "x"})
refused(wrong, 401, "Invalid admin API key")
name = named("Acme Corp")
organization = good(curl("/organizations/create", {"name": name, "litellm_organization_id": named("acme")}))
has(organization, {"name": name, "status": "active"})

for group, models in {BASIC: ["gpt-3.5-turbo", "expensive"], PREMIUM: ["gpt-4-turbo", "claude-3-sonnet", "claude-3-opus"]}.items():
    listed = [{"model_name": model, "priority": priority} for priority, model in enumerate(models)]
    admin_post("/model-groups/create", {"group_name": group, "description": "A tier", "models": listed})
team = {
    "organization_id": organization["organization_id"],
    "team_id": TEAM,
    "team_alias": "Acme Dev Team",
    "model_groups": [BASIC],
    "credits_allocated": 10,
    "max_budget": 0.05,
    "budget_duration": "30d",
    "rpm_limit": 10000,
    "tpm_limit": 5000000,
    "budget_mode": "hard_limit",
}
created = admin_post("/teams/create", team)
key = created["virtual_key"]
has(created, {"allowed_models": ["gpt-3.5-turbo", "expensive"], "credits_allocated": 10})
teams = good(requests.get(f"{API}/teams", headers=ADMIN))["teams"]
same([listed["team_id"] for listed in teams], [TEAM])
assert key not in str(teams), "a key is shown once"

# The key works in LiteLLM for the models of its groups, and only for those.
assert "Hello, world!" in good(direct(key, "gpt-3.5-turbo"))["choices"][0]["message"]["content"]
denied = direct(key, "gpt-4-turbo")
assert denied.status_code == 403, denied.text

# The other tier, with the same key, at once.
good(requests.put(f"{API}/teams/{TEAM}/model-groups", headers=ADMIN, json=[PREMIUM]))
until("access to the new group's models", lambda: direct(key, "gpt-4-turbo").status_code == 200)
until("refusal of the old group's models", lambda: direct(key, "gpt-3.5-turbo").status_code == 403)
good(requests.put(f"{API}/teams/{TEAM}/model-groups", headers=ADMIN, json=[BASIC]))
until("access to the first group's models", lambda: direct(key, "expensive").status_code != 403)

# The budget in USD is used up while credits are left. One that the admin has set is not raised by adding credits.
job = good(requests.post(f"{API}/jobs/create", headers=bearer(key), json={"team_id": TEAM, "job_type": "chat"}))["job_id"]


def call():
    body = {"messages": [{"role": "user", "content": "Hello, world!"}]}
    return requests.post(f"{API}/jobs/{job}/llm-call", headers=bearer(key), json=body)


def spend():
    response = direct(key, "expensive")
    # The guide says 429, which is what older versions of LiteLLM answer.
    return response.status_code in (422, 429) and "budget" in response.text.lower()


until("end of the budget", spend)
exhausted = call()
same((exhausted.status_code, exhausted.json()["code"]), (402, "budget_exhausted"))

body = {"amount": 100.0, "reason": "Monthly allocation"}
has(good(curl(f"/credits/teams/{TEAM}/add", body)), {"credits_added": 100, "credits_remaining": 110})
same((call().status_code, call().json()["code"]), (402, "budget_exhausted"))
good(requests.put(f"{API}/teams/{TEAM}", headers=ADMIN, json={"max_budget": 11}))
until("call within the raised budget", lambda: call().status_code == 200)
has(good(requests.get(f"{API}/teams/{TEAM}", headers=ADMIN))["credits"], {"credits_allocated": 110, "credits_used": 0})
done = requests.post(f"{API}/jobs/{job}/complete", headers=bearer(key), json={"status": "completed"})
# A call that was refused, because the budget was used up, does not make the job free.
has(good(done)["costs"], {"credit_applied": True, "credits_remaining": 109})
