"""Resume tokens as text: what each says, and texts that are none."""

from typing import Any

from aril.schemas.make_vectors.build import Fields, Vector

_INT31, _INT63 = 2**31 - 1, 2**63 - 1


def token_vectors() -> list[Vector]:
    """Return texts with what they say; `canonical` is how a token is written that says it."""
    return [*_good(), *_bad()]


def _good() -> list[Vector]:
    longest = "".join(chr(ord("a") + at % 26) for at in range(64))
    return [
        _token("plain", "Seventeen tokens were given.", "3.1042.17.0.j1", (3, 1042, 17, 0, "j1")),
        _token("nothing yet", "All are zero.", "0.0.0.0.j1", (0, 0, 0, 0, "j1")),
        _token("behind a reset", "The first reset was told.", "0.7.0.1.j1", (0, 7, 0, 1, "j1")),
        _token(
            "an id with dots",
            "What follows the fourth dot is the id, whatever it holds.",
            "1.2.3.4.a.b-c_1.2..",
            (1, 2, 3, 4, "a.b-c_1.2.."),
        ),
        _token("an id of digits", "As above.", "1.2.3.4.5.6", (1, 2, 3, 4, "5.6")),
        _token("the longest id", "64 characters.", f"1.2.3.4.{longest}", (1, 2, 3, 4, longest)),
        _token(
            "the largest numbers",
            "Offsets have 63 bits, all else 31.",
            f"{_INT31}.{_INT63}.{_INT31}.{_INT31}.j1",
            (_INT31, _INT63, _INT31, _INT31, "j1"),
        ),
        _token(
            "leading zeros",
            "Read as the number; nobody writes them.",
            "03.0000000000000000042.007.00.j1",
            (3, 42, 7, 0, "j1"),
            canonical="3.42.7.0.j1",
        ),
    ]


def _bad() -> list[Vector]:
    return [
        {"name": name, "meaning": meaning, "text": text, "expect": {"error": "bad_token"}}
        for name, meaning, text in (
            ("empty", "No text.", ""),
            ("a number short", "Four parts.", "1.2.3.j1"),
            ("no id", "Nothing behind the last dot.", "1.2.3.4."),
            ("an empty number", "Each has a digit.", "1..3.4.j1"),
            ("a sign", "No number has one.", "1.+2.3.4.j1"),
            ("below zero", "Nothing is.", "1.-2.3.4.j1"),
            ("hexadecimal", "Decimal digits only.", "1.0x2.3.4.j1"),
            ("a real number", "The dot divides: this has a letter in it.", "1.2.3.4e1.j1"),
            ("digits of another script", "ASCII only.", "1.٢.3.4.j1"),
            ("a blank before", "Nothing is trimmed.", " 1.2.3.4.j1"),
            ("a line break behind", "Nothing is trimmed.", "1.2.3.4.j1\n"),
            ("a line break before the id", "No id holds one.", "1.2.3.4.\nj1"),
            ("an id with a slash", "No id holds one.", "1.2.3.4.j/1"),
            ("an id with an umlaut", "ASCII only.", "1.2.3.4.jü"),
            ("an id too long", "65 characters.", "1.2.3.4." + "a" * 65),
            ("twenty digits", "At most 19.", "1.00000000000000000002.3.4.j1"),
            ("a partition past 31 bits", "There is none.", f"{_INT31 + 1}.2.3.4.j1"),
            ("an offset past 63 bits", "There is none.", f"1.{_INT63 + 1}.3.4.j1"),
            ("a count past 31 bits", "No answer is so long.", f"1.2.{_INT31 + 1}.4.j1"),
            ("resets past 31 bits", "Nor withdrawn so often.", f"1.2.3.{_INT31 + 1}.j1"),
        )
    ]


def _token(
    name: str,
    meaning: str,
    text: str,
    says: tuple[int, int, int, int, str],
    *,
    canonical: str | None = None,
) -> Vector:
    names = ("partition", "reply_from", "count", "resets", "job")
    expect: Fields = dict(zip(names, says, strict=True))
    other: dict[str, Any] = {} if canonical is None else {"canonical": canonical}
    return {"name": name, "meaning": meaning, "text": text, **other, "expect": expect}
