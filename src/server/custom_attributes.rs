//! `X-Amzn-SageMaker-Custom-Attributes`, the one header that SageMaker relays from the caller to the container.

use axum::http::HeaderName;

pub(super) const CUSTOM_ATTRIBUTES: HeaderName =
    HeaderName::from_static("x-amzn-sagemaker-custom-attributes");

/// The values of `NAME=VALUE` in the header's value, whose parts are separated by commas, semicolons or spaces.
pub(super) fn values_of<'h>(header: &'h str, name: &'h str) -> impl Iterator<Item = &'h str> {
    header
        .split([',', ';', ' '])
        .filter_map(move |part| part.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let found = |header, name| values_of(header, name).collect::<Vec<_>>();
        assert_eq!(found("model=a, models=b;model=c", "model"), ["a", "c"]);
        assert_eq!(found("traceparent=00-1-2-01", "traceparent"), ["00-1-2-01"]);
        assert!(found("", "model").is_empty());
    }
}
