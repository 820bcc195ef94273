"""The official anthropic package against the replayed provider itself: if it
understands the fake, tests against the fake mean something. BASE_URL is given."""

import os

import anthropic

from runner import run

client = anthropic.Anthropic(base_url=os.environ["BASE_URL"], api_key="sk-ant-fake", max_retries=0)
TOOLS = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}]


def request(text="Say hello.", **more):
    return dict(model="claude-haiku-4-5", max_tokens=100, messages=[{"role": "user", "content": text}], **more)


def test_message():
    message = client.messages.create(**request())
    assert message.content[0].text, message
    assert message.stop_reason == "end_turn", message
    assert message.usage.output_tokens > 0, message


def test_stream():
    with client.messages.stream(**request()) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text and message.content[0].text == text, message
    assert message.usage.input_tokens == 10, message


def test_tool_call():
    message = client.messages.create(**request("How is the weather?", tools=TOOLS))
    assert message.stop_reason == "tool_use", message
    assert any(block.type == "tool_use" and block.name == "get_weather" for block in message.content), message


def test_streamed_tool_call():
    with client.messages.stream(**request("How is the weather?", tools=TOOLS)) as stream:
        message = stream.get_final_message()
    assert [block.name for block in message.content if block.type == "tool_use"] == ["get_weather"], message


def test_bad_request():
    try:
        client.post("/v1/messages", cast_to=object, body={"model": "m"})
    except anthropic.BadRequestError as error:
        assert error.body["error"]["type"] == "invalid_request_error", error.body
        return
    raise AssertionError("no BadRequestError")


run(globals())
