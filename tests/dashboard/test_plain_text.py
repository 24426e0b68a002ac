import html
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from dashboard.plain_text import as_html, pieces, visible
from services.reflection import REFLECTIVE
from tests.dashboard.seed import HOSTILE


class Reader(HTMLParser):
    """What a browser would make of it: tags, and the text between them."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def check(text: str) -> Reader:
    read = Reader(as_html(pieces(text, REFLECTIVE)))
    assert read.text == visible(text)
    assert set(read.tags) <= {"div", "span", "mark"}
    assert set(read.attributes) <= {"style"}
    return read


def test_reflection_is_marked_in_both_languages() -> None:
    read = check("try 3 +5 . Wait , that is wrong . 等等 ， 错误 。 waiting")
    assert read.tags.count("mark") == 4


def test_what_a_model_wrote_stays_text() -> None:
    for text in (
        HOSTILE,
        "<script>alert('wait')</script>",
        "</mark></div><img src=x onerror=alert(1)>",
        "&lt;script&gt; &amp; wait &#60;b&#62; <!-- wait --> <![CDATA[x]]>",
        "![image](http://localhost/x.png) **bold** :red[wait] $x$ [a](javascript:alert(1))",
    ):
        check(text)
        assert "<script" not in as_html(pieces(text, REFLECTIVE))


def test_terminal_escapes_and_turned_text_are_shown_as_signs() -> None:
    assert visible("\x1b[31mred\x1b[0m\x00\u202eabc\n\tend") == (
        "\\x1b[31mred\\x1b[0m\\x00\\u202eabc\n\tend"
    )
    check("\x1b[31m wait \u202e but")


@given(
    st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("<>&\"'/!-wait等")))
)
def test_any_text_comes_back_as_it_was(text: str) -> None:
    # A parser reads a carriage return as a line end; ours is shown as a sign before that.
    check(text)


def test_pieces_are_the_whole_text() -> None:
    for pattern in (REFLECTIVE, re.compile("x*"), re.compile("")):
        for text in ("", "wait", "a wait b", "xxaxx"):
            assert "".join(part for _, part in pieces(text, pattern)) == text


def test_added_and_removed_have_tags_of_their_own() -> None:
    made = as_html([("removed", "a<b"), ("added", "c&d")])
    assert re.findall(r"<(ins|del)", made) == ["del", "ins"]
    assert html.unescape(re.sub("<[^>]*>", "", made)) == "a<bc&d"
