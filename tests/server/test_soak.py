"""A short soak of a tiny model; scripts/soak_server.py does half an hour of a real one."""

from scripts.soak_server import soak

from .running import TINY


def test_random_requests_and_disconnects_leak_nothing():
    report = soak(str(TINY), 12, memory_bytes=1 << 30)
    assert not report["wrong"], report
    assert report["requests"] > 100
    assert report["answers"]["200"] > 50
    assert {"400", "left"} <= set(report["answers"])
