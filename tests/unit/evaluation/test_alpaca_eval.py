"""AlpacaEval's numbers worked by hand, what its logistic model must satisfy, and its files."""

import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from r2m.errors import UserError
from r2m.evaluation.alpaca_eval import (
    Annotations,
    Gamed,
    Weights,
    alpaca_length_controlled,
    alpaca_win_rate,
    controlled_by,
)
from r2m.evaluation.alpaca_files import (
    EvaluationSet,
    annotation_rows,
    read_annotations,
    read_evaluation_set,
    read_outputs,
    write_rows,
)
from r2m.evaluation.alpaca_tables import read_difficulty, read_gamed, read_weights
from r2m.evaluation.length_glm import cross_validated, fit, sigmoid, tanh_of_lengths

NAN = math.nan


def annotations(preference, model="new", **changes) -> Annotations:
    n = len(preference)
    columns = {"index_N": np.arange(n), "len_1_N": np.arange(n) * 7 % 11, "len_2_N": np.arange(n) * 5 % 13}
    return Annotations(model, "base", preference_N=np.array(preference, float), **(columns | changes))


@pytest.fixture
def gamed() -> Gamed:
    """40 instructions of difficulty 0, twice: the judge favours the longer one, and the shorter one loses."""
    x = np.linspace(-2, 2, 80)
    return Gamed(sigmoid(-2 * np.tanh(x)), x, np.zeros(80), dict.fromkeys(range(40), 0.0))


class TestWinRate:
    def test_is_that_of_hand(self):
        found = alpaca_win_rate(np.array([2, 1, 1.5, 0, NAN, 1.2]))  # shares 1, 0, 1/2, 1/2, 0.2
        assert found.win_rate == pytest.approx(44)
        assert found.standard_error == pytest.approx(100 * math.sqrt(0.572 / 4 / 5))
        assert (found.n_wins, found.n_wins_base, found.n_draws, found.n_total) == (1, 2, 2, 5)
        assert found.discrete_win_rate == pytest.approx(40)  # 1, 0, 1/2, 1/2, 0

    def test_leaves_out_what_is_no_preference(self):
        found = alpaca_win_rate(np.array([2, 0.7, 2.6, -1, NAN]))
        assert (found.win_rate, found.n_total) == (100, 1)
        assert math.isnan(found.standard_error)

    def test_needs_one_preference(self):
        with pytest.raises(UserError, match=r"^preference: none of 2 rows has one"):
            alpaca_win_rate(np.array([NAN, 3]))


