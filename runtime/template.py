"""Renders chat templates, which come with model files and are not trusted.

Jinja's immutable sandbox keeps a template from reaching Python, a budget bounds what a rendering
may cost, and strings with marked characters keep their marks (see `foreign`).
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from moesaic.errors import RequestError
from moesaic.runtime.foreign import Foreign, by_runs, mark, plain, seal
from moesaic.runtime.template_budget import Budget

MAX_TEMPLATE_CHARS = 1 << 20

_HINT = "the template refuses these messages (check their roles and order) or is itself faulty"
_GLOBALS = ("range", "dict", "namespace", "cycler", "joiner")
# Filters that would not understand marked characters: they get the plain text, at once or in runs.
_ON_PLAIN = ("float", "int", "wordcount")
_ON_RUNS = ("capitalize", "e", "escape", "forceescape", "striptags", "title", "urlencode")
_BUDGET: ContextVar[Budget] = ContextVar("budget")


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Returns the text of a template; what comes from marked strings is marked in it.

    Args:
        source: The Jinja template.
        variables: What the template may use: plain data and `Foreign` strings.

    Raises:
        RequestError: The template is malformed, refuses the variables, or exceeds its budget.
    """
    if len(source) > MAX_TEMPLATE_CHARS:
        raise RequestError(
            f"chat template: {len(source)} characters, more than {MAX_TEMPLATE_CHARS}", hint=_HINT
        )
    token = _BUDGET.set(Budget())
    try:
        template = _compile(source)
        context = template.new_context(dict(variables))
        return _Environment.concat(template.root_render_func(context))
    except jinja2.TemplateSyntaxError as error:
        message = f"chat template: line {error.lineno}: {error.message}"
        raise RequestError(message, hint=_HINT) from error
    except Exception as error:  # a template can raise whatever Python can
        reason = plain(str(error)) or type(error).__name__
        raise RequestError(f"chat template: {reason}", hint=_HINT) from error
    finally:
        _BUDGET.reset(token)


@functools.lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@functools.cache
def _environment() -> "_Environment":
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # constants cost budget too
        finalize=_finalize,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.globals = {name: environment.globals[name] for name in _GLOBALS}
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
    filters = {n: _paid(n, f) for n, f in environment.filters.items() if n != "urlize"}
    environment.filters = {**filters, "tojson": _tojson, "-counted": _Counted}
    return environment


def _finalize(value: Any) -> Any:
    return _BUDGET.get().output(value)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(plain(form))


class _Generation(Extension):
    """`{% generation %}` marks the model's own words for training; here it does nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Returns what is inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counted:
    """What a loop goes through; every step is paid for."""

    def __init__(self, items: Any) -> None:
        self._items = items if hasattr(items, "__len__") else list(_paid_steps(items))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return _paid_steps(self._items)


def _paid_steps(items: Iterable[Any]) -> Iterator[Any]:
    budget = _BUDGET.get()
    for item in items:
        budget.step()
        yield item


class _Generator(CodeGenerator):
    """Compiles a `~` that keeps marks."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Compiles `~`."""
        self.write("environment.tilde((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with a budget and marks."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compiles a template in which every loop pays for its steps."""
        for loop in list(source.find_all(nodes.For)):
            counted = nodes.Filter(loop.iter, "-counted", [], [], None, None, lineno=loop.lineno)
            counted.set_environment(self)
            loop.iter = counted
        return super()._generate(source, *args, **kwargs)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins the pieces of an output."""
        budget = _BUDGET.get()
        kept = []
        for part in parts:
            budget.step()
            budget.text(len(part))
            kept.append(part)
        text: str = seal("".join(kept))
        return text

    @classmethod
    def tilde(cls, values: Iterable[Any]) -> str:
        """Computes `a ~ b`."""
        return cls.concat([str(_finalize(value)) for value in values])

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a function or a method."""
        budget = _BUDGET.get()
        budget.step()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            budget.method(name, owner, args, kwargs)
            if name == "join" and args:
                args = (budget.join(owner, args[0]),)
            if any(isinstance(a, Foreign) for a in args):
                obj = getattr(Foreign(owner), name)  # a method that sees the argument's plain text
        return budget.result(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Computes `left operator right`."""
        budget = _BUDGET.get()
        budget.operation(operator, left, right)
        if operator == "+" and Markup in (type(left), type(right)):
            left, right = (_safe(v) if isinstance(v, str) else v for v in (left, right))
        return budget.result(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Returns an item or a slice."""
        value = super().getitem(obj, argument)
        return _BUDGET.get().result(value) if isinstance(argument, slice) else value


def _safe(text: str) -> Markup:
    """Escapes a text that is put together with one that is `safe`, as Jinja does."""
    return text if isinstance(text, Markup) else Markup(by_runs(text, lambda r: str(escape(r))))


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps one of Jinja's filters."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        budget, before, args = _BUDGET.get(), args[:skip], args[skip:]
        if name == "join":
            separator = args[1] if len(args) > 1 else kwargs.get("d", "")
            args = (budget.join(str(separator), args[0]), *args[1:])
        else:
            budget.filter(name, args, kwargs)
        if isinstance(args[0], str) and any(isinstance(a, Foreign) for a in args[1:]):
            args = (Foreign(args[0]), *args[1:])
        if name in _ON_RUNS and isinstance(args[0], Foreign):
            return budget.result(by_runs(args[0], lambda r: str(function(*before, r, *args[1:]))))
        if name in _ON_PLAIN and isinstance(args[0], Foreign):
            args = (plain(args[0]), *args[1:])
        return budget.result(function(*before, *args, **kwargs))

    return paid


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face's templates expect: no HTML escapes. Marked text is escaped and stays so."""
    budget = _BUDGET.get()
    budget.text(budget.weight(value) * (1 + min(indent or 0, 64)))
    text = json.dumps(
        _escaped(value, ensure_ascii),
        ensure_ascii=False,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    return str(budget.result(text))


def _escaped(value: Any, ensure_ascii: bool) -> Any:
    """Escapes marked strings as JSON does, for `json.dumps` sees no need to."""
    if isinstance(value, Foreign):
        return str.__str__(mark(json.dumps(plain(value), ensure_ascii=ensure_ascii)[1:-1]))
    if isinstance(value, Mapping):
        return {_escaped(k, ensure_ascii): _escaped(v, ensure_ascii) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(v, ensure_ascii) for v in value]
    return value
