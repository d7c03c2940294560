"""Installs a wheel or an sdist into a fresh environment, from hashes, and uses it there.

    python .ci/check_install.py dist/hymunet-0.1.0-py3-none-any.whl -r requirements/core.txt

Needs nothing but the Python that runs it. The environment lies in a temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

USE = """
import json, pathlib, subprocess, sys
import hymunet
from hymunet.data.phantoms import draw_lesion
from PIL import Image

here = pathlib.Path.cwd()
package = pathlib.Path(hymunet.__file__).parent
assert sys.prefix in str(package), f"{package} is not of the fresh environment"
for name in hymunet.pretrained_names():
    picture = draw_lesion(1, (96, 128)).image
    mask = hymunet.Predictor(name, device="cpu")(picture).mask
    assert mask.shape == (96, 128) and mask.any(), name
Image.fromarray(picture.transpose(1, 2, 0)).save(here / "picture.png")
"""


def run(*command: object, cwd: Path) -> None:
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    # of the caller's environment nothing may be found in place of the fresh one
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(words, cwd=cwd, env=kept, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path, help="wheel or sdist")
    parser.add_argument("-r", "--requirements", type=Path, required=True, help="file with hashes")
    options = parser.parse_args()
    package, requirements = options.package.resolve(), options.requirements.resolve()
    with tempfile.TemporaryDirectory(prefix="hymunet-install-") as temporary:
        here = Path(temporary)
        venv.create(here / "env", with_pip=True)
        scripts = here / "env" / ("Scripts" if os.name == "nt" else "bin")
        python = scripts / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "--quiet", "--require-hashes", "-r", requirements, cwd=here)
        run(*pip, "install", "--quiet", "--no-deps", package, cwd=here)
        run(*pip, "check", cwd=here)
        run(python, "-c", USE, cwd=here)
        run(scripts / "hymunet", "--version", cwd=here)
        run(scripts / "hymunet", "models", cwd=here)
        predicted = ("predict", "picture.png", "--model", "isic2018-tiny", "--output", "masks")
        run(scripts / "hymunet", *predicted, cwd=here)
        if not (here / "masks" / "picture.png").is_file():
            sys.exit("predict wrote no mask")
    print(f"{package.name} works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
