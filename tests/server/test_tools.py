"""Tools over HTTP: calls that a grammar keeps to their schemas, whole and streamed, and their results going back in."""

import json
import typing

import anthropic
import ollama
import openai
import pydantic
import pytest

HI = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"enum": [1, 2]}},
              "required": ["city", "days"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": PARAMETERS,
                                            "strict": True}}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}


def check(arguments):
    assert set(arguments) == {"city", "days"}
    assert arguments["city"] in ("Rome", "Oslo")


@pytest.fixture(scope="module")
def client(real):
    with openai.OpenAI(base_url=real.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


NAMED = {"type": "function", "function": {"name": "weather"}}
HOW = {"model": "small", "messages": HI, "max_tokens": 150, "seed": 3, "tools": [WEATHER, TIME], "tool_choice": NAMED}


@pytest.mark.model
def test_openai_s_calls_whole_and_streamed_and_back_in(client):
    said = client.chat.completions.create(**HOW).choices[0]
    assert said.finish_reason == "tool_calls"
    (call,) = said.message.tool_calls
    assert call.function.name == "weather"
    check(json.loads(call.function.arguments))
    name, arguments, reasons, ids = "", "", [], set()
    for chunk in client.chat.completions.create(**HOW, stream=True):
        choice = chunk.choices[0]
        reasons += [choice.finish_reason] if choice.finish_reason else []
        for delta in choice.delta.tool_calls or ():
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
            ids |= {delta.id} - {None}
    assert (name, arguments, reasons) == ("weather", call.function.arguments, ["tool_calls"])
    assert len(ids) == 1
    back = [*HI, said.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
    more = client.chat.completions.create(model="small", messages=back, max_tokens=4, tools=[WEATHER])
    assert more.usage.prompt_tokens > 20


@pytest.mark.model
def test_a_call_has_to_be_made_when_it_is_required_and_none_is_when_it_is_not_wanted(client):
    required = client.chat.completions.create(**(HOW | {"tool_choice": "required", "n": 2}))
    for choice in required.choices:
        assert {call.function.name for call in choice.message.tool_calls} <= {"weather", "time"}
    none = client.chat.completions.create(**(HOW | {"tool_choice": "none", "max_tokens": 5}))
    assert none.choices[0].message.tool_calls is None


@pytest.mark.parametrize(("field", "value"), [
    ("tool_choice", {"type": "function", "function": {"name": "fly"}}), ("tools", [{"type": "web_search"}]),
    ("tools", [WEATHER, WEATHER]), ("tools", [TIME] * 129), ("tool_choice", "always"),
    ("tools", [{"type": "function", "function": {"name": "a b"}}]),
])
def test_tools_that_cannot_be_are_a_400(server, field, value):
    assert server.chat(**({"tools": [WEATHER], "max_tokens": 5} | {field: value})).status_code == 400


@pytest.mark.model
def test_anthropic_s_calls_whole_and_streamed_and_back_in(real):
    tool = {"name": "weather", "description": "The weather.", "input_schema": PARAMETERS}
    how = {"model": "small", "messages": HI, "max_tokens": 150, "tools": [tool], "extra_body": {"temperature": 0.0},
           "tool_choice": {"type": "tool", "name": "weather"}}
    with anthropic.Anthropic(base_url=real.url, api_key="none", max_retries=0) as client:
        said = client.messages.create(**how)
        assert said.stop_reason == "tool_use"
        (block,) = [block for block in said.content if block.type == "tool_use"]
        check(block.input)
        with client.messages.stream(**how) as stream:
            final = stream.get_final_message()
        assert [b.input for b in final.content if b.type == "tool_use"] == [block.input]
        back = [*HI, {"role": "assistant", "content": said.content}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": block.id, "content": "Sunny."}, {"type": "text", "text": "So?"}]}]
        assert client.messages.create(model="small", messages=back, max_tokens=4, tools=[tool]).content
        assert client.messages.count_tokens(model="small", messages=HI, tools=[tool]).input_tokens > 40


@pytest.mark.model
def test_ollama_s_messages_take_calls_and_their_results(real):
    with ollama.Client(host=real.url, trust_env=False) as client:
        back = [*HI, {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {
            "city": "Rome", "days": 1}}}]}, {"role": "tool", "tool_name": "weather", "content": "Sunny."}]
        assert client.chat("small", back, tools=[WEATHER], options={"num_predict": 4}).done


