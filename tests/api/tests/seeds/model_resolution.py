"""The second guide's other pattern: a team asks which model a group stands for, and calls LiteLLM itself with its virtual key."""

import json

import requests
from world import API, LITELLM, admin_post, bearer, good, has, named, same, set_up

RESUME, CHAT, OTHER = named("ResumeAgent"), named("ChatAgent"), named("OtherAgent")
team = set_up({RESUME: ["gpt-4o", "gpt-4-turbo", "gpt-3.5-turbo"], CHAT: ["gpt-3.5-turbo", "gpt-4"]})
admin_post("/model-groups/create", {"group_name": OTHER, "models": [{"model_name": "claude-3-opus", "priority": 0}]})
same(sorted(team["allowed_models"]), ["gpt-3.5-turbo", "gpt-4", "gpt-4-turbo", "gpt-4o"])


class AgentClient:
    """Resolves each agent once and keeps the model for the session."""

    def __init__(self, team_id, key):
        self.team_id, self.key, self.models, self.lookups = team_id, key, {}, 0

    def resolve(self, agent):
        path = f"{API}/model-groups/{agent}/resolve"
        response = requests.get(path, params={"team_id": self.team_id}, headers=bearer(self.key))
        self.lookups += 1
        return good(response)

    def model(self, agent):
        if agent not in self.models:
            data = self.resolve(agent)
            if not data.get("team_has_access"):
                raise PermissionError(agent)
            self.models[agent] = data["primary_model"]
        return self.models[agent]

    def chat(self, agent, messages, **more):
        body = {"model": self.model(agent), "messages": messages, **more}
        return requests.post(f"{LITELLM}/chat/completions", headers=bearer(self.key), json=body, stream=more.get("stream"))


client = AgentClient(team["team_id"], team["virtual_key"])
expected = {"group_name": RESUME, "primary_model": "gpt-4o", "fallback_models": ["gpt-4-turbo", "gpt-3.5-turbo"], "team_has_access": True}
has(client.resolve(RESUME), expected)
has(client.resolve(OTHER), {"group_name": OTHER, "primary_model": None, "fallback_models": [], "team_has_access": False})

client.lookups = 0
for prompt in ("Analyze this resume", "And this one"):
    answer = good(client.chat(RESUME, [{"role": "user", "content": prompt}]))
    assert prompt in answer["choices"][0]["message"]["content"], answer
good(client.chat(CHAT, [{"role": "user", "content": "hello"}]))
same(client.lookups, 2)
try:
    client.chat(OTHER, [])
    raise AssertionError("a group that the team may not use")
except PermissionError:
    pass

text = ""
for line in client.chat(CHAT, [{"role": "user", "content": "Tell me a story"}], stream=True).iter_lines():
    if line.startswith(b"data: ") and line != b"data: [DONE]":
        for choice in json.loads(line[6:])["choices"]:
            text += choice["delta"].get("content") or ""
assert "Tell me a story" in text, text

# Direct calls cost no credits, and a model of no group of the team is refused.
has(good(requests.get(f"{API}/credits/teams/{client.team_id}/balance", headers=bearer(client.key))), {"credits_used": 0, "credits_reserved": 0})
body = {"model": "claude-3-opus", "messages": [{"role": "user", "content": "hello"}]}
denied = requests.post(f"{LITELLM}/chat/completions", headers=bearer(client.key), json=body)
assert denied.status_code == 403 and "model" in denied.text.lower(), denied.text