class TestLogisticModel:
    def test_one_weight_is_that_of_hand(self):
        """8 wins in 10: C · 10 (sigmoid(b) - 0.8) + 1 = 0."""
        ones = np.ones((10, 1))
        wins = np.array([1.0] * 8 + [0.0] * 2)
        assert sigmoid(fit(ones, wins, np.ones(10), 1.0))[0] == pytest.approx(0.7)
        assert sigmoid(fit(ones, 1 - wins, np.ones(10), 1.0))[0] == pytest.approx(0.3)
        assert sigmoid(fit(ones, wins, np.full(10, 0.5), 2.0))[0] == pytest.approx(0.7)
        assert fit(ones, wins, np.ones(10), 0.3).tolist() == [0.0]  # the gradient at 0 is 0.3 · 3 < 1

    @pytest.mark.parametrize("strength", [1e-4, 0.02, 0.4, 20.0, 1e4])
    def test_the_minimum_has_no_direction_down(self, strength):
        rng = np.random.default_rng(1)
        X = np.stack([rng.normal(size=300), rng.normal(size=300) * 3, np.ones(300)], 1)
        p, weight = rng.uniform(size=300), rng.uniform(0.1, 2, size=300)
        b = fit(X, p, weight, strength)
        gradient = strength * X.T @ (weight * (sigmoid(X @ b) - p))
        rounding = 1e-6 + 2e-8 * strength * len(p)  # of the objective's last digits
        for slope, value in zip(gradient, b, strict=True):
            if value == 0:
                assert abs(slope) <= 1 + rounding
            else:
                assert slope == pytest.approx(-np.sign(value), abs=rounding)

    def test_separable_rows_and_an_empty_column_have_a_finite_minimum(self):
        X = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]])
        b = fit(X, np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4), 1e4)
        assert 5 < b[0] < 50
        assert b[1] == 0

    def test_columns_that_are_all_but_equal_are_no_trouble(self):
        """Lengths that all differ by as much: 3 in 4 win, and only the sum of both weights matters."""
        X = np.ones((200, 2))
        X[::2, 0] -= 1e-12
        b = fit(X, np.array([1.0, 1.0, 1.0, 0.0] * 50), np.ones(200), 1e4)
        assert sigmoid(b.sum()) == pytest.approx(0.75, abs=1e-4)

    def test_a_start_changes_nothing(self):
        rng = np.random.default_rng(2)
        X, p = rng.normal(size=(50, 3)), rng.uniform(size=50)
        near, far = (fit(X, p, np.ones(50), 3.0, start) for start in (None, np.array([5.0, -5.0, 0.0])))
        assert near == pytest.approx(far, abs=1e-7)

    def test_the_strength_is_the_one_that_predicts_best(self):
        rng = np.random.default_rng(3)
        x = rng.normal(size=(60, 1))
        noise = cross_validated(rng.normal(size=(60, 1)), rng.integers(0, 2, 60).astype(float), np.ones(60))
        signal = cross_validated(x, sigmoid(4 * x[:, 0]), np.ones(60))
        assert noise.strength < signal.strength
        assert signal.losses[signal.strength] == min(signal.losses.values())
        assert signal.weights[0] == pytest.approx(4, rel=0.02)

    def test_needs_a_row_for_each_fold(self):
        with pytest.raises(ValueError, match="rows = 4"):
            cross_validated(np.ones((4, 1)), np.ones(4), np.ones(4))

    def test_lengths_are_in_standard_deviations(self):
        both = tanh_of_lengths(np.array([3, 1]), np.array([1, 3]))  # differences 2 and -2, deviation sqrt 8
        assert both.tolist() == pytest.approx([math.tanh(2**-0.5), -math.tanh(2**-0.5)])
        assert tanh_of_lengths(np.array([5, 6]), np.array([1, 2])).tolist() == [0, 0]
        assert tanh_of_lengths(np.array([5]), np.array([1])).tolist() == [0]


