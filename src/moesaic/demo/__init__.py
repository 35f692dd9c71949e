"""The demo model that ships in the package, see the README beside it."""

from pathlib import Path

__all__ = ["DEMO_MODEL"]

DEMO_MODEL = Path(__file__).with_name("demo.gguf")
