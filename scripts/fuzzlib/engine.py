"""One target under atheris, in a process of its own: python -m fuzzlib.engine TARGET [libFuzzer option ...] FOLDER."""

import sys

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]


def main() -> None:
    """Does not return."""
    with atheris.instrument_imports(include=["viamillipede"]):
        from . import targets
    target = targets.TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


main()
