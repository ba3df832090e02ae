"""Whether a newly trained model replaces the one in use: a pure decision over numbers that others gathered.

Only label-free numbers count. Anything stricter (margins, several measures, a paired comparison by sequence) is
another check in ``choose_promotion``; what acts on the decision does not change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What is known of a model when it is compared.

    headline: label-free J, 0..1, on the benchmark named ``benchmark``; None where there are no annotations to
        score against.
    held_out_loss: training loss on footage kept aside; lower is better. Needs no labels at all.
    """

    headline: float | None = None
    benchmark: str | None = None
    held_out_loss: float | None = None

    def __post_init__(self) -> None:
        if self.headline is not None and not (math.isnan(self.headline) or 0 <= self.headline <= 1):
            raise InputError(f"Metrics(headline={self.headline}): expected J between 0 and 1, not percent")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to promote, and a sentence that says why, with the numbers."""

    promote: bool
    reason: str


def choose_promotion(champion: Metrics | None, challenger: Metrics) -> Decision:
    """Decide whether ``challenger`` takes the place of ``champion``; None: there is none yet.

    The label-free headline decides where both have one on the same benchmark, else the held-out loss. A tie keeps
    the champion, and so does a number that is missing or not finite: doubt never promotes.
    """
    headline, loss = challenger.headline, challenger.held_out_loss
    broken = next((value for value in (headline, loss) if value is not None and not math.isfinite(value)), None)
    if broken is not None:
        return Decision(promote=False, reason=f"the challenger scored {broken}: it did not train")
    if champion is None:
        return Decision(promote=True, reason="there is no champion yet")
    if headline is not None and champion.headline is not None and challenger.benchmark == champion.benchmark:
        return _compared(
            f"label-free J on {challenger.benchmark}", champion.headline, headline, better=headline > champion.headline
        )
    if loss is not None and champion.held_out_loss is not None:
        return _compared("held-out loss", champion.held_out_loss, loss, better=loss < champion.held_out_loss)
    return Decision(
        promote=False,
        reason="champion and challenger share no number: score both on one benchmark, or give both a held-out loss",
    )


def _compared(measure: str, champion: float, challenger: float, *, better: bool) -> Decision:
    verdict = "better than" if better else "no better than"
    return Decision(promote=better, reason=f"{measure} {challenger:.4f} is {verdict} the champion's {champion:.4f}")
