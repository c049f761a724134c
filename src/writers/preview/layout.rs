//! Arranges panels, title and legend in one picture.

use super::canvas::{CHARACTER, Canvas};
use super::panel::Panel;
use super::picture::Picture;
use super::scene::Scene;
use super::view::View;
use super::window::Window;

/// Largest size of a panel along each axis, in pixels.
const LARGEST_PANEL: usize = 388;
/// Margin around and between the elements, in pixels.
const GAP: usize = 8;
/// Height of a line of text.
const LINE: usize = 16;
/// Smallest width of a picture, to leave room for the legend.
const LEAST_WIDTH: usize = 396;
/// Smallest width of a legend column.
const COLUMN: usize = 280;
/// Largest number of segments in the legend.
const MOST_ENTRIES: usize = 16;
/// Side length of the legend's colour squares.
const SWATCH: usize = 10;

const BACKGROUND: [u8; 3] = [16, 16, 20];
const TEXT: [u8; 3] = [225, 225, 225];
const FAINT: [u8; 3] = [150, 150, 158];
const LETTER: [u8; 3] = [255, 225, 120];

/// Draws the whole picture. `views` has at most three entries.
pub(super) fn compose(scene: &Scene, views: &[View]) -> Picture {
    let panels: Vec<Panel> = views
        .iter()
        .map(|view| {
            let [width, height] = panel_size(view);
            Panel::sample(scene, view, width, height)
        })
        .collect();
    let window = scene.window.unwrap_or_else(|| {
        Window::of_values(panels.iter().flat_map(|panel| panel.values().to_vec()).collect())
    });

    let across = panels.iter().map(|panel| panel.width + GAP).sum::<usize>();
    let width = (across + GAP).max(LEAST_WIDTH);
    let tallest = panels.iter().map(|panel| panel.height).max().unwrap_or(0);
    let legend = Legend::new(scene, width - 2 * GAP);
    let top = GAP + LINE;
    let height = top + tallest + GAP + legend.height() + GAP;

    let mut canvas = Canvas::new(width, height, BACKGROUND);
    canvas.text([GAP, GAP], &shortened(scene.title, (width - 2 * GAP) / CHARACTER[0]), TEXT);
    let mut x = (width - across + GAP) / 2;
    for (panel, view) in panels.iter().zip(views) {
        let corner = [x, top + (tallest - panel.height) / 2];
        canvas.put(corner, &panel.colored(scene, &window), panel.width);
        letter(&mut canvas, corner, panel, view, scene.geometry.dims[view.through]);
        x += panel.width + GAP;
    }
    legend.draw(&mut canvas, [GAP, top + tallest + GAP]);
    canvas.finish()
}

/// Returns the largest panel size with the aspect ratio of its view, in whole pixels.
fn panel_size(view: &View) -> [usize; 2] {
    let [across, down] = [view.across.length, view.down.length];
    let scale = LARGEST_PANEL as f64 / across.max(down).max(f64::MIN_POSITIVE);
    [across, down].map(|length| ((length * scale).round().max(1.0) as usize).min(LARGEST_PANEL))
}

/// Writes the names of the plane and its sides, as far as they fit.
fn letter(canvas: &mut Canvas, [x, y]: [usize; 2], panel: &Panel, view: &View, slices: usize) {
    let [w, h] = CHARACTER;
    let (width, height) = (panel.width, panel.height);
    if width < 12 * w || height < 3 * h {
        return;
    }
    let name = format!("{} {}/{slices}", view.name, view.slice + 1);
    canvas.label([x + 3, y + 2], &name, TEXT);
    let middle = [x + (width - w) / 2, y + (height - h) / 2];
    let places = [
        ([x + 3, middle[1]], view.across.letters[0]),
        ([x + width - w - 3, middle[1]], view.across.letters[1]),
        ([middle[0], y + 2], view.down.letters[0]),
        ([middle[0], y + height - h - 2], view.down.letters[1]),
    ];
    for (at, letter) in places {
        // The plane's name may extend to here.
        if at[1] < y + 2 + h && at[0] < x + 3 + (name.len() + 1) * w {
            continue;
        }
        canvas.label(at, letter.encode_utf8(&mut [0; 4]), LETTER);
    }
}

