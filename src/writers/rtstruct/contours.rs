//! The contours of a binary mask: closed polygons in the plane of its slice.
//!
//! A contour runs half way between pixels that belong to the mask and pixels that do not, and cuts their
//! corners: what marching squares gives at the level one half, the way in which most programs make contours of
//! masks. Beside the staircase along the edges of pixels it has fewer points, a perimeter near that of
//! the structure, and of each closed line the area of its pixels but for half a pixel. Who asks of each
//! pixel whether its centre is inside finds the mask again, exactly.
//!
//! - **Half way, but a hair nearer to the pixels inside**, so that programs that round points to whole
//!   pixels and fill with the border included find the mask again too; at exactly half way rounding would
//!   widen it by a pixel, on one side or the other.
//! - **Neighbours** are pixels that share an edge: of a mask's pixels that touch at a corner alone each
//!   is outlined by itself, and no contour touches another or itself there.
//! - **Holes** are joined to the contour around them by a channel of no width, the keyhole technique of
//!   PS3.3 C.8.8.6.3: every reader knows it, whether it takes all contours of a plane together by union or by
//!   exclusive or. The channel goes through pixels of the mask, never through a centre, and is walked there and
//!   back through the same points, so that nothing is gained or lost by it.
//!
//! Time is linear in the pixels and in the length of the contours.

use super::bits::{Bits, UpperEdges};

/// The units of coordinates in which a pixel is one: every point is a whole number of them.
pub const PIXEL: i32 = 200;
/// From the centre of a pixel to its contour: half a pixel less a hair.
const REACH: i32 = 99;
/// From the centres of a column's pixels to a channel through them.
const BESIDE: i32 = 50;

/// Column and row, each in units of 1/[`PIXEL`], of which the centre of the first pixel is 0.
pub type Point = [i32; 2];

/// What a pixel shares with a neighbour, in the order in which contours run: clockwise round the mask as
/// images are looked at, its pixels to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Upper,
    Right,
    Lower,
    Left,
}

impl Side {
    /// The sides before and after, round the pixel.
    fn turned(self) -> (Self, Self) {
        match self {
            Self::Upper => (Self::Left, Self::Right),
            Self::Right => (Self::Upper, Self::Lower),
            Self::Lower => (Self::Right, Self::Left),
            Self::Left => (Self::Lower, Self::Upper),
        }
    }

    /// The step along the side.
    fn along(self) -> [i32; 2] {
        match self {
            Self::Upper => [1, 0],
            Self::Right => [0, 1],
            Self::Lower => [-1, 0],
            Self::Left => [0, -1],
        }
    }

    /// The step across it, out of the pixel.
    fn across(self) -> [i32; 2] {
        self.turned().0.along()
    }
}

/// A side of a pixel inside that borders on one outside. A contour passes the middle of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Border {
    x: i32,
    y: i32,
    side: Side,
}

/// How a contour goes on from one border to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Right,
    Straight,
    Left,
}

impl Border {
    /// The point of the contour.
    fn point(self) -> Point {
        let [dx, dy] = self.side.across();
        [self.x * PIXEL + dx * REACH, self.y * PIXEL + dy * REACH]
    }

    /// The next border, and the way to it.
    fn next(self, mask: &Bits) -> (Self, Turn) {
        let Self { x, y, side } = self;
        let ([ax, ay], [cx, cy]) = (side.along(), side.across());
        let (before, after) = side.turned();
        if !mask.has(x + ax, y + ay) {
            (Self { side: after, ..self }, Turn::Right)
        } else if mask.has(x + ax + cx, y + ay + cy) {
            (Self { x: x + ax + cx, y: y + ay + cy, side: before }, Turn::Left)
        } else {
            (Self { x: x + ax, y: y + ay, side }, Turn::Straight)
        }
    }

    /// The direction in which a contour arrives at the upper side of a pixel.
    fn arrival(x: i32, y: i32, mask: &Bits) -> u8 {
        if !mask.has(x - 1, y) {
            direction(Side::Left, Turn::Right)
        } else if mask.has(x - 1, y - 1) {
            direction(Side::Right, Turn::Left)
        } else {
            direction(Side::Upper, Turn::Straight)
        }
    }
}

