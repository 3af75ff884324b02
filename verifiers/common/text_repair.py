"""What the published tokenizers of CLIP do to a text before they cut it into tokens.

OpenAI's and open_clip's run `ftfy.fix_text` over a text, resolve its HTML entities and join its white space, so curly
quotes, ligatures and full-width letters, which language models and web pages bring, reach the model as plain ones.
transformers' fast tokenizer does neither. `repair` does to texts as people write them what `fix_text` does by default:

    HTML entities, text in a wrong encoding, C1 controls, ligatures, widths, quotes, line breaks, surrogates, terminal
    escapes, control characters, Unicode normalization (NFC)

Text in a wrong encoding is UTF-8 that was read as Latin-1 or Windows-1252. Of the other mistakes that ftfy mends (Windows-1251
or MacRoman, say) nothing is known here, and what it tells by much finer clues is left as it stands.

References:
    ftfy: fixes text for you (Speer, 2019), https://doi.org/10.5281/zenodo.2591652, version 6.3.1: what is changed to what
    Unicode Technical Report 20 (Unicode in XML and other Markup Languages): characters that do not belong into text
"""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

LIGATURES = {
    "Ĳ": "IJ", "ĳ": "ij", "ŉ": "ʼn", "Ǳ": "DZ", "ǲ": "Dz", "ǳ": "dz", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž", "Ǉ": "LJ", "ǈ": "Lj",
    "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st",
}  # fmt: skip
WIDTHS = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)} | {"\u3000": " "}
QUOTES = dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
PLAIN = str.maketrans(LIGATURES | WIDTHS | QUOTES)
LINE_BREAK = re.compile("\r\n|[\r\u2028\u2029]")
SURROGATES = re.compile("([\ud800-\udbff])([\udc00-\udfff])|[\ud800-\udfff]")
TERMINAL = re.compile("\033\\[[\\d;]*[a-zA-Z]")
CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")
ENTITY = re.compile("&#?[0-9A-Za-z]{1,24};")
PASSES = 30  # over a line; "&amp;amp;amp;" takes one for each


# Windows-1252's characters by their bytes, and Latin-1's controls of the bytes that it leaves open.
WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0x100)}
BYTES = {chr(code): code for code in range(0x100)} | {char: code for code, char in WINDOWS.items()}
CONTROLS_1252 = {code: char for code, char in WINDOWS.items() if code < 0xA0}
LOST = "\ufffd"


def _read_as(first: int, last: int) -> str:
    """Return what bytes were read as, for a class in a regular expression."""
    return "".join(re.escape(char) for char, code in BYTES.items() if first <= code <= last)


# UTF-8 of two to four bytes, read as Windows-1252 or Latin-1; a byte that this has no character for may be lost.
NEXT = f"[{_read_as(0x80, 0xBF)}{LOST}]"
SEQUENCE = re.compile(f"[{_read_as(0xC2, 0xDF)}]{NEXT}|[{_read_as(0xE0, 0xEF)}]{NEXT}{{2}}|[{_read_as(0xF0, 0xF4)}]{NEXT}{{3}}")
RUN = re.compile(f"(?:{SEQUENCE.pattern})+")
# Which sequences may be meant as they stand: a letter before marks that often follow words.
MARKS = set(f"‘’“”‚„…†‡•–—›™€\xa0\xad®°²³´·¹º»¿ª¡«{LOST}")
SUSPECT = "ÂÃÎÐ"  # capitals that begin what accented, Greek and Cyrillic letters become
TRUSTED = "ÒÓÔÕÖÙÚÛÞ"  # capitals that begin what letters that are hardly met become
JOINING = "’–—…·®™"  # marks that stand between a capital and a small letter


def clip_text(text: str) -> str:
    """Return what OpenAI's and open_clip's tokenizers make of a text, but for its capitals."""
    return " ".join(html.unescape(html.unescape(repair(text))).split())


def repair(text: str) -> str:
    """Return a text in plain quotes, letters and line breaks, without control characters, as the module says."""
    entities, repaired = True, []
    for line in re.findall("[^\n]*\n|[^\n]+", text):
        entities = entities and "<" not in line  # in markup they belong where they are
        repaired.append(_repaired(line, entities))
    return "".join(repaired)


def _repaired(line: str, entities: bool) -> str:
    """Repair a line until nothing is left to do, since one mistake may hide another, but not without end."""
    for _ in range(PASSES):
        before = line
        line = ENTITY.sub(_entity, line) if entities else line
        line = _decoded(line).translate(CONTROLS_1252).translate(PLAIN)
        line = joined(LINE_BREAK.sub("\n", line))
        line = unicodedata.normalize("NFC", CONTROLS.sub("", TERMINAL.sub("", line)))
        if line == before:
            break
    return line


def joined(text: str) -> str:
    """Join surrogate pairs to their characters; tokenizers refuse texts with others, which stand for none."""
    return SURROGATES.sub(_paired, text)


def _entity(found: re.Match[str]) -> str:
    """Resolve an HTML entity that ends in a semicolon, in capitals too where that means nothing else."""
    said = found.group()
    if said.startswith("&#"):
        plain = html.unescape(said)
        return said if ";" in plain else plain
    name = said[1:]
    if name in html5:
        return html5[name]
    small = name.lower()
    return html5[small].upper() if name.isupper() and small in html5 and html.unescape(said) == said else said


def _paired(found: re.Match[str]) -> str:
    """Join a pair of surrogates to its character; one alone stands for none."""
    high, low = found.groups()
    return LOST if high is None else chr(0x10000 + (ord(high) - 0xD800) * 0x400 + ord(low) - 0xDC00)


def _decoded(text: str) -> str:
    """Decode UTF-8 that was read as Windows-1252: all of a text, or else the runs in it that nobody writes."""
    while any(map(_is_mistaken, RUN.finditer(text))):
        before, whole = text, _utf_8(text)
        text = RUN.sub(_decoded_run, text) if whole is None else whole
        if text == before:
            break
    return text


def _decoded_run(run: re.Match[str]) -> str:
    """Decode a run of sequences, if it is a mistake."""
    if not _is_mistaken(run):
        return run.group()
    return SEQUENCE.sub(lambda one: LOST if LOST in one.group() else _utf_8(one.group()) or one.group(), run.group())


def _is_mistaken(run: re.Match[str]) -> bool:
    """Whether a run of sequences is too odd to be meant: in itself, or by capitals inside a word."""
    first, last = run.group()[0], run.group()[-1]
    before, after = run.string[run.start() - 1 : run.start()], run.string[run.end() : run.end() + 1]
    inside = before.islower() or (after.islower() and last not in JOINING)
    return (first.isupper() and inside) or any(map(_is_odd, SEQUENCE.findall(run.group())))


def _is_odd(sequence: str) -> bool:
    """Whether nobody would write these two to four characters after one another."""
    first, rest = sequence[0], sequence[1:]
    if len(sequence) == 4 or any("\x80" <= char < "\xa0" for char in sequence):
        return True
    if first in SUSPECT:
        return rest not in "’…¥"
    if sequence == "ï»¿" or (first in "âã" and rest[0] == "€"):  # a byte order mark; punctuation
        return True
    return first not in TRUSTED and not MARKS.issuperset(rest)


def _utf_8(text: str) -> str | None:
    """Decode a text's bytes as UTF-8; None where it has others than Windows-1252's, or these are no UTF-8."""
    try:
        return bytes(BYTES[char] for char in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None
