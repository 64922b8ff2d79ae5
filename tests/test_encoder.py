"""`SentenceEncoder.encode` and `minisbert.encode`: what they return, what they refuse, and what they leave alone."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import pty
import random
import re
import struct
import sys
import termios
import threading
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_tiny, write_json, write_modules
from conftest import PAIR
from messages import naming
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder
from minisbert.inference.stream import on_terminal

TEXTS = ["the cat sat on the mat.", "a man", "", "someone is eating a meal!", "red, blue, green", "the dog is running", "a cat"]
LONG = "the cat sat on the mat, the dog ran. " * 5


@pytest.fixture
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, SentenceEncoder]:
    """What `minisbert.encode` keeps, empty as in a new process."""
    kept: dict[str, SentenceEncoder] = {}
    monkeypatch.setattr(minisbert, "_kept", kept)
    return kept


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and torch.equal(a.view(torch.int32), b.view(torch.int32))


def count_tokens(encoder: SentenceEncoder) -> list[int]:
    """The list to which each later batch adds the number of its tokens."""
    counts: list[int] = []
    encoder.bert.embeddings.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    return counts


# What comes back


@pytest.mark.parametrize(
    ("sentences", "shape"),
    [
        ("a man", (32,)),
        ("", (32,)),
        (["a man"], (1, 32)),
        (["a man", "", "a man"], (3, 32)),
        ([], (0, 32)),
        (("a man", "a cat"), (2, 32)),
        (deque(["a man", "a cat"]), (2, 32)),
    ],
    ids=repr,
)
def test_a_text_gives_a_vector_and_a_sequence_gives_a_row_each(tiny: SentenceEncoder, sentences: Any, shape: tuple[int]) -> None:
    vectors = tiny.encode(sentences)
    assert type(vectors) is Tensor
    assert (tuple(vectors.shape), vectors.dtype, vectors.device) == (shape, torch.float32, torch.device("cpu"))
    assert tiny.dimension == 32


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2}, {"batch_tokens": 1}, {"batch_tokens": 20}])
def test_rows_come_in_the_order_of_the_input(tiny: SentenceEncoder, tiny_folder: Path, options: dict[str, int]) -> None:
    reference = SentenceTransformer(str(tiny_folder), device="cpu")
    expected = [reference.encode(text, convert_to_tensor=True) for text in TEXTS]
    assert torch.pdist(torch.stack(expected)).min() > 0.01  # or a wrong order would not show
    torch.testing.assert_close(tiny.encode(TEXTS, **options), torch.stack(expected), rtol=0, atol=1e-5)


def test_equal_texts_are_computed_once(tiny: SentenceEncoder) -> None:
    counts = count_tokens(tiny)
    once = tiny.encode(TEXTS)
    tokens = sum(counts)
    counts.clear()
    repeated = tiny.encode([text for text in TEXTS for _ in range(50)])
    assert sum(counts) == tokens
    assert torch.equal(repeated, once.repeat_interleave(50, dim=0))


def test_batches_stay_within_their_limits(tiny: SentenceEncoder) -> None:
    counts = count_tokens(tiny)
    texts = [f"{'a ' * 18}{word}" for word in ("man", "is", "cat", "sat", "on", "mat", "dog", "play", "red", "blue")]
    tiny.encode(texts, batch_tokens=66)
    assert sorted(counts) == [24, 64, 64, 64]  # sentences of 21 tokens: three in 66; see batching.bucket_size
    counts.clear()
    tiny.encode(texts, batch_size=4)
    assert sorted(counts) == [48, 96, 96]


def test_results_have_no_graph_and_can_be_trained_on(tiny: SentenceEncoder) -> None:
    for vectors in tiny.encode(TEXTS), tiny.encode(TEXTS * 2), tiny.encode("a man", normalize_embeddings=True):
        assert not vectors.requires_grad
        assert vectors.grad_fn is None
        assert not vectors.is_inference()
        head = torch.nn.Linear(32, 1)
        head(vectors).sum().backward()
        torch.testing.assert_close(head.weight.grad, vectors.reshape(-1, 32).sum(dim=0, keepdim=True))
        vectors.add_(1)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in tiny.bert.parameters())


def test_float64_computes_in_float64(tiny_folder: Path, tiny: SentenceEncoder) -> None:
    exact = minisbert.load(tiny_folder, dtype=torch.float64)
    vectors = exact.encode(TEXTS)
    assert (exact.dtype, vectors.dtype) == (torch.float64, torch.float64)
    torch.testing.assert_close(vectors.float(), tiny.encode(TEXTS), rtol=0, atol=1e-5)
    assert not torch.equal(vectors, vectors.float().double())  # more digits than float32 holds


def test_normalizing_is_asked_for_or_the_checkpoint_s_own(tiny: SentenceEncoder, tmp_path: Path) -> None:
    plain, scaled = tiny.encode(TEXTS), tiny.encode(TEXTS, normalize_embeddings=True)
    lengths = plain.double().square().sum(dim=1).sqrt()
    assert (lengths - 1).abs().min() > 0.5
    torch.testing.assert_close(scaled.double(), plain.double() / lengths[:, None], rtol=0, atol=1e-7)
    assert same_bits(tiny.encode(TEXTS), plain)  # asking once does not stick

    save_tiny(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text("utf-8"))
    normalize = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
    write_json(tmp_path / "modules.json", [*modules, normalize])
    assert same_bits(minisbert.load(tmp_path).encode(TEXTS), scaled)


def test_several_pooling_modes_make_a_wider_vector(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    write_modules(tmp_path, 32, max_seq_length=32, modes=("cls_token", "max_tokens"))
    encoder = minisbert.load(tmp_path)
    assert encoder.dimension == 64
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode(TEXTS), expected, rtol=0, atol=1e-5)
    assert encoder.encode([]).shape == (0, 64)


# Side by side


def test_encoders_do_not_disturb_each_other(tiny_folder: Path, minilm_folder: Path, sts_sentences: list[str]) -> None:
    """Four threads at once, two of them on one encoder, with different texts and options."""
    first, second, real = minisbert.load(tiny_folder), minisbert.load(tiny_folder), minisbert.load(minilm_folder)
    second.max_seq_length = 8
    jobs: list[tuple[SentenceEncoder, list[str], dict[str, Any]]] = [
        (first, [LONG[:n] for n in range(100)], {}),
        (first, TEXTS * 5, {"batch_size": 1, "normalize_embeddings": True}),
        (second, [LONG[:n] for n in range(100)], {}),
        (real, sts_sentences[:40], {"batch_tokens": 200}),
    ]

    def work(job: tuple[SentenceEncoder, list[str], dict[str, Any]]) -> Tensor:
        encoder, texts, options = job
        return encoder.encode(texts, on_truncate="ignore", **options)

    one_by_one = [work(job) for job in jobs]
    assert not torch.equal(one_by_one[0], one_by_one[2])  # the limit of one is not that of the other
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(same_bits(*pair) for pair in zip(pool.map(work, jobs), one_by_one, strict=True))


# The limit


@pytest.mark.parametrize("side", ["right", "left"])
def test_cut_texts_are_counted_and_reported_once(tmp_path: Path, side: str) -> None:
    save_tiny(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": True, "truncation_side": side})
    encoder = minisbert.load(tmp_path)
    full, over, far = "a " * 30, "a " * 31 + "cat", "man " * 50  # 32, 34 and 52 tokens
    message = naming("3 of 5", "32 tokens", "52 tokens", "index 2", 34, "on_truncate='ignore'")
    with pytest.warns(MinisbertWarning) as caught:
        warned = encoder.encode(["a", full, over, far, over])
    assert [warning.filename for warning in caught] == [__file__]
    assert message.search(str(caught[0].message))

    with pytest.raises(ValueError, match=message):
        encoder.encode(["a", full, over, far, over], on_truncate="error")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignored = encoder.encode(["a", full, over, far, over], on_truncate="ignore")
        for choice in "warn", "error":
            assert torch.equal(encoder.encode(["a", full], on_truncate=choice), ignored[:2])  # 32 tokens fit
    assert torch.equal(warned, ignored)
    kept = "a " * 30 if side == "right" else "a " * 29 + "cat"
    assert torch.equal(ignored[2], encoder.encode(kept))


def test_the_limit_can_be_set_and_is_obeyed(tiny: SentenceEncoder) -> None:
    assert tiny.max_seq_length == 32
    counts = count_tokens(tiny)
    tiny.max_seq_length = 40  # all positions of the model
    tiny.encode("a " * 38, on_truncate="error")
    tiny.max_seq_length = 20
    with pytest.warns(MinisbertWarning, match=naming("20 tokens", 21)):
        tiny.encode("a " * 19)
    assert counts == [40, 20]
    assert tiny.max_seq_length == tiny.tokenizer.max_length == 20
    assert "20 tokens" in repr(tiny)


@pytest.mark.parametrize(
    ("value", "error", "parts"),
    [
        (2, ValueError, (2, 3, 40)),
        (41, ValueError, (41, 3, 40)),
        (-1, ValueError, (-1, 1)),
        (True, TypeError, ("bool", "int")),
        (None, TypeError, ("NoneType", "int")),
        (32.0, TypeError, ("float", "int")),
    ],
)
def test_a_limit_that_cannot_be_is_refused(
    tiny: SentenceEncoder, value: Any, error: type[Exception], parts: tuple[Any, ...]
) -> None:
    with pytest.raises(error, match=naming("max_seq_length", *parts)):
        tiny.max_seq_length = value
    assert tiny.max_seq_length == 32


# Options


@pytest.mark.parametrize(
    ("option", "value", "error", "parts"),
    [
        ("batch_size", 0, ValueError, (0, 1)),
        ("batch_size", "32", TypeError, ("str", "int", None)),
        ("batch_size", 32.0, TypeError, ("float", "int", None)),
        ("batch_size", True, TypeError, ("bool", "int", None)),
        ("batch_tokens", -5, ValueError, (-5, 1)),
        ("batch_tokens", [1], TypeError, ("list", "int", None)),
        ("show_progress_bar", "no", TypeError, ("str", True, False)),
        ("normalize_embeddings", 1, TypeError, ("int", True, False)),
        ("normalize_embeddings", None, TypeError, ("NoneType", True, False)),
        ("output_value", "word_embeddings", ValueError, ("'word_embeddings'", "'sentence_embedding'", "'token_embeddings'")),
        ("output_value", None, TypeError, ("NoneType", "'sentence_embedding'", "'token_embeddings'")),
        ("convert_to_numpy", 1, TypeError, ("int", True, False)),
        ("on_truncate", "cut", ValueError, ("'cut'", "'warn'", "'error'", "'ignore'")),
        ("on_truncate", None, TypeError, ("NoneType", "'warn'", "'error'", "'ignore'")),
    ],
)
@pytest.mark.parametrize("sentences", ["a man", []])
def test_a_wrong_option_is_named(
    tiny: SentenceEncoder, sentences: Any, option: str, value: Any, error: type[Exception], parts: tuple[Any, ...]
) -> None:
    with pytest.raises(error, match=naming(option, *parts)):
        tiny.encode(sentences, **{option: value})


def test_options_are_given_by_name_only(tiny: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        tiny.encode(["a man"], 32)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("device", "error", "parts"),
    [
        ("cuda:99", ValueError, ("'cuda:99'", "'cpu'")),
        ("abacus", ValueError, ("'abacus'", "'cpu'")),
        (torch.device("cuda:99"), ValueError, ("'cuda:99'", "'cpu'")),
        (0, TypeError, ("int", "str", "torch.device")),
    ],
)
def test_a_device_that_is_not_there_is_named_before_anything_is_loaded(
    device: Any, error: type[Exception], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error, match=naming("device", *parts)):
        minisbert.load("no/such-model", device=device, local_files_only=True)


@pytest.mark.parametrize("dtype", ["float64", torch.int64, float])
def test_a_dtype_must_be_floating_point(tiny_folder: Path, dtype: Any) -> None:
    with pytest.raises(TypeError, match=naming("dtype", repr(dtype), "torch.dtype")):
        minisbert.load(tiny_folder, dtype=dtype)


# The progress bar


def shown_on_a_terminal(tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """What `encode` writes when stderr is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        tiny.encode(TEXTS, **options)
        terminal.write("END")
        terminal.flush()
        written = b""
        while not written.endswith(b"END"):
            written += os.read(ours, 4096)
    os.close(ours)
    return written.decode().removesuffix("END")