/// The largest segments with their volumes.
struct Legend {
    /// Colour, and name with volume; entries without a colour are remarks.
    entries: Vec<(Option<[u8; 3]>, String)>,
    columns: usize,
    column_width: usize,
}

impl Legend {
    fn new(scene: &Scene, width: usize) -> Self {
        let columns = (width / COLUMN).max(1);
        let column_width = width / columns;
        let room = (column_width - SWATCH) / CHARACTER[0] - 2;
        let mut found: Vec<(usize, u64)> = scene
            .extents
            .iter()
            .enumerate()
            .map(|(segment, extent)| (segment, extent.voxels))
            .filter(|(segment, voxels)| *voxels > 0 && *segment < scene.segments.len())
            .collect();
        found.sort_by_key(|&(segment, voxels)| (std::cmp::Reverse(voxels), segment));
        let shown = if found.len() > MOST_ENTRIES { MOST_ENTRIES - 1 } else { found.len() };
        let millilitres = scene.geometry.voxel_volume() / 1000.0;
        let mut entries: Vec<(Option<[u8; 3]>, String)> = found
            .iter()
            .take(shown)
            .filter_map(|&(segment, voxels)| {
                let segment = scene.segments.get(segment)?;
                let volume = format!("{} ml", rounded(voxels as f64 * millilitres));
                let name = shortened(segment.name, room.saturating_sub(volume.len() + 1));
                Some((Some(segment.color), format!("{name} {volume}")))
            })
            .collect();
        match found.len() - shown {
            0 if found.is_empty() => {
                entries.push((None, "no voxel of any segment was found".to_owned()));
            }
            0 => {}
            more => entries.push((None, format!("and {more} more segments"))),
        }
        Self { entries, columns, column_width }
    }

    fn height(&self) -> usize {
        self.entries.len().div_ceil(self.columns) * LINE
    }

    fn draw(&self, canvas: &mut Canvas, [x, y]: [usize; 2]) {
        for (index, (color, text)) in self.entries.iter().enumerate() {
            let x = x + index % self.columns * self.column_width;
            let y = y + index / self.columns * LINE;
            match color {
                Some(color) => {
                    canvas.fill([x, y + 2], [SWATCH, SWATCH], *color);
                    canvas.text([x + SWATCH + CHARACTER[0], y], text, TEXT);
                }
                None => canvas.text([x, y], text, FAINT),
            }
        }
    }
}

/// Formats millilitres with three or more significant figures.
fn rounded(millilitres: f64) -> String {
    let decimals = match millilitres {
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        x if x >= 0.9995 => 2,
        _ => 3,
    };
    format!("{millilitres:.decimals$}")
}

/// Shortens a text to at most `room` characters on one line.
fn shortened(text: &str, room: usize) -> String {
    let plain: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.len() <= room {
        return plain.into_iter().collect();
    }
    let start: String = plain.iter().take(room.saturating_sub(2)).collect();
    format!("{}..", start.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit() {
        assert_eq!(shortened("left kidney", 20), "left kidney");
        assert_eq!(shortened("left kidney", 8), "left k..");
        assert_eq!(shortened("left kidney", 7), "left..");
        assert_eq!(shortened("a\nb", 7), "a b");
        assert_eq!(shortened("ü€", 7), "ü€");
    }

    #[test]
    fn volumes_are_rounded() {
        let cases = [(0.01234, "0.012"), (1.239, "1.24"), (12.34, "12.3"), (1532.7, "1533")];
        for (volume, text) in cases {
            assert_eq!(rounded(volume), text);
        }
    }
}
