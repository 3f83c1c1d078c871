from __future__ import annotations

import threading
import time

import pytest

from tenth.errors import ModelFileError, RequestError
from tenth.text import ChatTemplate, sandbox
from tests.text.vocabularies import Metadata

HI = [{"role": "user", "content": "hi"}]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
DOUBLE = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long range": "{% for a in range(10**9) %}{% endfor %}",
    "multiplied text": "{{ 'a' * 10**9 }}", "multiplied list": "{{ ([1] * 10**9) | length }}",
    "doubling by ~": DOUBLE.replace("START", "'aaaa'").replace("STEP", "ns.x ~ ns.x"),
    "doubling by +": DOUBLE.replace("START", "'aaaa'").replace("STEP", "ns.x + ns.x"),
    "shared lists": DOUBLE.replace("START", "1").replace("STEP", "[ns.x, ns.x]"),
    "shared dicts": DOUBLE.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)"),
    "shared namespaces": DOUBLE.replace("START", "1").replace("STEP", "namespace(a=ns.x, b=ns.x)").replace(
        "{{ ns.x }}", "{{ raise_exception(ns.x) }}"),
    "large numbers": DOUBLE.replace("START", "99999").replace("STEP", "ns.x * ns.x"),
    "a power": "{{ 9 ** 99999999 }}",
    "a recursive macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a wide format": "{{ '%1000000000s' % 'a' }}", "a wide brace format": "{{ '{:1000000000}'.format('a') }}",
    "ljust": "{{ 'a'.ljust(10**9) }}", "center": "{{ 'a' | center(1000000000) }}",
    "replace": "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}", "indent": "{{ '\n' | indent(1000000000) }}",
    "join": "{{ range(100000) | join('a' * 100000) }}", "a set block": "{% set b = 'a' * 100000 %}{% set x %}"
    "{% for i in range(99999) %}{{ b }}{% endfor %}{% endset %}", "printing": "{% for i in range(99999) %}" + "x" * 999
    + "{% endfor %}", "deep nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "length": "x" * (2 << 20),
    "classes": "{{ ''.__class__.__mro__ }}", "format to classes": "{{ '{0.__class__}'.format(1) }}",
    "mapped classes": "{% for f in ['{0.__class__}'] | map(attribute='format') %}{{ f(1) }}{% endfor %}",
    "attr": "{{ '' | attr('__class__') }}", "include": "{% include '/etc/passwd' %}",
    "append": "{{ messages.append(1) }}",
    "change": "{{ messages[0].update(a=1) }}", "division": "{{ 1 / 0 }}", "syntax": "{% for %}",
    "undefined": "{{ a.b.c }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_in_time_with_a_hint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises((ModelFileError, RequestError), match="the chat template") as error:
        ChatTemplate(HOSTILE[name], "a test").render(HI)
    assert time.monotonic() - start < 30  # a busy machine; without limits it would be never
    assert "--template FILE" in str(error.value)


def test_templates_run_off_the_calling_thread() -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert ChatTemplate(CHATML, "a test").render(HI) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert [thread.name for thread in threading.enumerate()] == names


def test_what_templates_expect_is_there() -> None:
    text = ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
            "{% if ns.n > 1 %}{% break %}{% endif %}"
            "{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}\n"
            "{{ tools | tojson(indent=1) }}{{ bos_token }}{{ strftime_now('%Y') | length }}"
            "{{ documents is none }}{{ x }}")
    metadata = Metadata({"tokenizer.chat_template": text, "tokenizer.ggml.tokens": ["<s>"],
                         "tokenizer.ggml.bos_token_id": 0})
    prompt = ChatTemplate.from_metadata(metadata).render([*HI, *HI], tools=[{"é": "<"}], extra={"x": 7})
    assert prompt == 'hi[\n {\n  "é": "<"\n }\n]<s>4True7'


def test_a_conversation_of_a_megabyte_renders() -> None:
    messages = [{"role": "user", "content": "word " * 1000}] * 200
    assert len(ChatTemplate(CHATML, "a test").render(messages)) > 1_000_000


def test_a_conversation_that_no_template_may_print_is_refused_without_blaming_the_template() -> None:
    with pytest.raises(RequestError, match="conversation has 5000000 characters, expected at most 4194304") as error:
        ChatTemplate(CHATML, "a test").render([{"role": "user", "content": "hello" * 1_000_000}])
    assert error.value.hint == "shorten it"


def test_a_refused_system_message_joins_the_first_user_message() -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template = ChatTemplate(refusal + CHATML, "t")
    assert "user\nBe brief\n\nhi<" in template.render([{"role": "system", "content": "Be brief"}, *HI])
    assert template.system_merged
    template.render(HI)
    assert not template.system_merged


def test_the_templates_own_reason_is_told() -> None:
    with pytest.raises(RequestError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}", "t").render(HI)


@pytest.mark.parametrize(("token", "start"), [
    ("<|im_start|>", "<|im_start|>user\n"), ("<start_of_turn>", "<start_of_turn>user\n"),
    ("<|start_header_id|>", "<|start_header_id|>user<|end_header_id|>"), ("x", "User: hi")])
def test_a_file_without_template_gets_one_by_vocabulary_and_says_so(token: str, start: str) -> None:
    template = ChatTemplate.from_metadata(Metadata({"tokenizer.ggml.tokens": [token]}))
    assert template.render(HI).startswith(start)
    assert "no chat template" in template.source
    assert "sys\n\nhi" in template.render([{"role": "system", "content": "sys"}, *HI]) or not template.system_merged


def test_variants_and_overrides_are_chosen_by_name() -> None:
    metadata = Metadata({"tokenizer.chat_template": "plain", "tokenizer.chat_template.tool_use": "tools"})
    assert ChatTemplate.from_metadata(metadata, name="tool_use").render(HI) == "tools"
    assert ChatTemplate.from_metadata(metadata, "mine").render(HI) == "mine"
    with pytest.raises(RequestError, match="tool_use"):
        ChatTemplate.from_metadata(metadata, name="rag")


def test_no_thinking_is_asked_for_by_switch_or_by_an_empty_thought() -> None:
    switch = ChatTemplate("{% if enable_thinking is defined and not enable_thinking %}off{% endif %}<think>", "t")
    assert switch.has_switch
    assert switch.render(HI, thinking=False) == "off<think>\n</think>\n\n"
    assert switch.render(HI, thinking=True) == switch.render(HI) == "<think>"
    without = ChatTemplate("{{ messages[0].content.split('</think>')[-1] }}{# thinking <think> #}", "t")
    assert not without.has_switch
    assert without.render(HI, thinking=False) == "hi<think>\n\n</think>\n\n"
    assert ChatTemplate("plain", "t").render(HI, thinking=False) == "plain"
