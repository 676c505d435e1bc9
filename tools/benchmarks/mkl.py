"""What lets PyTorch use the whole of a processor that Intel did not make.

MKL, which multiplies PyTorch's matrices, runs its AVX2 kernels there, AVX-512 or not: half the speed. It asks a
function of its own who made the processor, and a library that is loaded before it may answer.
"""

import shutil
import subprocess
from pathlib import Path

ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def environment(folder: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Variables for the process that imports torch; the library is compiled into `folder`.

    Empty where it is of no use (no AVX-512, or Intel's own) or where there is no C compiler.
    """
    described = cpuinfo.read_text() if cpuinfo.exists() else ""
    compiler = shutil.which("cc")
    if "AuthenticAMD" not in described or "avx512f" not in described or compiler is None:
        return {}
    library = folder / "mkl_answer.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=ANSWER, text=True, check=True)
    return {"LD_PRELOAD": str(library)}
