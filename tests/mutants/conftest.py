import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # test modules are imported by path, the mutants by name
