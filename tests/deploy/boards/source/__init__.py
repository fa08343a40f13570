"""Where the dashboards come from: `make dashboards` writes helm/kata-pulse/files/dashboards/*.json from these modules.

panels.py says how a panel looks, kata_node.py and kata_sandbox.py what is on the two boards.
"""

from . import kata_node, kata_sandbox

# File name without .json, and what makes the board.
BOARDS = {"kata-node": kata_node.board, "kata-sandbox": kata_sandbox.board}
