"""Who takes part in the comparison of encrypted transfers, with keys and certificates made for it.

    viamillipede-8-key         ours with `key FILE`, and the suite that it takes here
    viamillipede-8-key-chacha  the same with ChaCha20-Poly1305, as where the processor has no AES
    ssh-aes128-gcm             the user's ssh to an sshd of our own, which runs the sink
    socat-tls                  OpenSSL's choice of suite, and certificates that both sides check

All of it lies in one private folder that goes with the benchmark; no file of the user's is read or changed.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchlib import THREADS_DEFAULT

from .contenders import OURS, BenchError, Contender, Shape, ours_name
from .pipeline import LIMIT_PIPE_BYTES, SINK
from .processes import child_env

KEYED, CHACHA = f"{ours_name(THREADS_DEFAULT)}-key", f"{ours_name(THREADS_DEFAULT)}-key-chacha"
SSH, SOCAT_TLS = "ssh-aes128-gcm", "socat-tls"
SSH_CIPHER = "aes128-gcm@openssh.com"
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
SSHD_ONCE = str(Path(__file__).with_name("sshd_once.py"))
PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd wants this folder when root starts it

# As the program itself, but for what it finds out about the processor.
CHACHA_ONLY = f"""\
import sys
from {OURS}.aio import keys
from {OURS}.cli import main
from {OURS}.protocol import hello
suites = {{cipher: suite for suite, cipher in hello.SUITES.items()}}
trial_ns = keys.trial_ns
keys.trial_ns = lambda: trial_ns() | {{suites["AESGCM"]: sys.maxsize}}
sys.argv[0] = {OURS!r}
sys.exit(main(sys.argv[1:]))
"""

SSHD_CONFIG = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
Ciphers {cipher}
Compression no
LogLevel ERROR
ForceCommand exec env LC_ALL=C sh -c '{sink}; times >&2'
"""

SSH_OPTIONS = {
    "IdentitiesOnly": "yes", "IdentityAgent": "none", "StrictHostKeyChecking": "no", "BatchMode": "yes",
    "UserKnownHostsFile": "/dev/null", "GlobalKnownHostsFile": "/dev/null", "LogLevel": "ERROR",
    "Ciphers": SSH_CIPHER, "Compression": "no",
}  # fmt: skip


@contextmanager
def contenders() -> Iterator[tuple[list[Contender], list[str]]]:
    """Those that this machine can run, and for each of the others a line that says why not. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="bench-sealed-") as name:
        folder = Path(name)
        found = [_keyed(folder)]
        found.append(_chacha(found[0]))
        reasons = []
        for label, missing, make in ((SSH, _ssh_missing, _ssh), (SOCAT_TLS, _socat_missing, _socat)):
            if reason := missing():
                reasons.append(f"{label} needs {reason}")
                continue
            try:
                found.append(make(folder))
            except BenchError as error:
                reasons.append(f"{label}: {error}")
        yield found, reasons


def _made(argv: Sequence[str], stdout: int = subprocess.DEVNULL) -> None:
    """Run what makes a key. Raises BenchError with its last words."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=child_env(), text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BenchError(f"no key could be made: {argv[0]} exited {done.returncode}: {lines[-1]}")


def _keyed(folder: Path) -> Contender:
    key = folder / "key"
    out = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _made([sys.executable, "-m", OURS, "key"], out)
    finally:
        os.close(out)
    program, legs = (sys.executable, "-m", OURS), THREADS_DEFAULT
    return Contender(
        KEYED,
        (*program, "rx", "{port}", "bind", "127.0.0.1", "key", str(key)),
        (*program, "tx", "127.0.0.1", "{port}", "threads", str(legs), "key", str(key)),
        legs=legs,
    )


def _chacha(keyed: Contender) -> Contender:
    rx, tx = ((sys.executable, "-c", CHACHA_ONLY, *command[3:]) for command in (keyed.rx, keyed.tx))
    return Contender(CHACHA, rx, tx, legs=keyed.legs)


def _ssh_missing() -> str:
    """What it lacks to run; "" if nothing."""
    tools = {"sshd": SSHD, "ssh": shutil.which("ssh"), "ssh-keygen": shutil.which("ssh-keygen")}
    if lacking := [name for name, path in tools.items() if path is None]:
        return " and ".join(lacking)
    ciphers = subprocess.run(["ssh", "-Q", "cipher"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if SSH_CIPHER not in ciphers.stdout.split():
        return f"an ssh that knows {SSH_CIPHER}"
    if (wrapper := _in_namespace()) and subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        return f"the folder {PRIVILEGE_SEPARATION}, or the right to make it in a mount namespace"
    return ""


def _in_namespace() -> tuple[str, ...]:
    """Where root has never started sshd, its folder is made in a mount namespace that dies with it."""
    if os.geteuid() or PRIVILEGE_SEPARATION.is_dir():
        return ()
    script = f'mount -t tmpfs none /run && mkdir -m 755 {PRIVILEGE_SEPARATION} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def _ssh(folder: Path) -> Contender:
    for name in ("host", "client"):
        _made(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
    shutil.copy(folder / "client.pub", folder / "authorized")
    config = folder / "sshd_config"
    config.write_text(SSHD_CONFIG.format(folder=folder, cipher=SSH_CIPHER, sink=" ".join(SINK)))
    options = [word for name, value in SSH_OPTIONS.items() for word in ("-o", f"{name}={value}")]
    user = pwd.getpwuid(os.geteuid()).pw_name
    return Contender(
        SSH,
        (*_in_namespace(), sys.executable, "-S", SSHD_ONCE, "{port}", str(SSHD), "-i", "-e", "-f", str(config)),
        ("ssh", "-F", "none", *options, "-i", str(folder / "client"), "-p", "{port}", f"{user}@127.0.0.1", "sink"),
        Shape.SSH,
        pipe_bytes=LIMIT_PIPE_BYTES,
    )


def _socat_missing() -> str:
    """What it lacks to run; "" if nothing."""
    if lacking := [name for name in ("socat", "openssl") if not shutil.which(name)]:
        return " and ".join(lacking)
    features = subprocess.run(["socat", "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if "define WITH_OPENSSL 1" in features.stdout else "a socat with OpenSSL"


def _socat(folder: Path) -> Contender:
    key, certificate, both = (folder / name for name in ("tls.key", "tls.crt", "tls.pem"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-days", "2", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    _made(["openssl", "req", "-x509", *curve, *names, *files])
    both.touch(0o600)
    both.write_text(key.read_text() + certificate.read_text())
    socat, checked = ("socat", "-u", "-b", "1048576"), f"cert={both},cafile={certificate},verify=1"
    return Contender(
        SOCAT_TLS,
        (*socat, f"OPENSSL-LISTEN:{{port}},bind=127.0.0.1,reuseaddr,{checked}", "STDOUT"),
        (*socat, "STDIN", f"OPENSSL:127.0.0.1:{{port}},commonname=127.0.0.1,{checked}"),
        pipe_bytes=LIMIT_PIPE_BYTES,
    )
