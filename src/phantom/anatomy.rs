//! The anatomy of a phantom: the tissue at a point of the patient.
//!
//! Points are in DICOM's patient coordinates (PS3.3 C.7.6.2.1.1: x to the left, y to the back, z to
//! the head), in millimetres, with the origin in the middle of the trunk. The anatomy is
//! independent of voxels: a seed is the same patient at every resolution.
//!
//! Organs are ellipsoids whose position, size, tilt and density are drawn from the seed, all bent
//! by one smooth displacement. Liver, spleen, kidneys, stomach and bowel share one range of
//! densities, so that a network has to use position and shape to tell them apart, and left from
//! right.

use super::random::{Random, ValueNoise};

/// The labels of the ground truth; 0 is everything else.
pub const LABELS: [(u8, &str); 4] = [
    (1, "phantom spleen"),
    (2, "phantom liver"),
    (3, "phantom right kidney"),
    (4, "phantom left kidney"),
];

/// The tissue at a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tissue {
    /// Density in Hounsfield units, before blur and noise.
    pub(super) hu: f64,
    /// 0 or one of [`LABELS`].
    pub(super) label: u8,
}

const AIR: f64 = -1000.0;
const FAT: f64 = -100.0;

/// An ellipsoid with its own axes.
#[derive(Debug, Clone)]
struct Ellipsoid {
    centre: [f64; 3],
    radii: [f64; 3],
    axes: [[f64; 3]; 3],
}

impl Ellipsoid {
    fn new(centre: [f64; 3], radii: [f64; 3]) -> Self {
        Self { centre, radii, axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] }
    }

    /// Rotates the ellipsoid about the x, y and z axis. Angles are given as the tangent of half the
    /// angle, from which cosine and sine follow without a mathematics library.
    fn tilted(mut self, half_tangents: [f64; 3]) -> Self {
        for (about, t) in half_tangents.into_iter().enumerate() {
            let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
            let (i, j) = ((about + 1) % 3, (about + 2) % 3);
            for axis in &mut self.axes {
                (axis[i], axis[j]) = (cos * axis[i] - sin * axis[j], sin * axis[i] + cos * axis[j]);
            }
        }
        self
    }

    /// Returns the approximate distance of `p` from the surface, in millimetres along the ray from
    /// the centre; negative inside.
    fn outside(&self, p: [f64; 3]) -> f64 {
        let d: [f64; 3] = std::array::from_fn(|i| p[i] - self.centre[i]);
        let scaled: [f64; 3] = std::array::from_fn(|i| {
            (0..3).map(|k| self.axes[i][k] * d[k]).sum::<f64>() / self.radii[i]
        });
        let relative = norm(scaled);
        if relative < 1e-9 {
            return -self.radii.into_iter().fold(f64::INFINITY, f64::min);
        }
        norm(d) * (1.0 - 1.0 / relative)
    }
}

fn norm(v: [f64; 3]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A solid organ in a capsule of fat.
#[derive(Debug, Clone)]
struct Organ {
    /// The organ is the union of these.
    parts: Vec<Ellipsoid>,
    /// A region inside that is not part of it: the sinus of a kidney, the gas in the stomach.
    hollow: Option<(Ellipsoid, f64)>,
    tissue: Tissue,
    capsule: f64,
}

impl Organ {
    fn at(&self, p: [f64; 3]) -> Option<Tissue> {
        let outside = self.parts.iter().map(|e| e.outside(p)).fold(f64::INFINITY, f64::min);
        if outside > self.capsule {
            return None;
        }
        if outside > 0.0 {
            return Some(Tissue { hu: FAT, label: 0 });
        }
        match &self.hollow {
            Some((shape, hu)) if shape.outside(p) < 0.0 => Some(Tissue { hu: *hu, label: 0 }),
            _ => Some(self.tissue),
        }
    }
}

/// One synthetic patient.
#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    /// Half width and half depth of the trunk.
    trunk: [f64; 2],
    /// Thickness of the fat under the skin and of the muscle wall below it.
    fat_rim: f64,
    wall: f64,
    spine: Spine,
    /// Painted in this order; later ones cover earlier ones.
    organs: Vec<Organ>,
    lungs: [Ellipsoid; 2],
    displacement: [[ValueNoise; 3]; 2],
    texture: ValueNoise,
    filling: ValueNoise,
}

