//! Dates and times of created objects.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::elements::Put;
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, Result};

/// Writes the current date and time of series, content and instance, in the source's Timezone Offset
/// From UTC or else in UTC.
pub(in crate::writers) fn put_times(source: &Dataset, to: &mut Dataset) -> Result<()> {
    const DATE: &[BorrowedFormatItem] = format_description!("[year][month][day]");
    const TIME: &[BorrowedFormatItem] = format_description!("[hour][minute][second]");
    let defect = |e| Error::internal("the current time cannot be written").caused_by(e);
    let now = now_at(source.text(tags::TIMEZONE_OFFSET_FROM_UTC).as_deref());
    let date = now.format(DATE).map_err(|e| defect(Box::new(e)))?;
    let time = now.format(TIME).map_err(|e| defect(Box::new(e)))?;
    let dates: [Tag; 3] = [tags::SERIES_DATE, tags::CONTENT_DATE, tags::INSTANCE_CREATION_DATE];
    for tag in dates {
        to.put_text(tag, VR::DA, &date);
    }
    for tag in [tags::SERIES_TIME, tags::CONTENT_TIME, tags::INSTANCE_CREATION_TIME] {
        to.put_text(tag, VR::TM, &time);
    }
    Ok(())
}

/// Returns the current time at an offset such as `+0100` (PS3.3 C.12.1.1.8), or in UTC without one.
fn now_at(offset: Option<&str>) -> OffsetDateTime {
    const OFFSET: &[BorrowedFormatItem] =
        format_description!("[offset_hour sign:mandatory][offset_minute]");
    let offset = offset.and_then(|text| UtcOffset::parse(text, OFFSET).ok());
    OffsetDateTime::now_utc().to_offset(offset.unwrap_or(UtcOffset::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_sources_offset() {
        assert_eq!(now_at(Some("+0130")).offset().whole_minutes(), 90);
        assert_eq!(now_at(Some("-0500")).offset().whole_minutes(), -300);
        assert_eq!(now_at(Some("nonsense")).offset(), UtcOffset::UTC);
        assert_eq!(now_at(None).offset(), UtcOffset::UTC);
    }
}
