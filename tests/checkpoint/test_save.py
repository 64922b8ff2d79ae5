"""`encoder.save`: what is written loads with the same bits here and the same vectors elsewhere; nothing is half written."""

from __future__ import annotations

import dataclasses
import json
import math
import os
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
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from messages import naming
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

import minisbert
from minisbert import MinisbertError, SentenceEncoder, mean_pooling
from minisbert.checkpoint import replace as replace_module
from minisbert.checkpoint import save as save_module
from minisbert.checkpoint.save import write_safetensors

TEXTS = [*PAIR, "the Cats sat on the RED mat, café [MASK] <x>", "", "a " * 60]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceEncoder, Path]:
    """An encoder, and a folder that it was saved to."""
    folder = tmp_path_factory.mktemp("saved")
    save_tiny(folder / "source")
    encoder = minisbert.load(folder / "source")
    encoder.save(folder / "model")
    return encoder, folder / "model"


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


def test_modules_prompts_and_the_rest_are_kept(folder: Path) -> None:
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


def test_a_home_that_no_user_has_is_a_folder_of_that_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    minisbert.load(folder, device="cpu").save("~nosuchuser/x")
    assert minisbert.load(tmp_path / "~nosuchuser/x").dimension == 32


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


KNOWN = {str(path) for path in (*replace_module.MODEL_FILES, *replace_module.ROOT_FILES)}
NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20),
    st.builds("{}{}".format, st.sampled_from(sorted(KNOWN)), st.sampled_from(["~", ".bak", ".tmp", "2", " ", ".d/precious.csv"])),
    st.builds("{}{}".format, st.sampled_from([".", "my_", "old-", "2_", "sub/"]), st.sampled_from(sorted(KNOWN))),
)


@example("", "config_of_mine.json")
@example("", "2024_results/precious.csv")
@example("", "model_best.bin")
@example("", "tokenizer_training.json")
@example("", "model-00001-of-00002.safetensors")  # no index lists it
@example("", "empty folder/")
@example("", ".hidden")
@example("1_Pooling", "notes")
@example("1_Pooling", "vocab.txt")
@example("1_Pooling", "2_Dense/config.json")
@given(st.sampled_from(["", "1_Pooling"]), NAMES)
@settings(deadline=None, max_examples=100)
def test_a_folder_that_holds_anything_else_is_not_replaced(saved: tuple[SentenceEncoder, Path], inside: str, name: str) -> None:
    encoder, folder = saved
    strange = os.path.relpath(folder / inside / name, folder)
    assume(".." not in Path(name).parts and len(os.fsencode(Path(name).name)) < 200 and not (folder / strange).exists())
    assume(strange not in KNOWN and strange not in {f"1_Pooling/{file}" for file in replace_module.MODULE_FILES})
    before = sorted(folder.rglob("*"))
    (folder / strange).parent.mkdir(exist_ok=True)
    (folder / strange).mkdir() if name.endswith("/") else (folder / strange).write_text("precious")
    with pytest.raises(FileExistsError, match=naming(folder, repr(strange))):
        encoder.save(folder)
    (folder / strange).rmdir() if name.endswith("/") else (folder / strange).unlink()
    if (folder / strange).parent not in (folder, *before):
        (folder / strange).parent.rmdir()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("exchange", [True, False])
def test_what_comes_at_the_last_moment_is_not_lost(
    exchange: bool, saved: tuple[SentenceEncoder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, folder = saved
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    swap, calls = replace_module._exchange, []

    def late(a: Path, b: Path) -> bool:
        if not calls:
            (folder / "late.txt").write_text("precious")
        calls.append(a)
        return exchange and swap(a, b)

    monkeypatch.setattr(replace_module, "_exchange", late)
    with pytest.raises(FileExistsError, match=naming(folder, "'late.txt'")):
        encoder.save(folder)
    assert (folder / "late.txt").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))


def test_shards_and_links_are_replaced_if_they_belong_to_the_checkpoint(
    saved: tuple[SentenceEncoder, Path], tmp_path: Path
) -> None:
    encoder, folder = saved
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = weights_of(saved[1])
    write_json(folder / "model.safetensors.index.json", {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")})
    (folder / "vocab.txt").symlink_to(tmp_path / "elsewhere.txt")
    (tmp_path / "elsewhere.txt").write_text("precious")
    (folder / "README.md").symlink_to("../elsewhere.txt")
    encoder.save(folder)
    assert not (folder / "model-00001-of-00001.safetensors").exists()
    assert (tmp_path / "elsewhere.txt").read_text() == (folder / "README.md").read_text() == "precious"
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))


def test_a_file_or_a_folder_without_a_config_is_not_replaced(folder: Path) -> None:
    encoder = minisbert.load(folder)
    (folder.parent / "file").write_text("x")
    with pytest.raises(FileExistsError, match=naming(folder.parent / "file", "file", "folder")):
        encoder.save(folder.parent / "file")
    (folder.parent / "other").mkdir()
    (folder.parent / "other/README.md").write_text("x")
    for config in "", '{"database": "mine"}', "[1]":  # another program's config.json
        if config:
            (folder.parent / "other/config.json").write_text(config)
        with pytest.raises(FileExistsError, match=naming(folder.parent / "other", "modules.json", "config.json")):
            encoder.save(folder.parent / "other")


@pytest.mark.parametrize(("target", "error"), [(3, TypeError), (None, TypeError), (b"x", TypeError), ("", ValueError)])
def test_what_is_no_path_is_refused(folder: Path, target: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=naming("folder", type(target).__name__ if error is TypeError else "empty")):
        minisbert.load(folder).save(target)


