"""The native core against logits that transformers computed in float64, see scripts/make_goldens.py."""

import pytest

from tests.golden_files import FLOAT, QUANTISED, nmse
from tests.runtime.native import all_logits, golden, open_golden


@pytest.mark.parametrize("case", FLOAT)
def test_a_float_model_gives_the_reference_logits(case):
    expected = golden(case)
    logits = all_logits(open_golden(case, kv_format="f32"), expected["tokens"])
    assert nmse(logits, expected["logits"]) <= 1e-11
    assert (logits.argmax(-1) == expected["logits"].argmax(-1)).all()


@pytest.mark.parametrize("case", QUANTISED)
def test_a_quantised_model_gives_the_logits_of_rounded_activations(case):
    expected = golden(case)
    logits = all_logits(open_golden(case, kv_format="f32"), expected["tokens"])
    # Values near a rounding boundary go the other way in float32 than in the reference's float64.
    assert nmse(logits, expected["logits_q8"]) <= 2e-5


@pytest.mark.parametrize(("kv_format", "bound"), [("f16", 1e-5), ("q8_0", 1e-3)])
def test_rounded_keys_and_values_stay_near_the_reference(kv_format, bound):
    expected = golden("qwen3")
    logits = all_logits(open_golden("qwen3", kv_format=kv_format), expected["tokens"])
    assert nmse(logits, expected["logits"]) <= bound
