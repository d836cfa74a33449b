"""How many trees are tried: a sample, or as many as `make fuzz` asks for."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=2, help="trees that tests/fuzz makes")
    parser.addoption("--programs", type=int, default=1, help="programs that it makes")


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--fuzz")))


@pytest.fixture
def programs(pytestconfig):
    return pytestconfig.getoption("--programs")