#[derive(Debug, Clone)]
struct Spine {
    back: f64,
    marrow: f64,
    phase: f64,
}

impl Anatomy {
    /// Creates the patient of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let r = &mut Random::new(seed, 1);
        let size = r.between(0.90, 1.05);
        let trunk = [140.0 * size * r.between(0.96, 1.04), 98.0 * size * r.between(0.94, 1.06)];
        let density = r.between(45.0, 75.0);
        let kidney_height = r.between(-50.0, -30.0);

        let mut organs: Vec<Organ> = (0..9).map(|_| bowel(r, density, size)).collect();
        organs.push(stomach(r, density, size));
        organs.push(aorta(r, size));
        organs.push(liver(r, density, size));
        organs.push(spleen(r, density, size));
        organs.push(kidney(r, density, size, Side::Right, kidney_height - 6.0));
        organs.push(kidney(r, density, size, Side::Left, kidney_height + 6.0));

        let lung = |r: &mut Random, x: f64| {
            let radii = r.around([52.0, 66.0, 75.0], [5.0, 6.0, 8.0]).map(|x| x * size);
            Ellipsoid::new(r.around([x * size, -4.0, 135.0], [4.0, 4.0, 8.0]), radii)
        };
        let lungs = [lung(r, -66.0), lung(r, 66.0)];
        let spine = Spine {
            back: trunk[1] - 38.0 * size,
            marrow: r.between(150.0, 260.0),
            phase: r.between(0.0, 1.0),
        };
        let mut field = |scale| std::array::from_fn(|_| ValueNoise::new(r, scale));
        let displacement = [field(55.0), field(22.0)];
        Self {
            trunk,
            fat_rim: r.between(8.0, 18.0),
            wall: r.between(9.0, 14.0),
            spine,
            organs,
            lungs,
            displacement,
            texture: ValueNoise::new(r, 9.0),
            filling: ValueNoise::new(r, 24.0),
        }
    }

    /// Returns the tissue at a point in patient coordinates (millimetres).
    pub(super) fn at(&self, point: [f64; 3]) -> Tissue {
        let background = |hu| Tissue { hu, label: 0 };
        let depth = self.below_skin(point);
        if depth < 0.0 {
            return background(AIR);
        }
        if depth < self.fat_rim {
            return background(FAT + 8.0 * self.texture.at(point));
        }
        let texture = 10.0 * self.texture.at(point);
        if let Some(hu) = self.bone(point, depth) {
            return background(hu + texture);
        }
        if depth < self.fat_rim + self.wall {
            return background(55.0 + texture);
        }
        let bent = self.bend(point);
        let organ = self.organs.iter().rev().find_map(|organ| organ.at(bent));
        let tissue = organ.unwrap_or_else(|| {
            if self.lungs.iter().any(|lung| lung.outside(bent) < 0.0) {
                background(-850.0)
            } else {
                // Fat with strands of mesentery and vessels.
                background(FAT + 90.0 * (self.filling.at(point) - 0.25).max(0.0))
            }
        });
        Tissue { hu: tissue.hu + texture, ..tissue }
    }

    /// Returns the approximate depth of `p` below the skin, in millimetres; negative outside the
    /// patient.
    fn below_skin(&self, p: [f64; 3]) -> f64 {
        let relative = norm([p[0] / self.trunk[0], p[1] / self.trunk[1], 0.0]);
        if relative < 1e-9 {
            self.trunk[1]
        } else {
            norm([p[0], p[1], 0.0]) * (1.0 / relative - 1.0)
        }
    }

    /// Returns the density of bone at `p`, if there is bone.
    fn bone(&self, p: [f64; 3], depth: f64) -> Option<f64> {
        let Spine { back, marrow, phase } = self.spine;
        let body = norm([p[0] / 23.0, (p[1] - back) / 18.0, 0.0]);
        let level = p[2] / 32.0 + phase;
        let disc = (level - level.floor()) < 0.2;
        if body < 1.0 {
            return Some(match (disc, body > 0.88) {
                (true, _) => 85.0,
                (false, true) => 550.0,
                (false, false) => marrow,
            });
        }
        let process = p[0].abs() < 4.0 && (back + 24.0..back + 40.0).contains(&p[1]) && !disc;
        if process {
            return Some(400.0);
        }
        // Ribs: rings in the wall, inclined towards the front, down to the lower costal margin.
        let ring = p[2] / 26.0 - p[1] / 90.0 + phase;
        let in_ring = (ring - ring.floor()) < 0.34 && p[2] > -25.0 + 0.4 * p[1];
        let in_wall = (self.fat_rim + 1.0..self.fat_rim + 7.0).contains(&depth);
        (in_ring && in_wall).then_some(450.0)
    }

    fn bend(&self, p: [f64; 3]) -> [f64; 3] {
        let [coarse, fine] = &self.displacement;
        std::array::from_fn(|i| p[i] + 11.0 * coarse[i].at(p) + 4.0 * fine[i].at(p))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Right,
    Left,
}

