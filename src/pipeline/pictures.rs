//! Pictures and meshes of a result.

use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::dicom::{Dataset, Series};
use crate::error::Result;
use crate::request::OutputKind;
use crate::volume::{Physical, Plan};
use crate::writers::dicom::display_color;
use crate::writers::mesh::{self, Formats, SegmentGrid, Shape};
use crate::writers::preview::{self, Picture, Scene, Shown, Window};
use crate::writers::{Extent, Label, Labelled, SegmentMap, Voxels, extents};

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

/// Which of them an input's outputs need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    picture: bool,
    meshes: Formats,
}

impl Wanted {
    /// What `kinds` need.
    pub fn of(kinds: &[OutputKind]) -> Self {
        let has = |kind: OutputKind| kinds.contains(&kind);
        Self {
            picture: has(OutputKind::Preview) || has(OutputKind::SecondaryCapture),
            meshes: Formats { stl: has(OutputKind::Stl), glb: has(OutputKind::Glb) },
        }
    }
}

/// Those that were wanted.
#[derive(Default)]
pub(super) struct Pictures {
    /// Of `preview` and `secondary-capture`.
    pub picture: Option<Picture>,
    /// Of `stl` and `glb`.
    pub meshes: mesh::Files,
}

impl Pictured<'_> {
    /// Makes what is wanted.
    ///
    /// # Errors
    /// Those of [`mesh::write`].
    pub fn make<L: Label>(&self, voxels: &Voxels<L>, wanted: Wanted) -> Result<Pictures> {
        let map = SegmentMap::new(voxels, self.segments.iter().map(|segment| segment.value));
        let extents = extents(self.plan.geometry.dims, self.segments.len(), &map);
        let picture = wanted.picture.then(|| self.picture(&map, &extents));
        let meshes = if wanted.meshes == Formats::default() {
            mesh::Files::default()
        } else {
            self.meshes(voxels, &extents, wanted.meshes)?
        };
        Ok(Pictures { picture, meshes })
    }

    fn picture(&self, labels: &dyn Labelled, extents: &[Extent]) -> Picture {
        let segments: Vec<Shown> = self
            .segments
            .iter()
            .enumerate()
            .map(|(i, segment)| Shown { name: &segment.label, color: display_color(segment, i) })
            .collect();
        preview::draw(&Scene {
            geometry: &self.plan.geometry,
            image: &|voxel| self.physical.at(voxel).unwrap_or(f32::NAN),
            labels,
            extents,
            segments: &segments,
            window: self.window(),
            title: &self.title(),
        })
    }

    fn meshes<L: Label>(
        &self,
        voxels: &Voxels<L>,
        extents: &[Extent],
        formats: Formats,
    ) -> Result<mesh::Files> {
        let shapes: Vec<Shape<SegmentGrid<L>>> = self
            .segments
            .iter()
            .zip(extents)
            .zip(1..)
            .enumerate()
            .map(|(index, ((segment, extent), number))| {
                let bounds = extent.bounds();
                let offset = bounds.each_ref().map(|range| range.start);
                let color = display_color(segment, index);
                let grid = SegmentGrid::new(voxels, index, segment.value, bounds);
                Shape { number, name: &segment.label, color, grid, offset }
            })
            .collect();
        let geometry = &self.plan.geometry;
        let most = mesh::most_vertices(geometry.voxels() as u64);
        mesh::write(&shapes, &geometry.affine, most, formats)
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
