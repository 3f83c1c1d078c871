"""Thinking from end to end: template, native model and streams, on the tiny chat model.

The tiny model's words mean nothing, so either the template opens the thought, or a script puts words in its mouth.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tenth
from tenth.config import EngineConfig
from tenth.loader import open_runtime
from tenth.model import Model
from tenth.text import FAMILIES
from tenth.text.model_text import read_text
from tenth.weights.gguf import read_header

FILE = Path(__file__).parents[1] / "data" / "golden_chat.gguf"
TURN = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}")
PROMPT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n"  # as OPENING renders the question
OPENING = TURN + "{{ '<think>\n' }}"  # the template begins the thought
ABLE = TURN + "{# the model itself may begin with <think> #}"
QUESTION = [{"role": "user", "content": "Why?"}]
CLOSING = "\n</think>\n\n"
GREEDY = {"temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def opened():
    with tenth.load(FILE, template=OPENING, threads=1) as model:
        yield model


def ids_of(model, text):
    return model.tokenizer.encode(text, special=False, parse_special=True)


@pytest.mark.parametrize("budget", [1, 4])
def test_a_spent_budget_closes_the_thought_and_the_answer_goes_on_from_there(opened, budget):
    stream = opened.chat(QUESTION, thinking_budget=budget, max_tokens=30, **GREEDY)
    thought = [choice.token for choice in stream.logprobs][:budget]
    prompt = ids_of(opened, PROMPT)
    assert stream.usage.prompt_tokens == len(prompt)
    assert stream.thinking == opened.tokenizer.decode(thought).strip("\n")
    seen = [*prompt, *thought, *ids_of(opened, CLOSING)]
    n_left = 30 - (len(seen) - len(prompt))
    assert stream.text == opened.generate(seen, max_tokens=n_left, **GREEDY).text.lstrip("\n")
    assert stream.usage.completion_tokens == 30


def test_no_budget_never_closes_and_nothing_of_thinking_is_lost(opened):
    stream = opened.chat(QUESTION, max_tokens=12, **GREEDY)
    kinds = {piece.kind for piece in stream}
    assert kinds == {"thinking"}
    assert stream.text == ""


def test_a_budget_of_zero_closes_the_thought_in_the_prompt(opened):
    stream = opened.chat(QUESTION, thinking_budget=0, max_tokens=6, **GREEDY)
    free = opened.chat(QUESTION, max_tokens=6, **GREEDY)
    assert (stream.thinking, free.text) == ("", "")
    assert stream.text
    assert stream.usage.prompt_tokens == free.usage.prompt_tokens + len(ids_of(opened, CLOSING))


def test_no_think_asks_for_an_answer_at_once(opened):
    stream = opened.chat(QUESTION, think=False, max_tokens=6, **GREEDY)
    assert stream.thinking == ""
    assert stream.text


class Scripted:
    """A runtime whose first choices are given; computes everything as the real one and notes what it was fed."""

    runs_ahead = False

    def __init__(self, runtime, script):
        self.runtime, self.script, self.fed = runtime, list(script), []

    def __getattr__(self, name):
        return getattr(self.runtime, name)

    def step(self, batch):
        result = self.runtime.step(batch)
        self.fed += batch.tokens.tolist()
        if len(result.tokens) and self.script:
            result = replace(result, tokens=np.array([self.script.pop(0)], np.int32))
        return result


@pytest.fixture
def scripted():
    header, config = read_header(FILE), EngineConfig(threads=1, speculate=False)  # one choice a step
    opened = []

    def open_with(*script, template=ABLE):
        text = read_text(header.metadata, template)
        ids = [i for part in script for i in text.tokenizer.encode(part, special=False, parse_special=True)]
        loaded = open_runtime(header, config)
        loaded = replace(loaded, runtime=Scripted(loaded.runtime, ids))
        opened.append(Model(loaded, config, text))
        return opened[-1]

    yield open_with
    for model in opened:
        model.close()


def test_a_model_that_thinks_by_itself_is_separated_and_ends_its_own_thought(scripted):
    model = scripted("<think>\nwhy not\n</think>\n\nBecause.<|im_end|>")
    stream = model.chat(QUESTION, thinking_budget=1000)
    assert "".join(stream) == "why notBecause."
    assert (stream.thinking, stream.text, stream.finish_reason) == ("why not", "Because.", "stop")


def test_a_model_that_thinks_too_long_is_stopped_in_order_and_answers(scripted):
    model = scripted("<think>", "abcdef", "Because.<|im_end|>")
    n_open, n_thought = len(ids_of(model, "<think>")), len(ids_of(model, "abcdef"))
    # The opening mark counts from the token that completes it.
    stream = model.chat(QUESTION, thinking_budget=n_thought + 1)
    assert (stream.thinking, stream.text, stream.finish_reason) == ("abcdef", "Because.", "stop")
    expected = [ids_of(model, text) for text in ("<think>", "abcdef", CLOSING, "Because.")]
    fed = model.loaded.runtime.fed[stream.usage.prompt_tokens:]
    assert fed == [i for part in expected for i in part]
    assert stream.usage.completion_tokens == len(fed) + 1  # and the end token
    assert len(stream.logprobs) == n_open + n_thought + len(expected[3])  # forced tokens were not chosen


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_budget_that_ends_inside_a_closing_mark_completes_it(scripted, family):
    for n_begun in range(1, len(family.closing)):
        begun, rest = family.closing[:n_begun], family.closing[n_begun:]
        model = scripted(family.opening, "ab ", begun, "Because.<|im_end|>", template=f"{TURN}{{# {family.opening} #}}")
        stream = model.chat(QUESTION, thinking_budget=len(ids_of(model, "ab ") + ids_of(model, begun)) + 1)
        assert (stream.thinking, stream.text, stream.finish_reason) == ("ab ", "Because.", "stop")
        fed = model.loaded.runtime.fed[stream.usage.prompt_tokens:]
        expected = (family.opening, "ab ", begun, rest, family.closing_text.partition(family.closing)[2], "Because.")
        assert fed == [i for part in expected for i in ids_of(model, part)]


def test_a_budget_that_ends_behind_what_is_no_mark_leaves_it_in_the_thought(scripted):
    snowman = "\N{SNOWMAN}"
    for thought, n_cut, told in (("a </thi ", 0, "a </thi "), (f"a </th{snowman}", 1, "a </th\ufffd")):
        model = scripted("<think>", thought, template=ABLE)
        n_thought = len(ids_of(model, thought)) - n_cut  # the second time in the middle of a character
        model.loaded.runtime.script[len(ids_of(model, "<think>")) + n_thought :] = ids_of(model, "Because.<|im_end|>")
        stream = model.chat(QUESTION, thinking_budget=n_thought + 1)
        assert (stream.thinking, stream.text) == (told, "Because.")


# What gpt-oss's own template uses and does, in little.
HARMONY = """{%- macro system() -%}
    {%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif %}
    {{- "Date: " + strftime_now("%Y-%m-%d") + "\\nReasoning: " + reasoning_effort }}
    {%- if builtin_tools %}{{- "# Tools" }}{%- endif %}
    {{- "\\n# Valid channels: analysis, commentary, final." }}
{%- endmacro -%}
{{- "<|start|>system<|message|>" + system() + "<|end|>" }}
{%- for m in messages -%}
    {%- if m.role == "assistant" -%}
        {%- if "<|channel|>analysis<|message|>" in m.content %}{{- raise_exception("marks in content") }}{%- endif %}
        {{- "<|start|>assistant<|channel|>final<|message|>" + m.content + "<|end|>" }}
    {%- else -%}
        {{- "<|start|>" + m.role + "<|message|>" + m.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""
ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"


def test_the_analysis_of_harmony_is_thinking_and_its_final_channel_the_answer(scripted):
    model = scripted(f"{ANALYSIS}why not<|end|><|start|>assistant{FINAL}Because.<|im_end|>", template=HARMONY)
    stream = model.chat(QUESTION, think=True)
    assert (stream.thinking, stream.text, stream.finish_reason) == ("why not", "Because.", "stop")


def test_a_spent_budget_ends_the_analysis_and_opens_the_final_channel(scripted):
    model = scripted(ANALYSIS, "abcdef", "Because.<|im_end|>", template=HARMONY)
    stream = model.chat(QUESTION, thinking_budget=len(ids_of(model, "abcdef")) + 1)
    assert (stream.thinking, stream.text, stream.finish_reason) == ("abcdef", "Because.", "stop")
    fed = model.loaded.runtime.fed[stream.usage.prompt_tokens:]
    expected = (ANALYSIS, "abcdef", "<|end|><|start|>assistant" + FINAL, "Because.")
    assert fed == [i for part in expected for i in ids_of(model, part)]


@pytest.mark.parametrize("how", [{"think": False}, {"reasoning_effort": "none"}])
def test_without_thinking_harmony_answers_in_the_final_channel_at_once(scripted, how):
    model = scripted("Because.<|im_end|>", template=HARMONY)
    stream = model.chat(QUESTION, **how)
    assert (stream.thinking, stream.text) == ("", "Because.")
    prompt = model.tokenizer.decode(model.loaded.runtime.fed[: stream.usage.prompt_tokens])
    assert prompt.endswith("<|start|>user<|message|>Why?<|end|><|start|>assistant" + FINAL)


def test_a_budget_of_zero_ends_an_analysis_as_it_begins(scripted):
    model = scripted(ANALYSIS, "Because.<|im_end|>", template=HARMONY)
    stream = model.chat(QUESTION, thinking_budget=0)
    assert (stream.thinking, stream.text) == ("", "Because.")


def test_a_template_that_opens_the_final_channel_itself_is_left_alone(scripted):
    model = scripted("Because.<|im_end|>", template=HARMONY.replace("assistant\n{%", f"assistant{FINAL}\n{{%"))
    stream = model.chat(QUESTION, think=False)
    prompt = model.tokenizer.decode(model.loaded.runtime.fed[: stream.usage.prompt_tokens])
    assert prompt.count(FINAL) == 1


def test_the_word_for_how_much_to_think_reaches_harmony(scripted):
    model = scripted("Because.<|im_end|>", template=HARMONY)
    stream = model.chat(QUESTION, reasoning_effort="high")
    assert "Reasoning: high" in model.tokenizer.decode(model.loaded.runtime.fed[: stream.wait().usage.prompt_tokens])