/// The direction from a border to the next, in eighths of a circle.
fn direction(side: Side, turn: Turn) -> u8 {
    let side = match side {
        Side::Upper => 0,
        Side::Right => 2,
        Side::Lower => 4,
        Side::Left => 6,
    };
    let turn = match turn {
        Turn::Right => 1,
        Turn::Straight => 0,
        Turn::Left => 7,
    };
    (side + turn) % 8
}

/// A closed line, before holes are joined to what is round them.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Its corners among all points.
    first: u32,
    corners: u32,
    /// Of a hole, where its channel begins.
    hole: Option<Place>,
}

impl Line {
    /// The corner from which the line is written.
    fn start(&self) -> u32 {
        self.hole.map_or(0, |place| place.corner)
    }
}

/// A place on a line.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The pixel whose border it is.
    x: i32,
    y: i32,
    /// How many corners of the line come before it.
    corner: u32,
}

/// A hole's channel to the line above it.
#[derive(Debug, Clone, Copy)]
struct Channel {
    /// The line that it joins.
    line: u32,
    /// Before which corner of that line.
    corner: u32,
    /// The column of its pixels.
    x: i32,
    /// Their first and last row.
    rows: [i32; 2],
    /// The hole.
    hole: u32,
}

impl Channel {
    /// Its points, from the line to the hole.
    fn points(&self) -> [Point; 4] {
        let Self { x, rows: [upper, lower], .. } = *self;
        let beside = |y: i32| [x * PIXEL + BESIDE, y * PIXEL];
        [
            Border { x, y: upper, side: Side::Upper }.point(),
            beside(upper),
            beside(lower),
            Border { x, y: lower, side: Side::Lower }.point(),
        ]
    }
}

/// A line as it is written, with how far it is.
#[derive(Debug)]
struct Written {
    line: u32,
    /// Corners that are written.
    corners: u32,
    /// Channels that begin on it: where they lie, and how many are done.
    channels: std::ops::Range<usize>,
    done: usize,
    /// The channel that leads here, of a hole.
    by: Option<Channel>,
}

/// Finds contours, one mask after another in the same memory: at most 64 bytes for each pixel of the
/// largest, of which there are at most 2³⁰ pixels: lines have at most two corners for each.
#[derive(Debug, Default)]
pub struct Tracer {
    edges: UpperEdges,
    /// For each upper edge, the line that passes it and how many of its corners come before.
    passing: Vec<(u32, u32)>,
    points: Vec<Point>,
    lines: Vec<Line>,
    channels: Vec<Channel>,
    open: Vec<Written>,
    contour: Vec<Point>,
}

impl Tracer {
    /// Gives every contour of a mask to `each`: the points of a closed polygon, of which the first is not
    /// repeated at the end, no three of them on a line except where channels begin and end.
    ///
    /// Of masks of 65535 by 65535 pixels, the largest of DICOM, all coordinates are within `i32`.
    pub fn trace(&mut self, mask: &Bits, mut each: impl FnMut(&[Point])) {
        self.walk_lines(mask);
        self.dig_channels(mask);
        for line in 0..self.lines.len() as u32 {
            if self.lines.get(line as usize).is_some_and(|line| line.hole.is_none()) {
                self.write(line);
                each(&self.contour);
            }
        }
    }

    /// All lines. Each has an upper edge: those not yet passed begin another.
    fn walk_lines(&mut self, mask: &Bits) {
        self.edges.find(mask);
        self.passing.clear();
        self.passing.resize(self.edges.len(), (0, 0));
        self.points.clear();
        self.lines.clear();
        let mut word = 0;
        while let Some((x, y)) = self.edges.first_left(&mut word) {
            self.walk(mask, x, y);
        }
    }

