"""The losses. Names, defaults and values are those of `sentence_transformers.losses`.

A loss is called as `loss(embeddings, labels)`. `embeddings` is a list of tensors [batch, dim], one for each column of texts, and
`labels` is [batch], or None if the loss needs no labels. The result is a scalar.

Notation: u, v are the vectors of the first and the second column, w those of the third; cos(u, v) is u·v / (|u| |v|).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Loss(nn.Module):
    """The base class of the losses below. `fit` also takes any other module with the same interface.

    Attributes:
        columns: the fewest and the most columns of texts that it takes.
        label_range: the smallest and the largest label; None if it takes no labels.
        integer_labels: whether a label must be an integer.
    """

    columns: tuple[int, float] = (2, 2)
    label_range: tuple[float, float] | None = None
    integer_labels = False

    def check(self, columns: int, labels: Tensor | None) -> None:
        """Checks all data before training starts.

        Args:
            columns: the number of columns of texts.
            labels: [examples], or None if the data has none.

        Raises:
            ValueError: if the number of columns is wrong, labels are missing, or one is out of range, with its row.
        """
        name = type(self).__name__
        least, most = self.columns
        if not least <= columns <= most:
            expected = f"{least}" if least == most else f"{least} or more"
            raise ValueError(f"{name}: found {columns} columns of texts, expected {expected}.")
        if self.label_range is None:
            if labels is not None:
                raise ValueError(f"{name}: found labels, expected none, because it uses the columns only. Leave the labels out.")
            return
        if labels is None:
            raise ValueError(f"{name}: found no labels, expected one for each row.")
        if labels.dim() != 1:
            raise ValueError(f"{name}: found labels of shape {list(labels.shape)}, expected one number for each row.")
        low, high = self.label_range
        wrong = ~labels.isfinite() | (labels < low) | (labels > high)
        if self.integer_labels:
            wrong |= labels != labels.round()
        if wrong.any():
            row = int(wrong.nonzero()[0])
            bounds = "a finite number" if math.isinf(high) else f"{low:g} to {high:g}"
            kind = "an integer, " if self.integer_labels else ""
            advice = " Divide scores by the largest first: max_score." if isinstance(self, CosineSimilarityLoss) else ""
            raise ValueError(f"{name}: row {row}: found the label {labels[row].item():g}, expected {kind}{bounds}.{advice}")


class SoftmaxLoss(Loss):
    """softmax(W (u, v, |u - v|)), and the cross entropy with the class.

    The classification objective of Reimers & Gurevych 2019, section 3. W is trained with the model, but is not part of it and is
    not saved.

    Shapes: u, v [batch, dim]; labels [batch], classes from 0; W [classes, 3 × dim], here with a bias.
    """

    integer_labels = True

    def __init__(self, dimension: int, num_labels: int = 3, *, seed: int = 0) -> None:
        """
        Args:
            dimension: of the sentence vectors.
            num_labels: how many classes there are.
            seed: the seed of W's initial values, which are those of `nn.Linear`.
        """
        super().__init__()
        self.label_range = (0, num_labels - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifier = nn.Linear(3 * dimension, num_labels)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        u, v = embeddings
        features = torch.cat([u, v, (u - v).abs()], dim=1)  # [batch, 3 × dim]
        return F.cross_entropy(self.classifier(features), labels.long())


class CosineSimilarityLoss(Loss):
    """mean (cos(u, v) - label)²

    The regression objective of Reimers & Gurevych 2019, section 3.

    Shapes: u, v [batch, dim]; labels [batch], from -1 to 1.
    """

    label_range = (-1, 1)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        u, v = embeddings
        return F.mse_loss(F.cosine_similarity(u, v), labels.to(u.dtype))


class TripletLoss(Loss):
    """mean max(|u - v| - |u - w| + margin, 0)

    The triplet objective of Reimers & Gurevych 2019, section 3, with euclidean distances: u is the anchor, v the positive and w the
    negative.

    Shapes: u, v, w [batch, dim]; no labels.
    """

    columns = (3, 3)

    def __init__(self, triplet_margin: float = 5.0) -> None:
        """
        Args:
            triplet_margin: how much further away the negative should be than the positive.
        """
        super().__init__()
        self.triplet_margin = triplet_margin

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        u, v, w = embeddings
        to_positive, to_negative = torch.linalg.vector_norm(u - v, dim=1), torch.linalg.vector_norm(u - w, dim=1)  # each [batch]
        return F.relu(to_positive - to_negative + self.triplet_margin).mean()


class ContrastiveLoss(Loss):
    """mean ½ (label · d² + (1 - label) · max(margin - d, 0)²)     with d = 1 - cos(u, v)

    Hadsell, Chopra & LeCun 2006, equation 4: a pair with label 1 is pulled together, one with label 0 is pushed apart up to the
    margin.

    Shapes: u, v [batch, dim]; labels [batch], 0 or 1.
    """

    label_range = (0, 1)
    integer_labels = True

    def __init__(self, margin: float = 0.5) -> None:
        """
        Args:
            margin: the distance at which a pair with label 0 has no loss any more.
        """
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        u, v = embeddings
        distance = 1 - F.cosine_similarity(u, v)  # [batch]
        alike = labels.to(u.dtype)
        return (alike * distance**2 + (1 - alike) * F.relu(self.margin - distance) ** 2).mean() / 2


class MultipleNegativesRankingLoss(Loss):
    """mean of -log softmax over the candidates c of (scale · cos(u, c)), at the candidate that belongs to u

    In-batch negatives: for each row, the second column of all other rows counts as negative, and so do all rows of further
    columns, the hard negatives. Henderson et al. 2017, section 4.4.

    Shapes: u and each further column [batch, dim]; no labels. If a text occurs twice in a batch, a positive counts as a negative;
    `fit(no_duplicates=True)` prevents it.
    """

    columns = (2, math.inf)

    def __init__(self, scale: float = 20.0) -> None:
        """
        Args:
            scale: what the cosines are multiplied by; the inverse of a temperature.
        """
        super().__init__()
        self.scale = scale

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        u, *candidates = (F.normalize(column, dim=1) for column in embeddings)
        scores = self.scale * u @ torch.cat(candidates).T  # [batch, candidates]
        return F.cross_entropy(scores, torch.arange(len(u), device=u.device))


class CoSENTLoss(Loss):
    """log(1 + Σ exp(scale · (cosⱼ - cosᵢ)))     over all rows i, j of the batch with labelᵢ > labelⱼ

    Only the order of the labels counts, as it does for Spearman's coefficient. Huang et al. 2024, "CoSENT".

    Shapes: u, v [batch, dim]; labels [batch], any numbers.
    """

    label_range = (-math.inf, math.inf)

    def __init__(self, scale: float = 20.0) -> None:
        """
        Args:
            scale: what the cosines are multiplied by.
        """
        super().__init__()
        self.scale = scale

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        u, v = embeddings
        scores = self.scale * F.cosine_similarity(u, v)  # [batch]
        differences = scores[None] - scores[:, None]  # [batch, batch]: scoreⱼ - scoreᵢ
        wrong_order = differences[labels[:, None] > labels[None]]  # [pairs of rows]
        return torch.cat([scores.new_zeros(1), wrong_order]).logsumexp(dim=0)  # e⁰ is the 1 of the formula


class MatryoshkaLoss(Loss):
    """Σ weight · loss(the first n dimensions of each vector, scaled to length 1)     over several widths n

    Vectors of the trained model can be truncated to one of these widths: `encode(truncate_dim=n)`. Kusupati et al. 2022, section 3.

    Shapes: those of the wrapped loss; labels that are vectors are truncated too.
    """

    def __init__(self, loss: nn.Module, matryoshka_dims: Sequence[int], matryoshka_weights: Sequence[float] | None = None) -> None:
        """
        Args:
            loss: the loss at each width. It must take vectors of any width, which SoftmaxLoss does not.
            matryoshka_dims: the widths, usually including the model's own dimension.
            matryoshka_weights: one for each width. Default: 1 for each.

        Raises:
            TypeError: if the wrapped loss takes one width only.
            ValueError: if there is no width, or not as many weights as widths.
        """
        super().__init__()
        if isinstance(loss, SoftmaxLoss):
            raise TypeError("loss: found SoftmaxLoss, whose classifier has one width, expected a loss for vectors of any width.")
        if not matryoshka_dims or any(dim < 1 for dim in matryoshka_dims):
            raise ValueError(f"matryoshka_dims: found {list(matryoshka_dims)}, expected one or more integers from 1.")
        weights = [1.0] * len(matryoshka_dims) if matryoshka_weights is None else list(matryoshka_weights)
        if len(weights) != len(matryoshka_dims):
            raise ValueError(f"matryoshka_weights: found {len(weights)}, expected {len(matryoshka_dims)}, one for each width.")
        self.loss = loss
        self.widths = dict(zip(matryoshka_dims, weights, strict=True))

    def check(self, columns: int, labels: Tensor | None) -> None:
        """Checks the data as the wrapped loss does."""
        if isinstance(self.loss, Loss):
            self.loss.check(columns, labels)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        dim = embeddings[0].shape[1]
        if max(self.widths) > dim:
            raise ValueError(f"matryoshka_dims: found {max(self.widths)}, expected at most {dim}, the dimension of the vectors.")
        vectors = labels is not None and labels.dim() > 1 and labels.shape[-1] == dim
        total = embeddings[0].new_zeros(())
        for width, weight in self.widths.items():
            cut = [F.normalize(column[:, :width], dim=1) for column in embeddings]
            total = total + weight * self.loss(cut, labels[..., :width] if vectors and labels is not None else labels)
        return total


class DistillationLoss(Loss):
    """mean (u - t)²     over all dimensions; t is the teacher's vector, and the mean of this over the columns

    Reimers & Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual", section 2; `MSELoss` in sentence-transformers.

    Shapes: each column [batch, dim]; labels [batch, dim], the same for each column, or [batch, columns, dim].
    """

    columns = (1, math.inf)

    def check(self, columns: int, labels: Tensor | None) -> None:
        """The labels are vectors here.

        Args:
            columns: the number of columns of texts.
            labels: [examples, dim] or [examples, columns, dim].

        Raises:
            ValueError: if they are not, or one is not finite.
        """
        if labels is None or labels.dim() not in (2, 3) or (labels.dim() == 3 and labels.shape[1] != columns):
            found = "no labels" if labels is None else f"labels of shape {list(labels.shape)}"
            raise ValueError(
                f"DistillationLoss: found {found}, expected the teacher's vectors, [rows, dim] or [rows, columns, dim]."
            )
        wrong = ~labels.flatten(1).isfinite().all(dim=1)
        if wrong.any():
            raise ValueError(f"DistillationLoss: row {int(wrong.nonzero()[0])}: the teacher's vector holds NaN or infinity.")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        student = torch.stack(list(embeddings), dim=1)  # [batch, columns, dim]
        teacher = labels if labels.dim() == 3 else labels[:, None].expand_as(student)
        return F.mse_loss(student, teacher.to(student.dtype))
