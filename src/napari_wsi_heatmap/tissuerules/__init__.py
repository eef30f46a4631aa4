"""How tissue is found: one file, one rule. `napari_wsi_heatmap.tissue.find_tissue` chooses."""
