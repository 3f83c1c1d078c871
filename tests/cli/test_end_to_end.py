"""The command line with the real engine on a tiny model, nothing stood in for."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tenth.bench import limits

DATA = Path(__file__).parents[1] / "data"
CHAT = DATA / "golden_chat.gguf"
COMMAND = [sys.executable, "-m", "tenth"]
GREEDY = ("--temperature", "0", "--max-tokens", "12")


def test_the_flags_of_sampling_are_the_settings_of_sampling():
    import tenth
    from tenth.cli.flags import SamplingFlags

    assert [f.name for f in fields(SamplingFlags)] == [f.name for f in fields(tenth.SamplingParams)]


def test_run_answers_and_says_the_same_as_the_python_api(tenth):
    import tenth as package

    printed = tenth("run", CHAT, "Hi", *GREEDY)
    assert (printed.code, printed.err) == (0, "")
    with package.load(CHAT) as model:
        stream = model.chat([{"role": "user", "content": "Hi"}], temperature=0.0, max_tokens=12)
        assert "".join(stream) == stream.text
        said = stream.text
    result = json.loads(tenth("run", CHAT, "Hi", *GREEDY, "--json").out)
    assert result["text"] == said
    assert printed.out.rstrip("\n") == said.rstrip("\n")
    assert result["usage"]["cached_tokens"] == 0
    assert 0 < result["usage"]["completion_tokens"] <= 12
    assert result["usage"]["prompt_tokens"] > 2
    assert result["timings"]["load_s"] > 0
    assert result["timings"]["first_token_s"] > 0
    assert result["memory"]["peak_bytes"] > result["memory"]["weights_bytes"] > 0


def test_piped_text_and_argument_give_the_same_prompt(tenth):
    def tokens(*args, **how):
        return json.loads(tenth("run", CHAT, *args, *GREEDY, "--json", **how).out)["usage"]["prompt_tokens"]

    assert tokens("a b") == tokens(stdin="a b\n")
    assert tokens("a:", stdin="b") == tokens("a:\n\nb")


def test_raw_text_is_continued_without_a_template(tenth):
    plain = json.loads(tenth("run", CHAT, "the user", *GREEDY, "--raw", "--json").out)
    chat = json.loads(tenth("run", CHAT, "the user", *GREEDY, "--json").out)
    assert plain["usage"]["prompt_tokens"] < chat["usage"]["prompt_tokens"]


def test_a_seed_gives_the_same_text_and_logprobs_are_listed(tenth):
    args = ("run", CHAT, "Hi", "--seed", "5", "--temperature", "1.5", "--max-tokens", "8", "--top-logprobs", "2",
            "--json")
    first, second = json.loads(tenth(*args).out), json.loads(tenth(*args).out)
    assert first["text"] == second["text"]
    assert first["logprobs"] == second["logprobs"]
    n_ends = int(first["finish_reason"] == "stop")  # the token that ends an answer is counted, and is no part of it
    assert len(first["logprobs"]) == first["usage"]["completion_tokens"] - n_ends


def test_tokenize_gives_the_reference_s_ids(tenth):
    golden = np.load(CHAT.with_suffix(".npz"))
    result = tenth("tokenize", CHAT, "--json", "--parse-special", "--no-special", stdin=str(golden["text"]))
    assert json.loads(result.out)["ids"] == golden["tokens"].tolist()


def test_chat_keeps_the_conversation(tenth, tmp_path):
    file = tmp_path / "talk.json"
    result = tenth("chat", CHAT, *GREEDY, stdin=f"Hi\nAnd you?\n/save {file}\n/stats\n/nope\n")
    assert result.code == 0
    assert len(json.loads(file.read_text())["messages"]) == 4
    assert "prompt tokens" in result.err
    assert "there is no command /nope" in result.err


@pytest.mark.parametrize(("name", "code"), [("none.gguf", 2), ("cut.gguf", 3), ("text.gguf", 3)])
def test_files_that_cannot_be_used_are_refused_in_two_lines(tenth, tmp_path, name, code):
    (tmp_path / "cut.gguf").write_bytes(CHAT.read_bytes()[:200_000])
    (tmp_path / "text.gguf").write_text("hello")
    result = tenth("run", tmp_path / name, "Hi")
    assert (result.code, result.out) == (code, "")
    assert 1 <= len(result.err.splitlines()) <= 2


def test_ctrl_c_while_waiting_for_input_ends_with_130_and_one_line(shell_env):
    process = subprocess.Popen([*COMMAND, "tokenize", str(CHAT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=shell_env)
    process.stdin.write(b"word " * 40_000)  # more than a pipe holds: it has begun to read, and waits for the end
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out, err) == (130, b"", b"tenth: interrupted\n")


def test_inspect_shows_program_profile_and_kernels(tenth):
    assert "embed" in tenth("inspect", CHAT, "--program").out
    assert json.loads(tenth("inspect", CHAT, "--program", "--json").out)["program"][0]["op"]
    profile = tenth("inspect", CHAT, "--profile", "--profile-tokens", "4")
    assert (profile.code, profile.err) == (0, "")
    assert "the instructions explain " in profile.out
    assert " of weights in " in profile.out.splitlines()[1]
    kernels = json.loads(tenth("inspect", "--kernels", "--json").out)
    assert kernels["isa"] in kernels["isas"]
    assert {"F32", "Q4_0", "Q4_K", "Q8_0"} <= {row["format"] for row in kernels["formats"]}
    assert "used" in tenth("inspect", "--kernels").out


def test_bench_measures_the_real_engine(tenth, monkeypatch):
    monkeypatch.setattr(limits, "buffer_bytes", lambda *_: 16 << 20)
    result = tenth("bench", CHAT, "--json", "--repetitions", "1", "--prompt-tokens", "32", "--generate-tokens", "8")
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    assert figures["prompt"]["tokens_per_second"]["median"] > 0
    assert 0 < figures["generation"]["weight_bytes_per_token"] < CHAT.stat().st_size
    assert figures["generation"]["share_of_read"] > 0


def test_readme_s_python_runs_as_written(monkeypatch, capsys):
    import tenth

    load = tenth.load
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL):
        exec(compile(block.replace('"smollm2:135m"', repr(str(CHAT))), "README.md", "exec"), {"load": load})
    assert "Usage(" in capsys.readouterr().out


ALONE = """
import sys
from tenth.cli.main import main

def refuse(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(refuse)  # sees what any library asks Python for
sys.exit(main(sys.argv[1:]))
"""


def test_an_answer_opens_no_socket_and_starts_no_program(shell_env):
    done = subprocess.run([sys.executable, "-c", ALONE, "run", str(CHAT), "Hi", *GREEDY], env=shell_env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    asked = subprocess.run([sys.executable, "-c", ALONE, "run", "https://localhost:9/x.gguf", "Hi"], env=shell_env,
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "socket." in asked.stderr, "the hook does not see sockets"


def test_the_command_line_hides_thinking_in_a_pipe_and_shows_it_on_request(tenth, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0].content }}{{ '\\n<think>\\n' }}")
    args = ("run", CHAT, "Why?", "--template", template, "--thinking-budget", "3", "--temperature", "0",
            "--max-tokens", "30", "--ignore-eos", "--threads", "1")
    whole = json.loads(tenth(*args, "--json").out)
    assert whole["thinking"]
    assert whole["text"]
    assert tenth(*args).out.rstrip("\n") == whole["text"].rstrip("\n")
    shown = tenth(*args, "--show-thinking").out
    assert shown.startswith(whole["thinking"])
    assert shown.rstrip("\n").endswith(whole["text"].rstrip("\n"))
