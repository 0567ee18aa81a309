"""The command line, for launchers that start a module: `torchrun ... -m geomkit train`."""

from geomkit.cli import main

main()
