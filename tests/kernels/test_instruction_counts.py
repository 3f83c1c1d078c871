"""The kernels execute as many instructions as recorded (scripts/count_instructions.py), which no noise disturbs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tenth

SCRIPT = Path(__file__).parents[2] / "scripts" / "count_instructions.py"


def load_script():
    spec = importlib.util.spec_from_file_location("count_instructions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def test_the_kernels_execute_as_many_instructions_as_recorded():
    source = os.path.dirname(os.path.dirname(tenth.__file__))
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PYTHONPATH": source})
    if done.returncode == script.CANNOT:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_is_recorded_with_the_compiler_that_made_it():
    recorded = json.loads(script.RECORDED.read_text())
    assert set(recorded["counts"]) == {"/".join(map(str, case)) for case in script.CASES}
    assert recorded["compiler"].startswith(("GCC", "clang"))


def test_a_change_within_the_tolerance_is_none_and_one_beyond_it_is_told():
    assert script.changes({"a": 1029, "b": 971}, {"a": 1000, "b": 1000}) == []
    slower, faster = script.changes({"a": 1040, "b": 960}, {"a": 1000, "b": 1000})
    assert slower == "a: 1,040 instructions, 1,000 recorded (+4.0 %)"
    assert faster.endswith("(-4.0 %)")
    assert script.changes({"a": 1}, {"b": 1}) == ["a: never recorded", "b: not counted any more"]


def test_counts_of_another_compiler_are_not_compared(monkeypatch):
    monkeypatch.setattr(script.shutil, "which", lambda name: "/usr/bin/valgrind")
    assert "recorded with GCC 1" in script.reason_not_to({"compiler": "GCC 1"})
    assert script.reason_not_to({"compiler": script.compiler()}) == ""
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    assert script.reason_not_to({"compiler": "GCC 1"}) == "valgrind is not installed"
