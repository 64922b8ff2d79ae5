"""One encoder in many threads and processes: equal bits, no hang, no noise, and nothing changed that is not its own."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny
from messages import naming
from programs import Programs
from torch.utils.data import DataLoader

import minisbert
from minisbert import MinisbertError, SentenceEncoder
from minisbert.inference.threads import LONGEST_WAIT, computing

WORDS = ("a", "man", "is", "sat", "food", ".", "the", "cat", "mat", "on")
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=1 + n % 28)) for n in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that PyTorch uses several threads for its products."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, hidden_size=64, intermediate_size=80)
    return folder


@pytest.fixture
def tiny(folder: Path) -> SentenceEncoder:
    return minisbert.load(folder, device="cpu")


# Threads


def test_who_encodes_while_encoding_is_waited_for_by_a_fork_once(tiny: SentenceEncoder) -> None:
    """A hook on the model may use the encoder itself: the one thread computes once, and a fork from within does not wait for it."""
    with computing(), computing():
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert time.monotonic() - start < LONGEST_WAIT / 2
    done = threading.Event()
    threading.Thread(target=lambda: (os.waitpid(os.fork() or os._exit(0), 0), done.set())).start()
    assert done.wait(LONGEST_WAIT / 2), "and afterwards nothing seems to be computed any more"


def test_one_encoder_serves_many_threads_with_equal_bits(tiny: SentenceEncoder) -> None:
    expected = tiny.encode(TEXTS)
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        some = random.Random(seed).choices(range(200), k=120)
        start.wait()
        rows = [tiny.encode([TEXTS[i] for i in some], batch_size=1 + seed) for _ in range(5)]
        rows.append(torch.cat(list(tiny.encode_stream((TEXTS[i] for i in some), window=50))))
        return all(torch.equal(each, expected[some]) for each in rows)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


def test_no_lock_is_held_during_the_mathematics(tiny: SentenceEncoder) -> None:
    """Two calls are inside the model at the same time: each waits there until the other has come."""
    inside = threading.Barrier(2, timeout=30)

    def wait(*_: object) -> None:
        inside.wait()

    handle = tiny.bert.layers[0].register_forward_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(tiny.encode, ["a man", "a cat"]))
    handle.remove()
    assert torch.equal(rows[0], tiny.encode("a man"))


def test_changing_the_limit_while_others_encode_breaks_nothing(tiny: SentenceEncoder) -> None:
    """The tokenizer of the Rust library is never changed after loading, so none of its users is told "Already borrowed"."""
    before = tiny.tokenizer.tokenizer.to_str()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for limit in 8, 32, 16:
                tiny.max_seq_length = limit
                time.sleep(0.0001)  # a loop that never pauses keeps the interpreter's lock from the others

    with ThreadPoolExecutor(3) as pool:
        changing = pool.submit(change)
        rows = list(pool.map(lambda _: tiny.encode(TEXTS, on_truncate="ignore"), range(20)))
        stop.set()
        changing.result()
    assert all(each.isfinite().all() for each in rows)
    assert tiny.tokenizer.tokenizer.to_str() == before


def test_it_works_within_asyncio(tiny: SentenceEncoder) -> None:
    async def serve() -> list[torch.Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(tiny.encode, text) for text in TEXTS[:20]))

    assert torch.equal(torch.stack(asyncio.run(serve())), tiny.encode(TEXTS[:20]))


# Forks


FORK = """
import os, sys, faulthandler
import minisbert, torch
texts = {texts!r} * {times}
torch.set_num_threads(2)
encoder = minisbert.load({folder!r}, device="cpu")
expected = encoder.encode(texts)
torch.ones(500, 500) @ torch.ones(500, 500)  # now there surely is a pool of threads, which no child will have
for _ in range(5):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(40, exit=True)
        equal = encoder.encode(texts).equal(expected)
        equal &= torch.cat(list(encoder.encode_stream(iter(texts), window=64))).equal(expected)
        equal &= minisbert.load({folder!r}, device="cpu").encode(texts).equal(expected)
        equal &= minisbert.encode(texts, {folder!r}).equal(expected)
        os._exit(0 if equal and torch.get_num_threads() == 2 else 3)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""


def test_a_forked_process_encodes_with_the_same_bits_and_neither_hangs_nor_warns(folder: Path, programs: Programs) -> None:
    """With two threads, and after their use: there PyTorch by itself hangs, and older tokenizers warned in each child."""
    done = programs.run(FORK.format(texts=TEXTS, times=1, folder=str(folder)))
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_without_the_thread_of_its_own_a_forked_process_would_hang(folder: Path, programs: Programs) -> None:
    """So that the test above tests something, and we learn when PyTorch needs it no more.

    Two seconds are more than thirty times what the parent takes.
    """
    code = FORK.replace("import minisbert, torch", "import minisbert.inference.threads, torch").replace("(40", "(2")
    code = code.replace("if child == 0:\n", "if child == 0:\n        minisbert.inference.threads._forked = False\n")
    done = programs.run(code.format(texts=TEXTS, times=20, folder=str(folder)))
    assert "Timeout" in done.stderr
    assert done.returncode != 0