def test_what_no_file_can_hold_is_refused(folder: Path) -> None:
    encoder = minisbert.load(folder, dtype=torch.float64)
    encoder.bert.to(torch.float8_e5m2)
    with pytest.raises(MinisbertError, match=naming(torch.float8_e5m2, torch.float32)):
        encoder.save(folder.parent / "new")
    encoder = minisbert.load(folder)
    encoder.bert.config = dataclasses.replace(encoder.bert.config, layer_norm_eps=math.inf)
    with pytest.raises(MinisbertError, match=naming("config.json", "not finite")):
        encoder.save(folder.parent / "new")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_checkpoint_and_nothing_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = minisbert.load(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("_pooling_json", "flush", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(save_module, step, full)
            with pytest.raises(OSError, match="No space"):
                encoder.save(folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_where_folders_cannot_be_exchanged_they_are_renamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replace_module, "_exchange", lambda *_: False)
    encoder = minisbert.load(folder)
    encoder.save(folder)
    assert not (folder / "vocab.txt").exists()
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_new_checkpoint_that_cannot_be_put_in_place_leaves_the_old_one_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace_module, "_exchange", lambda *_: False)
    before = sorted(folder.rglob("*"))
    (folder.parent / "beside").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_module.replace(folder.parent / "beside/checkpoint", folder)
    assert sorted(folder.rglob("*")) == before


def test_a_dangling_link_with_the_name_of_a_temporary_folder_is_ignored(folder: Path) -> None:
    link = folder.parent / ".model.saving-x"
    link.symlink_to("nowhere")
    minisbert.load(folder).save(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [link.name, "model"]


SAVE_FOREVER = """
import os, sys, minisbert
first, second = (minisbert.load(folder) for folder in sys.argv[1:3])
for _ in sys.stdin:  # for each line a process that saves until it is killed
    if child := os.fork():
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    print(os.getpid(), flush=True)
    while True:
        first.save(sys.argv[3])
        second.save(sys.argv[3])
"""


def test_a_killed_process_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    """Killed three times in the middle of saving two models to the same place by turns: what it leaves behind shows that it was."""
    for seed in (0, 1):
        save_tiny(tmp_path / f"{seed}", seed=seed)
    expected = [vectors(minisbert.load(tmp_path / f"{seed}")) for seed in (0, 1)]
    target = tmp_path / "target"
    minisbert.load(tmp_path / "0").save(target)
    command = [sys.executable, "-c", SAVE_FOREVER, tmp_path / "0", tmp_path / "1", target]
    left: list[set[str]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as saving:
        assert saving.stdin is not None
        assert saving.stdout is not None
        for moment in range(20):
            saving.stdin.write("\n")
            child = int(saving.stdout.readline())
            time.sleep(0.05 + 0.0037 * moment)
            os.kill(child, signal.SIGKILL)
            assert saving.stdout.readline() == "ended\n"
            found = vectors(minisbert.load(target))
            assert any(torch.equal(found, one) for one in expected)
            leftovers = {path.name for path in tmp_path.glob(".target.saving-*")}
            left += [leftovers] if leftovers else []  # a save was in progress, else it would have cleared this away
            if len(left) == 3:
                break
    assert len(left) == 3
    assert left[0].isdisjoint(left[1] | left[2]), "and the next save cleared it away"
    minisbert.load(tmp_path / "0").save(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "target"], "what the killed ones left is cleared away"


def test_a_process_killed_between_two_renamings_is_made_up_for(saved: tuple[SentenceEncoder, Path], tmp_path: Path) -> None:
    encoder, folder = saved
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    (folder / "README.md").write_text("mine")
    code = (
        "import os, sys, minisbert\n"
        "from pathlib import Path\n"
        "from minisbert.checkpoint import replace\n"
        "encoder = minisbert.load(sys.argv[1])\n"
        "replace._exchange = lambda *_: False\n"
        "rename = Path.rename\n"
        "def once(path, to):\n"
        "    moved = rename(path, to)\n"
        "    if Path(to).name == 'old':\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return moved\n"
        "Path.rename = once\n"
        "encoder.save(sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == -signal.SIGKILL
    assert not folder.exists()
    encoder.save(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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


def test_a_folder_that_is_about_to_be_locked_is_not_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = minisbert.load(folder)
    lock, begun = replace_module._lock, []

    def late(path: Path) -> int | None:
        if not begun:
            begun.append(path)
            encoder.save(folder)  # another one saves in the moment before
        return lock(path)

    monkeypatch.setattr(replace_module, "_lock", late)
    encoder.save(folder)
    assert torch.equal(vectors(minisbert.load(folder)), vectors(encoder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_permissions_are_those_that_any_new_folder_has(folder: Path) -> None:
    target = folder.parent / "new"
    minisbert.load(folder).save(target)
    (folder.parent / "plain").mkdir()
    assert target.stat().st_mode == (folder.parent / "plain").stat().st_mode


@pytest.mark.parametrize("name", [".model.saving-mine", ".model.saving-mine1234", ".*.saving-abcdefgh"])
def test_a_folder_that_only_has_the_name_of_a_temporary_one_stays(
    name: str, saved: tuple[SentenceEncoder, Path], tmp_path: Path
) -> None:
    mine = tmp_path / name / "checkpoint"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("precious")
    for target in "model", "*":
        saved[0].save(tmp_path / target)
    assert (mine / "config.json").read_text() == "precious"
    # A file that is put into one of our folders is kept, too.
    left = tmp_path / ".model.saving-12345678"
    left.mkdir()
    (left / replace_module.MARK).write_bytes(replace_module.MARK_TEXT)
    (left / "mine.csv").write_text("precious")
    saved[0].save(tmp_path / "model")
    assert (left / "mine.csv").read_text() == "precious"
