//! Creates pictures and meshes of a result.

use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::dicom::{Dataset, Series};
use crate::error::Result;
use crate::request::OutputKind;
use crate::volume::{Physical, Plan};
use crate::writers::dicom::display_color;
use crate::writers::mesh::{self, Formats, SegmentGrid, Shape};
use crate::writers::preview::{self, Picture, Scene, SegmentMap, Shown, Window};
use crate::writers::statistics::Statistics;
use crate::writers::{Label, Voxels};

/// The input of pictures and meshes.
pub(super) struct Pictured<'a> {
    /// The source.
    pub series: &'a Series,
    /// Its slices in volume order.
    pub plan: &'a Plan,
    /// Its values.
    pub physical: &'a Physical,
    /// The segments; masks are in their order.
    pub segments: &'a [SegmentDescription],
    /// The measurements of the segments.
    pub statistics: &'a [Statistics],
    /// The algorithm that found them.
    pub algorithm: &'a Algorithm,
}

/// The pictures and meshes that an input's outputs need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    picture: bool,
    meshes: Formats,
}

impl Wanted {
    /// Determines what `kinds` need.
    pub fn of(kinds: &[OutputKind]) -> Self {
        let has = |kind: OutputKind| kinds.contains(&kind);
        Self {
            picture: has(OutputKind::Preview) || has(OutputKind::SecondaryCapture),
            meshes: Formats { stl: has(OutputKind::Stl), glb: has(OutputKind::Glb) },
        }
    }
}

/// The created pictures and meshes.
#[derive(Default)]
pub(super) struct Pictures {
    /// For `preview` and `secondary-capture`.
    pub picture: Option<Picture>,
    /// For `stl` and `glb`.
    pub meshes: mesh::Files,
}

impl Pictured<'_> {
    /// Creates what is wanted.
    ///
    /// # Errors
    /// Propagates the errors of [`mesh::write`].
    pub fn make<L: Label>(&self, voxels: &Voxels<L>, wanted: Wanted) -> Result<Pictures> {
        let picture = wanted.picture.then(|| self.picture(voxels));
        let meshes = if wanted.meshes == Formats::default() {
            mesh::Files::default()
        } else {
            self.meshes(voxels, wanted.meshes)?
        };
        Ok(Pictures { picture, meshes })
    }

    fn picture<L: Label>(&self, voxels: &Voxels<L>) -> Picture {
        let labels = SegmentMap::new(voxels, self.segments.iter().map(|segment| segment.value));
        let extents = preview::extents(self.plan.geometry.dims, self.segments.len(), &labels);
        let segments: Vec<Shown> = self
            .segments
            .iter()
            .enumerate()
            .map(|(i, segment)| Shown { name: &segment.label, color: display_color(segment, i) })
            .collect();
        preview::draw(&Scene {
            geometry: &self.plan.geometry,
            image: &|voxel| self.physical.at(voxel).unwrap_or(f32::NAN),
            labels: &labels,
            extents: &extents,
            segments: &segments,
            window: self.window(),
            title: &self.title(),
        })
    }

    fn meshes<L: Label>(&self, voxels: &Voxels<L>, formats: Formats) -> Result<mesh::Files> {
        let segments = self.segments.iter().zip(self.statistics).zip(1..).enumerate();
        let shapes: Vec<Shape<SegmentGrid<L>>> = segments
            .filter_map(|(index, ((segment, statistics), number))| {
                let bounds = statistics.bounds.clone()?;
                Some(Shape {
                    number,
                    name: &segment.label,
                    color: display_color(segment, index),
                    offset: bounds.each_ref().map(|range| range.start),
                    grid: SegmentGrid::new(voxels, index, segment.value, bounds),
                })
            })
            .collect();
        let geometry = &self.plan.geometry;
        let most = mesh::most_vertices(geometry.voxels() as u64);
        mesh::write(&shapes, &geometry.affine, most, formats)
    }

    /// Returns the window of the slice in the middle of the stack.
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
