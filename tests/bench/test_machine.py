"""What the machine is: reading /proc and /sys, of this machine and of others."""

import pytest

from tenth.bench.machine import busy_share, parse_cpuinfo, parse_size, read_machine, selected, usable_cores

OLD = "processor\t: 0\nmodel name\t: Old CPU @ 2GHz\nflags\t\t: fpu sse4_2 xavx2\n\nprocessor\t: 1\nmodel name\t: B\n"


def test_name_and_telling_flags_of_the_first_cpu():
    assert parse_cpuinfo(OLD) == ("Old CPU @ 2GHz", ("sse4_2",))
    assert parse_cpuinfo("") == ("unknown CPU", ())


@pytest.mark.parametrize(("text", "size"), [("480M\n", 480 << 20), ("2048K", 2 << 20), ("1G", 1 << 30), ("7", 7),
                                            ("", 0), ("x", 0), ("-1K", 0)])
def test_sizes_of_caches(text, size):
    assert parse_size(text) == size


def test_the_choice_in_force_stands_in_brackets():
    assert selected("always [madvise] never\n") == "madvise"
    assert selected("") == ""


def test_this_machine_has_a_cpu_and_memory():
    machine = read_machine()
    assert 1 <= machine.cores == usable_cores() <= machine.logical_cpus
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert 0 <= busy_share(0.05) <= 1
