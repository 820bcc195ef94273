"""The official openai package against the gateway. BASE_URL and API_KEY are given."""

import json
import os

import openai

from runner import run

BASE_URL = os.environ["BASE_URL"]
client = openai.OpenAI(base_url=BASE_URL, api_key=os.environ["API_KEY"], max_retries=0)
HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = [{"role": "user", "content": "How is the weather in Paris?"}]
TOOLS = [{"type": "function", "function": {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}}]


def ask(model, messages=HELLO, **more):
    return client.chat.completions.create(model=model, messages=messages, max_tokens=100, **more)


def fails_with(error, call):
    try:
        call()
    except error as raised:
        assert type(raised) is error, type(raised)
        assert raised.message, raised
        return raised
    raise AssertionError(f"no {error.__name__}")


def test_chat():
    for model in ("gpt", "claude"):
        reply = ask(model)
        assert reply.choices[0].message.content, reply
        assert reply.choices[0].finish_reason in ("stop", "length"), reply
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0, reply


def test_stream():
    for model in ("gpt", "claude"):
        chunks = list(ask(model, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text, chunks
        finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert [finish for finish in finishes if finish] == ["stop"], finishes
        assert chunks[-1].usage.total_tokens > 0, chunks[-1]


def test_stream_without_usage():
    for model in ("gpt", "claude"):
        assert all(chunk.usage is None for chunk in ask(model, stream=True)), model


def test_tool_call():
    for model in ("gpt", "claude"):
        call = ask(model, WEATHER, tools=TOOLS).choices[0].message.tool_calls[0]
        assert call.function.name == "get_weather", call
        assert isinstance(json.loads(call.function.arguments), dict), call


def test_streamed_tool_call():
    for model in ("gpt", "claude"):
        name, arguments = "", ""
        for chunk in ask(model, WEATHER, tools=TOOLS, stream=True):
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
        assert name == "get_weather", (model, name)
        assert isinstance(json.loads(arguments or "{}"), dict), (model, arguments)


def test_tool_result_is_accepted():
    for model in ("gpt", "claude"):
        call = ask(model, WEATHER, tools=TOOLS).choices[0].message
        answer = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "sunny"}
        reply = ask(model, [*WEATHER, call, answer], tools=TOOLS)
        assert reply.choices[0].message is not None


def test_models():
    names = {model.id for model in client.models.list()}
    assert {"gpt", "claude"} <= names, names
    other = openai.OpenAI(base_url=BASE_URL.replace("/v1", "/api/v1/llm"), api_key=client.api_key)
    assert {model.id for model in other.models.list()} == names


def test_authentication_error():
    stranger = openai.OpenAI(base_url=BASE_URL, api_key="tg_unknown", max_retries=0)
    call = lambda: stranger.chat.completions.create(model="gpt", messages=HELLO)
    assert fails_with(openai.AuthenticationError, call).status_code == 401


def test_not_found_error():
    error = fails_with(openai.NotFoundError, lambda: ask("no-such-model"))
    assert error.code == "model_not_found", error


def test_rate_limit_error():
    error = fails_with(openai.RateLimitError, lambda: ask("throttled"))
    assert error.response.headers["retry-after"] == "1", error.response.headers


def test_internal_server_error():
    error = fails_with(openai.InternalServerError, lambda: ask("failing"))
    assert error.status_code >= 500, error


run(globals())
