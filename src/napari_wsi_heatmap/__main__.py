"""``python -m napari_wsi_heatmap``: the command line, where its script is not on the path."""

from __future__ import annotations

import sys

from napari_wsi_heatmap.cli import main

sys.exit(main())
