use proptest::prelude::*;

use super::*;

fn mask(rows: &[&str]) -> Bits {
    let mut bits = Bits::default();
    bits.clear(rows.first().map_or(0, |row| row.len()), rows.len());
    for (y, row) in rows.iter().enumerate() {
        row.bytes().enumerate().filter(|(_, b)| *b == b'#').for_each(|(x, _)| {
            bits.add_run(y, x..x + 1);
        });
    }
    bits
}

fn random(columns: usize, rows: usize, inside: impl Fn(usize, usize) -> bool) -> Bits {
    let mut bits = Bits::default();
    bits.clear(columns, rows);
    for y in 0..rows {
        (0..columns).filter(|x| inside(*x, y)).for_each(|x| bits.add_run(y, x..x + 1));
    }
    bits
}

fn traced(mask: &Bits) -> Vec<Vec<Point>> {
    let mut contours = Vec::new();
    Tracer::default().trace(mask, |contour| contours.push(contour.to_vec()));
    contours
}

fn edges(contour: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    contour.iter().copied().zip(contour.iter().copied().cycle().skip(1))
}

/// Whether a point is inside by the even-odd rule.
fn inside(contour: &[Point], [x, y]: Point) -> bool {
    let crossed = edges(contour).filter(|&([ax, ay], [bx, by])| {
        // Half open, so that a corner counts for only one of its edges.
        if (ay > y) == (by > y) {
            return false;
        }
        let (x, y) = (i64::from(x - ax), i64::from(y - ay));
        let (dx, dy) = (i64::from(bx - ax), i64::from(by - ay));
        (x * dy < y * dx) == (dy > 0)
    });
    crossed.count() % 2 == 1
}

/// Returns the pixels whose centre is inside any contour.
fn by_centres(contours: &[Vec<Point>], columns: usize, rows: usize) -> Bits {
    random(columns, rows, |x, y| {
        let centre = [x as i32 * PIXEL, y as i32 * PIXEL];
        contours.iter().any(|contour| inside(contour, centre))
    })
}

/// Returns the mask that programs find that round points to whole pixels and fill including the border.
fn by_rounding(contours: &[Vec<Point>], columns: usize, rows: usize) -> Bits {
    let round = |v: i32| (v + PIXEL / 2).div_euclid(PIXEL);
    let rounded: Vec<Vec<Point>> = contours
        .iter()
        .map(|contour| contour.iter().map(|p| p.map(|v| round(v) * PIXEL)).collect())
        .collect();
    // On the border itself, inclusion decides, not the even-odd rule.
    let mut bits = by_centres(&rounded, columns, rows);
    for ([ax, ay], [bx, by]) in rounded.iter().flat_map(|contour| edges(contour)) {
        let (dx, dy) = ((bx - ax) / PIXEL, (by - ay) / PIXEL);
        assert!(dx == 0 || dy == 0 || dx.abs() == dy.abs(), "an edge in another direction");
        for step in 0..=dx.abs().max(dy.abs()) {
            let x = ax / PIXEL + dx.signum() * step;
            let y = ay / PIXEL + dy.signum() * step;
            bits.add_run(y as usize, x as usize..x as usize + 1);
        }
    }
    bits
}

/// Returns twice the area; positive if clockwise as seen in the image.
fn doubled_area(contour: &[Point]) -> i64 {
    edges(contour)
        .map(|([ax, ay], [bx, by])| i64::from(ax) * i64::from(by) - i64::from(bx) * i64::from(ay))
        .sum()
}

fn check(mask: &Bits, columns: usize, rows: usize) {
    let contours = traced(mask);
    assert_eq!(&by_centres(&contours, columns, rows), mask, "by centres");
    assert_eq!(&by_rounding(&contours, columns, rows), mask, "by rounding");
    for contour in &contours {
        assert!(contour.len() >= 3);
        assert!(doubled_area(contour) > 0, "contours run clockwise");
        for (a, b) in edges(contour) {
            assert_ne!(a, b);
        }
    }
    let twice = |p: Point| contours.iter().flatten().filter(|q| **q == p).count() > 2;
    assert!(!contours.iter().flatten().any(|p| twice(*p)), "contours meet at a point");
}

#[test]
fn a_pixel_is_a_diamond() {
    let contours = traced(&mask(&["...", ".#.", "..."]));
    assert_eq!(contours, [[[200, 101], [299, 200], [200, 299], [101, 200]]]);
}

#[test]
fn only_corners_are_kept() {
    let contours = traced(&mask(&["####", "####", "####"]));
    let expected =
        [[0, -99], [600, -99], [699, 0], [699, 400], [600, 499], [0, 499], [-99, 400], [-99, 0]];
    assert_eq!(contours, [expected]);
    // A slanted border of any length is a single edge.
    let contours = traced(&mask(&["#....", "##...", "###..", "####.", "#####"]));
    assert_eq!(contours.iter().map(Vec::len).collect::<Vec<_>>(), [6]);
}

