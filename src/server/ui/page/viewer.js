// NiiVue with one image and the segments over it.

/** The views, with NiiVue's number of each. */
export const VIEWS = {
  multi: { label: "Three planes", type: 3 },
  axial: { label: "Axial", type: 0 },
  coronal: { label: "Coronal", type: 1 },
  sagittal: { label: "Sagittal", type: 2 },
  render: { label: "3D", type: 4 },
};

const OPTIONS = {
  backColor: [0, 0, 0, 1],
  crosshairColor: [0.49, 0.72, 0.96, 0.7],
  crosshairWidth: 0.6,
  dragAndDropEnabled: false,
  isRadiologicalConvention: true,
  multiplanarShowRender: 1,
  show3Dcrosshair: false,
  showLegend: false,
  loadingText: "",
  logLevel: "error",
};

export class Viewer {
  constructor(canvas, onMove) {
    this.canvas = canvas;
    this.onMove = onMove;
    this.niivue = null;
    this.segments = [];
    this.shown = [];
    this.view = "multi";
    this.opacity = 0.6;
    this.imageIn3d = false;
  }

  /** Loads the image and the segments over it, with the place of each in the label map and its colour. */
  async load(image, labels, segments) {
    await this.start();
    this.segments = segments;
    this.shown = segments.map(() => true);
    await this.niivue.loadVolumes([
      { url: image, name: "image.nii.gz", colormap: "gray" },
      { url: labels, name: "labels.nii.gz", opacity: this.opacity },
    ]);
    const [volume, overlay] = this.niivue.volumes;
    this.usual = [volume.cal_min, volume.cal_max];
    this.masks = null;
    if (segments.some(({ place }) => place.volume !== undefined)) this.flatten(overlay);
    this.color();
  }

  /** The viewer is large, so that it is fetched with the first result. */
  async start() {
    if (this.niivue) return;
    const { Niivue } = await import("./niivue.js");
    const niivue = new Niivue(OPTIONS);
    await niivue.attachToCanvas(this.canvas);
    niivue.onLocationChange = ({ mm, values }) => {
      this.onMove({
        fractions: [...niivue.scene.crosshairPos],
        millimetres: [...mm].slice(0, 3),
        value: values[0]?.value,
        segment: this.segments.findIndex((_, index) => this.shown[index] && this.value(index) === values[1]?.value),
      });
    };
    this.niivue = niivue;
  }

  /** Has the place of the crosshair told. */
  tell() {
    this.niivue.createOnLocationChange();
  }

  /** Makes one label map of masks that lie along a fourth axis: NiiVue shows one volume of those at a time. */
  flatten(overlay) {
    const [, x, y, z] = overlay.hdr.dims;
    this.masks = overlay.img;
    overlay.img = new Uint8Array(x * y * z);
    overlay.hdr.dims[0] = 3;
    overlay.hdr.dims[4] = 1;
    overlay.nFrame4D = 1;
    overlay.nTotalFrame4D = 1;
    overlay.frame4D = 0;
  }

  /** The value of a segment in the label map that is shown. */
  value(index) {
    return this.masks ? index + 1 : this.segments[index].place.value;
  }

  /** Colours the segments that are shown, and no others. */
  color() {
    const overlay = this.niivue.volumes[1];
    if (this.masks) {
      const size = overlay.img.length;
      overlay.img.fill(0);
      this.segments.forEach(({ place }, index) => {
        if (!this.shown[index]) return;
        const mask = this.masks.subarray(place.volume * size, (place.volume + 1) * size);
        mask.forEach((inside, voxel) => { if (inside) overlay.img[voxel] = index + 1; });
      });
    }
    const channel = (at) => this.segments.map(({ color }) => parseInt(color.slice(at, at + 2), 16));
    overlay.setColormapLabel({
      R: [0, ...channel(1)],
      G: [0, ...channel(3)],
      B: [0, ...channel(5)],
      A: [0, ...this.shown.map((shown) => (shown ? 255 : 0))],
      I: [0, ...this.segments.map((_, index) => this.value(index))],
    });
    this.niivue.updateGLVolume();
  }

  setShown(shown) {
    this.shown = shown;
    this.color();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.niivue.setOpacity(1, opacity);
  }

  setView(view) {
    this.view = view;
    this.niivue.setSliceType(VIEWS[view].type);
    this.showImage();
  }

  setImageIn3d(shown) {
    this.imageIn3d = shown;
    this.showImage();
  }

  /** In 3D the image would hide what lies in it. */
  showImage() {
    this.niivue.setOpacity(0, this.view !== "render" || this.imageIn3d ? 1 : 0);
  }

  /** Level and width that NiiVue finds in the image. */
  usualWindow() {
    const [low, high] = this.usual;
    return [(low + high) / 2, high - low];
  }

  setWindow(level, width) {
    const [volume] = this.niivue.volumes;
    volume.cal_min = level - width / 2;
    volume.cal_max = level + width / 2;
    this.niivue.updateGLVolume();
  }

  /** Moves the crosshair along an axis, by a fraction of its length. */
  moveTo(axis, fraction) {
    this.niivue.scene.crosshairPos[axis] = fraction;
    this.tell();
    this.niivue.drawScene();
  }
}
