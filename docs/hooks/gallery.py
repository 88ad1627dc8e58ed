"""The gallery is brought up to date before the site is built: seconds where its stored figures are those of its scripts, else minutes."""

import subprocess
import sys
from pathlib import Path


def on_pre_build(config):
    root = Path(config.config_file_path).parent
    subprocess.run([sys.executable, str(root / "docs/gallery/build.py")], check=True)
