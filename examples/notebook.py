"""The notebook's way: load, find tissue, encode tiles, look at what the latent variables say.

    python examples/notebook.py [SLIDE] [--out FOLDER] [--weights FILE] [--all] [--cluster]
        [--napari]

The three parts of "Uncorking the I/O Bottleneck of Bio-Imaging" (JHancox/BioImaging), cell by cell,
on the sample slide unless another one is given. No GPU is needed, and no weights: without --weights
a VAE2 is made of random numbers. It is saved as the notebooks save theirs, so that one of your own
takes its place by its name alone. Tables and pictures are written to FOLDER.
"""

# %% imports
import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.embedding.colours import as_rgba
from napari_wsi_heatmap.inspecting.gallery import gallery
from napari_wsi_heatmap.inspecting.patches import patches
from napari_wsi_heatmap.inspecting.reconstruction import decoder_of, reconstruct, side_by_side
from napari_wsi_heatmap.inspecting.sheet import save_gallery
from napari_wsi_heatmap.models.vaenet import VAE2
from napari_wsi_heatmap.sample import sample_slide_path
from napari_wsi_heatmap.slidecopy import copy_slide
from napari_wsi_heatmap.tissuerules.futures import as_table, tiles_as_completed

TILE = 64


# %% Part 1: a slide of any size opens at once; only what is looked at is read
def load(path, out):
    """Sizes, the thumbnail, and a part at full resolution as OME-Zarr."""
    with wh.open_slide(path) as slide:
        height, width = slide.levels[0].shape
        print(f"{slide.name}: {height:,} x {width:,} px, {slide.mpp} µm per pixel")
        for number, level in enumerate(slide.levels):
            print(f"  level {number}: {level.shape}, downsample {level.downsample}")
        last = slide.levels[-1].shape
        thumbnail = slide.read_region(len(slide.levels) - 1, 0, 0, *last)
        Image.fromarray(thumbnail).save(out / "thumbnail.png")
        # Positions are (y, x) in pixels of the level that is read, sizes too.
        middle = slide.read_region(0, height // 2, width // 2, TILE, TILE)
        print(f"  a patch from the middle: {middle.shape}, variance {middle.var():.0f}")
        region = (height // 4, width // 4, 3 * height // 4, 3 * width // 4)
        copy_slide(slide, out / "middle.zarr", level=0, roi=region)


# %% Part 2: tissue, by the variance of squares of 256 px and of tiles of 64 px in them
@contextmanager
def workers(cluster):
    """A local cluster, as in the notebook; else None: threads do it."""
    if not cluster:
        yield None
        return
    from distributed import Client, LocalCluster

    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **local) as made, Client(made) as client:
        print(f"dashboard: {client.dashboard_link}")
        yield client


def find_tiles(path, client):
    """Tiles as futures bring them; sorted they are the list that a run would compute."""
    came = []
    for found in tiles_as_completed(path, 80, client=client):
        print(f"  task {found.done} of {found.of}: {len(found.coords)} tiles of tissue")
        came.append(found)
    tiles = as_table(came)
    at_once = wh.tissue_windows(path, window=TILE, tissue="variance2:80")
    assert np.array_equal(tiles[["y", "x"]], at_once)
    print(tiles.describe().round(1))
    return tiles


def in_the_middle(path, tiles):
    """A quarter of the slide: enough to see how it goes."""
    with wh.open_slide(path) as slide:
        height, width = slide.levels[0].shape
    inside = tiles.y.between(height // 4, 3 * height // 4 - TILE)
    return tiles[inside & tiles.x.between(width // 4, 3 * width // 4 - TILE)]


# %% Part 2: the VAE
def random_checkpoint(path):
    """A VAE2 as the notebooks save theirs: from DataParallel, below a key."""
    torch.manual_seed(0)
    state = {f"module.{name}": tensor for name, tensor in VAE2().state_dict().items()}
    torch.save({"state_dict": state}, path)
    return path


def encode(path, weights, tiles, out):
    """The 32 latent variables of each tile, in a store and as a table with places."""
    model = wh.load_model(weights, output="latent")  # every weight must fit, by name and shape
    coords, store = tiles[["y", "x"]].to_numpy(), out / "latents.zarr"
    values = wh.predict_windows(path, model, coords, out=store)
    print(f"{model.name}: {values.shape[0]} tiles, {values.shape[1]} latent variables each")
    heatmap = wh.open_heatmap(store)
    heatmap.export(out / "latents.parquet")
    return heatmap


def look(path, heatmap, out):
    """Random tiles, and four of them beside what the decoder makes of their latents."""
    save_gallery(heatmap, out / "tiles.png", path, which="random", n=25)
    some = patches(heatmap, path, gallery(heatmap, 4, "random").index)
    made = reconstruct(decoder_of(heatmap), some)
    rows = [side_by_side(patch, drawn) for patch, drawn in zip(some, made, strict=True)]
    Image.fromarray(np.concatenate(rows)).save(out / "reconstructions.png")


# %% Part 3: the table, its principal components, what follows x or y
def analyse(heatmap, out):
    """Statistics, PCA as colours, and the check for artefacts."""
    table = heatmap.to_dataframe()
    print(table.iloc[:, :5].describe().round(3))
    found = heatmap.pca(3)
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.explained)
    print(f"three components explain {shares} of the variance")
    table[["pc_0", "pc_1", "pc_2"]] = found.scores
    table.to_parquet(out / "components.parquet")  # for plots of one component against another
    Image.fromarray(pca_picture(heatmap, found).repeat(4, 0).repeat(4, 1)).save(out / "pca.png")
    together = heatmap.correlation()
    for follows in together.strongest(3):
        print(f"  latent {follows.latent} follows {follows.axis}: r = {follows.r:.2f}")
    save_matrix(together.matrix, out / "correlation.png")
    return found


def pca_picture(heatmap, found):
    """(My, Mx, 4): each tile at its place, in the colours of its components."""
    return cells_of(heatmap).paint(as_rgba(found.scores), 0)


def save_matrix(matrix, path):
    """-1 blue, 0 white, 1 red; 32 latents, x and y."""
    r = np.nan_to_num(matrix)
    rgb = 1 - np.clip(np.stack([-r, np.abs(r), r], -1), 0, 1)
    picture = np.rint(255 * rgb).astype(np.uint8).repeat(12, 0).repeat(12, 1)
    Image.fromarray(picture).save(path)


# %% Part 3: nearest neighbours, among the latents and on the slide
def connect(heatmap, out):
    """Tiles most like one of them, and edges between all for graph programs."""
    like = gallery(heatmap, 1, "random").index[0]
    index, distance = heatmap.neighbours(like, k=5)
    print(f"most like tile {like}:")
    for tile, away in zip(index, distance, strict=True):
        y, x = heatmap.positions[tile]
        print(f"  tile {tile} at x {x:.0f}, y {y:.0f}: distance {away:.4f}")
    by_latents = heatmap.neighbour_edges(k=5)
    on_slide = heatmap.neighbour_edges(k=4, where="slide")
    by_latents.to_parquet(out / "edges_by_latents.parquet")
    on_slide.to_parquet(out / "edges_on_slide.parquet")
    print(by_latents.head())
    return np.array([like, *index]), on_slide


# %% everything at its place on the slide
def show(viewer, path, heatmap, found, alike, edges):
    """The slide; on it the components, neighbours on the slide, and tiles that look alike."""
    viewer.open(path, plugin="napari-wsi-heatmap")
    unit = np.asarray(heatmap.grid.spec.mpp or (1, 1))
    cells, centres = cells_of(heatmap), heatmap.centres
    common = {"units": viewer.layers[0].units}
    on_cells = {"scale": cells.scale * unit, "translate": cells.offset * unit, **common}
    on_level0 = {"scale": unit, **common}
    viewer.add_image(pca_picture(heatmap, found), rgb=True, name="PCA", opacity=0.7, **on_cells)
    first, second = centres[edges.source], centres[edges.target]
    lines = np.stack([first, second - first], axis=1)
    viewer.add_vectors(
        lines, vector_style="line", edge_width=4, name="neighbours on the slide", **on_level0
    )
    viewer.add_points(
        centres[alike], symbol="square", size=TILE, face_color="transparent", border_width=0.1,
        border_color=["white", *["magenta"] * (len(alike) - 1)], name="tiles alike", **on_level0,
    )  # fmt: skip


def in_napari(*what):
    """Show it in a window."""
    import napari

    show(napari.Viewer(), *what)
    napari.run()


# %% all of it
def main(arguments=None):
    """Run the cells one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", help="default: the sample slide")
    parser.add_argument("--out", type=Path, default=Path("notebook"), help="a new folder")
    parser.add_argument("--weights", type=Path, help="of VAE2, such as M2_WEIGHTS.PT")
    parser.add_argument("--all", action="store_true", help="encode all tiles, not the middle ones")
    parser.add_argument("--cluster", action="store_true", help="search on dask.distributed")
    parser.add_argument("--napari", action="store_true", help="show the layers")
    chosen = parser.parse_args(arguments)
    path, out = chosen.slide or sample_slide_path(), chosen.out
    out.mkdir(parents=True)
    load(path, out)
    with workers(chosen.cluster) as client:
        tiles = find_tiles(path, client)
    if not chosen.all:
        tiles = in_the_middle(path, tiles)
    weights = chosen.weights or random_checkpoint(out / "RANDOM_WEIGHTS.PT")
    heatmap = encode(path, weights, tiles, out)
    look(path, heatmap, out)
    found = analyse(heatmap, out)
    alike, edges = connect(heatmap, out)
    print(f"written to {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")
    if chosen.napari:
        in_napari(str(path), heatmap, found, alike, edges)
    return heatmap


if __name__ == "__main__":
    main(sys.argv[1:])
