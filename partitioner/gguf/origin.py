"""What a model file says of its origin: licence, languages, tags, and the models it comes from.

These keys only describe. One that is malformed is left out rather than refused, and all of them
are bounded, because they end up in reports and model cards.
"""

from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.plan_format import Origin, Parent

__all__ = ["read_origin"]

MAX_TEXT_CHARS = 256
MAX_ITEMS = 64


def read_origin(metadata: Metadata) -> Origin:
    """Reads the ``general.*`` keys that model cards are made of."""
    general = metadata.scoped("general")
    return Origin(
        license=_text(general, "license"),
        license_name=_text(general, "license.name"),
        license_link=_text(general, "license.link"),
        languages=_texts(general, "languages"),
        tags=_texts(general, "tags"),
        parents=_parents(general),
    )


def _parents(general: Metadata) -> list[Parent]:
    count = general.get("base_model.count")
    if not isinstance(count, int):
        return []
    keys = (f"base_model.{i}" for i in range(min(count, MAX_ITEMS)))
    parents = [
        Parent(
            name=_text(general, f"{key}.name"),
            organization=_text(general, f"{key}.organization"),
            url=_text(general, f"{key}.repo_url") or _text(general, f"{key}.url"),
        )
        for key in keys
    ]
    return [parent for parent in parents if parent.name or parent.url]


def _text(general: Metadata, key: str) -> str | None:
    value = general.get(key)
    return _bounded(value) if isinstance(value, str) else None


def _texts(general: Metadata, key: str) -> list[str]:
    values = general.get(key)
    if not isinstance(values, list):
        return []
    texts = (_bounded(value) for value in values[:MAX_ITEMS] if isinstance(value, str))
    return list(dict.fromkeys(text for text in texts if text))


def _bounded(text: str) -> str | None:
    """Returns the text without surrounding space, or None if it is empty, long or unprintable."""
    text = text.strip()
    return text if text.isprintable() and len(text) <= MAX_TEXT_CHARS and text else None
