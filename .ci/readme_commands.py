"""Print the two commands of README.md, a line each: what `.ci/run` runs is what stands there."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    """Find the blocks of shell, and check that they are what the README promises."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if len(blocks) != 2 or any(block.count("\n") != 1 for block in blocks):
        sys.exit("README.md must have exactly two blocks of shell, of one line each.")
    print("".join(blocks), end="")


if __name__ == "__main__":
    main()
