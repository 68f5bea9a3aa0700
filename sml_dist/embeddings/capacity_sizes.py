"""Memory sizes as people write them: 80GB, 1TB, 512MiB."""

import re

from pydantic import ByteSize, TypeAdapter, ValidationError

from sml_dist.spec import InputError


def parse_bytes(text: str, option: str) -> int:
    """GB are 10^9 bytes, GiB or Gi 2^30; `option` is named where this is no size. A small bare number but 0 is refused: GB was meant."""
    text = text.strip()
    whole = re.fullmatch(r"(\d+(\.\d+)?|\.\d+)\s*[A-Za-z]*", text)  # pydantic reads 1,5GB as 1, and no Gi without its B
    try:
        size = TypeAdapter(ByteSize).validate_python(whole and re.sub("(?<=[A-Za-z])i$", "iB", text))
    except ValidationError:
        raise InputError(f"{option} {text}: not a size; write it as 80GB, 1TB or 512MiB") from None
    if text.replace(".", "").isdecimal() and 0 < float(text) < 1e6:
        raise InputError(f"{option} {text}: say the unit, as in {text}GB")
    return int(size)


def show_bytes(count: float) -> str:
    """Three digits or more, in the largest unit of 1000s that leaves a whole part."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.{2 if count < 10 * size else 1}f} {unit}"
    return f"{count:.0f} B"
