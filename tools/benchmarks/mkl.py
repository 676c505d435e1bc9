"""Lets PyTorch use AVX-512 on a processor that is not Intel's.

PyTorch multiplies matrices with MKL, which runs its AVX2 kernels on such a processor: half the speed. MKL calls a
function of its own to find out who made the processor. A library that is loaded first can define this function.
"""

import shutil
import subprocess
from pathlib import Path

ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def environment(folder: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Returns environment variables for the process that imports torch; compiles the library into `folder`.

    There are none where they would not help (no AVX-512, or a processor of Intel's) or where a C compiler is missing.
    """
    described = cpuinfo.read_text() if cpuinfo.exists() else ""
    compiler = shutil.which("cc")
    if "AuthenticAMD" not in described or "avx512f" not in described or compiler is None:
        return {}
    library = folder / "mkl_answer.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=ANSWER, text=True, check=True)
    return {"LD_PRELOAD": str(library)}
