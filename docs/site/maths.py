"""Mathematics of pages and docstrings as MathML, which browsers show without a script.

Pages write `$x$` and `$$x$$` as GitHub does; docstrings write roles and directives of Sphinx.
"""

import re
from html import unescape

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

DISPLAYED = re.compile(r"^(?P<indent> *)\$\$(?P<text>.+?)\$\$ *$", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. math::[ \t]*"
    r"(?P<text>[^\n]*(?:\n(?:(?P=indent)[ \t]+\S[^\n]*|[ \t]*(?=\n)))*)",
    re.MULTILINE,
)
FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
ROLE = r":math:`([^`]+)`"
INLINE = r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])"


class Blocks(Preprocessor):
    """Equations that stand on lines of their own."""

    def run(self, lines: list[str]) -> list[str]:
        """Put what a browser shows in the place of each equation."""
        text, parts, at = "\n".join(lines), [], 0
        for fence in FENCE.finditer(text):
            parts += [self._convert(text[at : fence.start()]), fence[0]]
            at = fence.end()
        return "".join([*parts, self._convert(text[at:])]).split("\n")

    def _convert(self, text: str) -> str:
        return DIRECTIVE.sub(self._store, DISPLAYED.sub(self._store, text))

    def _store(self, match: "re.Match[str]") -> str:
        markup = convert(" ".join(match["text"].split()), display="block")
        return f"\n{match['indent']}{self.md.htmlStash.store(markup)}\n"


class Inline(InlineProcessor):
    """Symbols within a sentence."""

    def handleMatch(  # type: ignore[override]
        self, match: "re.Match[str]", data: str
    ) -> tuple[str, int, int]:
        """Return what a browser shows."""
        markup = convert(unescape(match[1]))
        return self.md.htmlStash.store(markup), match.start(0), match.end(0)


class Maths(Extension):
    """Both, before anything else reads underscores and stars."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register both."""
        md.preprocessors.register(Blocks(md), "maths", 26)  # before code fences are stashed
        md.inlinePatterns.register(Inline(ROLE, md), "maths role", 195)  # before code spans
        md.inlinePatterns.register(Inline(INLINE, md), "maths inline", 185)  # after code spans
