"""What both sessions know of the other side: who is reached, who refuses, who is another than ours."""

import pytest

from viamillipede.config import ANSWER_US, GREETING_US, S_US, Address, RxConfig, Secret
from viamillipede.errors import PeerLost, SessionRefused
from viamillipede.protocol.contact import FINAL, Contact
from viamillipede.protocol.presence import Absence
from viamillipede.protocol.wire import Verdict

HOSTS = (Address("a", 1), Address("b", 2))


class Side(Contact):
    """Neither of the two sessions."""

    role, other, opening = "sender", "taker", "hello"


def made(*addresses: Address, wait_us: int | None = None) -> Side:
    """One that dials these addresses, or listens."""
    side = Side(RxConfig(addresses=addresses, regroup_us=S_US, outage_us=9 * S_US), wait_us, {}, 0)
    side.set_out(addresses or HOSTS, [1, 1], moving=False)
    return side


def test_who_dials_dials_and_who_listens_does_not() -> None:
    assert made(*HOSTS).next_dial(0) == (0, 0)
    assert made().next_dial(0) is None


def test_an_answer_is_waited_for_less_long_once_one_was_had() -> None:
    side = made(*HOSTS)
    assert side.answer_us() == GREETING_US
    side.on_reached(0)
    assert side.answer_us() == ANSWER_US < GREETING_US


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.ACCEPTED])
def test_a_refusal_in_words(verdict: Verdict) -> None:
    words = {
        Verdict.VERSION: "the taker speaks another version of the protocol than ours, 3",
        Verdict.CHECKPHRASE: "the taker has another checkphrase",
        Verdict.BUSY: "the taker is busy with another stream",
        Verdict.NAME: "the taker does not take streams of the name ''",
        Verdict.ROLE: "a sender listens there, as we are one; it takes a taker",
        Verdict.KEYLESS: "the taker has neither a key nor a phrase, and we have a key; say it there too",
        Verdict.KEYED: "the taker wants a key or a phrase, and we have neither; say key FILE, or phrase",
        Verdict.KEY: "the taker has another key, or a phrase; both sides need the same",
        Verdict.LATER: "too many have come to the taker from here with another key",
        Verdict.UNKNOWN: "the taker does not know our stream; it may have been started anew",
    }
    assert made(*HOSTS).on_verdict(0, verdict) == words.get(verdict, "the taker found our hello malformed")


def test_who_has_a_phrase_hears_of_phrases() -> None:
    side = Side(RxConfig(addresses=HOSTS, phrase=Secret(b"correct horse")), None, {}, 0)
    side.set_out(HOSTS, [1, 1], moving=False)
    said = [side.on_verdict(0, verdict) for verdict in (Verdict.KEYLESS, Verdict.KEY, Verdict.LATER)]
    assert said == [
        "the taker has neither a key nor a phrase, and we have a phrase; say it there too",
        "the taker has another phrase, or a key; both sides need the same",
        "too many have come to the taker with another phrase",
    ]


@pytest.mark.parametrize("verdict", FINAL)
def test_it_is_final_when_every_address_refuses_for_good_before_the_first_contact(verdict: Verdict) -> None:
    side = made(*HOSTS)
    side.on_verdict(0, verdict)
    side.on_verdict(0, verdict)
    with pytest.raises(SessionRefused, match=r"^b:2: "):
        side.on_verdict(1, verdict)
    side.on_reached(0)  # it has changed its mind
    assert side.on_verdict(1, verdict)
    assert made().on_verdict(0, verdict) and made().on_verdict(1, verdict)  # whoever listens waits for the right one


def test_to_be_busy_is_never_final_and_is_remembered() -> None:
    side = made(*HOSTS)
    for rank in (0, 1):
        side.on_verdict(rank, Verdict.BUSY)
    side.on_attempt_failed(0, "Connection refused", True, 0, 0.5)
    assert side.book.failures() == ["a:1: Connection refused (before: the taker is busy with another stream)"]


def test_another_process_is_final_only_where_ours_was_and_is_nowhere_else() -> None:
    side = made(*HOSTS)
    side.on_reached(0)
    assert side.on_another_process(0, "another", "gone") == "another"  # ours is still there
    side.on_cut_off(0, True, True, 0, 0.5)
    assert side.on_another_process(1, "another", "gone") == "another"  # a wrong address
    with pytest.raises(PeerLost, match="gone"):
        side.on_another_process(0, "another", "gone")


def test_whoever_listens_goes_on_listening_when_another_process_comes() -> None:
    side = made()
    side.on_reached(0)
    side.on_cut_off(0, True, True, 0, 0.5)
    assert side.on_another_process(0, "another", "gone") == "another"


@pytest.mark.parametrize(("refused", "absence"), [(True, Absence.DEAD), (False, None)])
def test_a_port_that_used_to_accept_and_refuses_is_evidence(refused: bool, absence: Absence | None) -> None:
    side = made(*HOSTS)
    side.on_reached(0)
    side.on_cut_off(0, True, False, 0, 0.5)
    side.on_attempt_failed(1, "Connection refused", True, 0, 0.5)  # it never accepted
    assert side.presence.absence(2 * S_US) is None
    side.on_attempt_failed(0, "what it is", refused, 0, 0.5)
    assert side.presence.absence(2 * S_US) is absence


def test_a_leg_that_is_cut_before_it_was_of_use_makes_its_address_rest() -> None:
    side = made(*HOSTS)
    side.on_reached(0)
    side.on_cut_off(0, False, True, 0, 0.5)
    assert side.book.states[0].retry_us > 0
    side.on_reached(0)
    side.on_of_use(0)
    assert not side.book.states[0].cuts
