//! `GetDICOMInstanceFrames`.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;

use super::answer;
use super::find::{self, Named};
use super::instance::Which;
use super::negotiate::{FramesForm, frames_forms};
use super::pixels::Pixels;
use crate::emulator::failure::Failure;
use crate::emulator::service::{Answer, Shared, blocking};

/// `GetDICOMInstanceFrames`: returns frames in the order of their numbers in the path.
pub(super) async fn get(
    State(service): Shared,
    Path((datastore, study, series, uid, list)): Path<(String, String, String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer {
    let accepted = answer::accepted(&headers);
    let named = Named { datastore, study, series, image_set: which.image_set_id };
    blocking(move || {
        let (set, flat) = find::series(&service, &named)?.take(&uid)?;
        let numbers = numbers(&list, flat.frame_ids().count())?;
        let (datastore, id) = (&named.datastore, &set.image_set_id);
        let pixels = Pixels::read(&service, datastore, id, &flat, Some(&numbers))?;
        for FramesForm { syntax, media_type } in frames_forms(&accepted, pixels.stored())? {
            let Some(syntax) = pixels.answered(&syntax) else { continue };
            let frames = pixels.frames(syntax)?;
            let kind = format!("{media_type}; transfer-syntax={syntax}");
            return Ok(answer::multipart_related(&media_type, &kind, &frames)?);
        }
        Err(Failure::not_acceptable(
            "the frames cannot be had in a transfer syntax that Accept names; transfer-syntax=* takes \
             the stored one",
        ))
    })
    .await
}

/// Parses a list of frame numbers and returns zero-based indices.
fn numbers(list: &str, frames: usize) -> Result<Vec<usize>, Failure> {
    let invalid = || Failure::validation("frames are numbers from 1 on, each once, between commas");
    let mut seen = BTreeSet::new();
    let one = |text: &str| {
        let number = text.trim().parse::<usize>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(invalid)?;
        if number > frames {
            let problem = format!("the instance has {frames} frames and none of number {number}");
            return Err(Failure::not_found(problem));
        }
        if !seen.insert(number) {
            return Err(invalid());
        }
        Ok(number - 1)
    };
    list.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_of_frames_there_are() {
        assert_eq!(numbers("3,1, 2", 3).unwrap(), [2, 0, 1]);
        for bad in ["", "0", "1,1", "4", "a", "1,", "-1", "99999999999999999999"] {
            assert!(numbers(bad, 3).is_err(), "{bad}");
        }
    }
}
