//! The foreground selection of `CropForegroundd` and its bounding box.

use ndarray::{ArrayView4, Axis};
use rayon::prelude::*;
use serde_json::Value;

use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};

/// `select_fn` and `channel_indices`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Selection {
    comparison: Comparison,
    bound: f32,
    channels: Option<Vec<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    NotEqual,
}

impl Selection {
    /// Parses the arguments. `select_fn` may compare with a number; without it, values above 0 are
    /// foreground.
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let (comparison, bound) = match args.raw("select_fn") {
            None => (Comparison::Above, 0.0),
            Some(function) => parse(function).ok_or_else(|| {
                args.invalid("select_fn", "a lambda that compares its argument with a number")
            })?,
        };
        let channels = match args.whole_numbers("channel_indices")? {
            None => None,
            Some(list) => Some(
                list.into_iter()
                    .map(|c| usize::try_from(c).ok())
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| args.invalid("channel_indices", "numbers of at least 0"))?,
            ),
        };
        Ok(Self { comparison, bound: bound as f32, channels })
    }

    fn takes(&self, value: f32) -> bool {
        match self.comparison {
            Comparison::Above => value > self.bound,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Below => value < self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Equal => value == self.bound,
            Comparison::NotEqual => value != self.bound,
        }
    }
}

/// Parses a lambda of one parameter that compares it with a number, or MONAI's `is_positive`.
fn parse(function: &Value) -> Option<(Comparison, f64)> {
    if let Some(name) = function.get("$symbol").and_then(Value::as_str) {
        let default = name.rsplit('.').next() == Some("is_positive");
        return default.then_some((Comparison::Above, 0.0));
    }
    let lambda = function.get("$lambda")?;
    let [parameter] = lambda.get("params")?.as_array()?.as_slice() else { return None };
    let words: Vec<&str> = lambda.get("body")?.as_str()?.split(' ').collect();
    let [operand, operator, bound] = words[..] else { return None };
    if operand != parameter.as_str()? {
        return None;
    }
    let comparison = match operator {
        ">" => Comparison::Above,
        ">=" => Comparison::AtLeast,
        "<" => Comparison::Below,
        "<=" => Comparison::AtMost,
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        _ => return None,
    };
    // A negative value that replaced a reference is in parentheses.
    let bare = bound.strip_prefix('(').and_then(|b| b.strip_suffix(')')).unwrap_or(bound);
    let bound: f64 = bare.parse().ok()?;
    bound.is_finite().then_some((comparison, bound))
}

/// Returns the first and last foreground index along X, Y, Z over the selected channels; `None` without
/// foreground.
pub(super) fn bounding_box(
    data: ArrayView4<f32>,
    select: &Selection,
) -> Result<Option<[(usize, usize); 3]>> {
    let channels = data.dim().0;
    let chosen = match &select.channels {
        Some(list) => list.clone(),
        None => (0..channels).collect(),
    };
    let mut found: Option<[(usize, usize); 3]> = None;
    for channel in chosen {
        if channel >= channels {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("channel_indices names channel {channel}, the image has {channels}"),
            ));
        }
        let view = data.index_axis(Axis(0), channel);
        // Planes across the axis that varies slowest in memory.
        let slowest = (0..3).max_by_key(|&a| view.strides()[a].unsigned_abs()).unwrap_or(0);
        let of_channel = view
            .axis_iter(Axis(slowest))
            .into_par_iter()
            .enumerate()
            .filter_map(|(plane, values)| {
                let mut found: Option<[(usize, usize); 2]> = None;
                for ((a, b), &v) in values.indexed_iter() {
                    if select.takes(v) {
                        found = Some(union(found, [(a, a), (b, b)]));
                    }
                }
                let [a, b] = found?;
                let mut box_ = vec![a, b];
                box_.insert(slowest, (plane, plane));
                <[(usize, usize); 3]>::try_from(box_).ok()
            })
            .reduce_with(|a, b| union(Some(a), b));
        if let Some(of_channel) = of_channel {
            found = Some(union(found, of_channel));
        }
    }
    Ok(found)
}

/// Returns the smallest box around both.
fn union<const N: usize>(
    a: Option<[(usize, usize); N]>,
    b: [(usize, usize); N],
) -> [(usize, usize); N] {
    let Some(a) = a else { return b };
    std::array::from_fn(|i| (a[i].0.min(b[i].0), a[i].1.max(b[i].1)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_lambdas() {
        let lambda = |body: &str| parse(&json!({"$lambda": {"params": ["x"], "body": body}}));
        assert_eq!(lambda("x > 0"), Some((Comparison::Above, 0.0)));
        assert_eq!(lambda("x >= -500.5"), Some((Comparison::AtLeast, -500.5)));
        assert_eq!(lambda("x > (-0.5)"), Some((Comparison::Above, -0.5)));
        assert_eq!(lambda("x != 0"), Some((Comparison::NotEqual, 0.0)));
        for body in ["y > 0", "x > y", "x > 0 and x < 5", "x.sum() > 0", "x > nan", "x"] {
            assert_eq!(lambda(body), None, "{body}");
        }
        let symbol = parse(&json!({"$symbol": "monai.transforms.utils.is_positive"}));
        assert_eq!(symbol, Some((Comparison::Above, 0.0)));
    }
}
