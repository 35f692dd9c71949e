import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class _Literals(ast.NodeTransformer):
    """Turns ``dict(a=b)``, which the generator writes, into the linter's ``{"a": b}``."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict"):
            return node
        keys = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def meaning(path):
    return ast.dump(_Literals().visit(ast.parse(path.read_text())), indent=1)


def test_the_committed_stub_is_that_of_the_module(tmp_path):
    """If not: run this command with ``-o runtime/_native.pyi``, then ruff's fixes and format."""
    patterns = ROOT / "runtime" / "csrc" / "bindings" / "native.pat"
    made = tmp_path / "_native.pyi"
    command = [
        sys.executable,
        "-m",
        "nanobind.stubgen",
        "-q",
        "-D",
        "-m",
        "moesaic.runtime._native",
    ]
    subprocess.run([*command, "-p", str(patterns), "-o", str(made)], check=True)
    assert meaning(ROOT / "runtime" / "_native.pyi") == meaning(made)
