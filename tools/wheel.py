"""Build the wheel, install it in an empty environment, and run it there: what the files of the checkout could hide.

python tools/wheel.py               dependencies are installed too
python tools/wheel.py --borrow      dependencies are those of the Python that runs this: seconds, not minutes
python tools/wheel.py --out FOLDER  keeps the wheel there (default: dist)
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = [
    "--data.limit=60",
    "--data.eval_limit=20",
    "--model.width=8",
    "--model.layers=1",
    "--model.heads=2",
    "--space.heads=[2]",
    "--search.finals.cells=0",
    "--search.batch_size=10",
    '--search.stages={"layers":[1],"keep":[0],"epochs":[1],"weight_epochs":[0]}',
    "--train.batch_size=20",
    "--train.epochs=1",
    "--runtime.device=cpu",
    "--runtime.precision=float32",
]
COMMANDS = [
    ["--version"],
    ["cost", "dasvit_cifar10"],
    ["predict", "cifar10"],
    ["quickstart", *TINY, "--run", "run"],
]
"""What is run, from the least to the most; the third needs the model in the wheel, the last recipes and templates."""


def build(out: Path) -> Path:
    """Return the wheel, built of the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT))
        (wheel,) = Path(folder).glob("dasvit-*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(wheel, out))


def install(wheel: Path, home: Path, borrow: bool) -> Path:
    """Install a wheel in a new environment, and return the environment's programs."""
    venv.create(home, with_pip=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    call(str(programs / "python"), "-m", "pip", "install", "--quiet", *(["--no-deps"] if borrow else []), str(wheel))
    if borrow:
        (site,) = home.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    return programs


def call(*command: str, folder: Path | None = None) -> None:
    """Run a command that must succeed, away from the checkout's modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, cwd=folder, env=environment)


def main() -> None:
    """Build, install, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--borrow", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    wheel = build(options.out)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        programs = install(wheel, home / "environment", options.borrow)
        where = "import dasvit, pathlib; print(pathlib.Path(dasvit.__file__).parents[0])"
        found = subprocess.run(
            [programs / "python", "-I", "-c", where], capture_output=True, text=True, check=True, cwd=folder
        ).stdout.strip()
        assert Path(found).is_relative_to(home), f"{found} was imported, not the wheel"
        for command in COMMANDS:
            print("dasvit", *command, flush=True)
            call(str(programs / "dasvit"), *command, folder=home)
        assert (home / "run" / "report.html").is_file(), "quickstart wrote no page"
    print(f"{wheel} is good")


if __name__ == "__main__":
    main()
