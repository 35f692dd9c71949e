"""Checks what a wheel holds: the package and nothing else, no sources of native code, no tests.

Usage: python .ci/check_wheel.py dist/moesaic-*.whl
"""

import sys
import zipfile

REQUIRED = (
    "moesaic/__init__.py",
    "moesaic/py.typed",
    "moesaic/demo/demo.gguf",
    "moesaic/partitioner/__init__.py",
    "moesaic/runtime/__init__.py",
    "moesaic/runtime/_native.pyi",
    "moesaic/_pack.pyi",
)
FORBIDDEN_SUFFIXES = (".cpp", ".h", ".cu", ".cuh", ".o", ".a", "CMakeLists.txt")
MAX_BYTES = 16 << 20


def problems(names: list[str], size: int) -> list[str]:
    """What is wrong with a wheel of these file names and this size in bytes."""
    found = [f"missing: {name}" for name in REQUIRED if name not in names]
    found += [
        f"missing: {module}*.so"
        for module in ("moesaic/_pack.", "moesaic/runtime/_native.")
        if not any(name.startswith(module) and name.endswith(".so") for name in names)
    ]
    for name in names:
        top = name.split("/")[0]
        if top != "moesaic" and not top.endswith(".dist-info"):
            found.append(f"outside the package: {name}")
        if name.endswith(FORBIDDEN_SUFFIXES) or "/csrc/" in name or "/tests/" in name:
            found.append(f"does not belong: {name}")
    if len(names) != len(set(names)):
        found.append("a file is in the wheel twice")
    if size > MAX_BYTES:
        found.append(f"{size} bytes, at most {MAX_BYTES}")
    return found


def main() -> None:
    """Prints the problems of each wheel and exits with 1 if there is one."""
    failed = False
    for path in sys.argv[1:]:
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            found = problems(names, sum(item.compress_size for item in wheel.infolist()))
        print(f"{path}: {len(names)} files", *found, sep="\n  ")
        failed |= bool(found)
    sys.exit(failed)


main()
