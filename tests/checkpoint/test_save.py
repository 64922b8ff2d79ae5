"""`encoder.save`: what is written loads with the same bits here and the same vectors elsewhere; nothing is half written."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TINY_VOCAB, save_tiny, write_json
from conftest import PAIR
from containers import weights_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

import minisbert
from minisbert import MinisbertError, SentenceEncoder, mean_pooling
from minisbert import save as save_module
from minisbert.checkpoint.save import check_replaceable, write_safetensors

TEXTS = [*PAIR, "the Cats sat on the RED mat, café [MASK] <x>", "", "a " * 60]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    return tmp_path / "model"


def vectors(encoder: SentenceEncoder, **options: Any) -> Tensor:
    return encoder.encode(TEXTS, on_truncate="ignore", **options)


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
    return model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)


def check(encoder: SentenceEncoder, target: Path, dtype: torch.dtype = torch.float32) -> SentenceEncoder:
    """Saves it; the same bits here, the same vectors there, and no warning; returns what was loaded."""
    encoder.save(target)
    again = minisbert.load(target, dtype=dtype)
    assert torch.equal(vectors(again), vectors(encoder))
    assert again.tokenizer(TEXTS).ids == encoder.tokenizer(TEXTS).ids
    assert again.max_seq_length == encoder.max_seq_length
    assert again.prompts == encoder.prompts
    for prompt in encoder.prompts:
        assert torch.equal(vectors(again, prompt_name=prompt), vectors(encoder, prompt_name=prompt))
    difference = (reference(target, dtype) - vectors(encoder)).abs().max()
    assert difference <= (1e-12 if dtype == torch.float64 else 3e-6)
    return again


# --- what is written ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_gives_the_same_bits_here_and_the_same_vectors_in_sentence_transformers(
    folder: Path, dtype: torch.dtype
) -> None:
    encoder = minisbert.load(folder, dtype=dtype)
    target = folder.parent / "new"
    check(encoder, target, dtype)
    stored = weights_of(target)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    original = weights_of(folder)
    assert stored.keys() == original.keys()
    assert all(torch.equal(stored[name].float(), original[name]) for name in stored)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transformers_loads_it_with_auto_classes(folder: Path, dtype: torch.dtype) -> None:
    encoder = minisbert.load(folder, dtype=dtype)
    encoder.save(folder.parent / "new")
    model = AutoModel.from_pretrained(folder.parent / "new")  # without dtype=: config.json says it
    assert model.dtype == dtype
    batch = AutoTokenizer.from_pretrained(folder.parent / "new")(list(PAIR), padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = mean_pooling(model(**batch), batch["attention_mask"])
    assert (theirs - encoder.encode(PAIR)).abs().max() < (1e-12 if dtype == torch.float64 else 3e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(folder: Path, dtype: torch.dtype) -> None:
    encoder = minisbert.load(folder, dtype=dtype)
    encoder.save(folder.parent / "new")
    assert {tensor.dtype for tensor in weights_of(folder.parent / "new").values()} == {dtype}
    assert torch.equal(vectors(minisbert.load(folder.parent / "new", dtype=dtype)), vectors(encoder))


def test_the_real_model_keeps_its_bits(minilm_folder: Path, tmp_path: Path) -> None:
    encoder = minisbert.load(minilm_folder)
    check(encoder, tmp_path / "new")
    original, stored = weights_of(minilm_folder), weights_of(tmp_path / "new")
    assert all(torch.equal(stored[name], original[name]) for name in stored)


MODES = [
    ("cls",),
    ("max",),
    ("mean_sqrt_len_tokens",),
    ("weightedmean",),
    ("lasttoken",),
    ("cls", "max", "mean"),
    ("mean", "cls"),  # not the order of the old form
    ("max", "max"),
]


@pytest.mark.parametrize("modes", MODES)
def test_every_pooling_is_kept(folder: Path, modes: tuple[str, ...]) -> None:
    write_json(folder / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": list(modes)})
    again = check(minisbert.load(folder), folder.parent / "new")
    assert again.pooling.modes == modes


def test_heads_prompts_and_the_rest_are_kept(folder: Path) -> None:
    torch.manual_seed(0)
    modules = [
        Transformer(str(folder)),
        Pooling(32, "mean", include_prompt=False),
        Dense(32, 24, activation_function=torch.nn.Tanh()),
        Dense(24, 16, bias=False, activation_function=torch.nn.Identity()),
        LayerNorm(16),
        Normalize(),
    ]
    prompts = {"query": "the man: ", "document": "a ", "eat": "eating "}
    st = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name="eat", similarity_fn_name="dot")
    st.save(str(folder.parent / "written"))
    encoder = minisbert.load(folder.parent / "written")
    again = check(encoder, folder.parent / "new")
    assert again.config.modules == encoder.config.modules
    assert again.config.usage == encoder.config.usage
    assert again.prompts["query"] == "the man: "
    assert again.similarity_fn_name == "dot"
    assert again.config.pooling.include_prompt is False


def test_what_was_set_is_saved_as_it_stands(folder: Path) -> None:
    encoder = minisbert.load(folder)
    encoder.max_seq_length = 7
    encoder.truncate_dim = 5
    encoder.prompts["query"] = "a man "
    again = check(encoder, folder.parent / "new")
    assert (again.max_seq_length, again.truncate_dim, again.dimension) == (7, 5, 5)
    assert again.prompts["query"] == "a man "


X = {"content": "<x>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False, "special": True}


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": False},
        {"strip_accents": False, "tokenize_chinese_chars": False},
        {"truncation_side": "left"},
        {"added_tokens_decoder": {"33": X}},
        {"additional_special_tokens": ["<x>"], "split_special_tokens": True},
        {"cls_token": "man", "sep_token": ".", "mask_token": "cat"},
    ],
    ids=str,
)
@pytest.mark.parametrize("lower_first", [True, False])
def test_every_tokenizer_is_kept(folder: Path, settings: dict[str, Any], lower_first: bool) -> None:
    save_tiny(folder, vocab_size=len(TINY_VOCAB) + 2)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": lower_first})
    check(minisbert.load(folder), folder.parent / "new")


def test_a_tokenizer_that_bert_would_not_build_is_kept_as_it_is(folder: Path) -> None:
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    values = json.loads((folder / "tokenizer.json").read_text())
    values["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    write_json(folder / "tokenizer.json", values)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"})
    check(minisbert.load(folder), folder.parent / "new")


def test_a_saved_model_saved_again_is_the_same_to_the_last_byte(folder: Path) -> None:
    first, second = folder.parent / "first", folder.parent / "second"
    minisbert.load(folder).save(first)
    minisbert.load(first).save(second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_safetensors_are_written_as_safetensors_writes_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {"a": torch.arange(6.0).view(2, 3), 'é"': torch.ones(3).half(), "t": torch.arange(4.0).double().view(2, 2).t()}
    tensors |= {"none": torch.empty(0, 2), "scalar": torch.tensor(1.5).bfloat16(), "large": torch.randn(3, 1 << 21)}
    write_safetensors(tensors, tmp_path / "x.safetensors")
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) and again[name].dtype == tensors[name].dtype for name in tensors)


# --- where it is written ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_replaced_wholly_but_for_what_a_person_wrote(folder: Path) -> None:
    encoder = minisbert.load(folder)
    (folder / "README.md").write_text("mine")
    (folder / "onnx").unlink(missing_ok=True)
    encoder.save(folder)  # over its own files
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))
    assert not (folder / "vocab.txt").exists()
    assert (folder / "README.md").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_new_deep_path_an_empty_folder_and_a_link_are_written_to(folder: Path) -> None:
    encoder = minisbert.load(folder)
    (folder.parent / "empty").mkdir()
    (folder.parent / "link").symlink_to(folder)
    for target in (folder.parent / "a/b/c", folder.parent / "empty", folder.parent / "link"):
        encoder.save(str(target))
        assert torch.equal(vectors(minisbert.load(target)), vectors(encoder))
    assert (folder.parent / "link").is_symlink()


@pytest.mark.parametrize("strange", ["notes.txt", "photos/cat.jpg", ".git/config", "train.py"])
def test_a_folder_that_holds_anything_else_is_not_replaced(folder: Path, strange: str) -> None:
    encoder = minisbert.load(folder)
    (folder / strange).parent.mkdir(exist_ok=True)
    (folder / strange).write_text("precious")
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        FileExistsError, match=f"found '{strange.split('/', maxsplit=1)[0]}', which belongs to no checkpoint and would be lost"
    ):
        encoder.save(folder)
    assert sorted(folder.rglob("*")) == before
    assert (folder / strange).read_text() == "precious"


def test_a_file_or_a_folder_without_a_config_is_not_replaced(folder: Path) -> None:
    encoder = minisbert.load(folder)
    (folder.parent / "file").write_text("x")
    with pytest.raises(FileExistsError, match="found a file, expected a folder"):
        encoder.save(folder.parent / "file")
    (folder.parent / "other").mkdir()
    (folder.parent / "other/README.md").write_text("x")
    with pytest.raises(FileExistsError, match=r"without a config\.json"):
        encoder.save(folder.parent / "other")


@pytest.mark.parametrize(("target", "error"), [(3, TypeError), (None, TypeError), (b"x", TypeError), ("", ValueError)])
def test_what_is_no_path_is_refused(folder: Path, target: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^folder: found"):
        minisbert.load(folder).save(target)


def test_what_no_file_can_hold_is_refused(folder: Path) -> None:
    encoder = minisbert.load(folder, dtype=torch.float64)
    encoder.bert.to(torch.float8_e5m2)
    with pytest.raises(MinisbertError, match=r"^found weights of torch\.float8_e5m2, which are not saved, expected one of torch\."):
        encoder.save(folder.parent / "new")
    encoder = minisbert.load(folder)
    encoder.bert.config = dataclasses.replace(encoder.bert.config, layer_norm_eps=math.inf)
    with pytest.raises(MinisbertError, match=r"^config\.json: found a number that is not finite"):
        encoder.save(folder.parent / "new")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_checkpoint_and_nothing_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = minisbert.load(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("_pooling_json", "_flush", "_replace"):
        with monkeypatch.context() as patch:
            patch.setattr(save_module, step, full)
            with pytest.raises(OSError, match="No space"):
                encoder.save(folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_where_folders_cannot_be_exchanged_they_are_renamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_module, "_exchange", lambda *_: False)
    encoder = minisbert.load(folder)
    encoder.save(folder)
    assert not (folder / "vocab.txt").exists()
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_new_checkpoint_that_cannot_be_put_in_place_leaves_the_old_one_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_module, "_exchange", lambda *_: False)
    before = sorted(folder.rglob("*"))
    (folder.parent / "beside").mkdir()
    with pytest.raises(FileNotFoundError):
        save_module._replace(folder.parent / "beside/checkpoint", folder)
    assert sorted(folder.rglob("*")) == before


def test_a_dangling_link_by_the_name_of_a_leftover_disturbs_nobody(folder: Path) -> None:
    link = folder.parent / ".model.saving-x"
    link.symlink_to("nowhere")
    minisbert.load(folder).save(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [link.name, "model"]


SAVE_FOREVER = """
import sys, minisbert
first, second = (minisbert.load(folder) for folder in sys.argv[1:3])
print("ready", flush=True)
while True:
    first.save(sys.argv[3])
    second.save(sys.argv[3])
