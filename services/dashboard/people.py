"""Panels of people against other judges: of groups that people labelled, who agrees with them."""

from collections.abc import Callable

from services.dashboard.charts import Chart, shares
from services.dashboard.data_tables import Table
from services.dashboard.elements import empty, table, tag
from services.dashboard.numbers import percent
from services.dashboard.panels import Board, Model
from services.runs_api.human_agreement import WINDOW, HumanAgreement, Judge
from tdm_core.human_agreement import MIN_GROUPS


def people_panels(board: Board[Model], of: Callable[[Model], HumanAgreement]) -> None:
    """Their panels; `of` finds what they show in the page's model."""
    board.panel(
        "People and other judges",
        lambda model: _judges(of(model)),
        wide=True,
        of=of,
        numbers=lambda model: _numbers(of(model)),
    )
    board.chart(
        "Like rate by another judge's score",
        lambda model: _by_score(of(model)),
        note="From a judge's lowest scores to its highest, in bins of about as many votes. A judge "
        "who agrees with people makes it rise. The surrogate's score is the place in the group.",
    )
    board.chart(
        "Like rate by policy version",
        lambda model: _by_version(of(model)),
        note="Of the version that made the images. The band is the 95% interval.",
    )


def _judges(found: HumanAgreement) -> None:
    if not found.num_groups:
        empty("Nobody has labelled images of this run, or it was not recorded.")
        return
    tag("p", f"People labelled {found.num_groups} groups, {found.num_votes:g} votes.")
    rows = [[judge.name, *_auc(judge), str(judge.agreement.num_groups)] for judge in found.judges]
    table(("judge", "AUC", "95%", "groups that tell"), rows, "Judges against people")
    tag(
        "p",
        "AUC: how often a liked image scores above a disliked one of its group; 50% is chance. "
        f"Over the newest {WINDOW} labelled groups, the surrogate before it learned from their "
        f"labels. Fewer than {MIN_GROUPS} groups with both kinds are not enough.",
        "quiet",
    )


def _auc(judge: Judge) -> tuple[str, str]:
    auc = judge.agreement.auc
    if auc is None:
        return "not enough", "-"
    return percent(auc.value), f"{auc.low:.0%} to {auc.high:.0%}"


def _numbers(found: HumanAgreement) -> Table | None:
    if not found.num_groups:
        return None
    return Table(
        ("judge", "bin", "from", "to", "like rate", "low", "high", "votes"),
        [
            [judge.name, number, each.low, each.high, rate.value, rate.low, rate.high, rate.num]
            for judge in found.judges
            for number, each in enumerate(judge.agreement.bins, 1)
            for rate in [each.like_rate]
        ],
    )


def _by_score(found: HumanAgreement) -> Chart | None:
    parts = {
        judge.name: [each.like_rate for each in judge.agreement.bins] for judge in found.judges
    }
    longest = max(map(len, parts.values()), default=0)
    padded = {name: [*rates, *[None] * (longest - len(rates))] for name, rates in parts.items()}
    return shares("bin", [str(number) for number in range(1, longest + 1)], padded)


def _by_version(found: HumanAgreement) -> Chart | None:
    versions = [
        f"v{each.low:.0f}" if each.low == each.high else f"v{each.low:.0f}-{each.high:.0f}"
        for each in found.like_rates
    ]
    rates = [each.like_rate for each in found.like_rates]
    return shares("policy version", versions, {"like rate": rates})
