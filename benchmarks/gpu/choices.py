"""What a sweep recommends: a choice is named only where it wins by more than the spread.

That is: its 80th percentile lies below the 20th of what is chosen now; over several cases, in the
geometric mean of their quotients. All else keeps the choice that is there.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.record import Row


class Verdict(NamedTuple):
    """The fastest of the candidates that were timed in every case, over the current choice.

    `over` is the geometric mean of the medians' quotients, `worst` the largest of them, `surely`
    the mean of the winner's 80th percentiles over the current's 20th.
    """

    of: str
    winner: str
    current: str
    over: float
    worst: float
    surely: float
    cases: int

    @property
    def beyond(self) -> bool:
        """Say whether the winner is faster by more than the spread."""
        return self.surely < 1


def compare(
    of: str,
    tables: Sequence[Mapping[str, Row]],
    current: Sequence[str],
    *,
    among: Callable[[str], bool] = lambda _: True,
) -> Verdict | None:
    """Compare over cases; a table has the row of each candidate, `current` a name for each table.

    None where there is nothing to compare: no case in which the current choice was timed, or no
    candidate that was timed in all of those.
    """
    pairs = [
        (table, table[name]) for table, name in zip(tables, current, strict=True) if name in table
    ]
    if not pairs:
        return None

    def mean(name: str, share: Callable[[Row, Row], float]) -> float:
        return statistics.geometric_mean(share(table[name], own) for table, own in pairs)

    over = {
        name: mean(name, lambda row, own: row.p50 / own.p50)
        for name in pairs[0][0]
        if among(name) and all(name in table for table, _ in pairs)
    }
    if not over:
        return None
    winner = min(over, key=lambda name: over[name])
    return Verdict(
        of,
        winner,
        " or ".join(dict.fromkeys(own.provider for _, own in pairs)),
        over[winner],
        max(table[winner].p50 / own.p50 for table, own in pairs),
        mean(winner, lambda row, own: row.p80 / own.p20) if over[winner] < 1 else math.inf,
        len(pairs),
    )


def show(verdicts: Sequence[Verdict], kind: str) -> None:
    """Print the comparisons, then what should change as lines of Python; `kind` makes a choice."""
    if not verdicts:
        print("nothing was timed that could be compared")
        return
    width = max(len(each.of) for each in verdicts)
    print(f"\n{'the fastest over what is chosen now':{width}}  mean  worst cases")
    for each in verdicts:
        said = "beyond the spread" if each.beyond else "keep what is there"
        print(f"{each.of:{width}} {each.over:5.3f}  {each.worst:5.3f} {each.cases:5}  {said}")
    changed = [each for each in verdicts if each.beyond]
    print(f"\nto paste: {len(changed)} of {len(verdicts)}; the others keep what is there")
    for each in changed:
        print(f"    # {each.of}: {each.over:.3f} of the time of {each.current}")
        print(f"    {kind}({each.winner.replace(' ', ', ')}),")