#[test]
fn pixels_that_touch_at_a_corner_are_apart() {
    assert_eq!(traced(&mask(&["#.", ".#"])).len(), 2);
    assert_eq!(traced(&mask(&[".#", "#."])).len(), 2);
    // The pixel that they surround is outside.
    let ring = traced(&mask(&[".#.", "#.#", ".#."]));
    assert_eq!(ring.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4]);
}

#[test]
fn a_hole_is_joined_by_a_channel() {
    let rows = ["#####", "#####", "##.##", "#####", "#####"];
    let contours = traced(&mask(&rows));
    let [contour] = &contours[..] else { panic!("{contours:?}") };
    // Eight corners of the square, four of the hole, and the channel: four points, each visited twice.
    assert_eq!(contour.len(), 8 + 4 + 4 + 4 - 1);
    let channel = [[400, -99], [450, 0], [450, 200], [400, 299]];
    let there = contour.windows(4).position(|points| points == channel).unwrap();
    let back = contour.windows(4).position(|points| points.iter().rev().eq(&channel)).unwrap();
    assert_eq!(there + 4 + 4 - 1, back);
    check(&mask(&rows), 5, 5);
}

#[test]
fn islands_in_holes_in_islands() {
    let rows = [
        "###########",
        "#.........#",
        "#.#######.#",
        "#.#.....#.#",
        "#.#.###.#.#",
        "#.#.#.#.#.#",
        "#.#.###.#.#",
        "#.#.....#.#",
        "#.#######.#",
        "#.........#",
        "###########",
    ];
    assert_eq!(traced(&mask(&rows)).len(), 3);
    check(&mask(&rows), 11, 11);
}

#[test]
fn holes_hang_on_each_other() {
    let rows = [
        "#########",
        "#.#.#.#.#",
        "#########",
        "#.##..#.#",
        "####.####",
        "#.#...#.#",
        "#########",
        "##.#.#.##",
        "#########",
    ];
    assert_eq!(traced(&mask(&rows)).len(), 1);
    check(&mask(&rows), 9, 9);
    // A column of ten thousand holes, each joined to the one above.
    let rows = 20_001;
    let bits = random(3, rows, |x, y| x != 1 || y % 2 == 0);
    let contours = traced(&bits);
    assert_eq!(contours.len(), 1);
    // One end of each channel lies on the hole above.
    assert!(contours[0].len() > 10_000 * 8, "{}", contours[0].len());
}

#[test]
fn the_area_is_that_of_the_pixels() {
    let disc = |x: usize, y: usize| (x as f64 - 60.0).hypot(y as f64 - 60.0) < 50.5;
    let bits = random(121, 121, disc);
    let pixels = (0..121).flat_map(|y| (0..121).map(move |x| disc(x, y))).filter(|d| *d).count();
    let contours = traced(&bits);
    let area = contours.iter().map(|c| doubled_area(c)).sum::<i64>() as f64 / 2.0;
    let area = area / f64::from(PIXEL * PIXEL);
    assert!((area / pixels as f64 - 1.0).abs() < 0.001, "{area} of {pixels}");
}

#[test]
fn nothing_and_everything() {
    assert!(traced(&mask(&[])).is_empty());
    assert!(traced(&mask(&["....", "...."])).is_empty());
    for (columns, rows) in [(1, 1), (1, 70), (70, 1), (64, 64), (129, 3)] {
        check(&random(columns, rows, |_, _| true), columns, rows);
    }
}

#[test]
fn masks_follow_each_other_in_the_same_memory() {
    let mut tracer = Tracer::default();
    let large = random(90, 40, |x, y| (x * 7 + y * 3) % 5 != 0);
    let small = mask(&["##", "#."]);
    let mut expected = traced(&large);
    expected.extend(traced(&small));
    let mut found = Vec::new();
    let mut bits = large.clone();
    tracer.trace(&bits, |contour| found.push(contour.to_vec()));
    bits.clear(2, 2);
    bits.add_run(0, 0..2);
    bits.add_run(1, 0..1);
    tracer.trace(&bits, |contour| found.push(contour.to_vec()));
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Noise of any density, including at the borders.
    #[test]
    fn contours_give_the_mask_again(
        (columns, rows) in (1_usize..24, 1_usize..24),
        density in 1_u8..=9,
        noise in prop::collection::vec(0_u8..10, 24 * 24),
    ) {
        check(&random(columns, rows, |x, y| noise[y * 24 + x] < density), columns, rows);
    }

    /// Blobs with holes that contain blobs.
    #[test]
    fn contours_of_nested_shapes_give_the_mask_again(
        boxes in prop::collection::vec((0_usize..70, 0_usize..30, 1_usize..40, 1_usize..20), 1..12),
    ) {
        let covered = |x: usize, y: usize| {
            let in_box = |&(left, top, width, height): &(usize, usize, usize, usize)| {
                (left..left + width).contains(&x) && (top..top + height).contains(&y)
            };
            boxes.iter().filter(|b| in_box(b)).count() % 2 == 1
        };
        check(&random(80, 36, covered), 80, 36);
    }
}
