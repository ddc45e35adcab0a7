"""Programs between the source and the network: compression, encryption, mbuffer, pv."""

import re

import pytest

from tests.e2e.helpers import KIB, MIB
from tests.recipes.book import Recipe, recipe
from tests.recipes.helpers import Hosts, missing, needs
from tests.recipes.trees import assert_same, plant

pytestmark = pytest.mark.slow
COMPRESSED, ENCRYPTED, BY_OPENSSL = recipe("Compressed"), recipe("Encrypted"), recipe("Encrypted by openssl")
BUFFERED = recipe("With mbuffer and pv")
COMPRESSORS = {
    "zstd": ("zstd -T0", "zstd -d"),
    "pigz": ("pigz", "pigz -d"),
    "gzip": ("gzip", "gzip -d"),
    "lz4": ("lz4 -c", "lz4 -d"),
}
HAVE_ZSTD, HAVE_OPENSSL = needs(missing(zstd="zstd")), needs(missing(openssl="openssl"))


def changes(hosts: Hosts, **more: str) -> tuple[dict[str, str], dict[str, str]]:
    """What stands for the names of both texts."""
    return {"/restore": str(hosts.target), **more}, {"/srv": str(hosts.source), **more}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(missing(**{name: name}))) for name in COMPRESSORS])
def test_compressed(hosts: Hosts, name: str) -> None:
    plant(hosts.source, bulk_bytes=4 * MIB)
    compress, decompress = COMPRESSORS[name]
    receiver, sender = changes(hosts)
    hosts.succeed(COMPRESSED, receiver | {"zstd -d": decompress}, sender | {"zstd -T0": compress})
    assert_same(hosts.source, hosts.target)


@HAVE_ZSTD
@pytest.mark.parametrize("fails", ["the first", "the middle"])
@pytest.mark.parametrize("shell", ["bash -o pipefail -c", "sh -c"])
def test_a_program_of_the_sending_pipe_fails(hosts: Hosts, shell: str, fails: str) -> None:
    """With pipefail it is noticed wherever it is; without, only the last one counts."""
    plant(hosts.source, bulk_bytes=MIB)
    receiver, sender = changes(hosts)
    sender["bash -o pipefail -c"] = shell
    if fails == "the first":
        sender["/srv ."] = f"{hosts.source} . ./not-there"
        del sender["/srv"]
    else:
        hosts.program("broken", "head -c 200000; cat > /dev/null; exit 3")
        sender["zstd -T0"] = "broken | zstd"
    received, sent = hosts.cook(COMPRESSED, receiver, sender)
    if shell == "sh -c" and fails == "the first":
        assert (sent.status, received.status) == (0, 0), "a part is missing, and nobody complains"
    elif shell == "sh -c":  # the receiving tar finds that its input ends too early, and only it can
        assert (sent.status, received.status) == (8, 7), sent.said + received.said
    else:
        assert (sent.status, received.status) == (7, 8), sent.said + received.said


@HAVE_ZSTD
def test_a_program_of_the_receiving_pipe_fails(hosts: Hosts) -> None:
    plant(hosts.source, bulk_bytes=MIB)
    hosts.program("broken", "head -c 1000; cat > /dev/null; echo out of luck >&2; exit 3")
    receiver, sender = changes(hosts)
    received, sent = hosts.cook(COMPRESSED, receiver | {"tar x": "broken | tar x"}, sender)
    assert (received.status, sent.status) == (7, 8), received.said + sent.said
    assert "out of luck" in sent.said, "tx repeats the last lines of the sink"


def key_file(hosts: Hosts, text: str = "correct horse battery staple") -> str:
    """A key for openssl, in a file."""
    path = hosts.folder / f"key{len(text)}"
    path.write_text(text)
    return f"file:{path}"


def own_key(hosts: Hosts, name: str = "key") -> str:
    """A key for both sides, in a file."""
    path = hosts.folder / name
    if not path.exists():
        hosts.shell(name, f"umask 077; viamillipede key > {path}").ended()
    return str(path)


def test_encrypted(hosts: Hosts) -> None:
    plant(hosts.source, bulk_bytes=4 * MIB)
    receiver, sender = changes(hosts, **{"/etc/viamillipede.key": own_key(hosts)})
    hosts.succeed(ENCRYPTED, receiver, sender)
    assert_same(hosts.source, hosts.target)


def test_another_key_gets_nothing_in(hosts: Hosts) -> None:
    receiver, sender = changes(hosts)
    receiver["/etc/viamillipede.key"] = own_key(hosts)
    sender["/etc/viamillipede.key"] = own_key(hosts, "another")
    rx = hosts.shell("receiver", hosts.on(ENCRYPTED.receiver.replace("rx 8834", "rx 8834 wait 5s"), receiver))
    sent = hosts.shell("sender", hosts.on(ENCRYPTED.sender, sender)).ended()
    assert (sent.status, rx.ended().status) == (4, 9) and "another key" in sent.said
    assert not list(hosts.target.iterdir())


@HAVE_OPENSSL
def test_encrypted_by_openssl(hosts: Hosts) -> None:
    plant(hosts.source, bulk_bytes=4 * MIB)
    receiver, sender = changes(hosts, **{"file:/etc/key": key_file(hosts)})
    hosts.succeed(BY_OPENSSL, receiver, sender)
    assert_same(hosts.source, hosts.target)


@HAVE_OPENSSL
def test_openssl_does_not_notice_another_key(hosts: Hosts) -> None:
    """What the page warns of: with tar behind it tar does, but openssl says that all is well."""
    (hosts.source / "file").write_bytes(bytes(KIB))
    receiver, sender = changes(hosts)
    receiver["file:/etc/key"], sender["file:/etc/key"] = key_file(hosts), key_file(hosts, "another")
    receiver["tar x -C /restore"] = f"cat > {hosts.target}/decrypted"
    del receiver["/restore"]
    received, sent = hosts.succeed(BY_OPENSSL, receiver, sender)
    decrypted = (hosts.target / "decrypted").read_bytes()
    assert decrypted and b"ustar" not in decrypted, received.said + sent.said


@needs(missing(mbuffer="mbuffer", pv="pv"))
def test_mbuffer_and_pv(hosts: Hosts) -> None:
    plant(hosts.source)
    receiver, sender = changes(hosts, **{"1G": "16M"})
    _, sent = hosts.succeed(BUFFERED, receiver, sender | {"pv": "pv -f"})
    assert re.search(r"\d+%", sent.said), f"pv knows how much is to come:\n{sent.said}"
    assert_same(hosts.source, hosts.target)


def without_pipefail(text: Recipe) -> str:
    """The sending side of a pipeline, with the line missing that this is about."""
    assert text.sender.startswith("set -o pipefail\n")
    return text.sender.removeprefix("set -o pipefail\n")


@needs(missing(mbuffer="mbuffer", pv="pv"))
@pytest.mark.parametrize("pipefail", [False, True], ids=["without", "with"])
def test_mbuffer_hides_that_its_input_failed(hosts: Hosts, pipefail: bool) -> None:
    plant(hosts.source, bulk_bytes=MIB)
    receiver, sender = changes(hosts, **{"1G": "16M"})
    rx = hosts.shell("receiver", hosts.on(BUFFERED.receiver, receiver))
    text = BUFFERED.sender if pipefail else without_pipefail(BUFFERED)
    sent = hosts.shell("sender", hosts.on(text, sender | {"tar c": "tar c --warning=none -C / not-there"})).ended()
    assert (sent.status != 0, rx.ended().status) == (pipefail, 0), sent.said