/// Draws a density from the range that the solid organs of one patient share.
fn parenchyma(r: &mut Random, density: f64) -> f64 {
    density + r.between(-8.0, 8.0)
}

fn tilt(r: &mut Random) -> [f64; 3] {
    r.around([0.0; 3], [0.12; 3])
}

fn scaled(r: &mut Random, radii: [f64; 3], size: f64) -> [f64; 3] {
    let common = size * r.between(0.88, 1.12);
    radii.map(|x| x * common * r.between(0.93, 1.07))
}

fn liver(r: &mut Random, density: f64, size: f64) -> Organ {
    let centre = r.around([-60.0, -8.0, 26.0], [6.0, 6.0, 9.0]).map(|x| x * size);
    let right = Ellipsoid::new(centre, scaled(r, [58.0, 60.0, 66.0], size)).tilted(tilt(r));
    let lobe =
        r.around([centre[0] + 52.0 * size, centre[1] - 30.0 * size, centre[2] + 16.0], [6.0; 3]);
    let left = Ellipsoid::new(lobe, scaled(r, [52.0, 26.0, 32.0], size)).tilted(tilt(r));
    Organ {
        parts: vec![right, left],
        hollow: None,
        tissue: Tissue { hu: parenchyma(r, density), label: 2 },
        capsule: r.between(2.5, 4.0),
    }
}

fn spleen(r: &mut Random, density: f64, size: f64) -> Organ {
    let centre = r.around([84.0, 28.0, 34.0], [5.0, 6.0, 9.0]).map(|x| x * size);
    let shape = Ellipsoid::new(centre, scaled(r, [23.0, 38.0, 46.0], size)).tilted(tilt(r));
    Organ {
        parts: vec![shape],
        hollow: None,
        tissue: Tissue { hu: parenchyma(r, density), label: 1 },
        capsule: r.between(2.5, 4.0),
    }
}

fn kidney(r: &mut Random, density: f64, size: f64, side: Side, height: f64) -> Organ {
    let (sign, label) = match side {
        Side::Right => (-1.0, 3),
        Side::Left => (1.0, 4),
    };
    let centre = r.around([sign * 56.0, 36.0, height], [5.0, 4.0, 5.0]).map(|x| x * size);
    let shape = Ellipsoid::new(centre, scaled(r, [25.0, 23.0, 48.0], size)).tilted(tilt(r));
    let sinus = [centre[0] - sign * 12.0, centre[1] - 4.0, centre[2]];
    let sinus = Ellipsoid::new(sinus, scaled(r, [12.0, 7.0, 17.0], size));
    Organ {
        parts: vec![shape],
        hollow: Some((sinus, FAT)),
        tissue: Tissue { hu: parenchyma(r, density), label },
        capsule: r.between(2.5, 4.0),
    }
}

