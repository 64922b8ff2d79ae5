"""The formulas of the page of a trace, in MathML, and the pieces that they are put together from."""

from __future__ import annotations


def mi(name: str) -> str:
    """A variable."""
    return f"<mi>{name}</mi>"


def mo(sign: str) -> str:
    """An operator."""
    return f"<mo>{sign}</mo>"


def sub(base: str, index: str) -> str:
    """A variable with an index."""
    return f"<msub><mi>{base}</mi><mrow>{index}</mrow></msub>"


def call(name: str, *inside: str) -> str:
    """A function of something."""
    return (
        f'<mrow><mi mathvariant="normal">{name}</mi><mo stretchy="false">(</mo>{"".join(inside)}<mo stretchy="false">)</mo></mrow>'
    )


def fraction(above: str, below: str) -> str:
    """One above the other."""
    return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"


def norm(name: str) -> str:
    """The length of a vector."""
    return f"<mrow><mo>‖</mo><mi>{name}</mi><mo>‖</mo></mrow>"


def sum_over(index: str) -> str:
    """∑ over an index."""
    return f"<munder><mo>∑</mo><mrow>{index}</mrow></munder>"


def math_block(*parts: str) -> str:
    """A formula in a line of its own."""
    return f'<math display="block">{"".join(parts)}</math>'


EMBEDDING = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p"), mo("+"), mi("s")))
EMBEDDING_WITHOUT_SEGMENTS = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p")))
POOL = math_block(mi("s"), mo("="), sum_over(mi("i")), sub("w", mi("i")), sub("h", mi("i")))

Q_K = "<mrow><mi>Q</mi><msup><mi>K</mi><mi>T</mi></msup></mrow>"
SCORES = fraction(Q_K, "<msqrt><mi>d</mi></msqrt>")
ATTENTION = math_block(call("softmax", SCORES), mi("V"))
BIASED_ATTENTION = math_block(call("softmax", SCORES, mo("+"), mi("B")), mi("V"))
LAYER = math_block(mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("Attention", mi("x")))) + math_block(
    mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("FFN", mi("x")))
)

COSINE = math_block(
    call("cos", mi("u"), mo(","), mi("v")), mo("="), fraction(f"{mi('u')}{mo('·')}{mi('v')}", norm("u") + norm("v"))
)
PAIRS = math_block(
    call("cos", mi("u"), mo(","), mi("v")),
    mo("="),
    sum_over(mi("i")),
    sum_over(mi("j")),
    fraction(f"{sub('u', mi('i'))}{mo('·')}{sub('v', mi('j'))}", norm("u") + norm("v")),
)
