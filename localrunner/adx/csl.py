"""Reading a management command: words, names, string literals, lists, from left to right.

Source: dataexplorer-docs, kusto/query/scalar-data-types/string.md (the forms of literals) and
kusto/query/schema-entities/entity-names.md (bracketed names).
"""

from __future__ import annotations

import re

from localrunner.adx.columns import Column, column_type
from localrunner.adx.errors import KustoError, syntax_error

_SPACE = re.compile(r"(?:\s+|//[^\n]*(?:\n|$))*")
_WORD = re.compile(r"\.?[A-Za-z_][\w-]*")
_NAME = re.compile(r"\w+")
_BRACKETED = re.compile(r"\[\s*(?:'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\")\s*\]")
_STRING = re.compile(
    r"```(?P<block>.*?)```"
    r"|[hH]?@\"(?P<at_double>(?:[^\"]|\"\")*)\""
    r"|[hH]?@'(?P<at_single>(?:[^']|'')*)'"
    r"|[hH]?\"(?P<double>(?:[^\"\\\n]|\\.)*)\""
    r"|[hH]?'(?P<single>(?:[^'\\\n]|\\.)*)'",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_VALUE = re.compile(r"[\w.:+-]+")


_DEFINITION = re.compile(r"\s*\.(create|create-or-alter|alter)\s+function\b", re.IGNORECASE)


class Reader:
    """A place in the text of a command; every method moves it past what it returns, or raises."""

    def __init__(self, text: str, at: int = 0) -> None:
        self.text = text
        self.at = at
        self._skip()

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
            self._skip()
        return found

    def word(self) -> str | None:
        """The next bare word (a command's first one begins with a dot), or None."""
        found = self._take(_WORD)
        return found.group() if found else None

    def accept(self, *words: str) -> bool:
        """True if the next bare words are these, in any case; otherwise nothing is taken."""
        start = self.at
        for wanted in words:
            if (self.word() or "").lower() != wanted:
                self.at = start
                return False
        return True

    def symbol(self, symbol: str) -> bool:
        """True if the next characters are `symbol`; otherwise nothing is taken."""
        if not self.text.startswith(symbol, self.at):
            return False
        self.at += len(symbol)
        self._skip()
        return True

    def expect(self, symbol: str) -> None:
        """`symbol` comes next."""
        if not self.symbol(symbol):
            raise self.error(f"'{symbol}' is expected")

    def name(self) -> str:
        """An entity's name: bare, in brackets, or as a string literal."""
        bracketed = self._take(_BRACKETED)
        if bracketed:
            return _unescape(bracketed[1] if bracketed[1] is not None else bracketed[2])
        literal = self._take(_STRING)
        if literal:
            return _literal_text(literal)
        bare = self._take(_NAME)
        if not bare:
            raise self.error("a name is expected")
        return bare.group()

    def names(self) -> list[str]:
        """Names in parentheses."""
        self.expect("(")
        names = [self.name()]
        while self.symbol(","):
            names.append(self.name())
        self.expect(")")
        return names

    def values(self) -> list[str]:
        """Bare values, such as ids, in parentheses."""
        self.expect("(")
        values: list[str] = []
        while True:
            found = self._take(_VALUE)
            if not found:
                raise self.error("a value is expected")
            values.append(found.group())
            if not self.symbol(","):
                break
        self.expect(")")
        return values

    def value(self) -> str:
        """A bare value, such as an id."""
        found = self._take(_VALUE)
        if not found:
            raise self.error("a value is expected")
        return found.group()

    def string(self) -> str:
        """A string literal in any form; literals that follow one another are one."""
        parts: list[str] = []
        while found := self._take(_STRING):
            parts.append(_literal_text(found))
        if not parts:
            raise self.error("a string literal is expected")
        return "".join(parts)

    def columns(self) -> tuple[Column, ...]:
        """A schema in parentheses: `(name: type, ...)`."""
        self.expect("(")
        columns: list[Column] = []
        while True:
            name = self.name()
            self.expect(":")
            kind = self._take(_VALUE)
            if not kind:
                raise self.error("a column type is expected")
            columns.append(Column(name, column_type(kind.group())))
            if not self.symbol(","):
                break
        self.expect(")")
        return tuple(columns)

    def properties(self, known: frozenset[str]) -> dict[str, str]:
        """What stands in `with (name = value, ...)`, or nothing; names in lower case.

        Raises:
            KustoError: a property is not one of `known`.
        """
        found: dict[str, str] = {}
        if not self.accept("with"):
            return found
        self.expect("(")
        while not self.symbol(")"):
            name = self.name()
            if name.lower() not in known:
                raise syntax_error(f"property '{name}' is not known here; known are {', '.join(sorted(known))}")
            self.expect("=")
            found[name.lower()] = self._value()
            if not self.symbol(","):
                self.expect(")")
                break
        return found

    def _value(self) -> str:
        bare = self._take(_VALUE)
        return bare.group() if bare else self.string()

    def rest(self) -> str:
        """Everything that is left, as it is."""
        text = self.text[self.at :]
        self.at = len(self.text)
        return text

    def end(self) -> None:
        """Nothing is left but perhaps a semicolon."""
        self.symbol(";")
        if self.at < len(self.text):
            raise self.error("nothing more is expected")

    def error(self, what: str) -> KustoError:
        """A syntax error at this place."""
        near = self.text[self.at : self.at + 30].split("\n")[0]
        return syntax_error(f"{what} at position {self.at}" + (f", near '{near}'" if near else ", at the end"))


def _literal_text(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    text = found.group(kind)
    if kind in ("double", "single"):
        return _unescape(text)
    if kind == "at_double":
        return text.replace('""', '"')
    if kind == "at_single":
        return text.replace("''", "'")
    return text


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        return _ESCAPED.get(code, code)

    return _ESCAPE.sub(character, text)


def bare(text: str) -> str:
    """`text` from its first letter on, without the space and the comments before it.

    Source: dataexplorer-docs, kusto/management/index.md: a command begins with a dot; yet each of its examples of
    several commands has a comment before that, and kusto/query/comment.md allows them in commands.
    """
    return text[Reader(text).at :]


def split_pipeline(text: str) -> tuple[str, str]:
    """A command and the query operators after its first `|`; `<|` is no such bar, nor is one in a literal."""
    if _DEFINITION.match(text):
        return text, ""  # its bars are the body's
    at = 0
    while at < len(text):
        if text[at] in "\"'`@hH":
            literal = _STRING.match(text, at)
            if literal:
                at = literal.end()
                continue
        if text.startswith("<|", at):
            return text, ""
        if text.startswith("//", at):
            end = text.find("\n", at)
            at = end if end >= 0 else len(text)
            continue
        if text[at] == "|":
            return text[:at].rstrip(), text[at + 1 :].strip()
        at += 1
    return text, ""
