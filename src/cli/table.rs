//! Formats reports as tables for people.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::{Map, Value};

use super::console::shown;

/// Minimum width of a table: on a narrower terminal it stays readable but overflows.
const NARROWEST: u16 = 40;

/// Only a line below the header.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Formats a table as wide as its content, but at most `width`; the columns `right` are
/// right-aligned.
pub(super) fn table(
    header: &[&str],
    right: &[usize],
    rows: Vec<Vec<String>>,
    width: u16,
) -> String {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.max(NARROWEST))
        .set_header(header.to_vec())
        .add_rows(rows);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Formats the report of one result as `run` prints it on a terminal of `width` columns.
pub(super) fn result(report: &Map<String, Value>, width: u16) -> String {
    let mut text = vec![heading(report), segments(report, width), String::new()];
    text.extend(outputs(report));
    for warning in list(report, "warnings").iter().filter_map(Value::as_str) {
        text.push(format!("warning: {}", shown(warning)));
    }
    text.push(times(report));
    text.join("\n")
}

fn list<'r>(report: &'r Map<String, Value>, name: &str) -> &'r [Value] {
    report.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().map(shown).unwrap_or_default()
}

/// Joins the numbers of a list with crosses.
fn times_each(value: &Value, decimals: usize) -> String {
    let numbers = value.as_array().into_iter().flatten().filter_map(Value::as_f64);
    numbers.map(|number| format!("{number:.decimals$}")).collect::<Vec<_>>().join(" × ")
}

/// Formats the model, the grid and, if the series holds several, the volume.
fn heading(report: &Map<String, Value>) -> String {
    let geometry = report.get("geometry").unwrap_or(&Value::Null);
    let mut heading = format!(
        "{}: {} voxels of {} mm",
        report.get("model").map(text).unwrap_or_default(),
        times_each(&geometry["dimensions"], 0),
        times_each(&geometry["spacing"], 2),
    );
    if let Some(volume) = report.get("volume") {
        let name = text(&volume["name"]);
        heading.push_str(&format!(", volume {} of {}: {name}", volume["number"], volume["of"]));
    }
    heading
}

fn segments(report: &Map<String, Value>, width: u16) -> String {
    let units = report.get("units").map(text);
    let rows = list(report, "segments").iter().map(segment).collect();
    let values = match units {
        Some(units) => format!("mean ± SD ({units})"),
        None => "mean ± SD".to_owned(),
    };
    let header = ["#", "segment", "voxels", "mL", &values, "parts", "cut off at"];
    table(&header, &[0, 2, 3, 4, 5], rows, width)
}

fn segment(segment: &Value) -> Vec<String> {
    let number = |value: &Value, decimals: usize| {
        value.as_f64().map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
    };
    let values = &segment["statistics"];
    let spread = match values["mean"].as_f64() {
        Some(mean) => format!("{mean:.1} ± {}", number(&values["standardDeviation"], 1)),
        None => "–".to_owned(),
    };
    let touches = segment["touches"].as_array().into_iter().flatten();
    let touches: Vec<String> = touches.map(text).collect();
    vec![
        number(&segment["number"], 0),
        text(&segment["label"]),
        number(&segment["voxels"], 0),
        number(&segment["millilitres"], 2),
        spread,
        number(&segment["components"]["count"], 0),
        touches.join(", "),
    ]
}

/// Formats one line per output: its kind, size and location.
fn outputs(report: &Map<String, Value>) -> Vec<String> {
    let outputs = list(report, "outputs");
    let longest = outputs.iter().map(|output| text(&output["kind"]).chars().count()).max();
    let longest = longest.unwrap_or(0);
    let line = |output: &Value| {
        let uri = output["uri"].as_str().unwrap_or_default();
        let place = shown(uri.strip_prefix("file://").unwrap_or(uri));
        let bytes = bytes(output["bytes"].as_u64().unwrap_or(0));
        format!("{:longest$}  {bytes:>9}  {place}", text(&output["kind"]))
    };
    outputs.iter().map(line).collect()
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// Formats the seconds per stage and the execution provider in one line.
fn times(report: &Map<String, Value>) -> String {
    let timings = report.get("timings").and_then(Value::as_object);
    let seconds = |(name, value): (&String, &Value)| {
        format!("{} {:.2}", shown(name), value.as_f64().unwrap_or(0.0))
    };
    let all: Vec<String> = timings.into_iter().flatten().map(seconds).collect();
    let provider = report.get("executionProvider").map(text).unwrap_or_default();
    format!("seconds: {} ({provider})", all.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Map<String, Value> {
        let report = json!({
            "model": "organs",
            "geometry": {"dimensions": [96, 96, 64], "spacing": [4.0, 4.0, 5.5]},
            "units": "HU",
            "volume": {"number": 2, "of": 3, "name": "EchoTime=4.6\x1b[2J"},
            "segments": [
                {"number": 1, "label": "Liver", "voxels": 12345, "millilitres": 1086.36,
                 "components": {"count": 2}, "touches": ["firstSlice"],
                 "statistics": {"mean": 101.26, "standardDeviation": 9.97}},
                {"number": 2, "label": "肝\u{202e}", "voxels": 0, "millilitres": 0.0},
            ],
            "outputs": [
                {"kind": "dicom-seg", "bytes": 123_456, "uri": "file:///out/a\nb.seg.dcm"},
                {"kind": "sr", "bytes": 999, "uri": "file:///out/x.sr.dcm"},
            ],
            "warnings": ["the series\x07 is odd"],
            "executionProvider": "CPUExecutionProvider",
            "timings": {"frames": 0.25, "total": 1.5},
        });
        report.as_object().unwrap().clone()
    }

    #[test]
    fn a_report_is_a_table_its_files_and_its_times() {
        let text = result(&report(), 100);
        let line = |with: &str| {
            text.lines().find(|l| l.contains(with)).unwrap_or_else(|| panic!("{text}"))
        };
        assert!(
            text.starts_with(
                "organs: 96 × 96 × 64 voxels of 4.00 × 4.00 × 5.50 mm, volume 2 of 3: "
            ),
            "{text}"
        );
        assert!(line("segment").contains("mean ± SD (HU)"), "{text}");
        let liver: Vec<&str> = line("Liver").split_whitespace().collect();
        assert_eq!(
            liver,
            ["1", "Liver", "12345", "1086.36", "101.3", "±", "10.0", "2", "firstSlice"]
        );
        let empty: Vec<&str> = line("肝").split_whitespace().collect();
        assert_eq!(empty, ["2", "肝\\u{202e}", "0", "0.00", "–", "–"]);
        assert_eq!(line("dicom-seg"), "dicom-seg     123 kB  /out/a\\nb.seg.dcm");
        assert_eq!(line("x.sr.dcm"), "sr             999 B  /out/x.sr.dcm");
        assert_eq!(line("odd"), "warning: the series\\u{7} is odd");
        assert_eq!(line("seconds"), "seconds: frames 0.25, total 1.50 (CPUExecutionProvider)");
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
    }

    #[test]
    fn a_table_fits_a_narrow_terminal() {
        for width in [0, 40, 60, 80, 200] {
            let text = segments(&report(), width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width.max(NARROWEST)), "{width}: {widest}\n{text}");
            assert!(text.contains("Liver") || width < 60, "{text}");
        }
    }

    #[test]
    fn a_report_of_nothing_is_no_panic() {
        assert!(result(&Map::new(), 80).contains("seconds"));
    }
}
