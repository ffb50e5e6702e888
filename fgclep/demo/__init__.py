"""The built-in demo: an index of synthetic ECGs that ships with the package, made by scripts/build_demo.py.

The waveforms do not ship: the generator makes each one again from its seed.
"""

from pathlib import Path


def demo_index_path() -> Path:
    """Return the version directory of the built-in demo index; read-only."""
    return Path(__file__).parent / "index"