    /// The line that passes the upper side of a pixel.
    fn walk(&mut self, mask: &Bits, x: i32, y: i32) {
        let start = Border { x, y, side: Side::Upper };
        let first = self.points.len();
        let line = self.lines.len() as u32;
        let mut border = start;
        let mut arriving = Border::arrival(x, y, mask);
        let mut right_turns = 0_i64;
        let mut top: Option<Place> = None;
        loop {
            let Border { x, y, side } = border;
            let corner = (self.points.len() - first) as u32;
            if side == Side::Upper {
                self.edges.take(x, y);
                let passing = self.edges.number(x, y).and_then(|n| self.passing.get_mut(n));
                if let Some(passing) = passing {
                    *passing = (line, corner);
                }
            } else if side == Side::Lower && top.is_none_or(|top| y < top.y) {
                top = Some(Place { x, y, corner });
            }
            let (next, turn) = border.next(mask);
            let leaving = direction(side, turn);
            if leaving != arriving {
                self.points.push(border.point());
            }
            right_turns += match turn {
                Turn::Right => 1,
                Turn::Straight => 0,
                Turn::Left => -1,
            };
            (border, arriving) = (next, leaving);
            if border == start {
                break;
            }
        }
        // Round a hole the line runs anticlockwise.
        let hole = top.filter(|_| right_turns < 0);
        let corners = (self.points.len() - first) as u32;
        self.lines.push(Line { first: first as u32, corners, hole });
    }

    /// A channel for each hole, from its uppermost border up to the next border above. There is one of another
    /// line, since nothing of the hole is higher; so channels never lead round in a circle.
    fn dig_channels(&mut self, mask: &Bits) {
        self.channels.clear();
        let holes = self.lines.iter().zip(0_u32..).filter_map(|(line, i)| Some((i, line.hole?)));
        for (hole, Place { x, y, .. }) in holes {
            let mut upper = y;
            while mask.has(x, upper - 1) {
                upper -= 1;
            }
            let passing = self.edges.number(x, upper).and_then(|n| self.passing.get(n));
            let Some(&(line, corner)) = passing else { continue };
            // After the last corner comes the first.
            let corners = self.lines.get(line as usize).map_or(0, |line| line.corners);
            let corner = if corner == corners { 0 } else { corner };
            self.channels.push(Channel { line, corner, x, rows: [upper, y], hole });
        }
        // Upper sides are passed from left to right.
        self.channels.sort_unstable_by_key(|channel| (channel.line, channel.corner, channel.x));
    }

    /// Writes a line and all holes that are joined to it, one after another into one contour.
    fn write(&mut self, line: u32) {
        self.contour.clear();
        self.open.clear();
        let opened = self.opened(line, None);
        self.open.push(opened);
        while let Some(written) = self.open.last_mut() {
            let Some(line) = self.lines.get(written.line as usize) else { break };
            if written.corners == line.corners {
                let finished = self.open.pop();
                if let Some(channel) = finished.and_then(|written| written.by) {
                    channel.points().into_iter().rev().for_each(|p| push(&mut self.contour, p));
                }
                continue;
            }
            let corner = (line.start() + written.corners) % line.corners;
            match self.channels.get(next_channel(&self.channels, line, written)) {
                Some(channel)
                    if channel.corner == corner && written.done < written.channels.len() =>
                {
                    let channel = *channel;
                    written.done += 1;
                    channel.points().into_iter().for_each(|p| push(&mut self.contour, p));
                    let opened = self.opened(channel.hole, Some(channel));
                    self.open.push(opened);
                }
                _ => {
                    written.corners += 1;
                    if let Some(&point) = self.points.get((line.first + corner) as usize) {
                        push(&mut self.contour, point);
                    }
                }
            }
        }
        if self.contour.first() == self.contour.last() {
            self.contour.pop();
        }
    }

    fn opened(&self, line: u32, by: Option<Channel>) -> Written {
        let start = self.channels.partition_point(|channel| channel.line < line);
        let end = self.channels.partition_point(|channel| channel.line <= line);
        Written { line, corners: 0, channels: start..end, done: 0, by }
    }
}

/// The channel of a line that comes next, where the line is written from its start.
fn next_channel(channels: &[Channel], line: &Line, written: &Written) -> usize {
    let range = written.channels.clone();
    let own = channels.get(range.clone()).unwrap_or_default();
    let first = own.partition_point(|channel| channel.corner < line.start());
    range.start + (first + written.done) % own.len().max(1)
}

/// Adds a point, unless the last one is the same.
fn push(contour: &mut Vec<Point>, point: Point) {
    if contour.last() != Some(&point) {
        contour.push(point);
    }
}

#[cfg(test)]
mod tests;
