"""The demo model that ships in the package: a small Mixture-of-Experts model trained on public-domain English."""

from pathlib import Path

__all__ = ["DEMO_MODEL"]

DEMO_MODEL = Path(__file__).with_name("demo.gguf")
