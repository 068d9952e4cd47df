"""Chat templates: Jinja programs that come with a model, run in a sandbox, with bounds.

Templates are written for transformers, so they find here what they find there: its settings of blanks, its filter
``tojson``, ``raise_exception``, ``strftime_now``, ``break`` and ``continue``, and the block ``generation``. The clock
is no input of ours: a template that writes the date is given it.
"""

from __future__ import annotations

import functools
import json
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from jaxinterp.core.errors import InputError

Span = tuple[int, int]
# Real templates have up to some 30,000 characters and write little more than their messages.
LARGEST_TEMPLATE = 1_000_000
LARGEST_TEXT = 10_000_000
MADE = 20 * LARGEST_TEXT
STEPS = 200_000
_LARGE = 1_000_000
_TOO_LONG = f"the chat template makes more text than the {LARGEST_TEXT} characters allowed"
_FILE = "<chat template>"


def render(
    source: str, variables: Mapping[str, Any], *, now: date | None = None
) -> tuple[str, tuple[Span, ...]]:
    """Run a chat template.

    A template can neither reach files or modules nor change what it is given. Its size, the numbers that it passes to
    functions, its steps, what it writes and all the texts it makes on the way are bounded.

    Args:
      source: the template.
      variables: what it may use, plain JSON values.
      now: what ``strftime_now`` takes for the present.

    Returns:
      The text, and the spans of characters in it that blocks called ``generation`` wrote.

    Raises:
      InputError: jinja2 is not installed; not a template; it refuses the messages, fails, is too large or does not come
        to an end; it asks for the date and ``now`` is None.
    """
    if len(source) > LARGEST_TEMPLATE:
        raise InputError(
            f"the chat template has {len(source)} characters, more than the {LARGEST_TEMPLATE} allowed"
        )
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "chat templates are run by the library jinja2, which is not installed: pip install 'jaxinterp[chat]'"
        ) from error
    written: list[str] = []
    spans: list[Span] = []
    try:
        template = _compiled(source, written, spans, now)
        for part in template.generate(dict(variables)):
            written.append(part)
    except InputError as error:
        raise InputError(str(error)) from None
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            f"the chat template is not one: {_line(error.message)} at line {error.lineno}"
        ) from None
    except RecursionError:
        raise InputError(f"the chat template is nested too deeply{_place(None)}") from None
    except MemoryError:
        raise InputError("the chat template needs more memory than there is") from None
    except Exception as error:  # whatever a program may fail with
        raise InputError(
            f"the chat template failed{_place(error)}: {_line(error) or type(error).__name__}"
        ) from None
    return "".join(written), tuple(spans)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def _place(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    lines = [frame.lineno for frame in frames if frame.filename == _FILE]
    return f" at line {lines[-1]}" if lines else ""


def _compiled(source: str, written: list[str], spans: list[Span], now: date | None) -> Any:
    from jinja2 import Template

    environment = _environment_class()(written, spans, now)
    tree = _bounded_class()().visit(environment.parse(source))
    code = environment.compile(tree, filename=_FILE)
    return Template.from_code(environment, code, environment.globals)


def _check_arguments(values: Any) -> None:
    """No widths, counts and powers that are out of bounds."""
    for value in values:
        if isinstance(value, int) and abs(value) > _LARGE:
            raise InputError(f"the chat template counts to {value}, more than the {_LARGE} allowed")


def _check_format(text: Any) -> None:
    """No widths in formats, as in "%9999999d", that are out of bounds."""
    if isinstance(text, str) and re.search(r"\d{7}|%[^%a-zA-Z]*\*", text):
        raise InputError("the chat template has a format that is too wide")


@functools.cache
def _environment_class() -> type:
    """The sandbox; defined when first used, because jinja2 is optional."""
    from jinja2 import ext, nodes, pass_eval_context
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """``{% generation %}`` ... ``{% endgeneration %}``: what the model itself would write."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

        @pass_eval_context
        def _note(self, context: Any, caller: Callable[[], str]) -> str:
            text = caller()
            environment: Any = self.environment
            start = sum(len(part) for part in environment.written)
            environment.spans.append((start, start + len(text)))
            return text

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def __init__(self, written: list[str], spans: list[Span], now: date | None) -> None:
            super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
            self.written, self.spans = written, spans
            self.steps = self.output = self.made = 0
            self.filters["tojson"] = _to_json
            self.filters = {name: self.bounded(function) for name, function in self.filters.items()}
            del self.globals["lipsum"]  # long texts of nothing
            self.globals["raise_exception"] = self.refuse
            self.globals["strftime_now"] = functools.partial(_strftime, now)

        def step(self) -> str:
            """Called for every turn of a loop and every call of a macro."""
            self.steps += 1
            if self.steps > STEPS:
                raise InputError(f"the chat template does not come to an end in {STEPS} steps")
            return ""

        def check(self, value: Any) -> Any:
            """Count what was made."""
            if isinstance(value, str | list | tuple):
                self.made += len(value)
                if len(value) > LARGEST_TEXT or self.made > MADE:
                    raise InputError(_TOO_LONG)
            return value

        def bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
            """A filter with bounds on the numbers that it is given and on what it gives."""

            @functools.wraps(function)
            def run(*args: Any, **named: Any) -> Any:
                # First comes what is filtered, after the environment or so where the filter asks for that.
                given = args[2 if hasattr(function, "jinja_pass_arg") else 1 :]
                if getattr(function, "__name__", "") == "do_format":
                    _check_format(args[0])
                else:
                    _check_arguments((*given, *named.values()))
                return self.check(function(*args, **named))

            return run

        def join(self, *parts: Any) -> str:
            """What ``~`` does."""
            return self.check("".join(map(str, parts)))

        def write(self, value: Any) -> str:
            """Called for everything that is written, be it to the end or into a variable."""
            text = str(value)
            self.output += len(text)
            if self.output > LARGEST_TEXT:
                raise InputError(_TOO_LONG)
            return text

        def wrap_str_format(self, value: Any) -> Any:
            _check_format(getattr(value, "__self__", None))
            return super().wrap_str_format(value)

        @staticmethod
        def refuse(message: Any) -> None:
            """What ``raise_exception`` does."""
            raise TemplateError(str(message))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*":
                for text, times in ((left, right), (right, left)):
                    if (
                        isinstance(text, str | list | tuple)
                        and isinstance(times, int)
                        and len(text) * times > LARGEST_TEXT
                    ):
                        raise InputError(_TOO_LONG)
            if operator == "%":
                _check_format(left)
            if operator == "**":
                _check_arguments((left,))
                if isinstance(right, int) and right > 64:
                    raise InputError("the chat template has a power that is too high")
            return self.check(super().call_binop(context, operator, left, right))

        def call(self, context: Any, function: Any, *args: Any, **named: Any) -> Any:  # type: ignore[override]
            if isinstance(getattr(function, "__self__", None), str):
                _check_arguments((*args, *named.values()))
            return self.check(super().call(context, function, *args, **named))

    return Sandbox


@functools.cache
def _bounded_class() -> type:
    """What rewrites a template so that its loops, macros and joins are counted."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Bounded(NodeTransformer):
        def counted(self, node: Any) -> Any:
            node = self.generic_visit(node)
            call = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(call).set_lineno(node.lineno))
            return node

        visit_For = visit_Macro = visit_CallBlock = counted

        def visit_Concat(self, node: Any) -> Any:
            node = self.generic_visit(node)
            call = nodes.Call(nodes.EnvironmentAttribute("join"), list(node.nodes), [], None, None)
            return call.set_lineno(node.lineno)

        def visit_Output(self, node: Any) -> Any:
            node = self.generic_visit(node)
            write = nodes.EnvironmentAttribute("write")
            calls = []
            for part in node.nodes:
                value = nodes.Const(part.data) if isinstance(part, nodes.TemplateData) else part
                calls.append(nodes.Call(write, [value], [], None, None).set_lineno(part.lineno))
            node.nodes = calls
            return node

    return Bounded


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:  # fmt: skip
    """As in transformers: without Jinja's escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime(now: date | None, form: str) -> str:
    if now is None:
        raise InputError("this chat template writes the date: say which, as now='2025-01-31'")
    if not isinstance(now, datetime):
        now = datetime(now.year, now.month, now.day)
    return now.strftime(form)
