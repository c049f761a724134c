//! Media types as the DICOM web services write them (PS3.18 section 8.7): `type/subtype` and
//! parameters, of which `type`, `boundary` and `transfer-syntax` matter.
//!
//! Parameter values are accepted with or without quotes: clients and the documentation of archives
//! write `type=application/octet-stream`, which RFC 9110 (section 5.6.2) requires to be quoted.

/// Limits on the characters of one media type and on its parameters.
const MOST_CHARACTERS: usize = 1024;
const MOST_PARAMETERS: usize = 16;

/// A media type, or a media range of `Accept`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// Names in lower case, and values as written.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Parses one media type; `None` if `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MOST_CHARACTERS {
            return None;
        }
        let mut pieces = outside_quotes(text, ';').into_iter();
        let essence = pieces.next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut parameters = Vec::new();
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=')?;
            if parameters.len() == MOST_PARAMETERS || !is_token(name.trim()) {
                return None;
            }
            parameters.push((name.trim().to_ascii_lowercase(), unquoted(value.trim())?));
        }
        Some(Self { essence, parameters })
    }

    /// Parses the media ranges of an `Accept` header, skipping malformed ones.
    pub fn parse_list(text: &str) -> Vec<Self> {
        outside_quotes(text, ',').into_iter().filter_map(Self::parse).collect()
    }

    /// Returns the value of a parameter; `name` is in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a response of the media type `essence` is within this range.
    pub fn takes(&self, essence: &str) -> bool {
        match self.essence.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => essence.split('/').next() == Some(kind),
            None => self.essence == essence,
        }
    }
}

/// Whether `text` is a token of RFC 9110 section 5.6.2, which may include `*`.
fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// Splits `text` at the separators that are not in quotes.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            _ if was_escaped => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
    .collect()
}

/// Returns the value of a parameter without its quotes.
fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        let fits = |c: char| c.is_ascii_graphic() && c != '"';
        return value.chars().all(fits).then(|| value.to_owned());
    };
    let mut out = String::new();
    let mut characters = rest.strip_suffix('"')?.chars();
    while let Some(c) = characters.next() {
        out.push(match c {
            '\\' => characters.next()?,
            '"' => return None,
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_and_without_quotes() {
        let quoted = MediaType::parse(
            "Multipart/Related; type=\"application/dicom\"; boundary=\"a;b\\\"c\"; Transfer-Syntax=*",
        )
        .unwrap();
        assert_eq!(quoted.essence, "multipart/related");
        assert_eq!(quoted.parameter("type"), Some("application/dicom"));
        assert_eq!(quoted.parameter("boundary"), Some("a;b\"c"));
        assert_eq!(quoted.parameter("transfer-syntax"), Some("*"));
        assert_eq!(quoted.parameter("charset"), None);
        let plain = MediaType::parse("multipart/related;type=application/octet-stream").unwrap();
        assert_eq!(plain.parameter("type"), Some("application/octet-stream"));
    }

    #[test]
    fn ranges_take_what_is_in_them() {
        let list = MediaType::parse_list("application/dicom; q=0.5, image/*,broken, */*");
        assert_eq!(list.len(), 3);
        assert!(list[0].takes("application/dicom") && !list[0].takes("application/dicom+json"));
        assert!(list[1].takes("image/jphc") && !list[1].takes("video/mp4"));
        assert!(list[2].takes("application/octet-stream"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "dicom",
            "a/b/c",
            "a/",
            "a b/c",
            "a/b; x",
            "a/b; =y",
            "a/b; x=\"y",
            "a/b; x=\"y\"z",
        ] {
            assert_eq!(MediaType::parse(text), None, "{text}");
        }
        assert_eq!(MediaType::parse(&format!("a/b; x={}", "y".repeat(2000))), None);
        assert_eq!(MediaType::parse(&format!("a/b{}", "; x=y".repeat(17))), None);
    }
}
