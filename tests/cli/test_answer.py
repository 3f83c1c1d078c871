"""ask and run: prompts, what is printed where, and the JSON object."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.moe_file import write_moe

from .fake import Piece

THINKING = [Piece("Hm, ", "thinking"), Piece("light.", "thinking"), Piece("\n\nBlue."), Piece("\n")]


def prompt_of(model):
    return model.asked[-1][1][-1]["content"]


def test_ask_prints_the_answer_and_ends_the_line(tenth, model):
    result = tenth("ask", "Why", "blue?")
    assert (result.code, result.out, result.err) == (0, "It is Rayleigh scattering.\n", "")
    assert prompt_of(model) == "Why blue?"
    assert model.closed == 1


def test_ask_uses_the_default_model_unless_another_is_named(tenth, model):
    from tenth.library import DEFAULT_MODEL

    tenth("ask", "x")
    tenth("ask", "x", "--model", "other:7b")
    assert [name for name, _ in model.loads] == [DEFAULT_MODEL, "other:7b"]


def test_the_prompt_is_the_argument_or_what_is_piped_or_both(tenth, model):
    tenth("run", "m", "hello")
    assert prompt_of(model) == "hello"
    tenth("run", "m", stdin="piped\ntext\n")
    assert prompt_of(model) == "piped\ntext"
    tenth("run", "m", "Summarise:", stdin="long\n")
    assert prompt_of(model) == "Summarise:\n\nlong"


def test_what_is_piped_into_bare_tenth_is_a_question(tenth, model):
    assert tenth(stdin="Why?").out == "It is Rayleigh scattering.\n"
    assert prompt_of(model) == "Why?"


@pytest.mark.parametrize("args", [("ask",), ("run", "m"), ("run", "m", "  "), ("ask", "")])
def test_no_prompt_is_refused_before_anything_is_loaded(tenth, model, args):
    result = tenth(*args)
    assert result.code == 2
    assert "there is no" in result.err
    assert model.loads == []


def test_input_that_is_not_utf8_is_refused_with_its_place(tenth, model):
    result = tenth("run", "m", stdin=b"caf\xe9")
    assert result.code == 2
    assert "byte 0xe9 at position 3" in result.err
    assert model.loads == []


def test_an_argument_that_is_not_utf8_is_refused(tenth, model):
    assert tenth("run", "m", "caf\udce9").code == 2


def test_json_is_one_object_with_everything(tenth, model):
    model.pieces = THINKING
    result = tenth("run", "m", "hi", "--json")
    assert json.loads(result.out) == {
        "model": "fake:1b", "text": "\n\nBlue.\n", "thinking": "Hm, light.", "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 0, "thinking_tokens": 0},
        "timings": {"load_s": 0.5, "first_token_s": 0.25, "prompt_tokens_per_second": 100.0,
                    "generated_tokens_per_second": 40.0},
        "speculation": {"drafted": 7, "accepted": 5, "steps": 4},
        "memory": {"peak_bytes": 5_000_000, "weights_bytes": 4_000_000, "kv_bytes": 1_000_000,
                   "workspace_bytes": 1000},
    }
    assert result.err == ""


def test_thinking_is_left_out_of_a_pipe_unless_asked_for(tenth, model):
    model.pieces = THINKING
    assert tenth("run", "m", "hi").out == "\n\nBlue.\n"
    assert tenth("run", "m", "hi", "--show-thinking").out == "Hm, light.\n\nBlue.\n"


def test_sampling_flags_reach_the_model_and_nothing_else_does(tenth, model):
    tenth("run", "m", "hi", "--temperature", "0.5", "--top-k", "0", "--seed", "7", "--stop", "a", "--stop", "b",
          "--logit-bias", "5=-1.5", "--max-tokens", "9")
    assert model.asked[-1][2] == {
        "think": None, "thinking_budget": None, "temperature": 0.5, "top_k": 0, "seed": 7, "stop": ["a", "b"],
        "logit_bias": {5: -1.5}, "max_tokens": 9,
    }


def test_system_and_thinking_reach_the_model(tenth, model):
    tenth("run", "m", "hi", "--system", "Be brief.", "--think", "--thinking-budget", "20")
    how, messages, settings = model.asked[-1]
    assert how == "chat"
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert (settings["think"], settings["thinking_budget"]) == (True, 20)


def test_raw_continues_the_text(tenth, model):
    tenth("run", "m", "Once upon", "--raw")
    assert model.asked[-1][:2] == ("generate", "Once upon")


def test_a_template_file_is_passed_as_text(tenth, model, tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    tenth("run", "m", "hi", "--template", file)
    assert model.loads[-1][1]["template"] == "{{ messages }}"
    assert tenth("run", "m", "hi", "--template", tmp_path / "none").code == 2


@pytest.mark.parametrize("flags", [
    ("--raw", "--system", "x"), ("--raw", "--think"), ("--no-think", "--thinking-budget", "3"),
    ("--top-logprobs", "3"), ("--logit-bias", "x=1"), ("--logit-bias", "5"), ("--logit-bias", "5=nan"),
    ("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "2"), ("--max-tokens", "0"), ("--kv", "q9"),
    ("--threads", "-1"), ("--seed", "-1"), ("--presence-penalty", "inf"),
])
def test_flags_that_make_no_sense_are_refused_before_anything_is_loaded(tenth, model, flags):
    result = tenth("run", "m", "hi", *flags)
    assert result.code == 2
    assert len(result.err.splitlines()) <= 2
    assert model.loads == []


def test_ctrl_c_cancels_the_answer_and_gives_130(tenth, model):
    model.pieces = [Piece("It is"), KeyboardInterrupt()]
    result = tenth("run", "m", "hi")
    assert (result.code, result.err) == (130, "tenth: interrupted\n")
    assert model.streams[0].cancelled
    assert model.closed == 1


def in_terminal(code, env):
    """What ``python -c code`` writes to a terminal."""
    reading, writing = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", code], stdin=writing, stdout=writing, stderr=writing, env=env)
    os.close(writing)
    out = b""
    while True:
        try:
            chunk = os.read(reading, 65536)
        except OSError:
            break
        if not chunk:
            break
        out += chunk
    os.close(reading)
    done.wait()
    return out.decode().replace("\r\n", "\n")


SHOW = """
from tenth.cli.answer import show_stream
class Piece(str):
    kind = "content"
