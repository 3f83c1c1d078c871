from __future__ import annotations

import threading

import pytest

from tenth.errors import ModelFileError, RequestError
from tenth.text import ChatTemplate, sandbox
from tests.text.vocabularies import Metadata

HI = [{"role": "user", "content": "hi"}]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
DOUBLE = "{% set ns = namespace(x=START) %}{% for i in range(27) %}{% set ns.x = STEP %}{% endfor %}"
MUCH, FIELDS, UNSAFE = "more text or data", "more than plain fields", "SecurityError"
# What each is stopped by: any other limit that strikes in its place strikes after the memory or the time is gone.
HOSTILE = {
    "nested loops": ("500000 steps", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
    "loops that pass over all": ("500000 steps", "{% for a in range(99999) if false %}{% endfor %}" * 6),
    "a long range": ("a range of more than", "{{ range(10**7) | list | length }}"),
    # More than any machine has, so that no limit behind it can strike.
    "multiplied text": (MUCH, "{{ ('a' * 10**15) | length }}"),
    "multiplied list": (MUCH, "{{ ([1] * 10**15) | length }}"),
    "doubling by ~": (MUCH, DOUBLE.replace("START", "'aaaa'").replace("STEP", "ns.x ~ ns.x")),
    "doubling by +": (MUCH, DOUBLE.replace("START", "'aaaa'").replace("STEP", "ns.x + ns.x")),
    "shared lists": (MUCH, DOUBLE.replace("START", "1").replace("STEP", "[ns.x, ns.x]")),
    "shared dicts": (MUCH, DOUBLE.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)")),
    "shared namespaces": ("a namespace", DOUBLE.replace("START", "1").replace("STEP", "namespace(a=ns.x, b=ns.x)")
                          + "{{ raise_exception(ns.x) }}"),
    "large numbers": ("4096 bits", DOUBLE.replace("START", "99999").replace("STEP", "ns.x * ns.x").replace("27", "18")),
    "a power": ("a power above", "{{ 9 ** 99999 > 1 }}"),
    "a recursive macro": ("too deeply", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "a wide format": ("a width above", "{{ '%100000000s' % 'a' }}"),
    "a wide brace format": (FIELDS, "{{ '{:100000000}'.format('a') }}"),
    "ljust": (UNSAFE, "{{ 'a'.ljust(10**8) }}"), "center": ("No filter", "{{ 'a' | center(100000000) }}"),
    "replace": (MUCH, "{% set a = 'a' * 10000 %}{{ a.replace('a', a) | length }}"),
    "searching": (MUCH, "{% set a = 'a' * 1000000 %}{% for i in range(999) %}{{ a.find('b') }}{% endfor %}"),
    "indent": ("more than 64", "{{ '\n' | indent(100000000) }}"),
    "indented lines": (MUCH, "{% set a = '\n' * 3000000 %}{{ (a | indent(64, blank=true)) | length }}"),
    "join": (MUCH, "{{ range(10000) | join('a' * 10000) | length }}"),
    "indented JSON": (MUCH, "{{ range(99999) | list | tojson(indent=16) }}"),
    "a set block": (MUCH, "{% set b = 'a' * 1000 %}{% set x %}{% for i in range(99999) %}{{ b }}{% endfor %}"
                    "{% endset %}"),
    "text in a set block": (MUCH, "{% set x %}{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}{% endset %}"),
    "printing": ("prints more than", "{% for i in range(99999) %}" + "x" * 99 + "{% endfor %}"),
    "deep nesting": ("too deeply", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"),
    "length": ("longer than", "x" * (2 << 20)),
    "classes": (UNSAFE, "{{ ''.__class__.__mro__ }}"),
    "format to classes": (FIELDS, "{{ '{0.__class__}'.format(1) }}"),
    "mapped classes": (FIELDS, "{% for f in ['{0.__class__}'] | map(attribute='format') %}{{ f(1) }}{% endfor %}"),
    "attr": ("No filter", "{{ '' | attr('__class__') }}"), "include": ("no loader", "{% include '/etc/passwd' %}"),
    "append": (UNSAFE, "{{ messages.append(1) }}"), "change": (UNSAFE, "{{ messages[0].update(a=1) }}"),
    "division": ("ZeroDivisionError", "{{ 1 / 0 }}"), "syntax": ("cannot be read", "{% for %}"),
    "undefined": ("UndefinedError", "{{ a.b.c }}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_by_the_limit_that_is_meant_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 60)  # a busy machine
    reason, source = HOSTILE[name]
    with pytest.raises((ModelFileError, RequestError), match="the chat template") as error:
        ChatTemplate(source, "a test").render(HI)
    assert reason in str(error.value)
    assert "--template FILE" in str(error.value)


def test_a_template_is_stopped_behind_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0)
    with pytest.raises(ModelFileError, match="it runs for more than 0 seconds"):
        ChatTemplate("{% for a in range(1000) %}{% endfor %}", "a test").render(HI)


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


@pytest.mark.parametrize(("token", "start", "after_system"), [
    ("<|im_start|>", "<|im_start|>user\n", "<|im_start|>system\nsys<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"),
    ("<start_of_turn>", "<start_of_turn>user\n", "<start_of_turn>user\nsys\n\nhi<end_of_turn>\n"),
    ("<|start_header_id|>", "<|start_header_id|>user<|end_header_id|>", "<|start_header_id|>system<|end_header_id|>\n\n"
     "sys<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"),
    ("x", "User: hi", "System: sys\nUser: hi\n")])
def test_a_file_without_template_gets_one_by_vocabulary_and_says_so(
    token: str, start: str, after_system: str
) -> None:
    template = ChatTemplate.from_metadata(Metadata({"tokenizer.ggml.tokens": [token]}))
    assert template.render(HI).startswith(start)
    assert "no chat template" in template.source
    assert template.render([{"role": "system", "content": "sys"}, *HI]).startswith(after_system)
    assert template.system_merged == (token == "<start_of_turn>")


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
