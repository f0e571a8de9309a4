"""A whole model as model.c and model.h.

Floats are never fused into multiply-adds: one bit more moves rows to the other side of a tree's split. GCC ignores the standard's pragma,
so every function carries the attribute; other compilers get the pragma; `NAME_exact()` tells whether it worked.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from converter.cores import Core, Distance, Layers, Trees
from converter.to_c.answers import write_answer
from converter.to_c.explanation import Explanation, write_explanation
from converter.to_c.heads import write_distance, write_kernel, write_layers
from converter.to_c.steps import write_steps
from converter.to_c.text import Source, literal, text_literal
from converter.to_c.trees import Nodes, write_trees
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps

INTERFACE_VERSION: Final = 1
HEADER_NAME: Final = "model.h"
# Behind the prefix: a macro that leaves the explanation out.
WITHOUT: Final = "WITHOUT_EXPLANATION"
FLAGS: Final = "-std=c99 -ffp-contract=off"
HEAD: Final = f"""/* Written by edgefleet from a trained model. Compile with: {FLAGS} */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include "model.h"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "missing values and rounding must be exact: compile without -ffast-math"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "float must be computed as float: compile with -msse2 -mfpmath=sse"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#define EXACT __attribute__((optimize("fp-contract=off")))
#else
#pragma STDC FP_CONTRACT OFF
#define EXACT
#endif