def test_a_terminal_shows_progress_over_several_batches(tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_on_a_terminal(tiny, monkeypatch, batch_size=2)
    assert shown.startswith("\rencode:   0%|")
    assert re.search(rf"100%\|█+\| {len(TEXTS)}/{len(TEXTS)} ", shown)
    assert shown.endswith("\r\n")  # what is printed next starts on a line of its own
    assert shown_on_a_terminal(tiny, monkeypatch) == ""  # one batch: over before anyone could read it
    assert shown_on_a_terminal(tiny, monkeypatch, batch_size=2, show_progress_bar=False) == ""


def test_elsewhere_the_bar_is_shown_on_stderr_when_asked_for(tiny: SentenceEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.encode(TEXTS, batch_size=2)
    tiny.encode(TEXTS, batch_size=2, show_progress_bar=False)
    assert capfd.readouterr() == ("", "")
    tiny.encode([*TEXTS, "a man"], show_progress_bar=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{len(TEXTS) + 1}/{len(TEXTS) + 1} [" in err
    assert f"{sum(tiny.count_tokens(TEXTS))} tokens]" in err  # what was computed: equal texts once


def test_encoding_works_without_any_stderr(tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw, or in a service
    assert tiny.encode(TEXTS, batch_size=1).shape == (len(TEXTS), 32)


# What stays as it was


def test_encoding_changes_nothing_outside(tiny_folder: Path) -> None:
    def state() -> list[Any]:
        return [
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
            random.getstate(),
            list(warnings.filters),
            warnings.showwarning,
            dict(os.environ),
            Path.cwd(),
            list(logging.getLogger().handlers),
            logging.getLogger().level,
            sys.stdout,
            sys.stderr,
            list(sys.path),
        ]

    before = state()
    encoder = minisbert.load(tiny_folder)
    encoder.encode([*TEXTS, LONG], batch_size=2, show_progress_bar=True, on_truncate="ignore")
    assert state() == before

    texts = list(TEXTS)
    encoder.encode(texts)
    assert texts == TEXTS
    with torch.no_grad():
        encoder.encode(TEXTS)
        assert not torch.is_grad_enabled()


def test_a_default_device_or_dtype_of_the_caller_changes_nothing(tiny_folder: Path, tiny: SentenceEncoder) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        vectors = minisbert.load(tiny_folder).encode(TEXTS)
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_bits(vectors, tiny.encode(TEXTS))


def test_an_interrupted_encoder_goes_on_working(tiny: SentenceEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    expected = tiny.encode(TEXTS)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = tiny.bert.layers[1].register_forward_hook(interrupt)  # a Ctrl-C in the midst of the first batch
    with pytest.raises(KeyboardInterrupt):
        tiny.encode(TEXTS, batch_size=1, show_progress_bar=True)
    handle.remove()
    assert capfd.readouterr().err.endswith("\n")  # the bar is closed, though its batch was not done
    assert not torch.is_inference_mode_enabled()
    assert same_bits(tiny.encode(TEXTS), expected)


def test_an_encoder_says_what_it_is(tiny: SentenceEncoder, tiny_folder: Path, minilm: SentenceEncoder) -> None:
    assert repr(tiny) == f"SentenceEncoder('{tiny_folder}': 2 layers, hidden 32, mean pooling, 32 tokens, torch.float32, cpu)"
    assert repr(minilm).endswith(": 6 layers, hidden 384, mean pooling, 256 tokens, torch.float32, cpu)")
    assert (tiny.model, tiny.origin) == (str(tiny_folder), "a local folder")
    assert (tiny.device, tiny.dtype, tiny.dimension) == (torch.device("cpu"), torch.float32, 32)


# minisbert.encode


def test_a_model_is_loaded_once_under_any_spelling_of_its_folder(
    nothing_kept: dict[str, SentenceEncoder], tiny_folder: Path, tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    spellings = [tiny_folder, str(tiny_folder), f"{tiny_folder}/", tiny_folder.name, Path(tiny_folder.name)]
    for model in spellings:
        assert torch.equal(minisbert.encode(TEXTS, model), tiny.encode(TEXTS))
        assert len(nothing_kept) == 1
    (kept,) = nothing_kept.values()
    minisbert.encode("a man", model=tiny_folder)
    assert list(nothing_kept.values()) == [kept]
    assert minisbert.load(tiny_folder) is not kept


def test_a_relative_folder_is_looked_up_where_one_stands(
    nothing_kept: dict[str, SentenceEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = []
    for seed in 0, 1:
        save_tiny(tmp_path / f"{seed}/model", seed=seed)
        monkeypatch.chdir(tmp_path / f"{seed}")
        vectors.append(minisbert.encode("a man", "model"))
    assert not torch.allclose(*vectors)


def test_an_encoder_is_used_as_it_is(nothing_kept: dict[str, SentenceEncoder], tiny: SentenceEncoder) -> None:
    assert torch.equal(minisbert.encode("a man", tiny, normalize_embeddings=True), tiny.encode("a man", normalize_embeddings=True))
    assert nothing_kept == {}


def test_a_name_stands_for_the_real_model(nothing_kept: dict[str, SentenceEncoder], minilm: SentenceEncoder) -> None:
    vectors = minisbert.encode(PAIR, model="all-MiniLM-L6-v2")
    assert same_bits(vectors, minilm.encode(PAIR))
    assert f"{float(vectors[0] @ vectors[1]):.6f}" == "0.688833"
    assert list(nothing_kept) == ["all-MiniLM-L6-v2"]


@pytest.mark.parametrize("model", [None, 3, b"all-MiniLM-L6-v2", ["all-MiniLM-L6-v2"]])
def test_what_cannot_be_a_model_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=naming("model", type(model).__name__, "SentenceEncoder")):
        minisbert.encode("a man", model)


def test_a_model_that_failed_to_load_is_not_kept(
    nothing_kept: dict[str, SentenceEncoder], tmp_path: Path, tiny: SentenceEncoder
) -> None:
    with pytest.raises(minisbert.CheckpointError):
        minisbert.encode("a man", tmp_path)
    assert nothing_kept == {}
    save_tiny(tmp_path)
    assert torch.equal(minisbert.encode("a man", tmp_path), tiny.encode("a man"))


def test_two_threads_that_start_at_once_load_one_model(
    nothing_kept: dict[str, SentenceEncoder], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = minisbert.load
    monkeypatch.setattr(minisbert, "load", lambda model: loaded.append(load(model)) or loaded[-1])
    start = threading.Barrier(8)

    def work(_: int) -> Tensor:
        start.wait()
        return minisbert.encode(TEXTS, tiny_folder)

    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(work, range(8)))
    assert len(loaded) == 1
    assert list(nothing_kept.values()) == loaded
    assert all(same_bits(rows, vectors[0]) for rows in vectors)


def test_a_model_that_is_being_loaded_does_not_hold_up_the_others(
    nothing_kept: dict[str, SentenceEncoder], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minisbert.encode("a man", tiny_folder)
    save_tiny(tmp_path)
    loading, used_meanwhile = threading.Event(), threading.Event()
    load = minisbert.load

    def slow_load(model: Any) -> SentenceEncoder:
        loading.set()
        assert used_meanwhile.wait(timeout=60)
        return load(model)

    monkeypatch.setattr(minisbert, "load", slow_load)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(minisbert.encode, "a man", tmp_path)
        assert loading.wait(timeout=60)
        minisbert.encode("a man", tiny_folder)
        used_meanwhile.set()
        assert slow.result(timeout=60).shape == (32,)


# Other forms of the result


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder), device="cpu")


def test_token_embeddings_are_those_of_sentence_transformers(minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    texts = [*PAIR, "", PAIR[0], "One two three four five six.", "a " * 300]
    ours = minilm.encode(texts, output_value="token_embeddings", batch_tokens=30, on_truncate="ignore")
    theirs = reference.encode(texts, output_value="token_embeddings")
    assert [len(rows) for rows in ours] == [8, 8, 2, 8, 9, 256]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=5e-5)
    assert torch.equal(minilm.encode(PAIR[1], output_value="token_embeddings"), ours[1])
    ours[0].zero_()
    assert ours[3].any()  # equal texts do not share their memory
    assert F.normalize(ours[1].mean(dim=0), dim=0) @ minilm.encode(PAIR[1]) > 0.999999


def test_token_embeddings_refuse_what_is_for_sentences_only(tiny: SentenceEncoder) -> None:
    for options in {"normalize_embeddings": True}, {"truncate_dim": 3}:
        with pytest.raises(ValueError, match=naming(*next(iter(options.items())), "token_embeddings")):
            tiny.encode(TEXTS, output_value="token_embeddings", **options)


def test_numpy_arrays_are_given_when_asked_for(tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny.encode(TEXTS)
    arrays = tiny.encode(TEXTS, convert_to_numpy=True)
    assert isinstance(arrays, np.ndarray)
    assert arrays.dtype == np.float32
    assert np.array_equal(arrays, expected.numpy())
    assert tiny.encode("a man", convert_to_numpy=True).shape == (32,)
    tokens = tiny.encode(["a man", "a"], output_value="token_embeddings", convert_to_numpy=True)
    assert [(type(rows), rows.shape) for rows in tokens] == [(np.ndarray, (4, 32)), (np.ndarray, (3, 32))]
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(minisbert.MissingExtraError, match="pip install numpy"):
        tiny.encode("a man", convert_to_numpy=True)


def test_tokens_are_counted_before_the_cut(tiny: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    assert tiny.count_tokens("a man") == 4
    assert tiny.count_tokens(("", "a", "a " * 100)) == [2, 3, 102]
    texts = [*PAIR, "unbelievable!", "x" * 200]
    assert minilm.count_tokens(texts) == [len(reference.tokenizer(text)["input_ids"]) for text in texts]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.003)])
def test_half_precision_computes_in_half_and_gives_float32(
    minilm_folder: Path, minilm: SentenceEncoder, dtype: torch.dtype, tolerance: float
) -> None:
    half = minisbert.load(minilm_folder, dtype=dtype, device="cpu")
    texts = [*PAIR, "", "One two three four five six."]
    vectors = half.encode(texts)
    assert (half.dtype, vectors.dtype) == (dtype, torch.float32)
    assert half.encode(texts, output_value="token_embeddings")[0].dtype == torch.float32
    difference = (vectors - minilm.encode(texts)).abs().max()
    assert 1e-5 < difference < tolerance
    torch.testing.assert_close(
        vectors.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6
    )  # pooling and what follows it are not in half precision


# A vector is never NaN


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_vector_that_is_not_finite_is_an_error_that_names_its_text(tiny: SentenceEncoder, value: float, normalize: bool) -> None:
    tiny.bert.embeddings.word.weight[tiny.tokenizer(["dog"]).ids[0][1], 3] = value  # the weights of one word
    texts = ["a man", "the cat", "a dog " + "is " * 20, "a cat", "a dog"]
    message = naming("sentences[2]", repr(texts[2][:40]), "NaN")
    for work in (
        lambda: tiny.encode(texts, normalize_embeddings=normalize),
        lambda: list(tiny.encode_stream(texts, window=2, normalize_embeddings=normalize)),
        lambda: tiny.encode(texts, output_value="token_embeddings"),
    ):
        with pytest.raises(minisbert.NotFiniteError, match=message):
            work()
    assert tiny.encode(["a man", "a cat"]).isfinite().all()


def test_an_overflow_of_half_precision_says_what_to_do(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    encoder = minisbert.load(tmp_path, dtype=torch.float16, device="cpu")
    encoder.bert.layers[0].feed_forward.up.weight.mul_(5000)
    encoder.bert.layers[0].feed_forward.down.weight.mul_(5000)
    with pytest.raises(minisbert.NotFiniteError, match=naming("sentences[0]", "'a man'", torch.float16, "dtype=torch.float32")):
        encoder.encode(["a man"])


# Too little memory on an accelerator


def test_a_batch_that_does_not_fit_is_computed_in_parts(tiny: SentenceEncoder) -> None:
    """The error is that of an accelerator, raised from outside the model above a number of tokens."""
    expected = tiny.encode(TEXTS)
    sizes: list[int] = []

    def full(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = tiny.bert.layers[0].register_forward_pre_hook(full)
    torch.testing.assert_close(tiny.encode(TEXTS), expected, rtol=0, atol=1e-6)
    tokens = tiny.encode(TEXTS, output_value="token_embeddings")
    assert sizes[0] > 20
    assert sum(size for size in sizes if size <= 20) >= 2 * sum(tiny.count_tokens(TEXTS))
    with pytest.raises(torch.cuda.OutOfMemoryError, match=naming("32 tokens", "CUDA out of memory")):
        tiny.encode(["a man", "a " * 30])
    handle.remove()
    assert same_bits(tiny.encode(TEXTS), expected)
    for rows, again in zip(tokens, tiny.encode(TEXTS, output_value="token_embeddings"), strict=True):
        torch.testing.assert_close(rows, again, rtol=0, atol=1e-5)


def test_what_a_repl_shows_of_the_parts(tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"TextTokenizer\(\d+ tokens, at most \d+ per text, special tokens \[CLS\] \[SEP\]\)", repr(tiny.tokenizer))
    assert repr(tiny.info()) == str(tiny.info())

    class Output(io.StringIO):  # of a notebook's cell, which says that it is no terminal
        __module__ = "ipykernel.iostream"

    monkeypatch.setattr(sys, "stderr", Output())
    assert on_terminal()
