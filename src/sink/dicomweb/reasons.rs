//! Descriptions of Failure Reason and Warning Reason in the response to a store (PS3.18 annex
//! I.2.2, with the codes of PS3.4 table B.2-1 and PS3.7 annex C).

/// Whether a code means that the archive already has the instance: Duplicate SOP Instance (PS3.7
/// C.5.4), or the code that Azure's DICOM service uses instead.
pub(super) fn is_duplicate(code: u16) -> bool {
    matches!(code, 0x0111 | 0xB00E)
}

/// Describes a failure code.
pub(super) fn failure(code: u16) -> String {
    let meaning = match code {
        0x0105 => "no such attribute",
        0x0106 => "an attribute's value is not allowed",
        0x0110 => "processing failed",
        0x0112 => "no such instance",
        0x0117 => "the instance's UID is not valid",
        0x0118 => "no such SOP class",
        0x0119 => "the instance is known with another SOP class",
        0x0120 => "an attribute is missing",
        0x0121 => "an attribute has no value",
        0x0122 => "its SOP class is not supported",
        0x0124 => "not authorized",
        0x0213 => "resources are exhausted",
        0xA700..=0xA7FF => "the archive is out of resources",
        0xA900..=0xA9FF => "it does not match its SOP class",
        0xC122 => "its transfer syntax is not supported",
        0xC409 => "it conflicts with what the archive has",
        0xC000..=0xCFFF => "the archive cannot understand it",
        _ => "for a reason that the standard does not list",
    };
    format!("{meaning} ({code:04X}H)")
}

/// Describes a warning code.
pub(super) fn warning(code: u16) -> String {
    let meaning = match code {
        0xB000 => "the archive changed elements of it",
        0xB006 => "the archive discarded elements of it",
        0xB007 => "it does not match its SOP class",
        _ => "the archive warns for a reason that the standard does not list",
    };
    format!("{meaning} ({code:04X}H)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_codes() {
        assert_eq!(failure(0x0122), "its SOP class is not supported (0122H)");
        assert!(failure(0xA701).starts_with("the archive is out of resources"));
        assert!(failure(0xA9FF).starts_with("it does not match"));
        assert!(failure(0xC001).starts_with("the archive cannot understand"));
        assert!(failure(0xC122).starts_with("its transfer syntax"));
        assert_eq!(failure(7), "for a reason that the standard does not list (0007H)");
        assert!(warning(0xB000).ends_with("(B000H)"));
        assert!(is_duplicate(0x0111) && is_duplicate(45070) && !is_duplicate(0x0110));
    }
}
