"""Fetch sessions against a broker that keeps to KIP-227, whatever is followed or fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.fetching.place import Place
from aril.fetching.session import FIRST, LAST_EPOCH, NO_SESSION, FetchSession

PLACES = [Place(topic, number) for topic in ("a", "b") for number in range(3)]
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(PLACES), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.sampled_from(PLACES)),
        st.tuples(st.sampled_from(["fetch", "fetch", "evict", "lose"])),
    ),
    max_size=40,
)


class Broker:
    """What a broker makes of requests: a session and what it remembers in it."""

    def __init__(self) -> None:
        self.session = NO_SESSION
        self.epoch = FIRST
        self.read: dict[Place, int] = {}
        self.made = 0

    def fetch(self, session: FetchSession) -> bool:
        """Take a request; return whether it was in order. Its answer is given at once."""
        ask = session.ask()
        if ask.epoch == FIRST:
            assert (ask.session, ask.forget) == (NO_SESSION, [])
            self.made += 1
            self.session, self.epoch, self.read = self.made, FIRST + 1, dict(ask.read)
        elif (ask.session, ask.epoch) == (self.session, self.epoch):
            assert set(ask.forget) <= self.read.keys()
            for place in ask.forget:
                del self.read[place]
            assert all(self.read.get(place) != offset for place, offset in ask.read)
            self.read |= dict(ask.read)
            self.epoch += 1
        else:
            session.lost()
            return False
        session.answered(self.session)
        return True


@given(MOVES)
def test_the_broker_reads_what_is_wanted(moves: list[tuple[object, ...]]) -> None:
    """After each request that is in order the broker knows exactly what is followed, and whence."""
    session, broker, wanted = FetchSession(), Broker(), dict[Place, int]()
    for move in moves:
        match move:
            case ("want", Place() as place, int(offset)):
                session.want(place, offset)
                wanted[place] = offset
            case ("drop", Place() as place):
                session.drop(place)
                wanted.pop(place, None)
            case ("evict",):
                broker.session = NO_SESSION
            case ("lose",):  # a request that nobody knows the fate of
                session.ask()
                session.lost()
            case _:
                if not broker.fetch(session):
                    assert broker.fetch(session)
                assert broker.read == wanted == {each: session.asked(each) for each in session}
    assert bool(session) == bool(wanted)


def test_what_has_not_changed_is_not_told() -> None:
    """That is the point of it: a request names what is new, moved or gone."""
    session = FetchSession()
    for place in PLACES:
        session.want(place, 0)
    assert len(session.ask().read) == len(PLACES)
    session.answered(7)
    assert session.ask() == (7, 1, [], [])
    session.answered(7)
    session.want(PLACES[0], 5)
    session.drop(PLACES[1])
    session.drop(PLACES[2])
    session.want(PLACES[2], 0)
    assert session.ask() == (7, 2, [(PLACES[0], 5)], [PLACES[1]])


def test_what_comes_late_is_nobodys() -> None:
    """An answer to what was asked before the reader went elsewhere is passed over."""
    session = FetchSession()
    session.want(PLACES[0], 3)
    session.want(PLACES[1], 3)
    session.ask()
    session.want(PLACES[0], 1)
    session.drop(PLACES[1])
    assert [session.asked(place) for place in PLACES[:3]] == [None, None, None]


def test_a_broker_without_sessions_is_told_everything() -> None:
    """Each time: it answers with no session."""
    session = FetchSession()
    session.want(PLACES[0], 3)
    for _ in range(3):
        assert session.ask() == (NO_SESSION, FIRST, [(PLACES[0], 3)], [])
        session.answered(NO_SESSION)


def test_epochs_begin_again_at_one() -> None:
    """0 would begin another session."""
    session = FetchSession()
    session.want(PLACES[0], 3)
    session.ask()
    session.answered(7)
    session._epoch = LAST_EPOCH
    assert session.ask().epoch == LAST_EPOCH
    session.answered(7)
    assert session.ask().epoch == 1
