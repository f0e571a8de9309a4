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
from converter.to_c.heads import write_distance, write_kernel, write_layers
from converter.to_c.steps import write_steps
from converter.to_c.text import Source, literal, text_literal
from converter.to_c.trees import write_trees
from edgefleet.steps import Steps

INTERFACE_VERSION: Final = 1
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
    """A model in C: `code` is model.c, `header` model.h, `constant_bytes` what its tables take."""

    code: str
    header: str
    constant_bytes: int


def write_model(core: Core, steps: Steps, described: Described) -> Written:
    """A core and the steps in front of it.

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
    _write_head(core, source)
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
    header = _header(core, math.prod(steps.input_shape), described)
    return Written(HEAD + source.text(), header, source.constant_bytes)


def _write_head(core: Core, source: Source) -> None:
    head = core.head
    if isinstance(head, Trees):
        write_trees(head, source)
    elif isinstance(head, Layers):
        write_layers(head, source)
    elif isinstance(head, Distance):
        write_distance(head, source)
    else:
        write_kernel(head, source)


def _header(core: Core, inputs: int, described: Described) -> str:
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
        *(["", f"extern const char *const {name}_classes[{upper}_CLASSES];"] if core.classes else []),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(lines)
