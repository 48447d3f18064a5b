"""The second guide: its errors of authentication, and its resume analysis, where each call builds on the one before."""

import requests
from world import API, bearer, good, has, named, refused, same, set_up

AGENT = named("ResumeAgent")
team = set_up({AGENT: ["gpt-3.5-turbo", "gpt-4"]}, credits=100)
TEAM, headers = team["team_id"], bearer(team["virtual_key"])


def refusals():
    body = {"team_id": TEAM, "job_type": "resume_analysis"}

    def create(headers, **changes):
        return requests.post(f"{API}/jobs/create", headers=headers, json={**body, **changes})

    refused(create({}), 401, "Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'")
    refused(create(bearer("sk-nobodys")), 401, "Invalid API key")
    refused(create(headers, team_id="team_xxx"), 403, "API key does not belong to team 'team_xxx'")


def call(job, system, prompt, purpose):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    body = {"model_group": AGENT, "messages": messages, "purpose": purpose}
    response = requests.post(f"{API}/jobs/{job}/llm-call", headers=headers, json=body)
    return response.json()["response"]["content"]


def analyze(resume, requirements):
    metadata = {"resume_length": len(resume), "num_requirements": len(requirements)}
    body = {"team_id": TEAM, "job_type": "resume_analysis", "metadata": metadata}
    job = requests.post(f"{API}/jobs/create", headers=headers, json=body).json()["job_id"]
    try:
        parsed = call(job, "Extract what matters.", f"Parse this:\n\n{resume}", "parsing")
        prompt = f"Candidate: {parsed}\n\nRequirements: {', '.join(requirements)}"
        compared = call(job, "Compare with the requirements.", prompt, "requirements_comparison")
        summary = call(job, "Summarize.", f"Resume: {parsed}\n\nFit: {compared}", "executive_summary")
        body = {"status": "completed", "metadata": {"result": "success", "summary_length": len(summary)}}
        done = requests.post(f"{API}/jobs/{job}/complete", headers=headers, json=body).json()
        return job, summary, done["costs"]
    except Exception as error:
        body = {"status": "failed", "error_message": str(error)}
        has(good(requests.post(f"{API}/jobs/{job}/complete", headers=headers, json=body)), {"status": "failed"})
        raise


def balance():
    return good(requests.get(f"{API}/credits/teams/{TEAM}/balance", headers=headers))["credits_remaining"]


refusals()
job, summary, costs = analyze("Jane Roe | five years of Python", ["Python", "PostgreSQL"])
assert "Jane Roe" in summary and "PostgreSQL" in summary, summary
has(costs, {"total_calls": 3, "successful_calls": 3, "failed_calls": 0, "credit_applied": True, "credits_remaining": 99})
# The guide formats the cost as a number.
assert float(f"{costs['total_cost_usd']:.9f}") > 0, costs

later = good(requests.get(f"{API}/jobs/{job}", headers=headers))
has(later, {"job_id": job, "status": "completed", "job_type": "resume_analysis", "credit_applied": True})
same([call["purpose"] for call in later["calls"]], ["parsing", "requirements_comparison", "executive_summary"])
assert abs(sum(call["cost_usd"] for call in later["calls"]) - later["total_cost_usd"]) < 1e-12, later
assert all(call["tokens"] > 0 and call["latency_ms"] >= 0 for call in later["calls"]), later
has(later["metadata"], {"num_requirements": 2, "result": "success"})

# A model that fails: no `response` in the answer, so the client gives up and the credit stays.
try:
    analyze("[[status=400]]", ["Python"])
    raise AssertionError("the model refuses")
except KeyError:
    same(balance(), 99)
