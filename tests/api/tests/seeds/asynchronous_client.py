"""The overview's asynchronous client. The double here makes the requests that such a client makes, and no more."""

import asyncio
import json
from types import SimpleNamespace

import requests
from world import BASE, bearer, named, same, set_up


class ClientDouble:
    def __init__(self, base_url, team_id, virtual_key):
        self.base_url, self.team_id, self.session = base_url, team_id, requests.Session()
        self.session.headers.update(bearer(virtual_key))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.session.close()

    async def post(self, path, body):
        response = await asyncio.to_thread(self.session.post, f"{self.base_url}/api/jobs/{path}", json=body)
        response.raise_for_status()
        return response.json()

    async def create_job(self, job_type, **fields):
        return SimpleNamespace(**await self.post("create", {"team_id": self.team_id, "job_type": job_type, **fields}))

    async def llm_call(self, job_id, messages, **fields):
        return SimpleNamespace(**await self.post(f"{job_id}/llm-call", {"messages": messages, **fields}))

    async def complete_job(self, job_id, status):
        answer = await self.post(f"{job_id}/complete", {"status": status})
        return SimpleNamespace(**{**answer, **answer["costs"]})


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "email": {"type": "string"}},
    "required": ["name", "age", "email"],
    "additionalProperties": False,
}


async def main():
    team = set_up({named("Chat"): ["gpt-4o"]})
    async with ClientDouble(base_url=BASE, team_id=team["team_id"], virtual_key=team["virtual_key"]) as client:
        job = await client.create_job("document_analysis")
        answer = await client.llm_call(job_id=job.job_id, messages=[{"role": "user", "content": "Analyze..."}])
        assert "Analyze" in answer.response["content"], answer
        result = await client.complete_job(job.job_id, "completed")
        same((result.status, result.credits_remaining), ("completed", 999))

        job = await client.create_job("extraction")
        prompts = [[{"role": "user", "content": f"Question {number}"}] for number in range(4)]
        answers = await asyncio.gather(*(client.llm_call(job.job_id, prompt) for prompt in prompts))
        for number, answer in enumerate(answers):
            assert f"Question {number}" in answer.response["content"], answer
        wanted = {"type": "json_schema", "json_schema": {"name": "Person", "schema": SCHEMA, "strict": True}}
        answer = await client.llm_call(job.job_id, [{"role": "user", "content": "Extract the person."}], response_format=wanted)
        person = json.loads(answer.response["content"])
        same({name: type(value) for name, value in person.items()}, {"name": str, "age": int, "email": str})
        result = await client.complete_job(job.job_id, "completed")
        same((result.total_calls, result.credits_remaining), (5, 998))


asyncio.run(main())
