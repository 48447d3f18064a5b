"""The project's README: a document of five pages is one job, and its owner sees what it cost."""

import requests
from world import API, bearer, good, has, named, same, set_up

team = set_up({named("Documents"): ["gpt-4o-mini", "gpt-4o"]})
headers = bearer(team["virtual_key"])

body = {
    "team_id": team["team_id"],
    "user_id": "john@acme.com",
    "job_type": "document_analysis",
    "metadata": {"document_id": "doc_123", "pages": 5},
}
job = good(requests.post(f"{API}/jobs/create", headers=headers, json=body))["job_id"]
for page in range(1, 6):
    body = {"messages": [{"role": "user", "content": f"Analyze page {page}..."}], "purpose": f"page_{page}_analysis"}
    good(requests.post(f"{API}/jobs/{job}/llm-call", headers=headers, json=body))
result = good(requests.post(f"{API}/jobs/{job}/complete", headers=headers, json={"status": "completed"}))

has(result["costs"], {"total_calls": 5, "successful_calls": 5, "failed_calls": 0, "credit_applied": True, "credits_remaining": 999})
same([call["purpose"] for call in result["calls"]], [f"page_{page}_analysis" for page in range(1, 6)])
# The README subtracts it from a price.
assert 0 < 0.50 - result["costs"]["total_cost_usd"] < 0.50, result["costs"]
assert "gpt" not in str(result), "models are not shown"

jobs = good(requests.get(f"{API}/teams/{team['team_id']}/jobs", headers=headers, params={"user_id": "john@acme.com"}))
same((jobs["total"], jobs["jobs"][0]["job_id"], jobs["jobs"][0]["metadata"]["pages"]), (1, job, 5))