def test_an_interrupt_in_a_forked_process_stops_it_within_a_batch(folder: Path, programs: Programs) -> None:
    code = f"""
import os, signal, threading, time
import minisbert
encoder = minisbert.load({str(folder)!r}, device="cpu")
encoder.encode("a man")
if os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
batches = []
first = threading.Lock()
def hook(*_):
    if first.acquire(blocking=False):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    batches.append(1)
    time.sleep(0.05)
encoder.bert.embeddings.register_forward_hook(hook)
try:
    encoder.encode([f"a man {{n}}" for n in range(500)], batch_size=1)
except KeyboardInterrupt:
    os._exit(0 if 0 < len(batches) < 100 else 4)
os._exit(5)
"""
    done = programs.run(code)
    assert (done.returncode, done.stderr) == (0, "")


class Encoded(torch.utils.data.Dataset):
    """A data set that encodes in its workers."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.encoder.encode(TEXTS[index])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python's own, about forks and threads
def test_it_works_in_the_workers_of_a_data_loader(tiny: SentenceEncoder) -> None:
    rows = torch.cat(list(DataLoader(Encoded(tiny), batch_size=8, num_workers=2, multiprocessing_context="fork")))
    torch.testing.assert_close(rows, tiny.encode(TEXTS[:40]), rtol=0, atol=1e-6)


BUSY = """
import faulthandler, os, threading, time
import minisbert
texts = {texts!r}
encoder = minisbert.load({folder!r}, device="cpu")
expected = encoder.encode(texts)
stop = False

def work():
    while not stop:
        encoder.encode(texts, batch_size=9)

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(40, exit=True)
        os._exit(0 if encoder.encode(texts[:20]).equal(expected[:20]) else 3)
    assert os.waitpid(child, 0)[1] == 0
stop = True
print("done")
"""


def test_a_fork_while_other_threads_encode_neither_hangs_nor_differs(folder: Path, programs: Programs) -> None:
    done = programs.run(BUSY.format(texts=TEXTS, folder=str(folder)))
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


LEFT_ALONE = """
import threading, time
import minisbert
texts = {texts!r}
encoder = minisbert.load({folder!r}, device="cpu")
expected = encoder.encode(texts)

def work():
    threading.main_thread().join()
    time.sleep(0.1)  # its end is also when Python calls what is registered for the end of threads
    print(all(encoder.encode(texts, batch_size=9).equal(expected) for _ in range(20)))

threading.Thread(target=work).start()
"""


def test_threads_go_on_encoding_when_the_main_thread_has_ended(folder: Path, programs: Programs) -> None:
    done = programs.run(LEFT_ALONE.format(texts=TEXTS, folder=str(folder)))
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


AT_THE_END = """
import atexit, threading, time

def at_the_end():  # registered before minisbert's own, and so called after it
    print(encoder.encode(texts, batch_size=9).equal(expected))

atexit.register(at_the_end)
import minisbert
texts = {texts!r}
encoder = minisbert.load({folder!r}, device="cpu")
expected = encoder.encode(texts)
"""


def test_what_is_registered_for_the_end_of_a_program_can_still_encode(folder: Path, programs: Programs) -> None:
    done = programs.run(AT_THE_END.format(texts=TEXTS, folder=str(folder)))
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


# Other processes, pickles and copies


SPAWNED = """
import multiprocessing, torch, minisbert
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    encoder = minisbert.load({folder!r}, device="cpu")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(encoder.encode, ["a man", "a cat"]).result().equal(encoder.encode(["a man", "a cat"]))
    print("done")