class TestLengthControlled:
    def test_weights_give_that_of_hand(self):
        """sigmoid of log 3 and of -log 3: 3/4 and 1/4."""
        found = controlled_by(Weights(length=9.0, difficulty=math.log(3), model=0.0), np.array([1.0, -1.0]))
        assert found.win_rate == pytest.approx(50)
        assert found.standard_error == pytest.approx(25)  # the deviation is 1/4 · sqrt 2, over sqrt 2

    def test_the_baseline_against_itself_is_at_50(self, gamed):
        found = alpaca_length_controlled(annotations([1.5] * 8, model="base"), gamed)
        assert (found.win_rate, found.standard_error) == (50, 0)

    def test_wins_by_length_are_taken_out(self, gamed):
        long = annotations(
            [1.9] * 20 + [1.1] * 10, len_1_N=np.full(30, 100), len_2_N=np.array([190] * 20 + [20] * 10)
        )
        assert alpaca_win_rate(long.preference_N).win_rate == pytest.approx(100 * 19 / 30)
        assert alpaca_length_controlled(long, gamed).win_rate == pytest.approx(50, abs=5)

    def test_a_row_without_a_preference_counts_in_lengths_and_predictions_only(self, gamed):
        rng = np.random.default_rng(0)
        preference = 1.6 + 0.4 * rng.uniform(size=30)
        preference[4] = NAN
        with_none = alpaca_length_controlled(annotations(preference), gamed)
        other = preference.copy()
        other[4] = 7.0  # no preference either
        assert alpaca_length_controlled(annotations(other), gamed) == with_none
        other[4] = 1.0
        assert alpaca_length_controlled(annotations(other), gamed).weights != with_none.weights

    def test_a_tie_is_0_or_one_and_a_half(self, gamed):
        ties = [1.3, 0.0, 1.7, 1.5, 0.0, 1.1]
        assert alpaca_length_controlled(annotations(ties), gamed) == alpaca_length_controlled(
            annotations([p or 1.5 for p in ties]), gamed
        )

    def test_the_chosen_strength_is_one_of_those_reported(self, gamed):
        found = alpaca_length_controlled(annotations(np.linspace(1, 2, 25)), gamed)
        assert found.win_rate_by_strength[found.strength] == found.win_rate
        assert found.losses[found.strength] == min(found.losses.values())

    def test_an_instruction_of_unknown_difficulty_is_named(self, gamed):
        with pytest.raises(UserError, match=r"^index = 40 in the annotations of 'new'.*40 known ones are 0 .. 39"):
            alpaca_length_controlled(annotations([1.5] * 41), gamed)

    def test_rows_without_an_index_are_refused(self, gamed):
        with pytest.raises(UserError, match=r"the rows have no index, .* as --instructions$"):
            alpaca_length_controlled(annotations([1.5] * 9, index_N=None), gamed)

    @pytest.mark.parametrize("n", [1, 4])
    def test_fewer_rows_than_folds_are_refused(self, n, gamed):
        few = annotations([1.2, 1.4, 1.6, 1.8][:n] + [NAN] * 3)
        with pytest.raises(UserError, match=f"'new': {n} with a preference; .* rate needs 5 or more"):
            alpaca_length_controlled(few, gamed)

    def test_another_baseline_than_the_gamed_one_is_refused(self, gamed):
        with pytest.raises(UserError, match=r"^generator_1 = 'base' .*; the gamed rows are those of 'gpt4'$"):
            alpaca_length_controlled(annotations([1.5] * 9), replace(gamed, baseline="gpt4"))

    def test_the_order_of_rows_says_nothing(self, gamed):
        """Difficulties that matter, rows shuffled and one missing: the instruction counts, to the last digit."""
        rng = np.random.default_rng(4)
        hard = {i: float(z) for i, z in enumerate(rng.normal(size=40))}
        gamed = replace(gamed, difficulty=hard, difficulty_G=np.array([*hard.values()] * 2))
        rows = annotations(1 + sigmoid(np.array([2 * z for z in hard.values()])))
        whole = alpaca_length_controlled(rows, gamed)

        def taken(order):
            columns = ("index_N", "preference_N", "len_1_N", "len_2_N")
            return replace(rows, **{name: getattr(rows, name)[order] for name in columns})

        assert alpaca_length_controlled(taken(np.arange(40)[::-1]), gamed) == whole
        assert alpaca_length_controlled(taken(rng.permutation(40)), gamed) == whole
        assert alpaca_length_controlled(taken(np.arange(1, 40)), gamed).win_rate == pytest.approx(
            whole.win_rate, abs=2
        )
        misplaced = replace(rows, index_N=np.arange(40)[::-1])
        assert abs(alpaca_length_controlled(misplaced, gamed).standard_error - whole.standard_error) > 1

    def test_no_preferences_are_refused(self, gamed):
        with pytest.raises(UserError, match="none of 6 rows"):
            alpaca_length_controlled(annotations([NAN] * 6), gamed)


def outputs(generator: str, **texts: str) -> list[dict]:
    return [
        {"instruction": key, "output": text, "generator": generator, "dataset": "d"} for key, text in texts.items()
    ]


