"""Tables 1 to 5 from a few numbers, and as CSV, Markdown, LaTeX and HTML."""

import csv
import io

import pytest
from made_paper import SETS, MadePaper, whole
from plotly.offline import get_plotlyjs

from r2m.paper.tables import ACCURACY, LLAMA, PRINTED, SIMILARITY, table_1, table_2, table_3, table_4, table_5, tables
from r2m.reports import paper_formats as formats
from r2m.reports.document import Page
from r2m.reports.paper_formats import MEASURED, MISSING, Column, PaperCell, PaperTable
from r2m.reports.render import render
from r2m.results.statistics import Estimate


def cell(table: PaperTable, label: str, heading: str, source: str = MEASURED) -> PaperCell:
    i = [(c.source, c.heading) for c in table.columns].index((source, heading))
    return dict(table.rows)[label][i]


def mean(found: PaperCell) -> float:
    assert found.estimate is not None
    return found.estimate.mean


def test_the_paper_s_tables_agree_with_each_other() -> None:
    """Table 5 repeats Table 2's LLaMA rows, and its Δ are differences to R2M."""
    for arm in ("RLOO", "R2M"):
        lc, _, wr, _, length = PRINTED["table_5"][arm]
        assert [lc, wr, length] == PRINTED["table_2"][arm][3:6]
    for arm, (lc, d_lc, wr, d_wr, _) in PRINTED["table_5"].items():
        if arm != "R2M":
            assert d_lc == pytest.approx(lc - 34.5)
            assert d_wr == pytest.approx(wr - 38.2)


def test_the_methods(made: MadePaper) -> None:
    for seed, rate in enumerate((0.4, 0.6)):
        made.run("RLOO", seed, {"reward/proxy": 1.0})
        made.assess("RLOO", seed, rate=rate, controlled=rate - 0.1, gold=0.2 + seed, characters=50 + 10 * seed)
    table = table_2(made.results(2))
    rloo = cell(table, "RLOO", "WR, %")
    assert rloo.estimate == Estimate(50.0, (pytest.approx(40.0), pytest.approx(60.0)), 2)  # type: ignore[arg-type]
    assert rloo.runs == ("paper-forum-rloo-s0", "paper-forum-rloo-s1")
    assert mean(cell(table, "RLOO", "LC, %")) == pytest.approx(40.0)
    assert mean(cell(table, "RLOO", "gold")) == pytest.approx(0.7)
    assert mean(cell(table, "RLOO", "length")) == pytest.approx(55.0)
    assert cell(table, "RLOO", "length", LLAMA).text == "2186"
    assert cell(table, "SFT", "WR, %").text == "50"
    assert cell(table, "R2M", "gold") == PaperCell(MISSING, why="no run of R2M has finished")
    assert "against the supervised policy" in table.measured


def test_a_judge_is_named_where_the_task_has_no_gold(made: MadePaper) -> None:
    made.run("RLOO", 0, {"reward/proxy": 1.0})
    made.assess("RLOO", 0, rate=0.7, gold=None, judge="vanilla")
    table = table_2(made.results(1))
    assert "the vanilla reward model as judge" in table.measured
    assert mean(cell(table, "RLOO", "WR, %")) == pytest.approx(70.0)
    assert cell(table, "RLOO", "gold").why == "its assessments do not have it"


def test_accuracy_before_and_after_on_each_set_of_pairs(made: MadePaper) -> None:
    made.run("R2M", 0, {"reward/proxy": 1.0})
    made.assess("R2M", 0, accuracies=((0.7, 0.6, 0.8), (0.5, 0.4, 0.3)))
    table = table_3(made.results(1))
    found = [[mean(cell(table, label, pairs)) for label, _ in table.rows] for pairs in SETS]
    assert found == [pytest.approx([70, 60, 80]), pytest.approx([50, 40, 30])]
    assert [cell(table, label, "LLaMA3-8B", ACCURACY).text for label, _ in table.rows] == [
        "72.3", "69.2", "78.6",
    ]  # fmt: skip


def test_similarity_and_the_collapse(made: MadePaper) -> None:
    r = whole(made, 2)
    one, four = table_1(r), table_4(r)
    assert mean(cell(one, "RLOO's trained policies", "across")) == pytest.approx(0.45)
    assert cell(one, "the paper's policy", "across", SIMILARITY).text == "0.45"
    assert mean(cell(one, "RLOO's trained policies, response alone", "across")) == pytest.approx(0.35)
    assert one.notes[0] == "RLOO, seed 0: hacking: <half> & more."
    assert mean(cell(four, "RLOO", "words without a space, %")) == pytest.approx(70)
    assert mean(cell(four, "SFT", "WR, %")) == pytest.approx(34)
    assert mean(cell(four, "RLOO", "gold")) == pytest.approx(0.0895)
    made.assess("R2M", 0)
    made.assess("R2M", 1)
    missing = cell(table_1(made.results(2)), "R2M's trained policies", "across")
    assert missing.why.startswith("no run of R2M has prompts with enough hacking")


