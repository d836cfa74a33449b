"""On a tree that lacks patches a run is refused, and says what to do."""

import os
import subprocess
import sys

import pytest

from bit_transformer import training


@pytest.mark.skipif(hasattr(training, "accumulation_groups"), reason="this tree has the patches")
def test_a_run_is_refused_with_the_mend(tree, tmp_path):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "bit_transformer.training", "--out", str(tmp_path / "run")]
    refused = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "bitpatch apply --all" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()
