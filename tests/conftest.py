"""Plans of the committed models, made once a test session."""

from pathlib import Path

import pytest

import moesaic

MODELS = Path(__file__).parent / "golden" / "models"


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    """A cache folder of its own: nothing of the user's, above all no measured speed, is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOESAIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def plan_of(tmp_path_factory):
    """Returns a function: name of a model of tests/golden/models -> its plan directory."""
    made = {}

    def make(case, **options):
        key = (case, *sorted(options.items()))
        if key not in made:
            target = tmp_path_factory.mktemp("plans") / case
            moesaic.partition(MODELS / f"{case}.gguf", target, **options)
            made[key] = target
        return made[key]

    return make


@pytest.fixture(scope="session")
def demo_plan(tmp_path_factory):
    """The plan directory of the embedded demo model."""
    from moesaic.demo import DEMO_MODEL

    target = tmp_path_factory.mktemp("plans") / "demo"
    moesaic.partition(DEMO_MODEL, target)
    return target
