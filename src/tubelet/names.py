"""Names of files as text. A name need not be UTF-8 (Python then holds its bytes as surrogates), nor be on one line.

Tables, JSON and Parquet get `writable` names, terminals and messages `one_line`. A name that is read back as a path is
written as it is: its bytes in lists, the escapes of JSON in records.
"""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BYTE: Final = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def writable(text: str) -> str:
    r"""The text with what UTF-8 cannot hold as escapes: the byte 0xFF of a name becomes `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    r"""`writable`, with control characters as escapes too: a line break in a name becomes `\n`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def restored(text: str) -> str:
    """The name that `writable` made this text of."""
    return _BYTE.sub(lambda found: chr(int(found[1], 16)), text)
