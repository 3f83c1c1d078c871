"""tenth.bench.serving: what turns count, that they are kept between sittings, and its clients against a real server."""

import asyncio
import json

import pytest

from tenth.bench import serving_overhead
from tenth.bench.serving import _kept
from tenth.bench.serving_load import Ask, clients, newcomer
from tenth.bench.serving_servers import Contender, peer
from tenth.bench.serving_table import DISTURBED, result, table
from tenth.errors import RequestError, ResourceError

from ..server.running import TINY, Running

CONTENDERS = [Contender("tenth", "ours"), Contender("peer", "peer -a"), Contender("peer", "peer -b")]


def turn(command, speed, others=0.0, test="8"):
    return test, command, {"tokens_per_second": speed, "first_s": 1.0, "others": others}


def test_the_best_flags_count_and_disturbed_turns_do_not():
    turns = [turn("ours", 90.0), turn("ours", 110.0), turn("ours", 1.0, DISTURBED + 0.01),
             turn("peer -a", 30.0), turn("peer -b", 40.0), turn("peer -b", 2.0, 0.9)]
    rows = result(turns, CONTENDERS)["8"]
    assert rows["tenth"]["tokens_per_second"]["median"] == 100.0
    assert (rows["tenth"]["turns"], rows["peer"]["turns"]) == (2, 1)
    assert (rows["peer"]["command"], rows["peer"]["tokens_per_second"]["median"]) == ("peer -b", 40.0)
    assert "| 8 | tenth | 100 (90 to 110) |" in table({"8": rows})


@pytest.mark.parametrize("text", ["llama-server", "=llama-server", "label= "])
def test_a_peer_without_label_or_command_is_refused(text):
    assert peer("a=b c=d") == Contender("a", "b c=d")
    with pytest.raises(RequestError, match="names no server"):
        peer(text)


def test_turns_are_kept_between_sittings(tmp_path):
    kept = tmp_path / "turns.jsonl"
    first, second = turn("ours", 1.0), turn("ours", 2.0)
    assert list(_kept(kept, [first])) == [first]
    assert list(_kept(kept, [second])) == [first, second]
    assert [json.loads(line)[2]["tokens_per_second"] for line in kept.read_text().splitlines()] == [1.0, 2.0]


def test_the_clients_time_a_real_server(tmp_path):
    with Running({"tiny": TINY}, tmp_path) as running:
        found = asyncio.run(clients(running.port, "tiny", [[Ask([5, 6, 7], 4)] * 2] * 3))
        assert len(found) == 6
        assert all(0 < timed.first_s <= timed.last_s for timed in found)
        long, short = asyncio.run(newcomer(running.port, "tiny", Ask([5] * 100, 1), Ask([6], 1), 0.0))
        assert long.came_s
        assert short.came_s


def test_a_server_is_held_against_the_engine_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_overhead, "PAIRS", 3)
    monkeypatch.setattr(serving_overhead, "ALONE", 4)
    monkeypatch.setattr(serving_overhead, "speed", lambda timed: 100.0)
    with Running({"bench": TINY}, tmp_path) as running:
        engine = iter([110.0, 112.0, 150.0, 120.0])  # only the first two are alike
        figures = serving_overhead.compare(running.port, lambda n: [5] * n, lambda: next(engine))
        assert figures["pairs"] == 1
        assert figures["engine"] == 111.0
        assert figures["beyond_engine"] == pytest.approx(0.11)
        unsteady = iter([100.0, 200.0, 100.0, 200.0])
        with pytest.raises(ResourceError, match="too unsteady"):
            serving_overhead.compare(running.port, lambda n: [5] * n, lambda: next(unsteady))


def test_an_engine_of_its_own_answers_again_and_again(monkeypatch):
    monkeypatch.setattr(serving_overhead, "ALONE", 4)
    with serving_overhead.engine(TINY, 256, 512) as (ask, process):
        assert ask() > 0
        assert ask() > 0
        assert process.is_running()
    assert not process.is_running()
