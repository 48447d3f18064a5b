"""The first guide: its quick start, which sets everything up and runs a job, then its Python client, then each route it lists.

The guide has no authentication; here the admin key and the virtual key are in their places.
"""

import requests
from world import ADMIN, API, BASE, admin_post, bearer, good, has, named, refused, same

ORGANIZATION, TEAM, CHAT, RESUME = (named(name) for name in ("org_your_company", "team_engineering", "ChatAgent", "ResumeAgent"))


def quick_start():
    organization = {"organization_id": ORGANIZATION, "name": "Your Company", "metadata": {"tier": "premium"}}
    has(admin_post("/organizations/create", organization), {**organization, "status": "active"})

    models = [{"model_name": "gpt-3.5-turbo", "priority": 0}, {"model_name": "gpt-4", "priority": 1}]
    group = {"group_name": CHAT, "display_name": "Chat Agent", "description": "General purpose chat"}
    created = admin_post("/model-groups/create", {**group, "models": models})
    has(created, {**group, "status": "active"})
    same([model["model_name"] for model in created["models"]], ["gpt-3.5-turbo", "gpt-4"])

    team = {"organization_id": ORGANIZATION, "team_id": TEAM, "model_groups": [CHAT], "credits_allocated": 1000}
    created = admin_post("/teams/create", {**team, "team_alias": "Engineering Team", "metadata": {"department": "engineering"}})
    has(created, {**team, "credits_remaining": 1000, "message": "Team created successfully with LiteLLM integration"})
    key = created["virtual_key"]
    assert key.startswith("sk-")

    body = {"team_id": TEAM, "user_id": "user_123", "job_type": "document_analysis", "metadata": {"document_id": "doc_456"}}
    job = good(requests.post(f"{API}/jobs/create", headers=bearer(key), json=body))
    same(job["status"], "pending")

    messages = [{"role": "user", "content": "Analyze this document..."}]
    body = {"model_group": CHAT, "messages": messages, "purpose": "initial_analysis"}
    call = good(requests.post(f"{API}/jobs/{job['job_id']}/llm-call", headers=bearer(key), json=body))
    assert "Analyze this document" in call["response"]["content"], call
    has(call["response"], {"finish_reason": "stop"})
    has(call["metadata"], {"model_group": CHAT})
    assert call["metadata"]["tokens_used"] > 0 and call["metadata"]["latency_ms"] >= 0, call
    assert "gpt" not in str(call), "models are not shown"

    body = {"status": "completed", "metadata": {"result": "success"}}
    done = good(requests.post(f"{API}/jobs/{job['job_id']}/complete", headers=bearer(key), json=body))
    has(done, {"job_id": job["job_id"], "status": "completed"})
    has(done["costs"], {"total_calls": 1, "successful_calls": 1, "failed_calls": 0, "credit_applied": True, "credits_remaining": 999})
    has(done["calls"][0], {"call_id": call["call_id"], "purpose": "initial_analysis", "model_group": CHAT, "error": None})
    return key


class Client:
    """As small as it gets: optional fields that nobody gave are sent as null."""

    def __init__(self, team_id, key):
        self.team_id, self.headers = team_id, bearer(key)

    def request(self, method, path, body=None):
        response = requests.request(method, f"{API}{path}", headers=self.headers, json=body)
        response.raise_for_status()
        return response.json()

    def create_job(self, job_type, user_id=None, metadata=None):
        body = {"team_id": self.team_id, "user_id": user_id, "job_type": job_type, "metadata": metadata or {}}
        return self.request("POST", "/jobs/create", body)["job_id"]

    def llm_call(self, job_id, model_group, messages, purpose=None, temperature=0.7):
        body = {"model_group": model_group, "messages": messages, "purpose": purpose, "temperature": temperature}
        return self.request("POST", f"/jobs/{job_id}/llm-call", body)

    def complete_job(self, job_id, status="completed", metadata=None, error_message=None):
        body = {"status": status, "metadata": metadata or {}, "error_message": error_message}
        return self.request("POST", f"/jobs/{job_id}/complete", body)

    def get_credits(self):
        return self.request("GET", f"/credits/teams/{self.team_id}/balance")


