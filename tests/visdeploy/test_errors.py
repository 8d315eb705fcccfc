"""Messages of errors: one line, whatever is in the names that they mention."""

from visdeploy.errors import DataError


def test_a_message_is_one_printable_line_of_limited_length():
    text = str(DataError("a\nb", seen="\x1b[31mred\u202e", expected="x" * 5000, hint="c\r\nd"))
    assert text.isprintable()
    assert len(text) < 1000
    assert text.startswith("a b (seen: \\x1b[31mred\\u202e; expected: x")
    assert text.endswith("). c d")