"""


def test_a_killed_process_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    """Killed at three moments in the middle of saving two models to the same place by turns."""
    for seed in (0, 1):
        save_tiny(tmp_path / f"{seed}", seed=seed)
    expected = [vectors(minisbert.load(tmp_path / f"{seed}")) for seed in (0, 1)]
    target = tmp_path / "target"
    minisbert.load(tmp_path / "0").save(target)
    command = [sys.executable, "-c", SAVE_FOREVER, tmp_path / "0", tmp_path / "1", target]
    for moment in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.0137 * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = vectors(minisbert.load(target))
        assert any(torch.equal(found, one) for one in expected)
    minisbert.load(tmp_path / "0").save(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "target"], "what the killed ones left is cleared away"


def test_several_threads_that_save_to_one_place_leave_one_whole_checkpoint(folder: Path) -> None:
    encoder = minisbert.load(folder)
    target = folder.parent / "target"
    encoder.save(target)
    problems = []

    def run() -> None:
        try:
            for _ in range(5):
                encoder.save(target)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert torch.equal(vectors(minisbert.load(target)), vectors(encoder))
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert problems == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model", "target"]


def test_a_folder_that_is_about_to_be_locked_is_not_taken_for_a_leftover(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = minisbert.load(folder)
    lock, begun = save_module._lock, []

    def late(path: Path) -> int | None:
        if not begun:
            begun.append(path)
            encoder.save(folder)  # another one saves in the moment before
        return lock(path)

    monkeypatch.setattr(save_module, "_lock", late)
    encoder.save(folder)
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_permissions_are_those_that_any_new_folder_has(folder: Path) -> None:
    target = folder.parent / "new"
    minisbert.load(folder).save(target)
    (folder.parent / "plain").mkdir()
    assert target.stat().st_mode == (folder.parent / "plain").stat().st_mode


def test_names_with_wildcards_do_not_touch_the_neighbours(folder: Path) -> None:
    encoder = minisbert.load(folder)
    neighbour = folder.parent / ".model.saving-mine"
    neighbour.mkdir()
    encoder.save(folder.parent / "*")
    assert neighbour.is_dir()
    check_replaceable(folder.parent / "*")
    shutil.rmtree(neighbour)
