"""What an operator is.

A measurement is ``y = A(x) + noise``. `Operator` is any differentiable ``A``; `LinearOperator` adds the three
functions that carry every linear method: ``forward``, its exact ``adjoint``, and
``gram_solve(r, lam) = (A A^T + lam I)^{-1} r``. The pseudo-inverse and the proximal step follow from these.
"""

from operators.base.composition import Composition, Identity, LinearComposition
from operators.base.linear import SVD, LinearOperator
from operators.base.operator import Operator, Shape
from operators.base.per_image import PerImage
from operators.base.testing import dot_test, linearity_test

__all__ = [
    "SVD",
    "Composition",
    "Identity",
    "LinearComposition",
    "LinearOperator",
    "Operator",
    "PerImage",
    "Shape",
    "dot_test",
    "linearity_test",
]
