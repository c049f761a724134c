//! Value parsers for clap.

use std::time::Duration;

/// Parses seconds, whole or decimal, up to one day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 86_400.0;
    match text.trim().parse::<f64>() {
        Ok(seconds) if (0.0..=DAY).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("must be 0 to 86400 seconds".to_owned()),
        Err(_) => Err("is not a number of seconds".to_owned()),
    }
}

/// Parses an integer from `LOW` to `HIGH`.
pub(super) fn bounded<const LOW: usize, const HIGH: usize>(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(n) if (LOW..=HIGH).contains(&n) => Ok(n),
        _ => Err(format!("must be an integer from {LOW} to {HIGH}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for bad in ["-1", "NaN", "inf", "1e9", "60s", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn integers_are_bounded() {
        assert_eq!(bounded::<1, 8>("8"), Ok(8));
        for bad in ["0", "9", "-1", "two", ""] {
            assert!(bounded::<1, 8>(bad).is_err(), "{bad}");
        }
    }
}
