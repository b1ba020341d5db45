"""Average ranks over pairs of domains, with the critical difference."""

from math import isfinite

from tl_runner.plurals import count_noun, pluralize
from tl_runner.report.page.drawing import Chart, Scale, columns
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.ranking import LEAST, Ranking

MOST = 60
NAMED = 12


def figure(ranking: Ranking) -> Figure:
    """A row per setting, best first: its rank, and up to where others are not told from the best."""
    ranks, title = ranking.ranks, f"Average ranks, granted={ranking.granted}"
    if ranks is None:
        few = f"{count_noun(ranking.pairs, 'pair')} {pluralize(ranking.pairs, 'has')} settings in common"
        why = f"{few}: ranks need at least {LEAST}."
        return Figure(f"ranks-{ranking.granted}", title, missing=why)
    listed = list(ranks.average.items())[:MOST]
    (_, best), (_, worst) = listed[0], listed[-1]
    x = Scale(min(best, 1.0) - 0.3, max(worst, best + ranks.critical) + 0.3, "average rank, 1 is the best")
    portions, width = columns(listed)
    panels = []
    for portion in portions:
        said = ", ".join(f"{name} {rank:.1f}" for name, rank in portion)
        words = f"average ranks over {ranks.pairs} pairs: {said}"
        chart = Chart.of_rows([name for name, _ in portion], x, words, width)
        chart.upright(best + ranks.critical, "reference")
        for row, (_, rank) in enumerate(portion):
            chart.mark(rank, -row - 0.68, "c0" if rank <= best + ranks.critical else "quiet")
        panels.append(Panel("", chart.svg, wide=len(portions) == 1))
    friedman = f" Friedman's test that all are alike: p = {ranks.p:.2g}." if isfinite(ranks.p) else ""
    caption = (
        f"Average rank by the target's score over n = {ranks.pairs} pairs of domains, of the {len(ranks.average)}"
        f" settings with granted={ranking.granted} that all of them have. Ranks that differ by less than the critical"
        f" difference {ranks.critical:.2f} (Nemenyi, 5 %) are not told apart; the dashed line is that far from the"
        f" best.{friedman}"
    )
    if len(ranks.average) > MOST:
        caption += f" The {MOST} best are shown."
    if ranking.left_out:
        more = f" and {len(ranking.left_out) - NAMED} more" if len(ranking.left_out) > NAMED else ""
        caption += f" Left out, since some pair lacks them: {', '.join(ranking.left_out[:NAMED])}{more}."
    legend = [Key("dot", "c0", "not told from the best"), Key("dot", "quiet", "worse than the best")]
    return Figure(f"ranks-{ranking.granted}", title, caption, panels, legend)
