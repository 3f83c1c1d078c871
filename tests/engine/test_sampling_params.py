import numpy as np
import pytest

from tenth import RequestError, SamplingParams
from tenth.errors import ModelFileError
from tenth.library.catalogue import CATALOGUE, published_sampling
from tenth.library.resolving import interpret
from tenth.sampling import make_params, recommended


class Metadata:
    """Behaves as tenth.weights.gguf.Metadata does for the two getters used."""

    def __init__(self, **values):
        self.values = values

    def get_float(self, key, default=None, low=None, high=None):
        value = self.values.get(key.split(".")[-1], default)
        if not low <= value <= high:
            raise ModelFileError(f"{key} is {value}")
        return value

    get_int = get_float


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", 101), ("temperature", float("nan")), ("temperature", "hot"),
        ("temperature", True), ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_p", 0), ("top_p", 1.1),
        ("min_p", -1), ("min_p", 2), ("repetition_penalty", 0), ("presence_penalty", 11),
        ("frequency_penalty", float("inf")), ("seed", -1), ("seed", 1 << 64), ("max_tokens", 0), ("max_tokens", "9"),
        ("top_logprobs", 21), ("top_logprobs", -1), ("stop", ["x"] * 17), ("stop", "x" * 257), ("stop", [""]),
        ("stop", [3]), ("stop", 3), ("logit_bias", {i: 0 for i in range(1025)}), ("logit_bias", {1: 101}),
        ("logit_bias", {-1: 1}), ("logit_bias", {"a": 1}), ("logit_bias", {1: None}), ("logit_bias", [1]),
    ],
)  # fmt: skip
def test_a_setting_out_of_bounds_is_refused_by_name(field, value):
    with pytest.raises(RequestError, match=field.replace("_", "[ _]")):
        SamplingParams(**{field: value})


def test_an_unknown_setting_is_refused_naming_the_known_ones():
    with pytest.raises(RequestError, match="'temprature'") as refused:
        make_params({"temprature": 1})
    assert "temperature" in refused.value.hint


def test_numbers_of_numpy_and_bounds_themselves_are_taken():
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3), top_p=1, max_tokens=1, seed=2**64 - 1)
    assert (params.temperature, params.top_k, params.top_p) == (0.5, 3, 1.0)
    assert SamplingParams(stop="end").stop == ("end",)


def test_what_is_not_given_comes_from_the_file_then_from_tenth():
    defaults = recommended(Metadata(temp=0.6, top_k=20, penalty_repeat=1.05))
    params = SamplingParams(top_k=7).completed(defaults)
    assert (params.temperature, params.top_k, params.repetition_penalty) == (0.6, 7, 1.05)
    assert (params.top_p, params.min_p) == (0.95, 0.0)


def test_what_the_publisher_recommends_stands_between_the_file_and_tenth():
    defaults = recommended(Metadata(temp=0.6), {"temperature": 0.2, "top_p": 0.9, "top_k": 5})
    assert (defaults.temperature, defaults.top_p, defaults.top_k, defaults.min_p) == (0.6, 0.9, 5, 0.0)


def test_recommendations_of_the_catalogue_are_settings_and_belong_to_a_name():
    for model in CATALOGUE.values():
        make_params(model.sampling)
    assert published_sampling(interpret("smollm2"))["temperature"] == 0.2
    assert published_sampling(interpret("./smollm2.gguf")) == {}


def test_a_file_that_switches_top_k_off_may_say_so_with_minus_one():
    assert recommended(Metadata(top_k=-1)).top_k == 0


def test_a_file_that_recommends_nonsense_is_refused():
    with pytest.raises(ModelFileError, match="temp"):
        recommended(Metadata(temp=-3))


def test_without_a_seed_one_is_drawn_each_time():
    defaults = recommended(Metadata())
    seeds = {SamplingParams().completed(defaults).seed for _ in range(5)}
    assert len(seeds) == 5
    assert SamplingParams(seed=0).completed(defaults).seed == 0