def test_ablations_are_compared_with_r2m_seed_by_seed(made: MadePaper) -> None:
    for seed in range(5):
        made.run("R2M", seed, {"reward/proxy": 1.0})
        made.assess("R2M", seed, rate=0.6 + 0.01 * seed, controlled=0.5, gold=0.5)
        made.run("R2M, noise", seed, {"reward/proxy": 1.0})
        made.assess("R2M, noise", seed, rate=0.5 + 0.01 * seed, controlled=0.6, gold=0.5 + 0.1 * (-1) ** seed)
    table = table_5(made.results())
    row = dict(table.rows)["R2M, noise"]
    change, gold = row[3], row[5]
    assert (mean(change), mean(row[1])) == (pytest.approx(-10), pytest.approx(10))
    assert (change.finding, gold.finding) == ("worse", "not distinguishable")
    assert dict(table.rows)["R2M"][3] == PaperCell()
    assert dict(table.rows)["R2M, fixed omega"][-1].text == ""  # the paper has no such row


def test_the_csv_reads_back_unrounded(made: MadePaper) -> None:
    for table in tables(whole(made, 3)):
        head, *rows = csv.reader(io.StringIO(formats.to_csv(table)))
        assert len(set(head)) == len(head)
        assert [len(row) for row in rows] == [len(head)] * len(table.rows)
        for row, (label, cells) in zip(rows, table.rows, strict=True):
            found = dict(zip(head, row, strict=True))
            assert row[0] == label
            for column, name, value in zip(table.columns, formats.names(table), cells, strict=True):
                place = f"{column.source}: {name}"
                if value.estimate is not None:
                    low, high = value.estimate.interval or ("", "")
                    assert float(found[f"{place} mean"]) == value.estimate.mean
                    assert (float(found[f"{place} low"]), float(found[f"{place} high"])) == (low, high)
                    assert int(found[f"{place} seeds"]) == 3
                    assert tuple(found[f"{place} runs"].split()) == value.runs
                elif column.source != MEASURED:
                    assert found[place].replace("-", "−") == value.text


EVIL = r"a_b & 5 % {x} \ <i>|$^~#"


def evil_table() -> PaperTable:
    measured = PaperCell(estimate=Estimate(-1.25, (-2.0, -0.5), 5, 0.0625), runs=(EVIL,), finding="worse")
    fewer = PaperCell(estimate=Estimate(0.04, None, 1), runs=("r",))
    columns = (Column(MEASURED, EVIL), Column(MEASURED, "n"), Column(EVIL, "WR"))
    missing = PaperCell(MISSING, why=EVIL)
    rows = ((EVIL, (measured, fewer, PaperCell("31.2"))), ("Δ", (missing, missing, PaperCell())))
    return PaperTable(2, EVIL, EVIL, EVIL, columns, rows, (EVIL,))


def test_latex_is_escaped() -> None:
    text = formats.to_latex(evil_table())
    escaped = r"a\_b \& 5 \% \{x\} \textbackslash{} \textless{}i\textgreater{}"
    escaped += r"|\$\textasciicircum{}\textasciitilde{}\#"
    assert formats.latex(EVIL) == escaped
    assert rf"\caption{{{escaped}.}}" in text
    assert EVIL not in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert [line.replace(r"\&", "").count("&") for line in body] == [4, 4, 4]
    assert r"\shortstack[r]{$-$1.2 (worse)\\{\tiny [$-$2.0, $-$0.5]}} & 0.0 & 31.2 \\" in text
    assert text.isascii()


def test_html_and_markdown_are_escaped() -> None:
    page, plain = render(Page("", "", [formats.to_part(evil_table())], [])), formats.to_markdown(evil_table())
    page = page.replace(get_plotlyjs(), "")
    assert "<i>" not in page
    assert page.count("&lt;i&gt;") >= 5  # label, headings, source, run, reason
    assert "(n = 1)" in page
    rows = [line for line in plain.splitlines() if line.startswith("|")]
    assert [row.replace(r"\|", "").count("|") for row in rows] == [6] * 4
    assert "−1.2 [−2.0, −0.5] (worse)" in plain


def test_what_is_missing_is_said_once(made: MadePaper) -> None:
    notes = formats.notes_of(table_2(made.results()))
    assert sum(note.startswith("Missing: ") for note in notes) == 1
    assert "GRPO: no run of GRPO has finished" in notes[-1]


def test_every_run_of_a_row_is_named(made: MadePaper) -> None:
    r = whole(made, 2)
    assert formats.runs_by_row(table_4(r))["SFT"] == ["paper-forum-sft-s0", "paper-forum-sft-s1"]
    assert "SFT: paper-forum-sft-s0, paper-forum-sft-s1" in formats.to_markdown(table_4(r))
