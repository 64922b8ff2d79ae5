"""What a CUDA device must give: the same vectors, whatever the batch up to rounding, within the memory that there is."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from checkpoints import FAMILIES, save_tiny
from parity.compare import EXACT, close
from parity.reference import Reference
from parity.test_tiny import lengths

import minisbert
from minisbert.inference.kernels import product_of
from minisbert.train import CosineSimilarityLoss, Examples, embed, fit

TEXTS = ["the cat sat on the mat.", "a man is eating food.", "someone is having a meal!", "the dog runs", "a"] * 7
MASK = lengths(7, 1, 30, 7, 12, 2, 30, 1)


@pytest.fixture(scope="module")
def sentences(sts_sentences: list[str]) -> list[str]:
    return list(dict.fromkeys(sts_sentences))


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_layer_of_every_family_equals_the_processors_in_float64(model_type: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_tiny(tmp_path / "one", model_type=model_type)
    there = minisbert.load(tmp_path / "one", device="cuda", dtype=dtype)
    here = minisbert.load(tmp_path / "one", device="cpu", dtype=torch.float64)
    ids = torch.randint(30, MASK.shape, generator=torch.Generator().manual_seed(0))
    states: dict[str, list[torch.Tensor]] = {"cuda": [], "cpu": []}
    for encoder in there, here:
        name = encoder.device.type
        hooks = [
            module.register_forward_hook(lambda _module, _given, output, name=name: states[name].append(output.double().cpu()))
            for module in (encoder.bert.embeddings, *encoder.bert.layers)
        ]
        result = encoder.bert(ids.to(encoder.device), MASK.to(encoder.device))
        states[name].append(result.double().cpu())
        for hook in hooks:
            hook.remove()
    for number, (ours, expected) in enumerate(zip(states["cuda"], states["cpu"], strict=True)):
        close(f"state {number}", ours, expected, EXACT.states if dtype == torch.float64 else 1e-5)
    close(
        "vectors",
        there.encode(TEXTS).double(),
        here.encode(TEXTS).double(),
        EXACT.vectors if dtype == torch.float64 else 1e-5,
    )


def test_the_real_model_gives_the_vectors_of_the_processor_and_of_sentence_transformers(
    minilm_folder: Path, sentences: list[str]
) -> None:
    encoder = minisbert.load(minilm_folder)
    assert encoder.device.type == "cuda"
    assert product_of(encoder.bert) is torch.nn.functional.linear
    ours = encoder.encode(sentences)
    assert ours.device.type == "cpu"
    close("vectors", ours, minisbert.load(minilm_folder, device="cpu").encode(sentences), 1e-6)
    close("vectors", ours[:200], Reference(minilm_folder, torch.float32).vectors(sentences[:200]), 1e-6)
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0)).tolist()
    close("another order", encoder.encode([sentences[index] for index in order], batch_tokens=3000), ours[order], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_stays_near_float32(minilm_folder: Path, sentences: list[str], dtype: torch.dtype) -> None:
    expected = minisbert.load(minilm_folder).encode(sentences)
    ours = minisbert.load(minilm_folder, dtype=dtype).encode(sentences)
    cosines = torch.cosine_similarity(ours, expected)
    assert cosines.min() > (0.9999 if dtype == torch.float16 else 0.995)


def test_a_batch_that_does_not_fit_is_computed_in_parts(minilm_folder: Path, sentences: list[str]) -> None:
    encoder = minisbert.load(minilm_folder)
    expected = encoder.encode(sentences, batch_tokens=2000)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction((held + 100 * 2**20) / total)
    try:
        before = torch.cuda.memory_stats().get("num_ooms", 0)
        close("vectors", encoder.encode(sentences, batch_tokens=10**6), expected, 1e-6)
        assert torch.cuda.memory_stats()["num_ooms"] > before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_gradients_and_training(minilm_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    encoder, other = (minisbert.load(minilm_folder, device=device, dtype=torch.float64) for device in ("cuda", "cpu"))
    for each in encoder, other:
        each.bert.requires_grad_(True)
        (embed(each, sentences[:40]) ** 3).sum().backward()
    for (name, ours), theirs in zip(encoder.bert.named_parameters(), other.bert.parameters(), strict=True):
        if theirs.grad is not None:
            close(name, ours.grad.cpu(), theirs.grad, 1e-10)

    data = Examples([sentences[:128], sentences[128:256]], torch.rand(128, generator=torch.Generator().manual_seed(0)))
    runs = []
    for _ in range(2):
        trained = minisbert.load(minilm_folder)
        history = fit(trained, data, loss=CosineSimilarityLoss(), epochs=2, seed=1)
        assert history.steps[-1].loss < history.steps[0].loss
        runs.append(trained.encode(sentences[:50]))
    close("two runs of one seed", *runs, 1e-4)
    trained.save(tmp_path / "trained")
    close("saved", minisbert.load(tmp_path / "trained").encode(sentences[:50]), runs[1], 1e-6)


def test_precision_bfloat16_trains(minilm_folder: Path, sentences: list[str]) -> None:
    data = Examples([sentences[:64], sentences[64:128]], torch.rand(64, generator=torch.Generator().manual_seed(0)))
    encoder = minisbert.load(minilm_folder)
    history = fit(encoder, data, loss=CosineSimilarityLoss(), epochs=3, seed=1, precision=torch.bfloat16)
    assert history.steps[-1].loss < history.steps[0].loss
    assert encoder.bert.dtype == torch.float32


def test_copies_search_trace_and_a_corpus(minilm_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    encoder = minisbert.load(minilm_folder)
    vectors = copy.deepcopy(encoder).encode(sentences)
    found = minisbert.semantic_search(vectors[:20].cuda(), vectors.cuda(), top_k=5)
    expected = minisbert.semantic_search(vectors[:20], vectors, top_k=5)
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [[hit["corpus_id"] for hit in hits] for hits in expected]
    trace = minisbert.trace(*sentences[:2], model=encoder)
    assert abs(float(trace.cosine) - float(minisbert.util.cos_sim(vectors[0], vectors[1]))) < 1e-5

    from minisbert.corpus import encode_corpus, verify_corpus

    (tmp_path / "texts.txt").write_text("\n".join(sentences[:500]) + "\n", encoding="utf-8")
    summary = encode_corpus(tmp_path / "texts.txt", tmp_path / "out", model=str(minilm_folder))
    assert summary.new_rows == 500
    manifest = (tmp_path / "out/_minisbert/manifest.json").read_text("utf-8")
    assert torch.cuda.get_device_name() in manifest
    assert verify_corpus(tmp_path / "out").rows == 500
