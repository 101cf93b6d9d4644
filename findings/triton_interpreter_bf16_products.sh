#!/usr/bin/env bash
# Triton's interpreter (TRITON_INTERPRET=1) multiplies the bit patterns of bfloat16 matrices, and raises nothing.
#
# Guess before the run: `tl.dot` gives for bfloat16 what it gives for float16, the product to within rounding: the
# interpreter is what kernels are tested with where there is no GPU.
# Seen with triton 3.9.0, PyTorch 2.13.0 (CPU build) and NumPy 2.4.6 (Python 3.11): of two random 16 x 16 matrices the
# product in float32 and float16 is right to 2e-6. In bfloat16, whose largest true entry is 12.8, it is 2.4e10, without an
# error or a warning. A kernel that is right on a GPU fails its test, and one that is wrong cannot be told from it.
#
# What to do: cast to float32 before `tl.dot` (TF32 holds every bfloat16), or test bfloat16 on a GPU only.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat > "$work/products.py" <<'P'
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"
import torch
import triton
import triton.language as tl


@triton.jit
def multiply(a, b, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


torch.manual_seed(0)
errors = {}
for kind in (torch.float32, torch.float16, torch.bfloat16):
    a, b = torch.randn(2, 16, 16).to(kind)
    out, wanted = torch.empty(16, 16), a.float() @ b.float()
    multiply[(1,)](a, b, out, SIZE=16)
    errors[kind] = float((out - wanted).abs().max())
    print(f"{kind}: largest true entry {float(wanted.abs().max()):.3g}, largest error {errors[kind]:.3g}")
right = max(errors[torch.float32], errors[torch.float16]) < 1e-3
sys.exit(0 if right and errors[torch.bfloat16] > 1e6 else 1)
P
"$work/venv/bin/python" "$work/products.py"
echo "as seen"