"""


@dataclass(frozen=True)
class Described:
    """What the header says of a model beside its shapes.

    Attributes:
        project: Its name; becomes the prefix of every name in C.
        digest: The model package's.
        classes: Names of the classes.
        threshold: See `PackageIndex.threshold`.
        positive: Class index that the threshold speaks of.
    """

    project: str
    digest: str
    classes: Sequence[str]
    threshold: float | None = None
    positive: int = 1

    @property
    def name(self) -> str:
        """Prefix of the functions."""
        plain = re.sub(r"[^a-z0-9]+", "_", self.project.lower()).strip("_") or "model"
        return plain if plain[0].isalpha() else f"m_{plain}"


@dataclass(frozen=True)
class Written:
    """A model in C.

    Attributes:
        code: model.c.
        header: model.h.
        constant_bytes: What its tables take.
        explanation: As it was written; with a reason where a wished one did not fit.
        explain_bytes: What the tables take that only the explanation needs.
    """

    code: str
    header: str
    constant_bytes: int
    explanation: Explanation
    explain_bytes: int = 0


def write_model(core: Core, steps: Steps, described: Described, explanation: Explanation | None = None) -> Written:
    """A core and the steps in front of it; with an explanation, a function that explains an answer.

    Raises:
        VerdictError: It is too large.
    """
    source = Source()
    rows, calls = "inputs", ""
    for number, cleaning in enumerate([steps, core.front or Steps.identity((core.features,))]):
        if cleaning.is_identity:
            continue
        write_steps(cleaning, f"clean{number}", source)
        calls += f"  float z{number}[{math.prod(cleaning.output_shape)}];\n  clean{number}({rows}, z{number});\n"
        rows = f"z{number}"
    nodes = _write_head(core, source)
    cleaned = calls
    calls += f"  head({rows}, margin);\n"
    if core.classes:
        write_answer(core, source)
        calls += "  answer(margin, probabilities);\n"
    else:
        calls += "  (void)probabilities;\n"
    name, upper = described.name, described.name.upper()
    calls += f"  for (int k = 0; k < {upper}_MARGINS; k++) {{\n    if (margin[k] - margin[k] != 0.0f) return 1;\n  }}\n"
    source.function(f"EXACT int {name}_predict(const float *inputs, float *margin, float *probabilities)\n{{\n{calls}  return 0;\n}}\n")
    source.function(
        f"EXACT int {name}_exact(void)\n{{\n  volatile float x = {literal(np.float32(1 + 2.0**-12))};\n  const float y = x;\n"
        f"  return y * y - {literal(np.float32(1 + 2.0**-11))} == 0.0f;\n}}\n"
    )
    if core.classes:
        names = ", ".join(text_literal(text) for text in described.classes)
        source.function(f"const char *const {name}_classes[{upper}_CLASSES] = {{{names}}};\n")
    explanation, part = _explained(core, explanation or Explanation(reason="nobody asked for one"), nodes, source)
    code = HEAD + source.text()
    if part is not None and explanation.exact is not None:
        part.function(_explain_function(described, cleaned, rows, explanation.exact.inputs))
        code += f"\n#ifndef {upper}_{WITHOUT}\n{part.text()}#endif\n"
    header = _header(core, math.prod(steps.input_shape), described, explanation)
    return Written(code, header, source.constant_bytes, explanation, 0 if part is None else part.constant_bytes)


def _explained(core: Core, wished: Explanation, nodes: Nodes | None, source: Source) -> tuple[Explanation, Source | None]:
    """What is written, and its part of the file."""
    if wished.exact is None:
        return wished, None
    try:
        return wished, write_explanation(core, wished.exact, nodes, source)
    except VerdictError as err:
        return Explanation(reason=f"with the explanation {err}"), None


def _explain_function(described: Described, cleaned: str, rows: str, inputs: int) -> str:
    name, upper = described.name, described.name.upper()
    return (
        f"EXACT int {name}_explain(const float *inputs, int column, float *base, float *contributions)\n{{\n"
        f"{cleaned}  if (column < 0 || column >= {upper}_MARGINS) return 1;\n  explain({rows}, column, base, contributions);\n"
        f"  for (int i = 0; i < {inputs}; i++) {{\n    if (contributions[i] - contributions[i] != 0.0f) return 1;\n  }}\n  return 0;\n}}\n"
    )


def _write_head(core: Core, source: Source) -> Nodes | None:
    head = core.head
    if isinstance(head, Trees):
        return write_trees(head, source)
    if isinstance(head, Layers):
        write_layers(head, source)
    elif isinstance(head, Distance):
        write_distance(head, source)
    else:
        write_kernel(head, source)
    return None


def _header(core: Core, inputs: int, described: Described, explanation: Explanation) -> str:
    name, upper = described.name, described.name.upper()
    lines = [
        f"/* Written by edgefleet from a trained model. Compile model.c with: {FLAGS} */",
        f"#ifndef {upper}_MODEL_H",
        f"#define {upper}_MODEL_H",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {upper}_INTERFACE {INTERFACE_VERSION}",
        f"#define {upper}_MODEL_DIGEST {text_literal(described.digest)}",
        f"#define {upper}_INPUTS {inputs}",
        f"#define {upper}_MARGINS {core.margins}",
        f"#define {upper}_CLASSES {core.classes}",
    ]
    if described.threshold is not None:
        lines.append(f"#define {upper}_THRESHOLD {literal(np.float32(described.threshold))}")
        lines += [f"#define {upper}_POSITIVE {described.positive}"] if core.classes else []
    lines += [
        "",
        "/* inputs: one raw row (a window: all its rows, the oldest first), NAN where a value is missing.",
        "   margin: what the model decides by. probabilities: of the classes; not written to where there are none.",
        "   Returns 0, or 1 if the answer is not finite and must not be used. No memory of its own: any number of threads may call it. */",
        f"int {name}_predict(const float *inputs, float *margin, float *probabilities);",
        "",
        "/* 1 if the compiler kept multiplication and addition apart, as the model needs it. */",
        f"int {name}_exact(void);",
        *_explaining(described, explanation),
        *(["", f"extern const char *const {name}_classes[{upper}_CLASSES];"] if core.classes else []),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _explaining(described: Described, explanation: Explanation) -> list[str]:
    name, upper = described.name, described.name.upper()
    if explanation.exact is None:
        reason = explanation.reason.encode("ascii", "replace").decode().replace("*/", "* /")
        return ["", f"/* No explanation: {reason} */"]
    return [
        "",
        f"#ifndef {upper}_{WITHOUT}",
        f"#define {upper}_EXPLAINED {explanation.exact.inputs}",
        f"/* What moved margin[column] ({explanation.exact.method}, exact): one contribution for each raw input (a window: for each of its",
        "   columns), in units of the margin. base + their sum = margin[column]. One margin of two classes speaks of the second; the first",
        f"   has the negatives. Returns 0, or 1 if they are not finite or there is no such column. Define {upper}_{WITHOUT}",
        "   to leave it and its tables out. */",
        f"int {name}_explain(const float *inputs, int column, float *base, float *contributions);",
        "#endif",
    ]


def without_explanation(header: str) -> str:
    """model.h of a model whose explanation is left out, whatever it is compiled with."""
    # The greedy name: a project may be called `my_model_house`.
    return re.sub(r"^#define (\w+)_MODEL_H$", rf"\g<0>\n#define \1_{WITHOUT}", header, count=1, flags=re.MULTILINE)