FLAT = {"type": "function", **WEATHER["function"]}


@pytest.mark.model
def test_responses_call_whole_streamed_and_stored_and_take_results(client):
    how = {"model": "small", "max_output_tokens": 150, "temperature": 0.0, "tools": [FLAT],
           "tool_choice": {"type": "function", "name": "weather"}}
    first = client.responses.create(input="Hi", **how)
    assert [item.type for item in first.output] == ["function_call"]
    call = first.output[0]
    check(json.loads(call.arguments))
    assert (call.name, first.status, first.tools[0].name) == ("weather", "completed", "weather")
    with client.responses.stream(input="Hi", **how) as stream:
        found = list(stream)
    names = [event.type for event in found]
    assert "".join(e.delta for e in found if e.type == "response.function_call_arguments.delta") == call.arguments
    assert names.index("response.output_item.added") < names.index("response.function_call_arguments.delta")
    assert names[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    assert found[-1].response.output[0].arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    more = client.responses.create(model="small", input=[result], previous_response_id=first.id, tools=[FLAT],
                                   max_output_tokens=4, temperature=0.0)
    by_hand = client.responses.create(model="small", input=[{"role": "user", "content": "Hi"}, *first.output, result],
                                      tools=[FLAT], max_output_tokens=4, temperature=0.0)
    assert more.output_text == by_hand.output_text
    assert more.usage.input_tokens == by_hand.usage.input_tokens
    assert [item.type for item in client.responses.input_items.list(more.id)] == ["function_call_output"]


class Weather(pydantic.BaseModel):
    city: typing.Literal["Rome", "Oslo"]
    days: typing.Literal[1, 2]


@pytest.mark.model
def test_the_parse_helpers_read_calls(client):
    how = {"model": "small", "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0.0}
    tool = openai.pydantic_function_tool(Weather)
    chat = client.chat.completions.parse(messages=HI, max_tokens=150, tools=[tool], **how)
    assert isinstance(chat.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)
    response = client.responses.parse(input="Hi", max_output_tokens=150, tools=[tool], **how)
    assert isinstance(response.output[0].parsed_arguments, Weather)


@pytest.mark.parametrize(("item", "named"), [
    ({"type": "function_call", "name": "weather", "arguments": "{}"}, "call_id"),
    ({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "x"}]}, "image"),
    ({"type": "computer_call", "id": "x"}, "computer_call"), ({"type": "message", "content": "x"}, "role"),
    ({"role": "user", "content": "x", "arguments": "{}"}, "arguments"), ({"type": ["x"]}, "x"),
])
def test_items_that_cannot_be_are_a_400_that_names_what_is_wrong(server, item, named):
    answer = server.post("/v1/responses", {"model": "tiny", "input": [item]})
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


@pytest.mark.model
def test_responses_choose_among_allowed_tools(real):
    tools = [FLAT, {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}}]
    for mode, kinds in (("required", {"function_call"}), ("auto", {"function_call", "message"})):
        choice = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "time"}]}
        answer = real.post("/v1/responses", {"model": "small", "input": "Hi", "tools": tools, "tool_choice": choice,
                                               "max_output_tokens": 80, "seed": 2, "parallel_tool_calls": False})
        assert answer.status_code == 200, answer.text
        output = answer.json()["output"]
        assert {item["type"] for item in output} <= kinds
        assert {item.get("name", "time") for item in output} == {"time"}
