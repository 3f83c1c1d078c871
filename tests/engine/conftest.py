import pytest

from tenth.engine.engine import Engine


@pytest.fixture
def start_engine():
    """Starts engines, which are closed when the test is over."""
    engines = []

    def start(runtime, **options):
        engines.append(Engine(runtime, **options))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
