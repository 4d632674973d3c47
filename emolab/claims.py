"""`Claim`: a published claim tested on the model in hand, and the one rule that turns its numbers into a verdict.

Every experiment turns its statistics so that more is what is claimed; nothing else may be chosen after looking.
"""

from dataclasses import asdict, dataclass

from emolab.errors import EmolabError, brief

VERDICTS = ("replicates", "weak", "does not replicate", "not testable on this model")
PARTS = ("reading", "geometry", "function", "use")


@dataclass(frozen=True)
class Claim:
    """What was claimed, what was measured, and what stands beside it.

    claim : the claim in a sentence
    part : 'reading' (what is represented), 'geometry' (how it lies), 'function' (what it does), 'use' (what it is good
        for)
    source : where it was published
    statistic : what was measured, with its unit, turned so that more is what is claimed
    value, low, high : the statistic and its 95 % interval
    chance : what it would be without any effect
    null : what 95 % of the nulls stay below; null_name : which nulls
    n : how many `of` went into it
    paper : the paper's own figure, in words
    reason : why it can't be tested on this model, if it can't
    """

    claim: str
    part: str
    source: str
    statistic: str
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    chance: float = 0.0
    null: float = float("nan")
    null_name: str = ""
    n: int = 0
    of: str = ""
    paper: str = ""
    reason: str = ""

    def __post_init__(self):
        if self.part not in PARTS:
            raise EmolabError(f"part {brief(self.part)} is not one of {', '.join(PARTS)}")

    @property
    def verdict(self) -> str:
        """The rule, fixed before any model was looked at.

        'replicates': the whole interval is above chance, and the value is above what 95 % of the nulls reach.
        'weak': one of the two. 'does not replicate': neither. A number that could not be computed is not above.
        """
        if self.reason:
            return VERDICTS[3]
        return VERDICTS[2 - (self.low > self.chance) - (self.value > self.null)]

    def row(self) -> dict:
        """The claim as a flat dictionary, its verdict included."""
        return asdict(self) | {"verdict": self.verdict}
