"""Which processors get a worker: one for each physical core that this process may use. Sysfs is made up here."""

import os

import pytest

from tenth import _core


@pytest.fixture
def machine(tmp_path):
    """Writes the sibling lists of a machine, by processor; None: it has no file."""

    def make(siblings):
        for cpu, text in siblings.items():
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            if text is not None:
                (folder / "thread_siblings_list").write_text(text)
        return lambda allowed: _core.first_of_cores(allowed, str(tmp_path))

    return make


def test_without_hyper_threading_every_processor_is_a_core(machine):
    assert machine({cpu: f"{cpu}\n" for cpu in range(4)})([0, 1, 2, 3]) == [0, 1, 2, 3]


def test_siblings_that_stand_apart_share_a_worker(machine):
    cores = machine({cpu: f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in range(8)})
    assert cores(list(range(8))) == [0, 1, 2, 3]
    assert cores([1, 5, 6]) == [1, 6]  # of what the affinity mask allows, the first of each core
    assert cores([4, 5, 6, 7]) == [4, 5, 6, 7]


def test_siblings_that_stand_together_share_a_worker(machine):
    cores = machine({cpu: f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n" for cpu in range(8)})
    assert cores(list(range(8))) == [0, 2, 4, 6]
    assert cores([1, 2, 3, 7]) == [1, 2, 7]


def test_four_threads_on_a_core_and_high_numbers(machine):
    low, high = "7,307-309", "299,599-601"
    cores = machine({7: low, 299: high, 307: low, 308: low, 599: high, 600: high})
    assert cores([7, 299, 307, 308, 599, 600]) == [7, 299]


@pytest.mark.parametrize("text", [None, "", "\n", "x", "-", "2-", "9999999999999999999999", "1-0", ",,,"])
def test_a_list_that_cannot_be_read_leaves_the_processor_a_core_of_its_own(machine, text):
    assert machine({0: text, 1: text, 2: "2"})([0, 1, 2]) == [0, 1, 2]


def test_there_is_always_one(machine):
    assert machine({})([]) == [0]


@pytest.fixture
def nodes(tmp_path):
    """Writes which processors each node has."""

    def make(online, **lists):
        (tmp_path / "online").write_text(online)
        for name, text in lists.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "cpulist").write_text(text)
        return lambda processors: _core.nodes_of(processors, str(tmp_path))

    return make


def test_processors_belong_to_nodes(nodes):
    of = nodes("0-1\n", node0="0-3,8-11\n", node1="4-7,12-15\n")
    assert of([0, 1, 4, 5, 8, 12]) == [0, 0, 1, 1, 0, 1]


def test_nodes_may_be_missing_and_processors_of_two_sockets_may_alternate(nodes):
    assert nodes("0,2\n", node0="0,2,4\n", node2="1,3,5\n")([0, 1, 2, 3, 9]) == [0, 2, 0, 2, 0]


@pytest.mark.parametrize("online", ["", "\n", "x", "0", "0-99999999999999999999"])
def test_without_a_list_all_are_of_one_node(nodes, online):
    assert nodes(online)([0, 1, 2]) == [0, 0, 0]


def test_this_machine_has_no_more_workers_than_processors():
    found = _core.physical_processors()
    assert found == sorted(set(found))
    assert set(found) <= os.sched_getaffinity(0)