thought = Piece("Hm."); thought.kind = "thinking"
show_stream([thought, Piece("Blue \\x1b[31m")], True)
"""


def test_a_terminal_gets_dimmed_thinking_and_no_control_characters(shell_env):
    env = {k: v for k, v in shell_env.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    assert in_terminal(SHOW, env) == "\x1b[2mHm.\x1b[0m\n\nBlue ␛[31m\n"


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_gets_none(shell_env, plain):
    assert in_terminal(SHOW, shell_env | {"TERM": "xterm"} | plain) == "Hm.\n\nBlue ␛[31m\n"


def test_an_answer_can_be_kept_to_a_schema_an_expression_or_a_grammar(tenth, model, tmp_path):
    schema, lark = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "integer"}')
    lark.write_text('start: "a"')
    cases = {"json_schema": ("--json-schema", schema), "lark": ("--grammar", lark), "regex": ("--regex", "a+")}
    for kind, args in cases.items():
        assert tenth("run", "m", "x", *map(str, args)).code == 0
        assert model.asked[-1][2]["response_format"].kind == kind
    assert tenth("ask", "x", "--raw", "--regex", "a").code == 0
    assert model.asked[-1][2]["grammar"].text == "a"


@pytest.mark.parametrize(
    "args", [("--regex", "a", "--json-schema", "x"), ("--json-schema", "/no/such"), ("--regex", "")])
def test_a_grammar_that_cannot_be_had_is_refused_before_anything_is_loaded(tenth, model, args):
    assert tenth("run", "m", "x", *args).code == 2
    assert not model.loads


def test_a_schema_that_is_no_json_is_refused(tenth, model, tmp_path):
    (tmp_path / "s").write_text("{nonsense")
    result = tenth("run", "m", "x", "--json-schema", str(tmp_path / "s"))
    assert result.code == 2
    assert "cannot be read" in result.err


def test_what_streaming_experts_costs_is_told_beside_the_answer(tenth, tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_STREAM", "1")
    result = tenth("run", write_moe(tmp_path / "moe.gguf"), "Why?", "--max-tokens", 3, "--raw")
    assert result.code == 0
    assert "were in memory when needed" in result.err
    assert "computing" in result.err
    assert "in memory" not in result.out
