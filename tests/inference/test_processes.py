"""Processes that were forked, with or without Python's knowledge, and programs whose threads gevent has replaced: no call hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import save_tiny
from programs import Programs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that PyTorch uses several threads for its products."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, hidden_size=256, intermediate_size=256)
    return folder


EVERYTHING = """
import copy, ctypes, faulthandler, os, pickle, sys, threading, time
import minisbert, torch
from minisbert import util
from minisbert.inference.threads import computing, forked
from minisbert.train import CosineSimilarityLoss, embed, fit

torch.set_num_threads(2)
folder = {folder!r}
texts = ["a man is eating", "the cat sat on the mat"] + [f"a {{'red ' * (n % 25)}}dog" for n in range(100)]
encoder = minisbert.load(folder, device="cpu")

def everything():
    vectors = encoder.encode(texts)
    # All compared as lists: a comparison of large tensors in a forked process would itself hang.
    yield vectors.tolist()
    yield encoder.encode(texts[1]).tolist()
    yield [row for rows in encoder.encode_stream(texts, window=40) for row in rows.tolist()]
    yield encoder.similarity(vectors, vectors).tolist()
    yield util.semantic_search(vectors, vectors, top_k=2)
    yield util.paraphrase_mining(encoder, texts, top_k=2)
    yield util.community_detection(vectors, threshold=0.9, min_community_size=2)
    yield encoder.count_tokens(texts)
    yield pickle.loads(pickle.dumps(encoder)).encode(texts[1]).tolist()
    yield copy.deepcopy(encoder).encode(texts[1]).tolist()
    trace = minisbert.trace(texts[0], texts[1], model=encoder, corpus=texts[:5])
    yield trace.cosine, trace.layer_cosines.tolist(), len(trace.html())
    encoder.save(folder + "-saved-" + str(os.getpid()))
    yield minisbert.encode(texts[1], folder).tolist()
    yield minisbert.load(folder, device="cpu").encode(texts[1]).tolist()
    yield encoder.info().parameters
    student = minisbert.load(folder, device="cpu")
    fit(student, [(text, texts[1], 0.5) for text in texts[:24]], loss=CosineSimilarityLoss(), batch_size=12)
    yield student.encode(texts[1]).tolist()

before = list(everything())
torch.ones(700, 700) @ torch.ones(700, 700)  # now there surely is a pool of threads, which no child has
"""

FORKED = """
def check(fork, work):
    child = fork()
    if child == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        os._exit(0 if work() else 3)
    return os.waitpid(child, 0)[1]

def same():
    return list(everything()) == before and forked()

def refused():
    try:
        encoder.encode(texts)
    except minisbert.MinisbertError as error:
        return "was forked while other threads computed" in str(error)

def trained():
    try:
        embed(encoder, texts)
    except minisbert.MinisbertError as error:
        assert "was forked after it had computed" in str(error)
    thread = threading.Thread(target=lambda: embed(encoder, texts).sum().backward())
    thread.start()
    thread.join()
    return encoder.bert.embeddings.word.weight.grad is not None

untold = ctypes.PyDLL(None).fork  # Python is not told of it
print(check(os.fork, same), check(untold, same), check(os.fork, trained))

# What another thread had locked stays locked in a forked process, and a fork that Python does not know of does not wait.
inside, leave = threading.Event(), threading.Event()
def compute():
    with computing():
        inside.set()
        leave.wait()
threading.Thread(target=compute).start()
inside.wait()
print(check(untold, refused))
leave.set()
"""


def test_every_operation_works_in_a_forked_process_or_says_why_not(folder: Path, programs: Programs) -> None:
    done = programs.run(EVERYTHING.format(folder=str(folder)) + FORKED)
    assert (done.stdout, done.returncode) == ("0 0 0\n0\n", 0), done.stderr


PATCH = "from gevent import monkey; monkey.patch_all()\n"
GEVENT = {
    "before the import": (PATCH, "", ""),
    "after the import": ("", PATCH, ""),
    "after the first use": ("", "", PATCH),
}


@pytest.mark.parametrize("when", GEVENT)
def test_it_works_when_gevent_replaces_pythons_threads(folder: Path, programs: Programs, when: str) -> None:
    first, imported, used = GEVENT[when]
    code = f"""
import faulthandler
faulthandler.dump_traceback_later(60, exit=True)
{first}
import os
import minisbert, torch
{imported}
torch.set_num_threads(2)
folder = {str(folder)!r}
texts = ["a man is eating", "the cat sat on the mat"] + [f"a {{'red ' * (n % 25)}}dog" for n in range(100)]
encoder = minisbert.load(folder, device="cpu")
expected = encoder.encode(texts)
{used}
import gevent
def work():
    return (
        encoder.encode(texts).equal(expected)
        and encoder.encode(texts[1]).equal(expected[1])
        and minisbert.encode(texts, folder).equal(expected)
        and torch.cat(list(encoder.encode_stream(texts, window=40))).equal(expected)
    )
jobs = [gevent.spawn(work) for _ in range(3)]
gevent.joinall(jobs, raise_error=True)
with torch.inference_mode():
    assert work()
child = os.fork()
if child == 0:
    os._exit(0 if encoder.encode(texts).tolist() == expected.tolist() else 3)
print([job.value for job in jobs], os.waitpid(child, 0)[1])
"""
    if first:  # before torch, which the others have at hand
        variables = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    else:
        done = programs.run(code)
    assert (done.stdout, done.returncode) == ("[True, True, True] 0\n", 0), done.stderr
