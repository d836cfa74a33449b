"""The trees' own tests, run on one tree: `pytest tests/trees --tree reference`."""

import random
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, configuration, settings

REPOSITORY = Path(__file__).parents[2]
NAMED_TREES = ("baseline", "reference")

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "bit_transformer_hypothesis"))
settings.register_profile(
    "trees", max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("trees")


def pytest_addoption(parser):
    parser.addoption("--tree", default="baseline", help="baseline, reference, or the path of a tree")


def pytest_configure(config):
    name = config.getoption("--tree")
    tree = REPOSITORY / name if name in NAMED_TREES else Path(name).resolve()
    if not (tree / "bit_transformer").is_dir():
        raise pytest.UsageError(f"--tree {name}: {tree} has no bit_transformer/ in it")
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def tree(request):
    name = request.config.getoption("--tree")
    return REPOSITORY / name if name in NAMED_TREES else Path(name).resolve()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The user's cache, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "bit_transformer" / "rows"


@pytest.fixture(autouse=True)
def seeds():
    torch.manual_seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def make_model():
    """Build a small float64 model in evaluation mode; keywords change its configuration."""
    from bit_transformer import BitTransformerLM

    def make(**config):
        small = {"d_model": 8, "nhead": 2, "num_layers": 2, "dim_feedforward": 16, "max_seq_len": 48}
        model = BitTransformerLM(**{**small, **config}).double().eval()
        if model.halt is not None:  # initial weights are so small that all positions would halt at one layer
            torch.nn.init.normal_(model.halt.weight)
        return model

    return make


@pytest.fixture(scope="session")
def corpus():
    """About 3,000 bytes of text with some order in it."""
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "judges", "my", "vow"]
    picks = random.Random(7)
    return " ".join(picks.choice(words) for _ in range(700))


@pytest.fixture(scope="session")
def corpus_file(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(corpus, encoding="utf-8")
    return path


# Of runs; a test file that imports trees.running is skipped where no run can start.


@pytest.fixture
def one_thread_and_no_pictures(monkeypatch):
    from bit_transformer import runs

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(runs, "draw_curves", lambda *_: None)
    monkeypatch.setattr(runs, "draw_comparison", lambda *_: None)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def text(corpus, tmp_path_factory):
    """A file of 62 rows of 72 bits."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(corpus[:500], encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def whole(text, tmp_path_factory):
    """The folder of an unbroken run of a configuration."""
    from trees.running import CONFIGURATIONS, words

    from bit_transformer import runs

    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("whole") / "run"
            assert runs.main(words(folders[name], text, **CONFIGURATIONS[name])) == 0
        return folders[name]

    return folder_of


# Of the dashboard, which is asked.


@pytest.fixture
def asked(tmp_path):
    from trees.asking import Asked

    return Asked(tmp_path / "snapshots")


@pytest.fixture(scope="module")
def asked_in_vain(tmp_path_factory):
    """One for all requests that change nothing."""
    from trees.asking import Asked

    return Asked(tmp_path_factory.mktemp("asked") / "snapshots")
