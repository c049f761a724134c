"""Filter patterns of CloudWatch Logs for JSON lines. Features that the templates do not use are errors.

A pattern is `{ CONDITIONS }`: comparisons `$.name = "text"` or `$.name >= 1`, parentheses, and && and ||, of which
&& binds tighter. CloudWatch supports more: lists, IS NULL, wildcards, regular expressions.
"""

import json
import operator
import re
from dataclasses import dataclass

TOKEN = re.compile(r'\s*(?:(&&|\|\||[(){}]|!=|>=|<=|[=<>])|(\$(?:\.[A-Za-z_][\w-]*)+)|"([^"\\]*)"|(\d+(?:\.\d+)?)(?![\w.]))')
COMPARISONS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}


@dataclass(frozen=True)
class Comparison:
    selector: str
    comparison: str
    value: str | float

    def __call__(self, line):
        """A value that is missing or of another type is neither equal nor unequal."""
        found = select(line, self.selector)
        kind = str if isinstance(self.value, str) else (int, float)
        if isinstance(found, bool) or not isinstance(found, kind):
            return False
        return COMPARISONS[self.comparison](found, self.value)

    def comparisons(self):
        return [self]


@dataclass(frozen=True)
class Joined:
    of: object
    parts: tuple

    def __call__(self, line):
        return self.of(part(line) for part in self.parts)

    def comparisons(self):
        return [one for part in self.parts for one in part.comparisons()]


def select(line, selector):
    """The value at `$.a.b` of a line; None if there is none."""
    for name in selector.split(".")[1:]:
        line = line.get(name) if isinstance(line, dict) else None
    return line


def parsed(line):
    """A log line as a JSON object; None if it is not one, in which case no pattern matches it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Pattern:
    """A pattern, and the lines that it matches."""

    def __init__(self, text):
        self.text = text
        self.tokens = tokens(text)
        self.take("{")
        self.root = self.joined("||", any, lambda: self.joined("&&", all, self.single))
        self.take("}")
        if self.tokens:
            raise ValueError(f"{text}: {self.tokens[0]} after its end")

    def matching(self, lines):
        return [line for line in lines if line is not None and self.root(line)]

    def comparisons(self):
        return self.root.comparisons()

    def take(self, *wanted):
        found = self.tokens.pop(0) if self.tokens else ("end", None)
        if found[0] != "sign" or found[1] not in wanted:
            raise ValueError(f"{self.text}: {found[1]!r} in place of one of {wanted}")
        return found[1]

    def joined(self, sign, of, part):
        parts = [part()]
        while self.tokens[:1] == [("sign", sign)]:
            self.take(sign)
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(of, tuple(parts))

    def single(self):
        if self.tokens[:1] == [("sign", "(")]:
            self.take("(")
            inner = self.joined("||", any, lambda: self.joined("&&", all, self.single))
            self.take(")")
            return inner
        kind, selector = self.tokens.pop(0) if self.tokens else ("end", None)
        if kind != "selector":
            raise ValueError(f"{self.text}: {selector!r} in place of $.NAME")
        comparison = self.take(*COMPARISONS)
        kind, value = self.tokens.pop(0) if self.tokens else ("end", None)
        if kind == "number":
            value = float(value)
        elif kind != "text" or comparison not in ("=", "!="):
            raise ValueError(f"{self.text}: {value!r} cannot be compared by {comparison}")
        return Comparison(selector, comparison, value)


def tokens(text):
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"{text}: not understood from {text[at:]!r} on")
        sign, selector, quoted, number = match.groups()
        if quoted is not None and re.search(r"[*%]", quoted):
            raise ValueError(f"{text}: wildcards and regular expressions are not known here")
        kinds = {"sign": sign, "selector": selector, "text": quoted, "number": number}
        found.append(next((kind, value) for kind, value in kinds.items() if value is not None))
        at = match.end()
    return found
