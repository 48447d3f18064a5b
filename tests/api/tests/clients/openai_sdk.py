"""What a user of OpenAI's SDK does, with nothing changed but the address and the key."""

import json
import os

import openai

GROUP = os.environ["GROUP"]
HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def client(key):
    return openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=key, max_retries=0, timeout=30)


team = client(os.environ["KEY"])

# The models are the team's groups.
assert [model.id for model in team.models.list()] == [GROUP]
assert team.models.retrieve(GROUP).id == GROUP

# A buffered answer.
answer = team.chat.completions.create(model=GROUP, messages=HELLO, temperature=0.2, max_tokens=50)
assert answer.object == "chat.completion" and answer.model == GROUP, answer
assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content, answer
assert answer.choices[0].finish_reason == "stop", answer
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0, answer

# A streamed one: text, and at the end the usage that was asked for.
text, usage = "", None
with team.chat.completions.create(
    model=GROUP, messages=HELLO, stream=True, stream_options={"include_usage": True}
) as stream:
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk" and chunk.model == GROUP, chunk
        for choice in chunk.choices:
            text += choice.delta.content or ""
        usage = chunk.usage or usage
assert text == answer.choices[0].message.content, text
assert usage.total_tokens > 0, usage

# Without being asked for, no usage is in a stream.
with team.chat.completions.create(model=GROUP, messages=HELLO, stream=True) as stream:
    assert all(chunk.usage is None for chunk in stream)

# A tool.
tool = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
answer = team.chat.completions.create(model=GROUP, messages=HELLO, tools=[tool], tool_choice="required")
call = answer.choices[0].message.tool_calls[0]
assert answer.choices[0].finish_reason == "tool_calls", answer
assert call.function.name == "weather" and isinstance(json.loads(call.function.arguments)["city"], str), answer

# Calls in one job, the third with what the tool said.
job = {"x-job-id": os.environ["JOB"]}
conversation = HELLO + [
    {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
    {"role": "tool", "tool_call_id": call.id, "content": "Sunny"},
]
for messages in [HELLO, HELLO, conversation]:
    answer = team.chat.completions.with_raw_response.create(model=GROUP, messages=messages, extra_headers=job)
    assert answer.headers["x-job-id"] == job["x-job-id"], answer.headers


def refusal(of, error, call):
    try:
        call(of)
    except error as refused:
        return refused
    raise AssertionError(f"not refused with {error}")


def complete(**fields):
    return lambda of: of.chat.completions.create(**{"model": GROUP, "messages": HELLO, **fields})


# Failures are the SDK's own exceptions.
refused = refusal(client("sk-unknown"), openai.AuthenticationError, complete())
assert refused.code == "unauthenticated", refused
refused = refusal(client("sk-unknown"), openai.AuthenticationError, lambda of: of.models.list())
assert refused.status_code == 401, refused
refused = refusal(team, openai.PermissionDeniedError, complete(model="no-such-group"))
assert refused.code == "model_group_denied", refused
refused = refusal(team, openai.NotFoundError, lambda of: of.models.retrieve("no-such-group"))
assert refused.code == "not_found", refused
refused = refusal(team, openai.BadRequestError, complete(temperature=3))
assert refused.code == "invalid_request" and refused.param == "temperature", refused
refused = refusal(team, openai.NotFoundError, complete(extra_headers={"x-job-id": "no-such-job"}))
assert refused.code == "not_found", refused
poor = client(os.environ["POOR_KEY"])
refused = refusal(poor, openai.APIStatusError, complete(model=openai.omit))
assert refused.status_code == 402 and refused.code == "insufficient_credits", refused
assert refused.type == "insufficient_quota", refused
