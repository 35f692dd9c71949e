"""The plan loader under atheris: any plan.json is refused with one of our errors, or it opens.

The input is the text of a plan.json. A custom mutator changes the decoded document, since damage to
the bytes hardly ever gets past the JSON parser. The uuid and the header of weights.bin are made to
fit the tensors: an attacker can do that too.
"""

import json
import random
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports(include=["moesaic.plan_file", "moesaic.runtime.plan"]):
    from moesaic.errors import MoesaicError
    from moesaic.plan_format import PlanFile, plan_uuid, tensor_list_digest, weights_header
    from moesaic.runtime.plan import load_plan

sys.path.insert(0, str(Path(__file__).parents[1]))
from attacks.test_plan_attacks import mutate, use

WEIGHTS_BYTES = 1 << 20

folder = Path(tempfile.mkdtemp())
weights = folder / "weights.bin"
weights.write_bytes(bytes(WEIGHTS_BYTES))
warnings.simplefilter("ignore")


def fitting(data: bytes) -> bytes:
    """Returns the plan with the uuid of its tensors, and writes their header."""
    with suppress(msgspec.MsgspecError, ValueError, OverflowError):
        plan = msgspec.json.decode(data, type=PlanFile)
        with weights.open("r+b") as file:
            file.write(weights_header(plan.tensors, WEIGHTS_BYTES))
        uuid = str(plan_uuid(tensor_list_digest(plan.tensors)))
        return msgspec.json.encode(msgspec.structs.replace(plan, uuid=uuid))
    return data


def test_one_input(data: bytes) -> None:
    """Loads the plan and runs it on the null provider."""
    (folder / "plan.json").write_bytes(fitting(data))
    try:
        plan = load_plan(folder)
    except MoesaicError as error:
        assert str(error)
        return
    limits = plan.file.limits
    if limits.batch * limits.sequences * limits.context < 1 << 24:
        use(msgspec.to_builtins(plan.file), plan.weights)


def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
    """Changes the document, or now and then its bytes."""
    rng = random.Random(seed)
    with suppress(ValueError, IndexError, RecursionError):
        if rng.randrange(8):
            document = json.loads(data)
            for _ in range(rng.choice([1, 1, 2, 4])):
                mutate(document, rng)
            text = json.dumps(document).encode()
            if len(text) <= most:
                return text
    return atheris.Mutate(data, most)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input, custom_mutator=custom_mutator)
    atheris.Fuzz()
