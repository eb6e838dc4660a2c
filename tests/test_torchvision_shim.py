"""torchvision imports after the shim, and only the fault it is for is mended. Each case is a process of its own."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CALL = "from gill._torchvision import define_missing_torchvision_ops as define\n"


def run(code: str, *search_first: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, `search_first` ahead of what is installed."""
    lines = "".join(f"sys.path.insert(0, {str(path)!r})\n" for path in (REPOSITORY, *search_first))
    return subprocess.run([sys.executable, "-c", f"import sys\n{lines}{code}"], capture_output=True, text=True)


def fake_torchvision(folder: Path, code: str) -> Path:
    """A package of that name which does `code` when imported."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision/__init__.py").write_text(code)
    return folder


def test_torchvision_and_clip_import_and_a_second_call_does_nothing() -> None:
    done = run(
        f"{CALL}define()\nassert define() is False\n"
        "import torch\nfrom torchvision.transforms import Resize\nfrom torchvision.utils import make_grid\n"
        "assert Resize(4)(torch.zeros(3, 8, 8)).shape == make_grid(torch.zeros(3, 4, 4)).shape\n"
        "from transformers import CLIPModel\nimport open_clip\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_torchvision_is_no_error() -> None:
    done = run(f"sys.modules['torchvision'] = None\n{CALL}assert define() is False\nassert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_another_fault_is_not_hidden(tmp_path: Path) -> None:
    done = run(f"{CALL}define()", fake_torchvision(tmp_path, "raise RuntimeError('built for another torch')"))
    assert "built for another torch" in done.stderr


def test_a_missing_dependency_is_not_hidden(tmp_path: Path) -> None:
    done = run(f"{CALL}define()", fake_torchvision(tmp_path, "import no_such_library"))
    assert "no_such_library" in done.stderr
