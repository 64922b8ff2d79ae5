"""Files of examples, and the batches they are taken in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import scipy.stats
import torch
from messages import naming

from minisbert.errors import MinisbertWarning
from minisbert.train import read_examples
from minisbert.train.data import Examples, batches
from minisbert.train.evaluate import pearson, ranks, retrieval_measures, spearman

# Fields as in snli_1.0_train.jsonl and multinli_1.0_train.jsonl; the texts are made up.
SNLI = [
    {
        "annotator_labels": ["neutral"],
        "gold_label": "neutral",
        "pairID": "1",
        "sentence1": "A cat sits.",
        "sentence2": "It is red.",
    },
    {"annotator_labels": ["neutral", "entailment"], "gold_label": "-", "pairID": "2", "sentence1": "A.", "sentence2": "B."},
    {
        "annotator_labels": ["entailment"],
        "gold_label": "entailment",
        "pairID": "3",
        "sentence1": "A cat sits.",
        "sentence2": "It sits.",
    },
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def test_snli_is_read_as_it_is_published(tmp_path: Path) -> None:
    file = write(tmp_path / "snli_1.0_train.jsonl", "".join(json.dumps(row) + "\n" for row in SNLI))
    with pytest.warns(MinisbertWarning, match=naming("snli_1.0_train.jsonl", "1 rows", "gold label")):
        found = read_examples(file, ("sentence1", "sentence2"), "gold_label")
    assert found.columns == [["A cat sits.", "A cat sits."], ["It is red.", "It sits."]]
    assert found.labels is not None
    assert found.labels.tolist() == [2, 1]
    assert found.labels.dtype == torch.int64


def test_a_table_has_scores_divided_by_the_largest(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.tsv", '\ufeffscore\ta\tb\r\n5.0\t"x"\ty\r\n\r\n2\tz\tw\n')
    found = read_examples(file, ("b", "a"), "score", max_score=5)
    assert found.columns == [["y", "w"], ['"x"', "z"]]
    assert found.labels is not None
    assert found.labels.tolist() == pytest.approx([1.0, 0.4])


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": ["x", "y"], "b": ["z", "w"], "label": [1, 0]}), tmp_path / "pairs.parquet")
    found = read_examples(tmp_path / "pairs.parquet", ("a", "b"), "label")
    assert (found.columns, found.labels.tolist() if found.labels is not None else None) == ([["x", "y"], ["z", "w"]], [1, 0])


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("p.tsv", "a\tb\tscore\nx\ty\n", ("line 2", 2, 3)),
        ("p.tsv", "a\tb\tgold\nx\ty\t1\n", ("'score'", "'a', 'b', 'gold'")),
        ("p.tsv", "a\tb\tscore\nx\ty\thigh\n", ("line 2", "'score'", "'high'", "'entailment'")),
        ("p.tsv", "a\tb\tscore\nx\ty\tnan\n", ("line 2", "'score'", "nan")),
        ("p.tsv", "a\tb\tscore\nx\t\t1\n", ("line 2", "'b'", "empty", "skip_empty")),
        ("p.tsv", "a\tb\tscore\n", ("no rows", "one")),
        ("p.jsonl", '{"a": "x", "b": "y"}\n', ("line 1", "'score'", "'a', 'b'")),
        ("p.jsonl", "[1]\n", ("line 1", "list", "object")),
        ("p.jsonl", "{\n", ("line 1", "JSON")),
        ("p.tsv", "", ("empty",)),
        ("p.tsv", "a\tb\tscore\nx\t\udcff\t1\n", ("line 2", "UTF-8")),
        ("p.parquet", "garbage", ("Parquet",)),
        ("p.csv", "a,b\n", ("'.csv'", ".tsv, .jsonl, .parquet")),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_line(tmp_path: Path, name: str, text: str, parts: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=naming(tmp_path / name, *parts)):
        read_examples(write(tmp_path / name, text), ("a", "b"), "score")


def test_rows_with_an_empty_text_are_left_out_if_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "p.tsv", "a\tb\nx\t\ny\tz\n")
    with pytest.warns(MinisbertWarning, match=naming("p.tsv", "1 rows", "empty")):
        assert read_examples(file, ("a", "b"), skip_empty=True).columns == [["y"], ["z"]]


def test_every_row_comes_once_an_epoch_and_batches_cost_about_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 200, (1003,), generator=generator).tolist()
    found = batches(lengths, 16, seed=0, epoch=0)
    assert sorted(row for batch in found for row in batch) == list(range(1003))
    assert {len(batch) for batch in found} <= {15, 16}
    costs = torch.tensor([sum(lengths[row] for row in batch) / len(batch) for batch in found])
    shuffled = torch.tensor(lengths)[torch.randperm(1003, generator=generator)][:1000].view(-1, 20).double().mean(1)
    assert costs.std() < shuffled.std() / 4
    assert found == batches(lengths, 16, seed=0, epoch=0)
    assert found != batches(lengths, 16, seed=0, epoch=1)
    assert found != batches(lengths, 16, seed=1, epoch=0)


def test_no_text_stands_in_a_batch_twice_if_that_is_asked_for() -> None:
    keys = [(str(row % 10), str(row)) for row in range(60)]
    found = batches([5] * 60, 12, seed=0, epoch=0, keys=keys)
    assert sorted(row for batch in found for row in batch) == list(range(60))
    assert all(len({keys[row][0] for row in batch}) == len(batch) for batch in found)


def test_equal_data_has_an_equal_digest() -> None:
    one = Examples([["a", "b"]], torch.tensor([1.0, 2.0]))
    assert one.digest() == Examples([["a", "b"]], torch.tensor([1.0, 2.0])).digest()
    others = [Examples([["ab", ""]], one.labels), Examples([["a", "b"]]), Examples([["a", "b"]], torch.tensor([1.0, 3.0]))]
    assert one.digest() not in {other.digest() for other in others}


def test_retrieval_measures_by_hand() -> None:
    # Two queries: relevant at ranks 1 and 3 of 2 in all; at rank 2 of 4 in all.
    found = torch.zeros(2, 10)
    found[0, [0, 2]] = 1
    found[1, 1] = 1
    measures = retrieval_measures(found, torch.tensor([2, 4]), [1, 3])
    log3 = torch.tensor(3.0, dtype=torch.float64).log2().item()
    log5 = torch.tensor(5.0, dtype=torch.float64).log2().item()
    ndcg = [1.5 / (1 + 1 / log3), (1 / log3) / (1 + 1 / log3 + 0.5 + 1 / log5)]
    expected = {"ndcg@10": sum(ndcg) / 2, "mrr@10": (1 + 0.5) / 2, "map@10": ((1 + 2 / 3) / 2 + 0.5 / 4) / 2}
    expected |= {"accuracy@1": 0.5, "precision@3": (2 / 3 + 1 / 3) / 2, "recall@3": (1 + 0.25) / 2}
    assert {name: measures[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("kinds", [3, 20, 10**9])
def test_ranks_and_coefficients_are_those_of_scipy(kinds: int) -> None:
    generator = torch.Generator().manual_seed(kinds)
    x, y = (torch.randint(kinds, (500,), generator=generator).double() / 7 for _ in range(2))
    y = y + x
    assert ranks(x).tolist() == scipy.stats.rankdata(x).tolist()
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, rel=0, abs=1e-14)
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, rel=0, abs=1e-14)
    assert math.isnan(spearman(torch.ones(9), y[:9]))