fn stomach(r: &mut Random, density: f64, size: f64) -> Organ {
    let centre = r.around([48.0, -36.0, 38.0], [8.0, 6.0, 10.0]).map(|x| x * size);
    let radii = scaled(r, [34.0, 30.0, 40.0], size);
    let gas = [centre[0], centre[1] - 12.0 * size, centre[2] + 8.0];
    let gas = Ellipsoid::new(gas, radii.map(|x| x * r.between(0.25, 0.55)));
    Organ {
        parts: vec![Ellipsoid::new(centre, radii).tilted(tilt(r))],
        hollow: Some((gas, -900.0)),
        tissue: Tissue { hu: parenchyma(r, density), label: 0 },
        capsule: r.between(2.5, 4.0),
    }
}

fn bowel(r: &mut Random, density: f64, size: f64) -> Organ {
    let centre = r.around([0.0, -30.0, -75.0], [85.0, 30.0, 50.0]).map(|x| x * size);
    let radii = scaled(r, [20.0, 18.0, 22.0], size);
    let gas = Ellipsoid::new(centre, radii.map(|x| x * r.between(0.1, 0.7)));
    Organ {
        parts: vec![Ellipsoid::new(centre, radii).tilted(r.around([0.0; 3], [0.8; 3]))],
        hollow: Some((gas, -900.0)),
        tissue: Tissue { hu: parenchyma(r, density), label: 0 },
        capsule: r.between(1.5, 3.0),
    }
}

fn aorta(r: &mut Random, size: f64) -> Organ {
    let centre = r.around([14.0 * size, 28.0 * size, 0.0], [3.0, 2.0, 0.0]);
    let radius = r.between(10.0, 13.0) * size;
    Organ {
        // Far longer than the trunk, so effectively a tube.
        parts: vec![Ellipsoid::new(centre, [radius, radius, 4000.0])],
        hollow: None,
        tissue: Tissue { hu: r.between(110.0, 180.0), label: 0 },
        capsule: 1.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_to_a_sphere_is_exact() {
        let sphere = Ellipsoid::new([1.0, 2.0, 3.0], [5.0; 3]).tilted([0.3, -0.2, 0.7]);
        assert!((sphere.outside([1.0, 2.0, 13.0]) - 5.0).abs() < 1e-9);
        assert!((sphere.outside([3.0, 2.0, 3.0]) + 3.0).abs() < 1e-9);
        assert_eq!(sphere.outside([1.0, 2.0, 3.0]), -5.0);
    }

    #[test]
    fn tilting_turns_the_long_axis() {
        // A half-angle tangent of 1 is 90 degrees: rotated about z, the x axis comes to lie along
        // y.
        let e = Ellipsoid::new([0.0; 3], [10.0, 1.0, 1.0]).tilted([0.0, 0.0, 1.0]);
        assert!(e.outside([0.0, 9.0, 0.0]) < 0.0);
        assert!(e.outside([9.0, 0.0, 0.0]) > 0.0);
    }

    #[test]
    fn organs_lie_on_their_side_of_the_patient() {
        for seed in 0..20 {
            let anatomy = Anatomy::new(seed);
            let mut sum = [[0.0; 2]; 5];
            for x in (-140..=140).step_by(8) {
                for y in (-100..=100).step_by(8) {
                    for z in (-120..=120).step_by(8) {
                        let label = anatomy.at([f64::from(x), f64::from(y), f64::from(z)]).label;
                        sum[usize::from(label)][0] += f64::from(x);
                        sum[usize::from(label)][1] += 1.0;
                    }
                }
            }
            let mean_x = sum.map(|[x, n]| x / n);
            assert!(mean_x[1] > 40.0, "spleen of {seed} at {}", mean_x[1]);
            assert!(mean_x[2] < -20.0, "liver of {seed} at {}", mean_x[2]);
            assert!(mean_x[3] < -20.0 && mean_x[4] > 20.0, "kidneys of {seed}: {mean_x:?}");
        }
    }
}
