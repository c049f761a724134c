//! Holds rows of the network's activated result for as long as output depends on them.

use std::collections::VecDeque;

/// Activated input from plane `first` on, each plane in bands of rows.
#[derive(Default)]
pub(super) struct Held {
    pub(super) first: usize,
    planes: VecDeque<Vec<Vec<f32>>>,
    /// For each row: its band, its index in the band, and the rows of the band.
    places: Vec<[usize; 3]>,
}

impl Held {
    /// Returns the voxels of a row of one channel.
    pub(super) fn row(&self, plane: usize, channel: usize, row: usize, length: usize) -> &[f32] {
        let [band, within, rows] = self.places[row];
        let start = (channel * rows + within) * length;
        &self.planes[plane][band][start..start + length]
    }

    /// Adds a band, with rows from `y` on, for planes from `x` on.
    pub(super) fn add(&mut self, x: usize, y: usize, rows: usize, activated: Vec<Vec<f32>>) {
        if self.places.len() == y {
            let band = self.places.last().map_or(0, |place| place[0] + 1);
            self.places.extend((0..rows).map(|within| [band, within, rows]));
        }
        for (plane, values) in activated.into_iter().enumerate() {
            let index = x + plane - self.first;
            if index == self.planes.len() {
                self.planes.push_back(Vec::new());
            }
            self.planes[index].push(values);
        }
    }

    /// Releases the rows before `row` of the planes before `plane`, in whole bands.
    pub(super) fn forget_rows(&mut self, plane: usize, row: usize) {
        // A row that has not arrived yet lies after all bands.
        let bands = self.places.last().map_or(0, |place| place[0] + 1);
        let band = self.places.get(row).map_or(bands, |place| place[0]);
        let planes = plane.saturating_sub(self.first);
        for bands in self.planes.iter_mut().take(planes) {
            let whole = band.min(bands.len());
            bands[..whole].iter_mut().for_each(|values| *values = Vec::new());
        }
    }

    /// Releases the planes before `plane`.
    pub(super) fn forget_planes(&mut self, plane: usize) {
        while self.first < plane && self.planes.pop_front().is_some() {
            self.first += 1;
        }
    }
}
