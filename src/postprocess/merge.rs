//! `Lambdad` that converts masks to labels: nested `torch.where`, as used at the end of brain tumour
//! bundles.

use ndarray::{Array3, Array4, Axis, ShapeBuilder};
use rayon::prelude::*;

use super::Segmentation;
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};

/// Merges masks into labels: the first case whose mask is set gives its label; without any, the label
/// is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Channel of the mask, and its label.
    pub cases: Vec<(usize, u8)>,
}

/// The supported form of function.
const FORM: &str = "lambda x: torch.where(x[[CHANNEL]] > 0, LABEL, …), nested, with 0 at the end";

impl Merge {
    /// Parses the `func` of `Lambdad`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] for a function of any other form.
    pub fn from_args(args: &mut Args) -> Result<Self> {
        args.ignore(&["inv_func", "track_meta", "overwrite"]);
        let lambda = args.raw("func").and_then(|f| f.get("$lambda"));
        let parts = lambda.and_then(|lambda| {
            let [parameter] = lambda.get("params")?.as_array()?.as_slice() else { return None };
            Some((parameter.as_str()?, lambda.get("body")?.as_str()?))
        });
        let cases = parts.and_then(|(parameter, body)| {
            let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
            cases(&body, parameter)
        });
        match cases {
            Some(cases) => Ok(Self { cases }),
            None => Err(args.invalid("func", FORM)),
        }
    }

    /// Converts masks to labels in place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] for labels, or for masks without a channel that a case names.
    pub fn apply(&self, segmentation: &mut Segmentation) -> Result<()> {
        let labels = match &*segmentation {
            Segmentation::Masks(masks) => self.labels(masks)?,
            Segmentation::Sets(sets) => {
                self.check(sets.classes())?;
                sets.labels(|set| {
                    let has =
                        |channel: usize| set.iter().any(|class| usize::from(*class) == channel);
                    self.cases.iter().find(|(channel, _)| has(*channel)).map_or(0, |case| case.1)
                })?
            }
            Segmentation::Labels(_) => {
                return Err(invalid("merges masks, but there is a label map already".to_owned()));
            }
        };
        *segmentation = Segmentation::Labels(labels);
        Ok(())
    }

    fn check(&self, channels: usize) -> Result<()> {
        match self.cases.iter().find(|(channel, _)| *channel >= channels) {
            None => Ok(()),
            Some((channel, _)) => Err(invalid(format!(
                "reads channel {channel}, the network gives {channels} (counted from 0)"
            ))),
        }
    }

    fn labels(&self, masks: &Array4<u8>) -> Result<Array3<u8>> {
        let (channels, x, y, z) = masks.dim();
        self.check(channels)?;
        let mut labels = Array3::<u8>::zeros((x, y, z).f());
        labels.axis_iter_mut(Axis(2)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
            // In reverse order, so that earlier cases take precedence.
            for &(channel, label) in self.cases.iter().rev() {
                let mask = masks.index_axis(Axis(0), channel);
                ndarray::Zip::from(&mut plane)
                    .and(&mask.index_axis(Axis(2), z))
                    .for_each(|l, &m| *l = if m > 0 { label } else { *l });
            }
        });
        Ok(labels)
    }
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("postprocessing: Lambdad {why}"))
}

/// Parses the cases of `torch.where(P[[C]]>0,LABEL,REST)`; `None` for anything else.
fn cases(body: &str, parameter: &str) -> Option<Vec<(usize, u8)>> {
    let mut cases = Vec::new();
    let mut rest = unwrapped(body);
    while let Some(inner) = rest.strip_prefix("torch.where(").and_then(|r| r.strip_suffix(')')) {
        let (condition, values) = inner.split_once(',')?;
        let (label, next) = values.split_once(',')?;
        cases.push((channel(unwrapped(condition), parameter)?, label.parse().ok()?));
        rest = unwrapped(next);
    }
    (rest == "0" && !cases.is_empty()).then_some(cases)
}

/// Parses the channel of `P[[C]]>0` or `P[C:C+1]>0` with numbers. Masks are 0 or 1, so any bound from 0
/// to below 1 is equivalent.
fn channel(condition: &str, parameter: &str) -> Option<usize> {
    let (subject, bound) = condition.split_once('>')?;
    if !(0.0..1.0).contains(&bound.parse::<f64>().ok()?) {
        return None;
    }
    let index = subject.strip_prefix(parameter)?.strip_prefix('[')?.strip_suffix(']')?;
    if let Some((from, to)) = index.split_once(':') {
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        return (to == from + 1).then_some(from);
    }
    index.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Removes parentheses around the whole text.
fn unwrapped(text: &str) -> &str {
    let mut depth = 0;
    let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) else { return text };
    for c in inner.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return text,
            ')' => depth -= 1,
            _ => {}
        }
    }
    unwrapped(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_wheres_are_cases_in_their_order() {
        let body = "torch.where(x[[2]]>0,4,torch.where(x[[0]]>0,1,torch.where(x[[1]]>0,2,0)))";
        assert_eq!(cases(body, "x"), Some(vec![(2, 4), (0, 1), (1, 2)]));
        assert_eq!(cases("(torch.where((a[1:2]>0.5),7,0))", "a"), Some(vec![(1, 7)]));
        for other in [
            "x",
            "0",
            "torch.where(x[[2]]>0,4,1)",
            "torch.where(x[[2]]>0,4,x)",
            "torch.where(y[[2]]>0,4,0)",
            "torch.where(x[2]>0,4,0)",
            "torch.where(x[[2]]>1,4,0)",
            "torch.where(x[[2]]<0,4,0)",
            "torch.where(x[[2]]>0,400,0)",
            "torch.where(x[[2]]>0,4,torch.where(x[[1]]>0,2,0)",
            "torch.where(x[[2]]>0,torch.where(x[[1]]>0,2,0),4)",
        ] {
            assert_eq!(cases(other, "x"), None, "{other}");
        }
    }

    #[test]
    fn the_first_mask_that_says_yes_wins() {
        let mut masks = Array4::<u8>::zeros((3, 4, 1, 1));
        for (channel, x) in [(0, 0), (1, 0), (1, 1), (2, 0), (0, 2), (1, 2)] {
            masks[(channel, x, 0, 0)] = 1;
        }
        let mut segmentation = Segmentation::Masks(masks);
        let merge = Merge { cases: vec![(2, 4), (0, 1), (1, 2)] };
        merge.apply(&mut segmentation).unwrap();
        let Segmentation::Labels(labels) = &segmentation else { panic!("masks") };
        assert_eq!(labels.iter().copied().collect::<Vec<_>>(), [4, 2, 1, 0]);
        assert!(merge.apply(&mut segmentation).is_err());
        let mut few = Segmentation::Masks(Array4::zeros((2, 1, 1, 1)));
        assert!(merge.apply(&mut few).unwrap_err().message().contains("channel 2"));
    }
}
