"""Numbers as people read them."""

__all__ = ["share", "size", "thousands"]


def size(count: float) -> str:
    """A number of bytes for people: ``12.08 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"


def thousands(count: int) -> str:
    """A number of things for people: ``20.91 B``, ``6.29 M``, ``512``."""
    for factor, unit in ((10**9, "B"), (10**6, "M")):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return str(count)


def share(part: float, whole: float) -> str:
    """A part of something in percent: ``12.5 %``; empty if there is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else ""