"""


def test_it_is_sent_to_a_spawned_process(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SPAWNED.format(folder=str(folder)))
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_pickle_is_small_and_brings_the_settings_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    encoder = minisbert.load(folder.name, dtype=torch.float64, device="cpu", token="secret")
    encoder.max_seq_length = 9
    encoder.truncate_dim = 5
    encoder.prompts["mine"] = "the cat: "
    encoder.default_prompt_name = "mine"
    data = pickle.dumps(encoder)
    assert len(data) < 2000
    assert b"secret" not in data
    monkeypatch.chdir("/")  # a relative name was made whole
    other = pickle.loads(data)  # noqa: S301
    assert (other.dtype, other.max_seq_length, other.truncate_dim) == (torch.float64, 9, 5)
    assert (other.prompts, other.default_prompt_name, other.origin) == (encoder.prompts, "mine", "a local folder")
    assert torch.equal(other.encode(TEXTS, on_truncate="ignore"), encoder.encode(TEXTS, on_truncate="ignore"))


def test_a_named_model_pickles_by_its_name() -> None:
    encoder = minisbert.load("all-MiniLM-L6-v2", device="cpu")
    other = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert (other.model, other.origin) == (encoder.model, encoder.origin)
    assert torch.equal(other.encode("A man is eating food."), encoder.encode("A man is eating food."))


def test_changed_weights_are_not_lost_in_silence_by_a_pickle(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    encoder = minisbert.load(tmp_path, device="cpu")
    encoder.bert.embeddings.word.weight[7, 3] += 1
    data = pickle.dumps(encoder)
    with pytest.raises(MinisbertError, match=naming("weights", "pickled")):
        pickle.loads(data)  # noqa: S301


def test_an_encoder_that_was_not_loaded_cannot_be_pickled(tiny: SentenceEncoder) -> None:
    by_hand = SentenceEncoder(replace(tiny.checkpoint, source=None, files={}))
    assert (by_hand.info().model, by_hand.info().origin, by_hand.info().files) == ("", "", ())
    assert "max_seq_length" in str(by_hand.info())
    assert torch.equal(by_hand.encode(TEXTS), tiny.encode(TEXTS))
    with pytest.raises(MinisbertError, match=naming("pickled", "minisbert.load()")):
        pickle.dumps(by_hand)
    assert torch.equal(copy.deepcopy(by_hand).encode(TEXTS), tiny.encode(TEXTS))


def test_a_copy_shares_weights_and_a_deep_copy_does_not(tiny: SentenceEncoder) -> None:
    expected = tiny.encode(TEXTS)
    shallow, deep = copy.copy(tiny), copy.deepcopy(tiny)
    shallow.max_seq_length = deep.max_seq_length = 8
    assert tiny.max_seq_length == 32
    assert shallow.bert is tiny.bert
    with torch.no_grad():
        tiny.bert.embeddings.word.weight.zero_()
    shallow.max_seq_length = deep.max_seq_length = 32
    assert not torch.equal(shallow.encode(TEXTS), expected)
    assert torch.equal(deep.encode(TEXTS), expected)
    deep.prompts["query"] = "the cat"
    assert tiny.prompts["query"] == ""


# Interrupts


def test_a_real_interrupt_stops_within_a_batch_and_leaves_the_encoder_usable(folder: Path, programs: Programs) -> None:
    code = f"""
import os, signal, threading, time
import minisbert
encoder = minisbert.load({str(folder)!r}, device="cpu")
texts = [f"a man {{n}}" for n in range(500)]
expected = encoder.encode(texts)
batches = []
handle = encoder.bert.embeddings.register_forward_hook(lambda *_: (batches.append(1), time.sleep(0.05)) and None)
for encode in encoder.encode, lambda texts, **options: list(encoder.encode_stream(texts, **options)):
    batches.clear()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        encode(texts, batch_size=1)
        raise SystemExit("not interrupted")
    except KeyboardInterrupt:
        assert 0 < len(batches) < 100, len(batches)
handle.remove()
assert encoder.encode(texts).equal(expected)
print("done")
"""
    done = programs.run(code)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# What stays as it was


def test_import_load_and_encode_change_no_global_state(folder: Path, programs: Programs) -> None:
    code = f"""
import logging, os, random, signal, sys, threading, warnings
import torch

def state():
    return dict(
        threads=(torch.get_num_threads(), torch.get_num_interop_threads()),
        dtype=torch.get_default_dtype(),
        device=torch.get_default_device(),
        modes=(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()),
        matmul=torch.get_float32_matmul_precision(),
        random=(torch.get_rng_state().tolist(), random.getstate()),
        filters=list(warnings.filters),
        show=warnings.showwarning,
        logging=(list(logging.root.handlers), logging.root.level, logging.root.manager.disable),
        environment=dict(os.environ),
        signals=[signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        hooks=(sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
        folder=os.getcwd(),
        # The engine's workers stay for the next call; they are threads of their own and change nothing for the others.
        threads_alive={{thread for thread in threading.enumerate() if not thread.name.startswith("minisbert")}},
    )

from huggingface_hub.utils.tqdm import tqdm
tqdm(range(1)).close()  # the thread that watches over bars is tqdm's
before = state()
import minisbert
assert state() == before
encoder = minisbert.load({str(folder)!r}, device="cpu")
texts = ["a man", "a cat", "the cat sat on the mat"] * 20
encoder.encode(texts, batch_size=2, show_progress_bar=True)
encoder.encode(texts, output_value="token_embeddings", convert_to_numpy=True)
list(encoder.encode_stream(texts, window=7))
encoder.encode("a " * 100, on_truncate="ignore")
try:
    encoder.encode(None)
except TypeError:
    pass
after = state()
assert after == before, {{name: (before[name], after[name]) for name in before if after[name] != before[name]}}
print("done")
"""
    done = programs.run(code)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_encoding_takes_and_leaves_the_callers_number_of_threads(tiny: SentenceEncoder, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tiny.encode(TEXTS)
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as pool:  # and in threads that are started later
            assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)


# The soak


def test_the_soak_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Three seconds of it, so that it forks once; ten minutes are for a release."""
    script = Path(__file__).parents[2] / "scripts/soak.py"
    done = subprocess.run(
        [sys.executable, script, "--minutes", "0.04", "--threads", "2"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "; 0 errors" in done.stdout.replace("\n", "; "), done.stdout + done.stderr
    assert "encode " in done.stdout
    assert "fork 1" in done.stdout
