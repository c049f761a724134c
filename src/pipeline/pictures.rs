//! Pictures and meshes of a result.

use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::dicom::{Dataset, Series};
use crate::error::Result;
use crate::request::OutputKind;
use crate::volume::{Physical, Plan};
use crate::writers::dicom::display_color;
use crate::writers::mesh::{self, Formats, SegmentGrid, Shape};
use crate::writers::preview::{self, Picture, Scene, Shown, Window};
use crate::writers::{Label, SegmentMap, Voxels, extents};

/// What pictures and meshes are made from.
pub(super) struct Pictured<'a> {
    /// The source.
    pub series: &'a Series,
    /// Its slices in volume order.
    pub plan: &'a Plan,
    /// Its values.
    pub physical: &'a Physical,
    /// The segments; masks are in their order.
    pub segments: &'a [SegmentDescription],
    /// What found them.
    pub algorithm: &'a Algorithm,
}

/// Those that were asked for.
#[derive(Default)]
pub(super) struct Pictures {
    /// Of `preview` and `secondary-capture`.
    pub picture: Option<Picture>,
    /// Of `stl` and `glb`.
    pub meshes: mesh::Files,
}

impl Pictured<'_> {
    /// Makes what `kinds` need.
    ///
    /// # Errors
    /// Those of [`mesh::write`].
    pub fn make<L: Label>(&self, voxels: &Voxels<L>, kinds: &[OutputKind]) -> Result<Pictures> {
        let wanted = |kind: OutputKind| kinds.contains(&kind);
        let formats = Formats { stl: wanted(OutputKind::Stl), glb: wanted(OutputKind::Glb) };
        let picture = wanted(OutputKind::Preview) || wanted(OutputKind::SecondaryCapture);
        let mut pictures = Pictures::default();
        if !picture && formats == Formats::default() {
            return Ok(pictures);
        }
        let map = SegmentMap::new(voxels, self.segments.iter().map(|segment| segment.value));
        let extents = extents(self.plan.geometry.dims, self.segments.len(), &map);
        let colors: Vec<[u8; 3]> =
            self.segments.iter().enumerate().map(|(i, s)| display_color(s, i)).collect();
        if picture {
            let shown: Vec<Shown> = self
                .segments
                .iter()
                .zip(&colors)
                .map(|(segment, &color)| Shown { name: &segment.label, color })
                .collect();
            pictures.picture = Some(preview::draw(&Scene {
                geometry: &self.plan.geometry,
                image: &|voxel| self.physical.at(voxel).unwrap_or(f32::NAN),
                labels: &map,
                extents: &extents,
                segments: &shown,
                window: self.window(),
                title: &self.title(),
            }));
        }
        if formats != Formats::default() {
            let segments = self.segments.iter().zip(&extents).zip(&colors).zip(1..).enumerate();
            let shapes: Vec<Shape<SegmentGrid<L>>> = segments
                .map(|(index, (((segment, extent), &color), number))| {
                    let bounds = extent.bounds();
                    let offset = bounds.each_ref().map(|range| range.start);
                    let grid = SegmentGrid::new(voxels, index, segment.value, bounds);
                    Shape { number, name: &segment.label, color, grid, offset }
                })
                .collect();
            let most = mesh::most_vertices(self.plan.geometry.voxels() as u64);
            pictures.meshes = mesh::write(&shapes, &self.plan.geometry.affine, most, formats)?;
        }
        Ok(pictures)
    }

    /// The window of the slice in the middle of the stack.
    fn window(&self) -> Option<Window> {
        let slice = self.plan.slices.get(self.plan.slices.len() / 2)?;
        let source: &Dataset = &self.series.instances.get(slice.key.instance)?.dataset;
        Window::of(source, slice.key.frame)
    }

    fn title(&self) -> String {
        let Algorithm { name, version, .. } = self.algorithm;
        format!("{name} {version} - AI generated, not for clinical use")
    }
}
