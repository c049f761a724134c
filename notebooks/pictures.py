"""Pictures of a volume with the segments over it: planes by matplotlib, in 3D by ipyniivue.

Volumes are NIfTI images of nibabel. Planes are drawn as radiologists look at them: the patient's right on the left.
"""

import matplotlib.pyplot as plt
import nibabel
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.patches import Patch

# Soft tissue of a CT, in HU.
WINDOW = (-160, 240)
COLOURS = [colour for colour in plt.get_cmap("tab10").colors if colour != plt.get_cmap("tab10").colors[7]]


def slices(image, count=8, window=WINDOW):
    """Axial slices at equal distances, from the feet to the head."""
    values, spacing = _ras(image)
    shown = np.linspace(0, values.shape[2] - 1, count).round().astype(int)
    figure, axes = plt.subplots(2, -(-count // 2), figsize=(10, 5.4), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, shown):
        _draw(axis, values[:, :, index], spacing[[0, 1]], window)
        axis.set_title(f"slice {index + 1}", fontsize=9)
    plt.show()


def planes(image, labels=None, names=None, window=WINDOW, title=None):
    """Axial, coronal and sagittal plane that show most of the segments, the middle ones where there is no label map.

    `names` is the label of each value of the label map.
    """
    values, spacing = _ras(image)
    names = names or {}
    segments = np.zeros(values.shape, np.uint8) if labels is None else _on_grid_of(image, labels)
    figure, axes = plt.subplots(1, 3, figsize=(10, 4), layout="constrained")
    for plane, (axis, name) in enumerate(zip(axes[::-1], ("sagittal", "coronal", "axial"))):
        others = tuple(one for one in range(3) if one != plane)
        index = _most_of_all(segments, others, names) if names else values.shape[plane] // 2
        _draw(axis, values.take(index, plane), spacing[list(others)], window)
        _overlay(axis, segments.take(index, plane), spacing[list(others)], names)
        axis.set_title(name, fontsize=10)
    if names:
        handles = [Patch(color=colour(value), label=name) for value, name in sorted(names.items())]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)
    figure.suptitle(title)
    plt.show()


def bars(cases, titles, unit):
    """A group of bars for each name in the dictionaries `cases`, in it a bar for each of them."""
    names = list(cases[0])
    figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    width = 0.8 / len(cases)
    for number, (case, title) in enumerate(zip(cases, titles)):
        places = np.arange(len(names)) + (number - (len(cases) - 1) / 2) * width
        drawn = axis.bar(places, [case[name] for name in names], width * 0.92, label=title)
        axis.bar_label(drawn, fmt="%.0f", fontsize=8)
    axis.set_xticks(np.arange(len(names)), names)
    axis.set_ylabel(unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    plt.show()


def three_d(image, labels=None, names=None, window=WINDOW):
    """A widget with the three planes and a 3D view, to be turned and clicked through."""
    from ipyniivue import MultiplanarType, NiiVue, ShowRender, SliceType

    view = NiiVue(
        height=560, is_radiological_convention=True, crosshair_width=0.4, multiplanar_layout=MultiplanarType.GRID,
        multiplanar_show_render=ShowRender.ALWAYS,
    )
    view.add_volume({"data": image.to_bytes(), "name": "image.nii", "colormap": "gray",
                     "cal_min": window[0], "cal_max": window[1]})
    if labels is not None:
        view.add_volume({"data": labels.to_bytes(), "name": "labels.nii", "opacity": 0.5})
        values = range(1, max(names) + 1)
        red, green, blue = ([0, *(round(255 * colour(value)[channel]) for value in values)] for channel in range(3))
        view.volumes[1].set_colormap_label({
            "R": red, "G": green, "B": blue, "A": [0, *[255] * len(values)],
            "labels": ["", *(names.get(value, "") for value in values)],
        })
    view.set_slice_type(SliceType.MULTIPLANAR)
    return view


def table(result):
    """The segments of a result: volume, mean value and number of parts."""
    print(f"{'segment':<24}{'ml':>9}{'mean ' + result.get('units', ''):>12}{'parts':>7}")
    for segment in result["segments"]:
        mean = segment.get("statistics", {}).get("mean")
        mean = "" if mean is None else f"{mean:.0f}"
        print(f"{segment['label']:<24}{segment['millilitres']:>9.1f}{mean:>12}{segment['components']['count']:>7}")


def names_of(result):
    """The label of each value of the NIfTI label map that the result has."""
    return {segment["in"]["nifti"]["value"]: segment["label"] for segment in result["segments"] if "nifti" in segment["in"]}


def colour(value):
    """The colour of a value of a label map."""
    return COLOURS[(value - 1) % len(COLOURS)]


def _ras(image):
    """The array with axes to the right, to the front and upwards, and its spacing."""
    closest = nibabel.as_closest_canonical(image)
    return np.asarray(closest.dataobj), np.array(closest.header.get_zooms()[:3])


def _most_of_all(segments, others, names):
    """The index of the plane with the largest shares of the segments, so that small ones count as much."""
    masks = [segments == value for value in names]
    return sum(mask.sum(axis=others) / max(1, mask.sum()) for mask in masks).argmax()


def _on_grid_of(image, labels):
    if image.shape != labels.shape or not np.allclose(image.affine, labels.affine, atol=1e-3):
        raise ValueError("the label map does not lie on the grid of the image")
    return _ras(labels)[0].astype(int)


def _draw(axis, plane, spacing, window):
    axis.imshow(_turned(plane), cmap="gray", vmin=window[0], vmax=window[1], origin="lower", aspect=spacing[1] / spacing[0])
    axis.axis("off")


def _overlay(axis, plane, spacing, names):
    pixels = np.zeros((*plane.T.shape, 4))
    turned = _turned(plane)
    for value in names:
        mask = turned == value
        pixels[mask] = (*colour(value), 0.35)
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=[to_hex(colour(value))], linewidths=1.2)
    axis.imshow(pixels, origin="lower", aspect=spacing[1] / spacing[0], interpolation="nearest")


def _turned(plane):
    """A plane as it is shown: right, and front, on the left."""
    return plane[::-1].T