class TestFiles:
    def test_outputs_and_annotations_come_back_as_they_were_written(self, tmp_path):
        base, new = outputs("base", a="1", b="<b>é\n", c="333"), outputs("new", c="4444", b="22", z="5")
        write_rows(tmp_path / "model_outputs.json", new)
        assert read_outputs(tmp_path / "model_outputs.json") == new
        rows = annotation_rows(base, new, {"b": 0.25, "c": None}, "judge")
        write_rows(tmp_path / "annotations.json", rows)
        assert json.loads((tmp_path / "annotations.json").read_text("utf-8")) == [
            {"instruction": "b", "output_1": "<b>é\n", "generator_1": "base", "dataset": "d", "output_2": "22",
             "generator_2": "new", "annotator": "judge", "preference": 1.25},
            {"instruction": "c", "output_1": "333", "generator_1": "base", "dataset": "d", "output_2": "4444",
             "generator_2": "new", "annotator": "judge", "preference": None},
        ]  # fmt: skip
        found = read_annotations(tmp_path / "annotations.json")
        assert (found.model, found.baseline) == ("new", "base")
        assert found.preference_N.tolist() == pytest.approx([1.25, NAN], nan_ok=True)
        assert (found.len_1_N.tolist(), found.len_2_N.tolist()) == ([5, 3], [2, 4])
        assert found.index_N is None  # a position says nothing
        write_rows(tmp_path / "model_outputs.json", base)
        order = read_evaluation_set(tmp_path / "model_outputs.json")
        assert order == EvaluationSet({"a": 0, "b": 1, "c": 2}, "base", by_position=True)
        assert read_annotations(tmp_path / "annotations.json", order).index_N.tolist() == [1, 2]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", "model_outputs.json"]

    def test_an_index_in_the_rows_is_taken(self, tmp_path):
        rows = annotation_rows(outputs("base", a="1", b="2"), outputs("new", a="1", b="2"), {}, "judge")
        write_rows(tmp_path / "annotations.json", [row | {"index": i} for row, i in zip(rows, (7, 3), strict=True)])
        assert read_annotations(tmp_path / "annotations.json").index_N.tolist() == [7, 3]
        order = EvaluationSet({"b": 3, "a": 7}, "base", by_position=False)
        assert read_annotations(tmp_path / "annotations.json", order).index_N.tolist() == [7, 3]
        with pytest.raises(UserError, match="row 0: index = 7, and 6 in the evaluation set"):
            read_annotations(tmp_path / "annotations.json", EvaluationSet({"a": 6, "b": 3}, None, True))

    def test_an_evaluation_sets_own_index_counts_before_the_position(self, tmp_path):
        rows = [row | {"index": i} for row, i in zip(outputs("base", b="", a="", c=""), (4, 2, 0), strict=True)]
        write_rows(tmp_path / "o.json", rows)
        order = read_evaluation_set(tmp_path / "o.json")
        assert order == EvaluationSet({"b": 4, "a": 2, "c": 0}, "base", by_position=False)
        for change, message in (
            ({"index": 4}, "row 2: index = 4 is there twice, in row 0 too"),
            ({"index": 1.0}, "row 2: index = 1.0; a whole number from 0 on is allowed"),
            ({"index": None}, "row 2: index = None; a whole number from 0 on is allowed"),
        ):
            write_rows(tmp_path / "o.json", [*rows[:2], rows[2] | change])
            with pytest.raises(UserError) as caught:
                read_evaluation_set(tmp_path / "o.json")
            assert message in str(caught.value)

    def test_outputs_without_a_generator_have_upstreams_name(self, tmp_path):
        write_rows(tmp_path / "o.json", [{"instruction": "a", "output": "b"}])
        assert read_outputs(tmp_path / "o.json")[0]["generator"] == "Current model"

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"instruction": "a", "generator": "m"}], "row 0: output = None; text is needed"),
            ([{"output": "a", "generator": "m"}], "row 0: instruction = None; text is needed"),
            (outputs("m", a="1") + outputs("n", b="2"), "row 1: generator = 'n', and 'm' in row 0"),
            (outputs("m", a="1") * 2, "row 1: the instruction 'a' is there twice"),
        ],
    )
    def test_bad_outputs_are_one_line(self, rows, message, tmp_path):
        write_rows(tmp_path / "o.json", rows)
        with pytest.raises(UserError) as caught:
            read_outputs(tmp_path / "o.json")
        assert message in str(caught.value)
        assert str(tmp_path / "o.json") in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"preference": 2.5}, "row 1: preference = 2.5; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"preference": "2"}, "row 1: preference = '2'; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"preference": True}, "row 1: preference = True; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"output_2": None}, "row 1: output_2 = None; text is needed"),
            ({"generator_2": "other"}, "row 1: generator_2 = 'other', and 'new' in row 0"),
            ({"preference": 5}, "row 1: preference = 5; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"preference": -0.1}, "row 1: preference = -0.1; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"preference": 10**400}, "row 1: preference = 1000000000"),
            ({"preference": [2]}, "row 1: preference = [2]; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"preference": ...}, "row 1: no preference; 1 .. 2, 0 for a tie, or null is allowed"),
            ({"instruction": "a"}, "row 1: the instruction 'a' is there twice, in row 0 too"),
            ({"instruction": None}, "row 1: instruction = None; text is needed"),
            ({"instruction": ...}, "row 1: instruction = None; text is needed"),
            ({"generator_1": "text_davinci_003"}, "row 1: generator_1 = 'text_davinci_003', and 'base' in row 0"),
        ],
    )
    def test_bad_annotations_are_one_line(self, change, message, tmp_path):
        rows = annotation_rows(outputs("base", a="1", b="2"), outputs("new", a="1", b="2"), {}, "judge")
        changed = {key: value for key, value in (rows[1] | change).items() if value is not ...}
        write_rows(tmp_path / "a.json", [rows[0], changed])
        with pytest.raises(UserError) as caught:
            read_annotations(tmp_path / "a.json")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            (-1, "row 1: index = -1; a whole number from 0 on is allowed"),
            (True, "row 1: index = True; a whole number"),
            ("1", "row 1: index = '1'; a whole number"),
            (10**400, "row 1: index = 1000000"),
            (..., "row 1: index = None; a whole number"),
            (7, "row 1: index = 7 is there twice, in row 0 too"),
        ],
    )
    def test_an_index_that_is_none_or_there_twice_is_one_line(self, second, message, tmp_path):
        rows = annotation_rows(outputs("base", a="1", b="2"), outputs("new", a="1", b="2"), {}, "judge")
        changed = rows[1] if second is ... else rows[1] | {"index": second}
        write_rows(tmp_path / "a.json", [rows[0] | {"index": 7}, changed])
        with pytest.raises(UserError) as caught:
            read_annotations(tmp_path / "a.json")
        assert message in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_a_file_given_twice_is_refused(self, tmp_path):
        rows = annotation_rows(outputs("base", a="1", b="2"), outputs("new", a="1", b="2"), {}, "judge")
        write_rows(tmp_path / "a.json", rows * 2)
        with pytest.raises(UserError, match="row 2: the instruction 'a' is there twice, in row 0 too"):
            read_annotations(tmp_path / "a.json")

    def test_annotations_against_another_baseline_are_refused(self, tmp_path):
        rows = annotation_rows(outputs("davinci", a="1"), outputs("new", a="1"), {}, "judge")
        write_rows(tmp_path / "a.json", rows)
        known = EvaluationSet({"a": 0}, "gpt4", True)
        with pytest.raises(UserError, match=r"row 0: generator_1 = 'davinci'; the outputs of .* 'gpt4'$"):
            read_annotations(tmp_path / "a.json", known)
        nameless = EvaluationSet({"a": 0}, None, True)
        assert read_annotations(tmp_path / "a.json", nameless).baseline == "davinci"

    def test_broken_text_is_written_and_read(self, tmp_path):
        write_rows(tmp_path / "o.json", outputs("m", a="\ud800 é"))
        assert read_outputs(tmp_path / "o.json")[0]["output"] == "\ud800 é"

    def test_an_instruction_of_another_evaluation_set_is_named(self, tmp_path):
        write_rows(tmp_path / "a.json", annotation_rows(outputs("base", a="1"), outputs("new", a="1"), {}, "judge"))
        with pytest.raises(UserError, match="row 0: the instruction 'a' is not in the evaluation set"):
            read_annotations(tmp_path / "a.json", EvaluationSet({"b": 0}, None, True))

    @pytest.mark.parametrize("text", ["", "[", "[1]", "{}", "[]", "[" * 100_000, f"[{'9' * 5000}]"])
    def test_a_file_that_is_no_list_of_rows_is_refused(self, text, tmp_path):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError) as caught:
            read_annotations(tmp_path / "a.json")
        assert "\n" not in str(caught.value)

    def test_preferences_beyond_0_and_1_are_not_written(self):
        with pytest.raises(ValueError, match=r"wins\['a'\] = 1.5"):
            annotation_rows(outputs("base", a="1"), outputs("new", a="1"), {"a": 1.5}, "judge")

    def test_tables_are_read(self, tmp_path):
        (tmp_path / "g.csv.gz").write_bytes(
            gzip.compress(
                b"model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
                b"c,0.1,5,2.5,-1,False\nc,0.2,6,1.5,0.5,False\nv,0.3,5,-2.5,-1,False\n"
            )
        )
        gamed = read_gamed(tmp_path / "g.csv.gz")
        assert gamed.difficulty == {5: -1, 6: 0.5}
        assert gamed.baseline is None  # "c" and "v" do not say
        assert gamed.preference_G.tolist() == [0.1, 0.2, 0.3]
        assert gamed.std_delta_len_G.tolist() == [2.5, 1.5, -2.5]
        (tmp_path / "d.csv").write_text("index,instruction_difficulty\n0,-1.5\n1,2\n")
        assert read_difficulty(tmp_path / "d.csv") == {0: -1.5, 1: 2}
        (tmp_path / "w.csv").write_text(
            ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\nm,-1,2,3\n"
        )
        assert read_weights(tmp_path / "w.csv") == {"m": Weights(-1, 2, 3)}

    def test_gamed_rows_name_their_baseline(self, tmp_path):
        heading = "\ufeffmodel,preference,index,std_delta_len,instruction_difficulty\n"
        rows = "base_x_concise,0.1,5,2,1\nbase_x_verbose,0.1,5,2,1\n"
        (tmp_path / "g.csv").write_text(heading + rows)
        assert read_gamed(tmp_path / "g.csv").baseline == "base_x"
        for bad, message in (
            ("base_x_concise,5,6,2,1\n", "row 2: preference = 5.0; 0 .. 1 is allowed"),
            ("base_x_concise,-0.1,6,2,1\n", "row 2: preference = -0.1; 0 .. 1 is allowed"),
            ("base_x_concise,0.1,5,2,1\n", "model and index ('base_x_concise', 5) is there twice, in row 0"),
            ("base_y_concise,0.1,5,2,3\n", "row 2: another instruction_difficulty of index 5 than before"),
            ("base_y_concise,0.1,5.5,2,3\n", "row 2: index = 5.5; a whole number from 0 on is allowed"),
        ):
            (tmp_path / "g.csv").write_text(heading + rows + bad)
            with pytest.raises(UserError) as caught:
                read_gamed(tmp_path / "g.csv")
            assert message in str(caught.value)

    def test_weights_of_a_model_that_is_there_twice_are_refused(self, tmp_path):
        heading = ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
        (tmp_path / "w.csv").write_text(f"{heading}m,-1,2,3\nm,-1,2,4\n")
        with pytest.raises(UserError, match="row 1: the model 'm' is there twice, in row 0 too"):
            read_weights(tmp_path / "w.csv")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("index\n1\n", "no rows with instruction_difficulty"),
            ("", "no rows; at least one is needed"),
            ("index,instruction_difficulty\n1,x\n", "row 0: instruction_difficulty = 'x'; a finite number is needed"),
            ("index,instruction_difficulty\n1\n", "row 0: instruction_difficulty = None; a finite number is needed"),
            ("index,instruction_difficulty\n1,nan\n", "row 0: instruction_difficulty = 'nan'"),
        ],
    )
    def test_bad_tables_are_one_line(self, text, message, tmp_path):
        (tmp_path / "d.csv").write_text(text)
        with pytest.raises(UserError) as caught:
            read_difficulty(tmp_path / "d.csv")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_or_broken_table_is_one_line(self, tmp_path):
        (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"index")[:-9])
        for name, said in (("d.csv.gz", "cannot be read"), ("none.csv", "no such file")):
            with pytest.raises(UserError, match=said):
                read_gamed(tmp_path / name)
