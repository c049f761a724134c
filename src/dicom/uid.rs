//! Unique identifiers (PS3.5 section 9 and annex B).

/// Generates a new identifier below the UID root `2.25` (PS3.5 B.2): unique without a registered
/// prefix.
pub fn generate() -> String {
    format!("2.25.{}", uuid::Uuid::new_v4().as_u128())
}

/// Derives an identifier below `2.25` from a digest: a UUID of version 8 (RFC 9562 5.8) that starts
/// with the digest's first bits.
pub fn from_digest(digest: &[u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// Whether `uid` is a well-formed UID (PS3.5 section 9.1): at most 64 characters, components of
/// digits without leading zeros, separated by single periods.
pub fn is_valid(uid: &str) -> bool {
    uid.len() <= 64
        && !uid.is_empty()
        && uid.split('.').all(|c| {
            !c.is_empty()
                && c.bytes().all(|b| b.is_ascii_digit())
                && (c.len() == 1 || !c.starts_with('0'))
        })
}

/// Whether `uid` can be read as a UID: like [`is_valid`], but components may have leading zeros, as
/// some archives write them.
pub fn is_written(uid: &str) -> bool {
    (1..=64).contains(&uid.len())
        && uid.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_identifiers_are_valid_and_differ() {
        let (a, b) = (generate(), generate());
        assert!(is_valid(&a) && is_valid(&b), "{a} {b}");
        assert_ne!(a, b);
    }

    #[test]
    fn malformed_identifiers_are_refused() {
        for uid in ["", "1.", "1..2", "1.02", "1.2a", &"1.".repeat(40)] {
            assert!(!is_valid(uid), "{uid}");
            assert_eq!(is_written(uid), uid == "1.02", "{uid}");
        }
    }
}
