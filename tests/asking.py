"""Command lines that the tests of `settings` try, and what comes of them."""

from collections.abc import Sequence

import pytest

from viamillipede.config import Address, DoctorConfig, RxConfig, TxConfig
from viamillipede.errors import UsageError
from viamillipede.settings import Said, parse

TX = ("tx", "host", "8834")
RX = ("rx", "8834")


def tx(*words: str, **environ: str) -> TxConfig:
    """The configuration that `tx host 8834` and `words` ask for."""
    parsed = parse([*TX, *words], environ)
    assert isinstance(parsed, TxConfig)
    return parsed


def rx(*words: str, **environ: str) -> RxConfig:
    """The configuration that `rx 8834` and `words` ask for."""
    parsed = parse([*RX, *words], environ)
    assert isinstance(parsed, RxConfig)
    return parsed


def addressed(*argv: str) -> tuple[Address, ...]:
    """The paths that `argv` asks for."""
    parsed = parse(argv, {})
    assert not isinstance(parsed, DoctorConfig)
    return parsed.addresses


def refusal(argv: Sequence[str], files: Said | None = None, /, **environ: str) -> str:
    """The message with which `argv` is refused."""
    with pytest.raises(UsageError) as caught:
        parse(argv, environ, files)
    assert "\n" not in str(caught.value)
    return str(caught.value)
