"""Groups of flags: every engine setting is a flag, with the same default and sentence."""

from dataclasses import dataclass, fields

import pytest

from tenth.cli import commands
from tenth.cli.flags import SHORT, bias, expand, flag, load_settings
from tenth.config import EngineConfig, settings
from tenth.errors import RequestError

WITH_ENGINE = ("ask", "run", "chat", "bench", "inspect")


@pytest.mark.parametrize("command", WITH_ENGINE)
def test_every_engine_setting_is_a_flag_with_its_default_and_sentence(command):
    params = {p.name: p for p in commands.build(command).params}
    for name, default, sentence in settings():
        option = params[name]
        assert option.default == default
        assert option.help == sentence
        assert f"--{name.replace('_', '-')}" in option.opts + option.secondary_opts
        assert f"--{SHORT.get(name, name).replace('_', '-')}" in option.opts


def test_engine_flags_reach_load_under_the_names_it_takes(tenth, model):
    tenth("run", "m", "hi", "--threads", "3", "--context", "512", "--kv", "q8_0", "--no-prefix-reuse",
          "--prefill", "expanded")
    given = model.loads[-1][1]
    assert given == {"threads": 3, "context": 512, "kv": "q8_0", "prefill": "expanded", "chunk_tokens": 0,
                     "max_sequences": 8, "kv_tokens": 0, "prefix_reuse": False, "memory": 0, "disk": "auto",
                     "predict_experts": True,
                     "lossy_drop": 0.0, "lossy_prefer": 0.0, "speculate": True, "note_experts": False}


def test_long_and_short_names_of_a_setting_are_the_same(tenth, model):
    tenth("run", "m", "hi", "--context-tokens", "512", "--kv-format", "q8_0")
    assert model.loads[-1][1]["context"] == 512
    assert model.loads[-1][1]["kv"] == "q8_0"


def test_load_settings_name_every_field():
    assert len(load_settings(EngineConfig())) == len(fields(EngineConfig))


def test_a_group_of_flags_comes_back_as_one_object():
    @dataclass(frozen=True)
    class Colour:
        red: int = flag(1, "How red.")
        loud: bool = flag(False, "Whether loud.")

    def command(name: str, colour: Colour) -> object:
        return name, colour

    command.__annotations__ = {"name": str, "colour": Colour}
    assert expand(command)(name="x", red=5, loud=True) == ("x", Colour(5, True))


def test_a_command_without_groups_is_left_as_it_is():
    def command(name: str) -> None: ...

    assert expand(command) is command


@pytest.mark.parametrize(("text", "pair"), [("5=1", (5, 1.0)), ("0=-2.5", (0, -2.5)), ("7=1e3", (7, 1000.0))])
def test_a_bias_is_read(text, pair):
    assert bias(text) == pair


@pytest.mark.parametrize("text", ["", "5", "=1", "a=1", "-1=1", "5=", "5=x", "5=nan", "5=inf", "1.5=1"])
def test_a_bias_that_is_none_is_refused(text):
    with pytest.raises(RequestError):
        bias(text)