def python_client(key):
    models = [{"model_name": "gpt-3.5-turbo", "priority": 0, "config": {}}, {"model_name": "gpt-4", "priority": 1, "config": {}}]
    group = {"group_name": RESUME, "display_name": "Resume Agent", "description": "Resumes", "models": models, "metadata": {}}
    admin_post("/model-groups/create", group)
    groups = good(requests.put(f"{API}/teams/{TEAM}/model-groups", headers=ADMIN, json=[RESUME, CHAT]))
    same(groups["model_groups"], [RESUME, CHAT])

    client = Client(TEAM, key)
    job = client.create_job("document_analysis", user_id="user_123", metadata={"document_id": "doc_456"})
    system = {"role": "system", "content": "You are a resume parser."}
    parsed = client.llm_call(job, RESUME, [system, {"role": "user", "content": "A resume"}], purpose="parsing")
    prompt = f"Analyze: {parsed['response']['content']}"
    analyzed = client.llm_call(job, RESUME, [{"role": "user", "content": prompt}])
    assert prompt in analyzed["response"]["content"], analyzed
    done = client.complete_job(job, metadata={"result": "success"})
    has(done["costs"], {"total_calls": 2, "credit_applied": True, "credits_remaining": 998})
    has(client.get_credits(), {"credits_allocated": 1000, "credits_used": 2, "credits_remaining": 998, "credit_limit": None, "auto_refill": False})

    failing = client.create_job("document_analysis")
    try:
        client.llm_call(failing, named("Unknown"), [{"role": "user", "content": "hello"}])
        raise AssertionError("a group that the team may not use")
    except requests.HTTPError as error:
        refused(error.response, 403, f"Team '{TEAM}' does not have access to model group '{named('Unknown')}'")
        done = client.complete_job(failing, status="failed", error_message=str(error))
    has(done["costs"], {"credit_applied": False, "credits_remaining": 998})
    return job


def every_route(key, job):
    def get(path):
        return good(requests.get(f"{API}{path}", headers=ADMIN))

    has(get(f"/organizations/{ORGANIZATION}"), {"name": "Your Company"})
    assert CHAT in str(get("/model-groups")) and RESUME in str(get("/model-groups"))
    has(get(f"/model-groups/{CHAT}"), {"display_name": "Chat Agent"})
    credits = {"credits_allocated": 1000, "credits_used": 2, "credits_remaining": 998}
    has(get(f"/teams/{TEAM}")["credits"], credits)

    body = {"credits_amount": 500, "reason": "Monthly refill", "metadata": {"invoice_id": "INV-123"}}
    has(admin_post(f"/credits/teams/{TEAM}/add", body), {"credits_added": 500, "credits_remaining": 1498})
    check = good(requests.post(f"{API}/credits/teams/{TEAM}/check", headers=bearer(key), json={"credits_required": 1}))
    has(check, {"available": True, "credits_remaining": 1498})

    ledger = get(f"/credits/teams/{TEAM}/transactions?limit=50&offset=0")
    same((ledger["total_transactions"], [row["transaction_type"] for row in ledger["transactions"]]), (4, ["allocation", "deduction", "deduction", "allocation"]))
    deduction = {"credits_amount": 1, "balance_after": 998, "reason": "Job document_analysis completed successfully", "job_id": job}
    has(ledger["transactions"][1], deduction)

    has(good(requests.get(f"{API}/jobs/{job}", headers=bearer(key))), {"job_id": job, "status": "completed"})
    jobs = good(requests.get(f"{API}/teams/{TEAM}/jobs?limit=100&offset=0&status=completed", headers=bearer(key)))
    same((jobs["total"], jobs["jobs"][0]["job_id"]), (2, job))
    has(good(requests.get(f"{BASE}/health")), {"status": "healthy"})


virtual_key = quick_start()
finished_job = python_client(virtual_key)
every_route(virtual_key, finished_job)
