"""Looks at both sides now and then, for a picture."""

from tests.sim.record import Record, Sample
from tests.sim.rx_side import RxSide
from tests.sim.setting import Sim
from tests.sim.tx_side import TxSide
from viamillipede.config import MS_US

SAMPLE_US = 20 * MS_US


def watch(world: Sim, tx: TxSide, rx: RxSide, record: Record) -> None:
    """Take a sample now, and again until tx is done."""
    session, reassembly = tx.session, rx.session.reassembly
    record.samples.append(
        Sample(
            at_us=world.now_us,
            written=reassembly.written,
            head=session.window.head,
            limit=session.window.limit_bytes,
            memory=reassembly.memory_bytes(),
            due=reassembly.due_seq,
            wanted=sum(session.dialling.targets),
            unacked={mine.leg: mine.connection.forward.unacked_bytes() for mine in tx.connections.values()},
        )
    )
    if not session.done:
        world.after(SAMPLE_US, lambda: watch(world, tx, rx, record))
